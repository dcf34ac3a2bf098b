"""Several descriptions in one request: the ratings are those of each alone, or the trial sees that they are not."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fade_lens.errors import InputError
from fade_lens.judge import BudgetReached, Judge, MemoryTranscripts, Rating
from fade_lens.judge.rounds import Question, Rounds, divided, parts, rounds_together
from fade_lens.judge.trial import CLEAR, MOST_PAIRS, PAIRS, TEXTS, Trial, pairs, steps
from fade_lens.judge.usage import Usage
from tests.fake_judge import BAD_ANSWERS, FAILURES, FORMS, FakeJudge, evenly, mentions

WORDS = ("cat", "dog", "owl")
TEXTS_OF = [f"number {at} is a {'catfish' if at % 7 == 0 else (*WORDS, 'fox', 'emu')[at % 5]}" for at in range(90)]


def concepts(feature: int) -> list[str]:
    """Three descriptions that are this feature's alone."""
    return [f"{feature}: the word '{word}'" for word in WORDS]


def question(concept: str, texts: list[str], round_size: int = 60) -> Question:
    """Rated in rounds of so many texts; the one about owls stops after the first."""

    def following(ratings: list[Rating]) -> list[str]:
        return [] if ratings and "owl" in concept else texts[len(ratings) : len(ratings) + round_size]

    return Question(concept, following, seed=len(concept))


def asked(
    judge: Judge, features: int = 4, at_once: int = 3, texts: list[str] = TEXTS_OF
) -> tuple[dict[str, list[Any]], Trial]:
    """Every feature's descriptions rated, and the trial."""
    trial = Trial({f: pairs(3, len(texts), at_once) for f in range(features)}, at_once, judge.texts_per_request)
    futures = {
        concept: future
        for f in range(features)
        for concept, future in zip(
            concepts(f),
            judge.submit_together([question(c, texts) for c in concepts(f)], trial, seed=f, feature=f),
            strict=True,
        )
    }
    return {concept: [r.value for r in future.result(timeout=60)] for concept, future in futures.items()}, trial


def truth(features: int = 4) -> dict[str, list[int]]:
    return {
        concept: [mentions(concept, text) for text in (TEXTS_OF[:60] if "owl" in concept else TEXTS_OF)]
        for f in range(features)
        for concept in concepts(f)
    }


def kinds(fake: FakeJudge) -> tuple[int, int]:
    """Requests about several descriptions, and about one."""
    several = sum("each for" in body["messages"][-1]["content"][-200:] for body in fake.bodies)
    return several, fake.requests - several


def test_ratings_are_those_of_each_alone_in_fewer_requests() -> None:
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge)
        assert found == truth()
        assert trial.outcome is not None and trial.outcome.used
        # The measured feature: 4 joint requests besides 3 × 4 and, in the second round, 2 × 2. The three others: 4, then 2.
        assert kinds(fake) == (4 + 3 * (4 + 2), 12 + 4)
        report = trial.report()
        assert report["n"] == 180 >= PAIRS and report["weighted"] == 1.0 and report["features"] == [0]
        assert report["clear"] == sum(values[:60].count(2) for values in list(truth(1).values())) >= CLEAR
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        found = {
            c: [r.value for r in judge.submit_rounds(c, question(c, TEXTS_OF).following).result()] for c in truth()
        }
        assert found == truth() and kinds(fake) == (0, 4 * (12 + 4))


def test_a_judge_that_confuses_descriptions_fails_the_trial(caplog: pytest.LogCaptureFixture) -> None:
    with FakeJudge(confuses=True) as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge)
        assert found == truth()
        assert trial.outcome is not None and not trial.outcome.used and "is below 0.8" in trial.outcome.why
        assert kinds(fake) == (4, 4 * 16)
        assert trial.report()["weighted"] < 0.5
        assert "texts are not rated for up to 3 descriptions a request" in caplog.text


def test_a_judge_that_heeds_only_the_most_frequent_description_fails_the_trial() -> None:
    """It agrees with itself well enough over all ratings: nearly all 2s are of one description."""

    def rule(concept: str, text: str) -> int:
        at = int(text.split()[1])
        return 2 * ("cat" in concept if at % 10 else "dog" in concept if at % 20 else "owl" in concept)

    with FakeJudge(rule=rule, neglects=True) as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge, features=6)
        report = trial.report()
        assert report["weighted"] > 0.8 > report["weighted_of_rarer"] and not report["used"]
        assert "without the most frequent description of each request, which is below 0.8" in report["why"]
        assert all(found[c] == [rule(c, t) for t in TEXTS_OF[: len(found[c])]] for c in found)


