"""The last step of a model: from the state of a position to the logits of its next token."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.activation_functions import apply_softcap

from fade_lens.generation.decoders.linear import linear, packed
from fade_lens.subject.memory import CHUNK

CPU_CHUNK = 8192
"""As `CHUNK`, on a CPU: few enough that their logits stay in the processor's cache (all of Gemma's for 350 rows are 367 MB)."""


class Head(ABC):
    """From the state of a position to the logits of the token after it, a chunk of the vocabulary at a time.

    Attributes:
        d_vocab: how many tokens have logits.
        d_state: numbers in a state.
        chunk: tokens whose logits are made at a time.
        starts: the first token id of each chunk.
    """

    def __init__(self, d_vocab: int, d_state: int, device: torch.device) -> None:
        self.d_vocab, self.d_state, self.device = d_vocab, d_state, device
        self.chunk = CPU_CHUNK if device.type == "cpu" else CHUNK
        self.starts = range(0, d_vocab, self.chunk)

    @abstractmethod
    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        """A new tensor with the logits of the chunk's tokens, float32 or wider."""

    def log_probabilities(self, state: Float[Tensor, "row d_state"]) -> Float[Tensor, "row token"]:
        """Of every token of the vocabulary: for a few rows, since all logits are in memory at once."""
        return torch.cat([self.logits(state, start) for start in self.starts], dim=1).log_softmax(-1)

    def order(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        """A new tensor in the order of the chunk's logits, of any precision: all that greedy decoding needs."""
        return self.logits(state, start)


class Logits(Head):
    """The state is the logits themselves."""

    def __init__(self, d_vocab: int, device: torch.device) -> None:
        super().__init__(d_vocab, d_vocab, device)

    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        return state[:, start : start + self.chunk].to(torch.float32, copy=True)


class Unembedding(Head):
    """The state is the final residual after its norm; logits are made by W_U, b_U and the model's soft cap."""

    def __init__(self, W_U: Float[Tensor, "d_model d_vocab"], b_U: Float[Tensor, " d_vocab"], soft_cap: float) -> None:
        super().__init__(W_U.shape[1], W_U.shape[0], W_U.device)
        self._soft_cap, self._b_U = soft_cap, b_U.detach() if bool(b_U.any()) else None
        self._by_token = W_U.detach().T

    # Some hundred megabytes, so made only when they are needed.
    @cached_property
    def _chunks(self) -> dict[int, Float[Tensor, "chunk d_model"]]:
        return {start: packed(self._by_token[start : start + self.chunk]) for start in self.starts}

    def logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        return apply_softcap(self.order(state, start).float(), self._soft_cap)

    def order(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        bias = None if self._b_U is None else self._b_U[start : start + self.chunk]
        return linear(state, self._chunks[start], bias)
