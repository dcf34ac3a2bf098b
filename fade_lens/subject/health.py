"""What is known of an SAE's health: how it reconstructs, what that does to the model, how its latents fire, and what to beware of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from fade_lens._util.brief import Brief
from fade_lens._util.words import amount, number
from fade_lens.metrics.metric import Metric

if TYPE_CHECKING:  # heavy: a record is read before torch is there
    from fade_lens.subject.reconstruction import Statistics

Cause = Literal["bos", "loading", "layer", "scale", "unsteady", "overflow", "unknown"]
BINS = 40
LEAST_RECOVERED = 0.7
"""Share of the loss that zero ablation costs, below which the SAE is not what it should be."""
LEAST_VARIANCE = 0.2
"""Share of the variance that it must explain, which no published SAE misses. Without BOS the loss may hide what this shows: Gemma 3 270M's first tokens are
then massive, the demo's SAE explains −3.6 of the variance, and still recovers 0.72 of the loss."""
L0_APART = 2.0
"""By how many times L0 may differ from what the release states."""
DENSE = {"dense_1": 0.01, "dense_10": 0.1}
"""Shares of tokens above which a latent counts as dense."""


@dataclass(frozen=True)
class HealthWarning:
    """What is wrong with an SAE in this model, on these texts, and the likely cause: its code and, in words, what was seen and what to do."""

    cause: Cause
    words: str


@dataclass(frozen=True)
class SaeHealth(Brief):
    """One SAE in its model, over some texts.

    Attributes:
        name: what it is called.
        hook, hook_out: where it reads and writes.
        width: how many latents it has.
        prepend_bos, context: how the texts were read.
        texts, tokens: how many there were; special tokens are not counted.
        loss_texts, loss_tokens: of which the model's predictions were compared.
        metrics: figures with intervals over texts, or with the reason why there is none (see `fade_lens.metrics.reconstruction`).
        latents: shares of the latents: `dead` (silent on all tokens), `dense_1`, `dense_10` (not zero on more than 1 %, 10 % of tokens), what share of
            all firing the latter make (`dense_1_firing`, `dense_10_firing`), tokens at which a latent fires in a text in which it does
            (`firings_a_text`).
        weights: cosines of encoder and decoder, and of the nearest decoder rows.
        special_share: share of the variance that special tokens make, which no figure here counts.
        l0_tokens: edges of bins, and how many tokens have so many latents that are not zero.
        l0_release: what the release states, where it does.
        warnings: what to beware of; empty for an SAE that is as it should be.
    """

    name: str
    hook: str
    hook_out: str
    width: int
    prepend_bos: bool
    context: int
    texts: int
    tokens: int
    loss_texts: int
    loss_tokens: int
    metrics: Mapping[str, Metric]
    latents: Mapping[str, float]
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    special_share: float | None = None
    l0_tokens: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())
    l0_release: float | None = None
    warnings: tuple[HealthWarning, ...] = ()

    def value(self, name: str) -> float | None:
        """A figure, None where it is undefined."""
        return self.metrics[name].value if name in self.metrics else None

    @property
    def silent_bound(self) -> float:
        """Below which the density of a silent latent lies, with 95 % confidence: 3 in as many tokens."""
        return 3 / max(self.tokens, 1)

    @property
    def words(self) -> str:
        """The figures that tell most, in one line."""
        told = [(f"L0 {amount(l0)}" if (l0 := rounded(self.value("l0"))) is not None else "L0 undefined")]
        told += [f"variance explained {number(self.value('variance_explained'))}", f"loss recovered {number(self.value('ce_recovered_zero'))}"]  # fmt: skip
        told.append(f"{100 * self.latents['dead']:.0f} % of latents silent on {amount(self.tokens)} tokens" if self.latents else "")  # fmt: skip
        return ", ".join(filter(None, told))

    @property
    def summary(self) -> str:
        """The same, with the causes of warnings."""
        causes = ", ".join(warning.cause for warning in self.warnings)
        return f"{self.words}; {f'warning: {causes}' if causes else 'no warning'}"


def rounded(value: float | None) -> float | None:
    """To three significant digits."""
    return None if value is None else float(f"{value:.3g}")


def of_latents(found: "Statistics") -> dict[str, float]:
    """How latents fire, as `SaeHealth.latents` has it."""
    density, firing = found.density, max(int(found.fires.sum()), 1)
    told = {"dead": float((found.fires == 0).mean())}
    for name, least in DENSE.items():
        told |= {name: float((density > least).mean()), f"{name}_firing": float(found.fires[density > least].sum() / firing)}  # fmt: skip
    alive = found.fires_in > 0
    if alive.any():
        told["firings_a_text"] = float((found.fires[alive] / found.fires_in[alive]).mean())
    return told


def l0_histogram(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Edges of at most `BINS` bins of equal width over L0, and the tokens in each."""
    there = np.flatnonzero(counts)
    if not len(there):
        return (), ()
    low, high = int(there[0]), int(there[-1]) + 1
    width = -(-(high - low) // BINS)
    edges = np.arange(low, high + width, width)
    values = np.arange(low, high)
    made, _ = np.histogram(values, edges, weights=counts[low:high])
    return tuple(edges.astype(float).tolist()), tuple(made.astype(int).tolist())
