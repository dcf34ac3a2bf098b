"""How ratings and texts are asked for: shuffled batches with opaque ids, one text a request, sets of written texts."""

import asyncio
import math
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, TypeVar

from fade_lens._util.errors import JudgeError
from fade_lens._util.files import clean
from fade_lens.judge import prompts
from fade_lens.judge.parsing import Texts, parse_ratings, parse_texts, readable
from fade_lens.llm.request import Call, Request
from fade_lens.llm.transport import Transport
from fade_lens.llm.wire import Answer, Unanswered

T = TypeVar("T")

ATTEMPTS = 6
"""Requests that one text may take part in within a run before it counts as unrated: a batch, a smaller one, then alone."""
SINGLE_ATTEMPTS = 3
"""Requests about one text alone."""
REFUSALS = 3
"""Requests that a text may be refused in by itself."""
HOPELESS = 8
"""Answers that give nothing, with none that gives something, after which a concept is not re-asked."""
ILLEGIBLE = 40
"""The same over all concepts, after which the judge counts as unable to answer in the form asked for."""
WRITING_ATTEMPTS = 4
LEAST_WRITTEN = 10
"""Texts that a set is asked for at least, where so many are wanted in all."""
LONGEST_WRITING = 4000
"""Tokens that one set may take at most: some models write no more than 4,096, and few sets come near."""
CHECKED = ("the word 'sun'", ["The sun rose over the hills.", "Prices fell again in March."])
"""Concept and texts that show whether a judge can answer."""


@dataclass(frozen=True)
class Rating:
    """A judge's rating of one text for one concept."""

    value: int | None
    """0 (not expressed), 1 (partly), 2 (clearly), or None."""
    score: float | None = None
    """Graded score (log-odds relative to the concept's zero point, in nats) where the way of rating gives one."""
    reason: str | None = None
    """Why `value` is None."""


@dataclass(frozen=True)
class Written:
    """Texts that a judge wrote to express a concept."""

    texts: list[str]
    """Unique, in an order that depends on the answers alone."""
    failures: list[str]
    """One line for each request that gave nothing."""


@dataclass
class Legibility:
    """Counts of answers that could and could not be read."""

    readable: int = 0
    unreadable: int = 0


@dataclass(kw_only=True)
class Asking:
    """What is asked about one concept, and how much of what came back could be read.

    An answer that an earlier run left and could not read is no attempt of this run: it is passed over, and asked for anew. It stays in
    the transcripts, and where a later attempt was read already, that one counts and nothing is asked.
    """

    transport: Transport
    call: Call
    concept: str
    overall: Legibility
    """Shared by all concepts of a judge."""
    own: Legibility = field(default_factory=Legibility)
    attempts: int

    FORM: ClassVar[str]
    """What an answer is read as."""
    OTHERWISE: ClassVar[str]
    """What to do where a model gives nothing of the kind."""

    def counts(self, request: Request, answer: Answer, readable: bool) -> bool:
        """Whether an answer was an attempt of this run. Raises `JudgeError` where the judge turns out to be unable to answer."""
        if not (readable or answer.refusal or self.transport.key(request) in self.call.answered):
            return False
        self.own.readable += readable
        self.own.unreadable += not readable
        self.overall.readable += readable
        self.overall.unreadable += not (readable or answer.refusal)
        if not self.overall.readable and self.overall.unreadable >= ILLEGIBLE:
            shown = "(`fade-lens judge log RUN --failures` shows them)"
            error = self.unable(f"none of {ILLEGIBLE} answers could be read {shown}; the last one {_beginning(answer)}")
            self.call.stop(error)
            raise error
        return True

    @property
    def hopeless(self) -> bool:
        """Whether asking again about this concept is no use."""
        return not self.own.readable and self.own.unreadable >= HOPELESS

    def unable(self, reason: str) -> JudgeError:
        """The error for a judge that cannot do it."""
        return JudgeError(
            f"judge {self.transport.model!r} at {self.transport.endpoint.label} gives no {self.FORM}: {reason}. {self.OTHERWISE}"
        )


