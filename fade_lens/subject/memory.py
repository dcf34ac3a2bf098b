"""How much runs at a time: what keeps a device busy, as far as its memory has room.

A CPU is fastest on what its cache holds, whatever its memory. On a CUDA device bytes are estimated from the model's shape,
rounded so that a little more or less free memory does not change a batch, and with it the rounding of what is computed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from fade_lens.subject.hooks import Model, device_of, dtype_of

LARGEST_ROWS = {"cpu": 256, "cuda": 4096}
"""Continuations at a time: beyond it nothing is gained. Elsewhere `OTHER_ROWS`, and what is too much is found by trying."""
OTHER_ROWS = 1024
TOKENS_ON_CPU, TOKENS_ON_ACCELERATOR = 2048, 16384
"""Tokens of texts at a time, padding included, at most; with so many the products of a model of 2B parameters take most of a GPU's time."""
PIECE_ON_CPU, PIECE_ON_ACCELERATOR = 2**23, 2**29
"""Bytes of activations or logits at once: what stays in a processor's cache, and what a GPU is busy with."""
SHARE = 0.8
"""Of the free memory that is planned with: the rest is for what libraries take and for holes between tensors."""
PIECES = 8
"""Tensors of a piece's size that are in memory at once: activations before and after the threshold, their size, masks."""
CHUNK = 65536
"""Tokens of the vocabulary whose logits and probabilities are made at once: enough that a step is few operations."""


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much memory a text takes; `itemsize`: bytes of a number, and the rest as in TransformerLens' config."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_vocab: int
    itemsize: int

    @classmethod
    def of(cls, model: Model) -> "Shape":
        """That of a model."""
        cfg = model.cfg
        heads, wide = int(cfg.n_heads), getattr(cfg, "d_mlp", None)
        few = getattr(cfg, "n_key_value_heads", None)
        return cls(
            int(cfg.n_layers), int(cfg.d_model), int(wide or 4 * cfg.d_model), heads, int(few or heads), int(cfg.d_head),
            int(cfg.d_vocab), dtype_of(model).itemsize,
        )  # fmt: skip

    def keys_and_values(self, positions: int) -> int:
        """Bytes of what a text keeps in all layers."""
        return 2 * self.n_layers * self.n_key_value_heads * self.d_head * positions * self.itemsize

    def block(self, length: int) -> int:
        """Bytes a position while texts of `length` tokens pass through a block: the residual stream, and the larger of attention and MLP."""
        residual = self.d_model * (4 * self.itemsize + 2 * 4)  # norms are computed in float32
        turned = 3 * self.n_heads * self.d_head * (self.itemsize + 2 * 4)  # queries and keys are rotated in it
        scores = self.n_heads * length * (3 * self.itemsize + 4)
        return residual + max(turned + scores, 4 * self.d_mlp * self.itemsize)

    def logits(self) -> int:
        """Bytes a row in choosing a token: logits of the vocabulary, and probabilities of a chunk and their sums in float64."""
        return self.d_vocab * (self.itemsize + 2 * 4) + min(CHUNK, self.d_vocab) * 32

    def continuation(self, prompt: int, new_tokens: int, encoded: int = 0) -> int:
        """Bytes of a continuation: its keys and values, and the larger of what the prompt's pass and choosing a token take besides.

        Args:
            prompt: its tokens.
            new_tokens: tokens that follow.
            encoded: features that are encoded at each position for steering.
        """
        passing = prompt * (self.block(prompt) + 3 * 4 * encoded)
        return self.keys_and_values(prompt + new_tokens) + max(passing, self.logits())

    def token(self, length: int, kept: int = 0) -> int:
        """Bytes a token of a pass over texts of `length` tokens.

        Args:
            length: tokens of the longest text.
            kept: numbers that are read at hooks at each position: those of the last batch are still there while the next one runs.
        """
        return self.block(length) + 2 * kept * self.itemsize + 2 * self.d_model * self.itemsize


def rows_that_fit(free: int, shape: Shape, prompt: int, new_tokens: int, encoded: int = 0) -> int:
    """How many continuations fit in so many free bytes: a power of two, at least 1 (see `Shape.continuation`)."""
    fit = int(SHARE * free) // shape.continuation(prompt, new_tokens, encoded)
    return min(LARGEST_ROWS["cuda"], power_of_two(fit))


def tokens_that_fit(free: int, shape: Shape, length: int, kept: int = 0) -> int:
    """How many tokens of texts fit in so many free bytes beside the pieces that are encoded: a power of two, and at least 1."""
    fit = int(SHARE * free - PIECES * piece_that_fits(free)) // shape.token(length, kept)
    return min(TOKENS_ON_ACCELERATOR, power_of_two(fit))


def piece_that_fits(free: int) -> int:
    """Bytes of a piece where so many are free: what is made of it fills a quarter of them at most."""
    return min(PIECE_ON_ACCELERATOR, power_of_two(free // (4 * PIECES)))


def power_of_two(number: int) -> int:
    """The largest power of two up to a number; 1 for less.

    >>> power_of_two(1000), power_of_two(1024), power_of_two(-3)
    (512, 1024, 1)
    """
    return 1 << max(0, number.bit_length() - 1) if number > 0 else 1


def rows_at_once(model: Model, prompts: Sequence[Sequence[int]], new_tokens: int, encoded: int = 0) -> int:
    """How many continuations of such prompts run at a time on the model's device (see `Shape.continuation`)."""
    free = free_bytes(device_of(model))
    if free is None:
        return largest_rows(device_of(model).type)
    return rows_that_fit(free, Shape.of(model), max(map(len, prompts), default=1), new_tokens, encoded)


def largest_rows(device: str) -> int:
    """How many continuations run at a time at most on a kind of device."""
    return LARGEST_ROWS.get(device, OTHER_ROWS)


def tokens_at_once(model: Model, length: int, kept: int = 0, device: str | None = None) -> int:
    """How many tokens of texts run at a time, padding included.

    Args:
        length: tokens of the longest text.
        kept: numbers that are read at hooks at each position.
        device: the kind of device of the workers who run the model, whose memory is not known here; None for the model's own.
    """
    if (device or device_of(model).type) == "cpu":
        return TOKENS_ON_CPU
    free = free_bytes(device_of(model)) if device is None else None
    return TOKENS_ON_ACCELERATOR if free is None else tokens_that_fit(free, Shape.of(model), length, kept)


def piece_bytes(device: torch.device) -> int:
    """How many bytes of activations or logits are worked on at once."""
    if device.type == "cpu":
        return PIECE_ON_CPU
    free = free_bytes(device)
    return PIECE_ON_ACCELERATOR if free is None else piece_that_fits(free)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that tensors can still take on a CUDA device, those included that torch has reserved and does not use; None elsewhere.

    Recorded steps keep some of these, and a decoder its keys and values: ask before there is one.
    """
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, in the words of CUDA, MPS or the CPU's allocator."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def make_room(device: torch.device) -> None:
    """Give back what torch has reserved and does not use."""
    if device.type == "cuda":
        with suppress(RuntimeError):  # some versions of PyTorch refuse once a recording has failed
            torch.cuda.empty_cache()
