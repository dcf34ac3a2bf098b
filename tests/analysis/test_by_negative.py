"""Scores and false positives by kind of negatives, paired over features, from answers that are there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fade_lens import Description, Fade, InputError, Results, by_negative
from fade_lens.evidence.negatives import KINDS
from fade_lens.metrics.metric import Metric
from fade_lens.report.page import page
from fade_lens.runs.results import Result
from fade_lens.scorers.deciding import JudgedWindow, WindowScores
from tests.explained import made_up_explained
from tests.fake_judge import FakeJudge
from tests.made_up import HOSTILE, made_up_result, made_up_results
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule

BASE = made_up_result()
SHARES = {"active": 0.9, "random_silent": 0.0, "token_silent": 0.5}


def judged(index: int, shares: dict[str, float] = SHARES, n: int = 20, **more: Any) -> Result:
    """A result whose judge says yes to a share of the windows of each kind."""
    texts = tuple(
        JudgedWindow(100 * at + i, "x", kind, kind == "active", decided=i < share * n, **more)
        for at, (kind, share) in enumerate(shares.items())
        for i in range(n)
    )
    return replace(BASE, description=Description(index, f"feature {index}"), evidence={"detection": WindowScores({"detection": Metric(0.7)}, texts)})  # fmt: skip


def run(some: Sequence[Result]) -> Results:
    return Results(tuple(some))


def row(found: Any, kind: str) -> dict[str, Any]:
    return found.table.set_index("kind").loc[kind].to_dict()


def test_each_kind_has_its_score_and_its_false_positives_and_its_paired_difference() -> None:
    hard = [0.4, 0.45, 0.5, 0.55, 0.6, 0.65]
    found = by_negative(run([judged(i, SHARES | {"token_silent": share}) for i, share in enumerate(hard)]))
    base, token = row(found, "random_silent"), row(found, "token_silent")
    # AUROC of a yes or no is the mean of recall and specificity.
    assert base["auroc"] == pytest.approx((0.9 + 1) / 2) and base["false_positives"] == 0
    assert token["auroc"] == pytest.approx((0.9 + 1 - np.mean(hard)) / 2)
    assert (
        token["false_positives"] == pytest.approx(np.mean(hard)) == pytest.approx(token["false_positives_difference"])
    )
    assert token["auroc_difference"] == pytest.approx(-np.mean(hard) / 2)
    assert token["auroc_difference_low"] < token["auroc_difference"] < token["auroc_difference_high"] < 0
    assert (
        np.isnan(base["auroc_difference"]) and base["n_paired"] == 0 and token["n_paired"] == token["n_features"] == 6
    )
    assert found.frame["kind"].tolist() == ["random_silent", "token_silent"] * 6 and set(found.frame["n"]) == {20}
    assert "token_silent" in repr(found) and "token_silent" in found._repr_html_()
    figure = found.plot()
    assert [trace.type for trace in figure.data] == ["box", "scatter"] * 2 and list(figure.data[1].x) == [
        "random silent",
        "token silent",
    ]


def test_differences_are_within_a_description_and_not_between_means() -> None:
    # Half of the features have no hard negatives: these are the ones with the low scores.
    some = [judged(i) for i in range(6)] + [judged(i, {"active": 0.2, "random_silent": 0.2}) for i in range(6, 12)]
    found = row(by_negative(run(some)), "token_silent")
    assert found["auroc_difference"] == pytest.approx(-0.25) and found["n_paired"] == 6
    twice = by_negative(run([judged(1), judged(1, SHARES | {"token_silent": 0.9}), judged(2)]))
    assert row(twice, "token_silent")["n_paired"] == 2, "features are counted, of which one has two descriptions"
    assert twice.frame.index.tolist() == [0, 0, 1, 1, 2, 2]


def test_graded_answers_rank_and_unanswered_texts_are_counted() -> None:
    made = judged(0)
    found = made.evidence["detection"]
    assert isinstance(found, WindowScores)
    scores = {"active": 2.0, "random_silent": -2.0, "token_silent": 3.0}
    texts = tuple(replace(t, score=None if i % 20 == 19 else scores[t.kind], decided=None if i % 20 == 19 else t.decided, reason="no" if i % 20 == 19 else None) for i, t in enumerate(found.texts))  # fmt: skip
    table = by_negative(run([replace(made, evidence={"detection": replace(found, texts=texts)})])).frame
    assert table["auroc"].tolist() == [1, 0] and table["unanswered"].tolist() == [1, 1]
    assert table["false_positives"].tolist() == pytest.approx([0, 10 / 19])


def test_one_latent_and_answers_that_are_missing_give_no_interval() -> None:
    found = by_negative(run([judged(0)]))
    assert row(found, "token_silent")["auroc"] == pytest.approx(0.7) and np.isnan(
        row(found, "token_silent")["auroc_low"]
    )
    nothing = by_negative(run([judged(0, n=3, reason="no answer")]))
    assert nothing.frame["unanswered"].tolist() == [3, 3]
    lost = judged(0)
    scores = lost.evidence["detection"]
    assert isinstance(scores, WindowScores)
    empty = replace(
        lost, evidence={"detection": replace(scores, texts=tuple(replace(t, decided=None) for t in scores.texts))}
    )
    assert by_negative(run([empty])).table[["auroc", "false_positives"]].isna().all(axis=None)


def test_what_cannot_be_told_is_said() -> None:
    with pytest.raises(InputError, match="scorer is 'fade', which keeps no answers about windows in this run; give 'detection'"):  # fmt: skip
        by_negative(run([judged(0)]), "fade")
    with pytest.raises(InputError, match="base is 'similar', of which 'detection' has no windows in this run; there are 'random_silent', 'token_silent'"):  # fmt: skip
        by_negative(run([judged(0)]), base="similar")
    with pytest.raises(InputError, match="no description was tested on any"):
        by_negative(run([judged(0, {})]))
    with pytest.raises(InputError, match="scorer is 'detection', which keeps no answers"):
        by_negative(made_up_results(2))


def test_a_run_with_hard_negatives_shows_them_on_its_page_without_a_call() -> None:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1)) as server:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(700), judge=judge_of(server), detection_texts=40, detection_hard=("token_silent", "neighbour"))  # fmt: skip
        # Latents without words of their own would be silent.
        broad = {index: TRUE[(index + 1) % 3] for index in TRUE}
        results = fade.evaluate([*(Description(i, t) for i, t in TRUE.items()), *(Description(i, t) for i, t in broad.items())], scorers=("detection",), progress=False)  # fmt: skip
        asked = server.requests
        found, shown = by_negative(results), page(results)
        assert server.requests == asked
    assert set(found.table["kind"]) <= set(KINDS) and row(found, "random_silent")["auroc"] > 0.6
    assert ("By kind of negatives" in shown) == (found.table["kind"].nunique() > 1)
    assert "By number of rules" not in shown


def test_the_page_has_the_tables_of_what_was_asked_and_no_others() -> None:
    both = run([judged(i) for i in range(6)])
    assert "By kind of negatives" in page(both) and "−0.25" in page(both)
    assert "By kind of negatives" not in page(run([judged(0, {"active": 1, "random_silent": 0})]))
    assert "By kind of negatives" not in page(made_up_results(2)) and "By number of rules" not in page(
        made_up_results(2)
    )
    assert page(made_up_explained(hostile=True)) and HOSTILE[0] not in page(made_up_explained(hostile=True))
