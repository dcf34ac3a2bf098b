"""The likeliest token of each row without the exact logits of all: products of bytes tell which few tokens it can be.

Where the processor has them they are twice as fast as products of bfloat16 and four times as fast as those of float32.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fade_lens.models import at_least_float32

logger = logging.getLogger(__name__)

_onednn = cast(Any, torch.ops.onednn)

LEAST_TOKENS = 32_768
"""A smaller vocabulary is unembedded as fast as it is screened."""
DEVIATIONS = 8.0
"""How many standard deviations an approximate logit may be off. An error is the sum of hundreds of roundings that know nothing of each
other; of 10⁸ logits of Gemma 3 270M the worst was off by 4.3."""
MOST_CANDIDATES = 4096
"""A row that may have more candidates is better unembedded as usual."""
GROUP = 128
"""Neighbours of which only the largest logit is looked at first."""
AT_ONCE = 32_768
"""Candidates whose exact logits are made at a time, for which their weights are copied."""
ENDS, ZERO = 127.0, 128
"""The largest step of a byte, and where a state's bytes have their zero."""

Candidates = tuple[Int[Tensor, " candidate"], Int[Tensor, " candidate"]]
"""Rows and tokens."""


class Rounded(NamedTuple):
    """States in bytes. An approximate logit times the row's `unit` is within `error` units of the exact one."""

    state: UInt8[Tensor, "row d_model"]
    unit: Float[Tensor, " row"]
    error: Float[Tensor, " row"]


class Screen:
    """An unembedding in bytes, each token rounded in steps of its own, a chunk of the vocabulary at a time."""

    def __init__(self, by_token: Float[Tensor, "d_vocab d_model"], starts: range) -> None:
        self._by_token, self._starts = by_token.contiguous(), starts
        self._chunks: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._longest, self._coarsest = 0.0, 0.0
        for start in starts:
            weights = self._by_token[start : start + starts.step].float()
            steps = (weights.abs().amax(-1) / ENDS).clamp(min=torch.finfo(torch.float32).tiny)
            rounded = (weights / steps[:, None]).round_().to(torch.int8)
            zeros = torch.zeros(len(weights), dtype=torch.int32)
            self._chunks[start] = _onednn.qlinear_prepack(rounded, None), steps, zeros
            self._longest = max(self._longest, float(weights.norm(dim=-1).max()))
            self._coarsest = max(self._coarsest, float(steps.max()))

    @classmethod
    def of(cls, by_token: Float[Tensor, "d_vocab d_model"], starts: range) -> "Screen | None":
        """A screen, tried on some states; None where it would gain nothing, or the processor multiplies no bytes fast."""
        if by_token.device.type != "cpu" or len(by_token) < LEAST_TOKENS:
            return None
        try:
            if not torch.cpu._is_vnni_supported():
                return None
            screen = cls(by_token, starts)
            states, chunk = by_token[:: len(by_token) // 8], by_token[: starts.step]
            rounded = screen.rounded(states)
            exact = at_least_float32(states) @ at_least_float32(chunk).T
            off = (screen.logits(rounded, starts.start) - exact / rounded.unit[:, None]).abs().amax(-1)
        except (AttributeError, RuntimeError) as error:  # none of this is a public interface of torch
            logger.info("Tokens are not screened: %s", error)
            return None
        if not bool((off <= rounded.error).all()):
            logger.warning("Tokens are not screened: products of bytes are off by more than roundings explain")
            return None
        return screen

    def likeliest(
        self, state: Float[Tensor, "row d_model"], allowed: Callable[[Tensor, int], Tensor]
    ) -> tuple[Int[Tensor, " row"], Bool[Tensor, " row"]]:
        """The token of the largest exact logit, the first of equal ones, and for which rows that is known.

        `allowed` is given logits of the chunk that begins at a token, and lowers those of tokens that may not be chosen.
        """
        (row, token), sure = self._candidates(state, allowed)
        value = torch.cat(
            [self._exact(state, r, t) for r, t in zip(row.split(AT_ONCE), token.split(AT_ONCE), strict=True)]
        )
        best = value.new_full((len(state),), -torch.inf).scatter_reduce(0, row, value, "amax")
        winner = value == best[row]
        last = token.new_full((len(state),), len(self._by_token) - 1)
        return last.scatter_reduce(0, row[winner], token[winner], "amin"), sure & best.isfinite()

    def rounded(self, state: Float[Tensor, "row d_model"]) -> Rounded:
        """The states in bytes, each row in steps of its own."""
        state = state.float()
        unit = (state.abs().amax(-1) / ENDS).clamp(min=torch.finfo(torch.float32).tiny)
        steps = state / unit[:, None]
        # Roundings in steps of s have the variance s²/12: here 1/12 for the state, and that of the coarsest token for weights.
        variance = (self._longest**2 + (steps.norm(dim=-1) * self._coarsest) ** 2) / 12
        return Rounded((steps.round_() + ZERO).to(torch.uint8), unit, DEVIATIONS * variance.sqrt())

    def logits(self, rounded: Rounded, start: int) -> Float[Tensor, "row chunk"]:
        """Approximate logits of a chunk's tokens, in each row's unit."""
        weights, steps, zeros = self._chunks[start]
        plain = (None, 1.0, 0, torch.float32, "none", [], "")
        return _onednn.qlinear_pointwise(rounded.state, 1.0, ZERO, weights, steps, zeros, *plain)

    def _candidates(
        self, state: Float[Tensor, "row d_model"], allowed: Callable[[Tensor, int], Tensor]
    ) -> tuple[Candidates, Bool[Tensor, " row"]]:
        """What can be likeliest; and which rows have not too many for all to be there."""
        rounded = self.rounded(state)
        margin = 2 * rounded.error  # one token may be overrated, another underrated
        best = torch.full_like(margin, -torch.inf)
        count = torch.zeros(len(state), dtype=torch.long)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in self._starts:
            logits = allowed(self.logits(rounded, start), start)
            width = GROUP if logits.shape[1] % GROUP == 0 else logits.shape[1]
            groups = rearrange(logits, "row (group token) -> row group token", token=width)
            highest = groups.amax(-1)
            best = best.maximum(highest.amax(-1))
            least = torch.where(count <= MOST_CANDIDATES, best - margin, torch.inf)
            rows, group = (highest >= least[:, None]).nonzero(as_tuple=True)
            near = groups[rows, group]
            among, at = (near >= least[rows, None]).nonzero(as_tuple=True)
            row = rows[among]
            count += row.bincount(minlength=len(state))
            found.append((row, start + group[among] * width + at, near[among, at]))
        row, token, logit = map(torch.cat, zip(*found, strict=True))
        sure = count <= MOST_CANDIDATES
        kept = (logit >= (best - margin)[row]) & sure[row]  # near the best of all, not only of the chunks before
        return (row[kept], token[kept]), sure

    def _exact(
        self, state: Float[Tensor, "row d_model"], row: Int[Tensor, " candidate"], token: Int[Tensor, " candidate"]
    ) -> Float[Tensor, " candidate"]:
        return torch.linalg.vecdot(at_least_float32(state)[row], at_least_float32(self._by_token[token]))
