"""A judge that cannot do it is found before the run; what could not be read is asked again by the next run."""

from collections.abc import Callable
from typing import Any

import pytest

from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge, MemoryTranscripts, asking, prompts, single
from fade_lens.judge.log import Entry
from fade_lens.judge.rating import ATTEMPTS
from tests.fake_judge import FakeJudge

CONCEPT = "the word 'cat'"
TEXTS = [f"Text {at} with a {('cat', 'catalog', 'dog')[at % 3]} in it." for at in range(20)]
N = 6
VALUES = [(2, 1, 0)[at % 3] for at in range(20)]

THINKS = {"<think>": -1e-6, "Okay": -14.0, "Yes": -16.0, "No": -17.0}
GERMAN = {"Ja": -0.1, "Nein": -2.5, "Eher": -6.0}
NOISE = ["{}", "", "I cannot say.", "<think>Well, let me", '{"error": "model not loaded"}', "[2, 0]", "null"]


def continues(body: dict[str, Any]) -> str:
    """A base model goes on with what it was shown."""
    return "\n\nUser: " + body["messages"][-1]["content"][:60]


def of_kind(kind: Callable[[Any], object], words: str) -> Callable[[dict[str, Any]], str | None]:
    """An answer for the requests that `kind` reads, the server's own for others."""
    return lambda body: words if kind(body["messages"]) is not None else None


# ------------------------------------------------------------------------------------------------------- at the start


@pytest.mark.parametrize("begins", [THINKS, GERMAN, {"\n": -0.01, "\n\n": -5.0}, {"The": -0.2, "Text": -2.0}])
def test_a_judge_that_begins_with_neither_yes_nor_no_is_found_at_the_start(begins: dict[str, float]) -> None:
    with FakeJudge(begins=begins) as fake, Judge("m", base_url=fake.base_url, rating="single") as judge:
        with pytest.raises(JudgeError, match=r"gives no log-probabilities of Yes and No.*rating='batched'") as caught:
            judge.check()
        assert repr(next(iter(begins))) in str(caught.value) and fake.requests == 2


@pytest.mark.parametrize("yes", ["Yes", " yes", "▁YES", "ĠYes", "\nYes", "**Yes", "Yes.", "“yes”", "ĊYes"])
def test_spellings_of_yes_are_read(yes: str) -> None:
    with (
        FakeJudge(begins={yes: -0.1, "no": -3.0}) as fake,
        Judge("m", base_url=fake.base_url, rating="single") as judge,
    ):
        judge.check()
        assert fake.requests == 2  # a text rated, a text written


@pytest.mark.parametrize("words", NOISE)
def test_a_judge_without_readable_ratings_is_found_at_the_start(words: str) -> None:
    with (
        FakeJudge(says=of_kind(prompts.read_rating, words)) as fake,
        Judge("m", base_url=fake.base_url) as judge,
    ):
        with pytest.raises(JudgeError, match=r"gives no ratings.*rating='single'") as caught:
            judge.check()
        assert (repr(words[:20])[:-1] in str(caught.value)) if words else "was empty" in str(caught.value)
        assert fake.requests == 2


def test_a_base_model_that_goes_on_with_the_question_is_found_at_the_start() -> None:
    with (
        FakeJudge(says=continues) as fake,
        Judge("m", base_url=fake.base_url) as judge,
        pytest.raises(JudgeError, match="gives no ratings"),
    ):
        judge.check()


def test_a_judge_that_leaves_a_text_out_is_asked_about_it_once_more() -> None:
    with FakeJudge(script=["partial"]) as fake, Judge("m", base_url=fake.base_url) as judge:
        judge.check()
        assert fake.requests == 3  # two texts, the one that was left out, a text to be written


@pytest.mark.parametrize("words", ["{}", "", '{"texts": []}', "No."])
@pytest.mark.parametrize("another", [False, True])
def test_a_writer_that_writes_nothing_is_found_at_the_start(words: str, another: bool) -> None:
    silent = of_kind(prompts.Prompts().read_writing, words)
    with FakeJudge(says=silent) as fake, FakeJudge() as able:
        url, options = (able.base_url, {"writer": f"{fake.base_url}#w"}) if another else (fake.base_url, {})
        with Judge("m", base_url=url, **options) as judge:
            with pytest.raises(JudgeError, match=r"gives no texts.*writer"):
                judge.check()
            judge.check(writes=False)  # such as a second judge, who only rates


def test_a_writer_need_not_be_able_to_rate() -> None:
    with FakeJudge(logprobs=False, says=of_kind(prompts.read_rating, "")) as writes, FakeJudge() as rates:
        with Judge("m", base_url=rates.base_url, writer=f"{writes.base_url}#w") as judge:
            judge.check()
        assert (rates.requests, writes.requests) == (1, 1)


