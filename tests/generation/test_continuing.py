"""Steered continuations without a judge: written once, kept, and read again for their likelihood."""

import math

import numpy as np
import pytest

from fade_lens._util.errors import InputError
from fade_lens.data.corpus import Corpus
from fade_lens.generation.continuations import UNSTEERED, MemoryContinuations, Steered
from fade_lens.generation.continuing import Continuer, natural_beginnings
from fade_lens.generation.fluency import negative_log_likelihood
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests.tiny import tiny_model, tiny_sae

MODEL = tiny_model()
TEXTS = [
    "the old cat sees a red house",
    "a dog",
    "the fox runs again",
    "big white horse eats today .",
    "the owl hides in a tree",
]
FEATURES = features_of(MODEL, tiny_sae(), [3, 0])
CORPUS = tokenize(MODEL, Corpus.from_texts(TEXTS), context=16, prepend_bos=True)
PROMPTS = natural_beginnings(MODEL, CORPUS, 4, 3, 5, seed=0)
SETS = [UNSTEERED, Steered(3, 2.0), Steered(0, 2.0), Steered(3, 2.0, "random_direction"), Steered(3, 1.0, "ablate")]


def continuer(**options) -> Continuer:
    return Continuer(MODEL, FEATURES, lambda index: 40.0 + index, PROMPTS, **({"new_tokens": 5, "seed": 7} | options))


def test_every_set_has_a_text_a_prompt_and_likelihoods_of_the_first():
    written = continuer(likelihoods=2)
    done: list[int] = []
    written.write(SETS, done.append)
    assert sum(done) == len(SETS) * len(PROMPTS)
    assert all(len(written.texts(s)) == 4 and len(written.likelihoods(s)) == 2 for s in SETS)
    assert len({written.texts(s) for s in SETS[:4]}) == 4, "steering must change the texts for this to be a test"
    ids = MODEL.tokenizer(list(written.texts(SETS[1])), add_special_tokens=False)["input_ids"]
    again = negative_log_likelihood(MODEL, PROMPTS, np.array(ids))
    assert written.likelihoods(SETS[1]) == pytest.approx(again[:2])
    (fluency,) = written.fluency(3, [2.0])
    assert fluency.nll == pytest.approx(again[:2].mean())
    assert fluency.increase == pytest.approx(fluency.nll - np.mean(written.likelihoods(UNSTEERED)))


def test_what_is_kept_is_not_written_again_and_does_not_depend_on_what_is_written_with_it():
    together, store, done = continuer(), MemoryContinuations(), list[int]()
    together.write(SETS)
    continuer(store=store).write(SETS[1:2])
    alone = continuer(store=store)
    alone.write(SETS, done.append)
    assert sum(done) == (len(SETS) - 1) * len(PROMPTS)
    assert [alone.texts(s) for s in SETS] == [together.texts(s) for s in SETS]


def test_texts_that_were_not_written_are_asked_for_in_vain():
    with pytest.raises(InputError, match=r"feature 3 has no continuations at factor 2; have them written first"):
        continuer().texts(SETS[1])
    with pytest.raises(InputError, match="the unsteered model has no continuations"):
        continuer().texts(UNSTEERED)
    with pytest.raises(InputError, match=r"feature 5 is to be steered, but only \(3, 0\) are there"):
        continuer().write([Steered(5, 1.0)])


def test_a_feature_that_never_fires_is_not_steered():
    silent = Continuer(MODEL, FEATURES, lambda _: math.nan, PROMPTS, new_tokens=5, temperature=0)
    silent.write([UNSTEERED, Steered(3, 2.0)])
    assert silent.texts(Steered(3, 2.0)) == silent.texts(UNSTEERED)


def test_beginnings_are_the_first_tokens_of_texts_that_are_long_enough():
    begin = {tuple(CORPUS[i][:3].tolist()) for i in range(len(CORPUS)) if CORPUS.lengths[i] >= 3}
    assert len(PROMPTS) == 4 and set(PROMPTS) <= begin
    assert natural_beginnings(MODEL, CORPUS, 2, 3, 5, seed=1) != natural_beginnings(MODEL, CORPUS, 2, 3, 5, seed=2)
    assert continuer().beginnings == [MODEL.tokenizer.decode(p[1:]) for p in PROMPTS]
    with pytest.raises(InputError, match=r"prompt_tokens \+ new_tokens is .*lower one of them"):
        natural_beginnings(MODEL, CORPUS, 2, 3, MODEL.cfg.n_ctx, seed=0)
