"""Detection-style scores against their definitions, and where they are undefined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens._util.reasons import Reason
from fade_lens.metrics.detection import Detection, detection
from fade_lens.metrics.labelled import LabelledTexts
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.evidence import RatedEvidence, RatedText


def rated(rows) -> LabelledTexts:
    nothing = Metric(None, Reason("undefined", "not asked"))
    texts = (RatedText(i, "t", float(a), float(p), r) for i, (a, r, p) in enumerate(rows))
    return RatedEvidence(nothing, nothing, tuple(texts)).labelled


def by_hand(rows) -> dict[str, float]:
    """Every threshold tried, every text counted as often as it stands for."""
    rows = [(a, r, p) for a, r, p in rows if r in (0, 2)]
    best = (-1.0, 0.0, 0.0)
    for t in sorted({a for a, _, _ in rows}, reverse=True):
        both = sum(1 / p for a, r, p in rows if a >= t and r == 2)
        either = sum(1 / p for a, r, p in rows if a >= t or r == 2)
        named = sum(1 / p for a, r, p in rows if a >= t) + sum(1 / p for _, r, p in rows if r == 2)
        best = max(best, (2 * both / named, t, both / either), key=lambda one: one[0] - 1e-12 * (one[1] < best[1]))
    fires = [(a > 0, r, p) for a, r, p in rows]
    shares = [
        sum(1 / p for f, r, p in fires if r == rating and f is hit) / sum(1 / p for _, r, p in fires if r == rating)
        for rating, hit in ((2, True), (0, False))
    ]
    return {"f1": best[0], "iou": best[2], "balanced_accuracy": sum(shares) / 2}


ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 1.0, 2.5, -1.0]), st.sampled_from([0, 1, 2, None]), st.sampled_from([1.0, 0.5, 0.1])),
    min_size=2,
    max_size=30,
)  # fmt: skip


@given(ROWS)
def test_equals_counting_by_hand(rows):
    found = detection(rated(rows))
    ratings = {r for _, r, _ in rows}
    if not {0, 2} <= ratings:
        assert found.f1 is None and found.reason == f"no text is rated {0 if 2 in ratings else 2}"
        return
    for name, value in by_hand(rows).items():
        assert getattr(found, name) == pytest.approx(value), name
    assert found.iou == pytest.approx(found.f1 / (2 - found.f1))


def test_weights_make_it_the_corpus():
    """A sample that takes all firing texts and one silent text in five gives what the whole corpus gives."""
    rng = np.random.default_rng(0)
    activation = np.where(rng.random(40_000) < 0.02, rng.gamma(2, 2, 40_000), 0.0)
    rating = np.where(rng.random(40_000) < np.where(activation > 4, 0.8, 0.01), 2, 0)
    chosen = (activation > 0) | (rng.random(40_000) < 0.2)
    inclusion = np.where(activation > 0, 1.0, 0.2)
    whole = detection(rated(zip(activation, rating.tolist(), np.ones(40_000), strict=True)))
    sample = detection(rated(zip(activation[chosen], rating[chosen].tolist(), inclusion[chosen], strict=True)))
    for name in ("f1", "iou", "correlation", "correlation_fires", "balanced_accuracy"):
        assert getattr(sample, name) == pytest.approx(getattr(whole, name), abs=0.05), name
    unweighted = detection(rated(zip(activation[chosen], rating[chosen].tolist(), np.ones(chosen.sum()), strict=True)))
    assert unweighted.f1 > whole.f1 + 0.1 and unweighted.balanced_accuracy > whole.balanced_accuracy + 0.1


def test_too_much_named_is_seen_where_auroc_is_blind():
    """Rated 2 on every text that fires strongly and on ten times as many that do not fire: recall is lost, IoU falls."""
    right = [(5.0, 2, 1.0)] * 10 + [(0.0, 0, 1.0)] * 990
    named_too_much = [(5.0, 2, 1.0)] * 10 + [(0.0, 2, 1.0)] * 100 + [(0.0, 0, 1.0)] * 890
    assert detection(rated(right)).iou == 1.0 and detection(rated(right)).correlation == pytest.approx(1)
    found = detection(rated(named_too_much))
    assert found.iou < 0.2 and found.correlation < 0.35 and found.balanced_accuracy < 0.6


def test_undefined():
    assert detection(rated([])) == Detection(reason="no text is rated 2")
    flat = detection(rated([(1.0, 2, 1.0), (1.0, 0, 1.0)]))
    assert flat.correlation is None and flat.f1 == pytest.approx(2 / 3)
    missing = detection(rated([(float("nan"), 2, 1.0), (1.0, 0, 1.0)]))
    assert missing.reason == "no text is rated 2"
