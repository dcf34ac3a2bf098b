"""Results as a table, as evidence and as a file."""

from dataclasses import replace

import pytest

from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.data.descriptions import Description
from fade_lens.metrics.metric import Metric
from fade_lens.runs.record import RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.evidence import (
    ClarityEvidence,
    Continuation,
    FaithfulnessEvidence,
    RatedEvidence,
    RatedText,
    SyntheticText,
)
from fade_lens.subject.summary import FeatureSummary, Promoted, TopText
from tests.made_up import fade_evidence

SUMMARY = FeatureSummary(0.01, 40, 100, 7.5, 6.0, (0.0, 1.0, 7.5), (TopText(3, 7.5, ("<bos>", "a"), (None, 7.5)),))


def result(index=9, **changes) -> Result:
    given = {
        "feature": SUMMARY,
        "clarity_evidence": ClarityEvidence(
            Metric(0.9, interval=(0.8, 0.95), counts={"synthetic": 2, "natural": 100}),
            (SyntheticText("x", 1.0), SyntheticText("", None)),
        ),
        "rated_evidence": RatedEvidence(
            Metric(0.8, interval=(0.7, 0.9), counts={"rated_2": 1}),
            Metric(
                0.7,
                counts={"rated_2": 1, "rated_1": 0, "rated_0": 1, "unrated": 1},
                details={"prevalence": 0.1, "unweighted": 0.9},
            ),
            (
                RatedText(0, "a", 1.5, 0.5, 2, 1.25),
                RatedText(1, "b", 0.0, 0.1, 0),
                RatedText(2, "c", 0.0, 0.1, None, None, "refused"),
            ),
        ),
        "faithfulness_evidence": FaithfulnessEvidence(
            Metric(None, Reason("undefined", "gate not passed")),
            (Continuation(0.0, "p", "t", 0), Continuation(1.0, "p", "u", None, None, "failed")),
        ),
    }
    given |= changes
    parts = (given.pop(name) for name in ("clarity_evidence", "rated_evidence", "faithfulness_evidence"))
    return Result(Description(index, "the word 'new'", "a dict"), evidence=fade_evidence(*parts), **given)


def test_the_frame_says_why_a_value_is_missing():
    row = Results((result(),)).frame.iloc[0]
    assert (row.clarity, row.clarity_low, row.clarity_high) == (0.9, 0.8, 0.95)
    assert row.faithfulness != row.faithfulness and row.faithfulness_reason == "gate not passed"
    assert row.clarity_reason is None
    assert (row.n_rated_2, row.n_rated_0, row.n_unrated, row.prevalence) == (1, 1, 1, 0.1)
    assert "1 of 3 natural texts got no rating" in row["flags"] and "1 of 2 continuations" in row["flags"]


@pytest.mark.parametrize(
    "summary, flag",
    [
        (FeatureSummary(0.0, 0, 100, 0.0, None, ()), "dead"),
        (FeatureSummary(0.2, 90, 100, 1.0, 1.0, ()), "dense"),
        (FeatureSummary(0.001, 4, 100, 1.0, 1.0, ()), "rare: fires on 4 texts"),
    ],
)
def test_flags_of_the_feature(summary, flag):
    assert any(f.startswith(flag) for f in result(feature=summary).flags)


def test_a_single_unrated_text_is_told_where_it_matters():
    def flags(missing, asked):
        texts = tuple(RatedText(i, "a", 0.0, 1.0, None if i < missing else 0) for i in range(asked))
        return [f for f in result(rated_evidence=replace(result().rated_evidence, texts=texts)).flags if "natural" in f]

    assert flags(0, 200) == flags(1, 200) == []
    assert flags(1, 40) == ["unrated: 1 of 40 natural texts got no rating"]
    assert flags(2, 200) == ["unrated: 2 of 200 natural texts got no rating"]


@pytest.mark.parametrize("failures, words", [(1, "1 request gave no text"), (2, "2 requests gave no text")])
def test_requests_that_gave_no_text_are_counted_in_english(failures, words):
    evidence = ClarityEvidence(Metric(None, Reason("undefined", "no text")), (), ("refused",) * failures)
    assert f"writing: {words}" in result(clarity_evidence=evidence).flags


def test_by_feature():
    results = Results((result(9), result(11), result(11)))
    assert results[9].description.index == 9
    assert len(results.of(11)) == 2
    with pytest.raises(InputError, match=r"results\.of\(11\)"):
        results[11]
    with pytest.raises(InputError, match="not in these results; they hold 9, 11"):
        results[4]


def test_a_file_holds_everything(tmp_path):
    results = Results((result(9), result(11)), RunRecord({"seed": 0}))
    loaded = Results.load(results.save(tmp_path / "deep" / "r.sqlite"))
    assert loaded.items == results.items and loaded.run == results.run


@pytest.mark.parametrize(
    ("logits", "nearest"),
    [(Promoted(((" cat", 2.5),), (("\n", -1.0),)), ((3, 0.5),)), (Reason("no_lens", "why"), Reason("neurons", "w")), (None, None)],
)  # fmt: skip
def test_a_file_holds_promoted_tokens_or_why_there_are_none(tmp_path, logits, nearest):
    top = (replace(SUMMARY.top[0], causes=(None, -1.5)), *SUMMARY.top)
    one = result(feature=replace(SUMMARY, logits=logits, nearest=nearest, top=top))
    loaded = Results.load(Results((one,)).save(tmp_path / "r.sqlite"))[9]
    assert loaded.feature == one.feature and loaded.logits == logits
    for found, wanted in ((loaded.logits, logits), (loaded.feature.nearest, nearest)):
        assert isinstance(found, Reason) == isinstance(wanted, Reason)  # a reason is equal to its words alone


def test_an_earlier_file_outlives_a_save_that_fails(tmp_path):
    path = Results((result(9),)).save(tmp_path / "r.sqlite")
    with pytest.raises(TypeError):
        Results((result(11),), RunRecord({"seed": object()})).save(path)
    assert Results.load(path).items == (result(9),)
    assert list(tmp_path.iterdir()) == [path]


def test_notebook_views_and_plots():
    results = Results((result(9), result(11)))
    assert "the word" in results._repr_html_() and "the word" in results[9]._repr_html_()
    assert len(results[9].plot().data) > 0 and len(results.plot().data) > 0
