"""The decisions behind scores as a card shows them: how many are right, and those that are worth a look."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from fade_lens._util.words import clip
from fade_lens.evidence.windows import ACTIVE
from fade_lens.scorers.base import Decision, Scored, specs_of

if TYPE_CHECKING:
    from fade_lens.report.cards import Detail

MOST_KINDS = 12
"""Rows of a table of kinds."""


def decided(evidence: Mapping[str, Scored], detail: "Detail") -> list[dict[str, Any]]:
    """What is shown of the decisions of every scorer that has any."""
    return [of_scorer(name, some, detail) for name, found in evidence.items() if (some := found.decisions())]


def of_scorer(name: str, decisions: Sequence[Decision], detail: "Detail") -> dict[str, Any]:
    """The decisions of one scorer."""
    judged = any(one.right is not None for one in decisions)
    kinds = list(Counter(one.kind for one in decisions).items())[:MOST_KINDS]
    tally = Counter((one.kind, "unanswered" if one.reason else one.right) for one in decisions)
    shown = first(decisions, max(detail.rated // 10, 2))
    strengths = [
        max(map(abs, side), default=0.0) for one in decisions for side in (known(one.activations), one.predicted)
    ]
    return {
        "title": ", ".join(spec.title for spec in specs_of([name])),
        "judged": judged,
        "of": len(decisions),
        "unanswered": sum(one.reason is not None for one in decisions),
        "kinds": [[kind_words(kind), n, tally[kind, True], tally[kind, False], tally[kind, "unanswered"]] for kind, n in kinds],
        "largest": [max(strengths[side::2], default=0.0) for side in (0, 1)],
        "items": [item(one, detail) for one in shown],
    }  # fmt: skip


def known(values: Sequence[float | None]) -> list[float]:
    """Those that count."""
    return [value for value in values if value is not None]


def kind_words(kind: str) -> str:
    """What was tested, in words.

    >>> kind_words("token_silent"), kind_words("active")
    ('token silent', 'fires')
    """
    return "fires" if kind == ACTIVE else clip(kind.replace("_", " "), 60)


def first(decisions: Sequence[Decision], n: int) -> list[Decision]:
    """The decisions that are worth a look: wrong ones, right ones and missing ones of every kind in turn, those furthest from the truth first."""
    queues: dict[tuple[int, str], list[Decision]] = {}
    for one in sorted(decisions, key=lambda one: -one.off):
        standing = 1 if one.reason else 2 if one.right else 0
        queues.setdefault((standing, one.kind), []).append(one)
    turns = zip_longest(*(queues[key] for key in sorted(queues, key=lambda key: key[0])))
    chosen = [one for turn in turns for one in turn if one is not None][:n]
    return sorted(chosen, key=lambda one: (bool(one.right), one.reason is None))


def item(one: Decision, detail: "Detail") -> dict[str, Any]:
    """One decision."""
    labels = one.labels or ("",) * len(one.texts)
    n = detail.tokens
    return {
        "kind": kind_words(one.kind),
        "right": one.right,
        "said": clip(one.said, 120),
        "score": one.score,
        "reason": clip(one.reason or "", 200),
        "texts": [[label, parts(text, one.signs, detail.characters)] for label, text in zip(labels, one.texts, strict=True)],
        "tokens": [clip(token, detail.characters) for token in one.tokens[:n]],
        "activations": one.activations[:n],
        "predicted": one.predicted[:n],
    }  # fmt: skip


def parts(text: str, signs: tuple[str, str] | None, characters: int) -> list[list[Any]]:
    """A text in pieces, each with whether it is marked; the signs around what is marked are left out.

    >>> parts("a <<b>> c", ("<<", ">>"), 9)
    [['a ', False], ['b', True], [' c', False]]
    """
    pieces = [text] if signs is None else re.split("|".join(map(re.escape, signs)), text)
    found: list[list[Any]] = []
    for at, piece in enumerate(pieces):
        if piece and characters > 0:
            found.append([clip(piece, characters), at % 2 == 1])
        characters -= len(piece)
    return found
