"""Texts from everywhere, and what of them counts."""

import gzip
import inspect
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens.corpus import Corpus
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
        import pandas as pd

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
    "texts, message",
    [([], "no text"), (["", "  "], "only empty"), ("one string", "one string"), (["a", 3], r"texts\[1\]")],
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
