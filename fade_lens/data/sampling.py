"""Which natural texts to rate: more of those on which the feature fires, each with its known probability of being chosen.

Most texts leave a feature silent, so a uniform sample would hold few texts that tell anything about it. The reference rates
more texts of high activation and then treats them as if they were a uniform sample. Here each chosen text carries its
inclusion probability; `fade_lens.metrics` weights it by the inverse.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.errors import Argument, InputError

LEAST_OF_STRATUM = 5
"""Latents of each stratum: with three of each of four, a 95 % interval of the mean holds it in 86 % of simulations, with ten in 95 %."""


@dataclass(frozen=True)
class Sample:
    """Texts chosen to be rated.

    Attributes:
        indices: their numbers in the corpus, ascending and distinct.
        inclusion: each one's probability of being chosen, in (0, 1].
    """

    indices: Int[np.ndarray, "text"]
    inclusion: Float[np.ndarray, "text"]

    @property
    def weights(self) -> Float[np.ndarray, "text"]:
        """How many texts of the corpus each chosen text stands for: 1 / inclusion."""
        return 1.0 / self.inclusion

    def __len__(self) -> int:
        return len(self.indices)


def uniform(n_total: int, n: int, rng: np.random.Generator) -> Sample:
    """Choose `n` of `n_total` texts, each with the same probability; all of them if there are no more than `n`.

    Raises:
        InputError: a negative number.

    >>> sample = uniform(1000, 50, np.random.default_rng(0))
    >>> len(sample), float(sample.inclusion[0])
    (50, 0.05)
    """
    _check_count("n_total", n_total)
    _check_count("n", n)
    n = min(n, n_total)
    indices = np.sort(rng.choice(n_total, n, replace=False))
    return Sample(indices.astype(np.int64), np.full(n, n / n_total if n else 1.0))


@dataclass(frozen=True)
class Design:
    """Texts in the order in which they are to be rated: every beginning of the order is a stratified sample of its own.

    Within a stratum the order is random. How many of the first n texts are of which stratum is fixed before anything is rated. So
    `first(n)` has known inclusion probabilities for every n of at least `len(sizes)`; and ratings may decide whether to go on, for
    they never decide *which* text comes next.

    Attributes:
        order: numbers of texts in the corpus.
        stratum: the number of each text's stratum.
        sizes: how many texts of the corpus each stratum has.
    """

    order: Int[np.ndarray, "text"]
    stratum: Int[np.ndarray, "text"]
    sizes: Int[np.ndarray, "stratum"]

    def first(self, n: int) -> Sample:
        """The first `n` texts as a sample: simple random samples of each stratum.

        Raises:
            InputError: `n` leaves a stratum without a text, for which no weight could make up, or is more than there are.
        """
        if not min(len(self.sizes), len(self.order)) <= n <= len(self.order):
            raise InputError(f"n is {n}; give a number of texts from {len(self.sizes)} to {len(self.order)}")
        indices, stratum = self.order[:n], self.stratum[:n]
        inclusion = np.bincount(stratum, minlength=len(self.sizes)) / np.maximum(self.sizes, 1)
        ascending = np.argsort(indices)
        return Sample(indices[ascending], inclusion[stratum][ascending])

    def __len__(self) -> int:
        return len(self.order)


def design(
    values: Float[np.ndarray, "text"],
    n: int,
    rng: np.random.Generator,
    *,
    edges: Sequence[float | int] = (0, 50, 75, 95, 100),
    top: float = 0.1,
    power: float = 0.6,
    silent_apart: bool = True,
    likeness: Float[np.ndarray, "text"] | None = None,
    likely: float = 0.1,
) -> Design:
    """Choose exactly `n` texts (or all there are) from strata of activation, in an order whose every beginning is such a sample.

    Strata, from one feature's activations `values` (one a text):

    - *top*: the `top · n` most active texts that fire, all taken (inclusion 1): they decide average precision;
    - *firing*: the other texts with a non-zero activation, in bins between the percentiles `edges` of their own ranks;
    - *silent*: every text on which the activation is exactly zero, one stratum however many they are; where they are not kept apart
      (`silent_apart=False`, as in the reference), they lie in the bins by their rank as all others do;
    - *likely*: of all but the top, the `likely · n` texts most like the description by `likeness`, all taken too: they find a concept that few
      texts show and the feature does not know. (With every second one of twice as many rated, 79 % in place of 93 % of wrong descriptions of
      the demo would have three texts that show them, and intervals be 1 % narrower.)

    Silent texts and bins share what is left of the budget in proportion to their sizes to this `power` (Bankier 1988): at 0 all alike, so that a text of
    a large stratum stands for very many, and one found to express the concept moves every estimate; at 1 as a uniform sample, which holds
    few texts that fire. In simulations Responsiveness, whose interval is the wider, errs least from 0.5 to 0.7, and so does Purity where most
    texts are silent; where the feature fires on every text and the concept is rare, Purity would be better at 0 (`tests/benchmarks/coverage.py design`).

    What a stratum cannot use goes to the others. Within a stratum texts are chosen uniformly without replacement, so the
    inclusion probability is (chosen of the stratum) / (size of the stratum). Equal activations and equal likenesses are ranked at random. The
    texts have one random order for all strata, so that designs by other likenesses share most of their other texts.
    With fewer texts to choose than strata the sample is a uniform one.

    Args:
        values: the feature's largest activation on each text of the corpus; texts whose value is NaN are never chosen.
        n: how many texts.
        rng: decides everything that is random; the same state gives the same design.
        edges: percentiles between which the firing texts are binned.
        top: share of `n` that the most active texts take.
        power: see above, in [0, 1].
        likeness: of each text to the description; it must not depend on `values`. None: there is no such stratum. Texts that are as little
            alike as any are never in it.
        likely: share of `n` that the texts most like the description take.

    Raises:
        InputError: `n` negative, `top`, `power` or `likely` outside [0, 1], `edges` not rising from 0 to 100.

    >>> activations = np.maximum(np.random.default_rng(0).normal(-2, 1, size=10_000), 0)     # 98 % silent
    >>> sample = design(activations, 200, np.random.default_rng(0)).first(200)
    >>> len(sample), int((activations[sample.indices] > 0).sum()), round(float(sample.weights.sum()))
    (200, 45, 10000)
    """
    _check_design(n, edges, top=top, power=power, likely=likely)
    usable = np.flatnonzero(~np.isnan(values))
    n = min(n, len(usable))
    shuffled = rng.permutation(usable)  # equal activations get their rank by chance, not by their place in the corpus
    apart = (values[shuffled] == 0) & silent_apart
    firing = shuffled[~apart]
    firing = firing[np.argsort(values[firing], kind="stable")]
    n_top = min(round(top * n), len(firing))
    rest = len(firing) - n_top
    cuts = np.round(np.asarray(edges, dtype=np.float64) / 100 * rest).astype(int)
    strata = [shuffled[apart], *(firing[start:stop] for start, stop in itertools.pairwise(cuts))]
    alike = _most_alike(rng.permutation(np.concatenate(strata)), likeness, round(likely * n))
    strata = [stratum[~np.isin(stratum, alike)] for stratum in strata]
    left = n - n_top - len(alike)
    if left < sum(len(stratum) > 0 for stratum in strata):  # some stratum would stay empty
        return _interleaved([rng.choice(usable, n, replace=False)], [len(usable)])
    taken = [*_allocate(np.array([len(stratum) for stratum in strata]), left, power), len(alike), n_top]
    strata = [*strata, alike, firing[rest:]]
    place = rng.permutation(len(values))
    chosen = [stratum[np.argsort(place[stratum])][:k] for stratum, k in zip(strata, taken, strict=True)]
    return _interleaved(chosen, [*map(len, strata)])


def by_density(density: Float[np.ndarray, "latent"], n: int, strata: int, rng: np.random.Generator) -> Sample:
    """Choose `n` latents, equally many from each of `strata` ranges of how often they fire; where a range has fewer, the others give more.

    The ranges are equally wide on a logarithmic scale, from the rarest latent to the densest. An SAE's densities go over four decades or more,
    and few latents are very rare or very dense: a uniform sample hardly holds one, and so would strata of equally many latents, whose weights would
    all be alike. Here each range gets a mean of its own that is about as sure as another's, and weights give the mean over all latents. This
    one mean is less sure than a uniform sample's: one latent then stands for many, another for few.

    Args:
        density: share of tokens, or number of them, on which each latent fires; above 0.
        n: how many, or all where there are no more.
        strata: how many ranges.
        rng: decides; with the same state, a larger `n` holds all latents of a smaller one.

    >>> density = np.exp(np.random.default_rng(0).normal(-7, 1.5, 1000))
    >>> sample = by_density(density, 40, 4, np.random.default_rng(0))
    >>> np.unique(sample.inclusion, return_counts=True)[1].tolist(), round(float(sample.weights.sum()))
    ([10, 10, 10, 10], 1000)
    """
    counts, _ = np.histogram(np.log(density), strata)
    edges = [0.0, *(100 * np.cumsum(counts[counts > 0]) / len(density)).tolist()]
    made = design(density, n, rng, edges=edges, top=0.0, power=0.0, silent_apart=False)
    return made.first(len(made))


def _most_alike(
    texts: Int[np.ndarray, "_"], likeness: Float[np.ndarray, "text"] | None, n: int
) -> Int[np.ndarray, "_"]:
    """Up to `n` of the texts, the most alike; of equal ones the first. None of those that are as little alike as any text."""
    if likeness is None or not n:
        return texts[:0]
    return texts[np.argsort(-likeness[texts], kind="stable")][: min(n, (likeness[texts] > likeness.min()).sum())]


def _interleaved(chosen: Sequence[Int[np.ndarray, "_"]], sizes: Sequence[int]) -> Design:
    """The chosen texts of all strata in one order that keeps the strata's shares all along and begins with one text of each."""
    used = [at for at, texts in enumerate(chosen) if len(texts)]
    stratum = np.repeat(np.arange(len(used)), [len(chosen[at]) for at in used])
    place = np.concatenate([np.arange(len(chosen[at])) / len(chosen[at]) for at in used] or [np.zeros(0)])
    order = np.argsort(place, kind="stable")
    texts = np.concatenate([chosen[at] for at in used] or [np.zeros(0, dtype=np.int64)])
    return Design(
        texts[order].astype(np.int64),
        stratum[order].astype(np.int64),
        np.array([sizes[at] for at in used], dtype=np.int64),
    )


