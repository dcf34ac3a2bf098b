"""Means over the descriptions of a run or a group of them, and differences between two sources of descriptions.

A feature's descriptions share its activations and texts, so features, not descriptions, are what intervals resample. Undefined values
are counted, with their reasons, never filled in.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import table_of
from fade_lens._util.seeds import stream
from fade_lens.metrics.differences import (
    deviation,
    difference_interval,
    further_to_settle,
    label_test,
    mean_interval,
    sign_flip_test,
)
from fade_lens.metrics.metric import GATE_NOT_PASSED
from fade_lens.runs.record import FeaturesRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.base import NOT_SCORED, ScoreSpec

if TYPE_CHECKING:
    import pandas as pd

Key = Callable[[Result], object]
Feature = tuple[str, int]
"""The SAE or hook in words, and the index: runs of one SAE or hook share theirs."""

BEST = "best"
"""Stands for the source whose mean of a score is highest."""
_UNCONDITIONAL = "_unconditional"


def unconditional(name: str) -> str:
    """The row of a gated score that counts 0 for every description that did not pass the gate."""
    return name + _UNCONDITIONAL


@dataclass(frozen=True)
class _Row:
    """One result with its null descriptions, the group it belongs to, its feature, and the weight of this."""

    result: Result
    nulls: Mapping[str, Result]
    group: str
    feature: Feature
    weight: float


class _Group:
    """The values of some scores in one group, gone through result by result: of no result more is kept."""

    def __init__(self, names: Sequence[str], kinds: Sequence[str] = ()) -> None:
        self.names, self.kinds = names, kinds
        self.features, self.weights = list[Feature](), dict[Feature, float]()
        asked: list[tuple[str, str | None]] = [(name, None) for name in names]
        asked += [(name, kind) for kind in kinds for name in names if not name.endswith(_UNCONDITIONAL)]
        self.values: dict[tuple[str, str | None], list[float | None]] = {one: [] for one in asked}
        """By score, and the kind of null description that is subtracted."""
        self.why = {one: Counter[str]() for one in asked}
        self.total = 0.0

    def add(self, row: _Row) -> None:
        """One result more."""
        self.features.append(row.feature)
        self.weights[row.feature] = row.weight
        self.total += row.weight
        own = _values(row.result, self.names)
        nulls = {kind: _values(row.nulls[kind], self.names) if kind in row.nulls else None for kind in self.kinds}
        for (name, kind), values in self.values.items():
            value, why = own[name] if kind is None else _minus_null(own[name], nulls[kind], kind, name)
            values.append(value)
            if value is None:
                self.why[name, kind][_general(why)] += 1

    def known(self, name: str, kind: str | None = None) -> list[tuple[Feature, float]]:
        """The features with a value, and these."""
        values = self.values[name, kind]
        return [(feature, value) for feature, value in zip(self.features, values, strict=True) if value is not None]

    def averages(self, name: str) -> dict[Feature, float]:
        """A score of each feature, several descriptions averaged; NaN where none has a value."""
        found: dict[Feature, list[float]] = {feature: [] for feature in self.features}
        for feature, value in self.known(name):
            found[feature].append(value)
        return {feature: float(np.mean(values)) if values else math.nan for feature, values in found.items()}


def summary(
    results: Results | Sequence[Results],
    by: str | Key | None = None,
    *,
    scores: Sequence[str] | None = None,
    seed: int = 0,
) -> "pd.DataFrame":
    """Mean of every metric, of a run or of each group in it, with a 95 % interval.

    Args:
        results: a run, or several.
        by: None (all together), "origin" (source of the descriptions), "run", "sae", "layer", "width", "l0", "release", any column of
            `Results.frame`, or a function of a `Result`.
        scores: which, and any column of numbers of `Results.frame`, such as "detection_auroc"; None: every score of the runs.
        seed: of the bootstrap.

    Returns:
        One row a group and metric: `mean`, `low`, `high`, `n` (descriptions with a value), `n_features` (features with one),
        `undefined` (share of the group's descriptions without a value) and `reasons` (why, the numbers left out, with counts).
        `faithfulness_unconditional` counts 0 for descriptions that did not pass the gate. `null` is None, or the kind of null description
        whose score is subtracted from the description's own; `baseline` is None, or the kind of baseline features whose mean is subtracted,
        paired where each stands beside one of the run's (see `compare_sources`), by feature.
        The interval resamples features with all their descriptions, `REPLICATES` times, by percentiles widened for few features
        (Hesterberg 2015, section 5.5); None below `LEAST_FEATURES` features. Where a run's latents were drawn by strata (`Results.weights`),
        means and shares weigh each by how many it stands for, and it is resampled within its stratum.

    Raises:
        InputError: no result, or no such column.
    """
    runs = [results] if isinstance(results, Results) else results
    if not any(map(len, runs)):
        raise InputError("results hold no description; there is nothing to summarize")
    scores, kinds = rows_of(results, scores), list(dict.fromkeys(kind for run in runs for kind in run.nulls))
    groups, records = dict[str, _Group](), list[dict[str, Any]]()
    for row in _rows(runs, by):
        groups.setdefault(row.group, _Group(scores, kinds)).add(row)
    beside = _beside(runs, scores)
    for group, rows in groups.items():
        for name, null in rows.values:
            known = rows.known(name, null)
            if null is not None and not known:
                continue
            purpose = name if null is None else f"{name} - null:{null}"
            low, high = mean_interval(known, stream(seed, "summary", group, purpose), rows.weights)
            own = [rows.weights[feature] for feature, _ in known]
            records.append(
                {
                    "group": group,
                    "metric": name,
                    "null": null,
                    "baseline": None,
                    "mean": float(np.average([v for _, v in known], weights=own)) if known else None,
                    "low": low,
                    "high": high,
                    "n": len(known),
                    "n_features": len({feature for feature, _ in known}),
                    "undefined": 1 - sum(own) / rows.total,
                    "reasons": "; ".join(f"{reason} ({n})" for reason, n in rows.why[name, null].most_common()),
                }
            )
        records += _minus_baselines(group, rows, beside, seed)
    frame = table_of(records)
    for name in ("null", "baseline"):  # None stays None, whatever pandas makes of texts
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame.astype(dict.fromkeys(("mean", "low", "high"), "float64"))


def compare_sources(
    results: Results | Sequence[Results],
    by: str | Key = "origin",
    *,
    scores: Sequence[str] | None = None,
    seed: int = 0,
    reference: str | None = None,
) -> "pd.DataFrame":
    """Differences between sources of descriptions: paired on the features that both describe, else between different features.

    Args:
        results: a run whose features have descriptions of several sources, or several runs, of the same features or of others.
        by: what tells the sources apart, as in `summary`.
        scores: which, and any column of numbers of `Results.frame`, such as "detection_auroc"; None: every score of the runs.
        seed: of bootstraps and permutations.
        reference: the source that is compared with every other, in place of all pairs; "best": of each score the one whose mean is highest. As it
            is picked by the same numbers, its lead over the others is a little overstated.

    Returns:
        One row a metric and pair of sources: `mean_a`, `mean_b`, `difference` (a − b) with a 95 % interval (`low`, `high`) of a bootstrap
        over features, `p_value`, and `further`: about how many more features (in each source, where they are not paired) would tell the
        difference from 0 (see `fade_lens.metrics.differences.further_to_settle`). Interval and test are of the same quantity, the mean.
        `paired` pairs, where at least half of the features of the source with fewer are described by both, compare those features alone,
        and the test flips the signs of their differences; else the sources' features are compared as two groups, and the test deals them
        out anew. `n_a` and `n_b` are the features compared, `left_out` those of which a value is undefined. Several descriptions of a
        feature by one source are averaged first. Fewer than `LEAST_FEATURES` features: no interval and no test.

    Raises:
        InputError: fewer than two sources, a reference that is none of them.
    """
    names, records, sources = rows_of(results, scores), list[dict[str, Any]](), dict[str, _Group]()
    for row in _rows([results] if isinstance(results, Results) else results, by):
        sources.setdefault(row.group, _Group(names)).add(row)
    if len(sources) < 2:
        raise InputError(
            f"the results have one source of descriptions ({', '.join(sources) or 'none'}) by {by!r}; two are compared. "
            "Give Description(index, text, origin) with an origin each, or another `by`"
        )
    check_reference(reference, sources)
    averages = {name: {source: found.averages(name) for source, found in sources.items()} for name in names}
    weights = {source: found.weights for source, found in sources.items()}
    for a, b, name in _pairs(averages, weights, reference):
        of = averages[name]
        found = difference(of[a], of[b], stream(seed, "pairs", a, b, name), (weights[a], weights[b]))
        records.append({"metric": name, "a": a, "b": b, **found})
    numbers = ("mean_a", "mean_b", "difference", "low", "high", "p_value")
    return table_of(records).astype(dict.fromkeys(numbers, "float64") | {"further": "Int64"})


def check_reference(reference: str | None, sources: Iterable[str]) -> None:
    """Raise `InputError` for a reference that is none of the sources."""
    if reference not in (None, BEST, *(there := list(sources))):
        raise InputError(Argument("reference"), f" is {reference!r}, which is none of those compared{suggest(reference, there)}; give one of them, or {BEST!r}")  # fmt: skip


def _pairs(
    averages: Mapping[str, Mapping[str, Mapping[Feature, float]]],
    weights: Mapping[str, Mapping[Feature, float]],
    reference: str | None,
) -> Iterator[tuple[str, str, str]]:
    """The sources that are compared, and by which score: `averages` are by score and source."""
    if reference is None:
        sources = combinations(weights, 2)
        yield from ((a, b, name) for a, b in sources for name in averages)
        return
    for name, found in averages.items():
        known = {source: {f: v for f, v in some.items() if not math.isnan(v)} for source, some in found.items()}
        means = {
            s: np.average([*some.values()], weights=[weights[s][f] for f in some]) for s, some in known.items() if some
        }
        first = reference if reference in found else max(means, key=lambda source: means[source], default=None)
        yield from ((first, other, name) for other in found if first not in (None, other))


def difference(
    a: Mapping[Feature, float],
    b: Mapping[Feature, float],
    seed: int,
    weights: tuple[Mapping[Feature, float], Mapping[Feature, float]] = ({}, {}),
) -> dict[str, Any]:
    """The difference between two sources' scores by feature, NaN where undefined: the columns of `compare_sources` behind the names.

    Args:
        a, b: of each source.
        seed: of bootstrap and permutations.
        weights: of their features, 1 of those that are not there; of paired ones the first's, or the second's where the first's are equal.
    """
    shared = [feature for feature in a if feature in b]
    paired = 2 * len(shared) >= min(len(a), len(b))
    both = [f for f in shared if not math.isnan(a[f] + b[f])]
    compared = (both, both) if paired else tuple([f for f in of if not math.isnan(of[f])] for of in (a, b))
    one, other = (np.array([of[f] for f in some], dtype=np.float64) for of, some in zip((a, b), compared, strict=True))
    of_one, of_other = (np.array([of.get(f, 1.0) for f in some]) for of, some in zip(weights, compared, strict=True))
    known = min(len(one), len(other)) > 0
    if paired:
        of_one = of_other = of_one if known and np.ptp(of_one) else of_other
        each = dict(enumerate(of_one.tolist()))
        low, high = mean_interval(list(enumerate((one - other).tolist())), seed, each)
        p_value, spread = sign_flip_test(of_one * (one - other), seed), deviation(one - other, of_one)
    else:
        both_weights = of_one, of_other
        low, high = difference_interval(one, other, seed, both_weights)
        p_value = label_test(one, other, seed, both_weights)
        spread = math.hypot(deviation(one, of_one), deviation(other, of_other))
    means = [float(np.average(*some)) for some in ((one, None, of_one), (other, None, of_other))] if known else []
    found = means[0] - means[1] if known else None
    return {
        "mean_a": means[0] if known else None,
        "mean_b": means[1] if known else None,
        "difference": found,
        "low": low,
        "high": high,
        "p_value": p_value,
        "paired": paired,
        "n_a": len(one),
        "n_b": len(other),
        "left_out": len(shared) - len(one) if paired else len(a) + len(b) - len(one) - len(other),
        "further": None if found is None else further_to_settle(found, spread, min(len(one), len(other))),
    }


def specs_among(results: Results | Sequence[Results]) -> tuple[ScoreSpec, ...]:
    """The scores of a run, or of any of several."""
    runs = [results] if isinstance(results, Results) else results
    return tuple(dict.fromkeys(spec for run in runs for spec in run.specs))


def rows_of(results: Results | Sequence[Results], wanted: Sequence[str] | None = None) -> list[str]:
    """The names of all scores, then those of the gated ones with 0 below the gate; or those that are `wanted`, if each is one or a column."""
    specs = specs_among(results)
    names = [*(spec.name for spec in specs), *(unconditional(spec.name) for spec in specs if spec.gated)]
    if wanted is None:
        return names
    runs = [results] if isinstance(results, Results) else results
    columns = {name for run in runs for result in run for name in result.to_row()} if {*wanted} - {*names} else set[str]()  # fmt: skip
    for name in wanted:
        if name not in (*names, *columns):
            raise InputError(Argument("scores"), f" holds {name!r}, which no result has{suggest(name, columns)}")
    return list(wanted)


def _rows(runs: Sequence[Results], by: str | Key | None) -> Iterator[_Row]:
    for number, run in enumerate(runs):
        columns = {"run": f"run {number}", **_facts(run.run.features)}
        weights = run.relative_weights
        for result, *others in zip(run, *run.nulls.values(), strict=True):
            feature = run.run.features.words, result.description.index
            nulls, weight = dict(zip(run.nulls, others, strict=True)), weights.get(result.description.index, 1.0)
            yield _Row(result, nulls, _group(result, by, columns), feature, weight)


def _group(result: Result, by: str | Key | None, columns: Mapping[str, str]) -> str:
    if by is None:
        return "all"
    if callable(by):
        return str(by(result))
    known = {**columns, "explainer": result.description.origin, **result.to_row()}
    if by not in known:
        raise InputError(
            Argument("by"), f" is {by!r}; give a function of a result, or one of {', '.join(sorted(known))}"
        )
    return str(known[by])


def _facts(features: FeaturesRecord) -> dict[str, str]:
    """What the run's record tells of its SAE, by the words that groups are asked for with."""
    l0 = None if features.l0 is None else f"{features.l0:g}"
    told = {"layer": features.layer, "width": features.size, "l0": l0, "release": features.release or None}
    return {"sae": features.words} | {name: "unknown" if v is None else f"{v}" for name, v in told.items()}


def _values(result: Result, names: Sequence[str]) -> dict[str, tuple[float | None, str]]:
    """The value of each metric, or that of a column, or None and the reason."""
    metrics, found = result.metrics, dict[str, tuple[float | None, str]]()
    row = {} if all(name.removesuffix(_UNCONDITIONAL) in metrics for name in names) else result.to_row()
    for name in names:
        if (metric := metrics.get(name.removesuffix(_UNCONDITIONAL))) is None:
            value = row.get(name)
            known = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
            found[name] = known, "" if known is not None else str(NOT_SCORED.reason)
        elif name.endswith(_UNCONDITIONAL) and metric.reason is not None and metric.reason.code == GATE_NOT_PASSED:
            found[name] = 0.0, ""
        else:
            found[name] = metric.value, metric.reason or ""
    return found


def _minus_null(
    own: tuple[float | None, str], nulls: Mapping[str, tuple[float | None, str]] | None, kind: str, name: str
) -> tuple[float | None, str]:
    """A score minus that of its null description."""
    if nulls is None:
        return None, f"no {kind} description"
    (value, why), (null, why_null) = own, nulls[name]
    if value is None or null is None:
        return None, why if value is None else f"null: {why_null}"
    return value - null, ""


def _beside(runs: Sequence[Results], scores: Sequence[str]) -> dict[str, _Group]:
    """The scores of each kind of baseline features, as those of the features that they stand beside, where they do."""
    beside: dict[str, _Group] = {}
    for run in runs:
        for kind, found in run.baselines.items():
            partners, words = dict(found.beside), run.run.features.words
            group = beside.setdefault(kind, _Group(scores))
            for one in found:
                index = one.description.index
                key = (words, partners[index]) if index in partners else (found.run.features.words, index)
                group.add(_Row(one, {}, kind, key, 1.0))
    return beside


def _minus_baselines(group: str, rows: _Group, beside: Mapping[str, _Group], seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a group's scores minus those of baseline features."""
    for (kind, others), name in product(beside.items(), rows.names):
        purpose = stream(seed, "summary", group, f"{name} - baseline:{kind}")
        own = rows.averages(name)
        found = difference(own, others.averages(name), purpose, (rows.weights, {}))
        yield {
            "group": group,
            "metric": name,
            "null": None,
            "baseline": kind,
            "mean": found["difference"],
            "low": found["low"],
            "high": found["high"],
            "n": found["n_a"],
            "n_features": found["n_a"],
            "undefined": (len(own) - found["n_a"]) / len(own),
            "reasons": "" if found["n_b"] else "no feature of the baseline has a value",
        }


def subtracted(row: Mapping[str, Any]) -> str | None:
    """What a row of a summary subtracts, in words; None where it is a score by itself.

    >>> subtracted({"null": "shuffled", "baseline": None})
    'null: shuffled'
    """
    return next((f"{name}: {row[name]}" for name in ("null", "baseline") if row[name] is not None), None)


def _general(reason: str) -> str:
    """A reason without what differs from one description to the next, so that reasons can be counted."""
    return re.sub(r"-?\d+\.\d+|\d{2,}", "…", reason)
