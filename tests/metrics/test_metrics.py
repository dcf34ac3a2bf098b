"""Metrics against scikit-learn, the reference's golden values, slow twins and every undefined case."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, jaccard_score, roc_auc_score

from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.metrics import intervals as bootstrap
from fade_lens.metrics.fade import MIN_TEXTS, clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import MIN_PROMPTS, faithfulness
from fade_lens.metrics.intervals import Rows
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import (
    Ranked,
    auroc,
    average_precision,
    balanced_accuracy,
    best_f1,
    correlation,
    gini,
    iou,
)
from tests.simulated import SCHEMES

GOLDEN = json.loads((Path(__file__).parents[1] / "assets" / "reference_golden.json").read_text())["records"]


@st.composite
def weighted_texts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels with both classes, weights."""
    n = draw(st.integers(2, 40))
    scores = np.array(draw(st.lists(st.integers(-3, 3) | st.floats(-5, 5), min_size=n, max_size=n)), dtype=np.float64)
    labels = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    weights = np.array(draw(st.lists(st.floats(0.01, 50), min_size=n, max_size=n)))
    assume(0 < labels.sum() < n)
    return scores, labels, weights


# --- Against scikit-learn -------------------------------------------------------------------------------------------------


@given(weighted_texts())
@settings(deadline=None, max_examples=100)
def test_auroc_and_average_precision_are_scikit_learns(texts):
    scores, labels, weights = texts
    ours = auroc(scores[labels], scores[~labels], weights[labels], weights[~labels])
    assert ours == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    assert gini(scores[labels], scores[~labels]) == pytest.approx(2 * roc_auc_score(labels, scores) - 1, abs=1e-9)
    assert average_precision(scores, labels, weights) == pytest.approx(
        average_precision_score(labels, scores, sample_weight=weights), abs=1e-9
    )
    assert average_precision(scores, labels.astype(int)) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-9
    )


@given(weighted_texts())
@settings(deadline=None, max_examples=50)
def test_agreement_at_a_threshold_is_scikit_learns(texts):
    scores, labels, weights = texts
    fires = scores > 0
    assert iou(scores, labels, weights) == pytest.approx(jaccard_score(labels, fires, sample_weight=weights), abs=1e-9)
    assert balanced_accuracy(scores, labels, weights) == pytest.approx(
        balanced_accuracy_score(labels, fires, sample_weight=weights), abs=1e-9
    )
    brute = max(f1_score(labels, scores >= t, sample_weight=weights) for t in np.unique(scores))
    assert best_f1(scores, labels, weights) == pytest.approx(brute, abs=1e-9)


def test_correlation_is_numpys_and_none_where_nothing_varies():
    rng = np.random.default_rng(0)
    scores, labels, repeats = rng.normal(size=30), rng.random(30) < 0.4, rng.integers(1, 5, 30)
    expected = np.corrcoef(np.repeat(scores, repeats), np.repeat(labels, repeats))[0, 1]
    assert correlation(scores, labels, repeats.astype(float)) == pytest.approx(expected, abs=1e-12)
    assert correlation(np.full(30, 0.1), labels) is None
    assert correlation(scores, np.ones(30, dtype=bool)) is None
    assert balanced_accuracy(scores, np.ones(30, dtype=bool)) is None


