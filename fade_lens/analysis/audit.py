"""An audit of descriptions: what is wrong with them at sight, how they score, which are swapped, what to do about each."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.files import clean, whole_file, write_csv, write_parquet, write_text
from fade_lens._util.wording import one_line
from fade_lens.analysis.notes import CardNotes, Notes, Unscored
from fade_lens.analysis.relabelling import Relabelling, relabelled, to_describe
from fade_lens.analysis.verdicts import ELSEWHERE, SEVERITY, best_of, defined, partners, scorable, verdict_of
from fade_lens.explainers.table import Explanations
from fade_lens.neuronpedia import links
from fade_lens.neuronpedia.flagging import flags
from fade_lens.neuronpedia.frames import explained
from fade_lens.neuronpedia.ids import SourceId
from fade_lens.neuronpedia.records import Score, Stats
from fade_lens.runs.record import FeaturesRecord, RunRecord
from fade_lens.runs.results import RESULTS_FILE, Results
from fade_lens.scorers.fade import METRICS
from fade_lens.subject.summary import FeatureSummary

if TYPE_CHECKING:
    import pandas as pd

    from fade_lens.neuronpedia.mapping import MappingCheck

logger = logging.getLogger(__name__)

IDENTITY = (
    "model_id",
    "source_id",
    "index",
    "explanation_id",
    "description",
    "state",
    "type_name",
    "explanation_model_name",
    "origin",
)
COUNTS = (
    "n_synthetic",
    "n_rated_0",
    "n_rated_1",
    "n_rated_2",
    "n_unrated",
    "n_continuations",
    "prevalence",
    "best_factor",
)
SCORES = tuple(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high", "_reason"))
NULLS = ("clarity_null_percentile", "responsiveness_null_percentile", "purity_null_percentile", "p_value", "q_value", "better_feature", "suggested_feature")  # fmt: skip
SCORED = {"index", "description", "standing", "standing_reason", *SCORES, *COUNTS, *NULLS, "firing_rate", "largest_activation"}  # fmt: skip
"""Columns of a run's table that an audit takes."""
LEAST_SCORES = 5
"""Descriptions with a stored score below which no rank correlation is given."""
MOST_UNSCORED = 1000
"""Rows without metrics that the page shows, the worst."""
BAD = ("unusable", "swapped", "mislabelled", "fails", "missing")


