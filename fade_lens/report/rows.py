"""The rows of the table: results and descriptions without one, each with what was added to it."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fade_lens._util.reasons import Flag
from fade_lens._util.words import clip, number, plain
from fade_lens.analysis.notes import CardNotes, Notes, Unscored
from fade_lens.explainers.base import Explanation
from fade_lens.metrics.metric import Metric
from fade_lens.report.links import link_of
from fade_lens.report.standing import badness, below
from fade_lens.runs.record import RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.base import ScoreSpec
from fade_lens.scorers.deciding import WindowScores

UNSCORED = "unscored"


@dataclass(frozen=True)
class Entry:
    """One description as the page shows it."""

    item: Result | Unscored
    notes: CardNotes
    standing: str
    why: str

    @property
    def index(self) -> int:
        return self.item.index if isinstance(self.item, Unscored) else self.item.description.index

    @property
    def text(self) -> str:
        text = self.item.text if isinstance(self.item, Unscored) else self.item.description.text
        return text if text.strip() else "(no description)"

    @property
    def origin(self) -> str:
        return "" if isinstance(self.item, Unscored) else self.item.description.origin

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The result's flags and the added ones, each once."""
        own = () if isinstance(self.item, Unscored) else self.item.flags
        return tuple(dict.fromkeys((*own, *self.notes.flags)))

    @property
    def rank(self) -> tuple[Any, ...]:
        """The worst first: by severity where the notes have any, then by standing and metrics; what has no metrics last."""
        severity, unscored = self.notes.severity, isinstance(self.item, Unscored)
        return (
            severity is None,
            -(severity or 0),
            unscored,
            *(() if isinstance(self.item, Unscored) else badness(self.item)),
        )


@dataclass
class Counted:
    """What the head of a page tells of all its rows, counted while they go by, and the rows of which it knows no more.

    Attributes:
        evidence: whether `stopped` and `windowed` are told, for which the evidence of every result is read.
    """

    evidence: bool = True
    standings: Counter[str] = field(default_factory=Counter[str])
    kinds: set[str] = field(default_factory=set[str])
    verdicts: set[str] = field(default_factory=set[str])
    audited: bool = False
    features: set[int] = field(default_factory=set[int])
    stopped: Counter[str] = field(default_factory=Counter[str])
    """Why fewer texts were rated than the settings allow."""
    windowed: set[str] = field(default_factory=set[str])
    """The scorers that asked about windows."""

    @property
    def n(self) -> int:
        return self.standings.total()

    def each(self, rows: Iterable[Entry]) -> Iterator[Entry]:
        """The same rows, counted."""
        for entry in rows:
            notes, item = entry.notes, entry.item
            self.standings[entry.standing] += 1
            self.kinds.update(kinds(entry.flags))
            self.verdicts |= {clip(notes.verdict, 40)} - {""}
            self.audited |= bool(notes.verdict or notes.severity is not None or notes.suggestion)
            if not isinstance(item, Unscored):
                self.features.add(item.description.index)
            if self.evidence and not isinstance(item, Unscored):
                self.stopped.update(filter(None, [item.rated_evidence.stopped]))
                self.windowed |= {name for name, found in item.evidence.items() if isinstance(found, WindowScores)}
            yield entry


def entries(results: Results, notes: Notes | None = None) -> Iterator[Entry]:
    """The rows one at a time: the results in their order, then what has no metrics."""
    notes = notes or Notes()
    for r in results:
        yield Entry(
            r, _linked(r, notes.cards.get(r.description.words, CardNotes()), results.run), r.standing, r.standing.why
        )
    known = {unscored.index for unscored in notes.unscored}
    for u in (*notes.unscored, *(without(row) for row in results.without if row.index not in known)):
        yield Entry(u, u.notes, UNSCORED, u.why)


def worst(rows: Iterable[Entry], most: int) -> list[Entry]:
    """The worst of them, the worst first; no more than these are held."""
    return heapq.nsmallest(most, rows, key=lambda entry: entry.rank)


def without(row: Explanation) -> Unscored:
    """A feature that an explainer gave no description."""
    return Unscored(row.index, why=clip(f"no description: {row.reason}", 300), explanation=row)


def _linked(result: Result, notes: CardNotes, run: RunRecord) -> CardNotes:
    """The notes with a link to the feature's Neuronpedia page, where it is known and not among them."""
    url = link_of(result, run)
    if url is None or any(given.startswith(url) for _, given in notes.links):
        return notes
    return replace(notes, links=(*notes.links, ("Neuronpedia", url)))


