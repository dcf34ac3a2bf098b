"""Texts from everywhere, and what of them counts."""

import gzip
import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens import corpus as corpus_module
from fade_lens.corpus import Corpus, first_tokens
from fade_lens.errors import InputError
from tests.tiny import VOCABULARY, WORDS, tiny_model

MODEL = tiny_model()
TEXTS = ["the red cat runs", "a dog", "", "the the the the the the the the"]
BOS = MODEL.tokenizer.bos_token_id


def write(path, kind):
    rows = [{"text": t, "body": t.upper()} for t in TEXTS]
    if kind == "txt":
        path.write_text("\n".join(TEXTS))
    elif kind == "json":
        path.write_text(json.dumps(TEXTS))
    elif kind in ("jsonl", "jsonl.gz"):
        data = "\n".join(json.dumps(r) for r in rows)
        path.write_bytes(gzip.compress(data.encode()) if kind.endswith("gz") else data.encode())
    else:
        frame = pd.DataFrame(rows)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)


@pytest.mark.parametrize("kind", ["txt", "json", "jsonl", "jsonl.gz", "csv", "parquet"])
def test_every_kind_of_file(tmp_path, kind):
    path = tmp_path / f"texts.{kind}"
    write(path, kind)
    assert Corpus.from_file(path).texts == tuple(TEXTS)
    assert len(Corpus.from_file(path, limit=2)) == 2


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_another_column_and_a_wrong_one(tmp_path, kind):
    path = tmp_path / f"texts.{kind}"
    write(path, kind)
    assert Corpus.from_file(path, column="body").texts[1] == "A DOG"
    with pytest.raises(InputError, match=r"'content'.*text, body"):
        Corpus.from_file(path, column="content")


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Corpus.from_file(tmp_path / "no.txt")
    (tmp_path / "texts.docx").write_text("x")
    with pytest.raises(InputError, match=r"\.jsonl"):
        Corpus.from_file(tmp_path / "texts.docx")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{oops')
    with pytest.raises(InputError, match="line 2"):
        Corpus.from_file(tmp_path / "broken.jsonl")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="no text"):
        Corpus.from_file(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", b'{"text": ["a"]}', "is dict; it must hold a list"),
        ("a.json", b"3", "is int; it must hold a list"),
        ("a.csv", "text\ncaf\u00e9\n".encode("latin-1"), "cannot be read.*UTF-8"),
        ("a.csv", b'text\n"a\n', "cannot be read.*EOF inside string"),
        ("a.csv", b"", "cannot be read.*No columns"),
        ("a.csv.gz", gzip.compress(b"text\na\n")[:-9], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'"a"\n' * 99)[:-9], "cannot be read.*ended before"),
        ("a.jsonl.gz", gzip.compress(b'"a"\n')[:10] + b"\xff" * 20, "cannot be read"),
        ("a.txt.gz", b"a text", "cannot be read.*[Nn]ot a gzipped"),
        ("a.parquet", b"PAR1 and no more", "cannot be read"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} {message}"):
        Corpus.from_file(tmp_path / name)


@pytest.mark.parametrize(
    "name, content", [("a.txt", "a\u2028b"), ("a.jsonl", '"a\u2028b"'), ("a.json", '["a\u2028b"]')]
)
def test_a_byte_order_mark_is_no_text_and_a_line_separator_no_line(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    assert Corpus.from_file(tmp_path / name).texts == ("a\u2028b",)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(tmp_path, limit):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(InputError, match=f"limit is {limit}"):
        Corpus.from_file(tmp_path / "a.txt", limit=limit)


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], "no text"),
        (["", "  "], "only empty"),
        ("one string", "one string"),
        (["a", 3], r"texts\[1\]"),
        (pd.DataFrame({"text": ["a"]}), r"DataFrame.*df\['text'\]"),
        ({"text": ["a"]}, "dict.*list of strings"),
        (Path("texts.txt"), r"texts\.txt.*Corpus\.from_file"),
        (3, "int.*list of strings"),
    ],
)
def test_lists_that_cannot_be_used(texts, message):
    with pytest.raises(InputError, match=message):
        inspect.unwrap(Corpus.from_texts.__func__)(Corpus, texts)  # without the type checks of the test run


def test_a_local_dataset_is_streamed_by_name(tmp_path):
    """A folder is a dataset name to the hub's client: the same code path, without a network."""
    write(tmp_path / "train.jsonl", "jsonl")
    corpus = Corpus.parse(f"hf:{tmp_path}", limit=3)
    assert corpus.texts == tuple(TEXTS[:3])
    with pytest.raises(InputError, match="no text under 'nope'"):
        Corpus.from_hf(str(tmp_path), column="nope")


