"""Does steered text still read like text? How surprising a continuation is to the unsteered model, in one batched pass."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens.generation.decoders.decoding import CompactDecoder, Decoder, has_hooks, unembedding
from fade_lens.generation.next_token import Head, Logits
from fade_lens.subject.hooks import Model, device_of, is_bridge, running

LOGIT_BYTES = 2**23
"""Bytes of logits of a `HookedTransformer` in memory at a time: few enough for a processor's cache."""
WHOLE_LOGIT_BYTES = 2**28
"""The same of a model that gives the logits of the whole vocabulary and of every position."""
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
    """Mean negative log-likelihood per token, in nats, of each continuation after its prompt under the model as it is.

    Texts of equal length run together, so nothing is padded; logits are made for a few texts, and a `HookedTransformer`'s a part of the
    vocabulary at a time, and none is kept.

    Shapes: one prompt and one continuation (without the prompt) a request; NaN for a continuation of no tokens. `decoder` is one
    that has been made for the model already.
    """
    found, new = np.full(len(prompts), np.nan), continuations.shape[1]
    if not new or not len(prompts):
        return found
    with torch.no_grad(), running(model):
        if is_bridge(model) or has_hooks(model):
            head = None
        else:
            head = decoder.head if isinstance(decoder, CompactDecoder) else unembedding(model)
        for rows in _batches(prompts, new):
            tokens = torch.tensor([(*prompts[i], *continuations[i].tolist()) for i in rows], device=device_of(model))
            if head is None:
                of_token = _through_logits(model, tokens, new)
            elif isinstance(decoder, CompactDecoder):
                of_token = _through_state(head, decoder.states(tokens), tokens, new)
            else:
                of_token = _through_state(head, final_states(model, tokens), tokens, new)
            found[rows] = of_token.mean(-1).cpu().numpy()
    return found


def repeated_share(model: Model, texts: Sequence[str]) -> float:
    """Mean over the texts of the share of tokens that stand earlier in the same text; 0 for no texts."""
    encode: Callable[..., Any] = model.tokenizer
    tokens: list[list[int]] = encode(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return sum(1 - len(set(row)) / len(row) for row in tokens if row) / max(len(tokens), 1)


def breaks(increase: float, repeated: float) -> bool:
    """Whether texts with these increases over the unsteered model's are no longer sense (see `MAX_INCREASE`); NaN, not known, tells nothing."""
    return increase > MAX_INCREASE or repeated > MAX_REPEATED


def _batches(prompts: Sequence[tuple[int, ...]], new: int) -> Iterator[list[int]]:
    """Requests of equal length, at most `BATCH_TOKENS` tokens together."""
    lengths = np.array([len(prompt) for prompt in prompts])
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length).tolist()
        at_once = max(1, BATCH_TOKENS // (length + new))
        yield from (rows[start : start + at_once] for start in range(0, len(rows), at_once))


def _through_logits(model: Model, tokens: Int[Tensor, "row pos"], new: int) -> Float[Tensor, "row new"]:
    """Any model by the logits that its own forward pass gives, a few texts at a time."""
    forward, d_vocab = cast(Any, model), int(model.cfg.d_vocab)
    parts: list[Tensor] = []
    for some in tokens.split(max(1, WHOLE_LOGIT_BYTES // (4 * d_vocab * tokens.shape[1]))):
        logits = forward(some)[:, -new - 1 : -1]
        parts.append(_surprise(Logits(logits.shape[-1], logits.device), logits, some[:, -new:]))
    return torch.cat(parts)


def final_states(model: Model, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d_state"]:
    """A `HookedTransformer` up to its final norm."""
    hooked = cast(Any, model)
    state = hooked(tokens, stop_at_layer=hooked.cfg.n_layers, padding_side="right")
    return state if hooked.cfg.normalization_type is None else hooked.ln_final(state)


def _through_state(
    head: Head, states: Float[Tensor, "row pos d_state"], tokens: Int[Tensor, "row pos"], new: int
) -> Float[Tensor, "row new"]:
    """The head on the positions that matter."""
    at_once = max(1, LOGIT_BYTES // (4 * head.chunk * new))
    pieces = zip(states[:, -new - 1 : -1].split(at_once), tokens[:, -new:].split(at_once), strict=True)
    return torch.cat([_surprise(head, some, written) for some, written in pieces])


def _surprise(
    head: Head, state: Float[Tensor, "row new d_state"], tokens: Int[Tensor, "row new"]
) -> Float[Tensor, "row new"]:
    """-log p of each token, the vocabulary a chunk at a time."""
    flat, wanted = state.flatten(0, 1), tokens.flatten()
    total = torch.full((len(flat),), -torch.inf, device=flat.device)
    chosen = torch.zeros(len(flat), device=flat.device)
    for start in head.starts:
        logits = head.logits(flat, start)
        total = total.logaddexp(logits.logsumexp(-1))
        inside = ((start <= wanted) & (wanted < start + logits.shape[1])).nonzero().squeeze(-1)
        chosen[inside] = logits[inside, wanted[inside] - start]
    return (total - chosen).view_as(tokens)
