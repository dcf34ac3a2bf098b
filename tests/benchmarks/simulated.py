"""Simulated features, corpora and continuations whose truth is known, and the library's rounds of rating over them.

A feature's activations on texts without and with the concept are

- dense: N(0, 1) and N(`shift`, 1);
- sparse: `fires` names the shares of texts without and with the concept on which it is not 0; where it fires it is log-normal, and `shift` higher
  (on the log scale) with the concept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fade_lens.data.sampling import design
from fade_lens.metrics.fade import purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness, leading
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import average_precision, gini
from fade_lens.runs.settings import Settings
from fade_lens.scorers.faithfulness import next_prompts
from fade_lens.scorers.ratings import enough, next_end, widest

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


def rated_in_rounds(
    values: np.ndarray, ratings: np.ndarray, options: Settings, batch: int, rng: np.random.Generator, seed: int
) -> tuple[int, tuple[Metric, Metric], str | None]:
    """How many texts are rated, the metrics then and why it stopped: what `RatingEvaluator` does, with every answer at hand."""
    chosen = design(values, options.rated_texts, rng)
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
