"""Features that should be less interpretable than an SAE's latents, scored like them: a score says little without theirs beside it.

- "random": an SAE of the same size at the same L0 whose encoder rows are random directions of unit length and whose decoder is their
  transpose (a transcoder's: random rows of its own). Each latent fires on exactly as many tokens of the corpus as one of the run does.
- "permuted": the SAE itself with another latent's decoder row for each: what it fires on is the same, what it writes is not.
- "neurons": of the MLP of the same layer, at each token those of largest magnitude alone (`TOP` of them).
- "residual": dimensions of the residual stream.

Any other SAE or hook is scored by a `Fade` of its own and set beside the run by `compare`. To permute activations over documents is no
kind of feature: what fires would depend on the document, not on what the model computes. Descriptions dealt to other features do the same
to content and rates (`nulls=("shuffled",)`), without a further pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from torch.nn.functional import normalize

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.seeds import rng, stream
from fade_lens.baselines.kinds import check_baselines
from fade_lens.subject.activations import OutlierRule, hidden_states, max_activations, shares, spread, usual_tokens
from fade_lens.subject.features import Features, Latents, Neurons, Source, every_feature
from fade_lens.subject.hooks import HookTensor, Model, at_least_float32, layer_of, resolve_hook
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import TokenizedTexts

TOP = 32
"""Neurons of a token that count (Paulo et al. 2024)."""
DRAWN_TEXTS = 256
"""Texts that tell how often neurons fire."""
HELD = 2**26
"""Numbers in memory from which thresholds are taken."""
NAMES = ("release", "sae_id", "neuronpedia_id")


@dataclass(frozen=True)
class Baseline(Brief):
    """Features to score beside those of a run.

    Attributes:
        kind: one of `fade_lens.baselines.kinds.BASELINES`.
        source: what `Fade` takes.
        indices: as many as the run has features; where they are `paired`, in the order of the run's, each with the one it stands beside.
    """

    kind: str
    source: Source
    indices: tuple[int, ...]

    @property
    def paired(self) -> bool:
        """Whether each stands beside one of the run's features: with its firing rate, or with its encoder."""
        return self.kind in ("random", "permuted")


def baseline(kind: str, subject: Subject, *, top: int = TOP) -> Baseline:
    """The features of one kind to be scored beside a subject's; its activations tell how often they are to fire.

    Args:
        kind: one of `fade_lens.baselines.kinds.BASELINES`.
        subject: the features of the run over its corpus, an SAE's latents.
        top: neurons of a token that count.

    Raises:
        InputError: an unknown kind, a subject of neurons for a kind that is made of an SAE, a layer without an MLP, activations that were
            given and do not tell how often features fire.
    """
    model, features = subject.model, subject.features
    check_source(kind, features)
    if isinstance(features, Latents) and kind == "permuted":
        return Baseline(kind, Permuted(model, features.sae, features.indices, subject.settings.seed), features.indices)
    if isinstance(features, Latents) and kind == "random":
        return Baseline(kind, random_sae(subject, features), tuple(range(len(features))))
    other = (
        Neurons(model, features.residual_hook, [0])
        if kind == "residual"
        else TopNeurons(model, neurons_of(features), [0], top)
    )
    other.prepend_bos = features.prepend_bos  # the same tokens are read
    return Baseline(kind, other, drawn(subject, other))


def check_source(kind: str, features: Features) -> None:
    """Raise `InputError` for a kind of baseline that there is not beside these features."""
    check_baselines([kind], "any")
    if kind in ("random", "permuted") and not isinstance(features, Latents):
        raise InputError(Argument("baselines"), f" holds {kind!r}, which is made of an SAE, and the run has neurons of {features.read_hook!r}; give 'residual', or leave it out")  # fmt: skip
    if kind in ("neurons", "residual") and layer_of(features.read_hook) is None:
        raise InputError(Argument("baselines"), f" holds {kind!r}, and {features.read_hook!r} is in no layer of the model; leave it out")  # fmt: skip
    if kind == "neurons":
        neurons_of(features)


def neurons_of(features: Features) -> str:
    """The hook of the neurons of the layer that features read. Raises `InputError` for a model that has none."""
    return resolve_hook(features.model, f"blocks.{layer_of(features.read_hook)}.mlp.hook_post")


class TopNeurons(Neurons):
    """Neurons that are silent at a token unless they are among the `top` of largest magnitude there: as sparse as latents."""

    dense = False

    def __init__(self, model: Model, hook: str, indices: Sequence[int], top: int) -> None:
        super().__init__(model, hook, indices)
        self.top = min(top, self.n_features)

    def encode(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        dense = super().encode(hook_activations)
        least = at_least_float32(self.flatten(hook_activations)).abs().topk(self.top, dim=-1).values[..., -1:]
        return dense.masked_fill(dense.abs() < least, 0.0)

    def before_threshold(self, hook_activations: HookTensor) -> Float[Tensor, "text pos feature"]:
        return super().encode(hook_activations)

    @property
    def encoded_width(self) -> int:
        return self.n_features

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "architecture": f"top {self.top} a token"}


