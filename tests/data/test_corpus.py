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

from fade_lens._util.errors import InputError
from fade_lens.cli.options import open_corpus
from fade_lens.data.corpus import Corpus
from fade_lens.subject import tokens as tokens_module
from fade_lens.subject.hooks import special_tokens
from fade_lens.subject.tokens import first_tokens, tokenize
from tests.alphabets import byte_level, with_fallback
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
        ("a.csv.gz", gzip.compress(b"text\na\n", mtime=0)[:-9], "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'"a"\n' * 99, mtime=0)[:-9], "cannot be read.*ended before"),
        ("a.jsonl.gz", gzip.compress(b'"a"\n', mtime=0)[:10] + b"\xff" * 20, "cannot be read"),
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
    tokens = tokenize(MODEL, Corpus.from_texts(TEXTS), context=5, prepend_bos=True)
    assert [VOCABULARY[i] for i in tokens[0]] == ["<bos>", "the", "red", "cat", "runs"]
    assert tokens.lengths.tolist() == [5, 3, 1, 5]
    assert tokens.n_truncated == 1
    assert tokens.texts[3] == "the the the the", "the judge must see what the model saw"
    assert tokens.special.tolist() == [i in (0, 5, 8, 9) for i in range(14)]
    without = tokenize(MODEL, Corpus.from_texts(TEXTS), context=5, prepend_bos=False)
    assert without.lengths.tolist() == [4, 2, 0, 5]


def test_tokens_given_as_tokens():
    rows = [[BOS, 5, 6], [5, 6], [7]]
    tokens = tokenize(MODEL, Corpus.from_tokens(rows), context=8, prepend_bos=True)
    assert [tokens[i].tolist() for i in range(3)] == [[BOS, 5, 6], [BOS, 5, 6], [BOS, 7]]
    assert tokens.texts[0] == tokens.texts[1]
    with pytest.raises(InputError, match="id 99"):
        tokenize(MODEL, Corpus.from_tokens([[99]]), context=8, prepend_bos=True)
    with pytest.raises(InputError, match="no tokens"):
        Corpus.from_tokens([[]])


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=12).filter(any), st.integers(1, 200)
)
def test_tokens_are_the_same_in_chunks_of_any_size(rows, chunk):
    corpus = Corpus.from_texts([" ".join(r) for r in rows])
    whole = tokenize(MODEL, corpus, context=6, prepend_bos=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "CHUNK", chunk)
        parts = tokenize(MODEL, corpus, context=6, prepend_bos=True)
        assert parts.fingerprint == whole.fingerprint
    assert np.array_equal(parts.ids, whole.ids) and np.array_equal(parts.offsets, whole.offsets)
    assert np.array_equal(parts.special, whole.special)
    assert parts.texts == whole.texts and parts.n_truncated == whole.n_truncated


def test_a_bad_token_is_named_by_its_number_in_the_whole_corpus(monkeypatch):
    monkeypatch.setattr(tokens_module, "CHUNK", 2)
    with pytest.raises(InputError, match=r"tokens\[5\] holds id 99"):
        tokenize(MODEL, Corpus.from_tokens([[5]] * 5 + [[99]]), context=8, prepend_bos=True)


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
        tokenize(model, Corpus.from_texts(["a"]), context=8, prepend_bos=True)


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12), min_size=1, max_size=8).filter(any), st.data())
def test_select_keeps_each_text_whole(rows, data):
    tokens = tokenize(MODEL, Corpus.from_texts([" ".join(r) for r in rows]), context=32, prepend_bos=True)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    some = tokens.select(chosen)
    assert [some[i].tolist() for i in range(len(chosen))] == [tokens[i].tolist() for i in chosen]
    assert some.texts == tuple(tokens.texts[i] for i in chosen)
    assert np.array_equal(some.special, np.isin(some.ids, MODEL.tokenizer.all_special_ids))


# --- one BOS ------------------------------------------------------------------------------------------------------------------


def model_with(tokenizer):
    model = tiny_model(d_vocab=len(tokenizer))
    model.tokenizer = tokenizer
    return model


BOS_FORMS = {
    "GPT-2, BOS is EOS": byte_level("<|endoftext|>"),
    "Llama 3": byte_level("<|begin_of_text|>", chat=True),
    "Gemma": byte_level("<bos>", chat=True, add_bos_token=True),
    "Llama 2": with_fallback(),
}


