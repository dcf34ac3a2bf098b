"""Intruder rounds of planted latents, played by rule."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fade_lens import Fade, Results
from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge
from fade_lens.scorers.intruder import SHOWN, IntruderRounds
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model, planted_sae

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"intruder_strata": 2, "intruder_rounds": 3, "window_tokens": 8}
EXCERPT = re.compile(r'<excerpt id="(\d+)">\n(.*?)\n</excerpt', re.S)
MARKED = re.compile(r"<<(\w+)>>")


def odd_one(body: dict[str, Any]) -> str | None:
    """The excerpt whose marked words are of no class that the others share."""
    texts = dict(EXCERPT.findall(body["messages"][-1]["content"]))
    if len(texts) != SHOWN:
        return None
    fits = {name: {i for i, members in CLASSES.items() if set(MARKED.findall(text)) & set(members)} for name, text in texts.items()}  # fmt: skip
    shared = max(CLASSES, key=lambda i: sum(i in some for some in fits.values()))
    return json.dumps({"intruder": next(name for name in texts if shared not in fits[name])})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(says=odd_one) as running:
        yield running


def scored(judge: Judge, descriptions: Any = TRUE, *, store: Any = None, nulls: Any = (), **settings: Any) -> Results:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **(SMALL | settings))
    return fade.evaluate(descriptions, scorers=("intruder",), nulls=nulls, store=store, progress=False)


def test_the_intruder_is_found_where_texts_share_something(server: FakeJudge, tmp_path: Any) -> None:
    results = scored(judge_of(server), nulls=("shuffled",))
    assert [r.metric("intruder").value for r in results] == [1, 1, 1]
    assert min(results.frame["intruder_low"].tolist()) > 0.2, "above chance"
    assert [r.metric("intruder") for r in results.nulls["shuffled"]] == [r.metric("intruder") for r in results]
    evidence = results[0].evidence["intruder"]
    assert isinstance(evidence, IntruderRounds)
    for one in evidence.rounds:
        marks = [text.count("<<") for text in one.texts]
        assert len(one.texts) == SHOWN and marks[one.intruder] in marks[: one.intruder] + marks[one.intruder + 1 :]
        assert not set(MARKED.findall(one.texts[one.intruder])) & set(CLASSES[0])
    numbers = [number for one in evidence.rounds for number in one.numbers]
    assert len(set(numbers)) == len(numbers), "no text is in two rounds"
    assert len({one.intruder for one in evidence.rounds}) > 1 and {one.stratum for one in evidence.rounds} == {0, 1}
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items


def test_the_estimate_is_what_is_asked_whatever_null_descriptions_there_are(server: FakeJudge) -> None:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    estimate = fade.estimate(TRUE, scorers=("intruder",), nulls=("shuffled",))
    assert scored(judge_of(server), nulls=("shuffled",)).frame["judge_calls"].tolist() == [6, 6, 6]
    assert estimate.calls == 3 * 6 == server.requests - 2, "two to see whether it answers"
    assert Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server)).estimate({0: "x"}, scorers=("intruder",)).calls == 20


def test_a_judge_that_guesses_finds_one_in_five(server: FakeJudge) -> None:
    server.says = lambda body: json.dumps({"intruder": (EXCERPT.findall(body["messages"][-1]["content"]) or [("",)])[0][0]}) if "intruder" in body["messages"][0]["content"] else None  # fmt: skip
    results = scored(judge_of(server), intruder_strata=1, intruder_rounds=10)
    values = [r.metric("intruder").value or 0 for r in results]
    assert sum(values) / 3 < 0.5 and all((r.metric("intruder").interval or (1, 1))[0] < 0.2 for r in results)


def test_what_is_not_answered_is_missing_and_counted(server: FakeJudge) -> None:
    def says(body: dict[str, Any]) -> str | None:
        found = odd_one(body)
        return found if found is None or server.requests % 2 else '{"intruder": "5"}'

    server.says = says
    results = scored(Judge("planted", base_url=server.base_url, api_key="sk-made-up", concurrency=1, max_retries=0))
    assert all(r.metric("intruder").value == 1 for r in results)
    server.says = lambda body: None if odd_one(body) is None else '{"intruder": "5"}'
    reason = scored(judge_of(server), {0: TRUE[0]})[0].metric("intruder").reason
    assert reason is not None and reason.code == "unanswered"


def test_a_run_that_stopped_asks_nothing_twice(server: FakeJudge, tmp_path: Any) -> None:
    whole = scored(judge_of(server))
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=5, concurrency=1)
    with pytest.raises(JudgeError):
        scored(first, store=tmp_path)
    before = server.requests
    assert [r.metrics for r in scored(judge_of(server), store=tmp_path)] == [r.metrics for r in whole]
    assert 0 < server.requests - before < 18


def test_features_with_too_few_texts_have_their_reason(server: FakeJudge) -> None:
    results = scored(judge_of(server), {**TRUE, 3: "rivers"})
    reason = results[3].metric("intruder").reason
    assert reason is not None and reason.code == "silent" and results[0].metric("intruder").value == 1
