"""Clarity: does text written to express the concept activate the feature?"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.judge import Judge, Written
from fade_lens.metrics.fade import clarity
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.evidence import ClarityEvidence, SyntheticText
from fade_lens.subject.settings import SubjectSettings

if TYPE_CHECKING:  # heavy: settings are read, and told to be wrong, before torch is there
    from fade_lens.subject.activations import Progress
    from fade_lens.subject.subject import Subject


@dataclass(frozen=True)
class ClaritySettings(SubjectSettings):
    """What Clarity costs."""

    synthetic_texts: int = option(30, "Texts that the judge writes for each description (Clarity).", least=1)


@dataclass(frozen=True)
class WrittenActivations:
    """The largest activations of the written texts: `place` says in which row of `values` a text is.

    `overflowed` are those of which no finite number is known (in `values` they are NaN). `columns` says where a feature of the subject is, where
    some alone are kept.
    """

    place: Mapping[str, int]
    values: Float[np.ndarray, "text feature"]
    overflowed: Bool[np.ndarray, "text feature"]
    columns: Mapping[int, int] | None = None

    def at(self, columns: Sequence[int]) -> list[int]:
        """The places of some columns of the subject on the `feature` axis."""
        return [*columns] if self.columns is None else [self.columns[column] for column in columns]

    def among(self, columns: Sequence[int]) -> "WrittenActivations":
        """The same of some features, by their columns."""
        places = {column: at for at, column in enumerate(columns)}
        return WrittenActivations(self.place, self.values[:, columns], self.overflowed[:, columns], places)

    def rows(self, texts: Sequence[str]) -> Int[np.ndarray, "text"]:
        """The rows of some texts."""
        return np.array([self.place[text] for text in texts], dtype=np.int64)

    @classmethod
    def joined(cls, parts: Sequence["WrittenActivations"]) -> "WrittenActivations":
        """Those of several sets of texts, at least one, as one."""
        place: dict[str, int] = {}
        before = 0
        for part in parts:
            place |= {text: before + row for text, row in part.place.items()}
            before += len(part.values)
        values, overflowed = ([getattr(part, name) for part in parts] for name in ("values", "overflowed"))
        return cls(place, np.concatenate(values), np.concatenate(overflowed), parts[0].columns)


def submit_texts(judge: Judge, description: Description, settings: ClaritySettings) -> Future[Written]:
    """Begin to have texts written for a description; it needs no model."""
    seed = stream(settings.seed, "synthetic", description.words)
    return judge.submit_write(description.text, n_texts=settings.synthetic_texts, seed=seed)


class ClarityEvaluator:
    """The judge writes texts for each description; their activations are set against the corpus'."""

    def __init__(self, subject: "Subject", judge: Judge, settings: ClaritySettings | None = None) -> None:
        self.subject, self.judge = subject, judge
        self.settings = settings or ClaritySettings.of(subject.settings)

    def ask(self, description: Description) -> Future[Written]:
        """Begin to have texts written, in the background."""
        return submit_texts(self.judge, description, self.settings)

    def activate(
        self, written: Mapping[Description, Written], progress: "Progress | None" = None
    ) -> WrittenActivations:
        """What every written text does to every feature of the run, all in one pass and each different text once."""
        texts = list(dict.fromkeys(text for answer in written.values() for text in answer.texts))
        found = self.subject.activate(texts, progress)
        overflowed = np.isnan(found.values) & (found.counted > 0)[:, None]
        return WrittenActivations({text: place for place, text in enumerate(texts)}, found.values, overflowed)

    def measure(
        self, written: Mapping[Description, Written], activations: WrittenActivations | None = None
    ) -> dict[Description, ClarityEvidence]:
        """Clarity of every description, from what `activate` found (it is called where that is not given)."""
        activations = activations or self.activate(written)
        evidence: dict[Description, ClarityEvidence] = {}
        for description, answer in written.items():
            (column,) = activations.at([self.subject.column(description.index)])
            rows = activations.rows(answer.texts)
            own = activations.values[rows, column].astype(np.float64)
            reason = self.subject.overflow(description.index, int(activations.overflowed[rows, column].sum()))
            evidence[description] = ClarityEvidence(
                clarity=self._clarity(description, own, answer) if reason is None else Metric(None, reason),
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
            return Metric(
                None,
                Reason("nothing_written", f"the judge wrote no text for the description ({why})"),
                counts={"synthetic": 0},
            )
        natural = self.subject.natural(description.index)
        seed = stream(self.settings.seed, "clarity interval", description.words)
        return clarity(synthetic, natural.astype(np.float64), arithmetic=self.settings.arithmetic, seed=seed)

    def evaluate(self, descriptions: Any) -> dict[Description, ClarityEvidence]:
        """Clarity alone, for a table of descriptions (see `read_descriptions`)."""
        asked = {d: self.ask(d) for d in read_descriptions(descriptions)}
        return self.measure({d: answer.result() for d, answer in asked.items()})
