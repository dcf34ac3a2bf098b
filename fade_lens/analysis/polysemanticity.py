"""How many things a feature means: how many of its description's rules it takes to predict it about as well as all that help.

After the sweep of feature-interp (2025), which explains a feature anew for each number of rules and takes the maximum over noisy test scores. Here the
prefixes of one list of rules are scored from answers that a run already holds, so nothing is asked; the number is chosen on half of the
documents, and the scores that are reported are those on the other half.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.data.descriptions import Description
from fade_lens.evidence.roles import share
from fade_lens.metrics.differences import mean_interval
from fade_lens.metrics.ranking import auroc
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.deciding import Documents, JudgedWindow, WindowScores, composed, graded
from fade_lens.scorers.detection import HARD

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

LEAST = 4
"""Texts of either side that each half needs."""
ENOUGH, FLOOR = 0.9, 0.2
"""Share of the best prefix's score that is as good; the score below which no number of rules means anything."""


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of one description's rules on half of the windows.

    Attributes:
        texts: of each prefix, the first rule, the first two, …, the windows with its composed answers.
        seed: one for all, so that the intervals of two prefixes differ by their answers alone.
        documents: that the corpus' texts are of.
    """

    texts: tuple[tuple[JudgedWindow, ...], ...]
    seed: int
    documents: Documents

    @classmethod
    def of(cls, windows: Sequence[JudgedWindow], strengths: Sequence[int], seed: int, documents: Documents) -> "Prefixes | None":  # fmt: skip
        """On windows that every rule was decided on; None where either side has fewer than `LEAST`."""
        if min(sum(w.positive is side for w in windows) for side in (True, False)) < LEAST:
            return None
        alone = [tuple(replace(w, decided=w.rules[at], score=None) for w in windows) for at in range(len(strengths))]
        some = (composed(tuple(windows), strengths[:n], alone[:n]) for n in range(1, len(strengths) + 1))
        return cls(tuple(some), seed, documents)

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """2 · AUROC − 1 of the answers: 1 where they tell every text rightly, 0 by chance."""
        sides = ([np.array([t.score for t in some if t.positive is side], dtype=np.float64) for side in (True, False)] for some in self.texts)  # fmt: skip
        return tuple(2 * auroc(*both) - 1 for both in sides)

    def columns(self, name: str, n: int) -> Iterator[tuple[str, float]]:
        """The score of the first `n` rules with its interval, of nominal coverage 95 %, as columns."""
        found = graded(name, self.texts[n - 1], self.seed, self.documents)
        return ((key, 2 * (value or 0.0) - 1) for key, value in found.items())

    def smallest(self, enough: float) -> int:
        """The number of rules from which the score is so large a share of the best."""
        return next(n for n, score in enumerate(self.scores, 1) if score >= enough * max(self.scores))


@dataclass(frozen=True)
class Counted:
    """One description, and how many of its rules it takes.

    Attributes:
        description: with its rules.
        n_rules: how many it has, those of strength 0 left out.
        number: how many it takes, chosen on one half of the documents; None with the `reason`.
        reported: the prefixes on the other half; None where the halves are too small.
    """

    description: Description
    n_rules: int
    number: int | None = None
    reason: Reason | None = None
    reported: Prefixes | None = None

    def to_row(self) -> dict[str, Any]:
        """One row of `Polysemanticity.frame`."""
        row: dict[str, Any] = {"index": self.description.index, "description": self.description.text}
        row |= {"n_rules": self.n_rules, "polysemanticity": self.number, "reason": self.reason}
        if self.reported is None:
            return row
        named = {"score": self.number, "score_all": self.n_rules, **{f"score_{n}": n for n in range(1, self.n_rules + 1)}}  # fmt: skip
        return row | {key: value for name, n in named.items() if n for key, value in self.reported.columns(name, n)}


@dataclass(frozen=True)
class Polysemanticity:
    """How many rules it takes, over a run.

    Attributes:
        items: one a description, in the run's order.
        seed: of the intervals over features.
    """

    items: tuple[Counted, ...]
    seed: int = 0

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a description: `index`, `description`, `n_rules` (those of strength 0 left out), `polysemanticity`, or the `reason` why there is none.

        Then the scores of the prefixes on the other half of the documents: of the one chosen (`score`), of all rules (`score_all`), and of the
        first rule, the first two, … (`score_1`, …), each with `_low` and `_high`. A score is 2 · AUROC − 1 of the composed answers.
        """
        first = ["index", "description", "n_rules", "polysemanticity", "reason", "score", "score_low", "score_high"]
        frame = table_of(one.to_row() for one in self.items)
        frame = frame.reindex(columns=[*first, *(name for name in frame.columns if name not in first)])
        kinds = {"polysemanticity": "Int64"} | {name: "float64" for name in frame.columns if name.startswith("score")}
        return frame.astype(kinds)

    @cached_property
    def sweep(self) -> "pd.DataFrame":
        """One row a number of rules: the mean `score` of the first so many over the features, each description's last one where it has fewer.

        `gain` is its mean difference from one rule fewer, feature by feature. Both have `_low` and `_high`: 95 % intervals that resample features (see
        `fade_lens.analysis.summary`). `n_features` have scores. `chosen` descriptions take just so many rules, `share` of those that have a number.
        """
        scored = [(one.description.index, one.reported.scores) for one in self.items if one.reported is not None]
        numbers = [one.number for one in self.items if one.number is not None]
        rows: list[dict[str, Any]] = []
        for n in range(1, 1 + max((len(scores) for _, scores in scored), default=0)):
            at = [(index, scores[min(n, len(scores)) - 1], scores[min(n - 1, len(scores)) - 1]) for index, scores in scored]  # fmt: skip
            row: dict[str, Any] = {"n_rules": n}
            for name, values in (("score", [(i, now) for i, now, _ in at]), ("gain", [(i, now - before) for i, now, before in at if n > 1])):  # fmt: skip
                limits = mean_interval(values, stream(self.seed, "sweep", name, n))
                mean = float(np.mean([value for _, value in values])) if values else None
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), (mean, *limits), strict=True))
            chosen = numbers.count(n)
            row |= {"n_features": len({index for index, _ in scored}), "chosen": chosen, "share": chosen / len(numbers) if numbers else None}  # fmt: skip
            rows.append(row)
        columns = ("score", "score_low", "score_high", "gain", "gain_low", "gain_high", "share")
        names = ["n_rules", *columns[:-1], "n_features", "chosen", "share"]
        return table_of(rows).reindex(columns=names).astype(dict.fromkeys(columns, "float64"))

    def plot(self) -> "go.Figure":
        """The scores over the number of rules, and how many descriptions take each number."""
        from fade_lens.report.answers import sweep_figure

        return sweep_figure(self)

    def __repr__(self) -> str:
        return self.sweep.to_string(index=False, float_format="{:.2f}".format)

    def _repr_html_(self) -> str:
        return self.sweep.to_html(index=False, float_format="{:.2f}".format)


