"""Intervals for ranking metrics: the texts nobody has rated are drawn from what the rated ones make likely.

A replicate completes the corpus: in each stratum the texts that were not rated are drawn, by a Pólya urn, from those that were (Lo 1988,
Ghosh and Meeden 1997; for a sample from endlessly many texts this is the Bayesian bootstrap, Rubin 1981). So a stratum that is rated whole
adds no uncertainty, and one of which few are rated adds much. Only where all texts are rated, or nothing tells how they were chosen, is
there no such corpus: then they are a sample of endlessly many like them.

Resampling the few texts at hand never shows what is missing from them: with 5 positives that all rank at the top every replicate
has AUROC 1. So each stratum's urn also holds pseudo-texts of both labels at both ends of its activations, `PSEUDO` texts in all (for
one stratum and two outcomes this is the Jeffreys interval of a proportion).

Few texts of unequal weights also vary too little among themselves: the quantiles of a labelled sample are taken as much further out as a
t distribution's are than a normal one's (Hesterberg 2015, section 5.5). For two samples of fixed sizes the pseudo-texts suffice.

How often the intervals hold the truth is simulated in `tests/benchmarks/coverage.py`, on which the constants here were chosen among few
values; Wald intervals on the logit scale, score intervals and beta intervals of matched variance were tried for Clarity and hold it in
60-90 % of cases where most texts tie or the score is near 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fade_lens.metrics.ranking import Ranked

Statistic = Callable[[Ranked, Float[np.ndarray, "replicate positive"]], Float[np.ndarray, "replicate"]]
"""From replicates, and what each positive text stands for beside itself in them, to one number a replicate."""

REPLICATES = 2000
"""Replicates behind every interval."""
LEVEL = 0.95
"""Nominal coverage of every interval."""
PSEUDO = 1.0
"""Total weight of the pseudo-texts, in texts, over all strata, labels and ends."""
HEAVIEST = 0.7
"""Weight of the pseudo-texts of the stratum with the greatest weights where they are divided unevenly; the others have them in
proportion to the root of their weights. In equal parts, a heavy stratum in which no positive happens to lie counts as nearly free of
them, and the interval of a feature that misses part of the concept ends up too high; unevenly, that of a feature that knows the concept
well ends up too low. So a stratified sample's interval spans both."""
FREEDOM = 10.0
"""Degrees of freedom of the t distribution beside those of the texts, for the pseudo-texts widen intervals too."""
TAIL = (1 - LEVEL) / 2
NORMAL = 1.959963984540054
"""Deviations of a normal distribution between which `LEVEL` of it lies."""
MAX_STRATA = 16
"""More distinct weights than this are grouped by quantiles of the weight."""