@dataclass(frozen=True, eq=False)
class Audit(Brief):
    """What an audit found.

    Attributes:
        frame: one row a description, and one for each feature without any, the worst first.
        results: the run behind the metrics; None if only flags were asked for.
        agreement: rank correlation of each metric with each score that Neuronpedia keeps.
        source: the features' Neuronpedia id, None where it is not known: no links then.
        mapping: the mapping check, None if there was nothing to check with.
        unlisted: how many features without a description have no row.
        summaries: what the corpus tells of features that were not scored (`Fade.summaries`), for those to be described anew.
    """

    frame: "pd.DataFrame"
    results: Results | None
    agreement: "pd.DataFrame"
    source: SourceId | None = None
    mapping: "MappingCheck | None" = None
    unlisted: int = 0
    summaries: Mapping[int, FeatureSummary] = field(default_factory=dict[int, FeatureSummary])

    @cached_property
    def relabelling(self) -> Relabelling:
        """Which description each feature should have, and which features must be described anew."""
        return relabelled(records_of(self.frame))

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many rows got each verdict, the worst first."""
        found = self.frame["verdict"].value_counts().to_dict()
        return {word: int(found[word]) for word in SEVERITY if word in found}

    @property
    def told(self) -> str:
        """How many rows got each verdict, and how many features without a description have no row, in words."""
        more = (
            f"; {self.unlisted:,} more features without a description are not listed, for they are many: name some to list them"
            if self.unlisted
            else ""
        )
        return ", ".join(f"{n:,} {word}" for word, n in self.counts.items()) + more

    def notes(self) -> Notes:
        """What the audit adds to the page of its results."""
        scored: Any = self.frame["scored"].astype(bool)
        cards: dict[str, CardNotes] = {}
        for row in records_of(self.frame[scored]):
            cards.setdefault(f"{row['index']}:{text_of(row)}", card_of(row))
        others = records_of(self.frame[~scored].head(MOST_UNSCORED))
        rest = tuple(Unscored(int(row["index"]), text_of(row), card_of(row)) for row in others)
        facts: list[tuple[str, str]] = []
        if (more := int((~scored).sum()) - len(rest)) > 0:
            facts.append(
                ("Not on this page", f"{more:,} of the rows without metrics, the least severe; the table has them")
            )
        if self.mapping is not None:
            facts.append(("Mapping check", str(self.mapping)))
        facts.append(("Verdicts", self.told))
        return Notes(cards, rest, tuple(facts))

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write the table (Parquet where pyarrow is installed, CSV, JSONL), the report, links and list bodies; the rows to import into
        an instance of one's own, the ids that these replace, and `to_describe.jsonl`: features to describe anew, with their top texts.

        Returns:
            what was written, by its name.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = {name: folder / f"audit.{name}" for name in ("csv", "jsonl")}
        table = self.flat()
        write_csv(table, written["csv"])
        write_lines(written["jsonl"], map(json_row, records_of(self.frame)))
        try:
            written["parquet"] = write_parquet(table, folder / "audit.parquet")
        except ImportError:
            logger.warning("audit.parquet is not written: pip install 'fade-lens[parquet]'")
        if len(cast(Any, self.agreement["rho"]).dropna()):
            written["agreement"] = folder / "score_agreement.csv"
            write_csv(self.agreement, written["agreement"])
        if self.relabelling.undescribed:
            written["to describe"] = folder / "to_describe.jsonl"
            anew = (to_describe(index, rows, self._summary(index)) for index, rows in self.relabelling.undescribed)
            write_lines(written["to describe"], map(json_row, anew))
        if self.source is not None:
            written |= self._save_links(folder)
        if self.results is not None:
            written["results"] = self.results.save(folder / RESULTS_FILE)
        features = FeaturesRecord(neuronpedia_id=str(self.source or ""))
        shown = self.results or Results((), RunRecord(features=features))
        written["report"] = shown.to_html(folder / "report.html", self.notes())
        return written

    def _summary(self, index: int) -> FeatureSummary | None:
        """What the corpus tells of a feature, where it is known."""
        if index in self.summaries or self.results is None:
            return self.summaries.get(index)
        return found[-1].feature if (found := self.results.of(index)) else None

    def _save_links(self, folder: Path) -> dict[str, Path]:
        """What leads to Neuronpedia, or into an instance of one's own."""
        assert self.source is not None
        bad = cast(Any, self.frame[self.frame["verdict"].isin(BAD)]).drop_duplicates("index")
        written = {name: folder / file for name, file in FILES.items()}
        urls = links.quick_list(self.source, bad["index"].tolist(), "fade-lens audit")
        write_text(written["quick lists"], "".join(f"{url}\n" for url in urls))
        about = [(int(row["index"]), line_of(row)) for row in records_of(bad)]
        bodies = links.list_bodies(
            self.source, about, "fade-lens audit", ", ".join(f"{n} {w}" for w, n in self.counts.items())
        )
        write_text(written["list bodies"], json.dumps(bodies, indent=1))
        write_lines(written["import rows"], links.import_rows(self.source, map(json_row, self.relabelling.rows)))
        write_text(written["outdated ids"], "".join(f"{name}\n" for name in self.relabelling.outdated))
        return written

    def flat(self) -> "pd.DataFrame":
        """The table with cells that every file holds: flags as one text, no halves of characters."""
        table = self.frame.copy()
        table["flags"] = table["flags"].map("; ".join)
        for name in [name for name, kind in table.dtypes.items() if str(kind) == "object"]:
            table[name] = table[name].map(lambda cell: clean(cell) if isinstance(cell, str) else cell)
        return table


FILES = {
    "quick lists": "quick_lists.txt",
    "list bodies": "neuronpedia_lists.json",
    "import rows": "import_rows.jsonl",
    "outdated ids": "outdated_ids.txt",
}


