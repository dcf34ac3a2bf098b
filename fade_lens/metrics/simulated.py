"""How well predicted activations follow true ones, token by token, over the texts of a sample."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

REPLICATES = 2000
Pair = tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"]]
"""Predicted and true activations of one text's tokens; texts differ in length."""


def moments(texts: Sequence[Pair]) -> Float[np.ndarray, "text 6"]:
    """Number of tokens and sums of x, y, x², y², xy of each text, from which any weighting's correlation follows."""
    return np.array([[len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y] for x, y in texts], dtype=np.float64).reshape(
        -1, 6
    )


def pearson(sums: Float[np.ndarray, "*replicate 6"]) -> Float[np.ndarray, "*replicate"]:
    """Pearson correlation from summed moments; 0 where either side does not vary.

    >>> x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])
    >>> float(pearson(moments([(x, y)]).sum(axis=0)).round(6))
    1.0
    """
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(n * xx - x**2, 0) * np.maximum(n * yy - y**2, 0))
    return np.divide(n * xy - x * y, spread, out=np.zeros_like(spread), where=spread > 1e-9)


def pooled(
    texts: Sequence[Pair], weights: Float[np.ndarray, " text"], seed: int, documents: Sequence[int] | None = None
) -> tuple[float, tuple[float, float]]:
    """Correlation over all tokens of all texts, and its 95 % interval by the bootstrap over texts, or documents.

    Args:
        texts: predicted and true activations.
        weights: what each text stands for.
        seed: of the bootstrap.
        documents: that the texts are of, where these are drawn whole.
    """
    each = moments(texts) * weights[:, None]
    if documents is not None:
        place = {document: at for at, document in enumerate(dict.fromkeys(documents))}
        whole = np.zeros((len(place), each.shape[1]))
        np.add.at(whole, [place[document] for document in documents], each)
        each = whole
    drawn = np.random.default_rng(seed).multinomial(len(each), np.full(len(each), 1 / len(each)), REPLICATES)
    low, high = np.quantile(pearson(drawn @ each), [0.025, 0.975])
    value = float(pearson(each.sum(axis=0)))
    return value, (min(float(low), value), max(float(high), value))
