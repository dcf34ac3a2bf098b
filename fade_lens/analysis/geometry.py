"""Where decoder directions lie: neighbours, a plane to look at, clusters and whether these are more than chance, and how wide SAEs split latents."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens._util.errors import MissingExtraError
from fade_lens._util.seeds import rng, stream
from fade_lens.baselines.permutation import benjamini_hochberg
from fade_lens.subject.neighbours import nearest

if TYPE_CHECKING:
    from scipy.sparse import csc_array

GATHERED_BYTES = 2**27
"""Directions of random sets in memory at a time."""
FIRING_AT_ONCE = 2e7
"""Times that latents of random sets fire, in memory at a time."""
DRAWN, LEAST_RANDOM = 2_000_000, 99
"""Latents in all random sets of one size; of a cluster so large that these are few sets, so many sets all the same."""
FAR = 1.999
"""Of opposite directions: at a distance of 2, UMAP takes a point off the map."""
NOISE = -1
"""The cluster of latents that are in none."""


def check_extra() -> None:
    """Raise `MissingExtraError` unless what lays directions out is installed."""
    try:
        import_module("umap")
    except ImportError as error:
        raise MissingExtraError("umap-learn", "geometry", "A map of latents") from error


@dataclass(frozen=True)
class Layout:
    """Where directions lie on the map.

    Attributes:
        places: two coordinates to look at; only neighbourhoods mean something in them, distances between far points do not.
        clusters: the cluster of each direction, the largest being 0; -1 for those in none.
    """

    places: Float[np.ndarray, "latent 2"]
    clusters: Int[np.ndarray, " latent"]


def layout(rows: Float[Tensor, "latent d_out"], *, neighbours: int = 15, least: int = 3, seed: int = 0) -> Layout:
    """Directions in a plane by UMAP, and their clusters by HDBSCAN in ten dimensions of UMAP.

    After ARENA's exercise: two dimensions with `min_dist` 0.05 to look at, ten with 0.1 for the clusters, by cosine. Both rest on the same
    exact nearest neighbours, and on the seed.

    Args:
        rows: directions of length 1.
        neighbours: how many of each count.
        least: latents that make a cluster.
        seed: of UMAP.

    Raises:
        MissingExtraError: umap-learn is not installed.
    """
    check_extra()
    from sklearn.cluster import HDBSCAN
    from umap import UMAP

    k = min(neighbours, len(rows) - 1)
    if k < 2 or len(rows) < 12:  # too few for ten dimensions: in a row, in no cluster
        return Layout(np.stack([np.arange(len(rows)), np.zeros(len(rows))], axis=1).astype(np.float32), np.full(len(rows), NOISE))  # fmt: skip
    own = torch.arange(len(rows))
    cosines, at = nearest(rows, lambda some: rows[some], len(rows), k - 1, but=own)
    # UMAP takes the first neighbour for the row itself.
    known = np.column_stack([own, at]).astype(np.int32), np.column_stack([0 * own, (1 - cosines).clip(0, FAR)]).astype(np.float32)  # fmt: skip

    def reduced(dimensions: int, min_dist: float) -> Float[np.ndarray, "latent dimension"]:
        with warnings.catch_warnings():
            # That new rows cannot be placed, and that a seed means one thread.
            warnings.simplefilter("ignore", UserWarning)
            made: Any = UMAP(n_components=dimensions, n_neighbors=k, min_dist=min_dist, metric="cosine", random_state=stream(seed, "map") % 2**32, n_jobs=1, precomputed_knn=known)  # fmt: skip
            return np.asarray(made.fit_transform(rows.numpy()), dtype=np.float32)

    grouping: Any = HDBSCAN
    threads = torch.get_num_threads()
    try:
        labels = grouping(min_cluster_size=least, copy=True).fit_predict(reduced(10, 0.1))
        return Layout(reduced(2, 0.05), by_size(np.asarray(labels)))
    finally:  # numba, on which UMAP runs, gives all cores to the OpenMP that torch uses too
        torch.set_num_threads(threads)


def by_size(labels: Int[np.ndarray, " latent"]) -> Int[np.ndarray, " latent"]:
    """Clusters numbered by their size, the largest 0; -1 stays.

    >>> by_size(np.array([5, 2, 2, -1])).tolist()
    [1, 0, 0, -1]
    """
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    number = {name: place for place, name in enumerate(names[np.argsort(-counts, kind="stable")].tolist())}
    return np.array([number.get(label, NOISE) for label in labels.tolist()], dtype=np.int64)


def inside(rows: Float[Tensor, "set latent d_out"]) -> Float[np.ndarray, " set"]:
    """The mean cosine between the directions of each set, of which each has at least two of length 1.

    >>> inside(torch.eye(2)[None]).tolist(), inside(torch.ones(1, 3, 1)).tolist()
    ([0.0], [1.0])
    """
    n = rows.shape[1]
    return ((rows.sum(1).square().sum(-1) - n) / (n * (n - 1))).numpy()


def lifts(firing: Any, sets: Sequence[Int[np.ndarray, " _some"]]) -> Float[np.ndarray, " set"]:
    """Of each set of latents how many times as often two of it fire on one token as if each fired by itself; NaN where that would be never.

    Args:
        firing: sparse, 1 where a latent fires, tokens by latents.
        sets: latents by their columns.
    """
    from scipy.sparse import csc_array

    n_tokens, n_latents = firing.shape
    each, found = np.asarray(firing.sum(axis=0), dtype=np.float64), [np.zeros(0)]
    step = max(1, int(FIRING_AT_ONCE * len(sets) / max(sum(each[some].sum() for some in sets), 1)))
    for start in range(0, len(sets), step):
        some = sets[start : start + step]
        ends = np.concatenate([[0], np.cumsum([len(one) for one in some])])
        chosen = csc_array((np.ones(ends[-1]), np.concatenate(some), ends), shape=(n_latents, len(some)))
        on = firing @ chosen  # how many of each set fire on each token
        together = (np.asarray(on.multiply(on).sum(axis=0)) - np.asarray(on.sum(axis=0))) / 2
        chance = ((each @ chosen) ** 2 - (each**2) @ chosen) / 2 / n_tokens
        found.append(np.divide(together, chance, out=np.full(len(some), np.nan), where=chance > 0))
    return np.concatenate(found)


def together(firing: Any) -> float:
    """The share of a set's latents that fire with others of it more often than by chance."""
    each = np.asarray(firing.sum(axis=0), dtype=np.float64)
    on = np.asarray(firing.sum(axis=1), dtype=np.float64)
    return float((firing.T @ on - each > each * (each.sum() - each) / firing.shape[0]).mean())


