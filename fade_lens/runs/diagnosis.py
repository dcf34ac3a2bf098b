"""Why an SAE does not do what it should: what is likely is tried, one change at a time, on a few texts, and what mends it is named."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log2

import numpy as np
import torch

from fade_lens._util.errors import InputError
from fade_lens._util.words import amount, number
from fade_lens.generation.arms import losses
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.reconstruction import LOSSES, NEARNESS, over_documents
from fade_lens.subject.activations import spread
from fade_lens.subject.features import unfolded
from fade_lens.subject.health import L0_APART, LEAST_RECOVERED, LEAST_VARIANCE, Cause, HealthWarning
from fade_lens.subject.hooks import dtype_of, model_name
from fade_lens.subject.loading import UNFOLDED, otherwise_loaded
from fade_lens.subject.reconstruction import Read, Reconstruction, reads, statistics
from fade_lens.subject.tokens import TokenizedTexts, tokenize, tokenizer_of

RECOVERED = ("ce_recovered_zero", "kl_recovered_zero")
TEXTS = 24
"""Texts on which a change is tried."""
TOKENS = 8
"""Of each, the tokens whose loss is compared."""
LAYERS = (-1, 1, -2, 2, -3, 3, -4, 4)
"""How many blocks further the SAE is tried."""
SCALES = tuple(2.0**power for power in range(-6, 7))
FINER = (2**-0.5, 2**-0.25, 2**0.25, 2**0.5)
CLEAN = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far the model with the SAE and its error may be from the model as it is, in nats a token; `CLEAN_IN_HALF` where its dtype is another."""
CLEAN_IN_HALF = 0.02


@dataclass(frozen=True)
class Signs:
    """What tells health: None where it is undefined."""

    l0: float | None
    recovered: float | None
    variance: float | None

    @classmethod
    def of(cls, metrics: Mapping[str, Metric]) -> "Signs":
        """Those among the figures of an SAE; where ablation does not raise the loss, what is recovered is told by the divergence."""
        recovered = (metrics[name].value for name in RECOVERED)
        return cls(metrics["l0"].value, next((one for one in recovered if one is not None), None), metrics["variance_explained"].value)  # fmt: skip

    def trouble(self, l0: float | None) -> float:
        """0 for a perfect SAE; grows with the loss and the variance that are missed, and with how far L0 is off by more than it may."""
        missed = sum(2.0 if share is None else min(max(1 - share, 0.0), 2.0) for share in (self.recovered, self.variance))  # fmt: skip
        return missed + (max(abs(log2(self.l0 / l0)) - log2(L0_APART), 0.0) if self.l0 and l0 else 0.0)

    def symptoms(self, l0: float | None) -> Iterator[str]:
        """What is not as it should be, where the release states an L0."""
        if self.recovered is not None and self.recovered < LEAST_RECOVERED:
            yield f"only {number(self.recovered)} of the loss is recovered"
        if self.variance is not None and self.variance < LEAST_VARIANCE:
            yield f"the variance explained is {number(self.variance)}"
        if self.l0 is not None and l0 and not 1 / L0_APART <= self.l0 / l0 <= L0_APART:
            yield f"L0 is {amount(float(f'{self.l0:.3g}'))}, the release's {amount(l0)}"


@dataclass(frozen=True)
class Trial:
    """A change that was tried: of which cause it would be the mend, what is to be done, and what it gave."""

    cause: Cause
    words: str
    signs: Signs


def signs_of(made: Reconstruction, tokens: TokenizedTexts) -> Signs:
    """The signs over some texts."""
    known = statistics(made, tokens)
    near = over_documents({n: NEARNESS[n] for n in ("l0", "variance_explained")}, known.sums, tokens.documents, 0, known.total)  # fmt: skip
    lost = losses(made, known.mean, tokens, ("sae", "zero"), most=TOKENS)
    return Signs.of(near | over_documents({name: LOSSES[name] for name in RECOVERED}, lost, tokens.documents, 0))


def diagnosed(made: Reconstruction, tokens: TokenizedTexts, context: int, signs: Signs, l0: float | None) -> HealthWarning | None:  # fmt: skip
    """What is wrong and the likely cause; None where nothing is.

    Args:
        tokens: the texts that the signs are of.
        context: their length at most.
        signs: what was seen.
        l0: what the release states, None where it does not.
    """
    seen = " and ".join(signs.symptoms(l0))
    if not seen:
        return None
    some = spread(tokens, TEXTS)
    now = signs_of(made, some)
    before = now.trouble(l0)
    told = list(otherwise_loaded(made.sae.cfg.metadata, made.model, made.features.read_hook))
    tried = [t for t in trials(made, some, context) if better(t.signs, before, l0)]
    # Where two changes do as well, what the model's weights show decides.
    best = min(tried, key=lambda t: t.signs.trouble(l0) - 0.05 * (t.cause == "loading" and bool(told)), default=None)
    if best is not None:
        words = f"{told[0] if told and best.cause == 'loading' else best.words} Tried on {len(some)} texts: {shown(best.signs)} in place of {shown(now)}."  # fmt: skip
        return HealthWarning(best.cause, f"{seen}. {words}")
    if told:
        return HealthWarning("loading", f"{seen}. {told[0]}")
    if made.sae.cfg.normalize_activations in UNFOLDED:
        return HealthWarning("scale", f"{seen}. {unfolded(made.sae, made.features.read_hook)}")
    words = (
        "No other BOS, loading, layer or scale that was tried mends it: the SAE may be poor or of another model than "
        f"{model_name(made.model)!r}, or these texts unlike those that it was trained on."
    )
    return HealthWarning("unknown", f"{seen}. {words}")


