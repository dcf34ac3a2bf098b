"""Responsiveness (do natural texts that express the concept activate the feature?) and Purity (does it fire for nothing else?)."""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.options import option
from fade_lens._util.seeds import rng, stream
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.data.sampling import Design, design
from fade_lens.judge import Judge, Rating
from fade_lens.judge.rounds import whole
from fade_lens.metrics.fade import purity, responsiveness
from fade_lens.metrics.labelled import UNRATED
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.evidence import RatedEvidence, RatedText
from fade_lens.scorers.stopping import StoppingSettings, missing, widest

if TYPE_CHECKING:
    from fade_lens.subject.subject import Subject

FIRST_ROUND = 60
"""Texts of the first round. Fewer, and intervals that look narrow by luck stop too many ratings."""


@dataclass(frozen=True)
class RatingSettings(StoppingSettings):
    """What Responsiveness and Purity cost."""

    rated_texts: int = option(
        200, "Natural texts that the judge rates for each description (Responsiveness, Purity).", least=1
    )


@dataclass(frozen=True)
class Asked:
    """Texts sent to the judge for one description: the order in which they are rated, and the ratings of its beginning."""

    design: Design
    answer: Future[list[Rating]]


class RatingEvaluator:
    """The judge rates natural texts, more of them where the feature fires, each with its known probability of being chosen."""

    def __init__(self, subject: "Subject", judge: Judge, settings: RatingSettings | None = None) -> None:
        self.subject, self.judge = subject, judge
        self.settings = settings or RatingSettings.of(subject.settings)

    def ask(self, description: Description) -> Asked:
        """Choose the texts and begin to have them rated, in the background: no description waits for another's rounds."""
        natural = self.subject.natural(description.index)
        n = 0 if self.subject.overflow(description.index) else self.settings.rated_texts  # nothing is asked in vain
        # The same texts for every description of a feature, so that two descriptions are compared on equal terms.
        chosen = design(natural, n, rng(self.settings.seed, "rated texts", description.index))
        texts = [self.subject.tokens.texts[i] for i in chosen.order]

        def following(ratings: list[Rating]) -> list[str]:
            n, known = len(ratings), self._score(description, chosen, ratings) if ratings else None
            if n == len(texts) or (known is not None and known.stopped is not None):
                return []
            width = None if known is None else widest(known.responsiveness, known.purity)
            return texts[n : next_end(n, len(texts), width, self.judge.texts_per_request, self.settings)]

        seed = stream(self.settings.seed, "rating order", description.id)
        return Asked(chosen, self.judge.submit_rounds(description.text, following, seed=seed))

    def measure(self, description: Description, asked: Asked) -> RatedEvidence:
        """Both metrics, once the judge has answered."""
        return self._score(description, asked.design, asked.answer.result())

    def evaluate(self, descriptions: Any) -> dict[Description, RatedEvidence]:
        """Responsiveness and Purity alone, for a table of descriptions (see `read_descriptions`)."""
        asked = {d: self.ask(d) for d in read_descriptions(descriptions)}
        return {d: self.measure(d, answer) for d, answer in asked.items()}

    def _score(self, description: Description, chosen: Design, answers: Sequence[Rating]) -> RatedEvidence:
        """Both metrics from the ratings of the design's first texts."""
        sample = chosen.first(len(answers))
        answers = [answers[i] for i in np.argsort(chosen.order[: len(answers)])]
        activations = self.subject.natural(description.index)[sample.indices].astype(np.float64)
        options: dict[str, Any] = {
            "preset": self.settings.preset,
            "seed": stream(self.settings.seed, "rating interval", description.id),
        }
        ratings = rating_values(answers)
        if (reason := self.subject.overflow(description.index)) is not None:
            responsive = pure = Metric(None, reason)
        else:
            responsive = responsiveness(activations, ratings, sample.weights, **options)
            pure = purity(activations, ratings, sample.weights, **options)
        texts = zip(sample.indices, activations, sample.inclusion, answers, strict=True)
        return RatedEvidence(
            responsive,
            pure,
            texts=tuple(
                RatedText(
                    int(number),
                    self.subject.tokens.texts[number],
                    float(value),
                    float(inclusion),
                    answer.value,
                    answer.score,
                    answer.reason,
                )
                for number, value, inclusion, answer in texts
            ),
            stopped=None if len(answers) == len(chosen) else enough(responsive, pure, self.settings),
        )


def next_end(n: int, most: int, width: float | None, batch: int, settings: StoppingSettings) -> int:
    """After how many texts, of `most`, the ratings are looked at next, `n` being rated with intervals of `width` at the widest.

    As many as bring it to `settings.interval_width` if it falls with the root of their number, in whole requests of `batch` texts.

    >>> settings = RatingSettings()
    >>> next_end(0, 200, None, 15, settings), next_end(60, 200, 0.4, 15, settings), next_end(60, 200, None, 15, settings)
    (60, 90, 105)
    """
    if settings.interval_width is None or settings.preset == "paper":
        return most
    if not n:
        return whole(min(FIRST_ROUND, most), batch, most)
    filled = math.floor((n + missing(n, width, settings.interval_width)) / batch) * batch
    return whole(max(filled, n + 1), batch, most)


def enough(responsiveness: Metric, purity: Metric, settings: StoppingSettings) -> str | None:
    """Why no more texts need to be rated, or None.

    It looks at the width of the intervals and at which side of the gate Responsiveness lies, and at no single text.
    """
    width = widest(responsiveness, purity)
    if settings.interval_width is None or width is None or responsiveness.interval is None:
        return None
    if width <= settings.interval_width:
        return f"both intervals are no wider than {settings.interval_width:g}"
    if settings.gate is not None and responsiveness.interval[1] < settings.gate:
        return f"the interval of Responsiveness lies below the gate of {settings.gate:g}"
    return None


def rating_values(answers: Sequence[Rating]) -> Any:
    """The ratings as `metrics` takes them: 0, 1, 2, or UNRATED."""
    return np.array([UNRATED if a.value is None else a.value for a in answers], dtype=np.int64)
