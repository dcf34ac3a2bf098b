"""Tokens as people read them, whatever the tokenizer does to characters and blanks."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens.report.cards import whole_characters
from fade_lens.subject.hooks import special_tokens
from fade_lens.subject.summary import TopText
from fade_lens.subject.tokens import HALF, after_bos, continued, cut, decode, pieces
from tests.alphabets import TEXTS, byte_level, with_fallback
from tests.tiny import word_tokenizer

TOKENIZERS = {"bytes": byte_level(), "fallback": with_fallback(), "chat": byte_level("<bos>", chat=True)}


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_join_to_the_text(name, text):
    tokenizer = TOKENIZERS[name]
    ids = ids_of(tokenizer, text)
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids) and "".join(found) == decode(tokenizer, ids) == text.lstrip(
        " " * (name == "fallback")
    )
    assert "".join(found).count(HALF) == text.count(HALF), "a character is never shown in halves"


@given(st.text(max_size=30))
def test_pieces_of_any_text_join_to_it(text):
    tokenizer = TOKENIZERS["bytes"]
    assert "".join(pieces(tokenizer, ids_of(tokenizer, text))) == text


def test_pieces_of_a_tokenizer_of_words_keep_its_blanks():
    tokenizer = word_tokenizer()
    assert pieces(tokenizer, tokenizer("the cat runs .")["input_ids"]) == ("the", " cat", " runs", " .")
    assert pieces(tokenizer, []) == ()


@pytest.mark.real
def test_pieces_of_a_real_tokenizer(gemma):
    for text in TEXTS:
        ids = [gemma.tokenizer.bos_token_id, *ids_of(gemma.tokenizer, text)]
        assert pieces(gemma.tokenizer, ids)[0] == "<bos>" and "".join(pieces(gemma.tokenizer, ids)) == f"<bos>{text}"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_cut_keeps_characters_whole(name):
    tokenizer = TOKENIZERS[name]
    ids = ids_of(tokenizer, "猫猫猫")
    for most in range(3, len(ids) + 1):
        kept, text = cut(tokenizer, ids, most)
        assert most - 2 <= len(kept) <= most and set(text) <= {"猫"} and decode(tokenizer, kept) == text
    assert cut(tokenizer, ids, len(ids))[1] == "猫猫猫"


def test_a_continuation_begins_and_ends_with_whole_characters():
    tokenizer = TOKENIZERS["bytes"]
    ids = ids_of(tokenizer, "a 猫 b黒")
    assert [continued(tokenizer, ids[:n], ids[n:-1]) for n in (2, 3, 4, 5)] == ["猫 b", "猫 b", "猫 b", " b"]
    assert continued(tokenizer, (), ids[:4]) == "a ", "half a character at the end of a prompt is not shown"
    garbage = ids_of(tokenizer, "\ufffd\ufffd\ufffd\ufffd")
    assert continued(tokenizer, ids[:1], garbage), "what a broken model writes is shown"
    fallback = TOKENIZERS["fallback"]
    assert continued(fallback, ids_of(fallback, "the"), ids_of(fallback, "cat")) == " cat", "the blank between is kept"


def test_a_card_shows_a_character_once_with_its_strongest_value():
    found = whole_characters(["a", "", "", "猫", "b"], [None, 3.0, -4.0, 1.0, None])
    assert found == [("a", None), ("猫", -4.0), ("b", None)]
    text = TopText(0, 3.0, ("", "", "猫"), (3.0, 0.0, 0.0))
    assert whole_characters(text.tokens[text.window(9)], text.activations) == [("猫", 3.0)]


def test_only_what_stands_for_no_text_is_special():
    tokenizer = TOKENIZERS["chat"]
    assert tokenizer.convert_ids_to_tokens(sorted(special_tokens(tokenizer))) == ["<bos>", "<eos>", "<turn>", "<end>"]
    assert len(special_tokens(TOKENIZERS["bytes"])) == 1


def test_a_token_that_becomes_special_later_is_seen():
    tokenizer = copy.deepcopy(TOKENIZERS["chat"])
    before = special_tokens(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    assert special_tokens(tokenizer) - before == {tokenizer.convert_tokens_to_ids("<tool>")}
    assert special_tokens(TOKENIZERS["chat"]) == before


def test_every_bos_in_front_is_taken_off_and_no_other():
    assert after_bos([2, 2, 5, 2], 2) == [5, 2] and after_bos([2], 2) == [] and after_bos((5, 2), None) == (5, 2)
