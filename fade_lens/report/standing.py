"""Which descriptions a reader should look at first, and what there is to say about a metric in words."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fade_lens._util.words import amount, number
from fade_lens.metrics.intervals import share_interval
from fade_lens.metrics.metric import Metric
from fade_lens.runs.results import Result
from fade_lens.scorers.base import ScoreSpec
from fade_lens.scorers.evidence import Continuation
from fade_lens.scorers.standing import ORDER


def below(spec: ScoreSpec, metric: Metric, gate: float) -> bool:
    """Whether the value of a score that decides lies below the gate, its interval wherever it is."""
    return spec.decides and metric.value is not None and metric.value < gate


def badness(result: Result) -> tuple[int, float, float]:
    """What the worst are sorted by: failing descriptions first, then open ones and dead features, each by the lowest of the scores that decide."""
    metrics = (result.metric(spec.name) for spec in result.specs if spec.decides)
    values = [metric.value for metric in metrics if metric.value is not None]
    return ORDER.index(result.standing), min(values, default=0.0), sum(values)


def worst_first(results: Iterable[Result], most: int | None = None) -> list[Result]:
    """The results by `badness`, or the `most` first of them, of which alone more is held."""
    return sorted(results, key=badness) if most is None else heapq.nsmallest(most, results, key=badness)


def basis(spec: ScoreSpec, metric: Metric) -> str:
    """The counts that a metric rests on, in words."""
    counts, details = metric.counts, metric.details
    parts: list[str] = []
    if {"synthetic", "natural"} <= counts.keys():
        parts.append(f"{amount(counts['synthetic'])} synthetic against {amount(counts['natural'])} natural texts")
    elif "rated_2" in counts:
        parts.append("texts rated " + ", ".join(f"{r}: {amount(counts.get(f'rated_{r}', 0))}" for r in (2, 1, 0)))
        if counts.get("unrated"):
            parts.append(f"unrated: {amount(counts['unrated'])}")
    elif "prompts" in counts:
        parts.append(f"{amount(counts['prompts'])} prompts{_every_factor(counts)}")
        if (factor := details.get("factor")) is not None:
            parts.append(f"factor chosen: {factor:g}")
    elif metric.value is not None:
        parts += [f"{name.replace('_', ' ')}: {amount(n)}" for name, n in counts.items()]
    if chance := spec.chance_of(metric):
        parts.append(f"chance level {number(chance, 3)}")
    return "; ".join(parts)


def _every_factor(counts: Mapping[str, int]) -> str:
    """At how many prompts every factor was rated, where that is not at all of them."""
    rated = Counter[str]()
    for name, count in counts.items():
        kind, _, factor = name.rpartition("_")
        if kind in ("rated_0", "rated_1", "rated_2", "unrated"):
            rated[factor] += count
    least = min(rated.values(), default=counts["prompts"])
    return " a factor" if least == counts["prompts"] else f", {amount(least)} of them at every factor"


@dataclass(frozen=True)
class ConceptRate:
    """How many of `n` continuations at a steering factor express the concept (rating 2), with the 95 % Wilson interval.

    An unrated continuation counts as not expressing it, as in `fade_lens.metrics.faithfulness`.
    """

    factor: float
    expressed: int
    n: int
    unrated: int

    @property
    def rate(self) -> float:
        return self.expressed / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return share_interval(self.expressed, self.n)


def concept_rates(continuations: Iterable[Continuation]) -> list[ConceptRate]:
    """One rate a factor, by factor; 0 is the unsteered model."""
    n, expressed, unrated = Counter[float](), Counter[float](), Counter[float]()
    for c in continuations:
        n[c.factor] += 1
        expressed[c.factor] += c.rating == 2
        unrated[c.factor] += c.rating is None
    return [ConceptRate(f, expressed[f], n[f], unrated[f]) for f in sorted(n)]
