"""Texts as vectors of their meaning."""

import sys

import numpy as np
import pytest

from fade_lens import InputError, MissingExtraError
from fade_lens.data.embedding import CHUNK, check_embedding, embed


def test_vectors_have_length_one_and_texts_alike_in_meaning_are_near(embedding):
    found = embed(["the cat", "the feline", "a river \ud800", ""])
    assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found[0] @ found[1] > 0.99 > 0.5 > found[0] @ found[2]


def test_no_texts_are_no_rows_of_the_same_width(embedding):
    assert embed([]).shape == (0, embed(["a"]).shape[1])


def test_progress_adds_up_and_rows_do_not_depend_on_the_chunk(embedding):
    done: list[int] = []
    texts = [f"text {i}" for i in range(CHUNK + 3)]
    found = embed(texts, progress=done.append)
    assert done == [CHUNK, 3] and np.array_equal(found[-1], embed(texts[-1:])[0])


def test_a_model_that_cannot_be_loaded_is_told_in_one_line(embedding):
    with pytest.raises(InputError, match=r"'nobody/nothing' cannot be loaded \(We couldn't connect\); give") as error:
        embed(["a"], "nobody/nothing")
    assert "\n" not in str(error.value)


def test_without_the_package_the_extra_is_named_at_once(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)
    with pytest.raises(MissingExtraError, match=r"Search needs 'sentence-transformers'.*fade-lens\[similarity\]"):
        check_embedding("Search")


@pytest.mark.real
def test_the_real_model_knows_what_words_mean():
    pytest.importorskip("sentence_transformers", reason="the extra `similarity` is not installed")
    found = embed(["the cat sat on a mat", "a feline was sitting", "stock markets fell"])
    assert found.shape == (3, 384) and found[0] @ found[1] > 0.4 > found[0] @ found[2]
