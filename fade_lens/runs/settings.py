"""Everything that decides a run's numbers, in one place."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, cast, get_args, get_origin

from fade_lens._util.errors import InputError
from fade_lens.metrics.fade import Preset

MODES = ("add", "clamp", "scale", "ablate")
PRESETS = ("default", "paper")
ARMS = ("ablate", "random", "other")


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the defaults suit SAE latents and a paid judge (about 20 judge calls a description).

    Raises:
        InputError: a value that cannot be used, by its name.
    """

    preset: Preset = "default"
    """"default": signed, weighted, cross-fitted; "paper": the reference's arithmetic, digit for digit."""

    seed: int = 0
    """Every random choice comes from this number, the feature and the purpose; the order of features changes nothing."""

    context: int | None = None
    """Tokens of a text that count, BOS included; None: what the SAE was trained on, at most 128."""

    outlier_factor: float = 5.0
    """Positions whose residual norm is above this many medians never count (massive activations); inf: off."""

    synthetic_texts: int = 30
    """Texts that the judge writes for each description (Clarity)."""

    rated_texts: int = 200
    """Natural texts that the judge rates for each description (Responsiveness, Purity)."""

    interval_width: float | None = 0.3
    """Rating goes in rounds and stops before `rated_texts` once the 95 % intervals of Responsiveness and Purity are both no wider than
    this, or that of Responsiveness lies below the gate. Continuations are rated at every factor for the first prompts, then at the best factor
    alone, until Faithfulness' interval is no wider either. None: everything is rated, as preset "paper" always does."""

    gate: float | None = 0.5
    """Faithfulness is measured where Clarity and Responsiveness are both at least this; None: always."""

    factors: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    """Steering strengths in units of the feature's reference activation; 0, the untouched model, is always added. With none, `()`,
    Faithfulness is not measured.

    Measured on Gemma 3 270M and 29 latents of the demo's SAE whose concepts a rule can check (`tests/benchmarks/factors.py`): over all of
    them the concept shows in 4, 9, 11 and 12 % of continuations at these factors and in 13 % at 3, while the texts get 0.1, 0.9, 1.4, 1.9 and
    2.3 nats a token less likely than the model's own; from 2 nats on hardly one is a sentence. Single latents differ: those that show their
    concept in over a third of the texts do so best at 1 ("!"), 1.5 ("Mr.", spending), 2 (email addresses) or beyond 3 ("double"), and half of all never do."""

    mode: str = "add"
    """"add" the decoder direction; or "clamp", "scale", "ablate" the feature's activation."""

    arms: tuple[str, ...] = ()
    """Controls rated for the same description: "ablate" the feature, steer along a "random" direction of equal length, or along
    that of an "other" feature. Each but "ablate" costs as many continuations as the feature's own."""

    max_nll_increase: float | None = None
    """A factor whose texts are this many nats a token less likely to the untouched model than its own is never the best; None: no limit."""

    reference_quantile: float = 0.99
    """A feature's reference activation: this quantile of its largest activations over the texts on which it fires."""

    prompts: int = 30
    """Natural beginnings that are continued at every factor; how many of them are rated, `interval_width` tells."""

    prompt_tokens: int = 16
    """Tokens of each beginning, BOS included."""

    new_tokens: int = 30
    """Tokens of each continuation."""

    temperature: float = 0.7
    """Of the continuations; 0 is greedy."""

    top_texts: int = 10
    """Strongest natural texts kept with their token-level activations, for people to look at."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name), field.type))
        for name, allowed in (("preset", PRESETS), ("mode", MODES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, allowed))}")
        for arm in self.arms:
            if arm not in ARMS or self.arms.count(arm) > 1:
                raise InputError(f"arms holds {arm!r}; give {', '.join(map(repr, ARMS))}, each at most once")
        if self.arms and not self.factors:
            raise InputError(
                f"arms is {self.arms}, but there are no factors at which to steer them; give factors or no arms"
            )
        for factor in self.factors:
            if not math.isfinite(factor):
                raise InputError(f"factors holds {factor}; every factor must be a finite number")
        if len(set(self.factors)) < len(self.factors):
            raise InputError(f"factors {self.factors} holds a factor twice; give each once")
        at_least = {
            "synthetic_texts": 1,
            "rated_texts": 1,
            "prompts": 1,
            "prompt_tokens": 1,
            "new_tokens": 1,
            "temperature": 0,
            "top_texts": 0,
            "seed": 0,
            "context": 2,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if self.max_nll_increase is not None and self.preset == "paper":
            raise InputError("max_nll_increase has no meaning in preset 'paper', which knows no fluency; leave it out")
        if self.interval_width is not None and not self.interval_width > 0:
            raise InputError(
                f"interval_width is {self.interval_width}; give a width above 0, or None to rate all texts"
            )
        if not self.outlier_factor > 1:
            raise InputError(f"outlier_factor is {self.outlier_factor}; it must be above 1 (inf switches the rule off)")
        if not 0 < self.reference_quantile <= 1:
            raise InputError(f"reference_quantile is {self.reference_quantile}; it must be above 0 and at most 1")

    @property
    def steered_factors(self) -> tuple[float, ...]:
        """The factors that change the model (0 in "add" mode leaves it untouched and is generated once a run).

        The reference's baseline is the model steered at factor 0, that is, with the feature ablated: so is "paper"'s.
        """
        if self.mode == "add" or not self.factors:
            return tuple(f for f in self.factors if f != 0)
        if self.preset == "paper" and self.mode != "ablate":
            return tuple(dict.fromkeys((0.0, *self.factors)))
        return self.factors

    @property
    def steers(self) -> bool:
        """Whether there is a factor at which to steer; without one, Faithfulness is not measured."""
        return any(self.steered_factors)

    def arm_factors(self, arm: str) -> tuple[float, ...]:
        """The factors at which a control is steered: those of the feature, or one that stands for "ablated"."""
        return (1.0,) if arm == "ablate" else tuple(f for f in self.steered_factors if f != 0)

    @property
    def steered_sets(self) -> int:
        """How often the prompts are continued for each feature, controls included, the untouched model not."""
        return len(self.steered_factors) + sum(len(self.arm_factors(arm)) for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a store and a report."""
        lists = {"factors": list(self.factors), "arms": list(self.arms)}
        return {**asdict(self), **lists, "outlier_factor": str(self.outlier_factor)}


def _plain(name: str, value: Any, kind: Any) -> Any:
    """`value` as a field of type `kind` keeps it: plain numbers, which JSON knows, for NumPy's. Raises `InputError` for what is no number."""
    allowed = get_args(kind) or (kind,)
    number = allowed[0] in (int, float)
    if get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"{name} is {value!r}; give a tuple of {'numbers' if number else 'names'}")
        return tuple(_plain(f"{name}[{at}]", one, allowed[0]) for at, one in enumerate(cast("Iterable[Any]", value)))
    if not number or (value is None and NoneType in allowed):
        return value
    whole = allowed[0] is int
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or value != value:  # nan is no number either
        wanted = ("a whole number" if whole else "a number") + (" or None" if NoneType in allowed else "")
        raise InputError(f"{name} is {value!r}; give {wanted}")
    return allowed[0](value)
