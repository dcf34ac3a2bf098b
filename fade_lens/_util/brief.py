"""How values show themselves where people look at them: in a few lines, whatever they hold."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

from fade_lens._util.words import clip, visible

WIDTH, LINES, CHARACTERS, MOST = 120, 10, 60, 1000
"""Of what is shown: characters of a line, lines, characters of each text in it, and of all."""


class Brief:
    """A dataclass whose `repr` counts what it holds much of, and leaves out what is as by default.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Run(Brief):
    ...     name: str
    ...     texts: tuple[str, ...]
    ...     seed: int = 0
    >>> Run("a", ("some text",) * 500)
    Run(name='a', texts=<500 str>)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in cls.__dict__:  # here, where a dataclass finds it and makes none of its own
            cls.__repr__ = shown  # pyright: ignore[reportAttributeAccessIssue]


def shown(value: Any) -> str:
    """A dataclass on one line, or a line a field where it does not fit."""
    if not dataclasses.is_dataclass(value):
        return object.__repr__(value)
    parts = [
        f"{f.name}={short(got)}"
        for f in dataclasses.fields(value)
        if f.repr and not same(got := getattr(value, f.name), f)
    ]
    name = type(value).__name__
    if len(name) + sum(len(part) + 2 for part in parts) <= WIDTH:
        return f"{name}({', '.join(parts)})"
    return in_lines(name, ["", *parts])


def in_lines(name: str, parts: Sequence[str]) -> str:
    """Some parts in brackets behind a name: the first beside it, each other on a line of its own.

    >>> print(in_lines("Results", ["2 descriptions", "9 'cats': holds", "", "11 'dogs': open"]))
    Results(2 descriptions
        9 'cats': holds
        11 'dogs': open)
    """
    told = [clip(visible(" ".join(part.split())), WIDTH - 4) for place, part in enumerate(parts) if part or not place]
    more = ["…"] if len(told) > LINES + 1 else []
    return clip("\n    ".join([f"{name}({told[0]}", *told[1 : LINES + 1], *more]), MOST - 1) + ")"


def same(value: Any, field: "dataclasses.Field[Any]") -> bool:
    """Whether a field is as by default; empty containers are."""
    if value is None or isinstance(value, str | bool | int | float):
        return value is field.default or (field.default is not dataclasses.MISSING and value == field.default)
    return isinstance(value, Sequence | Mapping | Set) and not len(cast("Sequence[Any]", value))


def short(value: Any) -> str:
    """A value in some fifty characters: containers of more than a few small values by what they hold, other dataclasses by their names."""
    if isinstance(value, str):
        return repr(clip(str(value), CHARACTERS))
    if isinstance(value, float):
        return f"{value:.4g}"
    if dataclasses.is_dataclass(value):
        told = repr(value)
        first = next((f" {short(getattr(value, f.name))}" for f in dataclasses.fields(value) if f.repr), "")
        least = f"<{type(value).__name__}{first}>"
        return told if len(told) <= CHARACTERS and "\n" not in told else clip(least, CHARACTERS)
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} {' × '.join(map(str, value.shape)) or 'of one number'}>"
    if isinstance(value, Mapping | Sequence | Set) and not isinstance(value, bytes):
        return held(value)
    return clip(repr(value), CHARACTERS)


def held(value: Any) -> str:
    """A container."""
    if len(value) <= 4:
        pairs = isinstance(value, Mapping)
        inside = [f"{short(k)}: {short(v)}" for k, v in value.items()] if pairs else list(map(short, value))
        told = ", ".join(inside)
        if len(told) <= CHARACTERS and "\n" not in told:
            return f"{{{told}}}" if pairs or isinstance(value, Set) else f"({told}{',' if len(inside) == 1 else ''})"
    of = next(iter(value.values() if isinstance(value, Mapping) else value))
    return f"<{len(value)} {type(of).__name__}>"
