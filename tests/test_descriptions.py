"""Descriptions from dicts, tables and files."""

import json

import pandas as pd
import pytest

from fade_lens.descriptions import Description, parse_indices, read_descriptions
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


def test_white_space_is_tidied():
    assert read_descriptions({1: " a \n b "})[0] == Description(1, "a b", "a dict")


def test_indices_of_a_command_line():
    assert parse_indices("0:3,512, 7") == (0, 1, 2, 512, 7)
    assert parse_indices(":2,1") == (0, 1)
    with pytest.raises(InputError, match="0:200,512"):
        parse_indices("a:b")
