"""Descriptions from dicts, tables and files."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from fade_lens.descriptions import Description, parse_indices, read_descriptions, whole_number
from fade_lens.errors import InputError

WANTED = {9: "the word 'new'", 11: "the substring 'Rel'"}


def pairs(found):
    return {d.index: d.text for d in found}


def test_in_memory():
    assert pairs(read_descriptions(WANTED)) == WANTED
    assert pairs(read_descriptions(pd.Series(WANTED))) == WANTED
    frame = pd.DataFrame({"index": list(WANTED), "description": list(WANTED.values())})
    assert pairs(read_descriptions(frame)) == WANTED
    assert pairs(read_descriptions(frame.set_index("index"))) == WANTED
    assert pairs(read_descriptions(frame.rename(columns={"index": "latent", "description": "explanation"}))) == WANTED
    assert read_descriptions(read_descriptions(WANTED)) == read_descriptions(WANTED)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "dict.json"])
def test_files(tmp_path, kind):
    path = tmp_path / f"labels.{kind}"
    rows = [{"index": str(i), "description": t} for i, t in WANTED.items()]
    if kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(WANTED if kind.startswith("dict") else rows))
    found = read_descriptions(path)
    assert pairs(found) == WANTED
    assert found[0].origin == path.name


def test_a_feature_may_have_several_descriptions():
    found = read_descriptions(pd.DataFrame({"index": [1, 1], "description": ["a", "b"]}))
    assert [d.text for d in found] == ["a", "b"]
    assert len({d.key for d in found}) == 2


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "no descriptions"),
        ({3: ""}, "feature 3 is empty"),
        ({3: "  \n"}, "feature 3 is empty"),
        ({3: None}, "feature 3 is empty"),
        ({"x": "a"}, "index 'x' is not a whole number"),
        ({-1: "a"}, "-1 is not a whole number"),
        ({1.5: "a"}, "1.5 is not a whole number"),
        ({True: "a"}, "True is not a whole number"),
        (pd.DataFrame({"index": [1, 1], "description": ["a", " a "]}), "same description twice"),
        (pd.DataFrame({"index": [1], "label": ["a"]}), "no column 'description'.*index, label"),
        (7, "descriptions is int"),
    ],
)
def test_what_cannot_be_used(given, message):
    with pytest.raises(InputError, match=message):
        read_descriptions(given)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_descriptions(tmp_path / "no.csv")
    for name, content, message in [
        ("a.txt", "x", "kind that is not read"),
        ("b.json", "3", "must hold"),
        ("c.json", "{", "not valid JSON"),
        ("d.jsonl", '{"index": 1, "description": "a"}\nnot json', "line 2"),
        ("e.csv", "index,label\n1,a\n", "no column 'description'"),
        ("f.csv", "", "empty"),
        ("g.json", "[]", "no descriptions"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=message):
            read_descriptions(tmp_path / name)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "index,description\n1,caf\u00e9\n".encode("latin-1"), "a.csv cannot be read.*UTF-8"),
        ("a.csv", "index,description\n1,a\n".encode("utf-16"), "a.csv cannot be read.*UTF-8"),
        ("a.csv", b"index,description\n1,a\n2,b,c\n", "a.csv cannot be read.*line 3"),
        ("a.csv", b'index,description\n1,"a\n', "a.csv cannot be read.*EOF inside string"),
        ("a.json", '{"1": "caf\u00e9"}'.encode("latin-1"), "a.json cannot be read.*UTF-8"),
        ("a.jsonl", '{"1": "a"}'.encode("utf-16"), "a.jsonl cannot be read.*UTF-8"),
        ("a.json", b"[" * 200_000, "a.json is not valid JSON"),
        ("a.json", b'{"1": "a", "1": "b"}', "a.json.*key '1' is there twice"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_descriptions(tmp_path / name)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_with_a_byte_order_mark_and_line_separators_inside_a_text(tmp_path, end):
    rows = [{"index": 1, "description": "a\u2028b"}, {"index": 2, "description": "c\x85d"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes(end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8-sig"))
    assert pairs(read_descriptions(path)) == {1: "a b", 2: "c d"}


@pytest.mark.parametrize("value", [7, 7.0, "7", " +7 ", np.int64(7), np.float32(7), np.array(7), Decimal(7)])
def test_whole_numbers(value):
    assert whole_number(value) == 7


@pytest.mark.parametrize(
    "value", [np.float32(1.9), Decimal("2.7"), np.True_, "1_0", "1.0", "-1", float("nan"), float("inf"), [1], None, 1j]
)
def test_numbers_that_are_no_index(value):
    with pytest.raises(InputError, match="not a whole number"):
        whole_number(value)


def test_white_space_is_tidied():
    assert read_descriptions({1: " a \n b "})[0] == Description(1, "a b", "a dict")


def test_indices_of_a_command_line():
    assert parse_indices("0:3,512, 7") == (0, 1, 2, 512, 7)
    assert parse_indices(":2,1") == (0, 1)
    with pytest.raises(InputError, match="0:200,512"):
        parse_indices("a:b")
