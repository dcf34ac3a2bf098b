"""A model of the user's own behind the judge: no server, no address."""

import ast
import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

import fade_lens
from fade_lens import LLM, Answer, Fade, InputError, Judge, JudgeError, Request
from fade_lens.judge import BudgetReached, MemoryTranscripts
from fade_lens.judge.reliability import Reliability
from fade_lens.llm.chat import Transient, Unanswered
from tests.planted import SHUFFLED, TRUE, natural_texts, planted_model, planted_sae, rule, writer

SMALL = {"prompts": 6, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 60, "synthetic_texts": 20}
TEXTS = ["the cat", "a dog"]


class Rules:
    """Rates by a rule and writes by a function."""

    async def ask(self, request: Request) -> Answer:
        if request.kind == "write":
            return Answer(json.dumps({"texts": writer(request.concept, request.parameters["seed"])[: request.parts]}))
        ratings = [{"id": name, "rating": rule(request.concept, text)} for name, text in request.texts.items()]
        return Answer(json.dumps({"ratings": ratings}))


class Failing(Rules):
    """Fails in what it is asked first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.asked = list(failures), 0

    async def ask(self, request: Request) -> Answer:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return await super().ask(request)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_whole_run_with_a_rule_of_ten_lines(no_network, tmp_path):
    assert isinstance(Rules(), LLM)
    with Judge(Rules()) as judge:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(), judge=judge, **SMALL)
        true = fade.evaluate(TRUE, store=tmp_path / "run", progress=False)
        for name in ("clarity", "responsiveness", "purity", "faithfulness"):
            assert min(r.metrics[name].value for r in true) > 0.5, name
        wrong = fade.evaluate(SHUFFLED, progress=False)
        assert max(r.metrics["clarity"].value for r in wrong) < 0.5
        assert judge.usage.calls and judge.usage.prompt_tokens and true.run.judge.model == "Rules"
        assert true.run.judge.endpoint == "in this process"
        before = judge.usage.calls
        again = fade.evaluate(TRUE, store=tmp_path / "run", progress=False)
        assert judge.usage.calls == before and again.frame["purity"].tolist() == true.frame["purity"].tolist()


def test_one_text_a_request_needs_log_probabilities_and_nothing_else():
    class Sure:
        async def ask(self, request: Request) -> Answer:
            (text,) = request.texts.values()
            yes = -0.01 if "cat" in text else -9.0
            return Answer("Yes", top_logprobs=[("Yes", yes), ("No", -9.01 - yes)])

    with Judge(Sure(), rating="single") as judge:
        assert [rating.value for rating in judge.rate("cats", TEXTS)] == [2, 0]


def test_what_it_raises_means_the_same_as_a_servers_failures(monkeypatch):
    monkeypatch.setattr("fade_lens.llm.queue.BACKOFF_SECONDS", 0.001)
    busy = Failing(Transient("busy"), Transient("busy"))
    with Judge(busy) as judge:
        assert [r.value for r in judge.rate(TRUE[0], TEXTS)] == [2, 2] and judge.usage.retries == 2
    with Judge(Failing(Unanswered("not this one"))) as judge:
        assert [r.reason for r in judge.rate(TRUE[0], TEXTS)] == ["not this one"] * 2
        assert [r.value for r in judge.rate(TRUE[0], TEXTS)] == [2, 2]
    with Judge(Failing(Unanswered("long", too_long=True))) as judge:
        assert [r.value for r in judge.rate(TRUE[0], TEXTS)] == [2, 2], "asked for in smaller requests"
    with (
        Judge(Failing(*[Transient("gone", connected=False)] * 9), max_retries=1) as judge,
        pytest.raises(JudgeError, match="judge 'Failing' does not answer: gone; everything answered so far is kept"),
    ):
        judge.rate(TRUE[0], TEXTS)
    with Judge(Failing(ZeroDivisionError("own fault"))) as judge, pytest.raises(ZeroDivisionError, match="own fault"):
        judge.rate(TRUE[0], TEXTS)


def test_limits_and_transcripts_are_kept_above_it():
    llm, kept = Failing(), MemoryTranscripts()
    with Judge(llm, max_calls=1) as judge, judge.session(kept):
        judge.rate(TRUE[0], TEXTS)
        judge.rate(TRUE[0], TEXTS)
        with pytest.raises(BudgetReached):
            judge.rate(TRUE[1], TEXTS)
    assert llm.asked == len(kept) == 1
    ((_, asked, answer),) = kept.items()
    assert (asked["model"], asked["structure"], asked["kind"]) == ("Failing", "ratings", "rate") and answer["content"]


def test_its_answers_are_kept_under_its_name():
    class Named(Rules):
        name = "rules of May"

    kept = MemoryTranscripts()
    for made, calls in (
        (Judge(Rules()), 1),
        (Judge(Named()), 1),
        (Judge(Rules(), name="second try"), 1),
        (Judge(Named()), 0),
    ):
        with made as judge, judge.session(kept):
            judge.rate(TRUE[0], TEXTS)
            assert judge.usage.calls == calls, judge
    assert Judge(Named()).model == "rules of May"
    with pytest.raises(InputError, match="counts as the same judge"):
        Reliability(Judge(Rules()), second=Judge(Rules()))
    Reliability(Judge(Rules()), second=Judge(Named()))


def test_what_cannot_be_asked_is_told_at_once():
    class Blocking:
        def ask(self, request: Request) -> Answer:
            return Answer("")

    class Careless:
        async def ask(self, request: Request) -> Answer:
            return "Yes"  # pyright: ignore[reportReturnType]

    with pytest.raises(InputError, match=r"is a Blocking, which cannot be asked: .* `async def ask\(self, request\)`"):
        Judge(Blocking())  # pyright: ignore[reportArgumentType]
    for options in ({"base_url": "http://h/v1"}, {"api_key": "k"}, {"batch": True}):
        with pytest.raises(InputError, match=r"leave (them|it) out"):
            Judge(Rules(), **options)
    with (
        Judge(Careless()) as judge,
        pytest.raises(JudgeError, match=r"Careless\.ask gave 'Yes': return a fade_lens\.Answer"),
    ):
        judge.rate(TRUE[0], TEXTS)


def test_work_that_blocks_goes_into_threads_and_runs_side_by_side():
    together = threading.Barrier(2, timeout=20)

    class Slow(Rules):
        async def ask(self, request: Request) -> Answer:
            await asyncio.to_thread(together.wait)
            return await super().ask(request)

    with Judge(Slow()) as judge:
        futures = [judge.submit_rate(TRUE[0], TEXTS), judge.submit_rate(TRUE[1], TEXTS)]
        assert [[rating.value for rating in future.result()] for future in futures] == [[2, 2], [0, 0]]


def test_the_room_knows_nothing_of_judging():
    for path in (Path(fade_lens.__file__).parent / "llm").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            assert not any(name.startswith("fade_lens.judge") for name in names), path.name
