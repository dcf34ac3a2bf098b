"""Logits of directions over the whole vocabulary: moments against SciPy's, sets against a slow count, planted and random directions."""

from typing import Any

import numpy as np
import pytest
import torch

import fade_lens
from fade_lens.analysis.logit_weights import shifts
from tests.planted import planted_model, planted_sae
from tests.tiny import ANIMALS, COLOURS, VERBS, WORDS, tiny_model, tiny_sae

OWN = {"animals": ANIMALS, "colours": COLOURS, "verbs": VERBS}


def related_words() -> tuple[Any, torch.Tensor]:
    """A model whose words of a kind are alike: any direction moves them together; and what each kind shares."""
    model: Any = tiny_model(seed=3)
    vocabulary = model.tokenizer.get_vocab()
    shared = torch.randn((len(OWN), model.cfg.d_model), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for row, words in zip(shared, OWN.values(), strict=True):
            for word in words:
                model.unembed.W_U[:, vocabulary[word]] += row * model.unembed.W_U.norm(dim=0).mean() / row.norm()
    return model, shared


def test_a_latent_along_what_a_set_shares_promotes_that_set_alone() -> None:
    model, shared = related_words()
    sae: Any = tiny_sae()
    with torch.no_grad():
        sae.W_dec[:3] = shared
    found = fade_lens.logit_weights(model, sae, "0:3", OWN)
    sets: Any = found.sets
    assert list(sets.columns) == ["index", "set", "size", "shift", "z", "p_value", "q_value"]
    for index, name in enumerate(OWN):
        own = sets[sets["index"] == index].set_index("set")
        assert own["z"].idxmax() == name and own["q_value"][name] < 0.06 < own["q_value"].drop(name).min()
        assert own["size"][name] == 6
    assert list(found.frame["index"]) == [0, 1, 2]


def test_random_directions_promote_no_set_though_words_of_a_kind_move_together() -> None:
    model, _ = related_words()
    sae: Any = tiny_sae(d_sae=64)
    with torch.no_grad():
        sae.W_dec[:] = torch.randn(sae.W_dec.shape, generator=torch.Generator().manual_seed(0))
    sets: Any = fade_lens.logit_weights(model, sae, "0:64", OWN).sets
    # Six independent tokens of forty have a mean that lies 0.38 standard deviations from that of all.
    assert (sets["shift"].abs() > 1).sum() > 20
    assert (sets["q_value"] < 0.05).mean() < 0.02


def test_few_tokens_far_from_the_others_make_a_high_kurtosis() -> None:
    frame: Any = fade_lens.logit_weights(planted_model(), planted_sae(), "0:3", OWN).frame
    from scipy.stats import kurtosis, skew

    logits = np.array([3.0] * 6 + [0.0] * (len(WORDS) - 6))
    np.testing.assert_allclose(frame["skewness"], skew(logits), rtol=0.01)
    np.testing.assert_allclose(frame["kurtosis"], kurtosis(logits), rtol=0.02)


def test_the_shift_of_a_set_is_counted_in_standard_deviations() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 40))
    mask = np.arange(40) % 4 == 0
    slow = [(row[mask].mean() - row.mean()) / row.std() for row in logits]
    np.testing.assert_allclose(shifts(logits, {"set": mask})[:, 0], slow)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sets": {"rivers": ["Rhine"]}}, "fewer than 5 tokens"),
        ({"sets": {"rivers": "Rhine"}}, "in a list"),
        ({"n_random": 3}, "n_random is 3"),
        ({"indices": [99]}, "out of range"),
    ],
)
def test_what_cannot_be_tested_is_told(options: dict[str, Any], words: str) -> None:
    options = dict(options)
    with pytest.raises(fade_lens.InputError, match=words):
        fade_lens.logit_weights(planted_model(), planted_sae(), options.pop("indices", [0]), **options)
