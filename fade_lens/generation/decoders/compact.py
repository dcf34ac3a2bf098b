"""A `HookedTransformer` a block at a time, with few large operations: several times faster than its own forward pass."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens.generation.decoders.base import Decoder, Hooks, Real, State, Tokens, final_norm, left_padded, unembedding
from fade_lens.generation.decoders.blocks import CompactBlock, Layer, OwnBlock, Span, compact_blocks
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
        self._room = (0, 0)  # rows and positions that there is memory for

    @contextmanager
    def steered(self, steering: Hooks) -> Generator[None]:
        self._shared = self._unsteered if steering.hooks() else len(self._blocks)
        try:
            with super().steered(steering):
                yield
        except RuntimeError:  # memory may have run out: a smaller batch needs that of this one
            self._make_room(0, 0)
            raise

    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:
        padded, (rows, pos) = not bool(real.all()), tokens.shape
        total = pos + new_tokens
        self._before, self._real = pos, F.pad(real, (0, new_tokens), value=True) if padded else None
        if rows > self._room[0] or total > self._room[1]:
            self._make_room(max(rows, self._room[0]), max(total, self._room[1]))
        prompts, prompt_of = torch.where(real, tokens, -1), torch.arange(rows, device=tokens.device)
        if self._shared >= 0:
            prompts, prompt_of = prompts.unique(dim=0, return_inverse=True)
        lower, upper = self._blocks[: max(0, self._shared)], self._blocks[max(0, self._shared) :]
        span = self._span(0, pos, prompts >= 0 if padded else None)
        residual = self._embedded(prompts.clamp(min=0), span)
        for block in lower:
            self._begin(block, len(prompts))
            residual = block.through(residual, span)
            block.spread(prompt_of)
        residual, span = residual[prompt_of], self._span(0, pos, real if padded else None)
        if lower:  # nothing else in them is hooked
            residual = lower[-1].leave(residual)
        for block in upper:
            self._begin(block, rows)
            residual = block(residual, span)
        return final_norm(self.model, residual[:, -1:])[:, 0]

    def step(self, tokens: Int[Tensor, " row"]) -> State:
        self._before += 1
        return self._state(tokens, self._before - 1)

    def states(self, tokens: Tokens) -> Float[Tensor, "row pos d_state"]:
        span = self._span(0, tokens.shape[1], None, cached=False)
        residual = self._embedded(tokens, span)
        for block in self._blocks:
            residual = block(residual, span)
        return final_norm(self.model, residual)

    def _state(self, tokens: Int[Tensor, " row"], before: int) -> State:
        """The state of each row's token that comes after so many positions."""
        span = self._span(before, 1, None if self._real is None else self._real[:, : before + 1])
        residual = self._embedded(tokens[:, None], span)
        for block in self._blocks:
            residual = block(residual, span)
        return final_norm(self.model, residual)[:, 0]

    def _make_room(self, rows: int, total: int) -> None:
        """Memory for the keys and values of `rows` texts of `total` positions, which smaller batches use too; it moves here alone."""
        self._room = rows, total
        for block in self._blocks:
            self._begin(block, 0)

    def _begin(self, block: Layer, rows: int) -> None:
        room, total = self._room
        block.begin(rows, total, room)

    def _span(self, before: int, pos: int, real: Bool[Tensor, "row all_pos"] | None, *, cached: bool = True) -> Span:
        return Span(before, pos, real, device_of(self.model), self._tables, cached=cached, expected=self._room[1])

    def _embedded(self, tokens: Tokens, span: Span) -> Float[Tensor, "row pos d_model"]:
        model = self.model
        real = None if span.real is None else span.real.int()
        embedded = model.hook_embed(model.embed(tokens))
        options = {"attention_mask": real, "tokens": tokens, "return_shortformer_pos_embed": False}
        return model.get_residual(embedded, span.before, **options)
