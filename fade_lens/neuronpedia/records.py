"""What Neuronpedia says about features, whatever file or answer it came in: descriptions, scores, statistics, activations."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, cast

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.files import clean
from fade_lens.data.rows import INDEX_COLUMNS, TEXT_COLUMNS, is_null, named, numbered
from fade_lens.neuronpedia.ids import SourceId

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """A score that Neuronpedia keeps of a description; a 0 may stand for a run that failed."""

    kind: str
    value: float
    model: str = ""
    created_at: str = ""
    detailed: bool = False


@dataclass(frozen=True)
class Row(Brief):
    """One description of one feature, as it was given; `description` is None where the record has none."""

    index: int
    description: str | None
    model_id: str = ""
    source_id: str = ""
    explanation_id: str = ""
    type_name: str = ""
    explanation_model_name: str = ""
    created_at: str = ""
    notes: str = ""
    origin: str = ""
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class Stats:
    """What Neuronpedia knows of a feature beside its descriptions; None where it was not told."""

    frac_nonzero: float | None = None
    max_activation: float | None = None
    min_activation: float | None = None
    top_token: str | None = None

    def join(self, other: "Stats") -> "Stats":
        """Both together; of the extremes the more extreme, of the rest what was told first."""
        highest = [v for v in (self.max_activation, other.max_activation) if v is not None]
        lowest = [v for v in (self.min_activation, other.min_activation) if v is not None]
        return Stats(
            self.frac_nonzero if self.frac_nonzero is not None else other.frac_nonzero,
            max(highest, default=None),
            min(lowest, default=None),
            self.top_token if self.top_token is not None else other.top_token,
        )


@dataclass(frozen=True)
class Activation(Brief):
    """A stored context: its tokens as strings, and a feature's activation at each."""

    index: int
    tokens: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def peak(self) -> int:
        """The position of the largest value."""
        return max(range(len(self.values)), key=self.values.__getitem__)


@dataclass(frozen=True)
class Imported(Brief):
    """All that one place holds about a source.

    Attributes:
        source: its id, None where the data does not say.
        rows: descriptions, in the order found, repeated ones included.
        stats: by feature.
        activations: stored contexts, as many as were asked for.
        looked_up: features whose descriptions were looked up; a feature that is in it without a row has none.
        complete: whether every feature of the source was looked up.
        config: what `source.jsonl` says about the SAE.
    """

    source: SourceId | None = None
    rows: tuple[Row, ...] = ()
    stats: Mapping[int, Stats] = field(default_factory=dict[int, Stats])
    activations: tuple[Activation, ...] = ()
    looked_up: frozenset[int] = frozenset()
    complete: bool = False
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def join(self, other: "Imported") -> "Imported":
        """Both together, the first's rows in front."""
        stats = dict(self.stats)
        for index, found in other.stats.items():
            stats[index] = stats[index].join(found) if index in stats else found
        return Imported(
            self.source or other.source,
            self.rows + other.rows,
            stats,
            self.activations + other.activations,
            self.looked_up | other.looked_up,
            self.complete or other.complete,
            self.config or other.config,
        )

    @classmethod
    def together(cls, parts: Iterable["Imported"]) -> "Imported":
        """Many joined, in time that grows with what they hold."""
        found = list(parts)
        while len(found) > 1:  # in pairs, so that nothing is copied more than a few times
            found = [a.join(b) for a, b in zip_longest(found[::2], found[1::2], fillvalue=cls())]
        return found[0] if found else cls()

    def of(self, indices: Iterable[int]) -> "Imported":
        """What it says about some features."""
        wanted = frozenset(indices)
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.index in wanted),
            stats={index: stats for index, stats in self.stats.items() if index in wanted},
            activations=tuple(a for a in self.activations if a.index in wanted),
        )


