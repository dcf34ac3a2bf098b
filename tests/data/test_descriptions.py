"""Descriptions from dicts, tables and files."""

import gzip
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from fade_lens import neuronpedia
from fade_lens._util.errors import InputError
from fade_lens._util.record import from_plain, to_plain
from fade_lens.data.descriptions import Description, Provenance, parse_indices, read_descriptions, undescribed
from fade_lens.data.rows import whole_number

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
    assert len({d.id for d in found}) == 2


RULES = (("names of animals", 5), ("verbs", 2))


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "frame"])
def test_rules_are_read_from_any_table(tmp_path, kind):
    written = [{"activates_on": text, "strength": strength} for text, strength in RULES]
    rows = [{"latent": 1, "rules": written}, {"latent": 2, "label": "both", "rules": written}, {"latent": 3, "label": "plain"}, {"latent": 4}]  # fmt: skip
    table, path = pd.DataFrame(rows), tmp_path / f"labels.{kind}"
    if kind == "csv":
        table.assign(rules=[json.dumps(RULES)] * 2 + [None, "[]"]).to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    found = read_descriptions(table if kind == "frame" else path)
    words = "names of animals; or verbs (less strongly)"
    assert [(d.index, d.text, d.rules) for d in found] == [(1, words, RULES), (2, "both", RULES), (3, "plain", ())]
    described, missing = undescribed(table if kind == "frame" else path)
    assert described == found and missing == (4,)
    alone = table[["latent", "rules"]].head(2)
    assert [d.text for d in read_descriptions(alone)] == [words, words], "no column of descriptions is needed"


@pytest.mark.parametrize(
    "rules, message",
    [
        ([["a", 7]], "row 1: rule 1 .'a'. has strength 7; give a whole number from 0"),
        ([["a", 5], ["b", 2.5]], "rule 2 .'b'. has strength 2.5"),
        ([["a", True]], "strength True"),
        ([[" ", 3]], "rule 1 has no text .' '.; leave it out"),
        ([{"activates_on": None, "strength": 3}], "rule 1 has no text"),
        ([["a"]], "rule 1 is .'a'.; give its text and its strength"),
        (["a"], "rule 1 is 'a'"),
        ([["a", 1]] * 1000, "row 1 has 1,000 rules, more than 20; keep the strongest"),
        ("names of animals", "'rules' is not valid JSON"),
        ("{}", "'rules' is {}; give a list of rules"),
        ("[" * 100_000, "'rules' is not valid JSON"),
    ],
)
def test_rules_that_cannot_be_used(rules, message):
    with pytest.raises(InputError, match=message):
        read_descriptions(pd.DataFrame({"index": [1], "description": ["a"], "rules": [rules]}))


