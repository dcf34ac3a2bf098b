"""How many rules it takes: planted latents of one and of two meanings, from answers that are there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fade_lens import Description, Fade, InputError, Results, polysemanticity
from fade_lens.data.rules import Rule
from fade_lens.metrics.metric import Metric
from fade_lens.report.page import page
from fade_lens.runs.record import CorpusRecord, RunRecord
from fade_lens.runs.results import Result
from fade_lens.scorers.base import RuleScores
from fade_lens.scorers.deciding import JudgedWindow, WindowScores
from tests.fake_judge import FakeJudge
from tests.made_up import made_up_result
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule

BASE = made_up_result()


def judged(index: int, answers: Sequence[tuple[bool, tuple[bool | None, ...]]], strengths: Sequence[int], **more: Any) -> Result:  # fmt: skip
    """A result whose windows are given: whether the feature fires, and what each rule says."""
    rules: tuple[Rule, ...] = tuple((f"rule {n}", strength) for n, strength in enumerate(strengths))
    texts = tuple(
        JudgedWindow(n, f"text {n}", "active" if fires else "random_silent", fires, decided=any(said), rules=said, **more)
        for n, (fires, said) in enumerate(answers)
    )  # fmt: skip
    scores = WindowScores({"detection": Metric(0.7)}, texts, tuple(RuleScores(*r, {}) for r in rules if r[1]))
    return replace(BASE, description=Description(index, f"feature {index}", rules=rules), evidence={"detection": scores})  # fmt: skip


def planted(index: int, meanings: int, noise: float = 0.05, n: int = 100) -> Result:
    """Half of the texts have one of the feature's meanings; a rule for each of two, the second idle where there is one meaning, and one that holds by chance."""
    rng = np.random.default_rng([index, meanings])

    def answers(at: int) -> tuple[bool, tuple[bool | None, ...]]:
        fires, meaning = at % 2 == 0, int(rng.integers(meanings))
        truth = [fires and meaning == m for m in range(2)]
        return fires, (*(bool(t ^ (rng.random() < noise)) for t in truth), bool(rng.random() < 0.05))

    return judged(index, [answers(at) for at in range(n)], (5, 5, 2))


def numbers(results: Sequence[Result], **more: Any) -> list[Any]:
    return polysemanticity(Results(tuple(results)), **more).frame["polysemanticity"].tolist()


def first(result: Result, **more: Any) -> dict[str, Any]:
    return {
        str(key): value
        for key, value in polysemanticity(Results((result,)), **more).frame.to_dict("records")[0].items()
    }


def test_one_and_two_meanings_are_told_apart_by_noisy_answers() -> None:
    one, two = ([planted(index, meanings) for index in range(10)] for meanings in (1, 2))
    assert numbers(one).count(1) >= 8 and numbers(two).count(2) >= 8


def test_a_run_of_planted_latents_is_told_apart_without_a_further_call() -> None:
    import torch

    sae = planted_sae()
    with torch.no_grad():
        sae.W_enc[1, 0] = 1.0  # latent 0 fires on animals and on colours
    two, one = ((TRUE[0], 5), (TRUE[1], 5), (TRUE[2], 1)), ((TRUE[2], 5), (TRUE[0], 1))
    some = [Description(0, "two", rules=two), Description(2, "one", rules=one), Description(1, "in words")]
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1)) as server:
        fade = Fade(planted_model(), sae, corpus=natural_texts(700), judge=judge_of(server), detection_texts=60)
        results = fade.evaluate(some, scorers=("detection",), progress=False)
        asked = server.requests
        frame = polysemanticity(results).frame
        assert server.requests == asked > 0
    assert frame["index"].tolist() == [0, 2, 1] and frame["n_rules"].tolist() == [3, 2, 0]
    both, single, words = ({str(key): value for key, value in row.items()} for row in frame.to_dict("records"))
    assert both["polysemanticity"] == 2 and single["polysemanticity"] == 1
    assert words["polysemanticity"] is None and words["reason"] == "the description has no rules"
    assert 0.2 < both["score_1"] < 0.8 and both["score"] == both["score_2"] == 1 == single["score"]
    assert both["score_1_high"] < both["score_2_low"] <= 1 and frame["score_3"].isna().tolist() == [False, True, True]


def test_a_prefix_scores_as_its_composed_answers_do() -> None:
    # Fires on 8 + 8: the first rule finds half of them and one false alarm in 16, the second the others.
    answers = [(True, (True, False))] * 8 + [(True, (False, True))] * 8 + [(False, (at == 0, False)) for at in range(16)]  # fmt: skip
    doubled = judged(3, answers * 8, (5, 5))
    row = first(doubled)
    # AUROC = ½ + ½ (recall − false alarms) of a yes or no, so the score is their difference.
    halves = [(row["score_1"], 0.5 - 1 / 16), (row["score_2"], 1 - 1 / 16)]
    assert all(abs(found - true) < 0.12 for found, true in halves) and row["polysemanticity"] == 2
    assert row["score_1_low"] < row["score_1"] < row["score_1_high"]
    assert row["score"] == row["score_all"] == row["score_2"]


