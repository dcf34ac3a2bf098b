"""Windows are drawn as often as is said of them, and never twice."""

import numpy as np
import pytest

from fade_lens.evidence.windows import By, Draw, choose, shares

VALUES = np.sort(np.random.default_rng(0).exponential(size=37))[::-1]


@pytest.mark.parametrize("by", ["strata", "random", "top", "square"])
def test_a_text_is_drawn_with_the_probability_that_is_said(by: By) -> None:
    draw, random = Draw(n=12, by=by, strata=5, of=20), np.random.default_rng(1)
    drawn, said = np.zeros(len(VALUES)), np.zeros(len(VALUES))
    for _ in range(4000):
        chosen, probability, stratum = choose(VALUES, draw, random)
        assert len(set(chosen.tolist())) == 12 and np.all(np.diff(chosen) > 0) and np.all(np.diff(stratum) >= 0)
        drawn[chosen] += 1 / 4000
        said[chosen] = probability
    assert said.sum() == pytest.approx(12, abs=0.01)  # but for texts so unlikely that none was drawn
    assert np.abs(drawn - said).max() < 5 * 0.5 / np.sqrt(4000)


def test_fewer_texts_than_are_asked_for_are_all_taken() -> None:
    for by in ("strata", "random", "top", "square"):
        chosen, probability, _ = choose(VALUES[:3], Draw(n=12, by=by), np.random.default_rng(0))
        assert chosen.tolist() == [0, 1, 2] and np.allclose(probability, 1), by
    assert all(len(part) == 0 for part in choose(VALUES[:0], Draw(n=12), np.random.default_rng(0)))


def test_shares_are_in_proportion_where_none_is_sure() -> None:
    assert shares(np.array([4.0, 1.0, 1.0, 0.0]), 2).tolist() == [1.0, 0.5, 0.5, 0.0]
    assert shares(np.array([2.0, 1.0, 1.0]), 1).tolist() == [0.5, 0.25, 0.25]
