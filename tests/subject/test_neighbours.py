"""Nearest directions over the whole SAE, and features that fire on the same texts."""

import numpy as np
import pytest
import torch

from fade_lens._util.reasons import Reason
from fade_lens.subject import neighbours
from fade_lens.subject.features import features_of
from fade_lens.subject.neighbours import firing_together, nearest, nearest_directions, unit_rows
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


def test_nearest_rows_are_those_of_the_whole_product_however_it_is_cut(monkeypatch):
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 40)[:, None]
    unit = unit_rows(rows)
    whole = (unit @ unit.T).fill_diagonal_(-2).topk(4, dim=1)
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", 4 * len(rows) * 7)  # seven rows at a time
    cosines, at = nearest(unit, lambda some: rows[some], len(rows), 4, but=torch.arange(len(rows)))
    torch.testing.assert_close(cosines, whole.values)
    assert (at == whole.indices).all() and nearest(unit[:3], lambda some: rows[:2][some], 2, 9)[1].shape == (3, 2)


def test_of_equal_directions_each_is_another_ones_neighbour_and_never_its_own():
    at = nearest(torch.ones(5, 1), lambda some: torch.ones(5, 1)[some], 5, 4, but=torch.arange(5))[1]
    assert [sorted(row) for row in at.tolist()] == [sorted({0, 1, 2, 3, 4} - {i}) for i in range(5)]


def test_directions_of_any_length_become_one_long():
    found = unit_rows(torch.tensor([[3.0, 4.0], [3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0], [torch.nan, 1.0]]))
    torch.testing.assert_close(found[:3], torch.tensor([[0.6, 0.8]] * 3))
    assert found[3].tolist() == [0, 0] and found[4].isnan().any()


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
