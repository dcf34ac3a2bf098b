"""The next token of each row, from the state of its last position."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens.generation.decoders.heads import Head

PART = 1024
"""Tokens among which one is drawn where all logits are there."""


class Sampler:
    """Chooses each row's next token: the likeliest, or by the inverse of its distribution at the row's own numbers.

    Args:
        head: what gives the logits.
        uniforms: numbers in [0, 1), one a new token; they are all the randomness there is, so a row's tokens do not
            depend on the other rows.
        forbidden: token ids that are never chosen.
        temperature: 0 for the likeliest token.
        top_k: sample among the `top_k` likeliest only.
        waits: whether what is computed may depend on what was found, for which a GPU must be waited for. None: on a CPU, where it saves
            work. Either way the tokens are the same, but for rounding.
    """

    def __init__(
        self,
        head: Head,
        uniforms: Float[np.ndarray, "row new"],
        forbidden: Int[Tensor, " forbidden"],
        temperature: float,
        top_k: int | None,
        *,
        waits: bool | None = None,
    ) -> None:
        self._head, device = head, head.device
        self._waits = device.type == "cpu" if waits is None else waits
        self._uniforms = torch.tensor(uniforms, dtype=torch.float32 if device.type == "mps" else torch.float64).to(
            device
        )
        self._temperature, self._top_k = temperature, top_k
        # The first token of each part.
        ends = [min(start + head.chunk, head.d_vocab) for start in head.starts]
        firsts = [token for ids in zip(head.starts, ends, strict=True) for token in range(*ids, PART)]
        self._firsts = torch.tensor(firsts).to(device)
        self._forbidden = {
            start: (forbidden[(start <= forbidden) & (forbidden < start + head.chunk)] - start).to(device)
            for start in head.starts
        }

    def choose(self, state: Float[Tensor, "row d_state"], step: int) -> Int[Tensor, " row"]:
        """The token of each row.

        Args:
            state: of each row's last position, for the head.
            step: which of a row's random numbers decides, from 0 on.
        """
        if self._temperature == 0 or self._top_k == 1:
            return self._likeliest(state)
        if self._top_k is not None:
            return self._among_top(state, self._uniforms[:, step, None], self._top_k)
        among_all = self._among_all if self._waits else self._among_all_at_once
        return among_all(state, self._uniforms[:, step, None])

    def _logits(self, state: Float[Tensor, "row d_state"], start: int) -> Float[Tensor, "row chunk"]:
        return self._allowed(self._head.logits(state, start), start)

    def _allowed(self, logits: Float[Tensor, "row chunk"], start: int) -> Float[Tensor, "row chunk"]:
        ids = self._forbidden[start]
        return logits.index_fill_(1, ids, -torch.inf) if len(ids) else logits

    def _likeliest(self, state: Float[Tensor, "row d_state"]) -> Int[Tensor, " row"]:
        best = torch.full((len(state),), -torch.inf, dtype=state.dtype, device=state.device)
        token = torch.zeros(len(state), dtype=torch.long, device=state.device)
        for start in self._head.starts:
            logits = self._allowed(self._head.order(state, start), start)
            if not self._waits:
                value, at = logits.max(dim=-1)
                token, best = torch.where(value > best, at + start, token), best.maximum(value)
                continue
            value = logits.amax(dim=-1)
            # To find where the largest stands takes ten times as long as to find how large it is.
            better = (value > best).nonzero().squeeze(-1)
            token[better] = logits[better].argmax(dim=-1) + start
            best = best.maximum(value)
        return token

    def _among_top(
        self, state: Float[Tensor, "row d_state"], uniforms: Float[Tensor, "row 1"], k: int
    ) -> Int[Tensor, " row"]:
        top: list[tuple[Tensor, Tensor]] = []
        for start in self._head.starts:
            logits = self._logits(state, start)
            value, at = logits.topk(min(k, logits.shape[1]), dim=-1)
            top.append((value, at + start))
        values, tokens = (torch.cat(parts, dim=-1) for parts in zip(*top, strict=True))
        values, best = values.topk(min(k, values.shape[1]), dim=-1)
        tokens, order = tokens.gather(-1, best).sort(dim=-1)  # by id: rounding cannot swap neighbours
        return tokens.gather(-1, self._drawn(values.gather(-1, order), uniforms)).squeeze(-1)

    def _among_all(self, state: Float[Tensor, "row d_state"], uniforms: Float[Tensor, "row 1"]) -> Int[Tensor, " row"]:
        # Which chunk first, then which token in it: only the chosen chunks' logits are made twice.
        masses = [(self._logits(state, start) / self._temperature).logsumexp(-1) for start in self._head.starts]
        chunk, within = part_of(torch.stack(masses, dim=-1), uniforms)
        tokens = torch.empty(len(state), dtype=torch.long, device=state.device)
        for c in chunk.unique().tolist():
            rows, start = (chunk.squeeze(-1) == c).nonzero().squeeze(-1), self._head.starts[c]
            drawn = self._drawn(self._logits(state[rows], start), within[rows])
            tokens[rows] = drawn.squeeze(-1) + start
        return tokens

    def _among_all_at_once(
        self, state: Float[Tensor, "row d_state"], uniforms: Float[Tensor, "row 1"]
    ) -> Int[Tensor, " row"]:
        # Small parts, so that only a few options are cumulated, in the precision that this takes.
        parts: list[Tensor] = []
        for start in self._head.starts:
            logits = self._logits(state, start).div_(self._temperature)
            if short := -logits.shape[1] % PART:
                logits = F.pad(logits, (0, short), value=-torch.inf)
            parts.append(logits.unflatten(1, (-1, PART)))
        chosen, within = part_of(torch.cat([part.logsumexp(-1) for part in parts], dim=-1), uniforms)
        # The chosen part's logits, from the chunk that it lies in.
        before, found = 0, parts[0][:, 0]
        for part in parts:
            at = (chosen - before).clamp(0, part.shape[1] - 1)
            own = part.gather(1, at[:, :, None].expand(-1, -1, PART))[:, 0]
            found, before = torch.where(chosen >= before, own, found), before + part.shape[1]
        drawn = inverse_cdf(found.to(uniforms.dtype).softmax(-1), within)
        return (self._firsts[chosen] + drawn).squeeze(-1)

    def _drawn(self, logits: Float[Tensor, "row option"], uniforms: Float[Tensor, "row 1"]) -> Int[Tensor, "row 1"]:
        return inverse_cdf((logits / self._temperature).to(uniforms.dtype).softmax(-1), uniforms)


def part_of(
    masses: Float[Tensor, "row part"], uniforms: Float[Tensor, "row 1"]
) -> tuple[Int[Tensor, "row 1"], Float[Tensor, "row 1"]]:
    """In which part of the options each row's number lies, and where in it, from 0 to 1.

    Args:
        masses: logarithms of the parts' shares, but for a constant.
    """
    shares = masses.to(uniforms.dtype).softmax(-1)
    part = inverse_cdf(shares, uniforms)
    before = shares.cumsum(-1).gather(-1, part) - shares.gather(-1, part)
    return part, (uniforms - before) / shares.gather(-1, part)


def inverse_cdf(shares: Float[Tensor, "row option"], uniforms: Float[Tensor, "row 1"]) -> Int[Tensor, "row 1"]:
    """For each row the option in whose stretch of the cumulated shares its number lies; an option of share 0 is never chosen.

    Args:
        shares: probabilities, options one after another.
        uniforms: a number in [0, 1) a row.

    >>> inverse_cdf(torch.tensor([[0.25, 0.0, 0.75]]), torch.tensor([[0.5]])).tolist()
    [[2]]
    """
    cumulated = shares.cumsum(-1)
    # The number is kept below the total, which rounding may leave short of 1.
    total = torch.nextafter(cumulated[:, -1:], torch.zeros_like(uniforms))
    chosen = torch.searchsorted(cumulated, uniforms.clamp(min=0).minimum(total), right=True)
    return chosen.clamp(max=shares.shape[-1] - 1)  # where logits overflowed, shares are no numbers
