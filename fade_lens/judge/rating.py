"""How ratings are asked for: shuffled batches with opaque ids, or one text a request."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fade_lens._util.errors import Argument
from fade_lens._util.files import clean
from fade_lens._util.reasons import Reason
from fade_lens.judge.asking import CHECKED, Asking, all_of
from fade_lens.judge.parsing import parse_ratings
from fade_lens.judge.prompts import cut, ratings_of
from fade_lens.llm.chat import Answer, Unanswered
from fade_lens.llm.request import Request

ATTEMPTS = 6
"""Requests that one text may take part in within a run before it counts as unrated: a batch, a smaller one, then alone."""
SINGLE_ATTEMPTS = 3
"""Requests about one text alone."""
REFUSALS = 3
"""Requests that a text may be refused in by itself."""


@dataclass(frozen=True)
class Rating:
    """A judge's rating of one text for one concept.

    Example:
        >>> rated = [Rating(2), Rating(None, reason="refused: no")]
        >>> [rating.value for rating in rated if rating.value is not None]
        [2]
    """

    value: int | None
    """0 (not expressed), 1 (partly), 2 (clearly), or None."""
    score: float | None = None
    """Graded score (log-odds relative to the concept's zero point, in nats) where the way of rating gives one."""
    reason: str | None = None
    """Why `value` is None."""


@dataclass(kw_only=True)
class BatchedRating(Asking):
    """Rates one concept's texts in batches; a text whose rating is missing or malformed is asked about again, in a smaller batch.

    Attributes:
        seed: shuffles the texts, and draws their ids.
        repeat: numbers repetitions of the same question.
        size: texts a request.
        temperature: of the model.
        kind: what requests go by.
        grades: what a text may be rated; any other value is none.
    """

    seed: int
    repeat: int
    size: int
    temperature: float
    kind: str = "rate"
    grades: tuple[int, ...] = (0, 1, 2)
    attempts: int = ATTEMPTS

    form: str = "ratings of several texts in one answer"
    otherwise: tuple[str | Argument, ...] = (
        "Take a stronger model, or ",
        Argument("rating", "single"),
        " if its server gives log-probabilities",
    )

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
            answer = await self.asked.send(request)
        except Unanswered as error:
            if not error.too_long or len(texts) == 1:
                return dict.fromkeys(texts, Rating(None, reason=str(error)))
            too_long, reason, tried = True, str(error), tried + 1
        else:
            read = {} if answer.refusal else parse_ratings(self.said(answer), samples)
            found = {name: value for name, value in read.items() if value in self.grades}
            refused, reason = bool(answer.refusal), self.unread(answer, attempt)
            tried += self.counts(request, answer, bool(found))
        ratings = {samples[name]: Rating(value) for name, value in found.items()}
        missing = [text for text in texts if text not in ratings]
        refusals += refused and len(texts) == 1
        if missing and (tried >= self.attempts or refusals >= REFUSALS or (self.hopeless and not too_long)):
            ratings |= dict.fromkeys(missing, Rating(None, reason=str(reason)))
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
            kind=self.kind,
            concept=self.concept,
            messages=self.asked.prompts.rating_messages(self.concept, samples, tag=tag),
            parameters={"temperature": self.temperature, "max_tokens": 100 + 40 * len(texts)},
            expects=14 * len(texts),
            structure=ratings_of(self.grades),
            repeat=self.repeat,
            attempt=attempt,
            note={"seed": self.seed},
            parts=len(texts),
            texts=samples,
        )
        return samples, request


@dataclass(kw_only=True)
class SingleRating(Asking):
    """Rates one concept's texts one a request, by the log-probabilities of Yes and No, calibrated on background texts.

    Attributes:
        repeat: numbers repetitions of the same question.
    """

    repeat: int
    attempts: int = SINGLE_ATTEMPTS

    form: str = "log-probabilities of Yes and No, which rating one text a request needs"
    otherwise: tuple[str | Argument, ...] = (
        "Give ",
        Argument("rating", "batched"),
        ", or take a model that answers without thinking first",
    )

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
            else Rating(None, reason=str(score))
            for text in texts
        ]

    async def check(self) -> None:
        """Raises `JudgeError` if a text gets no score."""
        if isinstance(why := await self._score(CHECKED[1][0], self.repeat), str):
            raise self.unable(why)

    async def _score(self, text: str, repeat: int) -> float | Reason:
        """The text's score, or why it has none."""
        from fade_lens.judge import single

        text = cut(text)
        request = Request(
            kind="rate one",
            concept=self.concept,
            messages=self.asked.prompts.single_messages(self.concept, text),
            parameters=dict(single.PARAMETERS),
            expects=1,
            repeat=repeat,
            texts={"": text},
        )
        return await self.ask(request, lambda answer: single.read(answer.top_logprobs))

    def unread(self, answer: Answer, attempt: int) -> Reason:
        """Why an answer gave no score. Raises `JudgeError` where the server gives none at all."""
        if answer.top_logprobs is not None or answer.refusal:
            return super().unread(answer, attempt)
        if not self.overall.readable:
            raise self.unable("the server gives none")
        return Reason("unreadable", "the server gives none")
