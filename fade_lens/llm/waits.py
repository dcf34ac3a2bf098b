"""How long a server asks to be left alone: told in headers, in fields of an error's body, or in words."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from time import time

LONGEST_WAIT = 120.0
"""What a server asks for beyond this many seconds is not waited for at once: some ask for a day where a minute does."""
_READ = 20_000
"""Characters of a body that are looked at."""

_UNITS = {
    0.001: r"ms(?:ecs?)?\b|milli\w+|毫秒|ミリ秒|밀리초",
    1.0: r"s(?![^\W\d_])|sec(?:s|onds?)?\b|se[ck]und\w*|second\w*|segundos?\b|saniye\b|сек\w*|秒|초",
    60.0: r"m(?![^\W\d_])|min(?:s|ut\w+)?\b|мин\w*|分|분",
    3600.0: r"h(?![^\W\d_])|h(?:ou)?rs?\b|stunden?\b|heures?\b|horas?\b|час\w*|小时|小時|時間|시간",
    86400.0: r"d(?![^\W\d_])|days?\b|天",
}
_AMOUNT = r"\d+(?:\.\d+)?\s*(?:" + "|".join(_UNITS.values()) + ")"
_DURATION = re.compile(rf"{_AMOUNT}(?:[\s,]*(?:and\s+)?{_AMOUNT})*", re.I)
"""A duration such as "1.2s", "6m0s", "20 ms", "2 minutes and 3 seconds"."""
_FIELD = re.compile(
    r"""(?<![\w-])(?:x-)?(?:retry[_-]?(?:after|delay|in)|(?:rate[_-]?limit[_-]?)?resets?(?:[_-]?(?:after|at|in|time|requests|tokens))?
    |estimated[_-]?time|cool[_-]?down(?:[_-]?time)?|wait(?:[_-]?time)?)(?P<unit>[_-]?(?:ms|milli\w*|s|secs?|seconds))?
    ["']*\s*(?:[:=]\s*\{?|\{)\s*["']*(?:seconds["']*\s*:\s*["']*)?(?P<value>[^"',{}\[\]\n]{1,40})""",
    re.I | re.X,
)
"""A field that holds a wait."""
_ASKS = re.compile(
    r"\b(?:re-?try(?:ing)?|try\b.{0,30}\bagain|wait|resets?|available|cool(?:ing)?[- ]?down|back off|slow down|refresh\w*|lifted|blocked|another request|opnieuw|igen|tekrar)\b"
    r"|重试|重試|再试|再試|等待|稍后|お待ち|다시|기다|erneut|nochmal|\bwart|réessay|\battend|intent|spróbuj|спроб|\besper|riprov|\btent|aguard"
    r"|повтор|подожд|попроб",
    re.I,
)
_NO_WAIT = re.compile(r"(?:\bper|\bevery|\beach|\blast|/|\blimit(?: of)?|每)\s*$", re.I)
"""What stands before the length of a limit's window."""
_SENTENCES = re.compile(r"(?<=[.!?])\s+|[。！？\n;]")


def wait_asked(headers: Mapping[str, str], said: object) -> float | None:
    """How long a server asks to wait.

    Args:
        headers: of its answer. They come first: Retry-After, then rate limits with nothing left.
        said: its body, as JSON or text. Fields in it come second, its words last.

    Returns:
        Seconds, at most `LONGEST_WAIT`; None if it does not say. Where several limits are reached, the last to be lifted counts.

    Example:
        >>> wait_asked({"Retry-After": "7"}, ""), wait_asked({}, "Please try again in 1m30s."), wait_asked({}, "No.")
        (7.0, 90.0, None)
    """
    text = (said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str))[:_READ]
    text = re.sub(r"\\+(n?)", lambda escape: "\n" if escape[1] else "", text)  # JSON may stand as a string within JSON
    waits = _in_headers(headers) or _in_fields(text) or _in_words(text)
    return min(max(*waits, 0.0), LONGEST_WAIT) if waits else None


def _in_headers(headers: Mapping[str, str]) -> list[float]:
    named = {name.lower(): value for name, value in headers.items()}
    for name, unit in (
        ("retry-after-ms", 0.001),
        ("x-ms-retry-after-ms", 0.001),
        ("retry-after", 1.0),
        ("x-retry-after", 1.0),
    ):
        if (wait := _seconds(named.get(name, ""), unit)) is not None:
            return [wait]
    spent = [
        name for name, left in named.items() if "remaining" in name and re.fullmatch(r"\s*(?:0(?:\.0*)?|-\d+)\s*", left)
    ]
    names = [name.replace("remaining", "reset") for name in spent]
    resets = [_seconds(named.get(name, named.get(f"{name}-after", ""))) for name in names]
    if spent_now := re.search(
        r"\b(?:remaining|r)=0\b.*\b(?:reset|t)=(\d+)", named.get("ratelimit", "")
    ):  # IETF's draft
        resets.append(float(spent_now[1]))
    return [wait for wait in resets if wait is not None]


def _in_fields(text: str) -> list[float]:
    found = [
        _seconds(match["value"], 0.001 if re.match("[_-]?m", match["unit"] or "", re.I) else 1.0)
        for match in _FIELD.finditer(text)
    ]
    return [wait for wait in found if wait is not None]


def _in_words(text: str) -> list[float]:
    for sentence in _SENTENCES.split(text):
        if _ASKS.search(sentence) and not re.search(r"time[ds]?[ -]?out", sentence, re.I):
            for match in _DURATION.finditer(sentence):
                if not _NO_WAIT.search(sentence[: match.start()]):
                    return [_amounts(match[0])]
    return []


def _seconds(value: str, unit: float = 1.0) -> float | None:
    """Seconds from now of a number of `unit`, a moment since 1970 (in seconds or milliseconds), a duration or a date.

    >>> _seconds("1500", 0.001), _seconds("6m0s"), _seconds("120ms"), _seconds("soon")
    (1.5, 360.0, 0.12, None)
    """
    value = value.strip()
    if re.fullmatch(r"\d+(?:\.\d*)?", value):
        number = float(value)
        return number / 1000 - time() if number > 1e11 else number - time() if number > 1e9 else number * unit
    if re.match(r"PT\d", value):  # ISO 8601
        value = value[2:].lower()
    if _DURATION.fullmatch(value):
        return _amounts(value)
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError, OverflowError):
            return read(value).timestamp() - time()
    return None


def _amounts(duration: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([^\d\s,]+)", duration)
    units = [next(size for size, names in _UNITS.items() if re.match(names, unit, re.I)) for _, unit in parts]
    return sum(float(number) * size for (number, _), size in zip(parts, units, strict=True))