def better(signs: Signs, before: float, l0: float | None) -> bool:
    """Whether a change mends the SAE: it leaves no symptom, or less than half of the trouble and of the loss."""
    now = signs.trouble(l0)
    halved = now < before / 2 and (signs.recovered or 0.0) > 0.5
    return now < before - 0.05 and (halved or not any(signs.symptoms(l0)))


def shown(signs: Signs) -> str:
    """Signs in words."""
    return f"recovered {number(signs.recovered)}, variance explained {number(signs.variance)}, L0 {amount(signs.l0 and float(f'{signs.l0:.3g}'))}"


def trials(made: Reconstruction, tokens: TokenizedTexts, context: int) -> Iterator[Trial]:
    """The changes that can be made without other weights, and what they give."""
    features, model = made.features, made.model
    if (bos := tokenizer_of(model).bos_token_id) is not None:
        other = not features.prepend_bos
        read = tokenize(model, tokens.texts, context=context, prepend_bos=other)
        if other or any(len(tokens[t]) and tokens[t][0] == bos for t in range(len(tokens))):
            words = f"BOS is likely {'missing: the SAE was trained on texts that begin with it' if other else 'not wanted: the SAE was trained without it'}. Set sae.cfg.metadata.prepend_bos = {other}."  # fmt: skip
            yield Trial("bos", words, signs_of(made, read))
    if str(model.cfg.normalization_type).startswith("LN") and features.d_in == int(model.cfg.d_model):
        words = "The SAE was likely trained on a model with center_writing_weights=True: load the model so, as the SAE's model_from_pretrained_kwargs should ask, or both with fade_lens.load."  # fmt: skip
        yield Trial("loading", words, signs_of(made.tried(centred=True), tokens))
    kept = list(reads(made, tokens))
    layer = max(neighbours(made), key=lambda one: explained(one, list(reads(one, tokens))), default=None)
    if layer is not None:
        words = f"The SAE is likely of another layer: it does better at {layer.features.read_hook!r} than at {features.read_hook!r}, which sae.cfg.metadata.hook_name says."  # fmt: skip
        yield Trial("layer", words, signs_of(layer, tokens))
    scaled = best_scale(made, kept)
    by = f"{scaled.scale:.3g}"
    fold = f"fold it into its weights with sae.fold_activation_norm_scaling_factor({by})" if made.maps_back else f"multiply sae.W_enc by {by}"  # fmt: skip
    words = f"The SAE was likely trained on activations {by} times as large: {fold}."
    if made.sae.cfg.normalize_activations in UNFOLDED:
        words = f"{unfolded(made.sae, features.read_hook)} On these texts {by} does best."
    yield Trial("scale", words, signs_of(scaled, tokens))


def neighbours(made: Reconstruction) -> Iterator[Reconstruction]:
    """The SAE at hooks of the same kind in other blocks, where there are such."""
    for layers in LAYERS:
        try:
            yield made.tried(layers=layers)
        except InputError:
            continue


def best_scale(made: Reconstruction, kept: Sequence[Read]) -> Reconstruction:
    """The SAE on scaled activations, at the scale at which it explains most of their variance."""
    norms = [made.features.flatten(one.read).float().norm(dim=-1)[one.counted.to(one.read.device)] for one in kept]
    usual = float(torch.cat(norms).mean()) / made.features.d_in**0.5  # SAELens scales it to 1
    given = [made.tried(scale=s) for s in (*SCALES, usual, 1 / usual) if np.isfinite(s) and s > 0]
    near = partial(explained, kept=kept)
    best = max(given, key=near)
    return max((best, *(made.tried(scale=best.scale * by) for by in FINER)), key=near)


def explained(made: Reconstruction, kept: Sequence[Read]) -> float:
    """Variance explained over texts that were read."""
    error, n, total, square = 0.0, 0, torch.zeros(made.features.d_out, dtype=torch.float64), 0.0
    for one in kept:
        y = one.target[one.counted].double()
        error += float((y - made.of(one.read).to(one.target.device)[one.counted].double()).square().sum())
        n, total, square = n + len(y), total + y.sum(0).cpu(), square + float(y.square().sum())
    variance = square - float(total @ total) / max(n, 1)
    found = 1 - error / variance if variance > 0 else -np.inf
    return found if np.isfinite(found) else -np.inf


def unsteady(made: Reconstruction, off: float | None) -> HealthWarning | None:
    """What to say where the model with the SAE and its error is not the model as it is, by so many nats a token."""
    allowed = CLEAN.get(dtype_of(made.model), CLEAN_IN_HALF)
    if off is None or abs(off) <= allowed:
        return None
    words = (
        f"The model with the SAE and its error differs from the model as it is by {off:.3g} nats a token, more than rounding ({allowed:g}): either the SAE "
        "makes something else of the same activations each time (noise, dropout), or hooks of somebody else change them. No figure of its loss can be trusted."
    )
    return HealthWarning("unsteady", words)
