"""How a description stands against the gate, by the intervals of the scores that decide: frame, report, audit and printed table say the same.

- `holds`: the whole interval of every score that decides lies at or above the gate;
- `fails`: the whole interval of one of them lies below it;
- `open`: neither, as where an interval reaches over both sides of the gate, or where a score is undefined or has no interval, whatever its
  value: a value alone settles nothing;
- `dead`: the feature never fires on the corpus, so that nothing speaks for or against the description.

Which scores decide, their `ScoreSpec`s say (`decides`): Clarity and Responsiveness, and those of other scorers that are written so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fade_lens._util.words import amount, number
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.base import Basis, Scored, ScoreSpec, scorer_of

ORDER = ("fails", "open", "dead", "holds")
"""All words, the worst first."""
MOST = 1000
"""More texts than this are not reckoned to the number: the interval's width is too rough a guide for that."""
TOO_NEAR = 10.0
"""Of an interval that must shrink by more than this, a hundred times as many texts, it is said that no number will do."""


class Standing(str):
    """How a description stands: the text is the word, `why` the sentence for people.

    >>> standing = Standing("open", "Clarity is undefined (no synthetic text with an activation)")
    >>> standing == "open", standing.why
    (True, 'Clarity is undefined (no synthetic text with an activation)')
    """

    __slots__ = ("why",)
    why: str

    def __new__(cls, word: str, why: str) -> "Standing":
        made = super().__new__(cls, word)
        made.why = why
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Standing, (str(self), self.why)


def standing_of(evidence: Mapping[str, Scored], gate: float) -> Standing:
    """How a description stands by what its scorers found, if its feature is not dead; `gate` is what a score that decides must reach."""
    decide = [(spec, found.metrics.get(spec.name), found.basis(spec.name)) for spec, found in deciding(evidence)]
    if not decide:
        return Standing("open", "none of the run's scores decides")
    told = [(spec.title, metric, side(metric, gate), basis) for spec, metric, basis in decide]
    if low := [said(title, metric) for title, metric, where, _ in told if where == "fails"]:
        return Standing("fails", f"{' and '.join(low)}, wholly below {gate:g}")
    if left := [doubt(title, metric, gate, basis) for title, metric, where, basis in told if where == "open"]:
        return Standing("open", "; ".join(left))
    return Standing("holds", f"{' and '.join(said(title, metric) for title, metric, _, _ in told)}, wholly at or above {gate:g}")  # fmt: skip


def of_dead(written: Sequence[float | None]) -> Standing:
    """The standing of a feature that never fires on the corpus, given its activations on the texts that were written for the description."""
    fired = f", but on {sum(map(bool, written))} of {len(written)} texts written for the description"
    return Standing("dead", "the feature never fires on the corpus" + (fired if any(written) else ""))


def deciding(evidence: Mapping[str, Scored]) -> list[tuple[ScoreSpec, Scored]]:
    """The scores that decide, each with the evidence that holds it."""
    return [(spec, found) for name, found in evidence.items() for spec in scorer_of(name).specs if spec.decides]


def side(metric: Metric | None, gate: float) -> str:
    """Where the interval of one score lies: "holds", "fails" or "open".

    >>> [side(Metric(0.6, interval=limits), 0.5) for limits in ((0.5, 0.9), (0.3, 0.9), (0.3, 0.49), None)]
    ['holds', 'open', 'fails', 'open']
    """
    if metric is None or metric.value is None or metric.interval is None:
        return "open"
    low, high = metric.interval
    return "holds" if low >= gate else "fails" if high < gate else "open"


def said(title: str, metric: Metric | None) -> str:
    """A score with its interval."""
    if metric is None or metric.value is None:
        return f"{title} is undefined" + (f" ({metric.reason})" if metric else "")
    if metric.interval is None:
        return f"{title} is {number(metric.value)} without an interval" + (f" ({why})" if (why := metric.interval_reason) else "")  # fmt: skip
    low, high = map(number, metric.interval)
    return f"{title} is {number(metric.value)} ({low} to {high})"


def doubt(title: str, metric: Metric | None, gate: float, basis: Basis | None) -> str:
    """Why a score settles nothing, and about how many more texts would make it."""
    words = said(title, metric)
    if metric is None or metric.value is None or metric.interval is None:
        return words + (f"; more {basis.texts} may tell ({basis.settings})" if basis else "")
    more = None if basis is None else further(metric.value, metric.interval, gate, basis.n)
    return f"{words}, on both sides of {gate:g}" + ("" if basis is None else f": {enough(more, basis)}")


def enough(more: float | None, basis: Basis) -> str:
    """How many more texts would tell, in words; `more` is None where no number would."""
    if more is None:
        return f"it is so near that no number of {basis.texts} would tell"
    told = (
        f"more than {amount(MOST)}"
        if more > MOST
        else f"about {amount(max(round(more, -1 if more < 200 else -2), 10))}"
    )
    return f"{told} more {basis.texts} would tell ({basis.settings})"


def further(value: float, interval: tuple[float, float], gate: float, n: int) -> float | None:
    """About how many texts beside the `n` at hand would take the gate out of an interval; None where no number within reach would.

    The side of the interval that reaches over the gate shrinks with the root of the number of texts, while the value stays.

    >>> further(0.6, (0.4, 0.8), 0.5, 40), further(0.501, (0.3, 0.7), 0.5, 40)
    (120.0, None)
    """
    over = value - interval[0] if value >= gate else interval[1] - value
    if not abs(value - gate) * TOO_NEAR > over:
        return None
    return round(n * ((over / (value - gate)) ** 2 - 1), 6)
