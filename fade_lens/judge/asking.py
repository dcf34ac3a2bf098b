"""How ratings and texts are asked for: shuffled batches with opaque ids, one text a request, sets of written texts."""

import asyncio
import math
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fade_lens.errors import JudgeError
from fade_lens.judge import prompts
from fade_lens.judge.parsing import Texts, parse_ratings, parse_texts
from fade_lens.judge.request import Call, Request
from fade_lens.judge.transport import Transport
from fade_lens.judge.wire import Answer, Unanswered
from fade_lens.tables import clean

T = TypeVar("T")

ATTEMPTS = 6
"""Requests that one text may take part in before it counts as unrated: a batch, a smaller one, then alone."""
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


@dataclass
class BatchedRating:
    """One concept's texts rated in batches: what is missing or malformed is asked again, in smaller batches."""

    transport: Transport
    call: Call
    concept: str
    seed: int
    repeat: int
    size: int
    temperature: float
    overall: Legibility
    """Shared by all concepts of a judge."""
    own: Legibility = field(default_factory=Legibility)

    async def rate(self, texts: Sequence[str]) -> list[Rating]:
        """Ratings in the order of `texts`; equal texts are rated once."""
        unique = list(dict.fromkeys(texts))
        ratings = await self._batches(unique, self.size, attempt=0, refusals=0, path="")
        return [ratings[text] for text in texts]

    async def _batches(
        self, texts: list[str], size: int, *, attempt: int, refusals: int, path: str
    ) -> dict[str, Rating]:
        rng = random.Random(clean(f"{self.seed}|{self.repeat}|{self.concept}|{path}|{attempt}"))
        order = rng.sample(texts, len(texts))
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        parts = await all_of(
            self._batch(batch, attempt=attempt, refusals=refusals, path=f"{path}/{at}")
            for at, batch in enumerate(batches)
        )
        return {text: rating for part in parts for text, rating in part.items()}

    async def _batch(self, texts: list[str], *, attempt: int, refusals: int, path: str) -> dict[str, Rating]:
        samples, request = self._request(texts, attempt, path)
        found: dict[str, int] = {}
        refused = too_long = False
        try:
            answer = await self.transport.ask(request, self.call)
        except Unanswered as error:
            if not error.too_long or len(texts) == 1:
                return dict.fromkeys(texts, Rating(None, reason=str(error)))
            too_long, reason = True, str(error)
        else:
            found = {} if answer.refusal else parse_ratings(answer.content, samples)
            refused, reason = bool(answer.refusal), _why_unrated(answer, attempt)
            self._count(bool(found), refused)
        ratings = {samples[name]: Rating(value) for name, value in found.items()}
        missing = [text for text in texts if text not in ratings]
        refusals += refused and len(texts) == 1
        hopeless = not self.own.readable and self.own.unreadable >= HOPELESS and not too_long
        if missing and (attempt + 1 >= ATTEMPTS or refusals >= REFUSALS or hopeless):
            ratings |= dict.fromkeys(missing, Rating(None, reason=reason))
        elif missing:
            size = math.ceil(self.size / 3) if attempt == 0 else 1
            ratings |= await self._batches(missing, size, attempt=attempt + 1, refusals=refusals, path=path)
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
        )
        return samples, request

    def _count(self, readable: bool, refused: bool) -> None:
        self.own.readable += readable
        self.own.unreadable += not readable
        self.overall.readable += readable
        self.overall.unreadable += not (readable or refused)
        if not self.overall.readable and self.overall.unreadable >= ILLEGIBLE:
            raise JudgeError(
                f"judge {self.transport.model!r} gave {ILLEGIBLE} answers and none could be read as ratings: take a stronger "
                "model, or rating='single' if its server gives log-probabilities"
            )


@dataclass
class SingleRating:
    """One concept's texts rated one a request, by log-probabilities and calibrated on background texts."""

    transport: Transport
    call: Call
    concept: str
    repeat: int

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

    async def _score(self, text: str, repeat: int) -> float | str:
        """The text's score, or why it has none."""
        from fade_lens.judge import single

        reason = ""
        for attempt in range(3):
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
            score = None if answer.refusal else single.score(answer.top_logprobs or [])
            if score is not None:
                return float(score)
            if answer.top_logprobs is None and not answer.refusal and attempt == 2:
                raise no_logprobs(self.transport)
            reason = _why_unrated(answer, attempt)
        return reason


async def probe(transport: Transport, way: str) -> None:
    """One small request in the way of asking that ratings take. Raises `JudgeError` in one clear sentence."""
    if way == "batched":
        messages = prompts.check_messages()
        await transport.probe(Request("check", "", messages, {"max_tokens": 200}, 20, structure="ratings"))
        return
    from fade_lens.judge import single

    messages = single.messages("the word 'sun'", "The sun rose over the hills.")
    answer = await transport.probe(Request("check", "", messages, dict(single.PARAMETERS), 1))
    if answer.top_logprobs is None and answer.refusal is None:
        raise no_logprobs(transport)


def no_logprobs(transport: Transport) -> JudgeError:
    """The error for a server that cannot be asked one text a request."""
    return JudgeError(
        f"judge {transport.model!r} at {transport.endpoint.label} gives no log-probabilities, which rating one text a request "
        "needs: pass rating='batched'"
    )


@dataclass
class Writing:
    """Texts for one concept, asked for in sets that differ by their number."""

    transport: Transport
    call: Call
    concept: str
    seed: int
    set_size: int
    temperature: float

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
            for written, failure in results:
                failures += [failure] if failure else []
                for text in written:
                    texts.setdefault(" ".join(text.split()).casefold(), text)
            if len(texts) == before:
                break
        return Written(list(texts.values())[:n_texts], failures)

    async def _set(self, variation: int, n: int) -> tuple[list[str], str]:
        """One set's texts, and why there are none. A cut or unreadable answer is asked for again, the fullest one kept."""
        rng = random.Random(clean(f"{self.seed}|{self.concept}|{variation}"))
        messages = prompts.writing_messages(self.concept, n, variation=variation, tag=rng.randrange(100, 1000), rng=rng)
        best, reason = Texts([], False), ""
        for attempt in range(WRITING_ATTEMPTS):
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
            )
            try:
                answer = await self.transport.ask(request, self.call)
            except Unanswered as error:
                reason = str(error)
                break
            read = Texts([], False) if answer.refusal else parse_texts(answer.content)
            best = max(best, read, key=lambda found: (len(found.texts), found.complete))
            if read.texts and read.complete:
                break
            reason = (
                f"refused: {answer.refusal:.200}"
                if answer.refusal
                else f"no texts in the answer {answer.content[:80]!r}"
            )
        return best.texts, "" if best.texts else f"set {variation}: {reason}"


def _why_unrated(answer: Answer, attempt: int) -> str:
    if answer.refusal:
        return f"refused: {answer.refusal:.200}"
    return f"no readable rating after {attempt + 1} requests; the last answer began {answer.content[:80]!r}"


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines run together. At the first error the others are let go of."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