def _allocate(sizes: Int[np.ndarray, "stratum"], n: int, power: float) -> Int[np.ndarray, "stratum"]:
    """Whole numbers that sum to `n`, near in proportion to `sizes ** power`, none above `sizes`, none 0 where there is a text.

    An empty part of the corpus would have inclusion probability 0, and no weight could mend that.
    """
    exact, open_ = sizes.astype(np.float64), sizes > 0
    weight = exact**power
    while open_.any():
        share = weight * ((n - exact[~open_].sum()) / weight[open_].sum())
        full = open_ & (share >= sizes)
        if not full.any():
            exact[open_] = share[open_]
            break
        open_ &= ~full
    taken = np.maximum(np.floor(exact).astype(int), np.minimum(sizes, 1))
    while (left := n - taken.sum()) != 0:
        room = np.flatnonzero(taken < sizes if left > 0 else taken > 1)
        nearest = room[np.argsort((taken - exact)[room] * np.sign(left), kind="stable")]
        taken[nearest[: abs(left)]] += np.sign(left)
    return taken


def check_strata(latents: int, strata: int) -> None:
    """Raise `InputError` for so many latents to be drawn by so many strata of density (0: none)."""
    if latents < 1:
        raise InputError(Argument("latents"), f" is {latents}; give at least 1")
    if strata < 0:
        raise InputError(Argument("strata"), f" is {strata}; give a number of strata, or 0 to draw uniformly")
    if latents < LEAST_OF_STRATUM * strata:
        raise InputError(Argument("latents"), f" is {latents} with {strata} strata; give at least {LEAST_OF_STRATUM} a stratum, {LEAST_OF_STRATUM * strata}")  # fmt: skip


def _check_count(name: str, value: int) -> None:
    if value < 0:
        raise InputError(f"{name} is {value}; give a number of texts of at least 0")


def _check_design(n: int, edges: Sequence[float | int], **shares: float) -> None:
    _check_count("n", n)
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; give a number between 0 and 1")
    check_edges("edges", edges)


def check_edges(name: str, edges: Sequence[float | int]) -> None:
    """Raise `InputError` for the edges of no bins."""
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 100 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise InputError(
            Argument(name),
            f" is {tuple(edges)}; give percentiles that rise from 0 to 100, such as (0, 50, 75, 95, 100)",
        )
