"""Descriptions by their meaning, or by their words."""

import re
import sys

import pytest

import fade_lens
from fade_lens import InputError, MissingExtraError

LABELS = {3: "the word cat", 5: "feline animals", 7: "crimson things", 9: "names of rivers", 11: "the word 'red'"}


def test_by_meaning_finds_what_shares_no_word(embedding):
    found = fade_lens.search(LABELS, "red", k=2)
    assert found["index"].tolist()[0] in (7, 11) and set(found["index"]) == {7, 11}
    assert list(found.columns) == ["index", "description", "similarity", "origin"]
    assert found["similarity"].is_monotonic_decreasing and found["similarity"].max() <= 1 + 1e-6


def test_by_words_finds_shared_words_alone_and_rare_ones_count_more():
    found = fade_lens.search(LABELS, "The word RED", method="words")
    assert found["index"].tolist() == [11, 3]
    assert fade_lens.search(LABELS, "xylophone", method="words").empty
    assert list(fade_lens.search(LABELS, "xylophone", method="words").columns) == [
        "index",
        "description",
        "similarity",
        "origin",
    ]


def test_without_the_extra_nothing_takes_its_place(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)
    with pytest.raises(MissingExtraError, match=r"method='words' searches by words.*fade-lens\[similarity\]"):
        fade_lens.search(LABELS, "red")


def test_files_and_several_descriptions_of_a_feature_are_searched(tmp_path, embedding):
    (tmp_path / "labels.csv").write_text("index,description\n1,a hound\n1,a river\n2,a house\n")
    found = fade_lens.search(tmp_path / "labels.csv", "a dog", k=50)
    assert found["description"].tolist()[0] == "a hound" and len(found) == 3 and set(found["origin"]) == {"labels.csv"}


@pytest.mark.parametrize(
    "labels, query, options, message",
    [
        (LABELS, " ", {}, "query is ' '; give some words"),
        (LABELS, "a", {"k": 0}, "k is 0; give at least 1"),
        (LABELS, "a", {"method": "word"}, "method is 'word'; give one of 'meaning', 'words'; did you mean 'words'?"),
        ({}, "a", {"method": "words"}, "description"),
    ],
)
def test_what_cannot_be_searched_is_told_in_a_sentence(labels, query, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fade_lens.search(labels, query, **options)
