"""What a run found: one table, and for every description the evidence behind its numbers."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fade_lens._util.brief import in_lines
from fade_lens._util.errors import InputError
from fade_lens._util.files import table_of, write_csv, write_parquet
from fade_lens._util.record import from_plain, to_plain
from fade_lens._util.words import clip
from fade_lens.baselines.cross_scores import CrossScores
from fade_lens.explainers.base import Explanation
from fade_lens.runs.kept import KeptResults, ResultsFile, scorers_in, told
from fade_lens.runs.record import RunRecord
from fade_lens.runs.result import Result, score_columns
from fade_lens.scorers.base import ScoreSpec, specs_of
from fade_lens.scorers.standing import ORDER

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from fade_lens.analysis.notes import Notes
    from fade_lens.analysis.summary import Key
    from fade_lens.report.notebook import Table

RESULTS_FILE = "results.sqlite"
"""In the folder of a run."""
EARLIER = "results.json.gz"
"""What it was called in formats before 6."""


@dataclass(frozen=True)
class Results:
    """All results of a run, in the order of its descriptions.

    Attributes:
        items: one `Result` a description: a tuple, or of a run in a file a sequence that reads a result when it is looked at.
        run: how the run was made.
        cross_scores: every feature against every description; None for runs of over `fade_lens.baselines.permutation.MOST` descriptions.
        nulls: for each null description asked for, the result of the null description of each of `items`, in their order.
        without: features that an explainer gave no description, each with the reason; they are not scored.
        baselines: for each kind of baseline features asked for, their results (see `fade_lens.baselines.features`).
        beside: in the results of such a baseline, each of its features with the one of the run that it stands beside; empty where none does.
        weights: of features that were drawn with unequal probabilities, how many each stands for (1 / probability); means over the run then
            weigh them. Empty where all are alike.
    """

    items: Sequence[Result]
    run: RunRecord = field(default_factory=RunRecord)
    cross_scores: CrossScores | None = field(default=None, compare=False)
    nulls: Mapping[str, Sequence[Result]] = field(default_factory=dict[str, Sequence[Result]])
    without: tuple[Explanation, ...] = ()
    baselines: "Mapping[str, Results]" = field(default_factory=dict[str, "Results"])
    beside: tuple[tuple[int, int], ...] = ()
    weights: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        held = [self.items] if isinstance(self.items, KeptResults) else self.items
        if any(one.gate != self.run.gate for one in held):
            object.__setattr__(self, "items", tuple(replace(result, gate=self.run.gate) for result in self.items))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Result:
        """The result of a feature, by its index in the SAE or hook.

        Raises:
            InputError: the feature is not in the run, or has several descriptions (`of(index)` gives all).
        """
        found = self.of(index)
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"feature {index} has {len(found)} descriptions; results.of({index}) gives all of them")
        known = ", ".join(str(r.description.index) for r in self.items[:8])
        raise InputError(f"feature {index} is not in these results; they hold {known}{', …' if len(self) > 8 else ''}")

    def of(self, index: int) -> tuple[Result, ...]:
        """All results of one feature, one for each of its descriptions."""
        known = self.run.features.neuronpedia_id
        items = self.items
        found = items.of(index) if isinstance(items, KeptResults) else self._by_index.get(index, ())
        return tuple(replace(r, neuronpedia=known) if known and not r.neuronpedia else r for r in found)

    @cached_property
    def _by_index(self) -> dict[int, list[Result]]:
        found: dict[int, list[Result]] = {}
        for result in self.items:
            found.setdefault(result.description.index, []).append(result)
        return found

    @property
    def relative_weights(self) -> dict[int, float]:
        """The weights by feature, their mean 1, so that a run counts by its features beside others; empty where all are alike.

        Raises:
            InputError: weights that are not above 0, as of a file that somebody wrote.
        """
        found = dict(self.weights)
        if not all(0 < weight < math.inf for weight in found.values()):
            raise InputError("the weights of these results hold one that is not above 0; evaluate again")
        mean = sum(found.values()) / max(len(found), 1)
        return {index: weight / mean for index, weight in found.items()}

    @cached_property
    def specs(self) -> tuple[ScoreSpec, ...]:
        """The scores of the run, in the order of its scorers."""
        return specs_of(scorers_in(self.items) or ["fade"])

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a description: how it stands, its scores with 95 % intervals, why any is undefined, counts, flags, its Neuronpedia page.

        Features of `without` follow, with the reason as `no_description` and nothing else. `weight` stands there where the run has `weights`.
        """
        from fade_lens.report.links import urls_of

        with told(self.items.file.path) if isinstance(self.items, KeptResults) else nullcontext():
            frame = table_of(result.to_row() for result in self.items)
            frame["dashboard_url"] = urls_of(self)
            if self.weights:
                frame["weight"] = [*map(dict(self.weights).get, frame["index"])]
            if self.without:
                rows = [{"index": row.index, "description": None, "no_description": str(row.reason)} for row in self.without]  # fmt: skip
                frame = table_of([*frame.to_dict("records"), *rows])
            return self._typed(frame)

    def _typed(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The same, numbers as numbers where some are missing."""
        scores = {spec.name for spec in self.specs}
        for name in frame.columns:
            if name in scores or name.endswith(
                ("_low", "_high", "_value", "_percentile", "_cost", "_entropy", "effective_tokens")
            ):
                frame[name] = frame[name].astype("float64")
            if name in ("better_feature", "suggested_feature", "judge_calls"):
                frame[name] = frame[name].astype("Int64")
        return frame

    @property
    def rules(self) -> "pd.DataFrame":
        """One row a rule of descriptions that have rules: its strength and what it scores alone, with intervals and reasons."""
        about = ((r.description, rule) for r in self.items if r.description.rules for rule in r.rules)
        rows = ({"index": d.index, "description": d.text, "rule": rule.text, "strength": rule.strength, **score_columns(rule.metrics)} for d, rule in about)  # fmt: skip
        return self._typed(table_of(rows))

    def plot(self) -> "go.Figure":
        """The scores of every description, with intervals."""
        from fade_lens.report.plots import overview_figure

        return overview_figure(self)

    def plot_cross_scores(self) -> "go.Figure":
        """Every feature against every description as a heat map.

        Raises:
            InputError: the run keeps no matrices.
        """
        from fade_lens.report.plots import cross_figure

        return cross_figure(self)

    def summary(self, by: "str | Key | None" = None) -> "pd.DataFrame":
        """Means of all metrics with intervals, of the run or of each group in it (see `fade_lens.analysis.summary.summary`)."""
        from fade_lens.analysis.summary import summary

        return summary(self, by)

    def to_html(self, path: str | Path, notes: "Notes | None" = None) -> Path:
        """Write an HTML page: the table, and a card for every description; `notes` are an audit's.

        It is one self-contained file; of more than 1,000 descriptions rows and cards lie in a folder NAME_files beside it, to be kept with it.
        """
        from fade_lens.report.page import write_page

        return write_page(self, path, notes)

    def to_parquet(self, path: str | Path) -> Path:
        """Write `frame` as a Parquet file."""
        return write_parquet(self.frame, path)

    def to_folder(self, folder: str | Path) -> Path:
        """Write what a run leaves in its folder: results.sqlite, results.csv, results.parquet and report.html, whose path is given back."""
        folder = Path(folder)
        self.save(folder / RESULTS_FILE)
        write_csv(self.frame, folder / "results.csv")
        self.to_parquet(folder / "results.parquet")
        return self.to_html(folder / "report.html")

    def table(self, height: int = 640, notes: "Notes | None" = None) -> "Table":
        """The page's table inside a notebook, `height` pixels high: to sort, filter and search, with a card for every description (of over 1,000: the worst)."""
        from fade_lens.report.notebook import Table

        return Table(self, height, notes)

    def save(self, path: str | Path) -> Path:
        """Write everything as one SQLite file; `Results.load` reads it back."""
        with ResultsFile.written(path := Path(path)) as file:
            self._write(file, "")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Results":
        """Results that `save` wrote, or those of a finished run's folder; evidence stays in the file until it is looked at.

        Raises:
            InputError: no such file, or one that `save` did not write; a folder without one.
        """
        path = Path(path)
        if path.is_dir():
            path /= RESULTS_FILE if (path / RESULTS_FILE).exists() or not (path / EARLIER).exists() else EARLIER
            if not path.is_file():
                raise InputError(
                    f"folder {str(path.parent)!r} holds no {RESULTS_FILE}; give a folder that `fade-lens evaluate` finished"
                )
        if not path.is_file():
            raise InputError(f"results file {str(path)!r} does not exist")
        file = ResultsFile.open(path)
        with told(path):
            return cls._read(file, "")

    def _write(self, file: ResultsFile, part: str) -> None:
        record = {name: to_plain(getattr(self, name)) for name in ("run", "without", "beside", "weights")}
        record |= {"cross_scores": None if self.cross_scores is None else self.cross_scores.to_dict()}
        record |= {"nulls": [*self.nulls], "baselines": [*self.baselines]}
        file.keep_part(part, self.items, record)
        for kind, items in self.nulls.items():
            file.keep_part(f"{part}nulls/{kind}", items, {})
        for kind, found in self.baselines.items():
            found._write(file, f"{part}baselines/{kind}/")

    @classmethod
    def _read(cls, file: ResultsFile, part: str) -> "Results":
        _, record = file.record(part)
        run, kinds = from_plain(RunRecord, record["run"]), from_plain(tuple[str, ...], record["baselines"])

        def kept(part: str) -> KeptResults:
            n, about = file.record(part)
            return KeptResults(file, part, n, run.gate, from_plain(tuple[str, ...], about["scorers"]))

        return cls(
            kept(part),
            run,
            CrossScores.from_dict(found) if (found := record["cross_scores"]) else None,
            {kind: kept(f"{part}nulls/{kind}") for kind in from_plain(tuple[str, ...], record["nulls"])},
            from_plain(tuple[Explanation, ...], record["without"]),
            {kind: cls._read(file, f"{part}baselines/{kind}/") for kind in kinds},
            from_plain(tuple[tuple[int, int], ...], record["beside"]),
            from_plain(tuple[tuple[int, float], ...], record["weights"]),
        )

    def __repr__(self) -> str:
        items = self.items
        counts = items.standings if isinstance(items, KeptResults) else Counter(str(r.standing) for r in items)
        words = ", ".join(f"{word} {counts[word]:,}" for word in ORDER if counts[word])
        head = f"{len(self):,} descriptions" + (f": {words}" if words else "")
        shown = (f"{r.description.index} {clip(r.description.text, 60)!r}: {r.standing}" for r in self.items[:20])
        return in_lines("Results", [head, *shown])

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import results_table

        return results_table(self)
