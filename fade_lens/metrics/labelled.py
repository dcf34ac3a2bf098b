"""Texts with an activation, a label and a weight: what Responsiveness, Purity and every detection score are computed from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens.metrics.ranking import finite

UNRATED = -1
"""The rating of a text that the judge was asked about and did not rate."""
RATINGS = (("rated_2", 2), ("rated_1", 1), ("rated_0", 0), ("unrated", UNRATED))
"""The keys of `Metric.counts` and the rating that each counts."""


@dataclass(frozen=True)
class LabelledTexts(Brief):
    """Texts that express a concept or do not, each standing for `weights` texts of the corpus.

    Iterating gives the three arrays in the order in which `fade_lens.metrics.ranking` takes them.

    Attributes:
        values: largest activation of each text, finite.
        positive: whether it expresses the concept (rated 2; rated 0 if not).
        weights: 1 / (its probability of being chosen).
    """

    values: Float[np.ndarray, "text"]
    positive: Bool[np.ndarray, "text"]
    weights: Float[np.ndarray, "text"]

    @classmethod
    def of_ratings(
        cls,
        activations: Float[np.ndarray, "rated"],
        ratings: Int[np.ndarray, "rated"],
        weights: Float[np.ndarray, "rated"] | None = None,
    ) -> "LabelledTexts":
        """The texts rated 2 or 0; partial ratings, unrated texts and those without an activation (NaN) are left out.

        Args:
            activations: the largest one on each text.
            ratings: 2, 1, 0, or −1 for unrated.
            weights: 1 / inclusion probability; None: 1 each.

        Raises:
            InputError: arrays of different lengths, a rating that is none, a weight that is not above 0, an infinite activation.

        >>> LabelledTexts.of_ratings(np.array([5.0, 4.0, 1.0, np.nan]), np.array([2, 0, 1, 0])).positive
        array([ True, False])
        """
        check_ratings("ratings", ratings)
        if len(activations) != len(ratings):
            raise InputError(
                f"activations has {len(activations)} texts, ratings {len(ratings)}; give one of each a text"
            )
        weights = np.ones(len(ratings)) if weights is None else weights
        if len(weights) != len(ratings) or not (np.isfinite(weights) & (weights > 0)).all():
            raise InputError("weights must be finite, above 0 and one a text: 1 / inclusion probability")
        used = ~np.isnan(activations) & ((ratings == 2) | (ratings == 0))
        values = finite("activations", activations[used])
        return cls(values, ratings[used] == 2, weights[used].astype(np.float64))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.values, self.positive, self.weights))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def one_sided(self) -> int | None:
        """The rating, 2 or 0, that no text has; None where both occur."""
        return 2 if not self.positive.any() else 0 if self.positive.all() else None

    @property
    def prevalence(self) -> float:
        """The weighted share of positives, the chance level of average precision; NaN without texts."""
        return float(self.weights[self.positive].sum() / self.weights.sum())

    def split(
        self,
    ) -> tuple[
        Float[np.ndarray, "positive"],
        Float[np.ndarray, "negative"],
        Float[np.ndarray, "positive"],
        Float[np.ndarray, "negative"],
    ]:
        """Values of positives and of negatives, weights of positives and of negatives."""
        yes, no = self.positive, ~self.positive
        return self.values[yes], self.values[no], self.weights[yes], self.weights[no]

    def negated(self) -> "LabelledTexts":
        """The same with the sign of the values turned."""
        return replace(self, values=-self.values)


def counts_of(activations: Float[np.ndarray, "rated"], ratings: Int[np.ndarray, "rated"]) -> dict[str, int]:
    """How many texts with an activation have each rating, and how many have no activation (NaN).

    >>> counts_of(np.array([5.0, 0.0, np.nan]), np.array([2, 0, 0]))
    {'rated_2': 1, 'rated_1': 0, 'rated_0': 1, 'unrated': 0, 'undefined_activation': 1}
    """
    defined = ~np.isnan(activations)
    counts = {name: int((defined & (ratings == rating)).sum()) for name, rating in RATINGS}
    return counts | {"undefined_activation": int((~defined).sum())}


def check_ratings(name: str, ratings: Int[np.ndarray, "text"]) -> None:
    """Raise `InputError` for what is no rating."""
    if (unknown := np.setdiff1d(ratings, [UNRATED, 0, 1, 2])).size:
        raise InputError(f"{name} holds {unknown[:5].tolist()}; ratings are 0, 1, 2 or {UNRATED} (unrated)")
