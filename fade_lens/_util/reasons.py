"""Why a value is undefined and what a reader should know, as texts that programs tell apart by a code, never by their words."""

from typing import Any


class Reason(str):
    """Why a value is undefined: the text is the sentence for people, `code` what programs compare.

    >>> Reason("gate_not_passed", "gate not passed: Clarity is 0.12, below 0.5").code
    'gate_not_passed'
    """

    __slots__ = ("code",)
    code: str

    def __new__(cls, code: str, words: str) -> "Reason":
        made = super().__new__(cls, words)
        made.code = code
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Reason, (self.code, str(self))


class Flag(str):
    """What a reader should know before trusting a description or its numbers: the text is "kind: words", or the kind alone.

    >>> flag = Flag("rare", "fires on 3 texts of the corpus")
    >>> flag.kind, str(flag)
    ('rare', 'rare: fires on 3 texts of the corpus')
    """

    __slots__ = ("kind", "words")
    kind: str
    words: str

    def __new__(cls, kind: str, words: str = "") -> "Flag":
        made = super().__new__(cls, f"{kind}: {words}" if words else kind)
        made.kind, made.words = kind, words
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Flag, (self.kind, self.words)
