"""What every decoder offers, and what steered generation asks of it."""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens.generation.decoders.heads import Head, Unembedding
from fade_lens.subject.hooks import Model, forward_hooks

Tokens = Int[Tensor, "row pos"]
Real = Bool[Tensor, "row pos"]
"""Which positions are no padding."""
State = Float[Tensor, "row d_state"]
"""What a `Head` makes logits of, for one position of each row."""


@runtime_checkable
class Hooks(Protocol):
    """What a decoder needs to know of steering."""

    def hooks(self) -> Sequence[tuple[str, Any]]:
        """Forward hooks, each with the model's own name of its hook point, in the order in which they fire."""
        ...


@runtime_checkable
class Recordable(Hooks, Protocol):
    """Steering of which a step can be recorded once and replayed for other batches.

    Attributes:
        tensors: all that its hooks read at a step and that changes from batch to batch. A decoder may put others of equal values in
            their place, which it has recorded.
        kind: what else the hooks depend on, the same object or an equal one for every batch; None where a step cannot be recorded.
    """

    tensors: list[Tensor]
    kind: Hashable | None


@runtime_checkable
class Decoder(Protocol):
    """A model that takes a batch of prompts and then a token a row at a time, keeping keys and values between.

    A decoder is made once for a model and the hook points of a run's steering, and decodes one batch after another. A new
    batch forgets the one before. Its shape, rows by prompt and new tokens, is known at `start`: a decoder may keep its
    buffers for the next batch of the same shape.

    Attributes:
        model: the model, which must not change while the decoder is in use: neither its weights nor its hooks.
        head: makes logits of the states that `start`, `step` and `states` return.
        most_rows: rows of a batch for which memory has sufficed, once it has run out.
    """

    model: Any
    head: Head
    most_rows: int = 2**31

    def steered(self, steering: Hooks) -> AbstractContextManager[None]:
        """The time in which the steering's hooks act on the decoder's model."""
        return forward_hooks(self.model, steering.hooks())

    @abstractmethod
    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:
        """Begin a batch.

        Args:
            tokens: prompts, padded on the left with any token (see `left_padded`).
            real: which positions are no padding.
            new_tokens: how many tokens a row follow at most.

        Returns:
            The state of each row's last position, for `head`.
        """
        ...

    @abstractmethod
    def step(self, tokens: Int[Tensor, " row"]) -> State:
        """Append one token to each row; the state of its position, for `head`."""
        ...

    @abstractmethod
    def states(self, tokens: Tokens) -> Float[Tensor, "row pos d_state"]:
        """The state of every position of whole texts of equal length, for `head`; ends the batch."""
        ...


def unembedding(model: Model) -> Unembedding:
    """From the normed final residual stream of a `HookedTransformer` to its logits."""
    hooked: Any = model
    return Unembedding(hooked.W_U, hooked.b_U, float(hooked.cfg.output_logits_soft_cap or 0))


def final_norm(model: Model, residual: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
    """The final residual stream of a `HookedTransformer` as its unembedding takes it."""
    hooked: Any = model
    return residual if hooked.cfg.normalization_type is None else hooked.ln_final(residual)


def left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tokens, Real]:
    """The prompts in one tensor, padded on the left with any token, and which positions are no padding."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([(0,) * (longest - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    return tokens, torch.arange(longest, device=device) >= longest - lengths[:, None]