@given(weighted_texts(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_replicates_are_many_single_values(texts, seed):
    scores, labels, _ = texts
    mass = np.random.default_rng(seed).gamma(1.0, size=(4, len(scores))) + 1e-6
    ranked = Ranked(scores, labels, mass)
    expected = [average_precision(scores, labels, row) for row in mass]
    assert ranked.average_precision() == pytest.approx(expected, abs=1e-12)
    assert ranked.auroc() == pytest.approx(
        [auroc(scores[labels], scores[~labels], m[labels], m[~labels]) for m in mass]
    )


# --- Against the reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", GOLDEN, ids=lambda record: record["case"]["kind"])
def test_paper_arithmetic_is_the_references_arithmetic(record):
    case, reference = record["case"], record["reference"]
    if case["kind"] == "clarity":
        values = {"clarity": clarity(np.array(case["synthetic"]), np.array(case["natural"]), arithmetic="paper")}
    elif case["kind"] == "rated":
        texts = np.array(case["activations"]), np.array(case["ratings"])
        weights = np.linspace(1, 9, len(texts[1]))  # the reference knows no weights
        values = {
            "responsiveness": responsiveness(*texts, weights, arithmetic="paper"),
            "purity": purity(*texts, weights, arithmetic="paper"),
        }
    else:
        ratings = {float(factor): np.array(row) for factor, row in case["ratings"].items()}
        values = {"faithfulness": faithfulness(ratings, arithmetic="paper")}
    for name, metric in values.items():
        assert metric.value == pytest.approx(reference[name], abs=1e-9)
        assert metric.interval is None or metric.interval[0] <= metric.value <= metric.interval[1]


def test_default_arithmetic_is_signed_where_the_paper_is_not():
    low, high = np.array([-3.0, -2.0, -4.0]), np.array([0.0, 1.0, 2.0, 3.0])
    assert clarity(low, high).value == -1
    assert clarity(low, high, arithmetic="paper").value == 1
    activations, ratings = np.append(low, high), np.array([2, 2, 2, 0, 0, 0, 0])
    assert responsiveness(activations, ratings).value == -1
    assert purity(activations, ratings).value < 0.5
    assert purity(activations, ratings, arithmetic="paper").value == 1


# --- Weights ----------------------------------------------------------------------------------------------------------------


def test_weights_are_repeats_of_texts():
    rng = np.random.default_rng(1)
    activations, ratings, repeats = rng.normal(size=40).round(1), rng.integers(-1, 3, 40), rng.integers(1, 6, 40)
    for metric in (responsiveness, purity):
        weighted = metric(activations, ratings, repeats.astype(float))
        repeated = metric(np.repeat(activations, repeats), np.repeat(ratings, repeats))
        assert weighted.value == pytest.approx(repeated.value, abs=1e-12)
        assert weighted.details["unweighted"] == pytest.approx(metric(activations, ratings).value, abs=1e-12)
    rated = np.repeat(ratings, repeats)
    assert purity(activations, ratings, repeats.astype(float)).details["prevalence"] == pytest.approx(
        (rated == 2).sum() / ((rated == 2) | (rated == 0)).sum()
    )


def test_order_and_partial_ratings_do_not_matter():
    rng = np.random.default_rng(2)
    activations, ratings, weights = rng.normal(size=50), rng.integers(-1, 3, 50), rng.choice([1.0, 20.0], 50)
    order, kept = rng.permutation(50), (ratings == 0) | (ratings == 2)
    for metric in (responsiveness, purity):
        given_order, shuffled = (
            metric(activations, ratings, weights),
            metric(activations[order], ratings[order], weights[order]),
        )
        assert shuffled.value == pytest.approx(given_order.value)
        assert shuffled.interval == pytest.approx(given_order.interval)
        assert metric(activations[kept], ratings[kept], weights[kept]).value == pytest.approx(given_order.value)
    assert given_order.counts == {
        **{f"rated_{r}": int((ratings == r).sum()) for r in (0, 1, 2)},
        "unrated": int((ratings == -1).sum()),
        "undefined_activation": 0,
    }


# --- Intervals --------------------------------------------------------------------------------------------------------------


def test_intervals_are_deterministic_hold_the_value_and_shrink():
    rng = np.random.default_rng(3)
    widths = []
    for n in (5, 50, 500):
        synthetic, natural = rng.normal(1, 1, n), rng.normal(0, 1, 1000)
        metric = clarity(synthetic, natural, seed=7)
        assert metric == clarity(synthetic, natural, seed=7)
        assert metric.interval != clarity(synthetic, natural, seed=8).interval
        low, high = metric.interval
        assert -1 <= low <= metric.value <= high <= 1
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_a_perfect_score_from_few_texts_has_a_wide_interval():
    """The percentile bootstrap would give (1, 1)."""
    metric = clarity(np.arange(10.0, 15.0), np.arange(10.0))
    assert metric.value == 1
    assert metric.interval[1] == 1
    assert metric.interval[0] < 0.6


def test_silent_texts_of_great_weight_widen_the_interval():
    """No silent text was rated 2, but each stands for a hundred: some may express the concept unseen."""
    activations = np.append(np.linspace(1, 2, 20), np.zeros(50))
    ratings = np.repeat([2, 0], [20, 50])
    weights = np.repeat([1.0, 100.0], [20, 50])
    assert responsiveness(activations, ratings).interval[0] > 0.8
    assert responsiveness(activations, ratings, weights).interval[0] < 0.5


@pytest.mark.parametrize("scale", [1.0, 0.5], ids=["of a corpus", "of endlessly many"])
def test_collapsing_rows_changes_no_replicate_mean(monkeypatch, scale):
    """The collapsed draw agrees with the plain one, text by text, up to Monte Carlo error."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 20_000)
    rng = np.random.default_rng(4)
    values, positive, weights = (
        np.maximum(rng.normal(size=60), 0).round(1),
        rng.random(60) < 0.3,
        scale * rng.choice([1.0, 3.0, 9.0], 60),
    )
    rows = Rows.of_sample(values, positive, weights)
    assert (rows.unseen is None) == (scale < 1)
    drawn = rng.standard_gamma(rows.shape, (20_000, len(rows.shape)))
    for h, mass in enumerate(rows.mass):
        own = rows.stratum == h
        drawn[:, own] /= drawn[:, own].sum(axis=1, keepdims=True)
        drawn[:, own] = mass * drawn[:, own] if rows.unseen is None else rng.multinomial(rows.unseen[h], drawn[:, own])
    plain = Ranked(rows.values, rows.positive, drawn + (0 if rows.unseen is None else rows.seen)).auroc()
    expected = bootstrap.percentiles(plain, rows.tail)
    assert rows.interval(lambda ranked, _: ranked.auroc(), 0) == pytest.approx(expected, abs=0.01)


def test_texts_that_stand_for_themselves_alone_add_no_uncertainty():
    """All that fires is rated, so only the silent texts can change the score."""
    rng = np.random.default_rng(6)
    fires = np.sort(rng.gamma(2.0, size=200))
    activations = np.append(fires, np.zeros(2000))
    ratings = np.where(rng.random(2200) < np.append(fires / 5, np.zeros(2000)), 2, 0)
    weights = np.append(np.ones(200), np.full(2000, 1.001))
    for metric in (responsiveness, purity):
        low, high = metric(activations, ratings, weights).interval
        width = high - low
        low, high = metric(activations, ratings).interval
        assert width < (high - low) / 2, "without weights they are a sample of endlessly many"
        assert metric(activations, ratings, np.ones(2200)).interval == (low, high), "a whole corpus is a sample as well"


def test_few_positives_of_unequal_weights_widen_the_quantiles():
    values, positive = np.arange(100.0), np.arange(100) >= 95
    equal = Rows.of_sample(values, positive, np.full(100, 20.0)).tail
    unequal = Rows.of_sample(values, positive, np.where(np.arange(100) == 99, 200.0, 20.0)).tail
    many = Rows.of_sample(values, np.arange(100) >= 50, np.full(100, 20.0)).tail
    assert 0 < unequal < equal < many < bootstrap.TAIL


def test_many_distinct_weights_are_grouped():
    rng = np.random.default_rng(5)
    rows = Rows.of_sample(rng.normal(size=300), rng.random(300) < 0.5, rng.gamma(2.0, size=300))
    assert 2 <= len(rows.mass) <= bootstrap.MAX_STRATA
    assert rows.shape.sum() == pytest.approx(300 + bootstrap.PSEUDO)


@pytest.mark.parametrize(
    ("scheme", "fewest", "most"), [("Clarity", 3, 7), ("uniform, 500", 8, 24), ("stratified, 200", 3, 24)]
)
def test_intervals_hold_the_truth_of_features_drawn_at_random(monkeypatch, scheme, fewest, most):
    """Nominally 95 %, here of few runs; of many: `python -m tests.simulated random`."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 300)
    rng, found = np.random.default_rng(7), []
    while len(found) < 120:
        found += SCHEMES[scheme]((fewest, most), rng, len(found))
    low, high, truth = np.array(found, dtype=float).T
    assert np.mean((low <= truth) & (truth <= high)) >= 0.89


# --- Undefined is a value ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["default", "paper"])
@pytest.mark.parametrize("metric", [responsiveness, purity])
@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        ([0, 0, 1], "no text is rated 2"),
        ([2, 1, 2], "no text is rated 0"),
        ([-1, -1, -1], "none of the 3 texts is rated"),
    ],
)
def test_undefined_without_both_ratings(metric, ratings, reason, arithmetic):
    result = metric(np.arange(3.0), np.array(ratings), arithmetic=arithmetic)
    assert result.value is None
    assert result.interval is None
    assert reason in result.reason
    assert result.counts["rated_2"] == ratings.count(2)


