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


def fires_at(window: Window, share: float, floor: float = 0.0) -> list[int]:
    """The tokens at which the feature fires, with more than a share of its largest activation in the window, the strongest first."""
    least = max(share * window.largest, floor)
    found = [(-a, at) for at, a in enumerate(window.activations) if a is not None and a > least]
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


Mark = tuple[str, int]
"""The class and the position of a token that is marked."""


def marks_of(window: Window, at: Sequence[int]) -> list[Mark]:
    """Some tokens of a window as what others should be like."""
    return [(class_of(window.tokens, place), place) for place in at]


def silent_at(window: Window, floor: float = 0.0) -> list[int]:
    """The tokens at which the feature is silent; `floor` is the magnitude up to which it is."""
    return [at for at, a in enumerate(window.activations) if a is not None and abs(a) <= floor]


def wrong_tokens(window: Window, like: Sequence[Mark], random: np.random.Generator, floor: float = 0.0) -> list[int]:
    """Tokens of a window at which the feature is silent: for each mark the nearest of its class, of any other where there is none left.

    Args:
        window: with token activations.
        like: what these stand for.
        random: decides between two that are as near; of its own, so that no other draw moves these.
        floor: the magnitude up to which the feature is silent.

    Returns:
        Different positions; fewer where the window has not as many.
    """
    silent = np.array(silent_at(window, floor), dtype=np.int64)
    left = {at: class_of(window.tokens, at) for at in random.permutation(silent).tolist()}
    found: dict[int, int] = {}
    for strict in (True, False):
        for number, (kind, place) in enumerate(like):
            fitting = [at for at, own in left.items() if own == kind or not strict]
            if number not in found and fitting:
                found[number] = min(fitting, key=lambda at: abs(at - place))
                del left[found[number]]
    return [found[number] for number in sorted(found)]


def exchanged(windows: Sequence[Window], right: Sequence[Sequence[int]], random: np.random.Generator, floor: float = 0.0) -> list[list[Mark]]:  # fmt: skip
    """What wrong marks of some windows should be like: of the classes of a window's own right marks, at the places of other windows' ones.

    Every place of a right mark is given away once, so that wrong marks stand where right ones do and places tell nothing; the windows are those
    that have a silent token of the class nearest to it (an assignment of least total distance).
    """
    from scipy.optimize import linear_sum_assignment

    places = np.array([at for some in right for at in some], dtype=np.int64)
    slots = [(number, kind) for number, some in enumerate(right) for kind, _ in marks_of(windows[number], some)]
    cost = random.random((len(slots), len(places)))  # in all less than one place: it decides between equals
    for row, (number, kind) in enumerate(slots):
        silent = silent_at(windows[number], floor)
        off = np.array([len(windows[number].tokens) * (class_of(windows[number].tokens, at) != kind) for at in silent])
        cost[row] += len(places) * (np.abs(np.array(silent)[:, None] - places) + off[:, None]).min(axis=0)
    given: list[list[Mark]] = [[] for _ in windows]
    for row, column in zip(*linear_sum_assignment(cost), strict=True):
        given[slots[row][0]].append((slots[row][1], int(places[column])))
    return given
