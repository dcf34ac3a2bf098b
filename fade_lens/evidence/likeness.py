"""How like each text of a corpus is to a description: by words, or by meaning. It knows nothing of activations."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.wording import LETTER, quoted
from fade_lens.data.embedding import MODEL, check_embedding, embed
from fade_lens.evidence.negatives import window_vectors
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence

BY = ("none", "words", "meaning")
WORD = re.compile(rf"{LETTER}+|\S")
"""A word; of scripts without blanks, and of what is no word, a character."""


class Likeness:
    """The likeness of the texts of a role (None: of all) to a description; all that it needs of the corpus is made once, when first needed.

    Args:
        evidence: the corpus, and its windows.
        by: "words": see `WordIndex`; "meaning": the cosine of the description's embedding with that of the most alike window of a text.

    Raises:
        MissingExtraError: by meaning, without the extra `similarity`.
    """

    def __init__(self, evidence: Evidence, by: str, role: Role | None = None) -> None:
        check_likeness(by)
        self.evidence, self.by = evidence, by
        self.role: Role | None = role

    @property
    def index(self) -> "WordIndex":
        """The words of the corpus, the same for all that read this evidence."""
        if (found := _INDEX.get(self.evidence)) is None:
            found = _INDEX[self.evidence] = WordIndex(self.evidence.subject.tokens.texts)
        return found

    def to(self, description: str) -> Float[np.ndarray, " text"] | None:
        """The likeness of every text of the role; None where none is asked for."""
        if self.by == "none":
            return None
        found = self.index.likeness(description) if self.by == "words" else self._by_meaning(description)
        return found[self.evidence.texts(self.role)]

    def _by_meaning(self, description: str) -> Float[np.ndarray, " text"]:
        found = window_vectors(self.evidence, MODEL) @ embed([description])[0]
        nearest = np.full(len(self.evidence.subject.tokens), -1.0)
        np.maximum.at(nearest, self.evidence.grid.text, found)
        return nearest


_INDEX: WeakKeyDictionary[Evidence, "WordIndex"] = WeakKeyDictionary()


def check_likeness(by: str) -> None:
    """Raise `MissingExtraError` for a likeness that cannot be told here, before anything is computed; imports nothing heavy."""
    if by == "meaning":
        check_embedding("likely_texts='meaning' (likely_texts='words' needs no extra)")


class WordIndex:
    """Where the words of a corpus stand.

    The likeness of a text to a description is the sum, over its words and pairs of neighbouring words that the text has too, of the logarithm
    of how few texts have them. Capitals do not count, and all digits are one, so that a date is like a date. A text with a string
    that the description quotes, as words of their own, is more alike than any text without.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.n, self._numbers = len(texts), dict[str, int]()
        rows = [[self._numbers.setdefault(word, len(self._numbers)) for word in words(text)] + [-1] for text in texts]
        self._at = np.repeat(np.arange(self.n, dtype=np.int32), [len(row) for row in rows])
        self._words = np.array([number for row in rows for number in row], dtype=np.int32)  # -1: the end of a text
        self._order = np.argsort(self._words, kind="stable")
        self._sorted = self._words[self._order]

    def likeness(self, description: str) -> Float[np.ndarray, " text"]:
        """How like each text is; 0 where it shares no word with the description."""
        found, most, own = np.zeros(self.n), 0.0, words(description)
        for phrase in dict.fromkeys([*((word,) for word in own), *pairwise(own)]):
            if len(texts := self.having(phrase)):
                weight = np.log((1 + self.n) / len(texts))
                found[texts], most = found[texts] + weight, most + weight
        for phrase in {tuple(words(string)) for string in quoted(description)}:
            found[self.having(phrase)] += most
        return found

    def having(self, phrase: Sequence[str]) -> Int[np.ndarray, " text"]:
        """The texts in which some words stand one behind the other."""
        number, *others = [self._numbers.get(word, -2) for word in phrase] or [-2]  # -2 stands nowhere
        first, end = np.searchsorted(self._sorted, np.array([number, number + 1], dtype=np.int32))
        places = self._order[first:end]
        for further, number in enumerate(others, 1):
            places = places[self._words[np.minimum(places + further, len(self._words) - 1)] == number]
        return np.unique(self._at[places])


def words(text: str) -> list[str]:
    """The words of a text as they are compared.

    >>> words("Version 1.25 of 「猫が」")
    ['version', '0', '.', '00', 'of', '「', '猫', 'が', '」']
    """
    return WORD.findall(re.sub(r"\d", "0", unicodedata.normalize("NFKC", text).casefold()))
