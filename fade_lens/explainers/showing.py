"""Ways of showing windows to an explainer: how they are drawn, marked and listed. Those of other tools go by their names."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from fade_lens.evidence.marking import MARKS, Signs, piece
from fade_lens.evidence.windows import Draw, Window

Name = Literal["default", "small", "arena", "saebench", "delphi", "neuronpedia"]


@dataclass(frozen=True)
class Showing:
    """How windows are shown.

    Attributes:
        draws: how they are drawn.
        mark: a token is marked whose activation is above this share of the largest; None: none is.
        of_window: whether that is the largest of the window, in place of the feature's.
        merged: whether neighbouring marked tokens share a mark.
        values: of how many marked tokens a window the activation is listed, in tenths of the feature's largest, rounded up.
        peaks: whether the tokens of the peaks, and those after them, are listed apart.
        logits: how many tokens are listed that the feature's direction promotes most, and how many it suppresses most.
        words: how many a description may have.
        temperature: at which the model is asked.
        in_order: whether the model is told to look for what the peaks share, then for what follows, then at the logits, then for a theme.
        brief: whether the model is told in few words what to do.
    """

    draws: tuple[Draw, ...] = (Draw(40),)
    mark: float | None = 0.3
    of_window: bool = True
    merged: bool = True
    values: int = 11
    peaks: bool = False
    logits: int = 0
    words: int = 20
    temperature: float = 0.0
    in_order: bool = False
    brief: bool = False


SHOWINGS: dict[str, Showing] = {
    "default": Showing(),
    "small": Showing(draws=(Draw(10, "top", of=20),), values=0, peaks=True, words=12, brief=True),
    "delphi": Showing(draws=(Draw(40, tokens=32, centred=False),)),
    "arena": Showing(
        draws=(Draw(10, "top", of=14, tokens=21, centred=True),),
        mark=0.1, of_window=False, merged=False, values=0, temperature=1.0,
    ),
    "saebench": Showing(
        draws=(
            Draw(10, "top", of=12, tokens=21, centred=True),
            Draw(5, "square", skip=12, tokens=21, centred=True, purpose="weighted"),
        ),
        mark=0.01, of_window=False, merged=False, values=0, temperature=1.0,
    ),
    "neuronpedia": Showing(
        draws=(Draw(10, "top", tokens=49, centred=True),),
        mark=None, values=0, peaks=True, logits=10, words=6, temperature=1.0, in_order=True,
    ),
}  # fmt: skip
"""By name. "small" is for models of a few billion parameters: 10 of the 20 strongest windows, since it does not see what weak
and strong ones share, the peak tokens apart, few instructions. "delphi": 4 windows of each decile, marks above 0.3 of the window's largest, values of the first 11 marked tokens. "arena": 10 of the
14 strongest, peak ± 10 tokens, marks above 0.1. "saebench": 10 of the 12 strongest and 5 in proportion to the squared activation, marks above
0.01. "neuronpedia" (np_max-act-logits): the 10 strongest, peak ± 24, no marks, the peak tokens, the tokens after them, and the top logits apart."""


def showing(name: str, n: int | None = None) -> Showing:
    """A way of showing by its name; `n` windows in place of its own number, its draws keeping their shares."""
    found = SHOWINGS[name]
    if n is None:
        return found
    total = sum(draw.n for draw in found.draws)
    return replace(found, draws=tuple(replace(d, n=ceil(n * d.n / total), of=None if d.of is None else ceil(n * d.of / total)) for d in found.draws))  # fmt: skip


def marked(window: Window, scale: float, how: Showing, signs: Signs = MARKS[0]) -> str:
    """A window's text with its marks, and the values of what is marked behind it.

    Args:
        window: with token activations.
        scale: the feature's largest activation.
        how: which tokens are marked, and what is listed.
        signs: what stands before and behind what is marked.
    """
    least = (how.mark or 0.0) * (window.largest if how.of_window else scale)
    chosen = [how.mark is not None and a is not None and a > max(least, 0.0) for a in window.activations]
    text = "".join(piece(window.tokens, chosen, at, how.merged, signs) for at in range(len(chosen)))
    listed = [
        f"{window.tokens[at].strip()!r} {ceil(10 * a / scale - 1e-4)}"
        for at, a in enumerate(window.activations)
        if chosen[at] and a is not None and window.tokens[at].strip()
    ][: how.values]
    return f"{text}\n(strength: {', '.join(listed)})" if listed else text
