"""What a server says where it does not answer: the words in a body of any form, and the numbers in them."""

import html
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_BYTES = 32 * 2**20
"""Of a body, unpacked; a full answer with log-probabilities takes well under 1 MiB."""
_MOST_CHARS = 4000
_DEEPEST = 8
_LEAST_NUMBER = 16
"""Smaller numbers in a message are versions, positions and the like, not counts of tokens."""

_SAYS = re.compile(
    r"(error_?|inner_?)?(message|error|description)|errors(_message)?|details?|msg|(error|status)_msg|reason|title|metadata|raw"
    r"|fault(string)?|cause|exception|base_resp"
)
"""Names under which servers say what is wrong."""
_CODES = re.compile(r"(error_?|status_|__)?(code|type)|status|param|reason")
"""Names under which they say it for programs."""


class Words(NamedTuple):
    """What a body says: `text` for people, `codes` the names that programs give to the same."""

    text: str
    codes: str


def unpacked(raw: bytes) -> bytes:
    """`raw`, or what is in it where it is gzip that no header announces; at most `MOST_BYTES`."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return zlib.decompressobj(31).decompress(raw, MOST_BYTES)
    except zlib.error:
        return raw


def read_body(raw: bytes, charset: str | None = None) -> object:
    """What a server's body holds.

    Args:
        raw: its bytes; gzip that no header announced is unpacked, and what is beyond `MOST_BYTES` left out.
        charset: as the server names it; None is UTF-8.

    Returns:
        Its JSON; a list of JSON values where it is a stream of events; or else its text, without HTML's tags.
    """
    raw = unpacked(raw[:MOST_BYTES])
    try:
        text = raw.decode(charset or "utf-8", "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    text = text.strip("\ufeff \t\r\n")
    if (value := parsed(text)) is not None:
        return value
    events = [parsed(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    if any(event is not None for event in events):
        return [event for event in events if event is not None]
    if re.match(r"<(!doctype|html|head|body|\?xml|!--)", text, re.I):
        text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", " ", text[: 16 * _MOST_CHARS])
        text = f"(a web page) {html.unescape(text)}"
    return " ".join(text[: 4 * _MOST_CHARS].split())


def words_of(body: object) -> Words:
    """The words of a body that `read_body` read: those under names that servers use for messages, or else all strings in it.

    Example:
        >>> words_of({"error": {"message": "Too many requests", "code": "rate_limit"}})
        Words(text='Too many requests', codes='rate_limit')
    """
    text = codes = ""
    for anything in (False, True):
        found = list(_spoken(body, anything))
        text = "; ".join(dict.fromkeys(said for kind, said in found if kind == "text"))
        codes = " ".join(dict.fromkeys(said for kind, said in found if kind == "code"))
        if text:
            break
    return Words(text[:_MOST_CHARS], codes[:_MOST_CHARS])


def status_in(body: object) -> int | None:
    """The HTTP status that an error within an answer names, or None."""
    inner = body.get("error") if isinstance(body, Mapping) else None
    for holder in (inner, body):
        for name in ("code", "status", "status_code", "http_status_code"):
            code = holder.get(name) if isinstance(holder, Mapping) else None
            if re.fullmatch(r"[45]\d\d", str(code)):
                return int(str(code))
    return None


def parsed(text: str) -> Any | None:
    """JSON, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _spoken(value: object, anything: bool, depth: int = 0) -> Iterator[tuple[str, str]]:
    """("text" or "code", words) in a body. Of named fields first: what else is there may be the request, sent back."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        inner = parsed(value) if value.lstrip()[:1] in ("{", "[") else None  # one server's error inside another's
        if isinstance(inner, dict | list):
            yield from _spoken(inner, anything, depth + 1)
        elif said := " ".join(value[:_MOST_CHARS].split()):
            yield "text", said
    elif isinstance(value, list):
        for inner in value[:20]:
            yield from _spoken(inner, anything, depth + 1)
    elif isinstance(value, Mapping):
        fields = {str(name).lower(): inner for name, inner in value.items()}
        place = fields.get("loc")
        if isinstance(place, list) and isinstance(fields.get("msg"), str):  # FastAPI's: a message about one field
            yield "text", f"{'.'.join(str(part) for part in place)}: {fields['msg']}"
        for name, inner in fields.items():
            if _CODES.fullmatch(name) and isinstance(inner, str | int):
                yield "code", str(inner)
            if anything or _SAYS.fullmatch(name):
                yield from _spoken(inner, anything, depth + 1)
        if isinstance(param := fields.get("param"), str) and param not in str(fields.get("message")):
            yield "text", param


_ABOUT_ANSWER = re.compile(r"max\w*[ _]?tokens|completion|output|new[ _]tokens|generat", re.I)
_ABOUT_PROMPT = re.compile(r"context|prompt|input|message|total|sequence|model_len", re.I)


def room_told(said: str, limit: int, prompt: float) -> tuple[int | None, bool]:
    """The tokens that a refusal's numbers leave for the answer (None: they do not tell), and whether they limit answers alone.

    `limit` is what was asked for and `prompt` an estimate of the prompt, both in tokens.

    >>> room_told("maximum context length is 2048 tokens. You requested 4700 (700 in the messages, 4000 in the completion)", 4000, 600)
    (1348, False)
    >>> room_told("max_tokens is too large: 4000. This model supports at most 1024 completion tokens", 4000, 600)
    (1024, True)
    """
    if re.search(r"\bgot -\d", said):  # what is left once the prompt is taken off
        return 0, False
    said = re.sub(r"input (validation|should)\b", "", said, flags=re.I)
    numbers = {int(re.sub(r"\D", "", found)) for found in re.findall(r"(?<![\w.-])\d[\d,_]{0,12}(?![\w-]|\.\d)", said)}
    others = {number for number in numbers - {limit} if number >= _LEAST_NUMBER}
    about_answer = limit in numbers or bool(_ABOUT_ANSWER.search(said))
    if about_answer and not _ABOUT_PROMPT.search(said):
        return max((number for number in others if number < limit), default=None), True
    sums = [number - limit for number in others if number - limit in others]
    used = min(sums, default=None)
    together = max(others, default=0) - limit  # where the largest number is what was asked for in all
    if used is None and limit in numbers and len(others) >= 2:
        used = min(others)
    if used is None and prompt / 2 <= together <= 2 * prompt:
        used = together
    if used is None and len(others) >= 2:
        if not about_answer:
            return 0, False  # the prompt's length and the most that it may have
        used = min(others)
    most = max((n for n in others if used is None or n not in (used, used + limit)), default=None)
    if most is None:
        return None, False
    return max(0, most - (math.ceil(1.1 * prompt) if used is None else used)), False
