"""Settings as frozen dataclasses: each field carries its help text and its limits, and is checked when the settings are made."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from fade_lens._util.errors import Argument, InputError

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
    none: str = "",
    off: float | None = None,
    switch: str = "",
) -> Any:
    """A field of `Options`, and an option of the command line.

    Args:
        default: its value unless given.
        text: what it means, in full; the command line shows its first sentence.
        least, above, most: limits of a number; None as a value is not held to them.
        choices: the words that it, or each part of a tuple, may be.
        mend: what to give, in place of the sentence made of the limits.
        none: what None, or an empty tuple, means.
        off: a number that says None on the command line, as the word "none" does.
        switch: a name; `--no-name` says None, or an empty tuple, on the command line too.
    """
    limits = {"least": least, "above": above, "most": most, "choices": tuple(choices), "mend": mend}
    told = {"help": " ".join(text.split()), "none": none, "off": off, "switch": switch}
    return field(default=default, metadata={"limits": limits, **told})


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
            within(one.name, value, **one.metadata["limits"])
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


def plain(name: str, value: Any, kind: Any, place: str = "") -> Any:
    """`value` as a field of type `kind` keeps it: plain numbers, which JSON knows, for NumPy's. Raises `InputError` for what is no number."""
    allowed = get_args(kind) or (kind,)
    number = allowed[0] in (int, float)
    if get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(Argument(name), f" is {value!r}; give a tuple of {'numbers' if number else 'names'}")
        return tuple(plain(name, one, allowed[0], f"[{at}]") for at, one in enumerate(cast("Iterable[Any]", value)))
    if not number or (value is None and NoneType in allowed):
        return value
    whole = allowed[0] is int
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or value != value:  # nan is no number either
        raise InputError(Argument(name), f"{place} is {value!r}; give {plain_words(allowed)}")
    return allowed[0](value)


def read(text: str, setting: Field[Any], kind: Any) -> Any:
    """The value of a setting of type `kind` that is written as text: numbers and names, several of them between commas, "none".

    Raises `InputError` for what is no number; limits are for the setting's `Options` to check.

    >>> setting = option(1, "How many.", off=0)
    >>> [read(text, setting, int | None) for text in ("3", "0", "none")], read("0.5, 1", setting, tuple[float, ...])
    ([3, None, None], (0.5, 1.0))
    """
    allowed, several = get_args(kind) or (kind,), get_origin(kind) is tuple
    if text.strip().lower() == "none" and (several or NoneType in allowed):
        return () if several else None
    if allowed[0] not in (int, float):
        return names(text) if several else text
    try:
        found = tuple(allowed[0](part) for part in (names(text) if several else (text,)))
    except ValueError:
        found = ()
    if several and found:
        return found
    if not found:
        wanted = "numbers separated by commas, such as 0.5,1,2" if several else plain_words(allowed)
        raise InputError(Argument(setting.name), f" is {text!r}; give {wanted}")
    return None if found[0] == setting.metadata["off"] else found[0]


def names(text: str) -> tuple[str, ...]:
    """Words separated by commas.

    >>> names("shuffled, generic")
    ('shuffled', 'generic')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def plain_words(allowed: Sequence[Any]) -> str:
    """What a number of these types is called."""
    return ("a whole number" if allowed[0] is int else "a number") + (" or None" if NoneType in allowed else "")


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
                raise InputError(
                    Argument(name), f" holds {word!r}; give {', '.join(map(repr, choices))}, each at most once"
                )
    elif choices and value not in choices:
        raise InputError(Argument(name), f" is {value!r}; give one of {', '.join(map(repr, choices))}")
    each = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
    for at, one in enumerate(each):
        check_limits(name, one, f"[{at}]" if isinstance(value, tuple) else "", least, above, most, mend)


def check_limits(
    name: str, value: Any, place: str, least: float | None, above: float | None, most: float | None, mend: str
) -> None:
    """Raise `InputError` for a number, at a place of a tuple, beyond the limits of its field."""
    if value is None or isinstance(value, str):
        return
    limits = ((least, "at least", least is None or value >= least), (above, "above", above is None or value > above))
    limits += ((most, "at most", most is None or value <= most),)
    if not all(kept for _, _, kept in limits):
        words = " and ".join(f"{how} {limit:g}" for limit, how, _ in limits if limit is not None)
        raise InputError(Argument(name), f"{place} is {value}; {mend or f'it must be {words}'}")


def for_json(value: Any) -> Any:
    """Tuples as lists; an infinite number, which JSON does not have, as its name."""
    if isinstance(value, tuple | list):
        return [for_json(one) for one in cast("tuple[Any, ...]", value)]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
