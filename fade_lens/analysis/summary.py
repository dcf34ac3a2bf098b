"""Means over the descriptions of a run or a group of them, and paired tests between two sources of descriptions.

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
from jaxtyping import Float

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import table_of
from fade_lens._util.seeds import stream
from fade_lens.metrics.intervals import LEVEL, REPLICATES
from fade_lens.metrics.metric import GATE_NOT_PASSED
from fade_lens.runs.record import FeaturesRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.base import NOT_SCORED, ScoreSpec

if TYPE_CHECKING:
    import pandas as pd

Key = Callable[[Result], object]

LEAST_FEATURES = 5
"""Fewer features than this give a mean without an interval, and a comparison without a test."""
_UNCONDITIONAL = "_unconditional"


def unconditional(name: str) -> str:
    """The row of a gated score that counts 0 for every description that did not pass the gate."""
    return name + _UNCONDITIONAL


@dataclass(frozen=True)
class _Row:
    """One result with its null descriptions, the group it belongs to, and its feature: runs of one SAE or hook share theirs."""

    result: Result
    nulls: Mapping[str, Result]
    group: str
    feature: tuple[str, int]


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
        whose score is subtracted from the description's own.
        The interval resamples features with all their descriptions, `REPLICATES` times, by percentiles widened for few features
        (Hesterberg 2015, section 5.5); None below `LEAST_FEATURES` features.

    Raises:
        InputError: no result, or no such column.
    """
    groups: dict[str, list[_Row]] = {}
    for row in _rows(results, by):
        groups.setdefault(row.group, []).append(row)
    if not groups:
        raise InputError("results hold no description; there is nothing to summarize")
    scores = rows_of(results, scores)
    kinds = list(dict.fromkeys(kind for rows in groups.values() for row in rows for kind in row.nulls))
    records: list[dict[str, Any]] = []
    for group, rows in groups.items():
        measured: dict[tuple[str, str | None], list[tuple[float | None, str]]] = {
            (name, None): [_value(row.result, name) for row in rows] for name in scores
        }
        for kind, name in product(kinds, scores):
            if not name.endswith(_UNCONDITIONAL):
                measured[name, kind] = [_minus_null(row, kind, name) for row in rows]
        for (name, null), values in measured.items():
            if null is not None and not any(value is not None for value, _ in values):
                continue
            purpose = name if null is None else f"{name} - null:{null}"
            known = [(row.feature, value) for row, (value, _) in zip(rows, values, strict=True) if value is not None]
            low, high = _mean_interval(known, stream(seed, "summary", group, purpose))
            why = Counter(_general(reason) for value, reason in values if value is None)
            records.append(
                {
                    "group": group,
                    "metric": name,
                    "null": null,
                    "mean": float(np.mean([v for _, v in known])) if known else None,
                    "low": low,
                    "high": high,
                    "n": len(known),
                    "n_features": len({feature for feature, _ in known}),
                    "undefined": 1 - len(known) / len(rows),
                    "reasons": "; ".join(f"{reason} ({n})" for reason, n in why.most_common()),
                }
            )
    frame = table_of(records)
    # None stays None, whatever pandas makes of texts.
    frame["null"] = frame["null"].astype(object).where(frame["null"].notna(), None)
    return frame.astype(dict.fromkeys(("mean", "low", "high"), "float64"))


