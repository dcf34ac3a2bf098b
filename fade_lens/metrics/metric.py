"""One metric of one description: a value with its interval, or none with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.reasons import Reason

Arithmetic = Literal["default", "paper"]
"""How a score is computed: as documented here, or as the reference implementation does."""

GATE = 0.5
"""What Clarity and Responsiveness must reach for a description not to fail, unless a run sets another gate."""
GATE_NOT_PASSED = "gate_not_passed"
"""The code of the reason of a score that is not measured, for one that decides is below the gate."""


@dataclass(frozen=True)
class Metric(Brief):
    """One metric of one feature and description.

    Attributes:
        value: None where the metric is undefined.
        reason: why it is undefined; None where there is a value.
        interval: lower and upper limit, of nominal coverage 95 %; None where there is none.
        counts: the numbers of texts behind the value.
        details: further numbers of the same evidence (unweighted value, prevalence, chosen factor, ...).
        interval_reason: why a value has no interval.

    Raises:
        InputError: a value and a reason, or neither.
    """

    value: float | None
    reason: Reason | None = None
    interval: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    details: Mapping[str, float | None] = field(default_factory=dict[str, float | None])
    interval_reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise InputError(
                f"Metric(value={self.value}, reason={self.reason!r}): give a reason exactly when there is no value"
            )

    def to_dict(self) -> dict[str, object]:
        """A JSON-able dict; `from_dict` reads it back."""
        return {
            "value": self.value,
            "reason": None if self.reason is None else {"code": self.reason.code, "words": str(self.reason)},
            "interval": None if self.interval is None else list(self.interval),
            "counts": dict(self.counts),
            "details": dict(self.details),
            "interval_reason": self.interval_reason,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "Metric":
        """The metric that `to_dict` wrote."""
        fields = dict(record)
        if isinstance(reason := fields.get("reason"), Mapping):
            fields["reason"] = Reason(**reason)
        if isinstance(interval := fields.get("interval"), (list, tuple)):
            low, high = interval
            fields["interval"] = (float(low), float(high))
        return cls(**fields)  # pyright: ignore[reportArgumentType]


def check_arithmetic(arithmetic: Arithmetic) -> None:
    """Raise `InputError` for an unknown one."""
    if arithmetic not in get_args(Arithmetic):
        choices = ", ".join(map(repr, get_args(Arithmetic)))
        raise InputError(Argument("arithmetic"), f" is {arithmetic!r}; give one of {choices}")


def around(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    """The interval, stretched to hold the value, and cut at 1, which no score exceeds.

    Pseudo-texts pull an interval towards the middle, so that all of it may lie below a perfect score.

    >>> around(1.0, (0.7, 0.95))
    (0.7, 1.0)
    """
    return min(interval[0], value), min(max(interval[1], value), 1.0)
