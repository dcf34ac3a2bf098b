"""A `HookedTransformer` a block at a time, with few large operations: several times faster than its own forward pass."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens.generation.decoders.base import Decoder, Hooks, Real, State, Tokens, final_norm, left_padded, unembedding
from fade_lens.generation.decoders.blocks import CompactBlock, OwnBlock, Span, compact_blocks
from fade_lens.subject.hooks import Model, device_of, layer_of

OUTSIDE = (".hook_resid_pre", ".hook_resid_post")
"""Hooks that compact blocks have too."""


class CompactDecoder(Decoder):
    """Blocks run compactly where nothing inside is hooked, as TransformerLens runs them where something is.

    Up to the first hook equal prompts are equal whatever the steering, so each runs once.

    Args:
        hooks: resolved names of the hook points that steering uses.
        prompts: texts on which each compact block is compared with the block itself.
    """

    def __init__(self, model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]]) -> None:
        self.model: Any = model
        tokens, real = left_padded(prompts, device_of(model))
        self._blocks = compact_blocks(self.model, tokens, real)
        layers = [layer_of(name) for name in hooks]
        for name, layer in zip(hooks, layers, strict=True):
            if layer is not None and not name.endswith(OUTSIDE):
                self._blocks[layer] = OwnBlock(self.model.blocks[layer])
        # How many blocks come before the first hook; one on what leaves a compact block has that block before it.
        leaving = [name.endswith(".hook_resid_post") for name in hooks]
        before = (
            -1 if layer is None else layer + (leaves and isinstance(self._blocks[layer], CompactBlock))
            for layer, leaves in zip(layers, leaving, strict=True)
        )
        self._unsteered = min(before, default=len(self._blocks))
        self.head = unembedding(model)
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}

    def steered(self, steering: Hooks) -> AbstractContextManager[None]:
        self._shared = self._unsteered if steering.hooks() else len(self._blocks)
        return super().steered(steering)

    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:
        padded, (rows, pos) = not bool(real.all()), tokens.shape
        self._real, self._before, total = real if padded else None, pos, pos + new_tokens
        prompts, prompt_of = torch.where(real, tokens, -1), torch.arange(rows, device=tokens.device)
        if self._shared >= 0:
            prompts, prompt_of = prompts.unique(dim=0, return_inverse=True)
        lower, upper = self._blocks[: max(0, self._shared)], self._blocks[max(0, self._shared) :]
        span = self._span(0, pos, prompts >= 0 if padded else None)
        residual = self._embedded(prompts.clamp(min=0), span)
        for block in lower:
            block.begin(len(prompts), total, rows)
            residual = block.through(residual, span)
            block.spread(prompt_of)
        residual, span = residual[prompt_of], self._span(0, pos, self._real)
        if lower:  # nothing else in them is hooked
            residual = lower[-1].leave(residual)
        for block in upper:
            block.begin(rows, total, rows)
            residual = block(residual, span)
        return final_norm(self.model, residual[:, -1:])[:, 0]

    def step(self, tokens: Int[Tensor, " row"]) -> State:
        if self._real is not None:
            self._real = F.pad(self._real, (0, 1), value=True)
        span = self._span(self._before, 1, self._real)
        self._before += 1
        residual = self._embedded(tokens[:, None], span)
        for block in self._blocks:
            residual = block(residual, span)
        return final_norm(self.model, residual)[:, 0]

    def states(self, tokens: Tokens) -> Float[Tensor, "row pos d_state"]:
        span = self._span(0, tokens.shape[1], None)
        residual = self._embedded(tokens, span)
        for block in self._blocks:
            block.begin(len(tokens), tokens.shape[1], len(tokens))
            residual = block(residual, span)
        return final_norm(self.model, residual)

    def _span(self, before: int, pos: int, real: Bool[Tensor, "row all_pos"] | None) -> Span:
        return Span(before, pos, real, device_of(self.model), self._tables)

    def _embedded(self, tokens: Tokens, span: Span) -> Float[Tensor, "row pos d_model"]:
        model = self.model
        real = None if span.real is None else span.real.int()
        embedded = model.hook_embed(model.embed(tokens))
        options = {"attention_mask": real, "tokens": tokens, "return_shortformer_pos_embed": False}
        return model.get_residual(embedded, span.before, **options)
