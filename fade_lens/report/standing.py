"""Which descriptions a reader should look at first, and what there is to say about a metric in words."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fade_lens._util.words import amount, number
from fade_lens.metrics.intervals import share_interval
from fade_lens.metrics.metric import GATE, Metric
from fade_lens.runs.results import Result
from fade_lens.scorers.base import ScoreSpec
from fade_lens.scorers.evidence import Continuation

Standing = Literal["fails", "undecided", "dead", "holds"]

ORDER: tuple[Standing, ...] = ("fails", "undecided", "dead", "holds")


def below(spec: ScoreSpec, metric: Metric, gate: float) -> bool:
    """Whether this score alone makes a description fail."""
    return spec.decides and metric.value is not None and metric.value < gate


def deciding(result: Result) -> dict[str, Metric]:
    """The scores that decide a description's standing, by their titles."""
    return {spec.title: result.metric(spec.name) for spec in result.specs if spec.decides}


def standing(result: Result, gate: float = GATE) -> Standing:
    """How a description stands.

    "dead": the feature never fires on the corpus, so that nothing speaks for or against the description; "fails": a score that
    decides (Clarity and Responsiveness do) is below the gate; "undecided": one is undefined, or there is none; "holds": all reach it.
    """
    if result.feature.dead:
        return "dead"
    values = [metric.value for metric in deciding(result).values()]
    if any(value is not None and value < gate for value in values):
        return "fails"
    return "undecided" if None in values or not values else "holds"


def worst_first(results: Iterable[Result], gate: float = GATE) -> list[Result]:
    """Failing descriptions first, then undecided ones and dead features, each by the lowest of the scores that decide."""

    def key(result: Result) -> tuple[int, float, float]:
        values = [metric.value for metric in deciding(result).values() if metric.value is not None]
        return ORDER.index(standing(result, gate)), min(values, default=0.0), sum(values)

    return sorted(results, key=key)


def why(result: Result, gate: float = GATE) -> str:
    """The standing in a sentence."""
    if result.feature.dead:
        written = [t.activation for t in result.clarity_evidence.texts]
        fired = sum(bool(activation) for activation in written)
        return "the feature never fires on the corpus" + (
            f", but on {fired} of {len(written)} texts written for the description" if fired else ""
        )
    decide = {title: metric.value for title, metric in deciding(result).items()}
    if not decide:
        return "none of the run's scores decides"
    low = [f"{title} is {number(value)}" for title, value in decide.items() if value is not None and value < gate]
    if low:
        return f"{' and '.join(low)}, below {gate:g}"
    missing = [title for title, value in decide.items() if value is None]
    if missing:
        return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} undefined"
    return f"{' and '.join(decide)} {'are' if len(decide) > 1 else 'is'} at least {gate:g}"


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
