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
from fade_lens.data.sampling import Design, check_edges, design
from fade_lens.evidence.likeness import BY, Likeness
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence
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
    top_share: float = option(0.1, "Share of them that are the texts of strongest activation.", least=0, most=1)
    percentiles: tuple[float, ...] = option(
        (0.0, 50.0, 75.0, 95.0, 100.0), "Edges of the bins of activation from which the others are drawn."
    )
    bin_power: float = option(
        0.6,
        "How the bins share these: in proportion to their sizes to this power; 0: alike. What is best is told at `design`.",
        least=0,
        most=1,
    )
    silent_apart: bool = option(
        True, "Texts on which the feature is silent are a bin of their own, and percentiles those of the others."
    )
    likely_texts: str = option(
        "words",
        """Some of them are texts that are like the description, so that a concept is found which the feature does not know: "words" (texts
        with its words and those that it quotes), "meaning" (near to it in meaning; extra `similarity`), "none".""",
        choices=BY,
    )
    likely_share: float = option(0.1, "Share of them that such texts get.", least=0, most=0.5)
    sparse_rounds: int = option(
        0,
        "How often as many texts again are rated while fewer than `sparse_below` clearly express the description.",
        least=0,
    )
    sparse_below: int = option(15, "So many texts must clearly express it for no such round.", least=1)

    def check(self) -> None:
        """Raise `InputError` for percentiles that make no bins."""
        super().check()
        check_edges("percentiles", self.percentiles)

    @property
    def most_rated(self) -> int:
        """Texts that are rated for a description at most."""
        return self.rated_texts * (1 + self.sparse_rounds)


@dataclass(frozen=True)
class Asked:
    """Texts sent to the judge for one description: the order in which they are rated, and the ratings of its beginning."""

    design: Design
    answer: Future[list[Rating]]


class RatingEvaluator:
    """The judge rates natural texts, more of them where the feature fires, each with its known probability of being chosen.

    `evidence` is that of the whole corpus where the subject is over the texts of a `role`.
    """

    def __init__(
        self,
        subject: "Subject",
        judge: Judge,
        settings: RatingSettings | None = None,
        evidence: Evidence | None = None,
        role: Role | None = None,
    ) -> None:
        self.subject, self.judge = subject, judge
        self.settings = settings or RatingSettings.of(subject.settings)
        self.likeness = Likeness(evidence or Evidence(subject), self.settings.likely_texts, role)

    def ask(self, description: Description) -> Asked:
        """Choose the texts and begin to have them rated, in the background: no description waits for another's rounds."""
        natural = self.subject.natural(description.index)
        n = 0 if self.subject.overflow(description.index) else self.settings.most_rated  # nothing is asked in vain
        # The same texts for every description of a feature, but for likely ones, so that two descriptions are compared on equal terms.
        chosen = design(
            natural,
            n,
            rng(self.settings.seed, "rated texts", description.index),
            edges=self.settings.percentiles,
            top=self.settings.top_share,
            power=self.settings.bin_power,
            silent_apart=self.settings.silent_apart,
            likeness=self.likeness.to(description.text),
            likely=self.settings.likely_share,
        )
        texts = [self.subject.tokens.texts[i] for i in chosen.order]

        def following(ratings: list[Rating]) -> list[str]:
            n, known = len(ratings), self._score(description, chosen, ratings) if ratings else None
            most = min(budget(ratings, self.settings), len(texts))
            if n == most or (known is not None and known.stopped is not None):
                return []
            width = None if known is None else widest(known.responsiveness, known.purity)
            return texts[n : next_end(n, most, width, self.judge.texts_per_request, self.settings)]

        seed = stream(self.settings.seed, "rating order", description.words)
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
            "arithmetic": self.settings.arithmetic,
            "seed": stream(self.settings.seed, "rating interval", description.words),
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


def budget(ratings: Sequence[Rating], settings: RatingSettings) -> int:
    """How many texts are rated at most, as far as these ratings tell: as many again where too few clearly express the description.

    >>> settings = RatingSettings(rated_texts=100, sparse_rounds=1, sparse_below=2)
    >>> silent, clear = Rating(value=0), Rating(value=2)
    >>> budget([], settings), budget([silent] * 100, settings), budget([silent] * 98 + [clear] * 2, settings)
    (100, 200, 100)
    """
    rounds = max(math.ceil(len(ratings) / settings.rated_texts), 1)
    if len(ratings) == rounds * settings.rated_texts:
        rounds += sum(rating.value == 2 for rating in ratings) < settings.sparse_below
    return min(rounds * settings.rated_texts, settings.most_rated)


def next_end(n: int, most: int, width: float | None, batch: int, settings: StoppingSettings) -> int:
    """After how many texts, of `most`, the ratings are looked at next, `n` being rated with intervals of `width` at the widest.

    As many as bring it to `settings.interval_width` if it falls with the root of their number, in whole requests of `batch` texts.

    >>> settings = RatingSettings()
    >>> next_end(0, 200, None, 15, settings), next_end(60, 200, 0.4, 15, settings), next_end(60, 200, None, 15, settings)
    (60, 90, 105)
    """
    if settings.interval_width is None:
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