def compare_sources(
    results: Results | Sequence[Results],
    by: str | Key = "origin",
    *,
    scores: Sequence[str] | None = None,
    seed: int = 0,
) -> "pd.DataFrame":
    """Paired tests between sources of descriptions, on the features that both describe.

    Args:
        results: a run whose features have descriptions of several sources, or several runs over the same features.
        by: what tells the sources apart, as in `summary`.
        scores: which, and any column of numbers of `Results.frame`, such as "detection_auroc"; None: every score of the runs.
        seed: of the bootstrap.

    Returns:
        One row a metric and pair of sources: `mean_a`, `mean_b`, `difference` (a − b, with `low` and `high`, a paired bootstrap over
        features), `p_value` (Wilcoxon's signed-rank test, two-sided, zero differences after Pratt), `n` features compared and
        `left_out`, the features that both describe but where a value of either is undefined. Several descriptions of one source are
        averaged first. Fewer than `LEAST_FEATURES` features: no interval and no test.

    Raises:
        InputError: fewer than two sources, or no feature that two describe.
    """
    sources: dict[str, dict[tuple[str, int], list[Result]]] = {}
    for row in _rows(results, by):
        sources.setdefault(row.group, {}).setdefault(row.feature, []).append(row.result)
    if len(sources) < 2:
        raise InputError(
            f"the results have one source of descriptions ({', '.join(sources) or 'none'}) by {by!r}; two are compared. "
            "Give Description(index, text, origin) with an origin each, or another `by`"
        )
    records: list[dict[str, Any]] = []
    for a, b in combinations(sources, 2):
        shared = [feature for feature in sources[a] if feature in sources[b]]
        for name in rows_of(results, scores) if shared else ():
            pairs = np.array(
                [(_average(sources[a][feature], name), _average(sources[b][feature], name)) for feature in shared]
            )
            pairs = pairs[~np.isnan(pairs).any(axis=1)]
            difference = pairs[:, 0] - pairs[:, 1]
            low, high = _mean_interval(list(enumerate(difference.tolist())), stream(seed, "pairs", a, b, name))
            records.append(
                {
                    "metric": name,
                    "a": a,
                    "b": b,
                    "mean_a": pairs[:, 0].mean() if len(pairs) else None,
                    "mean_b": pairs[:, 1].mean() if len(pairs) else None,
                    "difference": difference.mean() if len(pairs) else None,
                    "low": low,
                    "high": high,
                    "p_value": _signed_rank(difference),
                    "n": len(pairs),
                    "left_out": len(shared) - len(pairs),
                }
            )
    if not records:
        raise InputError(
            "no feature has descriptions of two sources; paired tests need the same features described by both"
        )
    numbers = ("mean_a", "mean_b", "difference", "low", "high", "p_value")
    return table_of(records).astype(dict.fromkeys(numbers, "float64"))


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
    columns = {name for run in runs for result in run for name in result.to_row()}
    for name in wanted:
        if name not in (*names, *columns):
            raise InputError(Argument("scores"), f" holds {name!r}, which no result has{suggest(name, columns)}")
    return list(wanted)


def _rows(results: Results | Sequence[Results], by: str | Key | None) -> Iterator[_Row]:
    for number, run in enumerate([results] if isinstance(results, Results) else results):
        columns = {"run": f"run {number}", **_facts(run.run.features)}
        for place, result in enumerate(run):
            nulls = {kind: items[place] for kind, items in run.nulls.items()}
            feature = run.run.features.words, result.description.index
            yield _Row(result, nulls, _group(result, by, columns), feature)


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


def _value(result: Result, name: str) -> tuple[float | None, str]:
    """A metric's value, or that of a column, or None and the reason."""
    if (score := name.removesuffix(_UNCONDITIONAL)) not in result.metrics:
        value = result.to_row().get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value), ""
        return None, str(NOT_SCORED.reason)
    metric = result.metric(score)
    if name.endswith(_UNCONDITIONAL) and metric.reason is not None and metric.reason.code == GATE_NOT_PASSED:
        return 0.0, ""
    return metric.value, metric.reason or ""


def _minus_null(row: _Row, kind: str, name: str) -> tuple[float | None, str]:
    """A score minus that of its null description."""
    if kind not in row.nulls:
        return None, f"no {kind} description"
    (own, why), (null, why_null) = _value(row.result, name), _value(row.nulls[kind], name)
    if own is None or null is None:
        return None, why if own is None else f"null: {why_null}"
    return own - null, ""


def _average(results: Iterable[Result], name: str) -> float:
    values = [value for result in results if (value := _value(result, name)[0]) is not None]
    return float(np.mean(values)) if values else float("nan")


def _general(reason: str) -> str:
    """A reason without what differs from one description to the next, so that reasons can be counted."""
    return re.sub(r"-?\d+\.\d+|\d{2,}", "…", reason)


def _signed_rank(difference: Float[np.ndarray, "feature"]) -> float | None:
    """Wilcoxon's two-sided signed-rank test; 1 where nothing differs, None for too few features."""
    from scipy.stats import wilcoxon

    if len(difference) < LEAST_FEATURES:
        return None
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference, zero_method="pratt").pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def _mean_interval(values: Sequence[tuple[Any, float]], seed: int) -> tuple[float, float] | tuple[None, None]:
    """Interval of the mean of `(cluster, value)` pairs by resampling clusters."""
    from scipy.stats import norm, t

    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(cluster for cluster, _ in values))}
    n = len(number)
    if n < LEAST_FEATURES:
        return None, None
    cluster = np.array([number[cluster] for cluster, _ in values])
    counts = np.bincount(cluster).astype(np.float64)
    sums = np.bincount(cluster, [value for _, value in values])
    drawn: Float[np.ndarray, "replicate cluster"] = np.random.default_rng(seed).multinomial(
        n, np.full(n, 1 / n), REPLICATES
    )
    means = (drawn @ sums) / (drawn @ counts)
    # Percentiles of a bootstrap are too narrow for few clusters, by what a t interval is wider than a normal one.
    tail = norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - LEVEL) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