@dataclass(kw_only=True)
class BatchedRating(Asking):
    """One concept's texts rated in batches: what is missing or malformed is asked again, in smaller batches."""

    seed: int
    repeat: int
    size: int
    temperature: float
    attempts: int = ATTEMPTS

    FORM = "ratings of several texts in one answer"
    OTHERWISE = "Take a stronger model, or rating='single' if its server gives log-probabilities"

    async def rate(self, texts: Sequence[str]) -> list[Rating]:
        """Ratings in the order of `texts`; equal texts are rated once."""
        unique = list(dict.fromkeys(texts))
        ratings = await self._batches(unique, self.size, attempt=0, tried=0, refusals=0, path="")
        return [ratings[text] for text in texts]

    async def check(self) -> None:
        """Raises `JudgeError` if a few texts cannot be rated."""
        for rating in await self.rate(CHECKED[1]):
            if rating.value is None:
                raise self.unable(str(rating.reason))

    async def _batches(
        self, texts: list[str], size: int, *, attempt: int, tried: int, refusals: int, path: str
    ) -> dict[str, Rating]:
        rng = random.Random(clean(f"{self.seed}|{self.repeat}|{self.concept}|{path}|{attempt}"))
        order = rng.sample(texts, len(texts))
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        parts = await all_of(
            self._batch(batch, attempt=attempt, tried=tried, refusals=refusals, path=f"{path}/{at}")
            for at, batch in enumerate(batches)
        )
        return {text: rating for part in parts for text, rating in part.items()}

    async def _batch(
        self, texts: list[str], *, attempt: int, tried: int, refusals: int, path: str
    ) -> dict[str, Rating]:
        samples, request = self._request(texts, attempt, path)
        found: dict[str, int] = {}
        refused = too_long = False
        try:
            answer = await self.transport.ask(request, self.call)
        except Unanswered as error:
            if not error.too_long or len(texts) == 1:
                return dict.fromkeys(texts, Rating(None, reason=str(error)))
            too_long, reason, tried = True, str(error), tried + 1
        else:
            found = {} if answer.refusal else parse_ratings(_said(self.transport, answer), samples)
            refused, reason = bool(answer.refusal), _why_unread(answer, attempt)
            tried += self.counts(request, answer, bool(found))
        ratings = {samples[name]: Rating(value) for name, value in found.items()}
        missing = [text for text in texts if text not in ratings]
        refusals += refused and len(texts) == 1
        if missing and (tried >= self.attempts or refusals >= REFUSALS or (self.hopeless and not too_long)):
            ratings |= dict.fromkeys(missing, Rating(None, reason=reason))
        elif missing:
            size = math.ceil(self.size / 3) if attempt == 0 else 1
            ratings |= await self._batches(
                missing, size, attempt=attempt + 1, tried=tried, refusals=refusals, path=path
            )
        return ratings

    def _request(self, texts: list[str], attempt: int, path: str) -> tuple[dict[str, str], Request]:
        rng = random.Random(clean(f"ids|{self.seed}|{self.repeat}|{self.concept}|{path}|{attempt}"))
        # Three digits: one token in most vocabularies, and never to be taken for a rating.
        tag, *names = rng.sample(range(100, 1000), len(texts) + 1)
        samples = {str(name): text for name, text in zip(names, texts, strict=True)}
        request = Request(
            kind="rate",
            concept=self.concept,
            messages=prompts.rating_messages(self.concept, samples, tag=tag),
            parameters={"temperature": self.temperature, "max_tokens": 100 + 40 * len(texts)},
            expects=14 * len(texts),
            structure="ratings",
            repeat=self.repeat,
            attempt=attempt,
            note={"seed": self.seed},
            parts=len(texts),
        )
        return samples, request


@dataclass(kw_only=True)
class SingleRating(Asking):
    """One concept's texts rated one a request, by log-probabilities and calibrated on background texts."""

    repeat: int
    attempts: int = SINGLE_ATTEMPTS

    FORM = "log-probabilities of Yes and No, which rating one text a request needs"
    OTHERWISE = "Give rating='batched', or take a model that answers without thinking first"

    async def rate(self, texts: Sequence[str]) -> list[Rating]:
        """Ratings in the order of `texts`; equal texts are rated once."""
        from fade_lens.judge import single

        unique = list(dict.fromkeys(texts))
        background = [self._score(text, 0) for text in single.BACKGROUND]
        results = await all_of([*background, *(self._score(text, self.repeat) for text in unique)])
        zero = [score for score in results[: len(background)] if isinstance(score, float)]
        if not zero:
            reason = f"no background text could be rated for this concept, so there is no zero point ({results[0]})"
            return [Rating(None, reason=reason)] * len(texts)
        calibration = single.Calibration.fit(zero)
        scores = dict(zip(unique, results[len(background) :], strict=True))
        return [
            Rating(calibration.rating(score), calibration.graded(score))
            if not isinstance(score := scores[text], str)
            else Rating(None, reason=score)
            for text in texts
        ]

    async def check(self) -> None:
        """Raises `JudgeError` if a text gets no score."""
        if isinstance(why := await self._score(CHECKED[1][0], self.repeat), str):
            raise self.unable(why)

    async def _score(self, text: str, repeat: int) -> float | str:
        """The text's score, or why it has none."""
        from fade_lens.judge import single

        reason, tried = "", 0
        for attempt in count():
            request = Request(
                kind="rate one",
                concept=self.concept,
                messages=single.messages(self.concept, prompts.cut(text)),
                parameters=dict(single.PARAMETERS),
                expects=1,
                repeat=repeat,
                attempt=attempt,
            )
            try:
                answer = await self.transport.ask(request, self.call)
            except Unanswered as error:
                return str(error)
            score = None if answer.refusal else single.read(answer.top_logprobs)
            tried += self.counts(request, answer, score is not None)
            if score is not None:
                return float(score)
            silent = answer.top_logprobs is None and not answer.refusal
            reason = "the server gives none" if silent else _why_unread(answer, attempt)
            if tried >= self.attempts or (self.hopeless and not answer.refusal):
                if silent and not self.overall.readable:
                    raise self.unable(reason)
                break
        return reason


