"""Does steered text still read like text? How surprising a continuation is to the unsteered model, in one batched pass."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.choosing import decoder_of
from fade_lens.generation.decoders.heads import Head
from fade_lens.subject.hooks import Model, device_of, running
from fade_lens.subject.memory import piece_bytes

STATE_BYTES = 2**28
"""Bytes of a decoder's states in memory at a time: they may be the logits of the whole vocabulary at every position."""
BATCH_TOKENS = 4096
"""Tokens of prompts and continuations in one forward pass."""
MAX_INCREASE, MAX_REPEATED = 2.0, 0.25
"""Steered texts break the model beyond this increase of their negative log-likelihood (nats a token), or of the share of tokens that they
repeat, over the unsteered model's own.

Measured on Gemma 3 270M with 16 latents (`tests/benchmarks/factors.py`): below +1 nat texts read like the model's own, at +1.5 they are
clumsy, from +2 nats on hardly one is a sentence. Text that only repeats a word ("luck luck luck") may be no less likely than good
text (+1 nat, 90 % repeated, where the unsteered model repeats 35 %), so likelihood alone would miss it.
"""


def negative_log_likelihood(
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    continuations: Int[np.ndarray, "request new"],
    decoder: Decoder | None = None,
) -> Float[np.ndarray, "request"]:
    """How unlikely each continuation is to the model as it is.

    Texts of equal length run together, so nothing is padded. Logits are made for a few texts and a part of the vocabulary at a
    time, and none is kept.

    Args:
        prompts: token ids, one prompt a request.
        continuations: token ids without the prompt, one row a request.
        decoder: one that has been made for the model already; None to make one.

    Returns:
        Minus the mean log-probability of a continuation's tokens, in nats a token; NaN for continuations of no tokens.
    """
    found, new = np.full(len(prompts), np.nan), continuations.shape[1]
    if not new or not len(prompts):
        return found
    with torch.no_grad(), running(model):
        decoder = decoder or decoder_of(model, (), [min(prompts, key=len), max(prompts, key=len)])
        for rows in _batches(prompts, new):
            tokens = torch.tensor([(*prompts[i], *continuations[i].tolist()) for i in rows], device=device_of(model))
            found[rows] = _of_tokens(decoder, tokens, new).mean(-1).cpu().numpy()
    return found


def repeated_share(model: Model, texts: Sequence[str]) -> float:
    """Mean over the texts of the share of tokens that stand earlier in the same text; 0 for no texts."""
    encode: Callable[..., Any] = model.tokenizer
    tokens: list[list[int]] = encode(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return sum(1 - len(set(row)) / len(row) for row in tokens if row) / max(len(tokens), 1)


def breaks(increase: float, repeated: float) -> bool:
    """Whether steered texts no longer make sense (see `MAX_INCREASE`).

    Args:
        increase: of their negative log-likelihood over that of the unsteered model's own texts, nats a token; NaN where it is not
            known, which tells nothing.
        repeated: increase of the share of tokens that they repeat.
    """
    return increase > MAX_INCREASE or repeated > MAX_REPEATED


def _batches(prompts: Sequence[tuple[int, ...]], new: int) -> Iterator[list[int]]:
    """Requests of equal length, at most `BATCH_TOKENS` tokens together."""
    lengths = np.array([len(prompt) for prompt in prompts])
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length).tolist()
        at_once = max(1, BATCH_TOKENS // (length + new))
        yield from (rows[start : start + at_once] for start in range(0, len(rows), at_once))


def _of_tokens(decoder: Decoder, tokens: Int[Tensor, "row pos"], new: int) -> Float[Tensor, "row new"]:
    """-log p of each row's last `new` tokens: states for a few texts at a time, and logits of these for still fewer."""
    head = decoder.head
    in_memory = max(1, STATE_BYTES // (4 * head.d_state * tokens.shape[1]))
    at_once = max(1, piece_bytes(tokens.device) // (4 * head.chunk * new))
    pieces = (
        _surprise(head, states, written)
        for some in tokens.split(in_memory)
        for states, written in zip(
            decoder.states(some)[:, -new - 1 : -1].split(at_once), some[:, -new:].split(at_once), strict=True
        )
    )
    return torch.cat(list(pieces))


def _surprise(
    head: Head, state: Float[Tensor, "row new d_state"], tokens: Int[Tensor, "row new"]
) -> Float[Tensor, "row new"]:
    """-log p of each token, the vocabulary a chunk at a time."""
    flat, wanted = state.flatten(0, 1), tokens.flatten().to(state.device)
    total = torch.full((len(flat),), -torch.inf, device=flat.device)
    chosen = torch.zeros(len(flat), device=flat.device)
    for start in head.starts:
        logits = head.logits(flat, start)
        total = total.logaddexp(logits.logsumexp(-1))
        at = wanted - start
        inside = (at >= 0) & (at < logits.shape[1])
        chosen = logits.gather(1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0].where(inside, chosen)
    return (total - chosen).view_as(tokens)