def test_rules_of_the_same_words_are_the_strongest_of_them():
    table = pd.DataFrame({"index": [1], "rules": [[["a", 2], [" a\n", np.int64(4)], ["b", "3/5"]]]})
    assert read_descriptions(table)[0].rules == (("a", 4), ("b", 3))
    with pytest.raises(InputError, match=r"feature 1: rule 1 \('a'\) has strength 7"):
        read_descriptions([Description(1, "a", rules=(("a", 7),))])


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
        ({1: "a", "1": " a "}, "same description twice"),
        ([Description(1, "a"), Description(1, "a")], "same description twice"),
        (pd.DataFrame({"index": [1], "notes": ["a"]}), "no column 'description'.*index, notes"),
        (pd.DataFrame({"index": [1, 2], "description": [None, " "]}), "none of the 2 rows"),
        (pd.DataFrame({"index": [1, None], "description": ["a", "b"]}), "row 2: the description 'b' has no feature"),
        (pd.DataFrame({"index": [1, 2], "description": ["a", 0.5]}), "row 2: the description is float"),
        (pd.DataFrame({"index": [1, 1], "layer": [5, 6], "description": ["a", "b"]}), "2 sources .5, 6."),
        ({"L5/1": "a", "L6/1": "b"}, "2 sources .L5, L6."),
        ({"L5/x": "a"}, "'x' is not a whole number"),
        ({1e300: "a"}, "1e.300 is not a whole number"),
        (pd.DataFrame({"description": ["a"]}, index=pd.MultiIndex.from_tuples([(5, 1)])), "index of 2 levels"),
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
        ("e.csv", "index,notes\n1,a\n", "no column 'description'"),
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
        ("a.csv.gz", b"\x1f\x8b\x08cut", "a.csv.gz cannot be read"),
        ("a.csv", b"index,description\n1,a\n2,b,c\n", "a.csv cannot be read.*line 3"),
        ("a.csv", b'index,description\n1,"a\n', "a.csv cannot be read.*EOF inside string"),
        ("a.json", '{"1": "caf\u00e9"}'.encode("latin-1"), "a.json cannot be read.*UTF-8"),
        ("a.json", b'{"Clarity": 0.9, "Responsiveness": 0.8}', "reference implementation's metrics of one feature"),
        ("a.json", b'{"a text": 0, "another": 2}', "maps texts to numbers"),
        ("a.json", b'{"0": {"0": ["a text", 2]}}', "a.json: 0 has no description.*its keys are 0"),
        ("a.json", b'{"0": {"Clarity": 0.5}}', "reference implementation's metrics"),
        ("a.json", b'{"format": 3, "run": {}, "items": []}', "Results.load reads it"),
        ("a.json", b'{"index": [1, 2], "description": ["a"]}', "a.json is none of the shapes"),
        ("a.json", b'["a", "b"]', "must hold"),
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


@pytest.mark.parametrize(
    "value", [7, 7.0, "7", " +7 ", "7.0", "7.", np.int64(7), np.float32(7), np.array(7), Decimal(7)]
)
def test_whole_numbers(value):
    assert whole_number(value) == 7


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.9),
        Decimal("2.7"),
        np.True_,
        "1_0",
        "1.5",
        "-1",
        "-1.0",
        "1e3",
        "1e300",
        1e300,
        "3,00",
        "３",
        "",
        float("nan"),
        float("inf"),
        [1],
        None,
        1j,
    ],
)
def test_numbers_that_are_no_index(value):
    with pytest.raises(InputError, match="not a whole number"):
        whole_number(value)


def test_thousands():
    assert whole_number("12,345") == whole_number("12,345.0") == 12345


COLUMNS = [("index", "description"), ("Index", "Description"), ("Feature", "Explanation"), ("Feature Index", "label"), ("feature_id", "text"), ("LATENT", "concept")]  # fmt: skip


@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_as_people_name_them(tmp_path, columns):
    table = pd.DataFrame(list(WANTED.items()), columns=list(columns))
    assert pairs(read_descriptions(table)) == WANTED
    assert pairs(read_descriptions(table.set_index(columns[0]))) == WANTED
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.jsonl"):
        assert pairs(read_descriptions(tmp_path / name)) == WANTED
        assert dict(neuronpedia.descriptions(tmp_path / name)[["index", "description"]].values) == WANTED


