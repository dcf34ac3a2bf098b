"""The words of a description or text, in scripts with and without blanks: what it quotes, where a string is a word, what says the same."""

import re
import unicodedata
from itertools import takewhile

UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua4cf\ua980-\ua9df\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U000323af"
)
"""Characters of scripts that put no blank between words (Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese, Yi, …), as of a regular expression."""
HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
"""Korean, whose particles stand right behind a word."""
LETTER = rf"[^\W{UNSPACED}]"
"""A letter or digit of a script with blanks, as of a regular expression."""

_UNSPACED, _HANGUL = (re.compile(f"[{some}]") for some in (UNSPACED, HANGUL))
# Variants of emoji, and the vowel points with or without which Hebrew and Arabic are written.
_OPTIONAL = re.compile("[\ufe0e\ufe0f\u0591-\u05bd\u05bf\u05c1\u05c2\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_UNSEEN = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u2060\ufeff]")
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ´＇", "'"))
_MARKS = r"""["'`“”„«»‹›「」『』״]"""
# Arabic and Hebrew write conjunctions, prepositions and the article in front of a word, without a blank.
_PREFIX = re.compile("[وف]?[بكلس]?(?:ال|ل)?|[והבכלמש]{1,3}")
_JOINERS = "\u200c\u200d"
_QUOTES = ('"', '"'), ("“", "”"), ("„", "“"), ("`", "`"), ("「", "」"), ("『", "』"), ("«", "»"), ("《", "》"), ("〈", "〉")  # fmt: skip
QUOTED = re.compile(
    "|".join(f"{start}([^{end}]{{1,300}}){end}" for start, end in _QUOTES)
    + rf"|(?<!{LETTER})['‘]([^'’]{{1,300}})['’](?!{LETTER})"
)
"""What is quoted, in one of the groups."""
EXAMPLES = re.compile(r"\b(such as|like|e\.g\.|for example|for instance|including)\W", re.IGNORECASE)
"""What examples follow."""


def has_unspaced(text: str) -> bool:
    """Whether some of it is in a script that puts no blank between words, or in Korean, where a syllable is much of a word."""
    return bool(_UNSPACED.search(text) or _HANGUL.search(text))


def quoted(text: str) -> list[str]:
    """The strings that a text quotes, without the quotes."""
    return [string for groups in QUOTED.findall(text) if (string := "".join(groups).strip())]


def one_line(text: object) -> str:
    """A text as the library reads it: white space is one blank."""
    return " ".join(str(text).split())


def same_words(text: object) -> str:
    """What two descriptions share that say the same: with other capitals, quotes, dashes, or punctuation behind words."""
    folded = unicodedata.normalize("NFKC", _UNSEEN.sub("", str(text).translate(_APOSTROPHES)))
    folded = re.sub(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", "", folded.casefold().replace("i\u0307", "i"))
    folded = re.sub(rf"(?<!\w){_MARKS}+|{_MARKS}+(?!\w)", "", folded)
    # Behind words, not where a label names the mark itself; vowel signs are no letters to `re`.
    folded = re.sub(r"(?<=[^\s.,;:!?+。、…،؛؟।॥])[.,;:!?。、…،؛؟।॥]+(?=\s|$)", " ", folded)
    folded = re.sub(r"(?<![\w(\[*])[(\[*]+(?=\w)|(?<=\w)[)\]*]+(?!\w)", "", folded)
    return " ".join(re.sub(r"(?<=\w)[-‐‑–—](?=\w)", " ", folded).split())


def occurrence(string: str, text: str) -> str | None:
    """Where a string stands in a text: "" as a word (or words) of its own, else the longer word that it is only a part of; None: nowhere.

    >>> occurrence("here", "Come HERE"), occurrence("here", "over there"), occurrence("猫", "黒猫がいる"), occurrence("new", "old")
    ('', 'there', '', None)
    """
    string, text = (unicodedata.normalize("NFC", some).translate(_APOSTROPHES) for some in (string, text))
    if bare := _OPTIONAL.sub("", string):
        string, text = bare, _OPTIONAL.sub("", text)
    found = [(m.start(1), m.end(1)) for m in re.finditer(f"(?=({re.escape(string)}))", text, re.IGNORECASE)]
    if not found or not string:
        return None
    if any(_begins(text, start) and _ends(text, end) for start, end in found):
        return ""
    start, end = next(((s, e) for s, e in found if _begins(text, s)), found[0])
    after = sum(1 for _ in takewhile(lambda at: _joined(text, at), range(end, len(text))))
    return text[_word_start(text, start) : end + after]


def _joined(text: str, at: int) -> bool:
    """Whether the characters before and at a place belong to one word."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M" or before in _JOINERS or after in _JOINERS:
        return True
    if _UNSPACED.match(before) or _UNSPACED.match(after):
        return False
    return (before.isalnum() or before == "_" or unicodedata.category(before)[0] == "M") and (
        after.isalnum() or after == "_"
    )


def _word_start(text: str, at: int) -> int:
    return at - sum(1 for _ in takewhile(lambda place: _joined(text, place), range(at, 0, -1)))


def _begins(text: str, at: int) -> bool:
    """Whether a word begins at a place, or behind a prefix."""
    return not _joined(text, at) or bool(_PREFIX.fullmatch(text[_word_start(text, at) : at]))


def _ends(text: str, at: int) -> bool:
    """Whether a word ends at a place, or a particle follows it."""
    return not _joined(text, at) or bool(_HANGUL.match(text[at - 1]) and _HANGUL.match(text[at]))
