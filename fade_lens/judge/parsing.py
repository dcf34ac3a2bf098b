"""From whatever a judge answers to ratings and texts: strict about ids and values, tolerant about everything else.

Answers are read as JSON, then as Python's spelling of it, then by pattern (a truncated answer gives its complete part).
Nothing is evaluated. What cannot be read is left out, so that the caller can ask again.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from fade_lens.llm.thoughts import without_thoughts

_DEEPEST = 40
_MOST_UNCLOSED = 200  # bounds the time that an adversarial answer can take
_ID_KEYS = ("id", "sample", "sample_id", "sampleid", "text_id", "key", "number")
_RATING_KEYS = ("rating", "score", "label", "value", "rate")
_TEXT_KEYS = ("text", "sample", "content", "sentence", "example")
_TEXT_LIST_KEYS = ("texts", "samples", "examples", "sentences", "items")
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.S)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_STRING = re.compile(r'[\[{,:](?:\s|//[^\n"]{0,200}|/\*[^*"]{0,200}\*/)*"((?:[^"\\]|\\.)*)"\s*(?=[,\]}])', re.S)
_BULLET = re.compile(
    r"^[ \t]*(?:(?:\*\*)?(?:(?:text|sample|example|sentence) )?\d{1,3}(?:[.):](?:\*\*)?[ \t]+|[、．）：][ \t]*)|[①-⑳][ \t]*|[-*•–][ \t]+)"
    r"(?![|>][-+]?[ \t]*$)(.+?)[ \t]*$",
    re.M | re.I,
)
_WHOLE = re.compile(r"\s*\{\s*\"(ratings|texts)\"\s*:")
"""How an answer in the form asked for begins."""


class Texts(NamedTuple):
    """Texts read from an answer; `complete` is False where the answer was cut or had to be read line by line."""

    texts: list[str]
    complete: bool


class _Pairs(list[tuple[Any, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen twice."""


def parse_ratings(answer: str, ids: Collection[str]) -> dict[str, int]:
    """Ratings 0, 1 or 2 in `answer` for those of `ids` (strings of digits) that it rates; every other id is ignored.

    An id that is rated twice and differently is left out, as is any value but 0, 1, 2 (also as strings or floats).
    """
    asked = set(ids)
    values, _ = _values(answer)
    pairs = [pair for value in values for pair in _rating_pairs(value, asked)]
    if not pairs:
        pairs = list(_rating_patterns(_plain_punctuation(without_thoughts(answer)), asked))
    return _undisputed(pairs)


