"""Intervals for ranking metrics: a stratified Bayesian bootstrap that also allows for texts nobody has seen.

Resampling the few texts at hand never shows what is missing from them: with 5 positives that all rank at the top every
replicate has AUROC 1. So each stratum gets pseudo-texts of both labels at both ends of its activations, `PSEUDO` texts in all (for
one stratum and two outcomes this is the Jeffreys interval of a proportion), and shares are drawn from a Dirichlet distribution
(Rubin 1981).

How the pseudo-texts are divided among strata matters where positives are few. In equal parts, a stratum of great weight in which no
positive happens to lie counts as nearly free of them, and the interval ends up too high for a feature that hardly knows the
concept (81 % coverage in the worst case simulated). With more for strata of greater weight it ends up too low for a feature that
knows it well (75 %). So a stratified sample's interval spans both.

Coverage by simulation (`tests/benchmarks/coverage.py`): 89-99 % from 5 positives on where the percentile bootstrap has 5-94 %; with texts
stratified by activation 91-100 %.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens.ranking import Ranked

Statistic = Callable[[Ranked, Float[np.ndarray, "replicate positive"]], Float[np.ndarray, "replicate"]]
"""From replicates, and the mass of each single positive text in them, to one number a replicate."""

REPLICATES = 2000
"""Replicates behind every interval."""
LEVEL = 0.95
"""Nominal coverage of every interval."""
PSEUDO = 1.0
"""Total weight of the pseudo-texts, in texts, over all strata, labels and ends."""
HEAVIEST = 0.7
"""Weight of the pseudo-texts of the stratum with the greatest weights where they are divided unevenly; the others have them in
proportion to the root of their weights. Less leaves coverage below 90 % in the worst case simulated, more only widens."""
MAX_STRATA = 16
"""More distinct weights than this are grouped by quantiles of the weight."""


@dataclass(frozen=True)
class Rows:
    """Texts and pseudo-texts: a stratum's mass is shared among its rows by Dirichlet(`shape`)."""

    values: Float[np.ndarray, "row"]
    positive: Bool[np.ndarray, "row"]
    stratum: Int[np.ndarray, "row"]
    shape: Float[np.ndarray, "row"]
    mass: Float[np.ndarray, "stratum"]

    @classmethod
    def of_groups(cls, positives: Float[np.ndarray, "positive"], negatives: Float[np.ndarray, "negative"]) -> "Rows":
        """Two samples of fixed sizes: each group is a stratum, with pseudo-texts of its own label at the ends of all values."""
        values = np.concatenate([positives, negatives])
        positive = np.arange(len(values)) < len(positives)
        ends = np.array([values.min(), values.max()] * 2)
        positive = np.append(positive, [True, True, False, False])
        shape = np.append(np.ones(len(values)), np.full(4, PSEUDO / 4))
        return cls(np.append(values, ends), positive, positive.astype(np.int64), shape, np.ones(2))

    @classmethod
    def of_sample(
        cls,
        values: Float[np.ndarray, "text"],
        positive: Bool[np.ndarray, "text"],
        weights: Float[np.ndarray, "text"],
        *,
        uneven: bool = False,
    ) -> "Rows":
        """A labelled sample whose texts of equal weight are a stratum; each may hold unseen texts of either label.

        The pseudo-texts are divided among strata in equal parts, or unevenly (see `HEAVIEST`).
        """
        levels = np.unique(weights.round(9))
        if len(levels) > MAX_STRATA:
            levels = np.unique(np.quantile(weights, np.linspace(0, 1, MAX_STRATA + 1)[:-1]))
        stratum = np.searchsorted(levels, weights.round(9), "right").clip(1) - 1
        _, stratum = np.unique(stratum, return_inverse=True)
        n = int(stratum.max()) + 1
        ends = [end for h in range(n) for end in (values[stratum == h].min(), values[stratum == h].max()) * 2]
        mass = np.bincount(stratum, weights)
        mean = mass / np.bincount(stratum)
        pseudo = HEAVIEST * np.sqrt(mean / mean.max()) if uneven else np.full(n, PSEUDO / n)
        return cls(
            np.append(values, ends),
            np.append(positive, np.tile([True, True, False, False], n)),
            np.append(stratum, np.repeat(np.arange(n), 4)),
            np.append(np.ones(len(values)), np.repeat(pseudo / 4, 4)),
            mass,
        )

    def interval(self, statistic: Statistic, seed: int) -> tuple[float, float]:
        """Equal-tailed interval of `statistic` over `REPLICATES` draws of the rows' masses."""
        # Rows that no comparison with a positive tells apart are drawn as one: sums of Dirichlet shares are Dirichlet again.
        steps = np.unique(self.values[self.positive])
        place = np.searchsorted(steps, self.values, "left") + np.searchsorted(steps, self.values, "right")
        cells, cell = np.unique(np.stack([place, self.positive, self.stratum]), axis=1, return_inverse=True)
        shape = np.bincount(cell.ravel(), self.shape)
        share = np.random.default_rng(seed).standard_gamma(shape, (REPLICATES, len(shape)))
        member = cells[2][:, None] == np.arange(len(self.mass))
        share *= (self.mass / (share @ member))[:, cells[2]]
        positive = cells[1] == 1
        own = share[:, positive] / np.maximum(shape[positive], 1)
        return percentiles(statistic(Ranked(cells[0].astype(np.float64), positive, share), own))


def sample_interval(
    values: Float[np.ndarray, "text"],
    positive: Bool[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"],
    statistic: Statistic,
    seed: int,
) -> tuple[float, float]:
    """Interval of a statistic of a labelled sample: from the lowest to the highest limit over both ways of dividing pseudo-texts."""
    ways = (False, True) if np.ptp(weights) else (False,)
    limits = [Rows.of_sample(values, positive, weights, uneven=way).interval(statistic, seed) for way in ways]
    return min(low for low, _ in limits), max(high for _, high in limits)


def percentiles(replicates: Float[np.ndarray, "replicate"]) -> tuple[float, float]:
    """The middle `LEVEL` of the replicates."""
    low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
