"""Hundreds of requests, in sessions that are opened and closed: what is counted is exact, and nothing is left behind."""

import gc
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from fade_lens.judge import Judge
from fade_lens.llm.budget import Ledger
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Request
from fade_lens.llm.transcripts import key_of
from fade_lens.runs.store import RunStore
from tests.fake_judge import FakeJudge

DESCRIPTORS = Path("/proc/self/fd")
PLAN = {"error": 0.03, "garbage": 0.03, "hang_up": 0.02, "partial": 0.03}


def held():
    """Open descriptors and threads, once what was let go is gone."""
    gc.collect()
    return sum(1 for _ in DESCRIPTORS.iterdir()), threading.active_count()


def rated(server, folder, n, close=True):
    """A session of a judge with a store of its own; whether every count is exact."""
    before = server.requests
    judge = Judge("soak", base_url=server.base_url, texts_per_request=4, price=(1.0, 1.0), concurrency=8)
    with RunStore(folder, {}) as store:
        with judge.session(store):
            asked = [judge.submit_rate(f"the word 'w{at // 20}'", [f"w{at} {line}" for line in range(4)]) for at in range(n)]  # fmt: skip
            assert all(rating.value is not None for future in asked for rating in future.result())
            used = judge.usage
            by_concept = [judge.usage_of(f"the word 'w{at}'") for at in range(n // 20 + 1)]
        kept = list(store.transcripts())
    if close:
        judge.close()
    assert (
        server.requests - before - used.retries == used.calls == len(kept) == sum(one.calls for one in by_concept) >= n
    )
    assert used.prompt_tokens == 100 * used.calls == sum(answer["prompt_tokens"] for _, answer in kept)
    assert sum(one.cost for one in by_concept) == pytest.approx(used.cost)
    assert used.failed == 0


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="the system does not list open descriptors")
def test_sessions_leave_no_descriptor_and_no_thread_behind(tmp_path):
    with FakeJudge(plan=PLAN) as server:
        rated(server, tmp_path / "first", 40)  # what is loaded once stays
        time.sleep(0.1)
        before = held()
        for number in range(3):
            rated(server, tmp_path / str(number), 40, close=number != 1)  # one is forgotten, not closed
        for _ in range(600):
            if left := all(now <= then for now, then in zip(held(), before, strict=True)):
                break
            time.sleep(0.05)
        assert left


def test_what_an_account_keeps_of_an_answer_is_a_number():
    ledger, n = Ledger((1.0, 2.0)), 1500
    ledger.use("what is loaded once", key_of(number=-1), 5, 3)
    tracemalloc.start()
    try:
        for at in range(n):
            for _ in range(2):  # the same answer, looked up again
                ledger.use(f"concept {at // 100}", key_of(number=at), 5, 3, batched=at % 2 == 0)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    used = ledger.usage_of("concept 7")
    assert (used.calls, used.prompt_tokens, used.completion_tokens) == (100, 500, 300)
    assert used.cost == pytest.approx((50 + 25) * (5 + 6) / 1e6)
    assert kept < 200 * n, f"{kept / n:.0f} bytes an answer"


def test_of_two_answers_to_one_question_the_first_that_is_kept_counts(tmp_path):
    """Two processes on one store may ask the same at once: both go on with the answer that a later run will find."""
    request = Request("name", "feature 1", [{"role": "user", "content": "?"}], {"temperature": 1}, expects=1)
    with RunStore(tmp_path, {}) as ours, RunStore(tmp_path, {}) as theirs:

        class Ours:
            name = "model"

            async def ask(self, request):
                with Judge(Theirs()) as other, other.session(theirs):
                    told = other.submit_ask(request)
                    while not told.done():
                        time.sleep(0.001)
                return Answer("ours", prompt_tokens=5)

        class Theirs:
            name = "model"

            async def ask(self, request):
                return Answer("theirs", prompt_tokens=3)

        with Judge(Ours()) as judge, judge.session(ours):
            assert judge.ask(request).content == "theirs"
            assert judge.usage.prompt_tokens == 5, "what was paid for is counted"
            assert judge.ask(request).content == "theirs"
        assert len(list(ours.transcripts())) == 1