def _undisputed(pairs: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    """The ratings of what is rated once, or always alike."""
    found: dict[str, set[int | None]] = {}
    for key, rating in pairs:
        found.setdefault(key, set()).add(rating)
    return {
        key: rating for key, ratings in found.items() if len(ratings) == 1 and (rating := ratings.pop()) is not None
    }


def parse_texts(answer: str) -> Texts:
    """Texts of a JSON array (bare, or under a key such as "texts"), its complete part, or of numbered or bulleted lines."""
    values, whole = _values(answer)
    lists = [list(_strings(values)), *(list(_strings(value)) for value in values)]  # all of them: an object a text
    most = max(map(len, lists), default=0)
    texts = next((found for found in reversed(lists) if 2 * len(found) > most), [])  # of drafts the last one
    if texts and whole:
        return Texts(_tidy(texts), True)
    body = without_thoughts(answer)
    found = [texts]
    for spelled in dict.fromkeys((body, _plain_punctuation(body))):
        start = spelled.find("[")
        lines = [line.strip("\"'“” ") for line in _BULLET.findall(spelled)]
        found.append(_salvaged_strings(spelled[start:]) if start >= 0 else lines)
    return Texts(_tidy(max(found, key=len)), False)


def readable(answer: str, *, cut: bool, thinks: bool) -> str:
    """What of an answer may be read: nothing where it was cut in prose, which is what a model says before it answers.

    `thinks` says that the model is known to; then nothing counts that is cut and does not begin as an answer does.
    """
    body = without_thoughts(answer)
    if cut and re.match(r"\W*[^\W\d]", body) and not re.match(r"\W*[\[{｛［`]|\W*```", body):
        return "" if thinks or _values(body)[1] else body
    return answer


def _values(answer: str) -> tuple[list[Any], bool]:
    """The values of every JSON or Python literal in `answer`, and whether nothing that opened was left unclosed."""
    body = without_thoughts(answer)
    read: list[tuple[list[Any], bool]] = []
    for spelled in dict.fromkeys((body, _plain_punctuation(body))):
        fenced = "\n".join(_FENCE.findall(spelled))
        for candidate in (answer, spelled, fenced):
            if (value := _load(candidate)) is not None:
                return [_unwrapped(value)], True
        text = fenced if "{" in fenced or "[" in fenced else spelled
        found = [_load(segment) if closed else None for segment, closed in _segments(text)]
        read.append(([value for value in found if value is not None], None not in found))
        if read[-1] != ([], True) and read[-1][1]:
            break
    return max(read, key=lambda one: (one[1] and bool(one[0]), len(one[0])))


def _load(text: str) -> Any | None:
    """A JSON object or array, or one in Python's spelling, or None."""
    text = text.strip()
    if text[:1] == '"':  # JSON as a string of JSON
        try:
            text = str(json.loads(text)).strip()
        except ValueError:
            return None
    if not text or text[0] not in "[{(":
        return None
    for attempt in (lambda: text, lambda: _TRAILING_COMMA.sub(r"\1", text), lambda: _python_to_json(text)):
        try:
            return json.loads(attempt(), strict=False, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError):
            continue
    return None


def _unwrapped(value: Any) -> Any:
    """The answer that an object holds as a string, such as the arguments of a call; `value` itself where it holds none."""
    fields = [field for _, field in value] if isinstance(value, _Pairs) else []
    inner = [_load(field) for field in fields if isinstance(field, str) and _WHOLE.match(field)]
    return next((answer for answer in inner if answer is not None), value)


_OPENS = re.compile(r"[\"“”„‟＂「『«]")
_CLOSES = re.compile(
    r"(?<!\\)[\"“”‟＂」』»](?=\s*(?:[,，、]\s*[\"“”„‟＂「『«\[{［｛\d]|[,，、]?\s*[}\]｝］】]|[:：]\s*[\"“”„＂「『\w\[{［｛]|\Z))"
)
_WIDE = str.maketrans("｛｝［］【】：，、０１２３４５６７８９－", "{}[][]:,,0123456789-")


def _plain_punctuation(text: str) -> str:
    """JSON's own punctuation where curly, angled or full-width signs stand for it; what is within strings stays."""
    if text.isascii():
        return text
    spelled: list[str] = []
    at = 0
    while (opens := _OPENS.search(text, at)) and (closes := _CLOSES.search(text, opens.end())):
        inner = _ESCAPE.sub(_escaped, text[opens.end() : closes.start()])
        spelled += [text[at : opens.start()].translate(_WIDE), f'"{inner}"']
        at = closes.end()
    return "".join(spelled) + text[at:].translate(_WIDE)


_PYTHON = re.compile(
    r"""(?P<single>'(?:[^'\\]|\\.)*') | (?P<double>"(?:[^"\\]|\\.)*") | (?P<number>\b\d+)(?=\s*:)
    | (?P<word>\b(?:True|False|None)\b) | (?P<round>[()])""",
    re.S | re.X,
)
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|"', re.S)


def _escaped(match: re.Match[str]) -> str:
    escaped = match[1]
    if escaped is None or escaped == '"':
        return r"\""
    if escaped[0] == "x":
        return rf"\u00{escaped[1:]}"
    return f"\\{escaped}" if escaped[0] in "\\/bfnrtu" else escaped


def _python_to_json(text: str) -> str:
    """Python's dicts, lists, tuples, strings and constants respelled as JSON (not evaluated); also keys without quotes."""

    def respell(match: re.Match[str]) -> str:
        token = match[0]
        if match["single"] or match["double"]:
            return f'"{_ESCAPE.sub(_escaped, token[1:-1])}"'
        if match["number"]:
            return f'"{token}"'
        return {"True": "true", "False": "false", "None": "null", "(": "[", ")": "]"}[token]

    return _TRAILING_COMMA.sub(r"\1", _PYTHON.sub(respell, text))


def _segments(text: str) -> Iterator[tuple[str, bool]]:
    """The bracketed parts of `text`, outermost first, each with whether it closes; an unclosed one gives its inner ones."""
    at = unclosed = 0
    while at < len(text) and unclosed < _MOST_UNCLOSED:
        if text[at] not in "[{":
            at += 1
            continue
        end = _closing(text, at)
        if end is None:
            unclosed += 1
            yield text[at:], False
            at += 1
        else:
            yield text[at : end + 1], True
            at = end + 1


def _closing(text: str, start: int) -> int | None:
    """Index of the bracket that closes the one at `start`, strings skipped; None where there is none."""
    stack: list[str] = []
    quote = ""
    at = start
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char == '"' or (char == "'" and (at == 0 or not text[at - 1].isalnum())):
            quote = char
        elif char in "[{":
            stack.append("]" if char == "[" else "}")
            if len(stack) > _DEEPEST:
                return None
        elif char in "]}":
            if stack.pop() != char:
                return None
            if not stack:
                return at
        at += 1
    return None


def _rating_pairs(value: Any, asked: set[str], depth: int = 0) -> Iterator[tuple[str, int | None]]:
    """(id, rating) pairs in a parsed value; the rating is None where it is none that exists."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict | _Pairs):
        items = list(value.items()) if isinstance(value, dict) else value
        lowered = {str(key).strip().lower(): inner for key, inner in items}
        named = next((_id(lowered[key], asked) for key in _ID_KEYS if key in lowered), None)
        if named is not None:
            yield named, next((_rating(lowered[key]) for key in _RATING_KEYS if key in lowered), None)
            return
        for key, inner in items:
            name = _id(key, asked)
            if name is None:
                yield from _rating_pairs(inner, asked, depth + 1)
            elif isinstance(inner, dict | _Pairs):
                fields = dict(inner)
                yield name, next((_rating(fields[key]) for key in _RATING_KEYS if key in fields), None)
            else:
                yield name, _rating(inner)
    elif isinstance(value, list | tuple):
        if len(value) == 2 and (name := _id(value[0], asked)) is not None:
            yield name, _rating(value[1])
            return
        for inner in value:
            yield from _rating_pairs(inner, asked, depth + 1)


def _id(value: Any, asked: set[str]) -> str | None:
    """`value` as one of the ids asked for ("482", 482, 482.0, "sample 482"), or None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digits = re.fullmatch(r"[^\d.\-]{0,12}(\d{1,9})\W{0,3}", unicodedata.normalize("NFKC", str(value)))
    return digits[1] if digits and digits[1] in asked else None


def _rating(value: Any) -> int | None:
    """`value` as 0, 1 or 2, or None."""
    if isinstance(value, str):
        digit = _WORDED.fullmatch(unicodedata.normalize("NFKC", value))
        value = int(digit[1]) if digit else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in (0, 1, 2):
        return None
    return int(value)


_WORDED = re.compile(r"\s*([012])(?:\.0)?\s*(?:[(:,–—-]\s*[^\W\d].*)?", re.S)
"""A rating, also one that says what it means: "0 (not expressed)"."""


def _rating_patterns(body: str, asked: set[str]) -> Iterator[tuple[str, int | None]]:
    """(id, rating) pairs by pattern. In bracketed answers a rating at the very end does not count: it may be cut short."""
    end = r"(?=\s*[,}\]);\"'\n])" if re.search(r"[\[{]", body) else r"(?=\s*(?:[|,;)\"'*]|/ ?2\b|\n|\.?\s*\Z))"
    named = r"(?:rating|score|label|value|rate)[\"'*`]*"
    between = rf"[\"'*`\])]*\s*(?:(?:[:=,|(\-–—]|->|→|is|rated|gets)+\s*[\"'*`]*(?:{named}\s*[:= ]\s*[\"'*`]*)?|{named}\s*[:=]\s*[\"'*`]*)"
    pattern = rf"(?<![\d.\-])(\d{{1,9}}){between}(-?\d+(?:\.\d+)?)[\"'*`]*{end}"
    for match in re.finditer(pattern, body, re.I):
        rating = _rating(match[2])
        if match[1] in asked and rating is not None:
            yield match[1], rating


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts of a parsed answer: strings of a list, or of its objects' text field."""
    if depth > 4:
        return
    if isinstance(value, dict | _Pairs):
        fields = {
            str(key).strip().lower(): inner for key, inner in (value.items() if isinstance(value, dict) else value)
        }
        chosen = next((fields[key] for key in _TEXT_LIST_KEYS if isinstance(fields.get(key), list | tuple)), None)
        if (
            chosen is None
            and all(isinstance(inner, str) for inner in fields.values())
            and not set(fields) & set(_TEXT_KEYS)
        ):
            chosen = list(fields.values())  # {"1": "…", "2": "…"}
        if chosen is None:
            chosen = next((inner for inner in fields.values() if isinstance(inner, list) and inner), None)
        if chosen is not None:
            yield from _strings(chosen, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            if isinstance(inner, str):
                yield inner
            elif isinstance(inner, dict | _Pairs):
                fields = {str(key).strip().lower(): field for key, field in dict(inner).items()}
                text = next((fields[key] for key in _TEXT_KEYS if isinstance(fields.get(key), str)), None)
                if text is not None:
                    yield text
            elif isinstance(inner, list | tuple):
                yield from _strings(inner, depth + 1)


def _salvaged_strings(body: str) -> list[str]:
    """Complete strings of a JSON array that was cut, object keys left out."""
    found: list[str] = []
    for match in _STRING.finditer(body):
        try:
            found.append(json.loads(f'"{match[1]}"', strict=False))
        except ValueError:
            continue
    return found


def _tidy(texts: list[str]) -> list[str]:
    return [text for raw in texts if (text := raw.strip())]
