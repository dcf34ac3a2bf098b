"""Texts of one document tell less than texts of several."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest

from fade_lens.metrics.clustered import design_effect, placements
from fade_lens.metrics.decisions import balanced
from fade_lens.metrics.intervals import share_interval
from fade_lens.metrics.ranking import auroc
from fade_lens.scorers.deciding import JudgedWindow
from fade_lens.scorers.detection import detection_of
from fade_lens.scorers.fuzzing import RIGHT, WRONG, fuzzing_of


def windows(n: int, seed: int = 0, kinds: tuple[str, str] = ("active", "random_silent"), pairs: bool = False) -> list[JudgedWindow]:  # fmt: skip
    random = np.random.default_rng(seed)
    numbers = [range(n), range(n) if pairs else range(n, 2 * n)]
    return [
        JudgedWindow(number, "", kind, kind == kinds[0], decided=bool(random.random() < 0.7) is (kind == kinds[0]), score=float(random.normal()))
        for kind, some in zip(kinds, numbers, strict=True)
        for number in some
    ]  # fmt: skip


@pytest.mark.parametrize("score", [detection_of, fuzzing_of])
def test_an_interval_is_that_of_the_documents_where_their_texts_agree(score: Callable[..., object]) -> None:
    some = windows(40, kinds=(RIGHT, WRONG), pairs=True) if score is fuzzing_of else windows(40)
    alone = score(some)
    assert score(some, 0, np.arange(80)) == alone, "unchanged where no document repeats"
    copies = [JudgedWindow(t.number + 80 * copy, "", t.kind, t.positive, decided=t.decided, score=t.score) for copy in range(3) for t in some]  # fmt: skip
    together = score(copies, 0, np.tile(np.arange(80), 3))
    assert together.value == pytest.approx(alone.value) and together.interval == pytest.approx(
        alone.interval, abs=0.012
    )
    assert np.ptp(score(copies).interval) < 0.65 * np.ptp(alone.interval)
    low, high = (together.details[f"auroc_{side}"] for side in ("low", "high"))
    assert high - low == pytest.approx(alone.details["auroc_high"] - alone.details["auroc_low"], rel=0.1)


def test_all_right_on_few_documents_is_no_certainty() -> None:
    sides = [np.ones(30), np.ones(30)]
    numbers = [np.arange(30), np.arange(30, 60)]
    effect = design_effect(sides, numbers, np.arange(60) // 10)
    assert effect == 10
    assert balanced([True] * 30, [True] * 30, effect=effect).interval == balanced([True] * 3, [True] * 3).interval
    assert design_effect(sides, numbers, np.arange(60)) == 1


def test_the_design_effect_is_how_much_the_value_varies() -> None:
    """Documents of four texts with a rate each, simulated."""
    random = np.random.default_rng(0)
    documents = np.arange(240) // 4
    numbers = [np.arange(120), np.arange(120, 240)]
    values: list[float] = []
    effects: list[float] = []
    for _ in range(400):
        sides = [(random.random(120) < np.repeat(random.beta(0.5, 0.5, 30), 4)).astype(float) for _ in range(2)]
        values.append((sides[0].mean() + sides[1].mean()) / 2)
        effects.append(design_effect(sides, numbers, documents))
    assert np.mean(effects) == pytest.approx(np.var(values) / (0.25 / 120 / 2), rel=0.15)


def test_the_mean_of_placements_is_auroc() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, 20).astype(float), random.integers(0, 5, 33).astype(float)
    assert [side.mean() for side in placements(a, b)] == pytest.approx([auroc(a, b)] * 2)


def test_score_intervals_are_those_of_scipy() -> None:
    for n in (1, 3, 10, 200):
        for hits in {0, 1, n // 2, n}:
            expected = binomtest(hits, n).proportion_ci(method="wilson")
            assert share_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-14)