def row_of(record: Record, where: str, source: SourceId | None = None, index: int | None = None) -> Row:
    """A description from one record; `source` and `index` stand in where the record does not say (nested ones never do).

    Raises:
        InputError: an index that is no whole number, by the file and line.
    """
    text = None if (key := named(record, TEXT_COLUMNS)) is None else record[key]
    if text is not None and not isinstance(text, str):
        if isinstance(text, list | dict):
            raise InputError(f"{where}: the description is {type(text).__name__}, not a text")
        text = None if is_null(text) else str(text)
    scores = record.get("scores")
    place, own = ("", index) if index is not None else place_and_index(record, where)
    model, source_id = ["", "", *place.split("/")][-2:]
    return Row(
        index=own,
        description=None if text is None else clean(text),
        model_id=word(record, "modelId", "model_id") or model or (source.model_id if source else ""),
        source_id=word(record, "layer", "source_id") or source_id or (source.source_id if source else ""),
        explanation_id=word(record, "id", "explanation_id"),
        type_name=word(record, "typeName", "type_name"),
        explanation_model_name=word(record, "explanationModelName", "explanation_model_name"),
        created_at=word(record, "createdAt", "created_at"),
        notes=word(record, "notes"),
        origin=where,
        scores=tuple(filter(None, map(score_of, records_of(scores)))),
    )


def index_of(record: Record, where: str) -> int:
    """The feature index of a record: a string in some exports, an int in others."""
    return place_and_index(record, where)[1]


def place_and_index(record: Record, where: str) -> tuple[str, int]:
    """The index with what stands before it where it is an id such as `6-res-jb/204`."""
    if (key := named(record, INDEX_COLUMNS)) is None:
        raise InputError(
            f"{where} has no feature index under {' or '.join(INDEX_COLUMNS[:2])}; it has {', '.join(map(str, record))[:120]}"
        )
    try:
        return numbered(record[key])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def score_of(record: Record) -> Score | None:
    """A score, None where it has no value."""
    value = number(record.get("value"))
    if value is None:
        return None
    return Score(
        word(record, "explanationScoreTypeName"),
        value,
        word(record, "explanationScoreModelName"),
        word(record, "createdAt"),
        bool(record.get("jsonDetails")) and record.get("jsonDetails") not in ("{}", "[]", "null"),
    )


def stats_of(record: Record, activations: Iterable[Activation] = ()) -> Stats:
    """What a feature's record and its stored contexts say."""
    told = Stats(number(record.get("frac_nonzero")), number(record.get("maxActApprox")))
    found = Stats()
    for activation in activations:
        found = found.join(stats_of_activation(activation))
    return told.join(found)


def stats_of_activation(activation: Activation) -> Stats:
    """The extremes of one stored context."""
    if not activation.values:
        return Stats()
    peak = activation.peak
    top = activation.tokens[peak] if activation.values[peak] > 0 else None
    return Stats(None, activation.values[peak], min(activation.values), top)


def activation_of(record: Record, where: str, index: int | None = None) -> Activation | None:
    """A stored context, None where it is broken: no tokens, or another number of values than of tokens."""
    tokens, values = record.get("tokens"), record.get("values")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return None
    numbers = [number(value) for value in cast(list[Any], values)]
    words = cast(list[Any], tokens)
    if not words or len(words) != len(numbers) or None in numbers or not all(isinstance(t, str) for t in words):
        return None
    return Activation(
        index if index is not None else index_of(record, where), tuple(words), tuple(cast(list[float], numbers))
    )


def feature_of(record: Record, where: str, source: SourceId | None = None) -> Imported:
    """One feature with everything nested in it: the API's answer, or a feature of a dashboard batch."""
    index = index_of(record, where)
    source = source or SourceId.named(word(record, "modelId"), word(record, "layer"))
    nested = records_of(record.get("activations"))
    activations = tuple(a for a in (activation_of(one, where, index) for one in nested) if a is not None)
    has_descriptions = isinstance(record.get("explanations"), list)
    return Imported(
        source=source,
        rows=tuple(row_of(one, where, source, index) for one in records_of(record.get("explanations"))),
        stats={index: stats_of(record, activations)},
        activations=activations,
        looked_up=frozenset([index]) if has_descriptions else frozenset(),
    )


def records_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; nothing for anything else."""
    return [one for one in cast(list[Any], value) if isinstance(one, dict)] if isinstance(value, list) else []


def word(record: Record, *keys: str) -> str:
    """The first of these that is there, as a string."""
    for key in keys:
        value = record.get(key)
        if value is not None and value == value and not isinstance(value, list | dict):
            return clean(str(value))
    return ""


def number(value: Any) -> float | None:
    """A finite number, from a number or its string."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