@dataclass(kw_only=True)
class Writing(Asking):
    """Texts for one concept, asked for in sets that differ by their number."""

    seed: int
    set_size: int
    temperature: float
    attempts: int = WRITING_ATTEMPTS

    FORM = "texts that it was asked to write"
    OTHERWISE = "Take a stronger model, or another one as writer"

    async def check(self) -> None:
        """Raises `JudgeError` if no text is written."""
        texts, why, _ = await self._set(1, 2)
        if not texts:
            raise self.unable(why)

    async def write(self, n_texts: int) -> Written:
        """Up to `n_texts` unique texts; further sets are asked for while there are too few, a bounded number of times."""
        texts: dict[str, str] = {}
        failures: list[str] = []
        asked, most = 0, 2 * math.ceil(n_texts / self.set_size) + 2
        while len(texts) < n_texts and asked < most:
            before = len(texts)
            missing = n_texts - len(texts)
            sets = min(math.ceil(missing / self.set_size), most - asked)
            # Sets of equal size; not too few texts at a time, for then most would be those that are there already.
            size = min(self.set_size, max(math.ceil(missing / sets), min(n_texts, LEAST_WRITTEN)))
            results = await all_of(self._set(asked + 1 + at, size) for at in range(sets))
            asked += sets
            for written, failure, _ in results:
                failures += [failure] if failure else []
                for text in written:
                    texts.setdefault(" ".join(text.split()).casefold(), text)
            if len(texts) == before:
                break
            if (smallest := min(had_room for _, _, had_room in results)) < size:  # more sets, then
                self.set_size = smallest
                most = asked + 2 * math.ceil((n_texts - len(texts)) / smallest) + 2
        return Written(list(texts.values())[:n_texts], failures)

    async def _set(self, variation: int, n: int) -> tuple[list[str], str, int]:
        """One set's texts, why there are none, and how many could be asked for at a time.

        A cut or unreadable answer is asked for again, the fullest one kept; what is too long is asked for by halves.
        """
        rng = random.Random(clean(f"{self.seed}|{self.concept}|{variation}"))
        tag = rng.randrange(100, 1000)
        leaning = rng.getstate()
        messages = prompts.writing_messages(self.concept, n, variation=variation, tag=tag, rng=rng)
        best, reason, attempt, tried = Texts([], False), "", 0, 0
        while tried < self.attempts:
            request = Request(
                kind="write",
                concept=self.concept,
                messages=messages,
                parameters={
                    "temperature": self.temperature,
                    "max_tokens": min(200 + 200 * n, LONGEST_WRITING),
                    "seed": rng.randrange(2**31),
                },
                expects=50 * n,
                structure="texts",
                attempt=attempt,
                note={"seed": self.seed},
                parts=n,
            )
            too_long = False
            try:
                answer = await self.transport.ask(request, self.call)
            except Unanswered as error:
                reason, too_long = str(error), error.too_long
                if not too_long or n == 1:
                    break
            else:
                read = Texts([], False) if answer.refusal else parse_texts(_said(self.transport, answer))
                best = max(best, read, key=lambda found: (len(found.texts), found.complete))
                reason = _why_unread(answer, attempt)
                tried += self.counts(request, answer, bool(read.texts))
                attempt += 1
                if read.texts and read.complete:
                    break
            if too_long:
                n = math.ceil(n / 2)
                same = random.Random()
                same.setstate(leaning)
                messages = prompts.writing_messages(self.concept, n, variation=variation, tag=tag, rng=same)
        return best.texts, "" if best.texts else f"set {variation}: {reason}", n


def _said(transport: Transport, answer: Answer) -> str:
    """What of an answer may be read."""
    return readable(answer.content, cut=answer.finish_reason == "length", thinks=transport.reasoning)


def _why_unread(answer: Answer, attempt: int) -> str:
    if answer.refusal:
        return f"refused: {answer.refusal:.200}"
    return f"nothing readable after {attempt + 1} requests; the last answer {_beginning(answer)}"


def _beginning(answer: Answer) -> str:
    """What an answer that cannot be read looks like."""
    if answer.top_logprobs:
        likely = sorted(answer.top_logprobs, key=lambda listed: -listed[1])[:3]
        return f"begins with {' or '.join(repr(token) for token, _ in likely)}"
    return answer.whereabouts


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines run together. At the first error the others are let go of."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
