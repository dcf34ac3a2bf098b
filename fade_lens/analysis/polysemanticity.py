"""How many things a feature means: how many of its description's rules it takes to predict it about as well as all that help.

After the sweep of feature-interp (2025), which explains a feature anew for each number of rules and takes the maximum over noisy test scores. Here the
prefixes of one list of rules are scored from answers that a run already holds, so nothing is asked; the number is chosen on half of the
documents, and the scores that are reported are those on the other half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.evidence.roles import share
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.deciding import Documents, JudgedWindow, WindowScores, composed, graded
from fade_lens.scorers.detection import HARD

if TYPE_CHECKING:
    import pandas as pd

LEAST = 4
"""Texts of either side that each half needs."""
ENOUGH, FLOOR = 0.9, 0.2
"""Share of the best prefix's score that is as good; the score below which no number of rules means anything."""


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of one description's rules on half of the windows.

    Attributes:
        scores: 2 · AUROC − 1 of the composed answers of the first rule, of the first two, …: 1 where they tell every text rightly, 0 by chance.
        intervals: of these, of nominal coverage 95 %.
    """

    scores: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, windows: Sequence[JudgedWindow], strengths: Sequence[int], seed: int, documents: Documents) -> "Prefixes | None":  # fmt: skip
        """On windows that every rule was decided on; None where either side has fewer than `LEAST`."""
        if min(sum(w.positive is side for w in windows) for side in (True, False)) < LEAST:
            return None
        alone = [tuple(replace(w, decided=w.rules[at], score=None) for w in windows) for at in range(len(strengths))]
        # One seed for all: the intervals of two prefixes differ by their answers alone.
        found = [graded("s", composed(tuple(windows), strengths[:n], alone[:n]), seed, documents) for n in range(1, len(strengths) + 1)]  # fmt: skip
        limits = [tuple(2 * (one[key] or 0.0) - 1 for key in ("s", "s_low", "s_high")) for one in found]
        return cls(tuple(value for value, _, _ in limits), tuple((low, high) for _, low, high in limits))

    def smallest(self, enough: float) -> int:
        """The number of rules from which the score is so large a share of the best."""
        return next(n for n, score in enumerate(self.scores, 1) if score >= enough * max(self.scores))


def polysemanticity(
    results: Results,
    scorer: str = "detection",
    *,
    enough: float = ENOUGH,
    floor: float = FLOOR,
    seed: int = 0,
    documents: Sequence[int] | None = None,
) -> "pd.DataFrame":
    """How many of a description's rules, the most important first, say what the feature fires on; from stored answers, without a call.

    A rule that comes first counts even where it says nothing: the number is of a prefix. A description can only show as many meanings as its
    explainer found.

    Args:
        results: of descriptions with rules.
        scorer: whose answers: "detection" or "fuzzing", which ask about each rule.
        enough: the number is the smallest that reaches this share of the best prefix's score.
        floor: a best score below this leaves the number undefined.
        seed: of the split into halves and of the intervals.
        documents: the document of each text of the corpus (`Subject.tokens.documents`); needed where it was cut into windows.

    Returns:
        One row a description: `index`, `description`, `n_rules` (those of strength 0 left out), `polysemanticity`, or the `reason` why there is
        none; then the scores of the prefixes on the other half of the documents: of the one chosen (`score`), of all rules (`score_all`), and of
        the first rule, the first two, … (`score_1`, …), each with `_low` and `_high`. A score is 2 · AUROC − 1 of the composed answers.

    Raises:
        InputError: a scorer that the run has not, or that keeps no answers about rules; numbers out of range; documents that are missing.
    """
    for name, value in (("enough", enough), ("floor", floor)):
        if not 0 < value <= 1:
            raise InputError(Argument(name), f" is {value!r}; give a number above 0 and at most 1")
    if documents is None and results.run.corpus.documents is not None:
        raise InputError("the corpus was cut into windows, and halves must not share a document; give ", Argument("documents"), ", the document of each of its texts (`Subject.tokens.documents`)")  # fmt: skip
    number_of = None if documents is None else np.asarray(documents, dtype=np.int64)
    return _typed(table_of(_row(result, scorer, enough, floor, seed, number_of) for result in results))


def _row(result: Result, scorer: str, enough: float, floor: float, seed: int, documents: Documents) -> dict[str, Any]:
    """One row of `polysemanticity`."""
    found = result.evidence.get(scorer)
    if not isinstance(found, WindowScores):
        names = [name for name, one in result.evidence.items() if isinstance(one, WindowScores)]
        raise InputError(Argument("scorer"), f" is {scorer!r}, which keeps no answers about windows in this run; give {' or '.join(map(repr, names)) or 'results of detection or fuzzing'}")  # fmt: skip
    strengths = [rule.strength for rule in found.rules]
    row: dict[str, Any] = {"index": result.description.index, "description": result.description.text}
    row |= {"n_rules": len(strengths), "polysemanticity": None, "reason": None}
    if not strengths:
        why = found.metrics[scorer].reason if result.description.rules else Reason("no_rules", "the description has no rules")  # fmt: skip
        return row | {"reason": why or Reason("no_rules", "every rule has strength 0")}
    windows = [w for w in found.texts if w.kind not in HARD and len(w.rules) == len(strengths) and None not in w.rules]
    if found.texts and not any(w.rules for w in found.texts):
        raise InputError(Argument("scorer"), f" is {scorer!r}, which keeps no answers about single rules; give 'detection' or 'fuzzing'")  # fmt: skip
    if documents is None:
        documents = np.arange(1 + max((window.number for window in windows), default=0))
    halves: tuple[list[JudgedWindow], list[JudgedWindow]] = [], []
    for window in windows:
        halves[share(seed, b"half %d" % documents[window.number]) >= 0.5].append(window)
    at = stream(seed, "polysemanticity", result.description.index)
    chosen_on, reported = (Prefixes.of(half, strengths, at, documents) for half in halves)
    if chosen_on is None or reported is None:
        return row | {"reason": Reason("too_few_texts", f"a half has fewer than {LEAST} texts that every rule was decided on, on a side")}  # fmt: skip
    row |= dict(_scores("score_all", reported, len(strengths)))
    for n in range(1, len(strengths) + 1):
        row |= dict(_scores(f"score_{n}", reported, n))
    if (best := max(chosen_on.scores)) < floor:
        return row | {"reason": Reason("below_floor", f"the best score is {best:.2f}, below {floor:g}: the rules do not say what it fires on")}  # fmt: skip
    n = chosen_on.smallest(enough)
    return row | {"polysemanticity": n, **dict(_scores("score", reported, n))}


def _scores(name: str, found: Prefixes, n: int) -> Iterator[tuple[str, float]]:
    """The score of the first `n` rules as columns."""
    low, high = found.intervals[n - 1]
    return zip((name, f"{name}_low", f"{name}_high"), (found.scores[n - 1], low, high), strict=True)


def _typed(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The same, numbers as numbers where some are missing, the chosen prefix's before the others'."""
    first = ["index", "description", "n_rules", "polysemanticity", "reason", "score", "score_low", "score_high"]
    frame = frame.reindex(columns=[*first, *(name for name in frame.columns if name not in first)])
    kinds = {"polysemanticity": "Int64"} | {name: "float64" for name in frame.columns if name.startswith("score")}
    return frame.astype(kinds)