@dataclass(frozen=True)
class Rows:
    """Texts and pseudo-texts, the rows from which replicates are drawn.

    Attributes:
        values: activation of each row.
        positive: its label.
        stratum: the number of its stratum.
        shape: how many of it the urn of its stratum holds.
        seen: 1 for a text, 0 for a pseudo-text.
        mass: how many texts each stratum stands for.
        unseen: how many texts of the corpus each stratum has beside those seen; None where it stands for endlessly many.
        tail: share of replicates beyond either limit.
    """

    values: Float[np.ndarray, "row"]
    positive: Bool[np.ndarray, "row"]
    stratum: Int[np.ndarray, "row"]
    shape: Float[np.ndarray, "row"]
    seen: Float[np.ndarray, "row"]
    mass: Float[np.ndarray, "stratum"]
    unseen: Int[np.ndarray, "stratum"] | None = None
    tail: float = TAIL

    @classmethod
    def of_groups(cls, positives: Float[np.ndarray, "positive"], negatives: Float[np.ndarray, "negative"]) -> "Rows":
        """Two samples of fixed sizes: each group is a stratum, with pseudo-texts of its own label at the ends of all values.

        Args:
            positives, negatives: activations, at least one of each.
        """
        values = np.concatenate([positives, negatives])
        n = len(values)
        positive = np.append(np.arange(n) < len(positives), [True, True, False, False])
        ends = np.array([values.min(), values.max()] * 2)
        shape, seen = (np.append(np.ones(n), np.full(4, each)) for each in (PSEUDO / 4, 0.0))
        return cls(np.append(values, ends), positive, positive.astype(np.int64), shape, seen, np.ones(2))

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

        A text of weight w stands for itself and w - 1 others. Weights that are all 1, or below 1 anywhere, cannot be meant so: then
        the texts stand for endlessly many.

        Args:
            values: activations, of both labels.
            positive: labels.
            weights: 1 / inclusion probability.
            uneven: divide the pseudo-texts unevenly among strata (see `HEAVIEST`).
        """
        levels = np.unique(weights.round(9))
        if len(levels) > MAX_STRATA:
            levels = np.unique(np.quantile(weights, np.linspace(0, 1, MAX_STRATA + 1)[:-1]))
        stratum = np.searchsorted(levels, weights.round(9), "right").clip(1) - 1
        _, stratum = np.unique(stratum, return_inverse=True)
        mass, n = np.bincount(stratum, weights), np.bincount(stratum)
        ends = [end for h in range(len(n)) for end in (values[stratum == h].min(), values[stratum == h].max()) * 2]
        mean = mass / n
        pseudo = HEAVIEST * np.sqrt(mean / mean.max()) if uneven else np.full(len(n), PSEUDO / len(n))
        finite = weights.min() > 1 - 1e-9 and weights.max() > 1
        return cls(
            np.append(values, ends),
            np.append(positive, np.tile([True, True, False, False], len(n))),
            np.append(stratum, np.repeat(np.arange(len(n)), 4)),
            np.append(np.ones(len(values)), np.repeat(pseudo / 4, 4)),
            np.append(np.ones(len(values)), np.zeros(4 * len(n))),
            mass,
            np.round(mass - n).astype(np.int64) if finite else None,
            _tail(min(_effective(weights[positive]), _effective(weights[~positive]))),
        )

    def interval(self, statistic: Statistic, seed: int) -> tuple[float, float]:
        """The equal-tailed interval of `statistic` over `REPLICATES` draws; the same `seed` gives the same interval."""
        # Rows that no comparison with a positive tells apart are drawn as one: sums of Dirichlet shares are Dirichlet again.
        steps = np.unique(self.values[self.positive])
        place = np.searchsorted(steps, self.values, "left") + np.searchsorted(steps, self.values, "right")
        cells, cell = np.unique(np.stack([place, self.positive, self.stratum]), axis=1, return_inverse=True)
        shape, seen = (np.bincount(cell.ravel(), each) for each in (self.shape, self.seen))
        positive, stratum = cells[1] == 1, cells[2]
        rng = np.random.default_rng(seed)
        share = rng.standard_gamma(shape, (REPLICATES, len(shape)))
        share /= (share @ (stratum[:, None] == np.arange(len(self.mass))))[:, stratum]
        if self.unseen is None:
            mass = share * self.mass[stratum]
            own = mass / np.maximum(seen, 1)
        else:
            mass = np.tile(seen, (REPLICATES, 1))
            for h, unseen in enumerate(self.unseen):
                mass[:, stratum == h] += rng.multinomial(unseen, share[:, stratum == h])
            own = np.maximum(mass / np.maximum(seen, 1) - 1, 0)
        ranked = Ranked(cells[0].astype(np.float64), positive, mass)
        return percentiles(statistic(ranked, own[:, positive]), self.tail)


def sample_interval(
    values: Float[np.ndarray, "text"],
    positive: Bool[np.ndarray, "text"],
    weights: Float[np.ndarray, "text"],
    statistic: Statistic,
    seed: int,
) -> tuple[float, float]:
    """95 % interval of a statistic of a labelled sample: from the lowest to the highest limit over both ways of dividing pseudo-texts.

    Args:
        values: activations; both labels must be there.
        positive: labels.
        weights: 1 / inclusion probability.
        statistic: from replicates to a number each, such as `Ranked.average_precision`.
        seed: the same one gives the same interval.
    """
    ways = (False, True) if np.ptp(weights) else (False,)
    limits = [Rows.of_sample(values, positive, weights, uneven=way).interval(statistic, seed) for way in ways]
    return min(low for low, _ in limits), max(high for _, high in limits)


def _tail(n: float) -> float:
    """Share of replicates beyond either limit for `n` texts of equal weight."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(stdtrit(n - 1 + FREEDOM, TAIL)))


def _effective(weights: Float[np.ndarray, "text"]) -> float:
    """How many texts of equal weight tell as much as these (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def percentiles(replicates: Float[np.ndarray, "replicate"], tail: float = TAIL) -> tuple[float, float]:
    """The limits between which all replicates lie but for this share at either end.

    >>> percentiles(np.arange(101.0), 0.1)
    (10.0, 90.0)
    """
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(hits: float, n: float) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, JASA 1927).

    Args:
        hits: of `n` trials, of which there is at least one; fractions where trials are not independent, so that they count as fewer.

    >>> tuple(round(x, 4) for x in share_interval(0, 10))
    (0.0, 0.2775)
    """
    share = hits / n
    whole = 2 * (n + NORMAL**2)
    centre = (2 * n * share + NORMAL**2) / whole
    delta = NORMAL / whole * math.sqrt(4 * n * share * (1 - share) + NORMAL**2)
    return centre - delta if hits else 0.0, centre + delta if hits < n else 1.0
