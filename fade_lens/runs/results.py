"""What a run found: one table, and for every description the evidence behind its numbers."""

import gzip
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens._util.brief import in_lines
from fade_lens._util.errors import InputError
from fade_lens._util.files import table_of, write_csv
from fade_lens._util.reasons import Flag, Reason
from fade_lens._util.record import from_plain, to_plain
from fade_lens._util.words import clip
from fade_lens.baselines.cross_scores import NAMES, CrossScores
from fade_lens.baselines.permutation import PermutationTest
from fade_lens.data.descriptions import Description
from fade_lens.explainers.base import Explanation
from fade_lens.judge.prompts import MAX_CONCEPT_CHARS
from fade_lens.judge.reliability import Agreement
from fade_lens.llm.budget import Usage
from fade_lens.metrics.detection import Detection
from fade_lens.metrics.metric import GATE, Metric
from fade_lens.runs.record import RunRecord
from fade_lens.scorers.base import NOT_SCORED, RuleScores, Scored, ScoreSpec, scorer_of, specs_of
from fade_lens.scorers.evidence import ClarityEvidence, FaithfulnessEvidence, RatedEvidence
from fade_lens.scorers.fade import NOTHING, FadeEvidence
from fade_lens.scorers.standing import ORDER, Standing, of_dead, said, standing_of
from fade_lens.subject.summary import FeatureSummary, Promoted, TopText

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from IPython.display import IFrame

    from fade_lens.analysis.notes import Notes
    from fade_lens.analysis.summary import Key
    from fade_lens.report.notebook import Table

