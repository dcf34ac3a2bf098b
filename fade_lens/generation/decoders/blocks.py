"""The blocks of a `HookedTransformer` computed with few large operations, several times faster than by themselves.

A `CompactBlock` makes queries, keys and values in one product, keeps rotated keys in a buffer that never grows, and
copies no weight at a step. Hooks on what enters and leaves the block act as they do on the block itself. A block with a
hook inside, of another kind, or that does not agree with its compact form on the run's own prompts, runs as it is (`OwnBlock`).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components import (
    Attention,
    GroupedQueryAttention,
    LayerNorm,
    LayerNormPre,
    RMSNorm,
    RMSNormPre,
    TransformerBlock,
)
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.components.mlps.mlp import MLP

from fade_lens.generation.decoders.attention import attended, attended_at_once
from fade_lens.generation.decoders.linear import Activation, linear, packed
from fade_lens.subject.hooks import at_least_float32

logger = logging.getLogger(__name__)

Residual = Float[Tensor, "row pos d_model"]
Operation = Callable[[Tensor], Tensor]

# Settings that change what a block computes and that a compact block does not know.
UNKNOWN_SETTINGS = (
    "load_in_4bit",
    "use_attention_sinks",
    "use_logn_attn",
    "use_dynamic_ntk_rope",
    "clip_qkv",
    "num_experts",
)
# How far a compact block may be from the block itself, relative to what the block adds to the residual stream.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}


class Span:
    """The positions that pass through the blocks now.

    Args:
        before: how many earlier positions have passed.
        pos: how many pass now.
        real: which positions, earlier ones included, are no padding; None if none is padding.
        tables: sines and cosines of rotary embeddings, kept from one span to the next.
        cached: whether later positions will attend to these.
    """

    def __init__(
        self,
        before: int,
        pos: int,
        real: Bool[Tensor, "row all_pos"] | None,
        device: torch.device,
        tables: dict[Any, tuple[Tensor, Tensor]],
        *,
        cached: bool = True,
        expected: int = 0,
    ) -> None:
        self.before, self.pos, self.real, self.cached, self._device = before, pos, real, cached, device
        self._expected = expected
        # Most blocks need the same masks and angles: each is made once; tables of angles are kept between spans.
        self._masks: dict[int | None, Tensor | None] = {}
        self._angles: dict[Any, tuple[Tensor, Tensor]] = {}
        self._tables = tables

    def mask(self, window: int | None) -> Bool[Tensor, "#row 1 pos all_pos"] | None:
        """Which positions each position attends to: the real ones up to itself, in the window; None for all of them.

        Args:
            window: how many positions a local attention sees, its own included; None: no limit.
        """
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        return self._masks[window]

    def _mask(self, window: int | None) -> Bool[Tensor, "#row 1 pos all_pos"] | None:
        total = self.before + self.pos
        if self.real is None and self.pos == 1 and (window is None or total <= window):
            return None
        keys = torch.arange(total, device=self._device)
        queries = keys[self.before :, None]
        mask = keys <= queries
        if window is not None:
            mask &= keys > queries - window
        if self.real is None:
            return mask[None, None]
        # Padding attends to itself: attending to nothing would make NaN of it.
        return ((mask & self.real[:, None, :]) | (keys == queries))[:, None]

    def angles(self, attn: Any) -> tuple[Float[Tensor, "#row pos 1 rotary"], Float[Tensor, "#row pos 1 rotary"]]:
        """Sine and cosine for the attention's rotary embedding at each position; sines have the sign with which numbers that change places count."""
        total, cfg = self.before + self.pos, attn.cfg
        local = attn.attn_type == "local" and cfg.rotary_base_local is not None
        base = cfg.rotary_base_local if local else cfg.rotary_base
        kind = (base, attn.attn_type)
        if kind not in self._angles:
            if kind not in self._tables or len(self._tables[kind][0]) < total:
                room = max(2 * total, self._expected)
                sin, cos = attn.calculate_sin_cos_rotary(cfg.rotary_dim, room, base=base, dtype=cfg.dtype)
                (sin[:, ::2] if cfg.rotary_adjacent_pairs else sin[:, : cfg.rotary_dim // 2]).neg_()
                self._tables[kind] = sin.to(self._device), cos.to(self._device)
            sin, cos = self._tables[kind]
            self._angles[kind] = sin[self.positions()][:, :, None], cos[self.positions()][:, :, None]
        return self._angles[kind]

    def positions(self) -> Int[Tensor, "#row pos"]:
        """Each position's number in its own text; 0 for padding."""
        if self.real is None:
            return torch.arange(self.before, self.before + self.pos, device=self._device)[None]
        return (self.real.long().cumsum(-1) - 1).clamp(min=0)[:, self.before :]


class Layer(ABC):
    """A block with the keys and values of the texts that are being decoded."""

    @abstractmethod
    def begin(self, rows: int, total: int, room: int) -> None:
        """Forget all texts, and begin with `rows`, where there is room for `room` rows of `total` positions."""

    @abstractmethod
    def spread(self, rows: Int[Tensor, " row"]) -> None:
        """From now on there is a text for each entry: a copy of the given row."""

    @abstractmethod
    def through(self, residual: Residual, span: Span) -> Residual:
        """The residual stream at the end of the block. Hooks on what leaves the block act in `leave`; those of an `OwnBlock` act here."""

    def leave(self, residual: Residual) -> Residual:
        """What hooks make of the residual stream that leaves the block, where `through` did not run them."""
        return residual

    def __call__(self, residual: Residual, span: Span) -> Residual:
        """The residual stream after the block."""
        return self.leave(self.through(residual, span))


class OwnBlock(Layer):
    """The block as TransformerLens runs it, hooks included."""

    def __init__(self, block: TransformerBlock) -> None:
        self._block = block

    def begin(self, rows: int, total: int, room: int) -> None:  # noqa: ARG002
        device = next(self._block.parameters()).device
        self._entry = TransformerLensKeyValueCacheEntry.init_cache_entry(self._block.cfg, device, rows)

    def spread(self, rows: Int[Tensor, " row"]) -> None:
        self._entry.past_keys, self._entry.past_values = self._entry.past_keys[rows], self._entry.past_values[rows]

    def through(self, residual: Residual, span: Span) -> Residual:
        real = None if span.real is None else span.real.int()
        return self._block(residual, past_kv_cache_entry=self._entry if span.cached else None, attention_mask=real)


class CompactBlock(Layer):
    """The common kinds of block: LayerNorm or RMSNorm, before or before and after; rotary or no positions; grouped
    queries; query and key norms; local windows; soft caps; an MLP, gated or not, after or beside the attention."""

    def __init__(self, block: TransformerBlock) -> None:
        cfg, attn = cast(Any, block.cfg), cast(Any, block.attn)
        self._entered, self._left = block.hook_resid_pre, block.hook_resid_post
        self._attn, self._d_head, self._n_heads = attn, cfg.d_head, cfg.n_heads
        self._rotary_dim = cfg.rotary_dim if cfg.positional_embedding_type == "rotary" else None
        self._adjacent, soft_cap = bool(cfg.rotary_adjacent_pairs), max(0.0, float(cfg.attn_scores_soft_cap or 0))
        fused = not soft_cap and attn.W_O.device.type != "cpu"
        self._attended = attended_at_once if fused else partial(attended, soft_cap=soft_cap)
        self._window = cfg.window_size if attn.attn_type == "local" else None
        # Heads of keys and values that several queries share are repeated in these attributes: each is taken once.
        once = slice(None, None, getattr(attn, "repeat_kv_heads", 1))
        heads = [(attn.W_Q, attn.b_Q), (attn.W_K[once], attn.b_K[once]), (attn.W_V[once], attn.b_V[once])]
        self._n_kv = len(heads[1][0])
        self._W_QKV = packed(torch.cat([rearrange(w.detach(), "head d e -> (head e) d") for w, _ in heads]))
        self._b_QKV = unless_zero(torch.cat([rearrange(b.detach(), "head e -> (head e)") for _, b in heads]))
        self._W_O, self._b_O = packed(rearrange(attn.W_O.detach(), "head e d -> (head e) d").T), unless_zero(attn.b_O)
        # A CPU multiplies many small matrices faster in float32 than in half precision.
        half = attn.W_O.device.type == "cpu" and attn.W_O.dtype.itemsize == 2
        self._past = attn.W_O.new_empty(0, dtype=torch.float32 if half else None)
        self._qk_scale: Tensor | None = None
        if cfg.use_qk_norm:
            norms: Any = ((attn.q_norm, self._n_heads), (attn.k_norm, self._n_kv))
            self._qk_scale = torch.cat([norm.w.detach().expand(count, -1) for norm, count in norms])
        self._ln1, self._ln1_post = norm_of(block.ln1), norm_of(getattr(block, "ln1_post", None))
        self._parallel = bool(cfg.parallel_attn_mlp)
        self._mlp: Operation | None = None
        if not cfg.attn_only:
            self._ln2, self._ln2_post = norm_of(block.ln2), norm_of(getattr(block, "ln2_post", None))
            self._mlp = mlp_of(block.mlp)

    def begin(self, rows: int, total: int, room: int) -> None:  # noqa: ARG002
        # Keys and values, one after the other; texts and heads in one axis, as the products want them. While the room is the
        # same, so is the memory.
        shape = (2, room * self._n_kv, total, self._d_head)
        if self._past.shape != shape:
            self._past = self._past.new_empty(shape)

    def spread(self, rows: Int[Tensor, " row"]) -> None:
        past = rearrange(
            self._past[:, :, : self._filled], "both (row head) pos e -> both row head pos e", head=self._n_kv
        )
        past[:, : len(rows)] = past[:, rows]

    def leave(self, residual: Residual) -> Residual:
        return self._left(residual)

    def through(self, residual: Residual, span: Span) -> Residual:
        residual = self._entered(residual)
        after_attention = residual + self._ln1_post(self._attend(self._ln1(residual), span))
        if self._mlp is None:
            return after_attention
        mlp_in = residual if self._parallel else after_attention
        return after_attention + self._ln2_post(self._mlp(self._ln2(mlp_in)))

    def _attend(self, x: Residual, span: Span) -> Residual:
        rows, stop, heads = len(x), span.before + span.pos, {"head": self._n_kv}
        qkv = rearrange(linear(x, self._W_QKV, self._b_QKV), "row pos (head e) -> row pos head e", e=self._d_head)
        qkv = qkv.to(self._past.dtype)
        self._turn(qkv[:, :, : -self._n_kv], span)
        kv = rearrange(qkv[:, :, self._n_heads :], "row pos (both head) e -> both row head pos e", both=2)
        if span.cached:
            past = self._past[:, : rows * self._n_kv].unflatten(1, (rows, -1))
            past[:, :, :, span.before : stop] = kv
            self._filled, kv = stop, past[:, :, :, :stop]
        # Queries that share a key head stand in one matrix with it, so that keys and values are never repeated.
        q = rearrange(qkv[:, :, : self._n_heads], "row pos (head group) e -> row head (group pos) e", **heads)
        scale, (keys, values) = 1 / float(self._attn.attn_scale), kv
        z = self._attended(q, keys, values, span.mask(self._window), scale).to(x.dtype)
        z = rearrange(z, "row head (group pos) e -> row pos (head group e)", pos=span.pos)
        return linear(z, self._W_O, self._b_O)

    def _turn(self, x: Float[Tensor, "row pos head e"], span: Span) -> None:
        """Norm queries and keys and rotate them by their positions.

        In place: a CPU takes longer to find memory for as many numbers than to compute them.
        """
        if self._qk_scale is not None:
            x.mul_(inverse_rms(x, self._attn.q_norm.eps)).mul_(self._qk_scale)
        if self._rotary_dim is not None:
            sin, cos = span.angles(self._attn)
            turned = x[..., : self._rotary_dim]
            if self._adjacent:  # the two numbers of each pair change places
                swapped = turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
            else:
                swapped = torch.cat(turned.chunk(2, dim=-1)[::-1], dim=-1)
            turned.mul_(cos).addcmul_(swapped, sin)


def unless_zero(bias: Tensor) -> Tensor | None:
    """The bias, or None if adding it does nothing."""
    return bias.detach() if bool(bias.any()) else None


def norm_of(norm: nn.Module | None) -> Operation:
    """The norm without its hooks; the identity where there is none."""
    parts: Any = norm
    if norm is None or type(norm) is nn.Identity:
        return nn.Identity()
    if type(norm) in (RMSNorm, RMSNormPre):
        return partial(rms_norm, scale=parts.w.detach() if type(norm) is RMSNorm else None, eps=parts.eps)
    if type(norm) in (LayerNorm, LayerNormPre):
        scale, shift = (parts.w.detach(), parts.b.detach()) if type(norm) is LayerNorm else (None, None)
        return lambda x: F.layer_norm(x, x.shape[-1:], scale, shift, parts.eps)
    raise NotImplementedError(type(norm).__name__)


def rms_norm(x: Residual, scale: Float[Tensor, " d_model"] | None, eps: float) -> Residual:
    """x / √(mean x² + eps) · scale, as `torch.nn.functional.rms_norm` computes it.

    On a CPU that one writes each step to memory of its own, which for thousands of numbers takes longer to find than to fill.
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], scale, eps)
    inverse = inverse_rms(x, eps)
    normed = x * inverse if x.dtype == inverse.dtype else x.to(inverse.dtype).mul_(inverse)
    return (normed if scale is None else normed.mul_(scale)).to(x.dtype)


def inverse_rms(x: Float[Tensor, "*batch d"], eps: float) -> Float[Tensor, "*batch 1"]:
    """1 / √(mean x² + eps), in float32 or wider."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=at_least_float32(x[:0]).dtype)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def mlp_of(mlp: nn.Module) -> Operation:
    """The MLP without its hooks."""
    parts: Any = mlp
    if type(mlp) not in (MLP, GatedMLP) or parts.cfg.is_layer_norm_activation():
        raise NotImplementedError(f"{type(mlp).__name__} with {parts.cfg.act_fn}")
    b_in, W_out, b_out = unless_zero(parts.b_in), packed(parts.W_out.detach().T), unless_zero(parts.b_out)
    W_in, activated = packed(parts.W_in.detach().T), activated_linear(parts.cfg.act_fn, parts.act_fn)
    if type(mlp) is MLP:
        return lambda x: linear(activated(x, W_in, b_in), W_out, b_out)
    W_gate = packed(parts.W_gate.detach().T)

    def gated(x: Tensor) -> Tensor:
        hidden = activated(x, W_gate, None) * linear(x, W_in)
        return linear(hidden if b_in is None else hidden + b_in, W_out, b_out)

    return gated


FUSED: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
}
"""TransformerLens' activations that `linear` can apply; it writes some of them out in eight operations."""


def activated_linear(name: str, activation: Operation) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """A linear map followed by the activation."""
    if name in FUSED:
        return partial(linear, activation=FUSED[name])
    return lambda x, weight, bias: activation(linear(x, weight, bias))


def compact_blocks(model: Any, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"]) -> list[Layer]:
    """The model's blocks, each compact if it can be and if its compact form agrees with it on the given texts."""
    names = [f"blocks.{i}.hook_resid_{at}" for i in range(model.cfg.n_layers) for at in ("pre", "post")]
    options = {"names_filter": names, "stop_at_layer": model.cfg.n_layers, "return_cache_object": False}
    _, cache = model.run_with_cache(tokens, attention_mask=real.int(), **options)
    layers: list[Layer] = []
    for block, before, after in zip(model.blocks, names[::2], names[1::2], strict=True):
        compact = compact_form(block)
        if compact is not None and not agrees(compact, cache[before], cache[after], real):
            logger.warning("%s differs from its compact form and is run as it is; please report the model", before)
            compact = None
        layers.append(compact or OwnBlock(block))
    return layers


def compact_form(block: TransformerBlock) -> CompactBlock | None:
    """The block's compact form, or None if it is of a kind that has none."""
    cfg: Any = block.cfg
    known = (
        type(block) is TransformerBlock
        and type(block.attn) in (Attention, GroupedQueryAttention)
        and cfg.positional_embedding_type in ("standard", "rotary")
        and cfg.attention_dir == "causal"
        and not any(getattr(cfg, name, None) for name in UNKNOWN_SETTINGS)
        and (bool(cfg.use_qk_norm) or getattr(block.attn, "q_norm", None) is None)  # OLMo norms all heads together
    )
    try:
        return CompactBlock(block) if known else None
    except NotImplementedError as error:
        logger.info("A block is run as it is, for it has no compact form: %s", error)
        return None


def agrees(layer: Layer, before: Residual, after: Residual, real: Bool[Tensor, "row pos"]) -> bool:
    """Whether the layer turns `before` into `after`: all positions but the last at once, then the last one with the cache.

    Args:
        before, after: the residual stream as it enters and leaves the block itself.
        real: which positions are no padding; the others are not compared.
    """
    rows, pos = real.shape
    layer.begin(rows, pos, rows)
    parts = [slice(0, pos - 1), slice(pos - 1, pos)] if pos > 1 else [slice(0, 1)]
    found = torch.cat(
        [layer(before[:, p], Span(p.start, p.stop - p.start, real[:, : p.stop], real.device, {})) for p in parts], dim=1
    )
    layer.begin(0, 0, 0)
    error, added = (found - after)[real].float().norm(dim=-1), (after - before)[real].float().norm(dim=-1)
    rounding = 4 * torch.finfo(after.dtype).eps * after[real].float().norm(dim=-1)
    return bool((error <= TOLERANCE[after.dtype] * added + rounding).all())