@pytest.mark.parametrize("name", BOS_FORMS)
@pytest.mark.parametrize("times, before", [(1, ""), (2, ""), (1, "\n")])
def test_a_bos_that_a_text_begins_with_is_not_doubled(name, times, before):
    model = model_with(BOS_FORMS[name])
    bos, mark = model.tokenizer.bos_token_id, model.tokenizer.bos_token
    for text in ("the cat sees", "the cat " * 30):
        found = tokenize(model, Corpus.from_texts([before + mark * times + text]), context=12, prepend_bos=True)
        want = model.tokenizer(mark + text, add_special_tokens=False)["input_ids"][:12]
        assert want.count(bos) == 1 and found[0].tolist() == want, "as the tokenizer reads a text with one BOS"
        assert mark not in found.texts[0] and text.startswith(found.texts[0])
        assert found.special.tolist() == [True] + [False] * (len(want) - 1)
        rows = Corpus.from_tokens([[bos] * (times - 1) + want])
        assert tokenize(model, rows, context=12, prepend_bos=True)[0].tolist() == want
    without = tokenize(model, Corpus.from_texts([mark + "the cat"]), context=12, prepend_bos=False)
    assert without[0].tolist().count(bos) == 1 and without.texts[0] == mark + "the cat", "what was given is kept"


def test_bos_alone_is_an_empty_text_and_bos_inside_is_kept():
    model = model_with(byte_level())
    bos = model.tokenizer.bos_token_id
    tokens = tokenize(model, Corpus.from_texts(["<|endoftext|>", "a<|endoftext|>b"]), context=8, prepend_bos=True)
    assert tokens[0].tolist() == [bos] and tokens[1].tolist().count(bos) == 2
    assert tokens.texts == ("", "a<|endoftext|>b") and tokens.special_of(1).tolist() == [True, False, True, False]


def with_images(chat):
    """A tokenizer with special tokens of every kind: some are marked, `<start_of_image>` is as a GGUF file leaves it."""
    made = byte_level("<bos>", chat=chat)
    made.add_special_tokens({"additional_special_tokens": ["<image>", "<<odd>>", "[PAD 1]", "<|reserved_7|>"]})
    made.add_tokens(["<start_of_image>", "<unused12>", "<h1>", "<turn>"])
    return made


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<start_of_image><h1>the cat", "<h1>the cat"),
        ("the <image><|reserved_7|> cat<unused12>", "the  cat"),
        ("a [PAD 1]<<odd>>b", "a b"),
        ("<bos><image>the cat", "the cat"),
        ("<image> <bos>the cat", "the cat"),
        ("the [cat] <imag> < b > c", "the [cat] <imag> < b > c"),
        ("<image>", ""),
        ("the <turn>cat", "the <turn>cat"),
        ("the cat<eos>the", "the cat<eos>the"),
    ],
)
def test_special_tokens_that_a_text_writes_out_are_no_text(text, read, windows):
    model = model_with(with_images(chat=True))
    plain = tokenize(model, [read], context=64, prepend_bos=True)
    found = tokenize(model, Corpus.from_texts([text, "the"], windows=windows), context=64, prepend_bos=True)
    assert found.texts[0] == read and found[0].tolist() == plain[0].tolist()
    assert tokenize(model, [text], context=64, prepend_bos=True)[0].tolist() == plain[0].tolist()


def test_what_a_gguf_file_does_not_mark_never_counts_and_tags_of_pages_do():
    tokenizer = with_images(chat=False)
    image, tag = (tokenizer.convert_tokens_to_ids(name) for name in ("<start_of_image>", "<h1>"))
    assert image in special_tokens(tokenizer) and tag not in special_tokens(tokenizer)
    found = tokenize(model_with(tokenizer), Corpus.from_tokens([[image, tag]]), context=8, prepend_bos=True)
    assert found[0].tolist()[1:] == [image, tag], "ids that are given stay"
    assert found.special_of(0).tolist() == [True, True, False]


def test_a_conversation_keeps_what_its_template_writes_and_no_more():
    said = [CHAT[0] | {"content": "<image>the cat?"}, CHAT[1]]
    found = tokenize(model_with(with_images(chat=True)), Corpus.from_texts([said]), context=64, prepend_bos=True)
    assert found.texts == (WRITTEN,)


def test_the_word_that_a_tokenizer_does_not_know_is_text():
    found = tokenize(MODEL, ["the zebra <unk> <pad> runs"], context=16, prepend_bos=False)
    assert found.texts == ("the zebra <unk>  runs",) and len(found[0]) == 4


# --- columns of lists ---------------------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "sees"}]
SHARED = [{"from": "human", "value": "the cat?"}, {"from": "gpt", "value": "sees"}]
WRITTEN = "<turn>user\nthe cat?<end><turn>assistant\nsees<end>"


