"""`steer`: a frame of continuations."""

import math
import re

import numpy as np
import pytest
import torch

import fade_lens
from fade_lens import InputError, Subject
from fade_lens.generation.checks import check_steering
from fade_lens.generation.fluency import negative_log_likelihood
from tests.planted import natural_texts, planted_model, planted_sae
from tests.tiny import ANIMALS, HOOK, tiny_sae

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(100)
PROMPTS = ["the old house", "a big river"]
DRAWN = {"new_tokens": 6, "temperature": 0.7}


def ids(text):
    return [MODEL.tokenizer.bos_token_id, *MODEL.tokenizer(text)["input_ids"]]


def test_steered_texts_show_the_concept_and_the_unsteered_ones_stand_first():
    found = fade_lens.steer(MODEL, SAE, 0, PROMPTS, [2, 4], corpus=TEXTS, **DRAWN)
    assert found["factor"].tolist() == [0, 2, 4] * 2 and found["steered"].tolist() == [False, True, True] * 2
    assert found["prompt"].tolist() == [p for p in PROMPTS for _ in range(3)]
    shown = found["continuation"].map(lambda text: sum(word in ANIMALS for word in text.split()))
    assert shown[found["factor"] == 4].sum() > 6 > 2 >= shown[~found["steered"]].sum()
    assert (found["unit"] == Subject(MODEL, SAE, TEXTS, [0]).reference(0)).all()


def test_likelihoods_are_those_of_the_unsteered_model():
    found = fade_lens.steer(MODEL, SAE, 0, PROMPTS, 3, unit=4.0, **DRAWN)
    for row in found.itertuples():
        prompt, whole = (ids(text) for text in (row.prompt, row.prompt + row.continuation))
        new = np.array([whole[len(prompt) :]])
        assert row.nll == pytest.approx(negative_log_likelihood(MODEL, [tuple(prompt)], new)[0], abs=1e-4)


def test_the_same_seed_gives_the_same_texts_and_factors_change_nothing_of_each_other():
    one = fade_lens.steer(MODEL, SAE, 0, PROMPTS, [1, 2], unit=4.0, seed=3, **DRAWN)
    two = fade_lens.steer(MODEL, SAE, 0, PROMPTS, [2], unit=4.0, seed=3, **DRAWN)
    both = one.merge(two, on=["prompt", "factor"])
    assert len(both) == 4 and (both["continuation_x"] == both["continuation_y"]).all()
    other = fade_lens.steer(MODEL, SAE, 0, PROMPTS, [2], unit=4.0, seed=4, **DRAWN)
    assert other["continuation"].tolist() != two["continuation"].tolist()
    twice = fade_lens.steer(MODEL, SAE, 0, PROMPTS[:1] * 2, [1], unit=4.0, **DRAWN)
    assert twice["continuation"][0] != twice["continuation"][2], "a prompt given twice is continued in two ways"


def test_the_unsteered_model_is_never_there_twice():
    found = fade_lens.steer(MODEL, SAE, 0, "the", [0, 1, 1.0], unit=4.0, **DRAWN)
    assert found["factor"].tolist() == [0, 1]
    scaled = fade_lens.steer(MODEL, SAE, 0, "the cat", [1, 0, 5], mode="scale", **DRAWN)
    assert scaled["factor"].tolist() == [1, 0, 5] and scaled["unit"].isna().all()


def test_ablation_takes_no_factors_and_no_unit():
    found = fade_lens.steer(MODEL, SAE, 0, "the cat", (), mode="ablate", **DRAWN)
    assert found["steered"].tolist() == [False, True] and found["factor"].isna().all()


def test_clamping_and_neurons_work_too():
    clamped = fade_lens.steer(MODEL, SAE, 0, "the", [0, 3], unit=4.0, mode="clamp", **DRAWN)
    assert math.isnan(clamped["factor"][0]) and clamped["factor"].tolist()[1:] == [0, 3]
    neuron = fade_lens.steer(MODEL, HOOK, 0, "the", [5], unit=4.0, new_tokens=6, temperature=0)
    assert set(neuron["continuation"][1].split()) <= set(ANIMALS)


def test_a_continuation_whose_activations_overflow_is_missing():
    model = planted_model().to(torch.float16)
    found = fade_lens.steer(model, SAE.to(torch.float16), 0, "the", [1, 1e6], unit=4.0, **DRAWN)
    SAE.to(torch.float32)
    assert found["continuation"].isna().tolist() == [False, False, True] and math.isnan(found["nll"][2])


@pytest.mark.parametrize(
    "index, prompts, factors, options, message",
    [
        (0, [], 1, {"unit": 1.0}, "prompts is empty"),
        (0, ["a", " "], 1, {"unit": 1.0}, "prompts[1] is ' '; give a text"),
        (0, "a", [], {"unit": 1.0}, "factors is empty; give at least one"),
        (0, "a", [1, math.nan], {"unit": 1.0}, "factors holds nan"),
        (0, "a", 1, {}, "give corpus (natural texts"),
        (0, "a", 1, {"unit": 0.0}, "unit is 0.0; give the activation"),
        (9, "a", 1, {"unit": 1.0}, "feature index 9 is out of range"),
        (3, "a", 1, {"corpus": TEXTS}, "feature 3 never fires on a list of texts, which leaves no unit"),
        (0, ["a", "the " * 60], 1, {"unit": 1.0}, "prompts[1] has more than 34 tokens"),
        (0, "a", 1, {"unit": 1.0, "new_tokens": 0}, "new_tokens is 0"),
        (0, "a", 1, {"corpus": []}, "no text"),
    ],
)
def test_what_cannot_be_steered_is_told_in_a_sentence(index, prompts, factors, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fade_lens.steer(MODEL, SAE, index, prompts, factors, **options)


def test_an_unknown_mode_is_told():
    with pytest.raises(InputError, match="mode 'ad' is unknown; did you mean 'add'\\?; give one of add, clamp"):
        check_steering(["a"], [1.0], 1.0, None, "ad")


def test_a_hook_that_is_not_there_and_an_sae_of_another_model_are_told():
    with pytest.raises(InputError, match="is not a hook point"):
        fade_lens.steer(MODEL, "blocks.7.mlp.hook_post", 0, "a", 1, unit=1.0)
    with pytest.raises(InputError, match="made for another model or hook"):
        fade_lens.steer(MODEL, tiny_sae(d_in=8), 0, "a", 1, unit=1.0)
