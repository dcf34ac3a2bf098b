"""Where directions lie: neighbours, the plane, clusters and their tests, parents; each against a plain loop or a planted truth."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

from fade_lens.analysis import geometry
from fade_lens.analysis.geometry import (  # fmt: skip
    clusters_tested,
    covered,
    inside,
    layout,
    lifts,
    shares,
    together,
)
from fade_lens.subject.neighbours import unit_rows

GROUPS, MEMBERS = 10, 8


def planted(alone: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Directions in ten tight groups of eight, and some at random, with the group of each (-1: none)."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(GROUPS, 64, generator=draw).repeat_interleave(MEMBERS, 0)
    tight = centres + 0.3 * torch.randn(centres.shape, generator=draw)
    rows = torch.cat([tight, torch.randn(alone, 64, generator=draw)])
    return unit_rows(rows), np.concatenate([np.repeat(np.arange(GROUPS), MEMBERS), np.full(alone, -1)])


def fired(groups: np.ndarray, of: set[int], n: int = 4000) -> csc_array:
    """Tokens by latents: each fires on two in a hundred tokens by itself; those of some groups on the same ones, mostly."""
    draw = np.random.default_rng(0)
    on = draw.random((n, len(groups))) < 0.02
    for group in of:
        shared = draw.random(n) < 0.02
        members = np.flatnonzero(groups == group)
        on[:, members] = shared[:, None] & (draw.random((n, len(members))) < 0.8)
    return csc_array(on.astype(np.int32))


def test_the_layout_finds_planted_groups_and_rests_on_the_seed() -> None:
    rows, groups = planted()
    found, again = layout(rows), layout(rows)
    assert (found.places == again.places).all() and (found.clusters == again.clusters).all()
    assert found.places.shape == (len(rows), 2) and np.isfinite(found.places).all()
    own = [set(found.clusters[groups == group].tolist()) for group in range(GROUPS)]
    assert all(len(some) == 1 for some in own) and len(set.union(*own) - {-1}) == GROUPS
    near = np.linalg.norm(found.places[:MEMBERS] - found.places[0], axis=1).max()
    assert near < np.linalg.norm(found.places[groups > 0] - found.places[0], axis=1).min()


def test_the_layout_leaves_torch_its_threads() -> None:
    rows, before = planted()[0], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            layout(rows[:20])
            assert torch.get_num_threads() == threads, "UMAP's own threads would take those of the model that runs next"
    finally:
        torch.set_num_threads(before)


def test_equal_and_few_directions_are_laid_out_too() -> None:
    few = layout(torch.eye(5))
    assert few.clusters.tolist() == [-1] * 5 and len(np.unique(few.places[:, 0])) == 5
    opposite = torch.cat([torch.ones(11, 1), -torch.ones(1, 1)])
    for rows in (torch.eye(8).repeat(6, 1), torch.ones(30, 4), planted()[0][:12], planted()[0][:13], opposite):
        found = layout(unit_rows(rows))
        assert np.isfinite(found.places).all() and len(found.clusters) == len(rows)


def test_cosine_lift_and_together_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = planted(0)
    pairs = [float(rows[i] @ rows[j]) for i in range(5) for j in range(i)]
    assert inside(rows[:5][None])[0] == pytest.approx(np.mean(pairs), abs=1e-6)
    on = fired(groups, {0}, 500)[:, np.arange(6, 12)]
    dense, n = on.toarray().astype(bool), 500
    both = sum((dense[:, i] & dense[:, j]).sum() for i in range(6) for j in range(i))
    chance = sum(dense[:, i].sum() * dense[:, j].sum() / n for i in range(6) for j in range(i))
    every, none = np.arange(6), csc_array((10, 6), dtype=np.int32)
    monkeypatch.setattr(geometry, "FIRING_AT_ONCE", 1)
    assert lifts(on, [every, np.array([0, 3]), every]) == pytest.approx([both / chance, (dense[:, 0] & dense[:, 3]).sum() * n / dense[:, 0].sum() / dense[:, 3].sum(), both / chance])  # fmt: skip
    more = [
        sum((dense[:, i] & dense[:, j]).sum() for j in range(6) if j != i)
        > sum(dense[:, i].sum() * dense[:, j].sum() / n for j in range(6) if j != i)
        for i in range(6)
    ]
    assert together(on) == pytest.approx(np.mean(more))
    assert np.isnan(lifts(none, [every])).all() and lifts(on, []).shape == (0,)


def test_clusters_are_tested_by_cosine_and_by_firing_each_for_itself() -> None:
    rows, groups = planted()
    clusters = groups.copy()
    clusters[-MEMBERS:] = GROUPS  # of latents at random: neither alike nor firing together
    tested = list(clusters_tested(clusters, rows, fired(groups, {0, 1}), n_random=99))
    assert [row["size"] for row in tested] == [MEMBERS] * (GROUPS + 1)
    assert [row["cosine_q"] < 0.05 for row in tested] == [True] * GROUPS + [False]
    assert [row["lift_q"] < 0.06 for row in tested] == [True, True] + [False] * (GROUPS - 1)
    assert tested[0]["together"] == 1.0 and tested[0]["lift"] > 10 and 0.8 < tested[0]["lift_random"] < 1.6
    assert tested == list(clusters_tested(clusters, rows, fired(groups, {0, 1}), n_random=99))
    assert list(clusters_tested(np.full(len(rows), -1), rows)) == []
    assert "lift" not in next(iter(clusters_tested(clusters, rows, n_random=9)))


def test_of_a_large_cluster_fewer_random_sets_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = planted()
    monkeypatch.setattr(geometry, "DRAWN", 0)
    monkeypatch.setattr(geometry, "LEAST_RANDOM", 19)
    assert {row["cosine_p"] for row in clusters_tested(groups, rows)} == {1 / 20}


def test_parents_and_children_share_tokens_as_counted() -> None:
    narrow = csc_array(np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.int32))
    wide = csc_array(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.int32))
    found = shares(narrow, wide, [0, 0, 1])
    assert found[:2].tolist() == [1.0, 0.5] and np.isnan(found[2])
    assert covered(narrow, wide, [0, 0, 1]).tolist() == [pytest.approx(2 / 3), 0.0]
    assert covered(narrow, wide[:, [1, 1]], [0, 1]).tolist() == [pytest.approx(1 / 3), 0.5]
    assert np.isnan(covered(csc_array((5, 1), dtype=np.int32), wide, [0, 0, 0])).all()