def saved(path, rows, kind):
    frame = pd.DataFrame({"text": rows})
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_column_of_token_ids_is_read_as_tokens(tmp_path, kind):
    corpus = Corpus.from_file(saved(tmp_path / f"a.{kind}", [[5, 6], None if kind != "json" else [], [7]], kind))
    assert corpus.tokens == ((5, 6), (), (7,)) and corpus.texts is None and len(corpus) == 3
    tokens = tokenize(MODEL, corpus, context=8, prepend_bos=True)
    assert [tokens[i].tolist() for i in range(3)] == [[BOS, 5, 6], [BOS], [BOS, 7]]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "hf"])
@pytest.mark.parametrize("rows", [[CHAT, CHAT[:1]], [SHARED, SHARED[:1]]], ids=["role", "from"])
def test_a_column_of_messages_goes_through_the_chat_template(tmp_path, kind, rows):
    path = saved(tmp_path / f"train.{kind.replace('hf', 'jsonl')}", rows, kind.replace("hf", "jsonl"))
    corpus = Corpus.from_hf(str(tmp_path)) if kind == "hf" else Corpus.from_file(path)
    model = model_with(byte_level("<bos>", chat=True))
    tokens = tokenize(model, corpus, context=64, prepend_bos=True)
    assert tokens.texts == (WRITTEN, WRITTEN[: WRITTEN.index("<end>") + 5])
    assert tokens[0].tolist().count(model.tokenizer.bos_token_id) == 1
    marks = model.tokenizer.convert_ids_to_tokens(tokens[0][tokens.special_of(0)].tolist())
    assert marks == ["<bos>", "<turn>", "<end>", "<turn>", "<end>"], "marks of turns never count"
    with pytest.raises(InputError, match="no chat template to write them out"):
        tokenize(MODEL, corpus, context=64, prepend_bos=True)


def test_a_conversation_that_the_template_refuses_is_named():
    corpus = Corpus.from_texts([CHAT, [{"role": "system", "content": "be kind"}]])
    with pytest.raises(InputError, match=r"texts\[1\] .*chat template.*System role not supported"):
        tokenize(model_with(byte_level("<bos>", chat=True)), corpus, context=64, prepend_bos=True)


def test_cells_as_libraries_hand_them_over():
    import torch

    arrays = pd.DataFrame({"ids": [np.array([5, 6]), np.array([7], dtype=np.int32), np.nan]})
    assert Corpus.from_texts(arrays["ids"]).tokens == ((5, 6), (7,), ())
    assert Corpus.from_texts([torch.tensor([5, 6])]).tokens == ((5, 6),)
    assert Corpus.from_tokens(torch.tensor([[5, 6], [7, 8]])).tokens == ((5, 6), (7, 8))
    assert Corpus.from_tokens([{"input_ids": [5, 6], "attention_mask": [1, 1]}]).tokens == ((5, 6),)
    assert Corpus.from_texts(["a", None, float("nan"), pd.NA, "caf\u00e9".encode()]).texts == (
        "a",
        "",
        "",
        "",
        "caf\u00e9",
    )
    as_columns = {
        "role": ["user", "assistant"],
        "content": ["the cat?", "sees"],
    }  # as some datasets keep a list of objects
    assert Corpus.from_texts([as_columns]).conversations == (tuple(CHAT),)
    parts = [{"role": "user", "content": [{"type": "text", "text": "the cat?"}], "tool_calls": None}]
    assert Corpus.from_texts([parts]).conversations == ((CHAT[0],),)


@pytest.mark.parametrize(
    "rows, message",
    [
        (["a", [5, 6]], r"texts \(texts\[0\]\) and token ids \(texts\[1\]\)"),
        ([[5, 6], CHAT], r"token ids \(texts\[0\]\) and messages"),
        ([["a", "b"]], r"texts\[0\] .* is a list of str"),
        ([[[5, 6], [7]]], "list of list"),
        ([[0.5, 0.1]], "list of float"),
        ([[True, False]], "list of bool"),
        ([{"text": "a"}], "is dict, not a string"),
        ([b"\xff\xfe"], "no UTF-8"),
        (["a", 3.5], r"texts\[1\] .* is float"),
        ([[{"speaker": "a", "line": "b"}]], "no chat message.*`role`"),
        ([[{"role": "user", "content": [{"type": "image", "url": "x"}]}]], "no chat message"),
        ([[], None], "only empty"),
        (["[464, 3797]", "[1, 2, 3]", ""], "list that was written out.*JSONL or Parquet"),
        (["[464 3797 ... 12]"], "list that was written out"),
        (["tensor([464, 3797])"], "list that was written out"),
        ([str(CHAT)], "list that was written out"),
        ([json.dumps(SHARED)], "list that was written out"),
    ],
)
def test_columns_that_cannot_be_read_are_refused_in_a_sentence(rows, message):
    with pytest.raises(InputError, match=message):
        Corpus.from_texts(rows)


