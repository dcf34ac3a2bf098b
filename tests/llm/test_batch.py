"""The Batch API: what is gathered, at which price, what failed lines become, and how a run that was cut off collects its batch."""

import time

import pytest

from fade_lens._util.errors import JudgeError
from fade_lens.judge import BudgetReached, Judge, MemoryTranscripts
from fade_lens.llm import batch
from tests.fake_judge import FakeJudge
from tests.judge.test_judge import CONCEPT, TEXTS, VALUES, values

PRICE = (10.0, 20.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batch, "GATHER_SECONDS", 0.1)
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)


def test_requests_of_all_concepts_go_together_at_half_the_price():
    options = {"price": PRICE, "batch": True, "texts_per_set": 10}
    with FakeJudge(batches=True) as fake, Judge("m", base_url=fake.base_url, **options) as judge:
        estimate = judge.estimate(30, 100)
        futures = [
            judge.submit_rate(CONCEPT, TEXTS),
            judge.submit_write(CONCEPT),
            judge.submit_rate("the word 'dog'", TEXTS),
        ]
        rated, written, _ = [future.result() for future in futures]
        assert values(rated) == VALUES and len(written.texts) == 30
        assert fake.requests == 0 and len(fake.batches.made) == 1 and fake.batches.lines == judge.usage.calls == 17
        assert judge.usage.cost == pytest.approx(0.5 * 17 * (100 * PRICE[0] + 10 * PRICE[1]) / 1e6)
        assert judge.usage_of(CONCEPT).calls == 10
        assert judge.usage_of(CONCEPT).cost == pytest.approx(judge.usage.cost * 10 / 17)
    whole = Judge("m", base_url="http://h/v1", price=PRICE, texts_per_set=10).estimate(30, 100)
    assert estimate.cost == pytest.approx(whole.cost / 2)


@pytest.mark.parametrize("kind", ["error", "rate_limit", "filtered", "garbage", "partial"])
def test_a_line_that_failed_is_asked_by_itself(kind):
    with FakeJudge(batches=True, script=[kind]) as fake, Judge("m", base_url=fake.base_url, batch=True) as judge:
        assert values(judge.rate(CONCEPT, TEXTS[:45])) == VALUES[:45]
        assert fake.batches.lines == 3 and fake.requests >= 1 and len(fake.batches.made) == 1


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_ends_early_gives_what_it_has(status):
    with FakeJudge(batches=True, seed=1) as fake, Judge("m", base_url=fake.base_url, batch=True) as judge:
        fake.batches.end, fake.batches.lose = status, 0.5
        assert values(judge.rate(CONCEPT, TEXTS)) == VALUES
        assert 0 < fake.requests < 7


def interrupted(fake, kept):
    """A run that is stopped while its batch is at the server."""
    fake.batches.polls = 10**9
    judge = Judge("m", base_url=fake.base_url, batch=True)
    with judge.session(kept):
        future = judge.submit_rate(CONCEPT, TEXTS)
        deadline = time.monotonic() + 20
        while not fake.batches.made and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert not future.done()
    judge.close()
    fake.batches.polls = 2


def test_a_run_that_was_stopped_collects_its_batch():
    kept = MemoryTranscripts()
    with FakeJudge(batches=True) as fake:
        interrupted(fake, kept)
        with Judge("m", base_url=fake.base_url, batch=True) as judge, judge.session(kept):
            assert values(judge.rate(CONCEPT, TEXTS)) == VALUES
            assert judge.usage.calls == 7
        assert len(fake.batches.made) == 1 and fake.requests == 0


def test_a_batch_that_could_not_be_noted_is_found_again():
    """Killed between the server's making the batch and our writing down its id: the file's id was written before."""

    class Forgets(MemoryTranscripts):
        def put(self, key, request, answer):
            if "batch" not in answer:
                super().put(key, request, answer)

    kept = Forgets()
    with FakeJudge(batches=True) as fake:
        interrupted(fake, kept)
        with Judge("m", base_url=fake.base_url, batch=True) as judge, judge.session(kept):
            assert values(judge.rate(CONCEPT, TEXTS)) == VALUES
        assert len(fake.batches.made) == 1 and fake.requests == 0


def test_a_connection_that_breaks_while_a_batch_is_made_does_not_make_two():
    with FakeJudge(batches=True) as fake, Judge("m", base_url=fake.base_url, batch=True) as judge:
        fake.batches.hang_up = 1
        assert values(judge.rate(CONCEPT, TEXTS)) == VALUES
        assert len(fake.batches.made) == 1


def test_a_batch_that_is_refused_stops_the_run_and_is_sent_anew_by_the_next():
    kept = MemoryTranscripts()
    with FakeJudge(batches=True) as fake:
        fake.batches.end = "failed"
        judge = Judge("m", base_url=fake.base_url, batch=True)
        with judge, judge.session(kept), pytest.raises(JudgeError, match="7 requests: Enqueued token limit reached"):
            judge.rate(CONCEPT, TEXTS)
        fake.batches.end = "completed"
        with Judge("m", base_url=fake.base_url, batch=True) as judge, judge.session(kept):
            assert values(judge.rate(CONCEPT, TEXTS)) == VALUES
        assert len(fake.batches.made) == 2 and fake.requests == 0


def test_a_server_without_batches_says_so():
    with (
        FakeJudge() as fake,
        Judge("m", base_url=fake.base_url, batch=True) as judge,
        pytest.raises(JudgeError, match=r"has no Batch API .*leave batch out"),
    ):
        judge.rate(CONCEPT, TEXTS)


def test_limits_hold_for_batches():
    with FakeJudge(batches=True) as fake, Judge("m", base_url=fake.base_url, batch=True, max_calls=4) as judge:
        with pytest.raises(BudgetReached, match="max_calls=4"):
            judge.rate(CONCEPT, TEXTS)
        assert fake.batches.lines <= 4


def test_azure_has_batches_beside_its_deployments():
    with FakeJudge(batches=True) as fake:
        address = fake.base_url.removesuffix("/v1")
        with Judge.azure("judge-1", azure_endpoint=address, api_key="k", batch=True) as judge:
            assert values(judge.rate(CONCEPT, TEXTS[:15])) == VALUES[:15]
        assert {path.split("?")[0] for path in fake.paths} >= {"/openai/files", "/openai/batches"}
        assert all("api-version=" in path for path in fake.paths)
