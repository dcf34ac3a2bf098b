"""Numbers and hostile strings as people should see them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")

# Characters that show nothing but change what is seen, or that no file or page may hold: controls, bidi overrides and isolates,
# line separators, lone surrogates, tags (which can carry an invisible text), noncharacters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with every unseen or unencodable character as its code, so that it can be printed anywhere as it is.

    >>> visible("a\\u202eb\\x00")
    'a⟨U+202E⟩b⟨U+0000⟩'
    """
    if text.isprintable():  # nearly all are, and this is quick
        return text
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n").replace("\r", "\n"))


def clip(text: str, characters: int) -> str:
    """At most so many characters, with a mark where some are left out.

    >>> clip("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= characters else text[: max(characters - 1, 0)].rstrip() + "…"


def number(value: float | None, digits: int = 2) -> str:
    """A metric's value or share, with a true minus sign.

    >>> number(-0.256)
    '−0.26'
    """
    if value is None:
        return "undefined"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def amount(value: float | int | None) -> str:
    """A count, or an activation to three significant digits.

    >>> amount(12345), amount(0.01234), amount(None)
    ('12,345', '0.0123', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def duration(seconds: float) -> str:
    """
    >>> duration(431.7)
    '7 min 12 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain(value: Any) -> Any:
    """A JSON value whose strings are `visible` and whose numbers have three significant digits (None: not finite)."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float):
        return float(f"{value:.3g}") if math.isfinite(value) else None
    if value is None or isinstance(value, int):  # before the slow question whether it is a mapping: a page has millions
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in cast(list[Any], value)]
    if isinstance(value, Mapping):
        return {visible(str(k)): plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    return value


def flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as rows of name and value, for a table.

    >>> flat({"seed": 7, "judge": {"model": "m"}, "factors": [0.5, 1.0]})
    [('seed', '7'), ('judge.model', 'm'), ('factors', '0.5, 1.0')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(cast(Mapping[str, Any], value), f"{name}.")
        elif isinstance(value, list | tuple):
            rows.append((name, clip(", ".join(map(str, cast(list[Any], value))), 500)))
        else:
            rows.append((name, clip(str(value), 500)))
    return rows


def evenly(values: Sequence[T], n: int) -> list[T]:
    """At most `n` of the values, evenly spaced, both ends among them.

    >>> evenly(range(101), 5)
    [0, 25, 50, 75, 100]
    """
    if len(values) <= n:
        return list(values)
    return [values[round(i * (len(values) - 1) / max(n - 1, 1))] for i in range(n)]
