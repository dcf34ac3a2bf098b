"""Sets of continuations, a prompt each, and where they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

BASELINE = -1
"""The "feature" under which the unsteered model's continuations are kept: they serve every feature of a run."""

Texts = tuple[str, ...]
"""Continuations, a prompt each; an empty one stands for a text that means nothing, since the model's activations overflowed."""
OWN = ""
"""The "control" of the feature itself."""


FLUENCY_PROMPTS = 10
"""Continuations of a set whose likelihood is taken, unless told otherwise: a mean over a few is enough to see that a model breaks, and to
read all of them again would take half as long as writing them."""


class Steered(NamedTuple):
    """One set of continuations, a prompt each: of a feature (or `BASELINE`), at a factor, itself or a control in its place."""

    feature: int
    factor: float
    control: str = OWN


UNSTEERED = Steered(BASELINE, 0.0)


@dataclass(frozen=True)
class Fluency:
    """How likely the continuations at one steering factor are to the unsteered model.

    `nll` is their mean negative log-likelihood in nats a token, `increase` what it has above the unsteered model's own texts, `repeated` the
    share of tokens that stand earlier in the same text; `breaks` tells that either is beyond what a model that still writes sense reaches
    (see `fade_lens.generation.fluency.MAX_INCREASE`).
    """

    factor: float
    nll: float
    increase: float
    repeated: float
    breaks: bool


@runtime_checkable
class ContinuationStore(Protocol):
    """Where continuations are kept between runs (a `RunStore`)."""

    def continuations(self, index: int, factor: float, control: str = ...) -> Texts | None: ...

    def continuations_nll(self, index: int, factor: float, control: str = ...) -> tuple[float, ...] | None: ...

    def keep_continuations(
        self, index: int, factor: float, texts: Sequence[str], nll: Sequence[float] = ..., control: str = ...
    ) -> None: ...


@dataclass
class MemoryContinuations:
    """Continuations kept for as long as the evaluator lives."""

    kept: dict[Steered, tuple[Texts, tuple[float, ...]]] = field(
        default_factory=dict[Steered, tuple[Texts, tuple[float, ...]]]
    )

    def continuations(self, index: int, factor: float, control: str = OWN) -> Texts | None:
        return self.kept.get(Steered(index, factor, control), (None, None))[0]

    def continuations_nll(self, index: int, factor: float, control: str = OWN) -> tuple[float, ...] | None:
        return self.kept.get(Steered(index, factor, control), (None, None))[1]

    def keep_continuations(
        self, index: int, factor: float, texts: Sequence[str], nll: Sequence[float] = (), control: str = OWN
    ) -> None:
        self.kept[Steered(index, factor, control)] = tuple(texts), tuple(nll)


@dataclass(frozen=True)
class PartContinuations:
    """Continuations of prompts from a part of the corpus, kept in the store of the whole beside those of all prompts."""

    whole: ContinuationStore
    part: str

    def continuations(self, index: int, factor: float, control: str = OWN) -> Texts | None:
        return self.whole.continuations(index, factor, f"{control}@{self.part}")

    def continuations_nll(self, index: int, factor: float, control: str = OWN) -> tuple[float, ...] | None:
        return self.whole.continuations_nll(index, factor, f"{control}@{self.part}")

    def keep_continuations(
        self, index: int, factor: float, texts: Sequence[str], nll: Sequence[float] = (), control: str = OWN
    ) -> None:
        self.whole.keep_continuations(index, factor, texts, nll, f"{control}@{self.part}")
