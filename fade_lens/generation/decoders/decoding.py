"""How a batch of texts is decoded: by the model's own forward pass, by the model a bridge wraps, or compactly."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from fade_lens._util.errors import InputError
from fade_lens.generation.decoders.compact import CompactBlock, OwnBlock, Span, compact_blocks
from fade_lens.generation.next_token import Head, Logits, Unembedding
from fade_lens.subject.hooks import Model, device_of, forward_hooks, is_bridge, layer_of, model_name, running

OUTSIDE = (".hook_resid_pre", ".hook_resid_post")
"""Hooks that compact blocks have too."""
CACHED = 0.2
"""How far logits with a cache may be from those without, relative to what tells tokens apart: half precision stays far below, a lost cache far above."""


@runtime_checkable
class Hooks(Protocol):
    """What a decoder needs to know of steering."""

    def hooks(self) -> Sequence[tuple[str, Any]]:
        """Forward hooks by resolved name."""
        ...


class Decoder(ABC):
    """A model that takes a batch of prompts and then a token a row at a time, keeping keys and values between."""

    head: Head

    def __init__(self, model: Model) -> None:
        self._model = cast(Any, model)

    def steered(self, steering: Hooks) -> AbstractContextManager[None]:
        """The time in which the steering's hooks act on this decoder's model."""
        return forward_hooks(self._model, steering.hooks())

    @abstractmethod
    def start(
        self, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"], new_tokens: int
    ) -> Float[Tensor, "row d_state"]:
        """Begin with left-padded prompts, to be followed by `new_tokens`; the state of each row's last position."""

    @abstractmethod
    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        """Append one token to each row; the state of its position."""