class Permuted(Latents):
    """Latents of an SAE, each with the decoder row of another one, drawn by `seed` among all."""

    def __init__(self, model: Model, sae: SAE[Any], indices: Sequence[int], seed: int) -> None:
        order = torch.from_numpy(rng(seed, "permuted decoder").permutation(int(sae.cfg.d_sae)))
        self._partner, self._seed = torch.empty_like(order), seed
        self._partner[order] = order.roll(1)  # one cycle: none keeps its own
        super().__init__(model, sae, indices)

    def directions(self) -> Float[Tensor, "feature d_out"]:
        return self._directions(self._partner[self._columns])

    def decoder(self, some: slice) -> Float[Tensor, "some d_out"]:
        return self._sae.W_dec.detach()[self._partner[some].to(self._sae.W_dec.device)].float()

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "decoder": "permuted", "seed": self._seed}


def random_sae(subject: Subject, features: Latents) -> SAE[Any]:
    """An SAE with a random latent for each of a subject's features, which fires on as many tokens of its corpus.

    Raises:
        InputError: how often the features fire is not known.
    """
    like, counts = features.sae.cfg, subject.activations.active
    if (counts < 0).any():
        raise InputError(Argument("baselines"), " holds 'random', but activations that were given do not tell on how many tokens features fire; leave out ", Argument("activations"))  # fmt: skip
    transcoder = features.write_hook != features.read_hook
    generator = torch.Generator().manual_seed(stream(subject.settings.seed, "random SAE") % 2**63)
    draw = lambda d: normalize(torch.randn(len(features), d, generator=generator), dim=-1)  # noqa: E731
    rows = draw(features.d_in)
    sae_class, config = SAE_CLASS_REGISTRY["transcoder" if transcoder else "standard"]
    metadata = {k: v for k, v in like.metadata.to_dict().items() if k not in NAMES}
    options: dict[str, Any] = {"d_in": features.d_in, "d_sae": len(features), "apply_b_dec_to_input": False}
    options |= {"d_out": features.d_out} if transcoder else {"reshape_activations": like.reshape_activations}
    sae = cast(Any, sae_class)(cast(Any, config)(**options, metadata=SAEMetadata(**metadata)))
    with torch.no_grad():
        sae.W_enc.copy_(rows.T)
        sae.b_enc.copy_(-thresholds(subject, rows, counts))
        sae.W_dec.copy_(draw(features.d_out) if transcoder else rows)
        sae.b_dec.zero_()
    return sae


def thresholds(
    subject: Subject, rows: Float[Tensor, "feature d_in"], counts: Int[np.ndarray, " feature"]
) -> Float[Tensor, " feature"]:
    """For each direction the projection that `counts` tokens of the corpus exceed.

    Of a corpus so large that the projections have no room, evenly spaced texts tell it.
    """
    features, tokens = subject.features, subject.tokens
    share = min(1.0, HELD / max(1, int(counts.max()) * len(counts)))
    if share < 1:
        tokens = spread(tokens, max(1, int(share * len(tokens))))
        counts = np.where(counts > 0, np.maximum(1, np.rint(share * counts)), 0).astype(np.int64)
    most, found, best = int(counts.max()) + 1, list[Tensor](), torch.empty(0, len(features))
    size = usual_tokens(subject.model, tokens, [(features, subject.outliers)], subject.workers)
    tasks = ((some, size) for some, _ in shares(tokens, size, subject.workers))
    for part in subject.workers.each(projected, (subject.model, features, subject.outliers, rows, most), tasks):
        found.append(part)
        if sum(map(len, found)) > max(most, 2**14):
            best, found = largest([best, *found], most), []
    best, column = largest([best, *found], most), torch.arange(len(features))
    last = torch.from_numpy(counts).clamp(1, len(best) - 1)
    between = (best[last - 1, column] + best[last, column]) / 2
    return torch.where(torch.from_numpy(counts) > 0, between, best[0] + 1)


def projected(
    model: Model,
    features: Features,
    outliers: OutlierRule,
    rows: Float[Tensor, "feature d_in"],
    most: int,
    tokens: TokenizedTexts,
    batch_tokens: int,
) -> Iterator[Float[Tensor, "_token feature"]]:
    """The `most` largest projections of some texts' tokens on each direction, a batch at a time."""
    for (read,) in hidden_states(model, [(features, outliers)], tokens, batch_tokens):
        hidden = features.flatten(read.hidden)[read.usable & ~read.overflowed].to(torch.float32)
        found = (hidden @ rows.T.to(hidden.device)).cpu()
        yield found if len(found) <= most else largest([found], most)


def largest(parts: Sequence[Float[Tensor, "_token feature"]], most: int) -> Float[Tensor, "most feature"]:
    """The `most` largest numbers of each column, in descending order."""
    every = torch.cat(list(parts))
    return every.topk(min(most, len(every)), dim=0).values


def drawn(subject: Subject, source: Source) -> tuple[int, ...]:
    """As many features as the subject has (all, where there are fewer), drawn by its seed among those that fire at least as often as the rarest of its own that fire."""
    every, rates = every_feature(subject.model, source), subject.activations.firing_rate
    n = min(len(subject.features), len(every))
    tokens = spread(subject.tokens, DRAWN_TEXTS)
    own = max_activations(subject.model, every, tokens, subject.outliers, workers=subject.workers).firing_rate
    wanted = np.nanmin(np.where(rates > 0, rates, np.nan)) if (rates > 0).any() else 0.0
    often = np.flatnonzero(own >= max(wanted, np.finfo(np.float64).tiny))
    if len(often) < n:  # the most frequent ones
        often = np.argsort(-own, kind="stable")[:n]
    return tuple(
        sorted(rng(subject.settings.seed, "baseline", every.read_hook).choice(often, n, replace=False).tolist())
    )
