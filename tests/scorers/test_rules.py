"""Descriptions with rules: each rule is asked about alone, and the scores are composed. A planted latent of two meanings."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from fade_lens import Description, Fade, Result, Results, compare, read_descriptions
from fade_lens.data.descriptions import Provenance
from fade_lens.judge import Judge
from fade_lens.judge.single import BACKGROUND
from fade_lens.report.cards import card
from fade_lens.report.page import page
from fade_lens.scorers.deciding import JudgedWindow, WindowScores, composed
from fade_lens.scorers.simulation import Simulated
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, simulator, writer
from tests.tiny import ANIMALS, COLOURS, VERBS

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(500)
BOTH = 4
with (
    torch.no_grad()
):  # fires on animals, and on colours two thirds as strongly; the nearest by what they write is that of verbs
    for weights in (SAE.W_enc.T, SAE.W_dec):
        weights[BOTH].zero_()
    SAE.W_enc[0, BOTH], SAE.W_enc[1, BOTH] = 1.0, 0.66
    SAE.W_dec[BOTH, 2] = 1.0
ANIMAL, COLOUR, VERB = TRUE[0], TRUE[1], TRUE[2]
SMALL: dict[str, Any] = {
    "detection_texts": 40, "fuzzing_texts": 24, "fuzzing_silent": 8, "simulation_texts": 12, "embedding_texts": 40, "neighbour_texts": 10,
    "neighbour_latents": 1, "window_tokens": 8, "prompts": 6, "prompt_tokens": 4, "new_tokens": 4, "rated_texts": 60, "synthetic_texts": 10,
}  # fmt: skip
CHECKS = 2
"""Requests by which a run sees whether a judge answers."""


def two(*rules: tuple[str, int], index: int = BOTH) -> Description:
    return Description(index, f"{len(rules)} things, the first of strength {rules[0][1]}", rules=rules)


TWO = two((ANIMAL, 5), (COLOUR, 3))


def at_most_one(concept: str, text: str) -> int:
    """Decisions on texts, and on the marks in them."""
    marked = re.findall(r"<<(.*?)>>", text)
    return min(rule(concept, " ".join(marked) if marked else text), 1)


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=at_most_one, writer=writer, says=simulator(10)) as running:
        yield running


def make(server: FakeJudge | Judge, **settings: Any) -> Fade:
    judge = server if isinstance(server, Judge) else judge_of(server)
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **(SMALL | settings))


def scored(server: FakeJudge | Judge, descriptions: Any, *names: str, **more: Any) -> Results:
    return make(server).evaluate(descriptions, scorers=names, progress=False, **more)


def value(result: Result, name: str) -> float:
    found = result.metric(name).value
    assert found is not None
    return found


def alone(result: Result, name: str) -> list[float | None]:
    return [one.metrics[name].value for one in result.rules]


def test_rules_together_detect_what_each_alone_misses(server: FakeJudge, tmp_path: Any) -> None:
    results = scored(server, [TWO], "detection", "fuzzing", "neighbours")
    found = results[BOTH]
    for name in ("detection", "fuzzing", "neighbours"):
        assert all(own is not None and value(found, name) > own + 0.1 for own in alone(found, name)), name
    assert value(found, "detection") == results.frame["detection_auroc"].tolist()[0] == 1
    evidence = found.evidence["detection"]
    assert isinstance(evidence, WindowScores) and [(r.text, r.strength) for r in evidence.rules] == list(TWO.rules)
    for text in evidence.texts:
        said = tuple(bool(rule(concept, text.text)) for concept, _ in TWO.rules)
        assert text.rules == said and text.decided == any(said) and text.score == max(said[0] * 1.0, said[1] * 0.6)
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items


def test_a_wrong_rule_costs_and_is_told_by_its_own_scores(server: FakeJudge) -> None:
    right, wrong = (scored(server, [two((ANIMAL, 5), (other, 4))], "detection")[BOTH] for other in (COLOUR, VERB))
    assert value(wrong, "detection") < value(right, "detection")
    false = alone(wrong, "detection")[1]
    assert false is not None and 0.4 < false < 0.65


def test_clarity_and_responsiveness_of_each_rule_tell_which_is_true(server: FakeJudge, tmp_path: Any) -> None:
    server.rule = rule
    described = [
        two((ANIMAL, 5), (VERB, 4)),
        Description(0, "cats and other animals"),
        Description(1, "reds and greens"),
    ]
    results = scored(server, described, "fade", store=tmp_path / "run")
    true, false = results[BOTH].rules
    for name in ("clarity", "responsiveness"):
        assert true.metrics[name].interval is not None and false.metrics[name].value is not None
        assert (true.metrics[name].value or 0) > 0.9 > 0.3 > (false.metrics[name].value or 0)
    assert results[0].rules == () and Results.load(results.save(tmp_path / "r.sqlite")).items == results.items
    frame = results.rules
    assert frame[["index", "rule", "strength"]].values.tolist() == [[BOTH, ANIMAL, 5], [BOTH, VERB, 4]]
    assert frame["responsiveness"].dtype == "float64" and {"clarity_low", "responsiveness_reason"} <= set(frame)
    assert results.frame["judge_calls"][0] > results.frame["judge_calls"][1], "those about its rules are counted"
    shown = card(results[BOTH])["rules"]
    assert shown["names"] == ["Clarity", "Responsiveness"] and [row[:2] for row in shown["rows"]] == [[ANIMAL, 5], [VERB, 4]]  # fmt: skip
    assert VERB in page(results) and results.cross_scores is not None

    # A plain description of a rule's words asks nothing anew, and scores the same.
    before = server.requests
    plain = scored(server, {BOTH: VERB}, "fade", store=tmp_path / "run")[BOTH]
    assert (
        server.requests == before
        and {"clarity": plain.clarity, "responsiveness": plain.responsiveness} == false.metrics
    )

    sentence = make(server, score_rules=False).evaluate(described, progress=False, transcripts=tmp_path / "run")
    assert server.requests - before == CHECKS and sentence[BOTH].rules[0].metrics == {}
    assert sentence[BOTH].responsiveness == results[BOTH].responsiveness


def test_a_revision_of_one_rule_of_five_pays_for_that_one(server: FakeJudge, tmp_path: Any) -> None:
    names = ("detection", "simulation")
    rules = [(ANIMAL, 5), ("rivers", 4), ("the house", 3), ("trees", 2), ("numbers", 1)]
    shared = tmp_path / "answers.sqlite"
    scored(server, [two(*rules)], *names, transcripts=shared)
    whole, before = server.requests - CHECKS, server.requests
    revised = scored(server, [two(*rules[:1], (COLOUR, 4), *rules[2:])], *names, transcripts=shared)
    assert server.requests - before - CHECKS == whole / 5 and value(revised[BOTH], "detection") == 1
    before = server.requests
    stronger = scored(server, [two(*((text, 5) for text, _ in rules))], *names, transcripts=shared)
    assert server.requests - before == CHECKS and alone(stronger[BOTH], "detection")[1] == 0.5, (
        "strengths are asked about nowhere"
    )


def test_simulation_takes_the_strongest_rule_at_every_token(server: FakeJudge) -> None:
    result = scored(server, [TWO], "simulation")[BOTH]
    evidence = result.evidence["simulation"]
    assert isinstance(evidence, Simulated) and all(own is not None and value(result, "simulation") > own for own in alone(result, "simulation"))  # fmt: skip
    for window in evidence.windows:
        words = [token.strip() for token in window.tokens]
        assert window.predicted == tuple(10.0 if w in ANIMALS else 6.0 if w in COLOURS else 0.0 for w in words)
    server.choose = lambda body: "refuse" if f"<description>\n{COLOUR}" in body["messages"][-1]["content"] else None
    lost = scored(server, [TWO], "simulation")[BOTH].metric("simulation")
    assert lost.reason is not None and lost.counts["unanswered"] == 12, "what one rule lacks is missing, not silent"


def test_a_text_is_as_near_as_its_nearest_rule(embedding: None) -> None:
    words = [" ".join(some) for some in (ANIMALS, COLOURS, VERBS)]
    given = [
        two((words[0], 5), (words[1], 1)), two((words[0], 4), (words[2], 0)), two((words[0], 0)),
        Description(BOTH, words[0]), Description(BOTH, words[1]),
    ]  # fmt: skip
    found = Fade(MODEL, SAE, corpus=TEXTS, **SMALL).evaluate(given, scorers=("embedding",), progress=False)
    both, first, nothing, *plain = found
    near = [[t.score for t in r.evidence["embedding"].texts] for r in (both, *plain)]  # pyright: ignore[reportAttributeAccessIssue]
    assert near[0] == list(map(max, near[1], near[2])) and near[0] not in near[1:]
    assert alone(both, "embedding") == [value(one, "embedding") for one in plain]
    assert first.metric("embedding").value == value(plain[0], "embedding"), "a rule of strength 0 claims nothing"
    assert value(nothing, "embedding") == 0.5


def test_the_estimate_holds_for_descriptions_with_rules(server: FakeJudge) -> None:
    described = [TWO, two((ANIMAL, 4), (VERB, 0), index=0), Description(1, COLOUR)]  # two rules, one, and a sentence
    names, fade = ("detection", "fuzzing", "simulation", "neighbours"), make(server)
    results = fade.evaluate(described, scorers=names, nulls=("shuffled",), progress=False)
    # Whoever is dealt a description gets its rules, too.
    assert {d.description.rules for d in results.nulls["shuffled"]} == {d.rules for d in described}
    estimate = fade.estimate(described, scorers=names, nulls=("shuffled",)).calls
    assert 0.7 * estimate < server.requests - CHECKS <= estimate == 2 * 4 * (4 + 4 + 12 + 2)
    server.rule = rule
    settings: dict[str, Any] = {"interval_width": None, "gate": None}
    before, fade = server.requests, make(server, **settings)
    fade.evaluate(described, nulls=("shuffled", "generic"), progress=False)
    asked = server.requests - before - CHECKS
    estimate = fade.estimate(described, nulls=("shuffled", "generic")).calls
    assert asked <= estimate and make(server, **settings, score_rules=False).estimate(described).calls < fade.estimate(described).calls  # fmt: skip
    assert asked > 0.8 * estimate


def test_rules_that_are_yet_to_be_written_are_reckoned_with(server: FakeJudge) -> None:
    one, two_, plain = (
        make(server, rule_cap=cap).estimate([0], explainer=name, scorers=("detection",)).calls
        for name, cap in (("structured", 1), ("structured", 2), ("one-shot", 2))
    )
    assert one == plain == 1 + 4 and two_ == 1 + 8


def test_without_a_rule_that_claims_anything_all_is_no(server: FakeJudge) -> None:
    result = scored(server, [two((ANIMAL, 0), (COLOUR, 0))], "detection", "simulation")[BOTH]
    assert value(result, "detection") == 0.5 and not server.requests - CHECKS and value(result, "simulation") == 0
    assert result.metric("detection").details["recall"] == 0 and [r.metrics for r in result.rules] == [{}, {}]


def test_a_missing_answer_hides_only_what_it_could_change() -> None:
    def judged(decided: bool | None, score: float | None = None) -> tuple[JudgedWindow, ...]:
        return (JudgedWindow(0, "", "active", True, decided=decided, score=score, reason=None if decided is not None else "lost"),)  # fmt: skip

    def together(*pairs: tuple[int, bool | None]) -> JudgedWindow:
        return composed(judged(None), [s for s, _ in pairs], [judged(decided) for _, decided in pairs])[0]

    assert together((5, False), (1, True)).decided is True and together((5, False), (1, True)).score == 0.2
    yes, unknown, no = together((5, True), (4, None)), together((3, False), (4, None)), together((3, False), (4, False))
    assert (yes.decided, yes.score, yes.reason, yes.rules) == (True, 1, None, (True, None))
    assert (unknown.decided, unknown.score, unknown.reason) == (None, None, "lost")
    assert together((1, True), (4, None)).score is None, "the missing one could be larger"
    assert (no.decided, no.score) == (False, 0) and (together().decided, together().score) == (False, 0)
    graded = composed(judged(None), [5, 2], [judged(False, -4.0), judged(True, 9.0)])[0]
    assert graded.score is not None and 0.39 < graded.score < 0.4


def test_a_judge_that_rates_singly_grades_rules_together(server: FakeJudge) -> None:
    server.rule = rule
    single = Judge("planted", base_url=server.base_url, api_key="sk-made-up", rating="single")
    fade = make(single, detection_texts=16)
    result = fade.evaluate([TWO], scorers=("detection",), progress=False)[BOTH]
    assert fade.estimate([TWO], scorers=("detection",)).calls == 2 * (16 + len(BACKGROUND)) == server.requests - CHECKS
    evidence = result.evidence["detection"]
    assert isinstance(evidence, WindowScores) and value(result, "detection") == result.metric("detection").details["auroc"] == 1  # fmt: skip
    assert {round(t.score or 0, 1) for t in evidence.texts} == {0.0, 0.6, 1.0}


def test_runs_with_rules_are_compared_and_held_against_nulls(server: FakeJudge) -> None:
    about = Provenance("explained", explainer="m", method="structured")
    ruled = [Description(i, TRUE[i], about, ((TRUE[i], 5), ("rivers", 2))) for i in TRUE]
    results = scored(server, ruled, "detection", nulls=("shuffled", "random"))
    plain = scored(server, list(map(replace_rules, ruled)), "detection")
    assert set(compare(results, plain, by="explainer").paired["metric"]) == {"detection"}
    assert set(results.summary()["null"].dropna()) == {"shuffled", "random"} and "rivers" in page(results)


def replace_rules(description: Description) -> Description:
    return Description(description.index, description.text, replace(description.provenance, method="one-shot"))


def test_rules_of_one_text_and_other_strengths_are_two_descriptions(server: FakeJudge) -> None:
    table = pd.DataFrame({"latent": [BOTH, BOTH, BOTH], "rules": [f'[["{ANIMAL}", {n}], ["{COLOUR}", 1]]' for n in (5, 4, 4)]})  # fmt: skip
    found = read_descriptions(table)
    assert len(found) == 2 and len({d.text for d in found}) == 1 and len({d.id for d in found}) == 2
    first, second = scored(server, table, "detection").items
    assert first.metric("detection").value == second.metric("detection").value == 1
    assert first.evidence["detection"] != second.evidence["detection"], "grades differ"