def kinds(flags: Iterable[Flag]) -> list[str]:
    """What flags can be filtered by: their kinds, without white space, which would part one from its filter.

    >>> kinds([Flag("rare", "fires on 3 texts of the corpus"), Flag("prompt_leak"), Flag("rare")])
    ['prompt_leak', 'rare']
    """
    return sorted({"_".join(clip(flag.kind, 60).split()) for flag in flags} - {""})


@dataclass(frozen=True)
class Group:
    """How many rows have a standing, and what it means; `told` at the head of the page."""

    name: str
    count: int
    verb: str
    words: str
    told: bool = True


def groups(counts: Counter[str], scored: bool, deciding: Sequence[str], gate: float) -> list[Group]:
    """The standings that rows can be filtered by; without scores only that is told which says so."""
    said = {
        "fails": ("fail", f"the interval of {' or '.join(deciding)} lies wholly below {gate:g}." if deciding else ""),
        "open": (
            "open",
            "neither: an interval lies on both sides of it, or there is none." if deciding else "no score decides.",
        ),
        "dead": ("dead", "the feature never fires on the corpus."),
        "holds": ("hold", f"that of {' and '.join(deciding)} lies wholly at or above {gate:g}." if deciding else ""),
        UNSCORED: ("unscored", "without metrics."),
    }
    return [
        Group(name, counts[name], *words, told=scored or name == UNSCORED)
        for name, words in said.items()
        if counts[name] or name not in ("dead", UNSCORED)
    ]


def row(place: int, entry: Entry, specs: Sequence[ScoreSpec]) -> dict[str, Any]:
    """One row as the templates want it."""
    item = entry.item
    known = [] if isinstance(item, Unscored) else [(spec, item.metric(spec.name), item.gate) for spec in specs]
    return {
        "place": place,
        "index": entry.index,
        "text": clip(entry.text, 240),
        "origin": clip(entry.origin, 60),
        "standing": entry.standing,
        "why": entry.why,
        "flags": [clip(flag, 120) for flag in entry.flags],
        "kinds": " ".join(kinds(entry.flags)),
        "cells": [cell(spec, metric, below(spec, metric, gate)) for spec, metric, gate in known],
        "hints": [entry.why] if entry.standing == "open" or (isinstance(item, Unscored) and item.explanation) else [],
        "verdict": clip(entry.notes.verdict, 40),
        "severity": entry.notes.severity,
        "suggestion": clip(entry.notes.suggestion, 200),
        "links": entry.notes.links[:3],
    }


def cell(spec: ScoreSpec, metric: Metric, bad: bool) -> dict[str, Any]:
    """One metric in a row."""
    interval = f"{number(metric.interval[0])} to {number(metric.interval[1])}" if metric.interval else ""
    return {
        "name": spec.name,
        "value": metric.value,
        "words": number(metric.value),
        "low": metric.interval[0] if metric.interval else None,
        "high": metric.interval[1] if metric.interval else None,
        "interval": interval,
        "note": interval or "no interval",
        "reason": clip(metric.reason or metric.interval_reason or "", 160),
        "bad": bad,
    }


def packed(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row as the page's script reads it: what is empty is left out, a cell is a list, every string is `visible`."""
    named = ("text", "standing", "why", "origin", "flags", "kinds", "hints", "verdict", "suggestion", "links")
    cells = [[c["value"], c.get("low"), c.get("high"), int(c["bad"]), c["words"], c["note"] if c["value"] is not None else c["reason"]] for c in row["cells"]]  # fmt: skip
    known = plain({"index": row["index"], **{name: row[name] for name in named if row[name]}, "cells": cells})
    for cell, exact in zip(known["cells"], row["cells"], strict=True):
        cell[0] = told(exact["value"])
    return known | ({} if row["severity"] is None else {"severity": told(row["severity"])}) | more


def told(value: float | None) -> float | None:
    """A number as rows are sorted and filtered by it."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def added(notes: CardNotes) -> dict[str, Any]:
    """What a card shows of the notes."""
    return {
        "verdict": clip(notes.verdict, 80),
        "severity": notes.severity,
        "suggestion": clip(notes.suggestion, 1000),
        "facts": [[clip(name, 80), clip(value, 400)] for name, value in notes.facts[:40]],
        "links": [[clip(name, 80), url] for name, url in notes.links[:10]],
    }
