"""The logit lens: which tokens a feature's direction makes the model say, as far as it reaches the output directly."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from fade_lens._util.reasons import Reason
from fade_lens.subject.features import Features
from fade_lens.subject.hooks import Model, layer_of, textless_tokens
from fade_lens.subject.summary import Promoted
from fade_lens.subject.tokens import decode

LOGIT_BYTES = 2**28
"""Logits in memory at a time."""

RESIDUAL = re.compile(
    r"hook_(embed|pos_embed)|(embed|pos_embed)\.hook_out"
    r"|blocks\.\d+\.(hook_resid_(pre|mid|post)|hook_in|hook_out|hook_(attn|mlp)_out|ln[12]\.hook_in|ln[12]_post\.hook_out)"
)
"""Hooks of the residual stream, and of what is added to it, by both kinds of names that TransformerLens has."""
PART = re.compile(r"blocks\.\d+\.(?P<part>attn|mlp)\.(?P<where>hook_out|hook_z|o\.hook_in|hook_post|out\.hook_in)")
"""Hooks in a block's attention or MLP, at its output (`hook_out`) or in front of its output weights."""


def promoted_tokens(model: Model, features: Features, n: int) -> list[Promoted] | Reason:
    """The `n` tokens that each feature promotes and suppresses most, or why that cannot be told.

    Special tokens and rows of the vocabulary that are no tokens are left out. What is done to the direction: `fade_lens.subject.summary.LENS`.
    """
    rows = in_residual_stream(model, features)
    if isinstance(rows, Reason):
        return rows
    tokenizer = model.tokenizer

    def named(values: Tensor, ids: Tensor) -> tuple[tuple[str, float], ...]:
        texts = [str(i) if tokenizer is None else decode(tokenizer, [i]) for i in ids.tolist()]
        return tuple(zip(texts, values.tolist(), strict=True))

    found: list[Promoted] = []
    for ends in most_promoted(model, rows, n):
        for up, down in zip(*(zip(*end, strict=True) for end in ends), strict=True):
            found.append(Promoted(named(*up), named(*down)))
    return found


def most_promoted(
    model: Model, rows: Float[Tensor, "feature d_model"], n: int, signs: Sequence[int] = (1, -1)
) -> Iterator[list[tuple[Float[Tensor, "some n"], Int[Tensor, "some n"]]]]:
    """Of a few directions at a time the `n` largest logits and their tokens, and for the sign -1 the `n` smallest; of tokens that are texts alone."""
    never = textless_tokens(model, int(model.cfg.d_vocab))
    kept = min(n, int(model.cfg.d_vocab) - len(never))
    for logits in lens_logits(model, rows):
        ends = (logits.index_fill_(1, never, -sign * torch.inf).topk(kept, largest=sign > 0) for sign in signs)
        yield [(end.values, end.indices) for end in ends]


def lens_logits(model: Model, rows: Float[Tensor, "feature d_model"]) -> Iterator[Float[Tensor, "_some d_vocab"]]:
    """The logits that directions in the residual stream make of every token, a few directions at a time: what is done, `LENS` says."""
    whole, d_vocab = cast(Any, model), int(model.cfg.d_vocab)
    normed = whole.cfg.normalization_type is not None
    for some in rows.split(max(1, LOGIT_BYTES // (4 * d_vocab))):
        logits = alone(lambda x: whole.unembed(whole.ln_final(x) if normed else x), some, whole.unembed)
        logits = logits[:, :d_vocab].cpu()
        yield logits - logits.mean(dim=-1, keepdim=True)


def in_residual_stream(model: Model, features: Features) -> Float[Tensor, "feature d_model"] | Reason:
    """What each feature writes to the residual stream: its direction, through W_O or W_out where it is of heads or neurons."""
    hook, rows = features.write_hook, features.directions()
    if RESIDUAL.fullmatch(hook):
        return rows
    if (at := PART.fullmatch(hook)) is None:
        return Reason("no_lens", f"directions at {hook!r} are not in the residual stream")
    whole: Any = model
    block = whole.blocks[layer_of(hook)]
    try:
        if at["where"] in ("hook_post", "out.hook_in"):
            rows = rows @ block.mlp.W_out.detach().to(rows)
        elif at["where"] in ("hook_z", "o.hook_in"):
            heads = block.attn.W_O.detach().to(rows)
            out = rearrange(heads, "head d_head d_model -> (head d_head) d_model")
            rows = rows @ (out if features.head is None else heads[features.head])
    except (AttributeError, RuntimeError):  # experts, packed weights
        return Reason("no_lens", f"the output weights behind {hook!r} are no one matrix")
    after = getattr(block, "ln1_post" if at["part"] == "attn" else "ln2_post", None)
    return rows if after is None else alone(after, rows, after)


def alone(
    step: Callable[[Tensor], Tensor], rows: Float[Tensor, "feature d_in"], module: nn.Module
) -> Float[Tensor, "feature d_out"]:
    """A step of the model on some directions, less what it gives for no direction: its biases; float32."""
    weight = next(module.parameters(), rows)
    given = torch.cat([rows, torch.zeros_like(rows[:1])]).to(weight.device, weight.dtype)
    with torch.no_grad():
        found = step(given.unsqueeze(0))[0].float()
    return found[:-1] - found[-1]
