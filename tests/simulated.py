"""Simulated features, corpora and continuations whose truth is known, and the library's rounds of rating over them.

A feature's activations on texts without and with the concept are

- dense: N(0, 1) and N(`shift`, 1);
- sparse: `fires` names the shares of texts without and with the concept on which it is not 0; where it fires it is log-normal, and `shift` higher
  (on the log scale) with the concept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fade_lens.data.sampling import design, uniform
from fade_lens.metrics.fade import clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness, leading
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import average_precision, gini
from fade_lens.runs.settings import Settings
from fade_lens.scorers.ratings import enough, next_end, widest
from fade_lens.scorers.stopping import next_prompts
from tests.samples import stratified

CORPUS = 10_000


@dataclass(frozen=True)
class Feature:
    """How activations go with the concept (see above)."""

    shift: float
    fires: tuple[float, float] | None = None

    def activations(self, concept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One activation a text, given which texts hold the concept."""
        noise = rng.normal(size=len(concept))
        if self.fires is None:
            return noise + self.shift * concept
        fired = rng.random(len(concept)) < np.take(self.fires, concept.astype(int))
        return np.where(fired, np.exp(0.7 * noise + self.shift * concept), 0.0)


FEATURES = {
    "dense": Feature(1.5),
    "weak": Feature(0.5),
    "clear": Feature(2.0),
    "strong": Feature(3.0),
    "sae": Feature(1.0, (0.03, 0.8)),
    "half": Feature(1.0, (0.03, 0.4)),
    "good": Feature(2.0, (0.01, 0.99)),
    "wrong": Feature(0.0, (0.03, 0.03)),
}


def any_feature(rng: np.random.Generator) -> Feature:
    """One feature of many kinds, even odds dense or sparse: from one that knows nothing of the concept to one that knows all of it."""
    if rng.random() < 0.5:
        return Feature(rng.uniform(0, 3))
    without = float(np.exp(rng.uniform(np.log(0.002), np.log(0.1))))
    return Feature(rng.uniform(0, 2), (without, max(rng.uniform(0, 1), without)))


def corpus(
    feature: str | Feature, prevalence: float, rng: np.random.Generator, size: int = CORPUS
) -> tuple[np.ndarray, np.ndarray]:
    """Activations of a corpus and which of its texts hold the concept."""
    concept = rng.random(size) < prevalence
    chosen = FEATURES[feature] if isinstance(feature, str) else feature
    return chosen.activations(concept, rng), concept


def true_scores(values: np.ndarray, concept: np.ndarray) -> tuple[float, float]:
    """Responsiveness and Purity of a whole corpus."""
    return gini(values[concept], values[~concept]), average_precision(values, concept)


ALIKE = {"0.85": 1.466, "0.95": 2.326, "1": 20.0}
"""How many standard deviations texts with the concept are more like its description than others, by the AUROC that this makes."""


def rated_in_rounds(
    values: np.ndarray,
    ratings: np.ndarray,
    options: Settings,
    batch: int,
    rng: np.random.Generator,
    seed: int,
    likeness: np.ndarray | None = None,
) -> tuple[int, tuple[Metric, Metric], str | None]:
    """How many texts are rated, the metrics then and why it stopped: what `RatingEvaluator` does, with every answer at hand."""
    chosen = design(values, options.rated_texts, rng, likeness=likeness)
    n, width = 0, None
    while True:
        n = next_end(n, len(chosen), width, batch, options)
        sample = chosen.first(n)
        rows = values[sample.indices], ratings[sample.indices], sample.weights
        metrics = responsiveness(*rows, seed=seed), purity(*rows, seed=seed)
        stopped, width = enough(*metrics, options), widest(*metrics)
        if stopped or n == len(chosen):
            return n, metrics, stopped


def steered(rates: np.ndarray, prompts: int, rng: np.random.Generator) -> np.ndarray:
    """Which continuations express the concept: prompts differ in how easily they bring it up, so outcomes go together within a prompt."""
    ease = rng.beta(2, 2, size=prompts)
    order = np.argsort(np.argsort(ease + 0.3 * rng.random((len(rates), prompts)), axis=1), axis=1)
    return rng.random((len(rates), prompts)) < rates[:, None] * (
        0.5 + order / (prompts - 1)
    )  # rates up to 2/3 are the mean share


