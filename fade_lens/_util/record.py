"""Dataclasses as JSON values, and back by their type hints."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

from fade_lens._util.reasons import Reason

SCALARS = frozenset({str, int, float, bool, type(None)})
"""Exactly these are JSON values as they are: a `Reason` is a text too."""


def to_plain(value: Any) -> Any:
    """Nested dataclasses, tuples and mappings as JSON values."""
    if (kind := type(value)) in SCALARS:
        return value
    if kind is tuple or kind is list:
        return [v if type(v) in SCALARS else to_plain(v) for v in value]
    if names := _names(kind):
        return {n: v if type(v := getattr(value, n)) in SCALARS else to_plain(v) for n in names}
    if isinstance(value, Reason):
        return {"code": value.code, "words": str(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    return list(map(to_plain, cast(tuple[Any, ...], value))) if isinstance(value, tuple | list) else value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for dataclass `kind`, following its type hints; no code is run from the data."""
    return _reader(kind)(value)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass; none of what is no dataclass."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of a kind: hints are looked up once a kind, for a file holds hundred thousands of values."""
    if kind is Reason:
        return lambda value: Reason(**value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = [(name, _reader(hints[name])) for name in _names(kind)]
        return lambda value: cast(type, kind)(**{name: read(value[name]) for name, read in fields if name in value})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return _read_union([a for a in arguments if a is not type(None)])
    if origin is Mapping:
        return _read_mapping(arguments[1])
    if kind in SCALARS:
        return _read_scalar(kind)
    if origin is tuple:
        return _read_tuple(arguments)
    return lambda value: value


def _read_union(chosen: list[Any]) -> Callable[[Any], Any]:
    if Reason in chosen and len(chosen) > 1:  # in place of something else
        others = _read_union([a for a in chosen if a is not Reason])
        told = _reader(Reason)
        return lambda value: (told if isinstance(value, Mapping) and "words" in value else others)(value)
    if len(chosen) > 1:
        return lambda value: value
    if chosen[0] in SCALARS:
        return _read_scalar(chosen[0], type(None))
    read = _reader(chosen[0])
    return lambda value: None if value is None else read(value)


def _read_mapping(kind: Any) -> Callable[[Any], Any]:
    read = _reader(kind) if dataclasses.is_dataclass(kind) else None

    def made(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r:.80} is no record")
        given = cast(Mapping[Any, Any], value)
        return given if read is None else {str(key): read(one) for key, one in given.items()}

    return made


def _read_scalar(kind: type, *others: type) -> Callable[[Any], Any]:
    allowed = (kind, *others, *((int,) if kind is float else ()))

    def made(value: Any) -> Any:
        if not isinstance(value, allowed):
            raise ValueError(f"{value!r:.80} is no {kind.__name__}")
        return value

    return made


def _read_tuple(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if arguments[-1] is Ellipsis:
        read = _reader(arguments[0])
        return lambda value: tuple(map(read, value))
    readers = [_reader(a) for a in arguments]
    return lambda value: tuple(read(v) for read, v in zip(readers, value, strict=True))
