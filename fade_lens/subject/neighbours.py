"""Which features are like which: by their decoder directions, over the whole SAE, and by the texts that they fire on."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from fade_lens._util.reasons import Reason
from fade_lens.subject.activations import fires
from fade_lens.subject.features import Features
from fade_lens.subject.summary import Near

CHUNK_BYTES = 2**27
"""Directions, or cosines, in memory at a time."""

ORTHOGONAL = Reason("neurons", "the neurons of a hook are at right angles to one another")


def nearest_directions(features: Features, n: int) -> list[Near] | Reason:
    """For each feature the `n` others of the whole SAE whose decoder directions have the highest cosine with its own.

    The SAE goes by a chunk at a time: neither all cosines nor a second copy of the decoder are ever in memory.
    """
    if features.decoder(slice(0, 1)) is None:
        return ORTHOGONAL
    own = normalize(features.directions(), dim=-1)
    indices = torch.tensor(features.indices, device=own.device)
    best, at = own.new_zeros(len(own), 0), indices.new_zeros(len(own), 0)
    size = max(1, CHUNK_BYTES // (4 * max(features.d_out, len(own))))
    for start in range(0, features.n_features, size):
        rows = features.decoder(slice(start, start + size))
        assert rows is not None
        cosine: Tensor = own @ normalize(rows.to(own), dim=-1).T
        here = torch.arange(start, start + len(rows), device=own.device)
        cosine[here == indices[:, None]] = -torch.inf
        both = torch.cat([best, cosine], dim=1)
        top = both.topk(min(n, both.shape[1]), dim=1)
        best, at = top.values, torch.cat([at, here.expand(len(own), -1)], dim=1).gather(1, top.indices)
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