def test_a_csv_of_lists_is_refused_and_texts_with_brackets_are_not(tmp_path):
    for rows in ([[464, 3797], [1, 2]], [CHAT, SHARED]):
        with pytest.raises(InputError, match=r"a\.csv is a list that was written out"):
            Corpus.from_file(saved(tmp_path / "a.csv", rows, "csv"))
    assert len(Corpus.from_texts(["[464, 3797]", "[1] a footnote"])) == 2


@pytest.mark.parametrize("tokens", [[5, 6], ["a b"], [[5, "a"]], [[[5]]], [CHAT]])
def test_tokens_that_are_no_lists_of_ids(tokens):
    with pytest.raises(InputError, match=r"tokens\[0\]"):
        Corpus.from_tokens(tokens)


# --- windows ------------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=20), min_size=1, max_size=8).filter(any),
    st.booleans(),
    st.booleans(),
)
def test_windows_hold_every_token_once_and_know_their_document(rows, as_tokens, bos):
    texts = [" ".join(r) for r in rows]
    ids = [[VOCABULARY.index(w) for w in r] for r in rows]
    given_as = Corpus.from_tokens(ids, windows=True) if as_tokens else Corpus.from_texts(texts, windows=True)
    tokens = tokenize(MODEL, given_as, context=6, prepend_bos=bos)
    assert len(tokens.documents) == len(tokens) == len(tokens.texts) and tokens.lengths.max() <= 6
    assert tokens.n_truncated == 0 and tokens.lost == 0 and (np.diff(tokens.documents) >= 0).all()
    for number, want in enumerate(ids):
        windows = [tokens[i].tolist() for i in np.flatnonzero(tokens.documents == number).tolist()]
        assert len(windows) == max(1, -(-len(want) // (6 - bos))) and all(w[0] == BOS for w in windows if bos)
        assert [i for w in windows for i in w[int(bos) :]] == want
    some = tokens.select([len(tokens) - 1])
    assert some.documents.tolist() == [len(rows) - 1]


def test_without_windows_it_is_told_how_much_is_lost():
    tokens = tokenize(MODEL, Corpus.from_texts(["the " * 9 + "cat", "a dog"]), context=6, prepend_bos=True)
    assert (
        tokens.n_truncated == 1 and tokens.lost == pytest.approx((39 - 19) / 44) and tokens.documents.tolist() == [0, 1]
    )
    ids = tokenize(MODEL, Corpus.from_tokens([[5] * 15, [5]]), context=6, prepend_bos=True)
    assert ids.n_truncated == 1 and ids.lost == pytest.approx(10 / 16)


@pytest.mark.parametrize("name", BOS_FORMS)
def test_windows_end_between_characters(name):
    model, text = model_with(BOS_FORMS[name]), "the cat 猫と黒猫がいる。" * 5
    corpus = Corpus.from_texts([model.tokenizer.bos_token + text], windows=True)
    tokens = tokenize(model, corpus, context=13, prepend_bos=True)
    assert len(tokens) > 10 and "".join("".join(tokens.texts).split()) == "".join(text.split())
    assert all(tokens[i].tolist().count(model.tokenizer.bos_token_id) == 1 for i in range(len(tokens)))


def test_windows_of_files_and_of_the_command_line(tmp_path):
    path = saved(tmp_path / "a.jsonl", ["the cat " * 9], "jsonl")
    for corpus in (
        Corpus.from_file(path, windows=True),
        Corpus.from_hf(str(tmp_path), windows=True),
        Corpus.parse(str(path), windows=True),
        open_corpus(str(path), "text", None, True),
    ):
        assert corpus.windows and len(corpus) == 1 and len(tokenize(MODEL, corpus, context=7, prepend_bos=True)) == 3


def test_conversations_are_cut_into_windows_too():
    model = model_with(byte_level("<bos>", chat=True))
    tokens = tokenize(model, Corpus.from_texts([CHAT], windows=True), context=9, prepend_bos=True)
    assert "".join(tokens.texts) == WRITTEN and set(tokens.documents) == {0}


def test_a_context_without_room_beside_bos_is_refused():
    for windows in (False, True):
        with pytest.raises(InputError, match="leaves no token beside BOS"):
            tokenize(MODEL, Corpus.from_texts(["the cat"], windows=windows), context=1, prepend_bos=True)


@pytest.mark.parametrize(
    "cells", [["(464, 3797)", "(5,)"], ["array([464, 3797], dtype=int32)"], ["['the', ' cat']"], ["[464]", "[464, 2]"]]
)
def test_other_lists_that_were_written_out_are_refused(cells):
    with pytest.raises(InputError, match="a list that was written out"):
        Corpus.from_texts(cells)
    Corpus.from_texts([*cells, "some words"])