def test_the_number_is_chosen_on_other_documents_than_its_score_is_reported_on() -> None:
    # Of two documents one has right answers and the other answers by chance: where one decides, the score is the other's.
    right, chance = planted(1, 2, noise=0.0), planted(2, 2, noise=0.5)
    texts = [one.evidence["detection"].texts for one in (right, chance) if isinstance(one.evidence["detection"], WindowScores)]  # fmt: skip
    answers = [(t.positive, t.rules) for some in texts for t in some]
    told: set[str] = set()
    for other in range(1, 9):
        row = first(judged(0, answers, (5, 5, 2)), documents=[0] * 100 + [other] * 100)
        if row["polysemanticity"] is not None:
            told.add("chosen on the right one")
            assert abs(row["score"]) < 0.4
        elif "below 0.2" in row["reason"]:
            told.add("chosen on the other")
            assert row["score_all"] > 0.8
        else:
            assert "fewer than 4" in row["reason"], "both in one half"
    assert told


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (planted(0, 1, noise=0.5), "below 0.2: the rules do not say"),
        (planted(0, 1, n=10), "fewer than 4 texts"),
        (judged(0, [(True, (None, True)), (False, (True, None))] * 40, (5, 5)), "fewer than 4 texts"),
        (judged(0, [(True, ()), (False, ())] * 40, (0, 0)), "every rule has strength 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_has_a_reason(result: Result, reason: str) -> None:
    row = first(result)
    assert reason in row["reason"] and row["polysemanticity"] is None and np.isnan(row["score"])


def test_the_floor_and_what_is_enough_are_settings() -> None:
    some = [planted(0, 1, noise=0.3)]
    assert numbers(some, floor=0.05)[0] == numbers(some, floor=0.05, enough=1e-6)[0] == 1
    two = [planted(4, 2)]
    assert numbers(two) == [2] and numbers(two, enough=0.3) == [1]


def test_windows_of_one_document_stay_in_one_half() -> None:
    made = replace(Results((planted(0, 2),)), run=RunRecord(corpus=CorpusRecord("c", 100, documents=10)))
    with pytest.raises(InputError, match=r"cut into windows.*give documents"):
        polysemanticity(made)
    of_pairs = first(planted(0, 2), documents=[at // 2 for at in range(100)])
    assert of_pairs["polysemanticity"] == 2
    single = first(planted(0, 2), documents=[0] * 100)
    assert "fewer than 4 texts" in single["reason"], "all windows are of one document, so one half is empty"


def test_hard_negatives_do_not_count_as_silent_texts() -> None:
    result = planted(2, 2)
    found = result.evidence["detection"]
    assert isinstance(found, WindowScores)
    hard = tuple(JudgedWindow(500 + n, "x", "token_silent", False, decided=True, rules=(True,) * 3) for n in range(50))
    more = replace(result, evidence={"detection": replace(found, texts=(*found.texts, *hard))})
    a, b = (polysemanticity(Results((one,))).frame.to_dict("records") for one in (result, more))
    assert str(a) == str(b)


def test_the_sweep_holds_the_means_over_features_and_how_many_take_each_number() -> None:
    some = [
        *(planted(index, 1) for index in range(4)),
        *(planted(index, 2) for index in range(4, 10)),
        planted(11, 1, n=10),
    ]
    found = polysemanticity(Results(tuple(some)))
    sweep, frame = found.sweep.set_index("n_rules"), found.frame
    assert sweep.index.tolist() == [1, 2, 3] and (sweep["n_features"] == 10).all(), "one has too few texts"
    assert (
        sweep["chosen"].tolist() == [frame["polysemanticity"].eq(n).sum() for n in (1, 2, 3)]
        and sweep["share"].sum() == 1
    )
    for n in (1, 2, 3):
        assert sweep["score"][n] == pytest.approx(frame[f"score_{n}"].mean())
        assert sweep["score_low"][n] < sweep["score"][n] < sweep["score_high"][n]
    gains = frame["score_2"] - frame["score_1"]
    assert sweep["gain"][2] == pytest.approx(gains.mean()) and sweep["gain_low"][2] > 0 and np.isnan(sweep["gain"][1])
    figure = found.plot()
    assert [trace.type for trace in figure.data].count("scatter") == 11 and list(figure.data[-1].y) == sweep[
        "chosen"
    ].tolist()


def test_a_description_with_fewer_rules_keeps_its_last_score_in_the_sweep() -> None:
    short = judged(0, [(at % 2 == 0, (at % 2 == 0,)) for at in range(80)], (5,))
    long = judged(1, [(at % 2 == 0, (at % 4 == 0, at % 4 == 2)) for at in range(80)], (5, 5))
    sweep = polysemanticity(Results((short, long))).sweep
    assert sweep["score"].tolist()[1] == 1 and sweep["n_features"].tolist() == [2, 2]
    assert sweep["score_low"].isna().all(), "two features tell no interval"


def test_the_page_of_a_run_has_the_sweep_where_each_rule_was_asked_about() -> None:
    some = Results(tuple(planted(index, 2) for index in range(6)))
    assert "By number of rules" in page(some) and "6 (100%)" in page(some)
    assert "By number of rules" not in page(replace(some, run=RunRecord(corpus=CorpusRecord("c", 100, documents=10))))


def test_without_rules_there_is_no_sweep() -> None:
    words = replace(
        planted(0, 1),
        description=Description(0, "in words"),
        evidence={"detection": WindowScores({"detection": Metric(0.7)})},
    )
    found = polysemanticity(Results((words,)))
    assert (
        len(found.sweep) == 0 and "score" in found.sweep and found.frame["reason"][0] == "the description has no rules"
    )
    assert found.plot().layout.title.text == "1 descriptions, 1 of them without a number"
    assert len(polysemanticity(Results(())).frame) == 0


def test_what_cannot_be_asked_is_told() -> None:
    results = Results((planted(0, 1),))
    with pytest.raises(InputError, match="scorer is 'fade', which keeps no answers about windows in this run; give 'detection'"):  # fmt: skip
        polysemanticity(results, "fade")
    with pytest.raises(InputError, match=r"enough is 1.5; give a number above 0"):
        polysemanticity(results, enough=1.5)
    graded = judged(0, [(True, ()), (False, ())] * 40, (5, 5), score=0.3)
    with pytest.raises(InputError, match="no answers about single rules; give 'detection'"):
        polysemanticity(Results((graded,)))
