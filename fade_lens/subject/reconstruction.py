"""What an SAE makes of the activations at its hook, and how near to them that comes: no judge, and no logits.

Means are over the tokens that are not special. Of a transcoder the target is what stands at the hook that it writes.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from sae_lens.saes.transcoder import Transcoder
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fade_lens._util.errors import InputError
from fade_lens._util.progress import Advance
from fade_lens.subject.activations import Batch, batches, usual_tokens
from fade_lens.subject.features import Latents
from fade_lens.subject.hooks import HookTensor, Model, layer_of, read_hooks, residual_hook, resolve_hook
from fade_lens.subject.memory import piece_bytes
from fade_lens.subject.neighbours import nearest, unit_rows
from fade_lens.subject.tokens import TokenizedTexts

KEPT_BYTES = 2**29
"""Activations at the hooks that are kept between the two readings of them; of more, the model runs twice."""
COSINE_FLOPS = 2**36
"""Work on cosines between decoder rows: of a wide SAE only some of the rows are compared with all (a second of a processor's core)."""


class Reconstruction:
    """An SAE in a model: what it reads, what it makes of it, and how that is put in the place of the activations.

    Args:
        model, sae: the SAE and the model that it is of.

    Attributes:
        scale: what activations are multiplied by before the SAE reads them (its output is divided by it).
        centred: whether their mean over the dimensions is taken away before (and added to its output).
        maps_back: whether what it makes is in the space that it reads.

    Raises:
        InputError: an SAE that does not fit the model.
    """

    def __init__(self, model: Model, sae: SAE[Any]) -> None:
        self.model, self.sae, self.scale, self.centred = model, sae, 1.0, False
        self.features = Latents(model, sae, range(int(sae.cfg.d_sae)))
        self.encoder = self.features.encoder
        self.maps_back = not sae.cfg.architecture().endswith("transcoder")
        self._plain = type(sae).forward in (SAE.forward, Transcoder.forward)
        """Whether the reconstruction is decoded from the latents alone: others have a path around them."""

    def tried(self, *, scale: float = 1.0, centred: bool = False, layers: int = 0) -> "Reconstruction":
        """The same SAE on scaled or centred activations, or so many blocks further. Raises `InputError` where there is no such block."""
        other = copy.copy(self)
        other.scale, other.centred = scale, centred
        if layers:
            other.features = features = copy.copy(self.features)
            features.read_hook, features.write_hook = (moved(self.model, h, layers) for h in (features.read_hook, features.write_hook))  # fmt: skip
            features.residual_hook = residual_hook(self.model, features.read_hook)
        return other

    @property
    def hooks(self) -> tuple[str, ...]:
        """Resolved names of the hooks that are read or written."""
        return tuple(dict.fromkeys((self.features.read_hook, self.features.write_hook)))

    def __call__(self, read: HookTensor) -> Iterator[tuple[slice, Float[Tensor, "text pos d_sae"], Float[Tensor, "text pos d_out"]]]:  # fmt: skip
        """Latents and reconstruction of the tensor at the read hook, some texts at a time, flattened as `Features.flatten` does."""
        flat = self.features.flatten(read).to(self.encoder.device)
        at_once = max(1, piece_bytes(flat.device) // (4 * self.features.n_features * flat.shape[1]))
        for start in range(0, len(flat), at_once):
            some = slice(start, start + at_once)
            with torch.no_grad():
                given, mean = flat[some], 0.0
                if self.centred:
                    mean = given.float().mean(-1, keepdim=True)
                    given = given - mean.to(given)
                if self.scale != 1:
                    given = given * self.scale
                # An SAE that normalizes its input keeps the scale of the last one, and uses it up in decoding.
                latents = self.encoder.encode(given)
                made = (self.encoder.decode(latents) if self._plain else self.encoder(given)).float()
                made = made / self.scale + mean if self.maps_back else made
                yield some, latents.to_dense() if latents.is_sparse else latents, made

    def of(self, read: HookTensor) -> Float[Tensor, "text pos d_out"]:
        """The reconstruction alone."""
        return torch.cat([made for _, _, made in self(read)])

    def put(self, target: HookTensor, new: Tensor, where: Bool[Tensor, "text pos"]) -> HookTensor:
        """The tensor of the write hook with other values at some positions, of the SAE's head alone where it has one."""
        flat = self.features.flatten(target)
        placed = torch.where(where[..., None].to(flat.device), new.to(flat), flat)
        if self.features.head is None:
            return placed.reshape(target.shape)
        whole = target.clone()
        whole[..., self.features.head, :] = placed
        return whole


def moved(model: Model, hook: str, layers: int) -> str:
    """The hook of the same kind some blocks further. Raises `InputError` where there is none."""
    layer = layer_of(hook)
    if layer is None or not 0 <= layer + layers < int(model.cfg.n_layers):
        raise InputError(f"{hook!r} has no fellow {layers} blocks further")
    return resolve_hook(model, hook.replace(f"blocks.{layer}.", f"blocks.{layer + layers}.", 1))


class Read(NamedTuple):
    """Some texts at the hooks: the tensors that are read and written, which positions count, and which are no padding."""

    batch: Batch
    read: HookTensor
    target: Float[Tensor, "text pos d_out"]
    counted: Bool[Tensor, "text pos"]
    real: Bool[Tensor, "text pos"]


def reads(made: Reconstruction, tokens: TokenizedTexts, batch_tokens: int | None = None, progress: Advance | None = None) -> Iterator[Read]:  # fmt: skip
    """The texts through the model up to the hooks, a batch at a time."""
    for batch in batches(tokens, batch_tokens or usual_tokens(made.model, tokens)):
        with torch.no_grad():
            seen = read_hooks(made.model, batch.ids, made.hooks)
        read, target = seen[made.features.read_hook], made.features.flatten(seen[made.features.write_hook])
        lengths = torch.from_numpy(tokens.lengths[batch.texts])[:, None]
        real = torch.arange(batch.ids.shape[1])[None] < lengths
        yield Read(batch, read, target, batch.counted.to(target.device), real.to(target.device))
        if progress is not None:
            progress(len(batch.texts))


@dataclass(frozen=True)
class Statistics:
    """Sums over the tokens that count, from which all that needs no logits is computed.

    Attributes:
        sums: for each text, float64: `n` tokens; `l0`, `l1`; `error` |y − ŷ|², `square` |y|², `made_square` |ŷ|² and `dot` ⟨y, ŷ⟩ of the
            target y and what the SAE makes, ŷ; `cosine` and `ratio` |ŷ|/|y|; `legacy` 1 − |y − ŷ|²/|y − mean|².
        total: the sum of y, for each text.
        fires: at how many tokens each latent is not zero; `fires_in`: in how many texts.
        l0: how many tokens have 0, 1, 2, … latents that are not zero.
        special_share: share of the variance over all tokens that special ones make; None where there are none.
        n_lost: tokens at which the activations, or what the SAE makes of them, are no finite numbers.
    """

    sums: Mapping[str, Float[np.ndarray, " text"]]
    total: Float[np.ndarray, "text d_out"]
    fires: Int[np.ndarray, " latent"]
    fires_in: Int[np.ndarray, " latent"]
    l0: Int[np.ndarray, " count"]
    special_share: float | None
    n_lost: int

    @property
    def n(self) -> int:
        """Tokens that count."""
        return int(self.sums["n"].sum())

    @cached_property
    def mean(self) -> Float[Tensor, " d_out"]:
        """The mean of the target."""
        return torch.from_numpy(self.total.sum(axis=0) / max(self.n, 1)).float()

    @property
    def mean_norm(self) -> float:
        """The root of the mean of the target's squared norm."""
        return float((self.sums["square"].sum() / max(self.n, 1)) ** 0.5)

    @property
    def density(self) -> Float[np.ndarray, " latent"]:
        """Share of the tokens at which each latent is not zero."""
        return self.fires / max(self.n, 1)


SUMS = ("n", "l0", "l1", "error", "square", "made_square", "dot", "cosine", "ratio", "legacy")


def statistics(made: Reconstruction, tokens: TokenizedTexts, *, batch_tokens: int | None = None, progress: Advance | None = None) -> Statistics:  # fmt: skip
    """How near the SAE comes to the activations, in one pass up to its hooks.

    Args:
        tokens: the texts.
        batch_tokens: tokens a batch, padding included; None for what suits the device.
        progress: called with the number of texts that have run.
    """
    d_out, n_texts = made.features.d_out, len(tokens)
    total, about_all, about_special = np.zeros((n_texts, d_out)), Spread.none(d_out), Spread.none(d_out)
    wide = made.features.d_in + (d_out if len(made.hooks) > 1 else 0)
    size = 4 * wide * int(tokens.lengths.sum())
    kept: list[Read] | None = [] if size <= KEPT_BYTES else None
    for one in reads(made, tokens, batch_tokens, progress):
        y = one.target.nan_to_num(posinf=0.0, neginf=0.0).double()
        total[one.batch.texts] = (y * one.counted[..., None]).sum(1).cpu().numpy()
        about_all, about_special = about_all + Spread.of(y, one.real), about_special + Spread.of(y, one.real & ~one.counted)  # fmt: skip
        if kept is not None:
            kept.append(one)
    n = max(int((~tokens.special).sum()), 1)
    mean = torch.from_numpy(total.sum(axis=0) / n)
    sums = {name: np.zeros(n_texts) for name in SUMS}
    fires, fires_in = (torch.zeros(made.features.n_features, dtype=torch.int64) for _ in range(2))
    l0, lost = torch.zeros(1, dtype=torch.int64), 0
    for one in kept if kept is not None else reads(made, tokens, batch_tokens):
        for some, latents, out in made(one.read):
            y, counted = one.target[some].to(out.device).float(), one.counted[some].to(out.device)
            found = compared(y, out, latents, mean.to(out.device).float())
            usable = counted & torch.stack([found["square"], found["made_square"], found["error"]]).isfinite().all(0)
            lost += int((counted & ~usable).sum())
            texts = one.batch.texts[some]
            for name, values in found.items():
                sums[name][texts] = values.masked_fill(~usable, 0).double().sum(1).cpu().numpy()
            active = (latents != 0) & usable[..., None]
            fires += active.sum((0, 1)).cpu()
            fires_in += active.any(1).sum(0).cpu()
            counts = torch.bincount(active.sum(-1)[usable].cpu(), minlength=len(l0))
            counts[: len(l0)] += l0
            l0 = counts
    return Statistics(sums, total, fires.numpy(), fires_in.numpy(), l0.numpy(), about_special.share_of(about_all), lost)


def compared(
    y: Float[Tensor, "text pos d_out"],
    made: Float[Tensor, "text pos d_out"],
    latents: Float[Tensor, "text pos d_sae"],
    mean: Float[Tensor, " d_out"],
) -> dict[str, Float[Tensor, "text pos"]]:
    """What `Statistics.sums` are the sums of, at every position."""
    error, square, made_square = ((x).square().sum(-1) for x in (y - made, y, made))
    return {
        "n": torch.ones_like(square),
        "l0": (latents != 0).sum(-1).float(),
        "l1": latents.abs().float().sum(-1),
        "error": error,
        "square": square,
        "made_square": made_square,
        "dot": (y * made).sum(-1),
        "cosine": cosine_similarity(y, made, dim=-1),
        "ratio": made_square.sqrt() / square.sqrt().clamp(min=1e-4),
        "legacy": 1 - error / (y - mean).square().sum(-1).clamp(min=1e-12),
    }


class Spread(NamedTuple):
    """Number, sum and squared norms of some vectors: enough for their variance about any point."""

    n: int
    total: Float[Tensor, " d_out"]
    square: float

    @classmethod
    def none(cls, d_out: int) -> "Spread":
        """Of no vectors."""
        return cls(0, torch.zeros(d_out, dtype=torch.float64), 0.0)

    @classmethod
    def of(cls, y: Float[Tensor, "text pos d_out"], some: Bool[Tensor, "text pos"]) -> "Spread":
        """Of the vectors at some positions."""
        chosen = y[some]
        return cls(len(chosen), chosen.sum(0).cpu(), float(chosen.square().sum()))

    def __add__(self, other: "Spread") -> "Spread":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Spread(self.n + other.n, self.total + other.total, self.square + other.square)

    def about(self, point: Float[Tensor, " d_out"]) -> float:
        """The sum of their squared distances from a point."""
        return self.square - 2 * float(self.total @ point) + self.n * float(point @ point)

    def share_of(self, whole: "Spread") -> float | None:
        """Their share of the variance of all; None of none."""
        centre = whole.total / max(whole.n, 1)
        variance = whole.about(centre)
        return self.about(centre) / variance if self.n and variance > 0 else None


def weight_cosines(made: Reconstruction) -> dict[str, float]:
    """Mean cosine of each latent's encoder and decoder, where both are in one space, and mean and largest of the largest cosine of a decoder row to another."""
    sae, found = made.sae, dict[str, float]()
    rows = made.sae.W_dec.detach()
    W_enc = getattr(sae, "W_enc", None)
    if made.maps_back and isinstance(W_enc, Tensor) and W_enc.shape == rows.T.shape:
        size = max(1, KEPT_BYTES // (8 * rows.shape[1]))
        parts = [cosine_similarity(W_enc.detach().T[s : s + size].float(), rows[s : s + size].float(), dim=-1) for s in range(0, len(rows), size)]  # fmt: skip
        found["encoder_decoder_cosine"] = float(torch.cat(parts).mean())
    if len(rows) > 1:
        n = int(np.clip(COSINE_FLOPS // (2 * rows.numel()), 256, len(rows)))
        chosen = torch.from_numpy(np.unique(np.linspace(0, len(rows) - 1, n).astype(int))).to(rows.device)
        largest, _ = nearest(unit_rows(rows[chosen]), lambda some: rows[some], len(rows), 1, but=chosen)
        found |= {"decoder_cosine": float(largest.mean()), "decoder_cosine_largest": float(largest.max())}
    return found
