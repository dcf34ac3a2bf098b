"""What the corpus alone tells about features: how often they fire, and their strongest texts token by token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from fade_lens.subject.subject import Subject


@dataclass(frozen=True)
class TopText:
    """One of the natural texts that activate the feature most, token by token (None: a position that never counts)."""

    number: int
    activation: float
    tokens: tuple[str, ...]
    activations: tuple[float | None, ...]


@dataclass(frozen=True)
class FeatureSummary:
    """What the corpus alone tells about a feature.

    `firing_rate` is over counted tokens, `firing_texts` and `n_texts` over texts; `largest` is the largest activation,
    `reference` the unit of steering factors (None if the feature never fires); `quantiles` are 101 evenly spaced
    quantiles of its per-text activations, for plots.
    """

    firing_rate: float
    firing_texts: int
    n_texts: int
    largest: float
    reference: float | None
    quantiles: tuple[float, ...]
    top: tuple[TopText, ...] = field(default=())


def summaries(subject: "Subject") -> dict[int, FeatureSummary]:
    """Every feature of a subject, by its index; the strongest texts of all are run once more, each once."""
    from fade_lens.subject.activations import token_activations
    from fade_lens.subject.tokens import pieces

    strongest = {
        index: strongest_texts(subject.natural(index), subject.settings.top_texts) for index in subject.features.indices
    }
    columns: dict[int, list[int]] = {}
    for index, texts in strongest.items():
        for text in texts:
            columns.setdefault(text, []).append(subject.column(index))
    numbers = sorted(columns)
    rows = token_activations(
        subject.model,
        subject.features,
        subject.tokens.select(numbers),
        subject.outliers,
        columns=[columns[number] for number in numbers],
    )
    by_text = dict(zip(numbers, rows, strict=True))

    def top(index: int, number: int) -> TopText:
        values = by_text[number][:, columns[number].index(subject.column(index))]
        return TopText(
            number,
            float(subject.natural(index)[number]),
            pieces(subject.model.tokenizer, subject.tokens[number].tolist()),
            tuple(None if np.isnan(v) else float(v) for v in values),
        )

    return {index: summary_of(subject, index, [top(index, n) for n in texts]) for index, texts in strongest.items()}


def strongest_texts(natural: Float[np.ndarray, "text"], n: int) -> list[int]:
    """The texts of largest |activation|, strongest first, those on which the feature is silent left out."""
    magnitude = np.abs(np.nan_to_num(natural))
    order = np.argsort(-magnitude, kind="stable")[:n]
    return [int(i) for i in order if magnitude[i] > 0]


def summary_of(subject: "Subject", index: int, top: Sequence[TopText]) -> FeatureSummary:
    """One feature's summary over the corpus."""
    natural = subject.natural(index)
    defined = natural[~np.isnan(natural)]
    reference = subject.reference(index)
    return FeatureSummary(
        firing_rate=float(subject.activations.firing_rate[subject.column(index)]),
        firing_texts=int((defined != 0).sum()),
        n_texts=len(defined),
        largest=float(defined[np.abs(defined).argmax()]) if len(defined) else 0.0,
        reference=None if np.isnan(reference) else reference,
        quantiles=tuple(float(q) for q in np.quantile(defined, np.linspace(0, 1, 101))) if len(defined) else (),
        top=tuple(top),
    )