@pytest.mark.parametrize("kind", [*FORMS, *BAD_ANSWERS, *FAILURES])
def test_what_a_joint_answer_lacks_is_asked_about_alone(kind: str) -> None:
    """The judge is good throughout the trial; then every third joint answer goes wrong."""
    joint = 0

    def choose(body: dict[str, Any]) -> str | None:
        nonlocal joint
        together = "each for" in body["messages"][-1]["content"][-200:]
        joint += together
        return kind if together and joint > 4 and joint % 3 == 0 else None

    with FakeJudge(choose=choose, slow_seconds=1.3) as fake:
        with Judge("m", base_url=fake.base_url, timeout=1.0, concurrency=1) as judge:
            found, trial = asked(judge)
        assert found == truth() and trial.outcome is not None and trial.outcome.used
        assert fake.met[kind] >= 2


@pytest.mark.parametrize("kind", ["garbage", "refuse", "wrong_ids", "rating_3", "partial"])
def test_joint_answers_that_lack_much_are_not_worth_it(kind: str) -> None:
    def choose(body: dict[str, Any]) -> str | None:
        return kind if "each for" in body["messages"][-1]["content"][-200:] else None

    with FakeJudge(choose=choose) as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge)
        assert found == truth() and trial.outcome is not None and not trial.outcome.used
        assert "missing from the joint answers" in trial.outcome.why and kinds(fake)[0] == 4


def test_failures_of_every_kind_change_no_rating() -> None:
    for seed in range(3):
        plan = evenly(0.25) | evenly(0.2, FORMS)
        with (
            FakeJudge(plan=plan, seed=seed, slow_seconds=1.3) as fake,
            Judge("m", base_url=fake.base_url, timeout=1.0, max_retries=12) as judge,
        ):
            found, _ = asked(judge)
        assert found == truth()


def test_too_little_to_find_is_measured_on_more_features_and_then_given_up() -> None:
    with FakeJudge(rule=lambda concept, text: 0) as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge, features=12)
        assert set().union(*found.values()) == {0}
        assert trial.report()["n"] == MOST_PAIRS + 60 * 3 - MOST_PAIRS % 180 and trial.report()["weighted"] is None
        assert trial.outcome is not None and not trial.outcome.used and "0 of 1260 ratings were 2" in trial.outcome.why

    def late(concept: str, text: str) -> int:
        return mentions(concept, text) if int(concept.partition(":")[0]) else 0

    with FakeJudge(rule=late) as fake, Judge("m", base_url=fake.base_url) as judge:
        _, trial = asked(judge, features=6)
        assert trial.report()["features"] == [0, 1] and trial.outcome is not None and trial.outcome.used


def test_few_features_are_not_measured() -> None:
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge, features=1)
        assert found == truth(1) and kinds(fake) == (0, 16)
        assert (
            trial.report()["why"]
            == "features with several descriptions: 1, too few to compare both ways of asking first"
        )
        assert trial.report()["n"] == 0 and not trial.report()["used"]


def test_nothing_is_asked_twice_and_a_stop_in_the_middle_changes_nothing() -> None:
    with FakeJudge() as fake:
        kept = MemoryTranscripts()
        with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
            whole, trial = asked(judge)
        requests = fake.requests
        with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
            again, same = asked(judge)
        assert again == whole == truth() and same.report() == trial.report() and fake.requests == requests
    for first in (3, 9, 14, 25):  # within the trial, at its end, and beyond it
        with FakeJudge() as fake:
            kept = MemoryTranscripts()
            for most in (first, 6):
                limited = Judge("m", base_url=fake.base_url, max_calls=most, concurrency=2)
                with limited, limited.session(kept), pytest.raises(BudgetReached):
                    asked(limited)
            with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
                again, same = asked(judge)
            assert again == whole and same.report() == trial.report() and fake.requests == requests


