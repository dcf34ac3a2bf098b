"""Dataclasses as JSON values, and back by their type hints."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, cast

from fade_lens._util.reasons import Reason


def to_plain(value: Any) -> Any:
    """Nested dataclasses, tuples and mappings as JSON values."""
    if isinstance(value, Reason):
        return {"code": value.code, "words": str(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in cast(tuple[Any, ...], value)]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for dataclass `kind`, following its type hints; no code is run from the data."""
    if kind is Reason:
        return Reason(**value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = [f.name for f in dataclasses.fields(kind) if f.name in value]
        return cast(type, kind)(**{name: from_plain(hints[name], value[name]) for name in fields})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        chosen = [a for a in arguments if a is not type(None)]
        if Reason in chosen and len(chosen) > 1:  # in place of something else
            told = isinstance(value, Mapping) and "words" in value
            chosen = [a for a in chosen if (a is Reason) == told]
        return None if value is None else from_plain(chosen[0], value) if len(chosen) == 1 else value
    if origin is Mapping and not isinstance(value, Mapping):
        raise ValueError(f"{value!r:.80} is no record")
    if origin is Mapping and dataclasses.is_dataclass(arguments[1]):
        return {str(key): from_plain(arguments[1], one) for key, one in value.items()}
    allowed: Any = (int, float) if kind is float else kind
    if kind in (int, float, str, bool) and not isinstance(value, allowed):
        raise ValueError(f"{value!r:.80} is no {kind.__name__}")
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(k, v) for k, v in zip(kinds, value, strict=True))
    return value
