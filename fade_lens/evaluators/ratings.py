"""Responsiveness (do natural texts that express the concept activate the feature?) and Purity (does it fire for nothing else?)."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from fade_lens.descriptions import Description, read_descriptions
from fade_lens.evidence import RatedEvidence, RatedText
from fade_lens.judge import Judge, Rating
from fade_lens.metrics import UNRATED, purity, responsiveness
from fade_lens.sampling import Sample, stratified
from fade_lens.settings import Settings, rng, stream
from fade_lens.subject import Subject


@dataclass(frozen=True)
class Asked:
    """Texts sent to the judge for one description."""

    sample: Sample
    answer: Future[list[Rating]]


class RatingEvaluator:
    """The judge rates natural texts, more of them where the feature fires, each with its known probability of being chosen."""

    def __init__(self, subject: Subject, judge: Judge, settings: Settings | None = None) -> None:
        self.subject, self.judge, self.settings = subject, judge, settings or subject.settings

    def ask(self, description: Description) -> Asked:
        """Choose the texts and begin to have them rated, in the background."""
        natural = self.subject.natural(description.index)
        # The same texts for every description of a feature, so that two descriptions are compared on equal terms.
        chosen = stratified(
            natural, self.settings.rated_texts, rng(self.settings.seed, "rated texts", description.index)
        )
        texts = [self.subject.tokens.texts[i] for i in chosen.indices]
        seed = stream(self.settings.seed, "rating order", description.key)
        return Asked(chosen, self.judge.submit_rate(description.text, texts, seed=seed))

    def measure(self, description: Description, asked: Asked) -> RatedEvidence:
        """Both metrics, once the judge has answered."""
        answers = asked.answer.result()
        indices = asked.sample.indices
        activations = self.subject.natural(description.index)[indices].astype(np.float64)
        ratings = rating_values(answers)
        options: dict[str, Any] = {
            "preset": self.settings.preset,
            "seed": stream(self.settings.seed, "rating interval", description.key),
        }
        return RatedEvidence(
            responsiveness=responsiveness(activations, ratings, asked.sample.weights, **options),
            purity=purity(activations, ratings, asked.sample.weights, **options),
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
                for number, value, inclusion, answer in zip(
                    indices, activations, asked.sample.inclusion, answers, strict=True
                )
            ),
        )

    def evaluate(self, descriptions: Any) -> dict[Description, RatedEvidence]:
        """Responsiveness and Purity alone, for a table of descriptions (see `read_descriptions`)."""
        asked = {d: self.ask(d) for d in read_descriptions(descriptions)}
        return {d: self.measure(d, answer) for d, answer in asked.items()}


def rating_values(answers: Sequence[Rating]) -> Any:
    """The ratings as `metrics` takes them: 0, 1, 2, or UNRATED."""
    return np.array([UNRATED if a.value is None else a.value for a in answers], dtype=np.int64)