TABLE = pd.DataFrame({"index": list(WANTED), "description": list(WANTED.values())})
FILES = {
    "floats.csv": TABLE.astype({"index": float}).to_csv(index=False).encode(),
    "excel.csv": TABLE.to_csv(index=False, sep=";").encode("utf-8-sig"),
    "excel unicode.csv": TABLE.to_csv(index=False, sep="\t").encode("utf-16"),
    "tabs.tsv": TABLE.to_csv(index=False, sep="\t").encode(),
    "commas in the heading.csv": b'"index";"description";"a, b, c"\n9;"the word \'new\'";\n11;the substring \'Rel\';\n',
    "index of pandas.csv": TABLE.set_index("index").rename_axis(None).to_csv().encode(),
    "both.csv": TABLE.set_axis([5, 6]).to_csv().encode(),
    "packed.csv.gz": gzip.compress(TABLE.to_csv(index=False).encode()),
    "packed.jsonl.gz": gzip.compress(TABLE.to_json(orient="records", lines=True).encode()),
    "powershell.jsonl": TABLE.to_json(orient="records", lines=True).encode("utf-16"),
    "by columns.json": TABLE.to_json().encode(),
    "by rows.json": TABLE.to_json(orient="index").encode(),
    "lists.json": json.dumps(TABLE.to_dict("list")).encode(),
    "reference.json": json.dumps({str(i): {"concept": t, "clarity": 0.5, "purity": None} for i, t in WANTED.items()}).encode(),
    "floats.json": json.dumps({f"{i}.0": t for i, t in WANTED.items()}).encode("utf-8-sig"),
    "several.json": json.dumps({i: [t] for i, t in WANTED.items()} | {3: []}).encode(),
    "ids.json": json.dumps({f"gpt2-small/6-res-jb/{i}": t for i, t in WANTED.items()}).encode(),
    "legacy.json": json.dumps({"explanationsCount": 2, "explanations": TABLE.to_dict("records")}).encode(),
    "mixed keys.json": json.dumps([{"index": "9", "description": WANTED[9], "notes": ""}, {"description": WANTED[11], "index": 11.0}]).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_as_people_have_them(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    assert pairs(read_descriptions(tmp_path / name)) == WANTED
    table = neuronpedia.descriptions(tmp_path / name)
    assert dict(table[table["state"] == "described"][["index", "description"]].values) == WANTED


EXPORT = {"modelId": "gpt2-small", "layer": "6-res-jb", "index": ["3", "3", "7", "8", None, "3.0"], "description": ["cats", "cats", "dogs", None, None, "kittens"]}  # fmt: skip


def test_an_export_with_rows_that_say_nothing_and_rows_that_repeat(caplog):
    table = pd.DataFrame(EXPORT)
    wanted = [(3, "cats"), (7, "dogs"), (3, "kittens")]
    for source in (table, table.astype({"index": float}), table.convert_dtypes()):
        caplog.clear()
        assert [(d.index, d.text) for d in read_descriptions(source)] == wanted
        assert "3 descriptions; 2 rows have none and 1 repeat one" in caplog.text
        found = neuronpedia.from_dataframe(source)
        assert found["state"].tolist() == ["described"] * 4 + ["none"] and found.attrs["repeated"] == 1
        assert sorted((d.index, d.text) for d in read_descriptions(found)) == sorted(wanted)


def test_an_index_of_several_levels_and_ids_with_their_layer():
    levels = pd.MultiIndex.from_tuples([("6-res-jb", i) for i in WANTED], names=["layer", "Feature"])
    assert pairs(read_descriptions(pd.DataFrame({"description": list(WANTED.values())}, index=levels))) == WANTED
    for form in ("L5/{}", "layer_5/{}", "6-res-jb/{}", "https://www.neuronpedia.org/gpt2-small/6-res-jb/{}?embed=true"):
        table = TABLE.assign(index=[form.format(i) for i in WANTED])
        assert pairs(read_descriptions(table)) == pairs(read_descriptions(dict(table.values))) == WANTED
    found = neuronpedia.from_dataframe(table)
    assert found.attrs["source"] == "gpt2-small/6-res-jb" and found["index"].tolist() == list(WANTED)
    with pytest.raises(InputError, match="2 sources"):
        neuronpedia.from_dataframe(TABLE.assign(index=["a/6-res-jb/9", "a/7-res-jb/9"]))


def test_a_file_that_unpacks_to_more_than_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens._util.files.MAX_FILE_BYTES", 1000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"index,description\n" + b"1,a\n" * 1000))
    for read in (read_descriptions, neuronpedia.descriptions):
        with pytest.raises(InputError, match="split it"):
            read(tmp_path / "a.csv.gz")


def test_white_space_is_tidied():
    assert read_descriptions({1: " a \n b "})[0] == Description(1, "a b", "a dict")


def test_indices_of_a_command_line():
    assert parse_indices("0:3,512, 7") == (0, 1, 2, 512, 7)
    assert parse_indices(":2,1") == (0, 1)
    with pytest.raises(InputError, match="0:200,512"):
        parse_indices("a:b")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("sep.csv", b"sep=;\r\nindex;description\r\n1;one\r\n2345;two\r\n"),
        ("cr.csv", b"index,description\r1,one\r2345,two\r"),
        ("be.csv", b"\xfe\xff" + "index,description\n1,one\n2345,two\n".encode("utf-16-be")),
        ("no mark.csv", "index,description\n1,one\n2345,two\n".encode("utf-16-le")),
        ("utf 32.csv", "index,description\n1,one\n2345,two\n".encode("utf-32")),
        ("no-break.csv", "index,description\n\u00a01\u00a0,one\n2\u00a0345,two\n".encode()),
        ("thin.csv", "index;description\n1;one\n2\u202f345;two\n".encode()),
        ("names.csv", b"Feature ID,Label\nFeature 1,one\nFeature 2345,two\n"),
        ("nested.jsonl", b'{"index": 1, "explanations": [{"description": "one"}]}\n{"index": 2345, "explanations": [{"description": "two"}]}\n'),
        ("inner.jsonl", b'{"index": 1, "explanation": {"text": "one", "score": 3}}\n{"index": 2345, "explanation": ["two"]}\n'),
        ("pairs.jsonl", b'{"1": "one"}\n{"2345": "two"}\n'),
        ("array.jsonl", b'[\n{"index": 1, "description": "one"},\n{"index": 2345, "description": "two"}\n]\n'),
        ("neuronpedia.json", b'[{"modelId": "m", "layer": "6-res", "index": "1", "explanations": [{"description": "one"}]}, {"modelId": "m", "layer": "6-res", "index": "2345", "explanations": [{"description": "two"}]}, {"modelId": "m", "layer": "6-res", "index": "3", "explanations": []}]'),
        ("delphi.json", b'{"layers.3_latent1": "one", "layers.3_latent2345": "two"}'),
    ],
)  # fmt: skip
def test_files_of_other_programs_and_countries(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    assert [(d.index, d.text) for d in read_descriptions(tmp_path / name)] == [(1, "one"), (2345, "two")]


def test_a_folder_of_explanations_as_delphi_writes_it(tmp_path):
    for name, text in {"layers.3_latent1": '"one"', "layers.3_latent2345": "two"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert [(d.index, d.text) for d in read_descriptions(tmp_path)] == [(1, "one"), (2345, "two")]
    (tmp_path / "layers.4_latent1.txt").write_text('"of another layer"')
    with pytest.raises(InputError, match=r"2 sources \(layers.3, layers.4\)"):
        read_descriptions(tmp_path)


@pytest.mark.parametrize("column", ["id", "Latent #", "feat", "sae_unit"])
def test_the_number_of_a_row_never_stands_in_for_a_column_that_may_hold_the_feature(tmp_path, column):
    (tmp_path / "d.csv").write_text(f"{column},description\n7,one\n9,two\n")
    with pytest.raises(InputError, match=f"if {column!r} has the features, name it 'index'"):
        read_descriptions(tmp_path / "d.csv")


def test_where_a_description_comes_from_is_not_read_out_of_its_words():
    words = "Neuronpedia gpt2-small/8-res-jb, gpt-4o-mini (t)"
    given, known = Description(1, "a", words), Provenance("neuronpedia", "gpt2-small/8-res-jb", "gpt-4o-mini", "t")
    assert given.provenance.kind == "given" and given.origin == words == str(known) and known.maker == "gpt-4o-mini (t)"
    assert Description(1, "a", "null:shuffled").null is None
    assert Description(1, "a", Provenance("null", "shuffled")).null == "shuffled"
    assert from_plain(Description, to_plain(Description(1, "a", known))) == Description(1, "a", known)
