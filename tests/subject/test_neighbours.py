"""Nearest directions over the whole SAE, and features that fire on the same texts."""

import numpy as np
import pytest
import torch

from fade_lens._util.reasons import Reason
from fade_lens.subject import neighbours
from fade_lens.subject.features import features_of
from fade_lens.subject.neighbours import firing_together, nearest_directions
from tests.tiny import tiny_model, tiny_sae


@pytest.mark.parametrize("bytes_at_once", [1, 2000, 2**27])
@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_nearest_are_those_of_all_cosines_however_the_sae_is_cut(monkeypatch, bytes_at_once, architecture):
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", bytes_at_once)
    sae = tiny_sae(architecture)
    found = nearest_directions(features_of(tiny_model(), sae, [5, 0]), 4)
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=-1)
    for index, near in zip([5, 0], found, strict=True):
        cosine = rows @ rows[index]
        cosine[index] = -2
        best = cosine.topk(4)
        assert [i for i, _ in near] == best.indices.tolist()
        assert [v for _, v in near] == pytest.approx(best.values.tolist(), abs=1e-6)


def test_more_neighbours_than_there_are_features_are_all_of_them():
    (near,) = nearest_directions(features_of(tiny_model(), tiny_sae(d_sae=6), [2]), 50)
    assert sorted(i for i, _ in near) == [0, 1, 3, 4, 5]
    assert nearest_directions(features_of(tiny_model(), tiny_sae(), [2]), 0) == [()]


def test_a_direction_of_no_length_is_like_nothing():
    sae = tiny_sae()
    with torch.no_grad():
        sae.W_dec[3] = 0
    (near,) = nearest_directions(features_of(tiny_model(), sae, [3]), 2)
    assert [value for _, value in near] == [0, 0]


def test_neurons_have_no_nearest_direction():
    assert isinstance(nearest_directions(features_of(tiny_model(), "blocks.0.mlp.hook_post", [1]), 3), Reason)


def test_firing_together_is_the_share_of_texts():
    values = np.array([[1, 2, 0], [0, 3, 0], [2, 1, np.nan], [0, 0, 1], [-1, 0, 1]], dtype=np.float32)
    features = features_of(tiny_model(), tiny_sae(), [7, 8, 9])
    found = firing_together(features, values, 5)
    assert found[0] == ((8, pytest.approx(2 / 4)), (9, pytest.approx(1 / 4)))
    assert found[1] == ((7, pytest.approx(2 / 4)),)
    assert firing_together(features, values, 1)[2] == ((7, pytest.approx(1 / 4)),)


def test_lift_leaves_out_what_fires_on_everything_and_what_is_too_rare():
    random = np.random.default_rng(0)
    own = random.random(2000) < 0.05
    twin, always, rare = (
        own & (random.random(2000) < 0.8),
        random.random(2000) < 0.9,
        np.arange(2000) == np.flatnonzero(own)[0],
    )
    values = np.stack([own, twin, always, rare], axis=1).astype(np.float32)
    features = features_of(tiny_model(), tiny_sae(), [3, 4, 5, 6])
    assert [i for i, _ in firing_together(features, values, 3, floor=0.005)[0]] == [4]
    assert firing_together(features, values, 3, floor=0.005)[0][0][1] == pytest.approx(2000 / own.sum())
    assert {i for i, _ in firing_together(features, values, 3, floor=0.0)[0]} == {4, 6}, (
        "one text in common is 20 times chance"
    )
