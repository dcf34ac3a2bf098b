"""How well an SAE stands for a model's activations, from sums over texts: each figure with an interval that resamples documents."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.reasons import Reason
from fade_lens.metrics.intervals import percentiles
from fade_lens.metrics.metric import Metric

Sums = Mapping[str, Float[np.ndarray, " row"]]
"""Sums over the tokens of some texts, by name; a row for the texts at hand, or for each replicate."""
REPLICATES = 1000
REPLICATE_BYTES = 2**27
"""Sums of vectors over replicates in memory at a time."""
LEAST_HARM = 0.01
"""By how much an ablation must raise the loss or the divergence, in nats a token, for a share of it to mean anything."""

NEARNESS: dict[str, Callable[[Sums], Float[np.ndarray, " row"]]] = {
    "l0": lambda s: s["l0"] / s["n"],
    "l1": lambda s: s["l1"] / s["n"],
    "mse": lambda s: s["error"] / s["n"],
    "variance_explained": lambda s: 1 - s["error"] / (s["square"] - s["total_square"] / s["n"]),
    "variance_explained_legacy": lambda s: s["legacy"] / s["n"],
    "cosine": lambda s: s["cosine"] / s["n"],
    "l2_ratio": lambda s: s["ratio"] / s["n"],
    "bias": lambda s: s["made_square"] / s["dot"],
}
"""Of the sums of `fade_lens.subject.reconstruction.Statistics`; the variance is that about the mean of all tokens, not about zero."""
ARMS = ("clean", "sae", "sae_error", "zero", "mean", "everywhere")


def per_token(kind: str, arm: str) -> Callable[[Sums], Float[np.ndarray, " row"]]:
    """The mean of a loss."""
    return lambda s: s[f"{kind}_{arm}"] / s[f"n_{kind}"]


def recovered(kind: str, ablation: str) -> Callable[[Sums], Float[np.ndarray, " row"]]:
    """The share of what an ablation costs that the SAE does not cost; NaN where the ablation costs nothing."""

    def share(s: Sums) -> Float[np.ndarray, " row"]:
        clean, sae, ablated = (per_token(kind, arm)(s) for arm in ("clean", "sae", ablation))
        harm = ablated - clean
        return np.where(harm > LEAST_HARM, (ablated - sae) / np.where(harm > LEAST_HARM, harm, 1), np.nan)

    return share


LOSSES: dict[str, Callable[[Sums], Float[np.ndarray, " row"]]] = {
    **{f"ce_{arm}": per_token("ce", arm) for arm in ARMS[:-1]},
    **{f"kl_{arm}": per_token("kl", arm) for arm in ARMS[1:-1]},
    **{f"{kind}_recovered_{by}": recovered(kind, by) for kind in ("ce", "kl") for by in ("zero", "mean")},
    "recovered_saelens": recovered("ce", "everywhere"),
}
"""Of the sums of `fade_lens.generation.arms.losses`."""


def over_documents(
    figures: Mapping[str, Callable[[Sums], Float[np.ndarray, " row"]]],
    sums: Mapping[str, Float[np.ndarray, " text"]],
    documents: Int[np.ndarray, " text"],
    seed: int,
    total: Float[np.ndarray, "text d"] | None = None,
) -> dict[str, Metric]:
    """Figures of sums over tokens, with 95 % intervals by a bootstrap over documents.

    Args:
        figures: by name, each from sums to a number a row; NaN where it is not defined.
        sums: of each text.
        documents: that each text is of.
        seed: the same one gives the same intervals.
        total: for each text the sum of the vectors whose variance is asked for.
    """
    _, group = np.unique(documents, return_inverse=True)
    n = int(group.max()) + 1
    by_document = {name: np.bincount(group, values, n) for name, values in sums.items()}
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), REPLICATES)
    weights = np.concatenate([np.ones((1, n), dtype=np.int64), drawn])
    rows = {name: weights @ values for name, values in by_document.items()}
    if total is not None:
        vectors = np.zeros((n, total.shape[1]))
        np.add.at(vectors, group, total)
        size = max(1, REPLICATE_BYTES // (8 * max(total.shape[1], 1)))
        parts = (weights[at : at + size] @ vectors for at in range(0, len(weights), size))
        rows["total_square"] = np.concatenate([(part**2).sum(axis=1) for part in parts])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: metric(figure(rows), n, name) for name, figure in figures.items()}


def metric(values: Float[np.ndarray, " row"], n: int, name: str) -> Metric:
    """A figure of which the first value is that of the texts at hand and the others are replicates."""
    if not np.isfinite(values[0]):
        if "recovered" in name:
            return Metric(None, Reason("no_harm", "the ablation costs nothing here, so there is nothing to recover"))
        if name in LOSSES:
            return Metric(None, Reason("no_next_token", "no token that counts has a next one"))
        return Metric(None, Reason("constant", "the activations do not vary"))
    interval, why = None, None
    if n < 2:
        why = "one text tells nothing of how texts differ"
    elif not np.isfinite(values).all():
        why = "in some replicates it is not defined"
    else:
        interval = percentiles(values[1:])
    return Metric(float(values[0]), interval=interval, counts={"texts": n}, interval_reason=why)
