"""Clarity: does text written to express the concept activate the feature?"""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from fade_lens.activations import Progress
from fade_lens.descriptions import Description, read_descriptions
from fade_lens.evidence import ClarityEvidence, SyntheticText
from fade_lens.judge import Judge, Written
from fade_lens.metrics import Metric, clarity
from fade_lens.settings import Settings, stream
from fade_lens.subject import Subject


class ClarityEvaluator:
    """The judge writes texts for each description; their activations are set against the corpus'."""

    def __init__(self, subject: Subject, judge: Judge, settings: Settings | None = None) -> None:
        self.subject, self.judge, self.settings = subject, judge, settings or subject.settings

    def ask(self, description: Description) -> Future[Written]:
        """Begin to have texts written, in the background."""
        seed = stream(self.settings.seed, "synthetic", description.key)
        return self.judge.submit_write(description.text, n_texts=self.settings.synthetic_texts, seed=seed)

    def measure(
        self, written: Mapping[Description, Written], progress: Progress | None = None
    ) -> dict[Description, ClarityEvidence]:
        """Clarity of every description, all texts going through the model in one pass."""
        texts = [text for answer in written.values() for text in answer.texts]
        values = self.subject.activate(texts, progress).values if texts else np.zeros((0, len(self.subject.features)))
        evidence: dict[Description, ClarityEvidence] = {}
        start = 0
        for description, answer in written.items():
            column = self.subject.column(description.index)
            own = values[start : start + len(answer.texts), column]
            start += len(answer.texts)
            evidence[description] = ClarityEvidence(
                clarity=self._clarity(description, own, answer),
                texts=tuple(
                    SyntheticText(text, None if np.isnan(value) else float(value))
                    for text, value in zip(answer.texts, own, strict=True)
                ),
                failures=tuple(answer.failures),
            )
        return evidence

    def _clarity(self, description: Description, synthetic: Any, answer: Written) -> Metric:
        if not answer.texts:
            why = answer.failures[0] if answer.failures else "it gave none"
            return Metric(None, f"the judge wrote no text for the description ({why})", counts={"synthetic": 0})
        natural = self.subject.natural(description.index)
        seed = stream(self.settings.seed, "clarity interval", description.key)
        return clarity(synthetic.astype(np.float64), natural.astype(np.float64), preset=self.settings.preset, seed=seed)

    def evaluate(self, descriptions: Any) -> dict[Description, ClarityEvidence]:
        """Clarity alone, for a table of descriptions (see `read_descriptions`)."""
        asked = {d: self.ask(d) for d in read_descriptions(descriptions)}
        return self.measure({d: answer.result() for d, answer in asked.items()})