def clusters_tested(
    clusters: Int[np.ndarray, " latent"],
    rows: Float[Tensor, "latent d_out"],
    firing: Any = None,
    *,
    n_random: int = 1000,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Each cluster against random sets of as many of the same latents.

    Directions were clustered by their cosines, so that a high mean cosine says little; whether the same latents fire together is seen on
    text, which the clusters were made without.

    Args:
        clusters: of each latent; -1 for none.
        rows: directions of length 1.
        firing: sparse, 1 where a latent fires, tokens by latents; None: not known.
        n_random: random sets of each size; of sizes over `DRAWN` / `n_random` fewer, but `LEAST_RANDOM`.
        seed: of these.

    Yields:
        A row a cluster: cluster, size, cosine (mean between members), cosine_random (mean over the random sets), cosine_p, cosine_q; with `firing`
        also lift (see `lifts`), lift_random (median), lift_p, lift_q, together (see `together`). p counts the random sets that reach as
        much, q is the false discovery rate over all clusters (Benjamini and Hochberg).
    """
    members = [np.flatnonzero(clusters == c) for c in range(int(clusters.max(initial=NOISE)) + 1)]
    own, nulls = None if firing is None else lifts(firing, members), dict[int, tuple[Any, Any]]()
    for size in sorted({len(some) for some in members}):
        draw, n = rng(stream(seed, "random sets"), size), min(n_random, max(LEAST_RANDOM, DRAWN // size))
        sets = [draw.choice(len(rows), size, replace=False) for _ in range(n)]
        step = max(1, GATHERED_BYTES // (4 * size * rows.shape[1]))
        cosines = np.concatenate([inside(rows[torch.from_numpy(np.stack(sets[s : s + step]))]) for s in range(0, n, step)])  # fmt: skip
        nulls[size] = cosines, None if firing is None else lifts(firing, sets)
    found: list[dict[str, Any]] = []
    for cluster, some in enumerate(members):
        cosines, tied = nulls[len(some)]
        value = float(inside(rows[torch.from_numpy(some)][None])[0])
        row: dict[str, Any] = {"cluster": cluster, "size": len(some), "cosine": value, "cosine_random": float(cosines.mean()), "cosine_p": reached(value, cosines)}  # fmt: skip
        if own is not None and firing is not None:
            value = float(own[cluster])
            row |= {"lift": value, "lift_random": float(np.nanmedian(tied)), "lift_p": reached(value, tied), "together": together(firing[:, some])}  # fmt: skip
        found.append(row)
    for name in ("cosine", "lift"):
        if found and f"{name}_p" in found[0]:
            for row, q in zip(found, benjamini_hochberg(np.array([row[f"{name}_p"] for row in found])), strict=True):
                row[f"{name}_q"] = float(q)
    yield from found


def reached(value: float, nulls: Float[np.ndarray, " set"]) -> float:
    """The share of the random sets, and the value itself, that reach the value; NaN for a value that is not known."""
    known = nulls[np.isfinite(nulls)]
    return float((1 + (known >= value).sum()) / (1 + len(known))) if np.isfinite(value) else float("nan")


def shares(
    narrow: "csc_array", wide: "csc_array", parents: Sequence[int] | Int[np.ndarray, " latent"]
) -> Float[np.ndarray, " latent"]:
    """Of the tokens on which each latent of a wide SAE fires, the share on which its parent does; NaN where it never fires."""
    table: Any = narrow
    both = wide.multiply(table[:, np.asarray(parents)]).sum(axis=0)
    each = np.asarray(wide.sum(axis=0), dtype=np.float64)
    return np.divide(both, each, out=np.full(len(each), np.nan), where=each > 0)


def covered(
    parents: "csc_array", children: "csc_array", sets: Sequence[int] | Int[np.ndarray, " child"]
) -> Float[np.ndarray, " parent"]:
    """Of the tokens on which each parent fires, the share on which one of its children does; NaN where it never fires.

    Args:
        parents, children: sparse, 1 where a latent fires, tokens by latents.
        sets: the column of each child's parent.
    """
    from scipy.sparse import csc_array

    own: Any = parents
    of = csc_array((np.ones(len(sets), dtype=np.int32), (np.arange(len(sets)), sets)), shape=(len(sets), own.shape[1]))
    both = own.multiply((children @ of) > 0).sum(axis=0)
    each = np.asarray(own.sum(axis=0), dtype=np.float64)
    return np.divide(both, each, out=np.full(len(each), np.nan), where=each > 0)