def audit(
    table: "pd.DataFrame | Explanations",
    results: Results | None = None,
    *,
    stats: Mapping[int, Stats] | None = None,
    source: SourceId | None = None,
    mapping: "MappingCheck | None" = None,
    unlisted: int = 0,
) -> Audit:
    """Verdicts on a table of descriptions.

    Args:
        table: of `neuronpedia.descriptions`, through `neuronpedia.flags`; or what `Fade.explain` gave.
        results: of a run over what `to_score(table)` gives; without it the verdicts rest on the flags.
        stats: what Neuronpedia knows of the features (`Imported.stats`).
        source: the features' Neuronpedia id; by default the one that the table names.
        mapping: the mapping check.
        unlisted: how many features without a description the table leaves out.

    Raises:
        InputError: a table without flags, or without rows.
    """
    import pandas as pd

    if isinstance(table, Explanations):
        table = flags(explained(table))
    if "flags" not in table.columns:
        raise InputError("the table has no column 'flags'; pass it through fade_lens.neuronpedia.flags first")
    if not len(table):
        raise InputError("there is nothing to audit: the source names no feature, and none was asked for")
    source = source or (SourceId.parse(named) if (named := str(table.attrs.get("source", ""))) else None)
    scored = {} if results is None else scores_by_key(results)
    run = {} if results is None else run_columns(results)
    rows = [
        row_of(row, scored.get(row_key(row)), (stats or {}).get(row["index"]), run, source, mapping)
        for row in records_of(table)
    ]
    swaps = partners(rows)
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        fits = row.get("better_feature")  # a number that may be a float, as pandas has it
        verdict = verdict_of(row, swapped=(row["index"], fits) in swaps if defined(fits) else False)
        row |= {"verdict": verdict.word, "severity": verdict.severity, "suggestion": verdict.suggestion}
        groups.setdefault(int(row["index"]), []).append(row)
    for group in groups.values():
        suggest_best(group)
    rows.sort(key=lambda row: (-row["severity"], row["index"]))
    frame = pd.DataFrame(rows)
    for name in ("better_feature", "suggested_feature"):
        if name in frame.columns:
            frame[name] = frame[name].astype("Int64")
    if results is not None and source is not None:
        features = replace(results.run.features, neuronpedia_id=str(source))
        results = replace(results, run=replace(results.run, features=features))
    return Audit(frame, results, agreement_of(frame), source, mapping, unlisted)