def test_the_check_asks_as_the_run_does() -> None:
    for rating in ("batched", "single"):
        with FakeJudge() as fake, Judge("m", base_url=fake.base_url, rating=rating) as judge:
            judge.check()
            judge.rate(CONCEPT, TEXTS[:2])
            judge.write(CONCEPT, n_texts=2)
            shapes = [set(body) for body in fake.bodies]
            assert shapes[0] == shapes[2] and shapes[1] == shapes[-1]
            assert judge.usage.calls == fake.requests and judge.usage_of(CONCEPT).calls == fake.requests - 2


def test_single_rating_stops_at_a_hopeless_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeJudge(begins=GERMAN) as fake, Judge("m", base_url=fake.base_url, rating="single") as judge:
        assert {rating.value for rating in judge.rate(CONCEPT, TEXTS[:5])} == {None}
        assert fake.requests <= len(single.BACKGROUND) + 5 + asking.HOPELESS
        with pytest.raises(JudgeError, match="none of 40 answers could be read"):
            judge.rate("the word 'dog'", TEXTS)
        assert fake.requests <= asking.ILLEGIBLE + 16  # 16 are in flight at once


# ------------------------------------------------------------------------------------------------------- by the next run


def run(url: str, kept: MemoryTranscripts, rating: Any = "batched") -> tuple[Any, Any, int]:
    with Judge("m", base_url=url, rating=rating) as judge, judge.session(kept):
        return judge.rate(CONCEPT, TEXTS[:N]), judge.write(CONCEPT, n_texts=N), judge.usage.calls


@pytest.mark.parametrize(("rating", "words"), [("batched", "{}"), ("batched", ""), ("single", "Sorry?")])
def test_what_could_not_be_read_is_asked_again_once_the_server_is_mended(
    rating: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ILLEGIBLE", 10_000)
    kept = MemoryTranscripts()
    with FakeJudge(says=lambda _: words, begins=GERMAN) as fake:
        for _ in range(2):  # nor does the second failure make it final
            ratings, written, _ = run(fake.base_url, kept, rating)
            assert {r.value for r in ratings} == {None} and not written.texts
        failed = len(kept)
        fake.says, fake.begins = lambda _: None, None
        ratings, written, _ = run(fake.base_url, kept, rating)
        assert [r.value for r in ratings] == VALUES[:N] and len(written.texts) == N
        assert sum(bool(Entry(request, answer).failure) for _, request, answer in kept.items()) == failed
        assert run(fake.base_url, kept, rating)[2] == 0  # what was read is asked once


def test_a_judge_given_up_as_hopeless_gets_another_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ILLEGIBLE", 3)
    kept = MemoryTranscripts()
    with FakeJudge(says=lambda _: "{}") as fake:
        for _ in range(3):
            with pytest.raises(JudgeError, match=r"none of 3 answers.*judge log RUN --failures"):
                run(fake.base_url, kept)
        fake.says = lambda _: None
        assert [r.value for r in run(fake.base_url, kept)[0]] == VALUES[:N]


def test_a_slip_that_was_made_good_is_not_asked_again() -> None:
    kept = MemoryTranscripts()
    with FakeJudge(script=["garbage", "wrong_ids", "garbage", "empty"]) as fake:
        first = run(fake.base_url, kept)
        asked = fake.requests
        assert run(fake.base_url, kept) == (*first[:2], 0) and fake.requests == asked


def test_within_a_run_an_unreadable_answer_is_paid_for_once() -> None:
    with FakeJudge(says=lambda _: "{}") as fake, Judge("m", base_url=fake.base_url) as judge:
        with judge.session(MemoryTranscripts()):
            judge.rate(CONCEPT, TEXTS[:1])
            asked = fake.requests
            judge.rate(CONCEPT, TEXTS[:1])
            assert fake.requests == asked == ATTEMPTS
        judge.rate(CONCEPT, TEXTS[:1])  # outside of a run each question stands for itself
        assert fake.requests == 2 * asked
        judge.rate(CONCEPT, TEXTS[:1])
        assert fake.requests == 3 * asked


def test_refusals_are_kept() -> None:
    kept = MemoryTranscripts()
    with FakeJudge(plan={"refuse": 1.0}) as fake:
        for asked_again in (True, False):
            before = fake.requests
            with Judge("m", base_url=fake.base_url) as judge, judge.session(kept):
                judge.rate(CONCEPT, TEXTS[:1])
                judge.write(CONCEPT, n_texts=1)
            with Judge("m", base_url=fake.base_url, rating="single") as judge, judge.session(kept):
                judge.rate(CONCEPT, TEXTS[:1])
            assert (fake.requests > before) == asked_again
