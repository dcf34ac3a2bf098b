"""Detection of planted latents: what is asked, what is kept, and what the score says of right, swapped and null descriptions."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fade_lens import Corpus, Description, Fade, Result, Results
from fade_lens._util.errors import InputError, JudgeError, MissingExtraError
from fade_lens.data.descriptions import Provenance
from fade_lens.evidence.windows import Evidence, EvidenceSettings
from fade_lens.judge import Judge
from fade_lens.judge.prompts import read_rating
from fade_lens.judge.single import BACKGROUND
from fade_lens.metrics.decisions import balanced
from fade_lens.scorers.deciding import WindowScores
from fade_lens.scorers.detection import detection_of
from fade_lens.subject.subject import Subject
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"detection_texts": 40, "window_tokens": 8}
NAMES = ("detection",)


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1)) as running:
        yield running


def make(judge: Judge, **settings: Any) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **(SMALL | settings))


def scored(fade: Fade, descriptions: Any = TRUE, **more: Any) -> Results:
    return fade.evaluate(descriptions, scorers=NAMES, progress=False, **more)


def test_windows_of_one_document_count_as_less_than_those_of_several(server: FakeJudge) -> None:
    documents = [" ".join(TEXTS[at : at + 8]) for at in range(0, 320, 8)]
    odd = documents[1::2]  # on these the judge is wrong
    server.rule = lambda concept, text: int((rule(concept, text) > 0) != any(text.strip() in whole for whole in odd))
    fade = Fade(
        MODEL, SAE, corpus=Corpus.from_texts(documents, windows=True), judge=judge_of(server), context=16, **SMALL
    )
    result = scored(fade, {0: TRUE[0]})[0]
    evidence = result.evidence["detection"]
    assert isinstance(evidence, WindowScores)
    alone = detection_of(evidence.texts)
    assert result.metric("detection").value == alone.value and result.metric("detection").interval != alone.interval
    assert np.ptp(result.metric("detection").interval or ()) > np.ptp(alone.interval or ())


def values(results: Results) -> list[float]:
    return [float(value) for r in results if (value := r.metric("detection").value) is not None]


def code(result: Result) -> str:
    reason = result.metric("detection").reason
    return "" if reason is None else reason.code


def test_right_descriptions_are_told_from_swapped_ones(server: FakeJudge, tmp_path: Any) -> None:
    results = scored(make(judge_of(server)), nulls=("shuffled",))
    frame = results.frame
    assert (
        values(results) == [1, 1, 1]
        and min(frame["detection_low"].tolist()) > 0.8
        and set(frame["detection_f1"]) == {1}
    )
    for null in results.nulls["shuffled"]:
        assert null.metric("detection").value == pytest.approx(0.5, abs=0.15)
        low, high = null.metric("detection").interval or (1, 1)
        assert low < 0.5 < high
    assert set(frame["detection_unanswered"]) == {0} and max(frame["detection_prevalence"].tolist()) < 0.12
    evidence = results[0].evidence["detection"]
    assert isinstance(evidence, WindowScores)
    assert {(t.kind, t.positive) for t in evidence.texts} == {("active", True), ("random_silent", False)}
    assert all(t.positive == bool(rule(TRUE[0], t.text)) == t.decided for t in evidence.texts)
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items


def test_the_estimate_is_what_is_asked(server: FakeJudge) -> None:
    fade = make(judge_of(server))
    estimate = fade.estimate(TRUE, scorers=NAMES)
    scored(fade)
    decisions = [body for body in server.bodies if len((read_rating(body["messages"]) or ("", {}))[1]) == 10]
    assert estimate.calls == len(decisions) == 3 * 4
    assert fade.estimate(TRUE, scorers=NAMES, nulls=("shuffled",)).calls == 2 * estimate.calls
    assert json.loads(json.dumps(decisions[0]))["response_format"]["json_schema"]["schema"]["properties"]["ratings"]["items"]["properties"]["rating"]["enum"] == [0, 1]  # fmt: skip
    assert make(judge_of(server), detection_texts=100).estimate({0: "x"}, scorers=NAMES).calls == 10


def test_at_the_corpus_prevalence_few_false_alarms_cost_precision(server: FakeJudge) -> None:
    # Every third silent text is taken for one that shows the concept.
    server.rule = lambda concept, text: int(bool(rule(concept, text)) or len(text) % 3 == 0)
    row = scored(make(judge_of(server))).frame.iloc[0]
    alarms = 1 - row["detection_specificity"]
    assert row["detection_recall"] == 1 and 0.1 < alarms < 0.7
    assert row["detection_precision"] == pytest.approx(1 / (1 + alarms))
    share = row["detection_prevalence"]
    assert row["detection_corpus_precision"] == pytest.approx(share / (share + alarms * (1 - share)))
    assert row["detection_corpus_precision"] < row["detection_precision"]


def test_what_is_not_answered_is_missing_counted_and_bounded(server: FakeJudge, tmp_path: Any) -> None:
    server.choose = lambda body: "refuse" if TRUE[1] in body["messages"][-1]["content"] else None
    lost = "the"  # of these texts the judge says something that is no decision
    server.rule = lambda concept, text: 2 if lost in text.split() else min(rule(concept, text), 1)
    results = scored(make(judge_of(server)))
    row = results.frame.iloc[0]
    assert row["detection"] == row["detection_best"] == 1 and row["detection_unanswered"] > 0
    assert row["detection_worst"] < 1 and "undecided" in row["flags"]
    assert code(results[1]) == "unanswered"
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items


def test_a_run_that_stopped_asks_nothing_twice(server: FakeJudge, tmp_path: Any) -> None:
    whole = scored(make(judge_of(server)))
    asked = server.requests
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=5, concurrency=1)
    with pytest.raises(JudgeError):
        scored(make(first), store=tmp_path)
    before = server.requests
    resumed = scored(make(judge_of(server)), store=tmp_path)
    assert 0 < server.requests - before < asked and resumed.run.usage and resumed.run.usage.cached
    assert [r.metrics for r in resumed] == [r.metrics for r in whole]
    before = server.requests
    assert scored(make(judge_of(server)), store=tmp_path).items == resumed.items and server.requests == before


def test_a_feature_that_cannot_be_tested_has_its_reason_and_the_run_goes_on(server: FakeJudge) -> None:
    results = scored(make(judge_of(server)), {**TRUE, 3: "names of rivers"})
    assert code(results[3]) == "silent" and results.frame.loc[0, "detection"] == 1
    assert {code(r) for r in scored(make(judge_of(server), tested_texts_least=600))} == {"too_few_texts"}


def test_explained_descriptions_are_tested_on_texts_that_no_explainer_saw(server: FakeJudge) -> None:
    described = [Description(i, text, Provenance("explained")) for i, text in TRUE.items()]
    results = scored(make(judge_of(server)), described)
    roles = Evidence(Subject(MODEL, SAE, TEXTS, (0,), EvidenceSettings()))
    kept = set(roles.texts("test").tolist())
    numbers = {t.number for r in results for t in r.evidence["detection"].texts}  # pyright: ignore[reportAttributeAccessIssue]
    assert numbers and numbers <= kept


def test_hard_negatives_have_columns_of_their_own(server: FakeJudge) -> None:
    plain = scored(make(judge_of(server))).frame
    hard = scored(make(judge_of(server), detection_hard=("neighbour",)))
    assert list(hard.frame["detection"]) == list(plain["detection"]) and min(hard.frame["detection_neighbour"]) == 1
    with pytest.raises(InputError, match="detection_hard"):
        make(judge_of(server), detection_hard=("random",))


def test_hard_negatives_of_like_meaning_need_the_extra_at_once(server: FakeJudge, monkeypatch: Any) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError):
        scored(make(judge_of(server), detection_hard=("similar_silent",)))
    assert not server.requests


def test_a_judge_that_rates_singly_decides_by_log_probabilities(server: FakeJudge) -> None:
    server.rule = rule
    single = Judge("planted", base_url=server.base_url, api_key="sk-made-up", rating="single")
    fade = make(single, detection_texts=20)
    estimate = fade.estimate(TRUE, scorers=NAMES)
    results = scored(fade)
    assert values(results) == list(results.frame["detection_auroc"]) == [1, 1, 1]
    assert estimate.calls == 3 * (20 + len(BACKGROUND)) == server.requests - 2, "two to see whether it answers"


def test_swapped_descriptions_get_what_chance_gives(server: FakeJudge) -> None:
    assert all(0.4 < value < 0.65 for value in values(scored(make(judge_of(server)), SHUFFLED)))


def test_the_interval_of_pairs_is_wider_where_they_err_together() -> None:
    found = [True] * 15 + [False] * 5
    together, apart = (balanced(found, other, paired=True) for other in (found, found[::-1]))
    assert together.value == apart.value == 0.75
    widths = [m.interval[1] - m.interval[0] for m in (apart, balanced(found, found), together) if m.interval]
    assert widths == sorted(widths) and widths[0] < widths[2]
    assert balanced([None], [True]).reason is not None