def test_tokens_of_texts():
    tokens = Corpus.from_texts(TEXTS).tokenize(MODEL, context=5, prepend_bos=True)
    assert [VOCABULARY[i] for i in tokens[0]] == ["<bos>", "the", "red", "cat", "runs"]
    assert tokens.lengths.tolist() == [5, 3, 1, 5]
    assert tokens.n_truncated == 1
    assert tokens.texts[3] == "the the the the", "the judge must see what the model saw"
    assert tokens.special.tolist() == [i in (0, 5, 8, 9) for i in range(14)]
    without = Corpus.from_texts(TEXTS).tokenize(MODEL, context=5, prepend_bos=False)
    assert without.lengths.tolist() == [4, 2, 0, 5]


def test_tokens_given_as_tokens():
    rows = [[BOS, 5, 6], [5, 6], [7]]
    tokens = Corpus.from_tokens(rows).tokenize(MODEL, context=8, prepend_bos=True)
    assert [tokens[i].tolist() for i in range(3)] == [[BOS, 5, 6], [BOS, 5, 6], [BOS, 7]]
    assert tokens.texts[0] == tokens.texts[1]
    with pytest.raises(InputError, match="id 99"):
        Corpus.from_tokens([[99]]).tokenize(MODEL, context=8, prepend_bos=True)
    with pytest.raises(InputError, match="no tokens"):
        Corpus.from_tokens([[]])


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=12).filter(any), st.integers(1, 200)
)
def test_tokens_are_the_same_in_chunks_of_any_size(rows, chunk):
    corpus = Corpus.from_texts([" ".join(r) for r in rows])
    whole = corpus.tokenize(MODEL, context=6, prepend_bos=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "CHUNK", chunk)
        parts = corpus.tokenize(MODEL, context=6, prepend_bos=True)
        assert parts.fingerprint == whole.fingerprint
    assert np.array_equal(parts.ids, whole.ids) and np.array_equal(parts.offsets, whole.offsets)
    assert np.array_equal(parts.special, whole.special)
    assert parts.texts == whole.texts and parts.n_truncated == whole.n_truncated


def test_a_bad_token_is_named_by_its_number_in_the_whole_corpus(monkeypatch):
    monkeypatch.setattr(corpus_module, "CHUNK", 2)
    with pytest.raises(InputError, match=r"tokens\[5\] holds id 99"):
        Corpus.from_tokens([[5]] * 5 + [[99]]).tokenize(MODEL, context=8, prepend_bos=True)


def test_a_long_text_of_which_little_is_tokenized():
    """Long words and long runs of spaces: the tokens kept are those of the whole text."""
    room = 5
    texts = [
        "the red cat runs " * 500,
        " " * 20_000 + "the dog",
        "the " * 3 + " " * 20_000 + "red cat runs today again",
        "the cat",
        "",
    ]
    rows = first_tokens(MODEL.tokenizer, texts, room)
    whole = MODEL.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [row[:room] for row in rows] == [row[:room] for row in whole]
    assert [len(row) > room for row in rows] == [len(row) > room for row in whole]
    assert len(rows[0]) < 500, "most of the text was never tokenized"


@pytest.mark.real
def test_a_long_real_text_of_which_little_is_tokenized(gemma):
    from fade_lens import demo

    texts = demo.corpus(limit=240).texts
    long = ["\n".join(texts[i : i + 40]) for i in range(0, 240, 40)]
    for room in (7, 63, 127):
        rows = first_tokens(gemma.tokenizer, long, room)
        whole = gemma.tokenizer(long, add_special_tokens=False)["input_ids"]
        assert [row[:room] for row in rows] == [row[:room] for row in whole]
        assert max(map(len, rows)) < min(map(len, whole))


def test_a_model_without_a_tokenizer():
    model = tiny_model()
    model.tokenizer = None
    with pytest.raises(InputError, match="set_tokenizer"):
        Corpus.from_texts(["a"]).tokenize(model, context=8, prepend_bos=True)


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=8).filter(any), st.data())
def test_select_keeps_each_text_whole(rows, data):
    tokens = Corpus.from_texts([" ".join(r) for r in rows]).tokenize(MODEL, context=32, prepend_bos=True)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    some = tokens.select(chosen)
    assert [some[i].tolist() for i in range(len(chosen))] == [tokens[i].tolist() for i in chosen]
    assert some.texts == tuple(tokens.texts[i] for i in chosen)
    assert np.array_equal(some.special, np.isin(some.ids, MODEL.tokenizer.all_special_ids))
