"""Means by group with intervals over features, undefined values counted, paired tests between sources."""

from dataclasses import replace

import numpy as np
import pytest

from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.analysis.summary import compare_sources, summary, unconditional
from fade_lens.data.descriptions import Description
from fade_lens.metrics.differences import LEAST_FEATURES
from fade_lens.metrics.metric import GATE_NOT_PASSED, Metric
from fade_lens.runs.record import FeaturesRecord, RunRecord
from fade_lens.runs.results import Results
from fade_lens.scorers.evidence import ClarityEvidence, FaithfulnessEvidence
from tests.made_up import made_up_result, with_evidence

UNCONDITIONAL = unconditional("faithfulness")

BASE = made_up_result("right", n_rated=20)
RUN = RunRecord(features=FeaturesRecord("sae", "blocks.9.hook_resid_post", 4096, "jumprelu"))


def result(index, clarity, faithfulness=0.3, origin="a", text="d"):
    """A result with chosen Clarity and Faithfulness; a string is the reason why one is undefined."""
    clear, faithful = (
        Metric(None, v if isinstance(v, Reason) else Reason("undefined", v)) if isinstance(v, str) else Metric(float(v))
        for v in (clarity, faithfulness)
    )
    named = replace(BASE, description=Description(index, f"{text} {index}", origin))
    return with_evidence(named, clarity=ClarityEvidence(clear), faithfulness=FaithfulnessEvidence(faithful))


def row(frame, metric, group="all"):
    return frame[frame["null"].isna()].set_index(["group", "metric"]).loc[(group, metric)]


def gate(tenths):
    return Reason(GATE_NOT_PASSED, f"gate not passed: Clarity is 0.{tenths}1, below 0.5")


def test_means_and_what_is_undefined():
    items = [result(i, i / 10, 0.4) for i in range(6)]
    items += [
        result(6, "the judge wrote no text", gate(1)),
        result(7, 0.2, gate(2)),
        result(8, 0.1, "never fires"),
    ]
    frame = summary(Results(tuple(items)))
    clear = row(frame, "clarity")
    assert clear["mean"] == pytest.approx(np.mean([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.2, 0.1])) and clear.n == 8
    assert clear.undefined == pytest.approx(1 / 9) and clear.reasons == "the judge wrote no text (1)"
    assert clear.low < clear["mean"] < clear.high
    faithful, unconditional = row(frame, "faithfulness"), row(frame, UNCONDITIONAL)
    assert faithful["mean"] == pytest.approx(0.4) and faithful.n == 6
    assert faithful.reasons == "gate not passed: Clarity is …, below … (2); never fires (1)"
    assert (
        unconditional["mean"] == pytest.approx(0.4 * 6 / 8)
        and unconditional.n == 8
        and unconditional.reasons == "never fires (1)"
    )


def test_what_the_gate_could_not_judge_is_not_counted_as_without_effect():
    reason = Reason("gate_not_judged", "gate not passed is not what this is, whatever its words")
    unconditional = row(summary(Results((result(0, "the judge wrote no text", reason),))), UNCONDITIONAL)
    assert unconditional.n == 0 and unconditional.undefined == 1


def test_nothing_defined_and_few_features():
    frame = summary(Results(tuple(result(i, "no text") for i in range(3))))
    clear = row(frame, "clarity")
    assert np.isnan(clear["mean"]) and clear.n == 0 and clear.undefined == 1
    few = summary(Results(tuple(result(i, 0.5) for i in range(LEAST_FEATURES - 1))))
    assert row(few, "clarity")["mean"] == 0.5 and np.isnan(row(few, "clarity").low)
    with pytest.raises(InputError, match="no description"):
        summary(Results(()))


def test_groups():
    items = [result(i, 0.9, origin="good") for i in range(6)] + [
        result(i, 0.1, origin="bad", text="e") for i in range(6)
    ]
    results = Results(tuple(items), RUN)
    frame = results.summary("origin")
    assert row(frame, "clarity", "good")["mean"] == pytest.approx(0.9) and row(frame, "clarity", "bad")[
        "mean"
    ] == pytest.approx(0.1)
    other = Results(results.items, RunRecord(features=replace(RUN.features, hook="blocks.12.hook_resid_post")))
    assert set(summary([results, other], "layer").group) == {"9", "12"}
    assert set(summary([results, other], "run").group) == {"run 0", "run 1"}
    assert set(summary([results, other], "sae").group) == {
        "sae jumprelu blocks.9.hook_resid_post 4096",
        "sae jumprelu blocks.12.hook_resid_post 4096",
    }
    assert set(summary(results, lambda r: r.description.index % 2).group) == {"0", "1"}
    with pytest.raises(InputError, match="by is 'colour'"):
        summary(results, "colour")


def test_intervals_cover_and_resample_features_not_descriptions():
    """Coverage of the mean of skewed values at 8 features, each with four descriptions that share the feature's value."""
    rng = np.random.default_rng(0)
    covered = narrow = 0
    for seed in range(200):
        values = rng.beta(2, 1, 8)
        items = [result(i, v, text=f"{k}") for i, v in enumerate(values) for k in range(4)]
        clear = row(summary(Results(tuple(items)), seed=seed), "clarity")
        covered += clear.low <= 2 / 3 <= clear.high
        narrow += clear.high - clear.low < 0.5 * 2 * 1.96 * values.std(ddof=1) / np.sqrt(8)
    assert 0.90 <= covered / 200 <= 0.99 and narrow == 0