def steered_in_rounds(
    hits: Mapping[float, np.ndarray], width: float | None, batch: int, seed: int
) -> tuple[list[int], Metric]:
    """Texts asked about in each round, and Faithfulness then: what `FaithfulnessEvaluator` does, with every answer at hand."""
    rows = {factor: np.where(row, 2, 0) for factor, row in hits.items()}
    settings, most = Settings(interval_width=width), len(rows[0.0])
    n = next_prompts(0, most, None, len(rows), batch, settings)
    known, asked = {factor: row[:n] for factor, row in rows.items()}, [n * len(rows)]
    while True:
        result = faithfulness(known, seed=seed)
        before, n = n, next_prompts(n, most, widest(result), len(rows), batch, settings)
        if n == before:
            return asked, result
        known |= {factor: rows[factor][:n] for factor in (0.0, leading(known))}
        asked.append(2 * (n - before))


# --- Features drawn at random ---------------------------------------------------------------------------------------------------

DEFAULT = Settings()
FACTORS = (-10.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0)
Limits = tuple[float, float, float]
"""The limits of an interval, and the truth."""


def limits(metric: Metric, truth: float) -> Limits:
    return (*(metric.interval or (np.nan, np.nan)), truth)


def random_clarity(band: tuple[int, int], rng: np.random.Generator, run: int) -> list[Limits]:
    """Clarity of one feature, as many synthetic texts as the band has room for."""
    values = any_feature(rng).activations(np.repeat([True, False], 50_000), rng)
    with_concept, without = values[:50_000], values[50_000:]
    positives = int(rng.integers(band[0], band[1] + 1))
    metric = clarity(rng.choice(with_concept, positives), rng.choice(without, 1000), seed=run)
    return [limits(metric, gini(with_concept, without))]


def random_rated(n: int, design: str, band: tuple[int, int], rng: np.random.Generator, run: int) -> list[Limits]:
    """Responsiveness and Purity of one feature from at most `n` texts; nothing if too few or too many of them show the concept."""
    values, concept = corpus(any_feature(rng), float(np.exp(rng.uniform(np.log(0.001), np.log(0.2)))), rng)
    ratings = np.where(concept, 2, 0)
    if design in ("rounds", "likely"):
        far = rng.choice(list(ALIKE.values())) if design == "likely" else None
        likeness = None if far is None else rng.normal(size=len(values)) + far * concept
        _, metrics, _ = rated_in_rounds(values, ratings, replace(DEFAULT, rated_texts=n), 15, rng, run, likeness)
    else:
        sample = stratified(values, n, rng) if design == "stratified" else uniform(len(values), n, rng)
        rows = values[sample.indices], ratings[sample.indices], sample.weights
        if not band[0] <= concept[sample.indices].sum() <= band[1]:
            return []
        metrics = responsiveness(*rows, seed=run), purity(*rows, seed=run)
    if not band[0] <= metrics[0].counts["rated_2"] <= band[1]:
        return []
    truth = true_scores(values, concept)
    return [limits(metric, true) for metric, true in zip(metrics, truth, strict=True)]


def random_faithfulness(
    width: float | None, _band: tuple[int, int], rng: np.random.Generator, run: int
) -> list[Limits]:
    """Faithfulness of one effect: at one factor, or rising over all that are above 0."""
    one, rising = np.arange(7) == rng.choice([0, 1, 3, 4, 5, 6]), np.array([0, 0, 0, 0.25, 0.5, 0.75, 1])
    base = rng.uniform(0.01, 0.3)
    rates = base + rng.uniform(0.05, 0.6) * (2 / 3 - base) * (one if rng.random() < 0.5 else rising)
    _, metric = steered_in_rounds(dict(zip(FACTORS, steered(rates, 50, rng), strict=True)), width, 15, run)
    return [limits(metric, (rates.max() - base) / (1 - base))]


SCHEMES: dict[str, Callable[[tuple[int, int], np.random.Generator, int], list[Limits]]] = {
    "Clarity": random_clarity,
    "uniform, 500": partial(random_rated, 500, "uniform"),
    "stratified, 500": partial(random_rated, 500, "stratified"),
    "stratified, 200": partial(random_rated, 200, "stratified"),
    "in rounds, 200": partial(random_rated, 200, "rounds"),
    "and likely texts, 200": partial(random_rated, 200, "likely"),
    "Faithfulness, all": partial(random_faithfulness, None),
    "Faithfulness, in rounds": partial(random_faithfulness, DEFAULT.interval_width),
}
