"""Marks on tokens of a window: those at which a feature fires, and wrong ones, of the same kinds, at which it does not."""

from collections.abc import Sequence

import numpy as np

from fade_lens.evidence.windows import Window

Signs = tuple[str, str]
MARKS: tuple[Signs, Signs] = (("<<", ">>"), ("⟦", "⟧"))
"""What stands before and behind what is marked; the second where a text holds the first, or the like of it."""


def marks(windows: Sequence[Window]) -> Signs:
    """What stands before and behind what is marked: signs that none of the windows holds, nor one beside which they would be read wrongly."""
    taken = any("<" in window.text or ">" in window.text for window in windows)
    return MARKS[taken]


def signs_of(texts: Sequence[str]) -> Signs:
    """The signs with which some texts were marked, each of them."""
    return MARKS[all(MARKS[1][0] in text for text in texts)]


def piece(tokens: Sequence[str], chosen: Sequence[bool], at: int, merged: bool, signs: Signs) -> str:
    """One token with the marks that begin or end at it; a mark leaves white space before a word outside."""
    if not chosen[at]:
        return tokens[at]
    opens = not (merged and at and chosen[at - 1])
    closes = not (merged and at + 1 < len(chosen) and chosen[at + 1])
    bare = tokens[at].lstrip() if opens else tokens[at]
    space = tokens[at][: len(tokens[at]) - len(bare)]
    if not bare:  # white space is what it fires on
        space, bare = "", tokens[at]
    return f"{space}{signs[0] if opens else ''}{bare}{signs[1] if closes else ''}"


def put(window: Window, at: Sequence[int], signs: Signs = MARKS[0]) -> str:
    """A window's text with each of some tokens marked by itself, so that as many marks are seen as there are tokens."""
    chosen = [place in set(at) for place in range(len(window.tokens))]
    return "".join(piece(window.tokens, chosen, place, False, signs) for place in range(len(chosen)))


def fires_at(window: Window, share: float) -> list[int]:
    """The tokens at which the feature reaches more than a share of its largest activation in the window, the strongest first."""
    found = [
        (-a, at) for at, a in enumerate(window.activations) if a is not None and a > max(share * window.largest, 0.0)
    ]
    return [at for _, at in sorted(found)]


def class_of(tokens: Sequence[str], at: int) -> str:
    """The class of a token: the beginning of a word, a further piece of one, a sign, or white space.

    >>> [class_of(["The", " c", "at", ",", " "], at) for at in range(5)]
    ['word', 'word', 'piece', 'sign', 'blank']
    """
    token = tokens[at]
    if not token.strip():
        return "blank"
    if not any(sign.isalnum() for sign in token):
        return "sign"
    return "piece" if at and token[0].isalnum() and tokens[at - 1][-1:].isalnum() else "word"


def wrong_tokens(window: Window, classes: Sequence[str], random: np.random.Generator, floor: float = 0.0) -> list[int]:
    """Tokens of a window at which the feature is silent: one of each class that is asked for, of any other where there is none left.

    Args:
        window: with token activations.
        classes: of the tokens that these stand for.
        random: a generator of its own, so that no other draw moves these.
        floor: the magnitude up to which the feature is silent.

    Returns:
        Different positions; fewer where the window has not as many.
    """
    silent = [at for at, a in enumerate(window.activations) if a is not None and abs(a) <= floor]
    left = {
        at: class_of(window.tokens, at)
        for at in np.array(silent, dtype=np.int64)[random.permutation(len(silent))].tolist()
    }
    matched: list[int | None] = []
    for kind in classes:
        matched.append(next((at for at, own in left.items() if own == kind), None))
        left.pop(matched[-1], None)  # pyright: ignore[reportArgumentType]
    others = iter(left)
    return [at for found in matched if (at := next(others, None) if found is None else found) is not None]
