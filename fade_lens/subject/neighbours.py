"""Which features are like which: by their decoder directions, over the whole SAE, and by the texts that they fire on."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens._util.reasons import Reason
from fade_lens.subject.activations import fires
from fade_lens.subject.features import Features
from fade_lens.subject.summary import Near

CHUNK_BYTES = 2**27
"""Directions, or cosines, in memory at a time."""

ORTHOGONAL = Reason("neurons", "the neurons of a hook are at right angles to one another")


def unit_rows(rows: Float[Tensor, "row d_out"]) -> Float[Tensor, "row d_out"]:
    """Directions of length 1, float32; those of no length stay zero. However long or short they were, no square leaves the range of numbers."""
    rows = rows.detach().float()
    low, high = rows.aminmax(dim=-1, keepdim=True)
    largest = torch.maximum(high, -low)
    unit = rows / torch.where(largest > 0, largest, 1)
    return unit.div_(unit.norm(dim=-1, keepdim=True).clamp_(min=1))


def nearest(
    own: Float[Tensor, "own d_out"],
    rows: Callable[[slice], Float[Tensor, "some d_out"]],
    n_rows: int,
    k: int,
    but: Int[Tensor, " own"] | None = None,
) -> tuple[Float[Tensor, "own k"], Int[Tensor, "own k"]]:
    """The `k` largest cosines of directions to some rows, the largest first, and to which: exact.

    The rows go by a chunk at a time: neither all cosines nor a second copy of the rows are ever in memory.

    Args:
        own: the directions, of length 1.
        rows: a range of the rows, of any length.
        n_rows: how many there are.
        k: how many are found, where there are as many; one that does not count has a cosine of -inf.
        but: for each direction a row that does not count: itself.
    """
    best, at = own.new_zeros(len(own), 0), torch.zeros(len(own), 0, dtype=torch.long, device=own.device)
    size = max(1, CHUNK_BYTES // (4 * max(own.shape[1], len(own))))
    for start in range(0, n_rows, size):
        some = unit_rows(rows(slice(start, start + size)).to(own.device))
        cosine: Tensor = own @ some.T
        if but is not None:
            here = (but >= start) & (but < start + len(some))
            cosine[here.nonzero().squeeze(-1), but[here] - start] = -torch.inf
        top = cosine.topk(min(k, len(some)), dim=1)
        both, numbers = torch.cat([best, top.values], dim=1), torch.cat([at, top.indices + start], dim=1)
        top = both.topk(min(k, both.shape[1]), dim=1)
        best, at = top.values, numbers.gather(1, top.indices)
    return best, at


def nearest_directions(features: Features, n: int) -> list[Near] | Reason:
    """For each feature the `n` others of the whole SAE whose decoder directions have the highest cosine with its own."""
    if features.decoder(slice(0, 1)) is None:
        return ORTHOGONAL

    def rows(some: slice) -> Float[Tensor, "some d_out"]:
        found = features.decoder(some)
        assert found is not None
        return found

    own = unit_rows(features.directions())
    best, at = nearest(own, rows, features.n_features, n, torch.tensor(features.indices, device=own.device))
    return [
        tuple((i, v) for i, v in zip(some, values, strict=True) if v > -np.inf)
        for some, values in zip(at.tolist(), best.tolist(), strict=True)
    ]


def firing_together(features: Features, values: Float[np.ndarray, "text feature"], n: int, floor: float | None = None) -> list[Near]:  # fmt: skip
    """For each feature the `n` others *of these* that fire on the same texts, those alone that do so at all.

    Args:
        features: in the order of the columns.
        values: largest activations, a row a text.
        n: how many at most.
        floor: None: by the share of the texts with either that have both (Jaccard), which favours features that fire on much. A number: by
            lift, how many times as often both fire as if they were independent, where that is more than two deviations of chance, among
            features that fire on at least this share of the texts: rare ones would win by one text in common.
    """
    firing = fires(values).astype(np.float32)
    texts, found = firing.sum(axis=0), list[Near]()
    for column in range(len(features)):
        both: Float[np.ndarray, " feature"] = firing[:, column] @ firing
        if floor is None:
            share = both / np.maximum(texts + texts[column] - both, 1)
        else:
            chance = np.maximum(texts * texts[column] / len(firing), 1e-9)
            share = both / chance
            share[(both <= chance + 2 * np.sqrt(chance)) | (texts < floor * len(firing))] = 0
        share[column] = 0
        order = np.argsort(-share, kind="stable")[:n]
        found.append(tuple((features.indices[i], float(share[i])) for i in order.tolist() if share[i] > 0))
    return found
