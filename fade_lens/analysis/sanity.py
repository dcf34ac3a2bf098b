"""Do the scores notice a wrong description? The missing-labels and extra-labels tests, on ideal features and on a run's own evidence.

From Oikarinen, Yan and Weng, "Evaluating Neuron Explanations: A Unified Framework with Sanity Checks" (ICML 2025, arXiv 2506.05774) are taken:
the two tests (each positive label is dropped with probability 1/2; as many wrong ones are added at random), that a metric notices where
its score, as a share of its range, falls by more than 0.001, and the ideal feature that fires on exactly its concept, at frequencies down
to 0.0001. Ours are: expectations in place of random draws for the ideal feature (three groups of texts with their masses are exact);
0.25 as the highest frequency (at the paper's 0.499 extra labels leave two texts in a thousand unlabelled); design weights for a run's
rated texts, of which exactly half lose their label; and that on a run a metric must notice for nine of ten descriptions.

"AUROC" here ranks texts that show the concept above those that do not, by activation (Clarity, Responsiveness). The paper calls it
"inverse AUC" and finds that it fails the missing-labels test, as here: texts that lose their label join a crowd of negatives. (Its "AUC"
asks the opposite, how well the concept tells where the feature fires, and fails the extra-labels test.) So a description that is too narrow
keeps its Responsiveness, and Purity shows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from fade_lens._util.errors import InputError
from fade_lens._util.seeds import rng
from fade_lens.metrics.labelled import LabelledTexts
from fade_lens.metrics.ranking import auroc, average_precision, balanced_accuracy, best_f1, correlation, iou
from fade_lens.runs.results import Results

Test = Literal["missing labels", "extra labels"]
Score = Callable[
    [Float[np.ndarray, "text"], Bool[np.ndarray, "text"], Float[np.ndarray, "text"]],
    float | None,
]

TESTS: tuple[Test, ...] = ("missing labels", "extra labels")
FREQUENCIES = (0.25, 0.1, 0.01, 0.001, 0.0001)
"""Shares of texts on which the ideal feature fires."""
FALL = 0.001
"""A metric notices where its score falls by more than this share of its range."""
NOTICED = 0.9
"""Share of a run's descriptions for which a metric must notice."""
LEAST_POSITIVES = 4
"""Descriptions with fewer texts rated 2 are left out: hardly anything is left of half of them."""
LEAST_AUROC = 0.75
"""So are descriptions whose AUROC is below this (Responsiveness 0.5): the score of a wrong description has nowhere to fall."""
DRAWS = 20


def _auroc(
    values: Float[np.ndarray, "text"], positive: Bool[np.ndarray, "text"], weights: Float[np.ndarray, "text"]
) -> float | None:
    if positive.all():
        return None
    return auroc(values[positive], values[~positive], weights[positive], weights[~positive])


METRICS: dict[str, tuple[Score, float]] = {
    "AUROC (Clarity, Responsiveness)": (_auroc, 1.0),
    "average precision (Purity)": (average_precision, 1.0),
    "best F1": (best_f1, 1.0),
    "IoU": (iou, 1.0),
    "correlation": (correlation, 2.0),
    "balanced accuracy": (balanced_accuracy, 1.0),
}
"""FADE's scores and those of detection by name, with the size of the range. Faithfulness has no labels to change."""


@dataclass(frozen=True)
class Check:
    """What one test found of one metric.

    Attributes:
        fall: how far the score fell, as a share of its range: the mean over descriptions, or the least over frequencies.
        noticed: share of the cases in which it fell by more than `FALL`.
        cases: descriptions of the run, or frequencies of the ideal feature.
        passed: whether that is enough: every frequency, or `NOTICED` of the descriptions.
    """

    metric: str
    test: Test
    fall: float
    noticed: float
    cases: int
    passed: bool


def simulated(frequencies: Sequence[float] = FREQUENCIES) -> tuple[Check, ...]:
    """Both tests of every metric on an ideal feature, one that fires on exactly the texts that show the concept.

    >>> [check.metric for check in simulated() if not check.passed]
    ['AUROC (Clarity, Responsiveness)', 'balanced accuracy']
    """
    checks: list[Check] = []
    for name, (score, size) in METRICS.items():
        for test in TESTS:
            falls = [_ideal_fall(score, test, frequency) / size for frequency in frequencies]
            noticed = float(np.mean(np.array(falls) > FALL))
            checks.append(Check(name, test, float(min(falls)), noticed, len(falls), noticed == 1.0))
    return tuple(checks)