def to_score(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a flagged table that are worth a judge's time."""
    kept = table[[scorable(row) for row in records_of(table)]]
    kept.attrs = dict(table.attrs)
    return cast(Any, kept)


def row_of(
    row: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    stats: Stats | None,
    run: Mapping[str, Any],
    source: SourceId | None,
    mapping: "MappingCheck | None",
) -> dict[str, Any]:
    """One row of an audit, its verdict aside."""
    found = result or {}
    metrics = {name: found.get(name) for name in SCORES}
    flags = dict.fromkeys((*row["flags"], *found.get("flags", ())))
    known = stats or Stats()
    return {
        **{name: row[name] for name in IDENTITY},
        "scored": result is not None,
        "standing": found.get("standing"),
        **metrics,
        "standing_reason": found.get("standing_reason"),
        **{name: found.get(name) for name in (*COUNTS, *NULLS)},
        **(run if result is not None else dict.fromkeys(run)),
        "frac_nonzero": known.frac_nonzero,
        "firing_rate": found.get("firing_rate"),
        "largest_activation": found.get("largest_activation"),
        "neuronpedia_max_activation": known.max_activation,
        "mapping_check": "" if mapping is None else str(mapping),
        **score_columns(row["scores"]),
        "flags": tuple(flags),
        "dashboard_url": links.dashboard(source, row["index"]) if source is not None else "",
    }


def scores_by_key(results: Results) -> dict[tuple[int, str], dict[str, Any]]:
    """Of the rows of a run's table what an audit's have, their flags as they are."""
    frame = results.frame
    rows = zip(
        records_of(frame[[name for name in frame.columns if name in SCORED]]), results, strict=False
    )  # features without a description come last
    return {row_key(row): {**row, "flags": result.flags} for row, result in rows}


def run_columns(results: Results) -> dict[str, Any]:
    """What the metrics of a run rest on."""
    run = results.run
    judge = "" if run.judge is None else f"{run.judge.model} ({run.judge.endpoint})"
    return {"judge": judge, "corpus": run.corpus.source, "seed": run.settings.get("seed")}


def score_columns(scores: Iterable[Score]) -> dict[str, float]:
    """Existing scores by kind; of several of one kind the last; a 0 without details may be a failed run and is left out."""
    return {
        f"score_{score.kind}": score.value for score in scores if score.kind and (score.value != 0 or score.detailed)
    }


def suggest_best(group: list[dict[str, Any]]) -> None:
    """Name the best of one feature's descriptions in each of its rows."""
    texts = {text_of(row) for row in group if row["scored"]}
    best = best_of(group) if len(texts) > 1 else None
    for row in group:
        row["suggested_best_explanation_id"] = str(best["explanation_id"]) if best is not None else ""
        if best is not None and text_of(row) != text_of(best) and row["verdict"] not in ELSEWHERE:
            row["suggestion"] = f"of this feature's descriptions {one_line(best['description'])!r:.120} fits best"


def agreement_of(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Spearman's rank correlation of each metric with each score that Neuronpedia keeps: `score`, `metric`, `n`, `rho`, `p`."""
    import pandas as pd
    from scipy.stats import spearmanr

    rows: list[dict[str, Any]] = []
    for score in (name for name in frame.columns if name.startswith("score_")):
        for metric in METRICS:
            both: Any = cast(Any, frame[[score, metric]]).astype("float64").dropna()
            varied = len(both) >= LEAST_SCORES and both[score].nunique() > 1 and both[metric].nunique() > 1
            found: Any = spearmanr(both[score], both[metric]) if varied else (None, None)
            rows.append(
                {
                    "score": score.removeprefix("score_"),
                    "metric": metric,
                    "n": len(both),
                    "rho": found[0],
                    "p": found[1],
                }
            )
    return pd.DataFrame(rows, columns=["score", "metric", "n", "rho", "p"])


def card_of(row: Mapping[str, Any]) -> CardNotes:
    """What is added to a description's card."""
    facts = [(name, str(row[key])) for key, name in FACTS.items() if defined(row.get(key)) and str(row[key])]
    facts += [
        (name.removeprefix("score_"), f"{row[name]:.3g}")
        for name in row
        if name.startswith("score_") and defined(row[name])
    ]
    url = str(row["dashboard_url"])
    return CardNotes(
        verdict=row["verdict"],
        severity=float(row["severity"]),
        suggestion=row["suggestion"],
        flags=tuple(row["flags"]),
        facts=tuple(facts),
        links=(("Neuronpedia", url),) if url else (),
    )


FACTS = {
    "explanation_id": "explanation",
    "explanation_model_name": "explainer",
    "type_name": "method",
    "frac_nonzero": "Neuronpedia's firing rate",
    "neuronpedia_max_activation": "Neuronpedia's largest activation",
}


def line_of(row: Mapping[str, Any]) -> str:
    """A description in a list: the verdict, the text, what to do."""
    text = text_of(row) or "no description"
    return f"{row['verdict']}: {text:.200}" + (f" ({row['suggestion']:.200})" if row["suggestion"] else "")


def text_of(row: Mapping[str, Any]) -> str:
    """A row's description, "" where there is none."""
    return one_line(row["description"]) if row["description"] is not None and defined(row["description"]) else ""


def row_key(row: Mapping[str, Any]) -> tuple[int, str]:
    """What tells descriptions apart: the feature and the text."""
    return int(row["index"]), text_of(row)


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: undefined is null."""
    cells: dict[str, Any] = {
        name: value if isinstance(value, tuple | list) or defined(value) else None for name, value in row.items()
    }
    return {name: value.item() if hasattr(value, "item") else value for name, value in cells.items()}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A JSONL file."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def records_of(table: Any, at_once: int = 2000) -> Iterator[dict[str, Any]]:
    """The rows of a table, some at a time: an audit of a whole SAE has a hundred thousand with sixty cells each."""
    for start in range(0, len(table), at_once):
        yield from table.iloc[start : start + at_once].to_dict("records")