def test_undefined_without_any_text():
    assert "none of the 0 texts" in responsiveness(np.zeros(0), np.zeros(0, dtype=int)).reason
    assert "no synthetic text" in clarity(np.zeros(0), np.ones(3)).reason
    assert "no natural text" in clarity(np.ones(3), np.full(2, np.nan)).reason


def test_texts_without_a_counted_position_are_counted_and_left_out():
    synthetic, natural = np.array([1.0, np.nan, 3.0]), np.array([0.0, 2.0, np.nan, np.nan])
    result = clarity(synthetic, natural)
    assert result.counts == {"synthetic": 2, "natural": 2, "undefined_activation": 3}
    assert result.value == gini(np.array([1.0, 3.0]), np.array([0.0, 2.0]))
    rated = purity(np.array([np.nan, 1.0, 0.0, np.nan]), np.array([2, 2, 0, -1]))
    assert (rated.value, rated.counts["rated_2"], rated.counts["undefined_activation"]) == (1, 1, 2)
    assert "no text is rated 2" in purity(np.array([np.nan, 0.0]), np.array([2, 0])).reason


def test_few_texts_give_a_value_and_say_why_no_interval():
    result = clarity(np.ones(MIN_TEXTS - 1), np.zeros(50))
    assert result.value == 1
    assert result.interval is None
    assert "an interval needs at least" in result.interval_reason
    assert clarity(np.ones(MIN_TEXTS), np.zeros(50)).interval is not None
    assert purity(np.array([1.0, 0.0]), np.array([2, 0])).interval_reason is not None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: responsiveness(np.zeros(2), np.array([3, 0])), r"holds \[3\]; ratings are 0, 1, 2"),
        (lambda: responsiveness(np.array([np.inf, 0.0]), np.array([2, 0])), r"activations\[0\] is inf"),
        (lambda: purity(np.zeros(2), np.array([2, 0]), np.array([1.0, 0.0])), "weights must be finite, above 0"),
        (lambda: auroc(np.zeros(0), np.zeros(2)), "positives hold 0 values"),
        (lambda: auroc(np.ones(1), np.zeros(2), np.zeros(1)), "positives hold 1 values of no weight"),
        (lambda: average_precision(np.zeros(2), np.array([0, 0])), "no positive"),
        (lambda: average_precision(np.zeros(2), np.array([2, 0])), r"labels hold \[2\]"),
        (lambda: average_precision(np.zeros(2), np.array([1, 0]), np.array([-1.0, 1.0])), "at least 0"),
        (lambda: faithfulness({1.0: np.zeros(4, dtype=int)}), "factor 0, the unsteered model, must be one"),
        (
            lambda: faithfulness({0.0: np.zeros(4, dtype=int), 1.0: np.zeros(3, dtype=int)}),
            "different numbers of prompts",
        ),
        (lambda: faithfulness({0.0: np.zeros(4, dtype=int), 1.0: np.full(4, 7)}), r"ratings\[1\] holds \[7"),
        (lambda: Metric(None), "give a reason exactly when there is no value"),
        (lambda: Metric(1.0, Reason("why", "why")), "give a reason exactly when there is no value"),
    ],
)
def test_bad_input_names_the_field_and_the_mend(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_metric_survives_json():
    for metric in (
        clarity(np.arange(9.0), np.arange(5.0)),
        clarity(np.zeros(0), np.zeros(3)),
        purity(np.array([1.0, 0.0]), np.array([2, 0])),
    ):
        assert Metric.from_dict(json.loads(json.dumps(metric.to_dict()))) == metric


# --- Faithfulness -----------------------------------------------------------------------------------------------------------


def rates(rng: np.random.Generator, prompts: int, **expressing: float) -> dict[float, np.ndarray]:
    return {float(factor[1:]): np.where(rng.random(prompts) < p, 2, 0) for factor, p in expressing.items()}


def test_faithfulness_of_one_factor_is_the_plain_ratio():
    ratings = {0.0: np.repeat([2, 0], [10, 40]), 3.0: np.repeat([0, 2, 1], [10, 20, 20])}
    result = faithfulness(ratings)
    assert result.value == pytest.approx((0.4 - 0.2) / 0.8)
    assert result.value == pytest.approx(faithfulness(ratings, arithmetic="paper").value)
    assert (result.details["factor"], result.details["rate_0"], result.details["rate_factor"]) == (3, 0.2, 0.4)
    assert result.counts["rated_2_3"] == 20
    assert result.counts["rated_1_3"] == 20
    assert result.interval[0] < result.value < result.interval[1]


def test_faithfulness_null_is_unbiased_where_the_maximum_is_not():
    rng = np.random.default_rng(6)
    results = [
        faithfulness(rates(rng, 50, _0=0.05, _1=0.05, _2=0.05, _3=0.05, _5=0.05, _8=0.05, _9=0.05), seed=i)
        for i in range(200)
    ]
    assert abs(np.mean([r.details["signed"] for r in results])) < 0.01
    assert np.mean([r.value for r in results]) < 0.02
    assert np.mean([r.details["maximum"] for r in results]) > 0.03


def test_faithfulness_reports_the_best_factor_not_the_largest():
    rng = np.random.default_rng(7)
    result = faithfulness(rates(rng, 60, _0=0.05, _2=0.9, _50=0.3))
    assert result.details["factor"] == 2
    assert result.details["factor_share"] == 1


def test_faithfulness_ignores_the_order_of_factors_and_repeats_by_seed():
    rng = np.random.default_rng(8)
    ratings = rates(rng, 50, _0=0.1, _1=0.3, _2=0.35)
    assert faithfulness(ratings, seed=1) == faithfulness(dict(reversed(ratings.items())), seed=1)


def test_faithfulness_of_a_harmful_feature_is_zero():
    ratings = {0.0: np.repeat([2, 0], [25, 25]), 1.0: np.zeros(50, dtype=int)}
    result = faithfulness(ratings)
    assert (result.value, result.details["signed"], result.interval[0]) == (0, -1, 0)


def test_unrated_continuations_stay_in_the_denominator_but_in_the_references_arithmetic():
    ratings = {0.0: np.zeros(40, dtype=int), 1.0: np.repeat([2, -1], [20, 20])}
    assert faithfulness(ratings).value == 0.5
    assert faithfulness(ratings, arithmetic="paper").value == 1
    assert faithfulness(ratings).counts["unrated_1"] == 20


@pytest.mark.parametrize("arithmetic", ["default", "paper"])
@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        ({0.0: [2] * 12, 1.0: [2] * 12}, "already expresses the concept"),
        ({0.0: [0] * 12}, "no steering factor other than 0"),
        ({0.0: [0], 1.0: [2]}, "at least 2"),
        ({0.0: [], 1.0: []}, "at least 2"),
        ({0.0: [-1] * 12, 1.0: [2] * 12}, "no continuation of the unsteered model is rated"),
        ({0.0: [0] * 12, 1.0: [-1] * 12}, "no steered continuation is rated"),
    ],
)
def test_faithfulness_undefined(ratings, reason, arithmetic):
    result = faithfulness({factor: np.array(row, dtype=int) for factor, row in ratings.items()}, arithmetic=arithmetic)
    assert result.value is None
    assert reason in result.reason
    assert result.counts["prompts"] == len(ratings[0.0])


def test_faithfulness_from_few_prompts_has_no_interval():
    n = MIN_PROMPTS - 1
    result = faithfulness({0.0: np.zeros(n, dtype=int), 1.0: np.full(n, 2)})
    assert result.value == 1
    assert result.interval is None
    assert f"{n} prompts" in result.interval_reason


def test_another_factor_that_may_be_the_best_raises_the_upper_limit():
    """It has hits on as many of the few prompts at which it is rated; at the others only the chosen factor is."""
    rng = np.random.default_rng(0)
    unsteered, chosen = np.zeros(60, dtype=int), np.zeros(60, dtype=int)
    chosen[:6] = 2  # none later
    rival, far = (np.where(rng.permutation(21) < hits, 2, 0) for hits in (5, 0))
    with_rival, alone = (faithfulness({0.0: unsteered, 1.0: chosen, 2.0: row}) for row in (rival, far))
    assert with_rival.details["factor"] == alone.details["factor"] == 1.0
    assert alone.interval[1] < 0.25 < 5 / 21 + 0.05 < with_rival.interval[1] < 0.45