def test_who_waits_for_a_trial_that_breaks_off_is_told_why() -> None:
    def broken(ratings: list[Rating]) -> list[str]:
        raise ZeroDivisionError

    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        trial = Trial(dict.fromkeys(range(3), PAIRS), 3, 15)
        measured = judge.submit_together([Question(c, broken, 0) for c in concepts(0)], trial, seed=0, feature=0)
        waiting = judge.submit_together([question(c, TEXTS_OF) for c in concepts(1)], trial, seed=0, feature=1)
        steered = judge.submit_together([question(c, TEXTS_OF) for c in concepts(2)], trial, seed=0)
        for future in measured:
            with pytest.raises(ZeroDivisionError):
                future.result(timeout=20)
        for future in (*waiting, *steered):
            with pytest.raises(Exception, match="not tried out: ZeroDivisionError"):
                future.result(timeout=20)


def test_the_end_of_a_session_ends_the_waiting() -> None:
    with FakeJudge(latency=0.3) as fake, Judge("m", base_url=fake.base_url, concurrency=1) as judge:
        with judge.session(MemoryTranscripts()):
            trial = Trial(dict.fromkeys(range(3), PAIRS), 3, 15)
            futures = [
                future
                for f in range(3)
                for future in judge.submit_together(
                    [question(c, TEXTS_OF) for c in concepts(f)], trial, seed=f, feature=f
                )
            ]
            time.sleep(0.4)
        for future in futures:
            with pytest.raises(Exception, match="session has ended"):
                future.result(timeout=20)


def test_what_descriptions_cost_sums_up_to_what_was_paid() -> None:
    price = (1000.0, 1000.0)
    with FakeJudge() as fake:
        kept = MemoryTranscripts()
        for _ in range(2):  # the second time all is there already, and costs what it cost
            with Judge("m", base_url=fake.base_url, price=price) as judge, judge.session(kept):
                asked(judge)
                shares = [judge.usage_of(c) for f in range(4) for c in concepts(f)]
        total = sum(shares, Usage())
        assert (total.calls, total.prompt_tokens) == (fake.requests, 100 * fake.requests)
        assert total.completion_tokens == 10 * fake.requests and total.cost == pytest.approx(0.11 * fake.requests)
        # 6 shared requests for each of the last feature's: a third of their tokens, and calls as chance has it.
        last = shares[-3:]
        assert sum(share.calls for share in last) == 6 and max(share.calls for share in last) < 6
        assert [share.prompt_tokens for share in last] != [200] * 3 and sum(s.prompt_tokens for s in last) == 600


def test_the_speed_of_answers_decides_nothing() -> None:
    """Which requests are made is the same whatever answer comes first."""
    seen: list[set[str]] = []
    for at_once, latency in ((1, 0.0), (16, 0.02), (3, 0.0)):
        with FakeJudge(latency=latency) as fake, Judge("m", base_url=fake.base_url, concurrency=at_once) as judge:
            asked(judge)
            seen.append({body["messages"][-1]["content"] for body in fake.bodies})
    assert seen[0] == seen[1] == seen[2]


def test_the_order_of_descriptions_changes_from_request_to_request_and_with_the_seed() -> None:
    from fade_lens.judge import prompts

    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        asked(judge, features=8)
        read = [prompts.read_together(body["messages"]) for body in fake.bodies]
        orders = {tuple(c[-4:-1] for c in found[0].values()) for found in read if found and len(found[0]) == 3}
        assert len(orders) == 6
        assert all(len(found[1]) == 15 for found in read if found)


def test_more_descriptions_than_a_request_takes() -> None:
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as judge:
        found, trial = asked(judge, at_once=2)
        assert found == truth() and trial.outcome is not None and trial.outcome.used
        assert pairs(3, 90, 2) == 120 and trial.report()["n"] == 240


def test_arguments_that_cannot_be_used() -> None:
    for given_number in (0, 11):
        with pytest.raises(InputError, match=f"descriptions_per_request is {given_number}"):
            Judge("m", base_url="http://h/v1", descriptions_per_request=given_number)
    with pytest.raises(InputError, match="'single' a request is about one text"):
        Judge("m", base_url="http://h/v1", rating="single", descriptions_per_request=2)
    with pytest.raises(InputError, match="'single'"):
        Judge.parse("ollama:m", descriptions_per_request=2)
    plain = Judge("m", base_url="http://h/v1")
    assert "descriptions_per_request" not in plain.identity
    assert Judge("m", base_url="http://h/v1", descriptions_per_request=2).identity["descriptions_per_request"] == 2
    with pytest.raises(InputError, match="concept is empty"):
        plain.submit_together([question(" ", TEXTS_OF)], Trial({}, 2, 15), seed=0)
    with pytest.raises(InputError, match="a concept twice"):
        plain.submit_together([question("cats", TEXTS_OF)] * 2, Trial({}, 2, 15), seed=0)


