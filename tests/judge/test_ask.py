"""Free questions: what explainers and scorers ask beside writing and rating goes the same way as these."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from fade_lens import Answer, InputError, Judge, JudgeError, Request
from fade_lens._util.reasons import Reason
from fade_lens.cli import app
from fade_lens.judge import BudgetReached, MemoryTranscripts, asking
from fade_lens.llm.request import Structure
from fade_lens.runs.store import RunStore
from tests.fake_judge import FakeJudge


def question(at: int = 0, **more: Any) -> Request:
    messages = [{"role": "user", "content": f"What do these texts share? ({at})"}]
    return Request("explain", f"latent {at}", messages, {"temperature": 1.0, "max_tokens": 100}, expects=20, **more)


def explained(body: dict[str, Any]) -> str:
    return f"Concept: cats, {body['messages'][-1]['content'][-3:]}"


def concept(answer: Answer) -> str | None:
    return answer.content.partition("Concept: ")[2] or None


def test_many_are_asked_at_once_within_the_limits_and_counted():
    with (
        FakeJudge(says=explained, latency=0.05) as fake,
        Judge("m", base_url=fake.base_url, concurrency=4, price=(1.0, 1.0)) as judge,
    ):
        futures = [judge.submit_ask(question(at), concept) for at in range(10)]
        assert [future.result() for future in futures] == [f"cats, ({at})" for at in range(10)]
        assert fake.peak == 4 and judge.usage.calls == 10
        assert judge.usage_of("latent 3").calls == 1 and judge.usage_of("latent 3").cost == pytest.approx(110e-6)
        whole = judge.ask(question(3))
        assert isinstance(whole, Answer) and whole.content == "Concept: cats, (3)"
        estimate = judge.estimate_ask(question(), 10)
        assert (estimate.calls, estimate.completion_tokens) == (10, 200) and estimate.cost > 0


def test_a_question_in_flight_is_asked_once_and_kept_by_all_that_ask_it(tmp_path):
    with FakeJudge(says=explained, latency=0.3) as fake, Judge("m", base_url=fake.base_url) as judge:
        own, other = MemoryTranscripts(), MemoryTranscripts()
        with judge.session(own):
            first = judge.submit_ask(question(), concept)
            assert judge.busy
            with judge.session(other):
                assert judge.ask(question(), concept) == first.result() == "cats, (0)"
        assert fake.requests == judge.usage.calls == len(own) == len(other) == 1 and not judge.busy
        assert [record[1] for record in own.items()] == [record[1] for record in other.items()]


def test_a_run_cut_off_asks_nothing_twice(tmp_path):
    with FakeJudge(says=explained, script=["ok", "garbage"]) as fake:
        with (
            RunStore(tmp_path / "run") as store,
            Judge("m", base_url=fake.base_url, max_calls=4, concurrency=1) as judge,
            pytest.raises(BudgetReached, match="max_calls=4"),
            judge.session(store),
        ):
            for future in [judge.submit_ask(question(at), concept) for at in range(6)]:
                future.result()
        assert fake.requests == 4
        for calls in (
            3,
            0,
        ):  # the rest (the nonsense is passed over, its second attempt is there or asked for), then nothing
            with (
                RunStore(tmp_path / "run") as store,
                Judge("m", base_url=fake.base_url) as judge,
                judge.session(store),
            ):
                futures = [judge.submit_ask(question(at), concept) for at in range(6)]
                assert [future.result() for future in futures] == [f"cats, ({at})" for at in range(6)]
                assert judge.usage.calls == calls
        assert fake.requests == 7


def test_what_gives_nothing_is_a_reason_and_the_others_go_on():
    def choose(body: dict[str, Any]) -> str | None:
        at = int(body["messages"][-1]["content"][-2])
        return {1: "refuse", 2: "garbage", 3: "too_long", 4: "error", 5: "empty", 6: "filtered"}.get(at, "ok")

    with FakeJudge(says=explained, choose=choose) as fake, Judge("m", base_url=fake.base_url, max_retries=1) as judge:
        futures = [judge.submit_ask(question(at), concept, attempts=2) for at in range(8)]
        found = [future.result() for future in futures]
        assert [one.code if isinstance(one, Reason) else one for one in found] == [
            "cats, (0)",
            "refused",
            "unreadable",
            "too_long",
            "failed",
            "unreadable",
            "refused",
            "cats, (7)",
        ]
        assert found[2].startswith("nothing readable after 2 requests; the last answer began 'As a large")
        assert sum(body["messages"][-1]["content"].endswith("(2)") for body in fake.bodies) == 2
        assert judge.usage.failed == 2, "what is too long, and what the server fails at"


def test_a_model_that_never_answers_in_form_is_told_apart_from_one_that_fails_at_a_question(monkeypatch):
    monkeypatch.setattr(asking, "ILLEGIBLE", 6)
    with FakeJudge(says=lambda _: "Hm.") as fake, Judge("m", base_url=fake.base_url, concurrency=1) as judge:
        futures = [judge.submit_ask(question(at), concept) for at in range(9)]
        with pytest.raises(JudgeError, match="gives no 'explain' answers that can be read: none of 6 answers"):
            for future in futures:
                future.result()
        assert judge.ask(question(9)).content == "Hm."  # without a reader every answer with words counts


def test_only_what_follows_the_thoughts_is_read_and_the_form_is_asked_for():
    form = Structure("concept", {"type": "object", "required": ["concept"]})
    said = '<think>{"concept": "dogs"}? no</think>{"concept": "cats"}'
    with FakeJudge(says=lambda _: said) as fake, Judge("m", base_url=fake.base_url) as judge:
        found = judge.ask(question(structure=form), lambda answer: json.loads(answer.content)["concept"])
        assert found == "cats"
        assert fake.bodies[0]["response_format"]["json_schema"]["name"] == "concept"
        assert judge.ask(question(repeat=1), lambda answer: answer.top_logprobs and 1, attempts=1).code == "unreadable"


def test_the_log_shows_them(tmp_path):
    with FakeJudge(says=explained, script=["ok", "refuse", "cut"]) as fake, RunStore(tmp_path / "run") as store:
        judge = Judge("m", base_url=fake.base_url, concurrency=1)
        with judge, judge.session(store):
            judge.ask(question(0), concept)
            judge.ask(question(1), lambda _: None, attempts=2)
    lines = CliRunner().invoke(app, ["judge", "log", str(tmp_path / "run"), "--kind", "explain"]).output
    assert "explain · latent 0 · m · 100 + 10 tokens" in lines and "Concept: cats, (0)" in lines
    assert "! refused: I cannot" in lines and "and was cut after 10 tokens" in lines
    assert "3 answers; 2 gave less than was asked for" in lines


def test_questions_that_cannot_be_asked_are_told_at_once():
    kept = MemoryTranscripts()
    with Judge("m", base_url="http://h/v1") as judge, judge.session(kept):
        for wrong, said in [
            (Request("explain", " ", [{"role": "user", "content": "a"}], {}, 1), "concept is empty"),
            (Request("explain", "a", [], {}, 1), "'explain' question has no messages"),
        ]:
            with pytest.raises(InputError, match=said):
                judge.submit_ask(wrong)
        with pytest.raises(InputError, match="attempts is 0"):
            judge.submit_ask(question(), attempts=0)