def _ideal_fall(score: Score, test: Test, frequency: float) -> float:
    """Fall of the score in expectation: groups of (fires, labelled) with the mass of each."""
    fires, shows = np.array([1.0, 0.0]), np.array([True, False])
    before = score(fires, shows, np.array([frequency, 1 - frequency]))
    if test == "missing labels":
        groups = [(1.0, True, frequency / 2), (1.0, False, frequency / 2), (0.0, False, 1 - frequency)]
    else:
        groups = [(1.0, True, frequency), (0.0, True, frequency), (0.0, False, 1 - 2 * frequency)]
    values, labels, mass = (np.array(column) for column in zip(*groups, strict=True))
    after = score(values, labels, mass)
    assert before is not None and after is not None, "there are texts of both labels"
    return before - after


def scores_of(results: Results) -> dict[str, tuple[Score, float]]:
    """Every score of labelled texts that a run reports: `METRICS`, and those of other scorers that have labels."""

    def from_arrays(of_labels: Callable[[LabelledTexts], float | None]) -> Score:
        return lambda values, positive, weights: of_labels(LabelledTexts(values, positive, weights))

    others = [spec for spec in results.specs if spec.of_labels is not None]
    return METRICS | {s.title: (from_arrays(s.of_labels), s.range[1] - s.range[0]) for s in others if s.of_labels}


def of_run(results: Results, *, draws: int = DRAWS, seed: int = 0) -> tuple[Check, ...]:
    """Both tests of every metric on the rated texts of a run's descriptions that look right (`LEAST_POSITIVES`, `LEAST_AUROC`).

    Falls are means over `draws` random changes of the labels.

    Raises:
        InputError: no description of the run can be used.
    """
    scores = scores_of(results)
    falls: dict[tuple[str, Test], list[float]] = {(name, test): [] for name in scores for test in TESTS}
    kept = [texts for result in results if usable(texts := result.rated_evidence.labelled)]
    if not kept:
        raise InputError(
            f"none of the {len(results)} descriptions has {LEAST_POSITIVES} texts rated 2, one rated 0 and a Responsiveness of "
            f"{2 * LEAST_AUROC - 1:g}: there is no score that could fall"
        )
    for number, (values, positive, weights) in enumerate(kept):
        for test in TESTS:
            random = rng(seed, "sanity", test, number)
            changed = [changed_labels(test, positive, weights, random) for _ in range(draws)]
            for name, (score, size) in scores.items():
                before = score(values, positive, weights)
                after = [found for labels in changed if (found := score(values, labels, weights)) is not None]
                if before is not None and after:
                    falls[name, test].append((before - float(np.mean(after))) / size)
    checks: list[Check] = []
    for (name, test), found in falls.items():
        noticed = float(np.mean(np.array(found) > FALL)) if found else 0.0
        checks.append(Check(name, test, float(np.mean(found or [0.0])), noticed, len(found), noticed >= NOTICED))
    return tuple(checks)


def usable(texts: LabelledTexts) -> bool:
    """Whether there is enough of both labels, and the activation tells them apart well enough, for the tests."""
    if texts.positive.sum() < LEAST_POSITIVES or texts.one_sided is not None:
        return False
    found = _auroc(*texts)
    return found is not None and found >= LEAST_AUROC


def changed_labels(
    test: Test, positive: Bool[np.ndarray, "text"], weights: Float[np.ndarray, "text"], random: np.random.Generator
) -> Bool[np.ndarray, "text"]:
    """The labels with half of the positives dropped, or with wrong ones added that stand for as many texts of the corpus."""
    changed = positive.copy()
    if test == "missing labels":
        at = np.flatnonzero(positive)
        changed[random.choice(at, len(at) // 2, replace=False)] = False
    else:
        share = weights[positive].sum() / weights[~positive].sum()
        changed |= random.random(len(positive)) < np.where(positive, 0.0, share)
    return changed
