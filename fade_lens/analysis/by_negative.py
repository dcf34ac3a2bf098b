"""Which texts fool a description: its score and its false positives against each kind of negatives, paired over a run's features. Nothing is asked.

Hard negatives lower every score. How far, and which kind does, says what a description lacks: against windows with the same tokens one that
only names a token fails, against windows alike in meaning one that is too broad. All kinds share a description's positives, so that the kinds
differ by the negatives alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.seeds import stream
from fade_lens.analysis.polysemanticity import judged
from fade_lens.metrics.differences import mean_interval
from fade_lens.metrics.ranking import auroc
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.deciding import JudgedWindow

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SCORES = ("auroc", "false_positives")
BASE = "random_silent"


@dataclass(frozen=True)
class ByNegative:
    """Scores by kind of negatives.

    Attributes:
        frame: one row a description and kind, its index the description's place in the run: `index` of the feature, `description`, `kind`, `n`
            negatives, `unanswered` ones of them, `auroc` of the positives against them (by graded answers where there are any; by yes and no it is
            the balanced accuracy), and `false_positives`, the share of those decided that the judge takes for positives; NaN without an answer.
        base: the kind that the others are compared with.
        seed: of the intervals.
    """

    frame: "pd.DataFrame"
    base: str = BASE
    seed: int = 0

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a kind: the mean of each score over descriptions, and of its difference from the base kind's for the same description.

        Each has `_low` and `_high`, a 95 % interval that resamples features (see `fade_lens.analysis.summary`; NaN for fewer than five). `n_features`
        have the score, `n_paired` the difference.
        """
        rows: list[dict[str, Any]] = []
        for kind in dict.fromkeys(self.frame["kind"]):
            row: dict[str, Any] = {"kind": kind}
            for score in SCORES:
                own, base = self._values(kind, score), {} if kind == self.base else self._values(self.base, score)
                paired = [(index, value - base[place][1]) for place, (index, value) in own.items() if place in base]
                for name, some in ((score, list(own.values())), (f"{score}_difference", paired)):
                    limits = mean_interval(some, stream(self.seed, "by negative", kind, name))
                    mean = float(np.mean([value for _, value in some])) if some else None
                    row |= dict(zip((name, f"{name}_low", f"{name}_high"), (mean, *limits), strict=True))
                    count = "n_features" if name == score else "n_paired"
                    row[count] = max(row.get(count, 0), len({index for index, _ in some}))
            rows.append(row)
        numbers = [name for name in rows[0] if name.startswith(SCORES)]
        columns = ["kind", "n_features", "n_paired", *numbers]
        return table_of(rows).reindex(columns=columns).astype(dict.fromkeys(numbers, "float64"))

    def _values(self, kind: str, score: str) -> dict[int, tuple[int, float]]:
        """The feature and a score of every description that has it, by its place."""
        some = self.frame[(self.frame["kind"] == kind) & self.frame[score].notna()]
        return {int(place): (int(index), float(value)) for place, index, value in zip(some.index, some["index"], some[score], strict=True)}  # fmt: skip

    def plot(self) -> "go.Figure":
        """AUROC and false positives by kind: every description, and the means with intervals."""
        from fade_lens.report.answers import by_negative_figure

        return by_negative_figure(self)

    def __repr__(self) -> str:
        return self.table.to_string(index=False, float_format="{:.2f}".format)

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format="{:.2f}".format)


def by_negative(results: Results, scorer: str = "detection", *, base: str = BASE, seed: int = 0) -> ByNegative:
    """A run's scores against each kind of negatives that it was tested on, from stored answers.

    Args:
        results: of a scorer that tests on windows, such as "detection" with `detection_hard=("similar_silent", "token_silent", "neighbour")`.
        scorer: whose answers.
        base: the kind of negatives that the others are compared with.
        seed: of the intervals.

    Returns:
        `table` with a row a kind, `frame` with a row a description and kind, and `plot()`.

    Raises:
        InputError: a scorer that the run has not, or that keeps no answers about windows; no description was tested on the base kind.
    """
    rows = [(place, row) for place, result in enumerate(results) for row in rows_of(result, scorer)]
    kinds = dict.fromkeys(row["kind"] for _, row in rows)
    if base not in kinds:
        found = f"there are {', '.join(map(repr, kinds))}" if kinds else "no description was tested on any"
        raise InputError(Argument("base"), f" is {base!r}, of which {scorer!r} has no windows in this run; {found}")
    frame = table_of(row for _, row in rows).astype(dict.fromkeys(SCORES, "float64"))
    return ByNegative(frame.set_axis([place for place, _ in rows]), base, seed)


def rows_of(result: Result, scorer: str) -> Iterator[dict[str, Any]]:
    """A row for each kind of negatives that one description was tested on."""
    texts = judged(result, scorer).texts
    graded = any(text.score is not None for text in texts)

    def values(some: list[JudgedWindow]) -> Float[np.ndarray, "_"]:
        found = [t.score if graded else t.decided for t in some]
        return np.array([value for value in found if value is not None], dtype=np.float64)

    positives = values([t for t in texts if t.positive])
    for kind in dict.fromkeys(t.kind for t in texts if not t.positive):
        own = [t for t in texts if t.kind == kind]
        against, decided = values(own), [t.decided for t in own if t.decided is not None]
        yield {
            "index": result.description.index,
            "description": result.description.text,
            "kind": kind,
            "n": len(own),
            "unanswered": sum(t.reason is not None for t in own),
            "auroc": auroc(positives, against) if len(positives) and len(against) else None,
            "false_positives": sum(decided) / len(decided) if decided else None,
        }
