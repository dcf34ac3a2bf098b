"""From whatever a judge answers to ratings, texts and fields: strict about ids and values, tolerant about everything else.

An answer is read as JSON, as JSON in other signs, then in Python's spelling. Of one that is cut or damaged, what is whole in it counts, and
patterns for what is left. Nothing is evaluated, and nothing is repaired by guessing, as `json-repair` does, which gives damaged answers
ratings that the judge never gave (`tests/benchmarks/damaged_answers.py`). What cannot be read is left out, so that the caller can ask again.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from fade_lens.llm.thoughts import without_thoughts

_LONGEST = 100_000
"""Characters of an answer that are read."""
_MOST_UNREAD = 200
"""Brackets that begin nothing whole, after which no more are tried: bounds the time that an adversarial answer can take."""
_DEEPEST = 40
"""Brackets within brackets that are looked into."""
_ID_KEYS = ("id", "sample", "sample_id", "sampleid", "text_id", "key", "number")
_RATING_KEYS = ("rating", "score", "label", "value", "rate")
_TEXT_KEYS = ("text", "sample", "content", "sentence", "example")
_TEXT_LIST_KEYS = ("texts", "samples", "examples", "sentences", "items")
_BRACKET = re.compile(r"[\[{]")
_READ = "\0"
"""Stands for what was read: what is before it and what is after it do not belong together."""
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.S)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_STRING = re.compile(r'[\[{,:](?:\s|//[^\n"]{0,200}|/\*[^*"]{0,200}\*/)*"((?:[^"\\]|\\.)*)"\s*(?=[,\]}])', re.S)
_FIELD = re.compile(r'"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)"', re.S)
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


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen twice."""

    @property
    def fields(self) -> dict[str, Any]:
        """Its values by their keys in small letters."""
        return {key.strip().lower(): value for key, value in self}


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_Pairs)


def parse_ratings(answer: str, ids: Collection[str]) -> dict[str, int]:
    """The ratings in an answer.

    Args:
        answer: the model's words.
        ids: what was asked about, as strings of digits; every other id is ignored.

    Returns:
        0, 1 or 2 for each id that is rated. An id that is rated twice and differently is left out, as is any other value; "2" and 2.0 are 2.

    Example:
        >>> parse_ratings('Sure! {"ratings": [{"id": "482", "rating": 2}, {"id": "193", "rating": 7}]}', ["482", "193"])
        {'482': 2}
    """
    asked = set(ids)
    values, around = _read(answer)
    pairs = [pair for value in values for pair in _rating_pairs(value, asked)]
    if not pairs or _BRACKET.search(around):
        named = {name for name, _ in pairs}
        pairs += (pair for pair in _rating_patterns(_plain_punctuation(around), asked) if pair[0] not in named)
    found: dict[str, set[int | None]] = {}
    for name, rating in pairs:
        found.setdefault(name, set()).add(rating)
    return {name: rating for name, (rating, *others) in found.items() if rating is not None and not others}


def parse_texts(answer: str) -> Texts:
    """The texts in an answer.

    Args:
        answer: the model's words.

    Returns:
        The texts of a JSON array (bare, or under a key such as "texts"); of one that is cut those that are whole; of an answer without
        JSON those of its numbered or bulleted lines.

    Example:
        >>> parse_texts('{"texts": ["One.", "Two.", "Thr')
        Texts(texts=['One.', 'Two.'], complete=False)
    """
    values, around = _read(answer)
    lists = [list(_strings(values)), *(list(_strings(value)) for value in values)]  # all of them: an object a text
    most = max(map(len, lists), default=0)
    texts = next((found for found in reversed(lists) if 2 * len(found) > most), [])  # of drafts the last one
    if texts and not _BRACKET.search(around):
        return Texts(_tidy(texts), True)
    body = without_thoughts(answer)[:_LONGEST]
    found = [texts]
    for spelled in dict.fromkeys((body, _plain_punctuation(body))):
        start = spelled.find("[")
        lines = [line.strip("\"'“” ") for line in _BULLET.findall(spelled)]
        found.append(_salvaged_strings(spelled[start:]) if start >= 0 else lines)
    return Texts(_tidy(max(found, key=len)), False)


def parse_fields(answer: str) -> dict[str, Any] | None:
    """The JSON object of a free answer, whatever stands around it; of several the last one.

    Args:
        answer: the model's words.

    Returns:
        Its fields as plain values (of a key that is given twice the last one), or, of an object that is cut, the texts that are whole in
        it by their keys; None where there is nothing of the kind.
    """
    values, around = _read(answer)
    if objects := [value for value in values if isinstance(value, _Pairs)]:
        return _plain(objects[-1])
    texts = (_load(f'["{key}", "{text}"]') for key, text in _FIELD.findall(around))
    return dict(pair for pair in texts if pair) or None