# --- Rounds ---------------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12), min_size=1, max_size=5),
    st.integers(2, 4),
    st.integers(1, 5),
)
def test_every_text_is_asked_about_once_for_everyone_who_wants_it(
    wanted: list[list[str]], at_once: int, batch: int
) -> None:
    joint, alone = divided(wanted, at_once, batch)
    found = [(place, text) for places, texts in joint for place in places for text in texts]
    found += [(place, text) for place, texts in enumerate(alone) for text in texts]
    assert sorted(found) == sorted((place, text) for place, texts in enumerate(wanted) for text in texts)
    assert all(2 <= len(places) <= at_once for places, _ in joint)
    requests = sum(-(-len(texts) // batch) for texts in [*(texts for _, texts in joint), *alone])
    assert requests <= sum(-(-len(texts) // batch) for texts in wanted)


@given(st.integers(1, 40), st.integers(1, 10))
def test_parts_are_as_equal_as_can_be(n: int, at_once: int) -> None:
    found = parts(range(n), at_once)
    assert [one for part in found for one in part] == list(range(n))
    sizes = [len(part) for part in found]
    assert max(sizes) <= at_once and max(sizes) - min(sizes) <= 1 and len(found) == -(-n // at_once)


@settings(deadline=None)
@given(st.lists(st.integers(2, 600), max_size=40))
def test_steps_double_and_end(sizes: list[int]) -> None:
    found = steps(dict(enumerate(sizes)))
    order = [feature for step in found for feature in step]
    assert order == list(range(len(order)))
    totals = [sum(sizes[: step[-1] + 1]) for step in found]
    assert all(total >= PAIRS for total in totals[:-1])
    assert all(later >= 2 * total for total, later in pairwise(totals[:-1]))
    assert len(order) == len(sizes) or totals[-1] >= MOST_PAIRS


def test_sharing_asks_only_for_what_is_wanted_now() -> None:
    """Two who want the same at first and different texts later; one stops early."""
    requests: list[tuple[str, ...]] = []

    class Jointly:
        async def rate(self, concepts, texts):
            requests.append((*concepts, *texts))
            return {(concept, text): Rating(2) for concept in concepts for text in texts if text != "b"}

    class Alone:
        def __init__(self, name: str) -> None:
            self.name = name

        async def rate(self, texts):
            requests.append((self.name, *texts))
            return [Rating(0) for _ in texts]

    plans = {"x": ["ab", "cd", ""], "y": ["ab", "ce", "f", ""], "z": ["ab", ""]}
    finished: dict[str, list[int | None]] = {}

    def member(name: str) -> Rounds:
        plan = list(plans[name])
        return Rounds(
            Alone(name), lambda _: list(plan.pop(0)), name, lambda r: finished.update({name: [one.value for one in r]})
        )

    asyncio.run(rounds_together([member(name) for name in plans], Jointly(), 3, 1))
    assert requests == [
        ("x", "y", "z", "a", "b"), ("x", "b"), ("y", "b"), ("z", "b"),
        ("x", "y", "c"), ("x", "d"), ("y", "e"),
        ("y", "f"),
    ]  # fmt: skip
    assert finished == {"z": [2, 0], "x": [2, 0, 2, 0], "y": [2, 0, 2, 0, 0]}


def test_a_feature_s_texts_are_compared_up_to_a_number() -> None:
    assert pairs(2, 500, 10) == 2 * TEXTS and pairs(2, 9, 10) == 18


def test_shared_requests_can_wait_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from fade_lens.judge import batch

    monkeypatch.setattr(batch, "GATHER_SECONDS", 0.05)
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    with FakeJudge(batches=True) as fake, Judge("m", base_url=fake.base_url, batch=True, price=(1.0, 1.0)) as judge:
        found, trial = asked(judge)
        assert found == truth() and trial.outcome is not None and trial.outcome.used
        assert fake.requests == 0 and fake.batches is not None and fake.batches.lines == judge.usage.calls == 22 + 16
        total = sum((judge.usage_of(c) for f in range(4) for c in concepts(f)), Usage())
        assert total.calls == 38 and total.cost == pytest.approx(judge.usage.cost) == pytest.approx(38 * 110e-6 / 2)
