"""Which activations are equal: those that differ by no more than the computation rounds.

The same text gets other last digits in a batch of another shape. Values that are equal in truth would then be ranked by chance: a
feature with one value on every text would get a Clarity other than 0. So values are compared at the precision that they have.

The dtype alone does not tell this precision. An activation is a sum of many terms. Its error is as large as the roundings of
these *terms*, even where the sum is near 0. So `Precision.of` moves the terms a little and looks how far each feature moves: the
terms that are encoded, and those of the residual stream that they are made of. This works for any encoder (folded decoder norms,
normalized inputs) and for neurons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fade_lens.subject.activations import Hidden, OutlierRule, Ruled, fires, hidden_states, spread
from fade_lens.subject.features import Features, Neurons
from fade_lens.subject.hooks import Model, forward_hooks
from fade_lens.subject.tokens import TokenizedTexts

SLACK = {torch.float32: 32 * 2.0**-23, torch.bfloat16: 2 * 2.0**-7, torch.float16: 2 * 2.0**-10}
"""How far two equal values may be, as a share of their terms and of themselves, by the dtype that they are made in.

Measured between batches of 1 to 6,000 tokens (`tests/benchmarks/ties.py`).
"""
FAST = {"high": 2 * 2.0**-10, "medium": 2 * 2.0**-7}
"""The same where torch may make float32 products of TensorFloat-32 or bfloat16 on an accelerator (`torch.set_float32_matmul_precision`)."""
N_TEXTS = 16
"""Texts that tell how large the terms are."""
STEP = 2.0**-6
"""By how much of their size the terms are moved: far more than any rounding, and little enough to be linear."""
HALVINGS = 24
"""How often the least gap between two groups is halved where values lie so densely that no gap is wide."""


@dataclass(frozen=True)
class Precision:
    """How exact activations are: two that differ by no more than `absolute[feature] + relative · |value|` are equal.

    Attributes:
        absolute: for each feature, in units of its activations.
        relative: as a share of the value.
    """

    absolute: Float[np.ndarray, " feature"]
    relative: float

    @classmethod
    def of(cls, model: Model, features: Features, tokens: TokenizedTexts, outliers: OutlierRule) -> "Precision":
        """The precision of the computation in its dtypes, from a few evenly spaced texts of the corpus."""
        return cls.of_each(model, [(features, outliers)], tokens)[0]

    @classmethod
    def of_each(cls, model: Model, every: Sequence[Ruled], tokens: TokenizedTexts) -> "list[Precision]":
        """That of several; the texts are run once, and once more for each residual stream whose terms are moved."""
        chosen, found = spread(tokens, N_TEXTS), dict[int, Precision]()
        still = list(hidden_states(model, every, chosen)) if every else []
        hooks = [None if f.residual_hook == f.read_hook else f.residual_hook for f, _ in every]
        for hook in dict.fromkeys(hooks):
            some = [number for number, own in enumerate(hooks) if own == hook]
            noise = Noise()
            moved = [[batch[number] for number in some] for batch in still]
            if hook is not None:  # what is read is itself a sum of such terms
                with forward_hooks(model, [(hook, lambda terms, hook, noise=noise: noise(terms).to(terms.dtype))]):  # noqa: ARG005
                    moved = list(hidden_states(model, [every[number] for number in some], chosen))
            for place, number in enumerate(some):
                before, after = [batch[number] for batch in still], [batch[place] for batch in moved]
                found[number] = cls._between(every[number][0], before, after, noise.again())
        return [found[number] for number in range(len(every))]

    @classmethod
    def _between(cls, features: Features, still: list[Hidden], moved: list[Hidden], noise: "Noise") -> "Precision":
        """From what is read at rest and with moved terms; `noise` moves the terms that are encoded."""
        total, n, slack = torch.zeros(len(features), dtype=torch.float64), 0, 0.0
        for before, after in zip(still, moved, strict=True):
            real = before.usable & ~before.overflowed & ~after.overflowed
            after = noise(after.hidden)
            for row in range(len(real)):  # of an encoder that needs all features, those of one text at a time
                some = slice(row, row + 1)
                with torch.no_grad():
                    found = features.before_threshold(before.hidden[some])
                    change = (features.before_threshold(after[some]) - found)[real[some].to(found.device)].double()
                total += change.square().sum(0).nan_to_num(posinf=0.0).cpu()
                n += len(change)
                slack = max(slack, slack_of(before.hidden), slack_of(found))
        absolute = (total / max(n, 1)).sqrt().numpy() / STEP * slack
        if isinstance(features, Neurons) and still:
            # An activation function sums too, in float32 at least: 1 + erf is exact to 1's last digit, however near to 0 it is.
            absolute += SLACK[torch.float32] * float(sizes(still[0].hidden).square().mean().sqrt())
        return cls(absolute, slack)

    def within(self, feature: int, values: Float[np.ndarray, " value"]) -> Float[np.ndarray, " value"]:
        """How far from each value an equal one may be."""
        return self.absolute[feature] + self.relative * np.abs(values)

    def tie(self, values: Float[np.ndarray, "text feature"]) -> None:
        """Give equal values of each feature one value, in place."""
        for feature in range(values.shape[1]):
            column = values[:, feature]
            firing = np.flatnonzero(fires(column))
            distinct, place = np.unique(column[firing], return_inverse=True)
            if len(distinct):
                distinct = np.insert(distinct, zero := int(np.searchsorted(distinct, 0)), 0)
                group = groups(distinct.astype(np.float64), self.within(feature, distinct.astype(np.float64)))
                column[firing] = representatives(distinct, group, int(group[zero]))[place + (place >= zero)]

    def snap(self, values: Float[np.ndarray, "text feature"], known: Float[np.ndarray, "known feature"]) -> None:
        """Give values of other texts, in place, the known value that they are equal to; the nearest of several.

        Args:
            values: changed in place.
            known: the corpus' values, after `tie`.
        """
        for feature in range(values.shape[1]):
            column = values[:, feature]
            fixed = np.unique(np.append(known[:, feature], [-np.inf, 0, np.inf]).astype(np.float32))  # NaN comes last
            above = np.searchsorted(fixed, column).clip(1, np.searchsorted(fixed, np.inf))
            low, high = fixed[above - 1], fixed[above]
            nearest = np.where(np.abs(column - low) <= np.abs(high - column), low, high)
            equal = np.abs(column - nearest) <= self.within(feature, nearest)
            column[equal] = nearest[equal]


class Noise:
    """Terms moved a little, by the same random numbers in every run."""

    def __init__(self, state: Tensor | None = None) -> None:
        self._generator = torch.Generator().manual_seed(0) if state is None else torch.Generator().set_state(state)

    def __call__(self, terms: Tensor) -> Tensor:
        noise = torch.randn(terms.shape, generator=self._generator).to(terms.device)
        return terms.float() + STEP * sizes(terms) * noise

    def again(self) -> "Noise":
        """Another that goes on as this one will."""
        return Noise(self._generator.get_state())


def sizes(terms: Float[Tensor, "text pos *d"]) -> Float[Tensor, "*d"]:
    """How large each entry usually is; a few massive ones (at BOS) do not show."""
    return 1.4826 * terms.float().flatten(0, 1).nan_to_num().abs().median(dim=0).values


def slack_of(tensor: Tensor) -> float:
    """How far apart two equal values of a tensor may be, as a share of what they were made of.

    In float32 the error is that of sums of many products. In half precision sums are made in float32, and the error is that of the terms.
    """
    if tensor.dtype not in SLACK:
        return SLACK[torch.float32] * torch.finfo(tensor.dtype).eps / torch.finfo(torch.float32).eps
    fast = tensor.dtype == torch.float32 and tensor.device.type != "cpu"
    return max(SLACK[tensor.dtype], FAST.get(torch.get_float32_matmul_precision(), 0.0) if fast else 0.0)


def groups(values: Float[np.ndarray, " value"], within: Float[np.ndarray, " value"]) -> Int[np.ndarray, " value"]:
    """The number of each value's group, equal values being in one group.

    A grid would split equal values that lie on both sides of a line, and joining neighbours without end would make one group of a
    dense range. So neighbours that are near are joined; a group that is wider than equal values may be apart is cut where its gaps
    are widest, so that what lies closest stays together.

    Args:
        values: distinct, in ascending order.
        within: how far from each one an equal value may be.
    """
    gaps = np.diff(values)
    cut = gaps > within[1:]
    least = within[1:].copy()
    for _ in range(HALVINGS):
        group = np.append(0, np.cumsum(cut))
        first = np.flatnonzero(np.diff(group, prepend=-1))
        last = np.append(first[1:], len(values)) - 1
        wide = (values[last] - values[first] > 2 * np.maximum(within[first], within[last]))[group]
        if not wide.any():
            break
        least /= 2
        cut |= wide[1:] & wide[:-1] & (gaps > least)
    return np.append(0, np.cumsum(cut))


def representatives(
    distinct: Float[np.ndarray, " value"], group: Int[np.ndarray, " value"], silent: int
) -> Float[np.ndarray, " value"]:
    """For each value the middle one of its group; 0 in the group `silent`, whose values are equal to 0."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    last = np.append(first[1:], len(group)) - 1
    middle = distinct[(first + last) // 2]
    middle[silent] = 0
    return middle[group]
