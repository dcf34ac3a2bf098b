"""Into how many parts a set of things falls that are told apart on others: clusters chosen by held-out likeness, not by how well they fit.

Any set can be cut in two, and texts always cluster by topic. So a cut counts only by how unlike two of its parts are on things that did not make
it, on a scale of their own: 0 where two parts are as alike as things within either of them are, 1 where they have no more in common than either has
with unrelated things.

Unrelated things are the null, and not a single normal distribution of the same covariance. Windows in which one and the same word stands are none:
against that null 6 of 14 such words fall in two (`python -m tests.benchmarks.meanings words`). Against unrelated windows what all windows of a corpus do
counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

APART = 0.75
"""Separability from which two parts are two. Measured with all-MiniLM-L6-v2 on words of a web corpus: cut in two, windows of one word are at most
0.24 apart, of two related ones (your and you, all and most) 0.48 to 0.75, of two unrelated ones 0.87 to 1.08."""
LEAST, LEAST_HELD = 3, 2
"""Things of which a part is made, and by which it is tested, at least."""
STARTS = 5


@dataclass(frozen=True)
class Parts:
    """How a set falls into parts.

    Attributes:
        labels: the part of each thing, counted from 0.
        separability: of each number of parts above 1 that could be tried, that of the two parts that are least told apart.
    """

    labels: Int[np.ndarray, " thing"]
    separability: dict[int, float]

    @property
    def k(self) -> int:
        """How many parts."""
        return int(self.labels.max(initial=0)) + 1


def parts_of(
    shown: Float[np.ndarray, "thing d"],
    held: Float[np.ndarray, "held d"],
    unrelated: Float[np.ndarray, "other d"],
    most: int = 5,
    seed: int = 0,
) -> Parts:
    """The largest number of parts any two of which are `APART` on held-out things; one part where none are.

    Args:
        shown: vectors of length 1 of which parts are made, by k-means.
        held: those by which parts are tested; each counts to the part with the nearest mean.
        unrelated: those that tell what having nothing in common means.
        most: parts that are tried.
        seed: of the beginnings of k-means.
    """
    found, separability = np.zeros(len(shown), dtype=np.int64), dict[int, float]()
    for k in range(2, most + 1):
        labels = clustered(shown, k, seed)
        if labels is None:
            continue
        means = np.stack([shown[labels == part].mean(axis=0) for part in range(k)])
        nearest = np.linalg.norm(held[:, None] - means[None], axis=2).argmin(axis=1)
        if np.bincount(nearest, minlength=k).min() < LEAST_HELD:
            continue
        separability[k] = least_apart([held[nearest == part] for part in range(k)], unrelated)
        found = labels if separability[k] >= APART else found
    return Parts(found, separability)


def least_apart(parts: Sequence[Float[np.ndarray, "_ d"]], unrelated: Float[np.ndarray, "other d"]) -> float:
    """The separability of the two parts that are least told apart; likeness is the mean product of two things."""
    within = [float((part @ part.T).sum() - (part**2).sum()) / (len(part) * (len(part) - 1)) for part in parts]
    beside = [float((part @ unrelated.T).mean()) for part in parts]
    shares: list[float] = []
    for a, b in combinations(range(len(parts)), 2):
        own, other = (within[a] + within[b]) / 2, (beside[a] + beside[b]) / 2
        # Parts that are no more alike within than unrelated things are nothing.
        shares.append((own - float((parts[a] @ parts[b].T).mean())) / (own - other) if own > other + 1e-6 else 0.0)
    return min(shares)


def clustered(vectors: Float[np.ndarray, "thing d"], k: int, seed: int) -> Int[np.ndarray, " thing"] | None:
    """The best of a few runs of k-means, the largest part first; None where parts would be too small."""
    from scipy.cluster.vq import ClusterError, kmeans2

    if len(np.unique(vectors, axis=0)) < k or len(vectors) < k * LEAST:
        return None
    random, best = np.random.default_rng(seed), (np.inf, np.zeros(len(vectors), dtype=np.int64))
    for _ in range(STARTS):
        try:
            means, labels = kmeans2(vectors.astype(np.float64), k, minit="++", missing="raise", seed=random)  # pyright: ignore[reportCallIssue]
        except ClusterError:  # a part was left without things
            continue
        best = min(best, (float(((vectors - means[labels]) ** 2).sum()), labels.astype(np.int64)), key=lambda one: one[0])  # fmt: skip
    sizes = np.bincount(best[1], minlength=k)
    return np.argsort(np.argsort(-sizes, kind="stable"))[best[1]] if sizes.min() >= LEAST else None
