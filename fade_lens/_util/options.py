"""Settings as frozen dataclasses: each field carries its help text and its limits, and is checked when the settings are made."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from fade_lens._util.errors import InputError

Group = TypeVar("Group", bound="Options")


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    mend: str = "",
) -> Any:
    """A field of `Options`.

    Args:
        default: its value unless given.
        text: what it means, in full; the command line shows its first sentence.
        least, above, most: limits of a number; None as a value is not held to them.
        choices: the words that it, or each part of a tuple, may be.
        mend: what to give, in place of the sentence made of the limits.
    """
    limits = {"least": least, "above": above, "most": most, "choices": tuple(choices), "mend": mend}
    return field(default=default, metadata={"help": " ".join(text.split()), **limits})


@dataclass(frozen=True)
class Options:
    """A group of settings. Groups are put together by inheritance: each is then a part of the whole.

    Raises:
        InputError: a value that cannot be used, by its name.
    """

    def __post_init__(self) -> None:
        kinds = types_of(type(self))
        for one in fields(self):
            value = plain(one.name, getattr(self, one.name), kinds[one.name])
            object.__setattr__(self, one.name, value)
            within(one.name, value, **{k: v for k, v in one.metadata.items() if k != "help"})
        self.check()

    def check(self) -> None:
        """Raise `InputError` for values that do not go together. An override calls `super().check()`."""

    @classmethod
    def of(cls: type[Group], other: "Options") -> Group:
        """The settings of this kind among others: `other` itself where it is of this kind, else what both know, and defaults."""
        if isinstance(other, cls):
            return other
        known = {one.name for one in fields(cls)}
        return cls(**{one.name: getattr(other, one.name) for one in fields(other) if one.name in known})

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON knows, for a store and a report."""
        return {name: for_json(value) for name, value in asdict(self).items()}


@cache
def types_of(kind: type) -> dict[str, Any]:
    """The types of a class' fields."""
    return get_type_hints(kind)


def plain(name: str, value: Any, kind: Any) -> Any:
    """`value` as a field of type `kind` keeps it: plain numbers, which JSON knows, for NumPy's. Raises `InputError` for what is no number."""
    allowed = get_args(kind) or (kind,)
    number = allowed[0] in (int, float)
    if get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"{name} is {value!r}; give a tuple of {'numbers' if number else 'names'}")
        return tuple(plain(f"{name}[{at}]", one, allowed[0]) for at, one in enumerate(cast("Iterable[Any]", value)))
    if not number or (value is None and NoneType in allowed):
        return value
    whole = allowed[0] is int
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or value != value:  # nan is no number either
        wanted = ("a whole number" if whole else "a number") + (" or None" if NoneType in allowed else "")
        raise InputError(f"{name} is {value!r}; give {wanted}")
    return allowed[0](value)


def within(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    mend: str = "",
) -> None:
    """Raise `InputError` for a value beyond the limits of its field."""
    if choices and isinstance(value, tuple):
        words = cast("tuple[str, ...]", value)
        for word in words:
            if word not in choices or words.count(word) > 1:
                raise InputError(f"{name} holds {word!r}; give {', '.join(map(repr, choices))}, each at most once")
    elif choices and value not in choices:
        raise InputError(f"{name} is {value!r}; give one of {', '.join(map(repr, choices))}")
    if value is None or isinstance(value, str | tuple):
        return
    limits = ((least, "at least", least is None or value >= least), (above, "above", above is None or value > above))
    limits += ((most, "at most", most is None or value <= most),)
    if not all(kept for _, _, kept in limits):
        words = " and ".join(f"{how} {limit:g}" for limit, how, _ in limits if limit is not None)
        raise InputError(f"{name} is {value}; {mend or f'it must be {words}'}")


def for_json(value: Any) -> Any:
    """Tuples as lists; an infinite number, which JSON does not have, as its name."""
    if isinstance(value, tuple | list):
        return [for_json(one) for one in cast("tuple[Any, ...]", value)]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