def polysemanticity(
    results: Results,
    scorer: str = "detection",
    *,
    enough: float = ENOUGH,
    floor: float = FLOOR,
    seed: int = 0,
    documents: Sequence[int] | None = None,
) -> Polysemanticity:
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
        `frame` with a row a description, `sweep` with a row a number of rules, and `plot()`.

    Raises:
        InputError: a scorer that the run has not, or that keeps no answers about rules; numbers out of range; documents that are missing.
    """
    for name, value in (("enough", enough), ("floor", floor)):
        if not 0 < value <= 1:
            raise InputError(Argument(name), f" is {value!r}; give a number above 0 and at most 1")
    if documents is None and results.run.corpus.documents is not None:
        raise InputError("the corpus was cut into windows, and halves must not share a document; give ", Argument("documents"), ", the document of each of its texts (`Subject.tokens.documents`)")  # fmt: skip
    number_of = None if documents is None else np.asarray(documents, dtype=np.int64)
    found = (counted(result, scorer, enough, floor, seed, number_of) for result in results)
    return Polysemanticity(tuple(found), seed)


def judged(result: Result, scorer: str) -> WindowScores:
    """What a scorer decided on windows.

    Raises:
        InputError: a scorer that the run has not, or that keeps no answers about windows.
    """
    found = result.evidence.get(scorer)
    if not isinstance(found, WindowScores):
        names = [name for name, one in result.evidence.items() if isinstance(one, WindowScores)]
        raise InputError(Argument("scorer"), f" is {scorer!r}, which keeps no answers about windows in this run; give {' or '.join(map(repr, names)) or 'results of detection or fuzzing'}")  # fmt: skip
    return found


def counted(result: Result, scorer: str, enough: float, floor: float, seed: int, documents: Documents) -> Counted:
    """How many rules one description takes."""
    found = judged(result, scorer)
    strengths = [rule.strength for rule in found.rules]
    plain = Counted(result.description, len(strengths))
    if not strengths:
        why = found.metrics[scorer].reason if result.description.rules else Reason("no_rules", "the description has no rules")  # fmt: skip
        return replace(plain, reason=why or Reason("no_rules", "every rule has strength 0"))
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
        return replace(plain, reason=Reason("too_few_texts", f"a half has fewer than {LEAST} texts that every rule was decided on, on a side"))  # fmt: skip
    if (best := max(chosen_on.scores)) < floor:
        why = Reason("below_floor", f"the best score is {best:.2f}, below {floor:g}: the rules do not say what it fires on")  # fmt: skip
        return replace(plain, reason=why, reported=reported)
    return replace(plain, number=chosen_on.smallest(enough), reported=reported)
