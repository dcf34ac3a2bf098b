"""What a run found: one table, and for every description the evidence behind its numbers."""

import dataclasses
import gzip
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fade_lens.descriptions import Description
from fade_lens.errors import InputError
from fade_lens.evidence import ClarityEvidence, FaithfulnessEvidence, FeatureSummary, RatedEvidence
from fade_lens.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

T = TypeVar("T")
METRICS = ("clarity", "responsiveness", "purity", "faithfulness")
FORMAT = 1
MAX_FILE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Result:
    """One description of one feature: four metrics and what they rest on."""

    description: Description
    feature: FeatureSummary
    clarity_evidence: ClarityEvidence
    rated_evidence: RatedEvidence
    faithfulness_evidence: FaithfulnessEvidence

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
    def metrics(self) -> dict[str, Metric]:
        """The four metrics by name."""
        return {name: getattr(self, name) for name in METRICS}

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know before trusting the numbers."""
        flags: list[str] = []
        if self.feature.firing_texts == 0:
            flags.append("dead: never fires on the corpus")
        elif self.feature.firing_rate > 0.1:
            flags.append("dense: fires on over 10 % of tokens")
        if self.feature.n_texts and 0 < self.feature.firing_texts < 10:
            flags.append(f"rare: fires on {self.feature.firing_texts} texts of the corpus")
        unrated = sum(text.rating is None for text in self.rated_evidence.texts)
        if unrated:
            flags.append(f"unrated: {unrated} of {len(self.rated_evidence.texts)} natural texts got no rating")
        missing = sum(c.rating is None for c in self.faithfulness_evidence.continuations)
        if missing:
            flags.append(
                f"unrated: {missing} of {len(self.faithfulness_evidence.continuations)} continuations got no rating"
            )
        if self.clarity_evidence.failures:
            flags.append(f"writing: {len(self.clarity_evidence.failures)} requests gave no text")
        return tuple(flags)

    def plot(self) -> "go.Figure":
        """Activations of synthetic and natural texts, activation by rating, concept rate by steering factor, the radar."""
        from fade_lens.report.plots import result_figure

        return result_figure(self)

    def to_row(self) -> dict[str, Any]:
        """One row of `Results.frame`."""
        row: dict[str, Any] = {"index": self.description.index, "description": self.description.text}
        for name, metric in self.metrics.items():
            low, high = metric.interval or (None, None)
            row |= {name: metric.value, f"{name}_low": low, f"{name}_high": high}
        for name, metric in self.metrics.items():
            row[f"{name}_reason"] = metric.reason
        counts = self.purity.counts
        row |= {f"n_{key}": counts.get(key, 0) for key in ("rated_0", "rated_1", "rated_2", "unrated")}
        row["n_synthetic"] = len(self.clarity_evidence.texts)
        row["n_continuations"] = len(self.faithfulness_evidence.continuations)
        row["prevalence"] = self.purity.details.get("prevalence")
        row["best_factor"] = self.faithfulness.details.get("factor")
        row["firing_rate"] = self.feature.firing_rate
        row["largest_activation"] = self.feature.largest
        row["origin"] = self.description.origin
        row["flags"] = "; ".join(self.flags)
        return row

    def _repr_html_(self) -> str:
        from fade_lens.report.page import result_card

        return result_card(self)


@dataclass(frozen=True)
class Results:
    """All results of a run, in the order of its descriptions.

    Attributes:
        items: one `Result` a description.
        run: how the run was made: settings, model, features, corpus, judge, versions, usage, seconds.
    """

    items: tuple[Result, ...]
    run: Mapping[str, Any] = field(default_factory=dict[str, Any])

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
        return tuple(r for r in self.items if r.description.index == index)

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a description: the four metrics with 95 % intervals, why any is undefined, counts and flags."""
        import pandas as pd

        frame = pd.DataFrame([r.to_row() for r in self.items])
        for name in frame.columns:
            if name in METRICS or name.endswith(("_low", "_high")):
                frame[name] = frame[name].astype("float64")
        return frame

    def plot(self) -> "go.Figure":
        """The four metrics of every description, with intervals."""
        from fade_lens.report.plots import overview_figure

        return overview_figure(self)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: the table, and a card for every description."""
        from fade_lens.report.page import page

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self), encoding="utf-8")
        return path

    def save(self, path: str | Path) -> Path:
        """Write everything as gzipped JSON; `Results.load` reads it back."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "run": dict(self.run), "items": [to_plain(r) for r in self.items]}
        with gzip.open(path, "wt", encoding="utf-8") as file:
            json.dump(record, file, ensure_ascii=False)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Results":
        """Results that `save` wrote.

        Raises:
            InputError: no such file, or one that `save` did not write.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"results file {str(path)!r} does not exist")
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES)
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise InputError(
                    f"results file {path.name!r} has format {record['format']}; this version reads {FORMAT}"
                )
            return cls(tuple(from_plain(Result, item) for item in record["items"]), record["run"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path.name!r} is not a results file of fade_lens: {error}") from error

    def _repr_html_(self) -> str:
        from fade_lens.report.page import results_table

        return results_table(self)


def to_plain(value: Any) -> Any:
    """Nested dataclasses, tuples and mappings as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in cast(tuple[Any, ...], value)]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain` for dataclass `kind`, following its type hints; no code is run from the data."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = [f.name for f in dataclasses.fields(kind) if f.name in value]
        return cast(type, kind)(**{name: from_plain(hints[name], value[name]) for name in fields})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        chosen = [a for a in arguments if a is not type(None)]
        return None if value is None else from_plain(chosen[0], value) if len(chosen) == 1 else value
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(k, v) for k, v in zip(kinds, value, strict=True))
    return value