FORMAT = 5
RESULTS_FILE = "results.json.gz"
"""In the folder of a run."""
MAX_FILE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Result:
    """One description of one feature: its scores and what they rest on, by the scorers of the run.

    FADE's four and their evidence have names of their own; where a run has no FADE they are undefined and empty.
    """

    description: Description
    feature: FeatureSummary
    evidence: Mapping[str, Scored]
    """By the name of the scorer."""
    permutation: PermutationTest | None = None
    neuronpedia: str = field(default="", compare=False)
    """The Neuronpedia source of the run's features, such as "gpt2-small/8-res-jb", where the run knows it."""
    usage: Usage | None = field(default=None, compare=False)
    """What the judge's answers cost that this rests on, in this run or before (descriptions with the same text share them)."""
    agreement: tuple[Agreement, ...] = ()
    """How far ratings of some of the same texts agree with it: the judge's own repeated, a second judge's."""
    shown: tuple[TopText, ...] = field(default=(), compare=False)
    """A few of the windows that its explainer was shown, where it was explained on this corpus."""
    collides: str = ""
    """With which other features of the run it shares its description, in words; "" with none (see `fade_lens.data.collisions`)."""
    gate: float = field(default=GATE, compare=False)
    """What the scores that decide are held against; in `Results` the run's."""

    @property
    def specs(self) -> tuple[ScoreSpec, ...]:
        """The scores that it has, in the order of the run's scorers."""
        return specs_of(self.evidence)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The scores by name."""
        return {name: metric for found in self.evidence.values() for name, metric in found.metrics.items()}

    def metric(self, name: str) -> Metric:
        """One score; undefined where the run did not ask for it."""
        return self.metrics.get(name, NOT_SCORED)

    @cached_property
    def standing(self) -> Standing:
        """How the description stands: "holds", "fails" or "open" by intervals against the gate (see `fade_lens.scorers.standing`), or "dead"."""
        if self.feature.dead:
            return of_dead([text.activation for text in self.clarity_evidence.texts])
        return standing_of(self.evidence, self.gate)

    @property
    def rules(self) -> tuple[RuleScores, ...]:
        """What each rule of the description scores alone, by all scorers that ask about rules one by one."""
        found = {rule: RuleScores(*rule, {}) for rule in self.description.rules}
        for one in (one for scored in self.evidence.values() for one in scored.rules):
            before = found[one.text, one.strength]
            found[one.text, one.strength] = replace(before, metrics={**before.metrics, **one.metrics})
        return tuple(found.values())

    @property
    def fade(self) -> FadeEvidence:
        """FADE's evidence, empty where the run has none."""
        return next((found for found in self.evidence.values() if isinstance(found, FadeEvidence)), NOTHING)

    @property
    def clarity_evidence(self) -> ClarityEvidence:
        """The texts written for the description."""
        return self.fade.clarity

    @property
    def rated_evidence(self) -> RatedEvidence:
        """The rated natural texts."""
        return self.fade.rated_texts

    @property
    def faithfulness_evidence(self) -> FaithfulnessEvidence:
        """The steered texts."""
        return self.fade.faithfulness

    @property
    def clarity(self) -> Metric:
        """Does text written to express the concept activate the feature?"""
        return self.clarity_evidence.clarity

    @property
    def responsiveness(self) -> Metric:
        """Do natural texts that express the concept activate it?"""
        return self.rated_evidence.responsiveness

    @property
    def purity(self) -> Metric:
        """Does it fire for that concept only?"""
        return self.rated_evidence.purity

    @property
    def faithfulness(self) -> Metric:
        """Does steering it make the model write the concept?"""
        return self.faithfulness_evidence.faithfulness

    @property
    def detection(self) -> Detection:
        """Best F1, IoU, correlation and balanced accuracy on the rated texts."""
        return self.rated_evidence.detection

    @property
    def logits(self) -> Promoted | Reason | None:
        """The tokens that the feature's direction promotes and suppresses most, by the logit lens, or why there are none; None if not asked for."""
        return self.feature.logits

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What a reader should know before trusting the numbers."""
        flags = list(self.feature.flags)
        if (n := len(self.description.text)) > MAX_CONCEPT_CHARS:
            read = f"of which the judge read the first and the last {MAX_CONCEPT_CHARS // 2:,}"
            flags.append(Flag("cut", f"has {n:,} characters, {read}"))
        flags += [Flag("collides", self.collides)] if self.collides else []
        flags += [flag for found in self.evidence.values() for flag in found.flags]
        if self.permutation is not None and (better := self.permutation.better_feature) is not None:
            kind = "swapped" if better == self.permutation.suggested_feature else "mislabelled"
            kind, also = ("copied", " has the same description and") if self.permutation.copied else (kind, "")
            flags.append(Flag(kind, f"feature {better} of the run{also} fits the description better"))
        flags += [one.flag for one in self.agreement if one.flag]
        return tuple(flags)

    def plot(self) -> "go.Figure":
        """Activations of synthetic and natural texts, activation by rating, concept rate by steering factor, the radar."""
        from fade_lens.report.plots import result_figure

        return result_figure(self)

    def to_row(self) -> dict[str, Any]:
        """One row of `Results.frame`."""
        row: dict[str, Any] = {
            "index": self.description.index,
            "description": self.description.text,
            "standing": str(self.standing),
        }
        row |= {**_scores(self.metrics), "standing_reason": self.standing.why}
        row |= {"rules": json.dumps(self.description.rules)} if self.description.rules else {}
        for found in self.evidence.values():
            row |= found.columns()
        if self.permutation is not None:
            row |= {f"{name}_null_percentile": getattr(self.permutation, f"{name}_percentile") for name in NAMES}
            row |= {
                name: getattr(self.permutation, name)
                for name in ("p_value", "q_value", "better_feature", "suggested_feature")
            }
            row["null_reason"] = self.permutation.reason
        row["firing_rate"] = self.feature.firing_rate
        row["largest_activation"] = self.feature.largest
        row |= {"token_entropy": self.feature.token_entropy, "effective_tokens": self.feature.effective_tokens}
        row["judge_calls"] = None if self.usage is None else self.usage.calls
        row["judge_cost"] = None if self.usage is None else self.usage.cost
        row["origin"] = self.description.origin
        if (candidates := self.description.provenance.candidates) is not None:
            row["candidates"] = candidates
        row["flags"] = "; ".join(self.flags)
        return row

    def dashboard(self, source: Any = None, *, width: int | str = "100%", height: int = 600) -> "IFrame":
        """The feature's Neuronpedia page inside a notebook, as SAELens' `display_dashboard` shows it; needs a network.

        Args:
            source: the Neuronpedia id ("gpt2-small/8-res-jb") or the SAE; without it, where the description came from or the run's.
            width, height: of the frame, in pixels or as CSS.

        Raises:
            InputError: the id is not known.
        """
        from fade_lens.report.links import dashboard_frame

        return dashboard_frame(self, source, width=width, height=height)

    def __repr__(self) -> str:
        others = [said(spec.title, self.metric(spec.name)) for spec in self.specs if not spec.decides]
        head = f"{self.description.index} {clip(self.description.text, 60)!r}: {self.standing}"
        return in_lines("Result", [head, *self.standing.why.split("; "), *others, "; ".join(self.flags)])

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import result_card

        return result_card(self)


@dataclass(frozen=True)
class Results:
    """All results of a run, in the order of its descriptions.

    Attributes:
        items: one `Result` a description.
        run: how the run was made.
        cross_scores: every feature against every description; None for runs of over `fade_lens.baselines.permutation.MOST` descriptions.
        nulls: for each null description asked for, the result of the null description of each of `items`, in their order.
        without: features that an explainer gave no description, each with the reason; they are not scored.
        baselines: for each kind of baseline features asked for, their results (see `fade_lens.baselines.features`).
        beside: in the results of such a baseline, each of its features with the one of the run that it stands beside; empty where none does.
        weights: of features that were drawn with unequal probabilities, how many each stands for (1 / probability); means over the run then
            weigh them. Empty where all are alike.
    """

    items: tuple[Result, ...]
    run: RunRecord = field(default_factory=RunRecord)
    cross_scores: CrossScores | None = field(default=None, compare=False)
    nulls: Mapping[str, tuple[Result, ...]] = field(default_factory=dict[str, tuple[Result, ...]])
    without: tuple[Explanation, ...] = ()
    baselines: "Mapping[str, Results]" = field(default_factory=dict[str, "Results"])
    beside: tuple[tuple[int, int], ...] = ()
    weights: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if any(result.gate != self.run.gate for result in self.items):
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
        found = (r for r in self.items if r.description.index == index)
        return tuple(replace(r, neuronpedia=known) if known and not r.neuronpedia else r for r in found)

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
        return specs_of([name for result in self.items for name in result.evidence] or ["fade"])

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a description: how it stands, its scores with 95 % intervals, why any is undefined, counts, flags, its Neuronpedia page.

        Features of `without` follow, with the reason as `no_description` and nothing else. `weight` stands there where the run has `weights`.
        """
        from fade_lens.report.links import urls_of

        frame = table_of(r.to_row() for r in self.items)
        frame["dashboard_url"] = urls_of(self)
        if self.weights:
            frame["weight"] = [dict(self.weights).get(index) for index in frame["index"]]
        if self.without:
            rows = [
                {"index": row.index, "description": None, "no_description": str(row.reason)} for row in self.without
            ]
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
        about = ((r.description, rule) for r in self.items for rule in r.rules)
        rows = ({"index": d.index, "description": d.text, "rule": rule.text, "strength": rule.strength, **_scores(rule.metrics)} for d, rule in about)  # fmt: skip
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

    def to_folder(self, folder: str | Path) -> Path:
        """Write what a run leaves in its folder: results.json.gz, results.csv and report.html, whose path is given back."""
        folder = Path(folder)
        self.save(folder / RESULTS_FILE)
        write_csv(self.frame, folder / "results.csv")
        return self.to_html(folder / "report.html")

    def table(self, height: int = 640, notes: "Notes | None" = None) -> "Table":
        """The page's table inside a notebook, `height` pixels high: to sort, filter and search, with a card for every description (of over 1,000: the worst)."""
        from fade_lens.report.notebook import Table

        return Table(self, height, notes)

    def save(self, path: str | Path) -> Path:
        """Write everything as gzipped JSON; `Results.load` reads it back."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, **self._to_record()}
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # an earlier file stays whole until this one is
        try:
            with gzip.open(partial, "wt", encoding="utf-8") as file:
                json.dump(record, file)  # in ASCII: a lone surrogate has no UTF-8
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Results":
        """Results that `save` wrote, or those of a finished run's folder.

        Raises:
            InputError: no such file, or one that `save` did not write; a folder without one.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / RESULTS_FILE).is_file():
                raise InputError(
                    f"folder {str(path)!r} holds no {RESULTS_FILE}; give a folder that `fade-lens evaluate` finished"
                )
            path = path / RESULTS_FILE
        if not path.is_file():
            raise InputError(f"results file {str(path)!r} does not exist")
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES)
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise InputError(
                    f"results file {path.name!r} has format {record['format']}; this version reads {FORMAT}: evaluate again, "
                    "with the run's folder as transcripts, so that nothing is asked twice"
                )
            return cls._from_record(record)
        except InputError:
            raise
        except (
            OSError,
            EOFError,
            zlib.error,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise InputError(f"{path.name!r} is not a results file of fade_lens: {error}") from error

    def _to_record(self) -> dict[str, Any]:
        return {
            "run": to_plain(self.run),
            "items": [to_plain(r) for r in self.items],
            "cross_scores": None if self.cross_scores is None else self.cross_scores.to_dict(),
            "nulls": to_plain(self.nulls),
            "without": to_plain(self.without),
            "beside": to_plain(self.beside),
            "weights": to_plain(self.weights),
            "baselines": {kind: found._to_record() for kind, found in self.baselines.items()},
        }

    @classmethod
    def _from_record(cls, record: Mapping[str, Any]) -> "Results":
        nulls = {kind: tuple(map(result_of, items)) for kind, items in record.get("nulls", {}).items()}
        cross = CrossScores.from_dict(kept) if (kept := record.get("cross_scores")) else None
        without = from_plain(tuple[Explanation, ...], record.get("without", []))
        baselines = {kind: cls._from_record(found) for kind, found in record.get("baselines", {}).items()}
        items, run = tuple(map(result_of, record["items"])), from_plain(RunRecord, record["run"])
        pairs = from_plain(tuple[tuple[int, int], ...], record.get("beside", []))
        weights = from_plain(tuple[tuple[int, float], ...], record.get("weights", []))
        return cls(items, run, cross, nulls, without, baselines, pairs, weights)

    def __repr__(self) -> str:
        counts = Counter(str(result.standing) for result in self)
        told = ", ".join(f"{word} {counts[word]:,}" for word in ORDER if counts[word])
        head = f"{len(self):,} descriptions" + (f": {told}" if told else "")
        shown = (f"{r.description.index} {clip(r.description.text, 60)!r}: {r.standing}" for r in self.items[:20])
        return in_lines("Results", [head, *shown])

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import results_table

        return results_table(self)


def _scores(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Columns of some scores: values with their intervals, then why any is undefined."""
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        low, high = metric.interval or (None, None)
        found |= {name: metric.value, f"{name}_low": low, f"{name}_high": high}
    return found | {f"{name}_reason": metric.reason for name, metric in metrics.items()}


def result_of(record: Mapping[str, Any]) -> Result:
    """The result of a record; each scorer says of what class its evidence is.

    Raises:
        InputError: a scorer that is not registered.
    """
    evidence = {name: from_plain(scorer_of(name).Evidence, found) for name, found in record["evidence"].items()}
    return replace(from_plain(Result, {**record, "evidence": {}}), evidence=evidence)