def _plain(value: Any) -> Any:
    """A value of `_values` in dicts and lists."""
    if isinstance(value, _Pairs):
        return {key: _plain(inner) for key, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def readable(answer: str, *, cut: bool, thinks: bool) -> str:
    """The part of an answer that may be read: nothing of one that was cut while the model was still thinking aloud.

    Args:
        answer: the model's words.
        cut: whether the answer reached its limit of tokens.
        thinks: whether the model is known to think before it answers. Then a cut answer counts only if it begins with a bracket, as
            answers in the form asked for do; else it also counts where a bracket is open at its end.
    """
    body = without_thoughts(answer)
    if cut and re.match(r"\W*[^\W\d]", body) and not re.match(r"\W*[\[{｛［`]|\W*```", body):
        return "" if thinks or not _BRACKET.search(_read(body)[1]) else body
    return answer


def _read(answer: str) -> tuple[list[Any], str]:
    """The JSON objects and arrays of an answer, in the spelling that gives most of them, and the text around them.

    A bracket in that text is one that could not be read: the answer is cut or damaged.
    """
    body = without_thoughts(answer)[:_LONGEST]
    for whole in (answer, body):
        if (value := _load(whole)) is not None:
            return [value], ""
    fenced = "\n".join(_FENCE.findall(body))
    text = fenced if _BRACKET.search(fenced) and not _BRACKET.match(body.lstrip()) else body
    plain = _plain_punctuation(text)
    best: tuple[list[Any], str] = [], text
    for spelled in dict.fromkeys((text, _python_to_json(text), plain, _python_to_json(plain))):
        values, around = _values(spelled)
        if values and not _BRACKET.search(around):
            return values, around
        if len(values) > len(best[0]):
            best = values, around
    return best


def _load(text: str) -> Any | None:
    """The JSON that a whole text is; JSON as a string of JSON, and an answer within an object (such as the arguments of a call), too."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, str):
        return _load(value)
    fields = [field for _, field in value] if isinstance(value, _Pairs) else []
    inner = (_load(field) for field in fields if isinstance(field, str) and _WHOLE.match(field))
    return next((answer for answer in inner if answer is not None), value)


def _values(text: str) -> tuple[list[Any], str]:
    """Every JSON object and array in `text` that is whole, the outermost ones, and the text around them."""
    values: list[Any] = []
    around, at, unread = "", 0, 0
    while unread < _MOST_UNREAD and (opens := _BRACKET.search(text, at)):
        around += text[at : opens.start()]
        try:
            value, at = _DECODER.raw_decode(text, opens.start())
            values.append(value)
            around += _READ
        except (ValueError, RecursionError):
            unread, at = unread + 1, opens.end()
            around += opens[0]
    return values, around + text[at:]


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

    begins = _BRACKET.search(text)
    return _TRAILING_COMMA.sub(r"\1", _PYTHON.sub(respell, text[begins.start() :])) if begins else text


def _rating_pairs(value: Any, asked: set[str], depth: int = 0) -> Iterator[tuple[str, int | None]]:
    """(id, rating) pairs in a value of `_values`; the rating is None where it is none that exists."""
    if depth > _DEEPEST:
        return
    if isinstance(value, _Pairs):
        fields = value.fields
        named = {name for key in _ID_KEYS if (name := _id(fields.get(key), asked))}
        if named:
            named |= asked & {str(inner) for _, inner in value}
            yield from ((name, _rated(fields) if len(named) == 1 else None) for name in named)  # of two neither counts
            return
        for key, inner in value:
            if (name := _id(key, asked)) is None:
                yield from _rating_pairs(inner, asked, depth + 1)
            else:
                yield name, _rated(inner.fields) if isinstance(inner, _Pairs) else _rating(inner)
    elif isinstance(value, list):
        if len(value) == 2 and (name := _id(value[0], asked)) is not None:
            yield name, _rating(value[1])
            return
        for inner in value:
            yield from _rating_pairs(inner, asked, depth + 1)


def _rated(fields: dict[str, Any]) -> int | None:
    """The rating among an object's fields."""
    return next((_rating(fields[key]) for key in _RATING_KEYS if key in fields), None)


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
    between = rf"[\"'*`\])]*(?:\s*(?:[:=,|(\-–—]|->|→|is|rated|gets)+\s*[\"'*`]*(?:{named}\s*[:= ]\s*[\"'*`]*)?|\s+{named}\s*[:=]\s*[\"'*`]*)"
    pattern = rf"(?<![\d.\-])(\d{{1,9}}){between}(-?\d+(?:\.\d+)?)[\"'*`]*{end}"
    for match in re.finditer(pattern, body, re.I):
        rating = _rating(match[2])
        if match[1] in asked and rating is not None:
            yield match[1], rating


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts of a value of `_values`: strings of a list, or of its objects' text field."""
    if depth > _DEEPEST:
        return
    if isinstance(value, _Pairs):
        fields = value.fields
        chosen = next((fields[key] for key in _TEXT_LIST_KEYS if isinstance(fields.get(key), list)), None)
        if (
            chosen is None
            and all(isinstance(inner, str) for inner in fields.values())
            and not set(fields) & set(_TEXT_KEYS)
        ):
            chosen = list(fields.values())  # {"1": "…", "2": "…"}
        if chosen is None:
            chosen = next((inner for inner in fields.values() if isinstance(inner, list) and inner), [])
        yield from _strings(chosen, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, _Pairs):
                text = next((text for key in _TEXT_KEYS if isinstance(text := inner.fields.get(key), str)), None)
                yield from [] if text is None else [text]
            else:
                yield from [inner] if isinstance(inner, str) else _strings(inner, depth + 1)


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