class HookedDecoder(Decoder):
    """Any `HookedTransformer` through its own forward pass and cache.

    Only the last position is unembedded, outside the model, unless a hook stands after the blocks (`whole`).
    """

    def __init__(self, model: Model, *, whole: bool) -> None:
        super().__init__(model)
        self._whole = whole
        self.head = Logits(int(model.cfg.d_vocab_out), device_of(model)) if whole else unembedding(self._model)

    def start(
        self,
        tokens: Int[Tensor, "row pos"],
        real: Bool[Tensor, "row pos"],
        new_tokens: int,  # noqa: ARG002
    ) -> Float[Tensor, "row d_state"]:
        self._cache = TransformerLensKeyValueCache.init_cache(self._model.cfg, device_of(self._model), len(tokens))
        return self._forward(tokens, real)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        return self._forward(tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.bool))

    def _forward(self, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"]) -> Float[Tensor, "row d_state"]:
        options: dict[str, Any] = {"attention_mask": real.int(), "past_kv_cache": self._cache}
        if self._whole:
            return self._model(tokens, **options)[:, -1]
        return final_norm(self._model, self._model(tokens, stop_at_layer=self._model.cfg.n_layers, **options))


class BridgeDecoder(Decoder):
    """Any bridge through the Hugging Face model it wraps, with that model's cache, tried on a prompt.

    Raises:
        InputError: with the cache the model says something else than without.
    """

    def __init__(self, model: Model, prompt: tuple[int, ...]) -> None:
        super().__init__(model)
        accepted = inspect.signature(self._model.original_model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        d_vocab = self._model.original_model.get_output_embeddings().weight.shape[0]
        self.head = Logits(int(d_vocab), device_of(model))
        # Without learned positions, to attend to equal tokens is to attend to one: a different one must come before the last.
        tokens, real = left_padded([((prompt[-1] + 1) % d_vocab, *prompt)], device_of(model))
        whole = self.start(tokens, real, 1).float()
        self.start(tokens[:, :-1], real[:, :-1], 1)
        if (self.step(tokens[:, -1]) - whole).norm() > CACHED * (whole - whole.mean()).norm():
            raise InputError(
                f"the bridge around {model_name(model)} loses its key-value cache, so that steered texts would be wrong: "
                f"transformers {version('transformers')} does not go with TransformerLens {version('transformer-lens')}. "
                "Install fade-lens' own requirements again, or take a HookedTransformer"
            )

    def start(
        self,
        tokens: Int[Tensor, "row pos"],
        real: Bool[Tensor, "row pos"],
        new_tokens: int,  # noqa: ARG002
    ) -> Float[Tensor, "row d_state"]:
        self._cache, self._real = None, real.long()
        return self._forward(tokens)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        self._real = F.pad(self._real, (0, 1), value=1)
        return self._forward(tokens[:, None])

    def _forward(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row d_state"]:
        logits, self._cache = self._model(
            tokens,
            attention_mask=self._real,
            past_key_values=self._cache,
            use_cache=True,
            return_type="logits_and_cache",
            **self._options,
        )
        if self._cache is None:
            raise InputError(f"{model_name(self._model)} keeps no key-value cache, which steered generation needs.")
        return logits[:, -1]


class CompactDecoder(Decoder):
    """A `HookedTransformer` a block at a time: compactly where nothing inside is hooked, as they are where something is.

    Up to the first hook equal prompts are equal whatever the steering, so each runs once.
    """

    def __init__(self, model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]]) -> None:
        super().__init__(model)
        tokens, real = left_padded(prompts, device_of(model))
        self._blocks = compact_blocks(self._model, tokens, real)
        layers = [layer_of(name) for name in hooks]
        for name, layer in zip(hooks, layers, strict=True):
            if layer is not None and not name.endswith(OUTSIDE):
                self._blocks[layer] = OwnBlock(self._model.blocks[layer])
        # How many blocks come before the first hook; one on what leaves a compact block has that block before it.
        leaving = [name.endswith(".hook_resid_post") for name in hooks]
        self._unsteered = min(
            -1 if layer is None else layer + (leaves and isinstance(self._blocks[layer], CompactBlock))
            for layer, leaves in zip(layers, leaving, strict=True)
        )
        self.head = unembedding(self._model)
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}

    def steered(self, steering: Hooks) -> AbstractContextManager[None]:
        self._shared = self._unsteered if steering.hooks() else len(self._blocks)
        return super().steered(steering)

    def start(
        self, tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"], new_tokens: int
    ) -> Float[Tensor, "row d_state"]:
        padded, (rows, pos) = not bool(real.all()), tokens.shape
        self._real, self._before, total = real if padded else None, pos, pos + new_tokens
        prompts, prompt_of = torch.where(real, tokens, -1), torch.arange(rows, device=tokens.device)
        if self._shared >= 0:
            prompts, prompt_of = prompts.unique(dim=0, return_inverse=True)
        lower, upper = self._blocks[: max(0, self._shared)], self._blocks[max(0, self._shared) :]
        span = self._span(0, pos, prompts >= 0 if padded else None)
        residual = self._embedded(prompts.clamp(min=0), span)
        for block in lower:
            block.begin(len(prompts), total)
            residual = block.through(residual, span)
            block.spread(prompt_of)
        residual, span = residual[prompt_of], self._span(0, pos, self._real)
        if lower:  # nothing else in them is hooked
            residual = lower[-1].leave(residual)
        for block in upper:
            block.begin(rows, total)
            residual = block(residual, span)
        return final_norm(self._model, residual)

    def step(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row d_state"]:
        if self._real is not None:
            self._real = F.pad(self._real, (0, 1), value=True)
        span = self._span(self._before, 1, self._real)
        self._before += 1
        residual = self._embedded(tokens[:, None], span)
        for block in self._blocks:
            residual = block(residual, span)
        return final_norm(self._model, residual)

    def states(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d_state"]:
        """What the head takes, at every position of whole texts that need no padding; the batch before is forgotten."""
        span = self._span(0, tokens.shape[1], None)
        residual = self._embedded(tokens, span)
        for block in self._blocks:
            block.begin(len(tokens), tokens.shape[1])
            residual = block(residual, span)
        return residual if self._model.cfg.normalization_type is None else self._model.ln_final(residual)

    def _span(self, before: int, pos: int, real: Bool[Tensor, "row all_pos"] | None) -> Span:
        return Span(before, pos, real, device_of(self._model), self._tables)

    def _embedded(self, tokens: Int[Tensor, "row pos"], span: Span) -> Float[Tensor, "row pos d_model"]:
        model = self._model
        real = None if span.real is None else span.real.int()
        embedded = model.hook_embed(model.embed(tokens))
        options = {"attention_mask": real, "tokens": tokens, "return_shortformer_pos_embed": False}
        return model.get_residual(embedded, span.before, **options)


def decoder_of(model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]]) -> Decoder:
    """The fastest decoder for a model that will have forward hooks at these resolved names, tried on the prompts."""
    with running(model):
        if is_bridge(model):
            return BridgeDecoder(model, prompts[-1])
        after_blocks = any(layer_of(h) is None and not h.startswith(("hook_embed", "hook_pos_embed")) for h in hooks)
        if after_blocks or has_hooks(model):
            return HookedDecoder(model, whole=True)
        if model.cfg.positional_embedding_type == "shortformer" or getattr(model.cfg, "n_devices", 1) > 1:
            return HookedDecoder(model, whole=False)
        return CompactDecoder(model, hooks, prompts)


def has_hooks(model: Model) -> bool:
    """Whether anybody's hook is attached to the model now, at a hook point or as a plain torch hook."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in cast(torch.nn.Module, model).modules())


def unembedding(model: Any) -> Unembedding:
    """From the normed final residual of a `HookedTransformer` to its logits."""
    return Unembedding(model.W_U, model.b_U, float(model.cfg.output_logits_soft_cap or 0))


def final_norm(model: Any, residual: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row d_model"]:
    """The last position of a `HookedTransformer`'s final residual stream, as its unembedding takes it."""
    last = residual[:, -1:]
    return (last if model.cfg.normalization_type is None else model.ln_final(last))[:, 0]


def left_padded(
    prompts: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """The prompts in one tensor, padded on the left with any token, and which positions are no padding."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([(0,) * (longest - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    return tokens, torch.arange(longest, device=device) >= longest - lengths[:, None]