def test_score_minus_null():
    items = tuple(result(i, 0.8) for i in range(6))
    nulls = {"shuffled": tuple(result(i, 0.1 if i else "no text", "gate not passed") for i in range(6))}
    frame = Results(items, RUN, None, nulls).summary()
    found = frame[frame["null"] == "shuffled"].set_index("metric").loc["clarity"]
    assert found["mean"] == pytest.approx(0.7) and found.n == 5 and found.reasons == "null: no text (1)"
    assert "faithfulness" not in set(frame[frame["null"] == "shuffled"].metric), "no null passed the gate"


def test_paired_tests():
    rng = np.random.default_rng(0)
    base, gain = rng.uniform(0, 0.5, 12), rng.normal(0.2, 0.1, 12)
    items = [result(i, v, origin="a") for i, v in enumerate(base)] + [
        result(i, v + g, origin="b", text="e") for i, (v, g) in enumerate(zip(base, gain, strict=True))
    ]
    items += [
        result(20, "no text", origin="a"),
        result(20, 0.5, origin="b"),
        result(21, 0.5, origin="a"),
        result(0, base[0] + 0.1, origin="a", text="f"),
    ]
    found = compare_sources(Results(tuple(items), RUN)).set_index("metric").loc["clarity"]
    difference = -gain.copy()
    difference[0] += 0.05  # feature 0 has two descriptions of source a
    assert (found.a, found.b, found.n_a, found.n_b, found.left_out, found.paired) == ("a", "b", 12, 12, 1, True)
    assert found.difference == pytest.approx(difference.mean()) and found.low < found.difference < found.high < 0
    flips = 1 - 2 * ((np.arange(2**12)[:, None] >> np.arange(12)) & 1)
    assert found.p_value == (abs(flips @ difference) >= abs(difference.sum()) - 1e-9).mean() < 0.01
    unpaired = np.hypot(base.std(), (base + gain).std()) * 2 * 1.96 / np.sqrt(12)
    assert found.high - found.low < unpaired / 1.5, "pairing makes the interval narrower"


def test_runs_over_the_same_features_are_compared():
    first, second = (Results(tuple(result(i, v) for i in range(6)), RUN) for v in (0.4, 0.4))
    found = compare_sources([first, second], "run").set_index("metric")
    assert (
        found.loc["clarity"].difference == 0 and found.loc["clarity"].p_value == 1.0 and found.loc["clarity"].n_a == 6
    )
    elsewhere = Results(second.items, RunRecord(features=FeaturesRecord(hook="blocks.1.hook_resid_post")))
    apart = compare_sources([first, elsewhere], "run").set_index("metric").loc["clarity"]
    assert not apart.paired and (apart.n_a, apart.n_b, apart.left_out) == (6, 6, 0)
    with pytest.raises(InputError, match="one source"):
        compare_sources(first)


def test_features_count_by_how_many_they_stand_for():
    items = tuple(result(i, 0.9 if i < 6 else 0.3 + i / 1000) for i in range(12))
    items += (result(12, "no text"),)
    weights = tuple((i, 10.0 if i < 6 else 2.0) for i in range(13))
    run = replace(Results(items, RUN), weights=weights)
    plain, clear = (row(summary(one), "clarity") for one in (replace(run, weights=()), run))
    mean = np.average([r.clarity.value for r in items[:12]], weights=[w for _, w in weights[:12]])
    assert clear["mean"] == pytest.approx(mean) and abs(plain["mean"] - mean) > 0.1
    assert clear.undefined == pytest.approx(2 / 74) and plain.undefined == pytest.approx(1 / 13)
    assert clear.high - clear.low < 0.01 < plain.high - plain.low, "the strata hardly vary within"
    nulls = {"shuffled": tuple(result(i, 0.1) for i in range(13))}
    minus = summary(replace(run, nulls=nulls)).query("null == 'shuffled'").set_index("metric").loc["clarity"]
    assert minus["mean"] == pytest.approx(mean - 0.1)
    # A run of the same SAE that was drawn otherwise keeps its own weights, and pooled runs count by their features.
    both = [run, replace(run, weights=())]
    found = summary(both, "run")
    assert [row(found, "clarity", f"run {n}")["mean"] for n in (0, 1)] == pytest.approx([mean, plain["mean"]])
    elsewhere = replace(run, weights=tuple((i, 100 * w) for i, w in weights), run=RunRecord(features=FeaturesRecord(hook="blocks.1.hook_resid_post")))  # fmt: skip
    for others in (run, elsewhere):
        pair = compare_sources([run, others], "run").set_index("metric").loc["clarity"]
        assert pair.mean_a == pytest.approx(mean) == pair.mean_b and pair.paired == (others is run)
    assert row(summary([run, elsewhere]), "clarity")["mean"] == pytest.approx(mean)
    with pytest.raises(InputError, match="not above 0"):
        summary(replace(run, weights=((0, float("nan")),)))


def test_weights_are_saved_and_stand_in_the_table(tmp_path):
    run = replace(Results(tuple(result(i, 0.5) for i in range(3)), RUN), weights=((0, 2.5), (1, 10.0), (2, 1.0)))
    found = Results.load(run.save(tmp_path / "results.sqlite"))
    assert found == run and found.frame["weight"].tolist() == [2.5, 10.0, 1.0]
    assert "weight" not in replace(run, weights=()).frame
