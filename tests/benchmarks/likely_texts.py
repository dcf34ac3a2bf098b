"""Would fewer ratings do if texts that look like the concept were rated more often, and the others less? By simulation, about two minutes.

    python -m tests.benchmarks.likely_texts [--runs 300] [--texts 200]

A text on which a feature is silent and that is nothing like its description is hardly ever rated 2. To leave such texts out would give them the
inclusion probability 0, for which no weight makes up: a feature that misses part of its concept would look as if it knew all of it. What keeps
the weights right is to divide the silent texts into strata by their likeness to the description. Here they are divided at the 90th and 98th
percentile of a likeness whose AUROC for the concept is 0.85 (about that of sentence embeddings), 0.95 or 1 (a quoted word).

Of the runs in which all have intervals: root mean square errors of Responsiveness and Purity, and the mean width of the wider interval, at the same number of rated texts; the number of
ratings that a width asks for goes with its square. Features as in `tests/simulated.py`, those that leave texts silent.
"""

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from fade_lens.data.sampling import Sample, _allocate
from fade_lens.metrics import intervals as bootstrap
from fade_lens.metrics.fade import purity, responsiveness
from fade_lens.scorers.ratings import widest
from tests.samples import stratified
from tests.simulated import FEATURES, corpus, true_scores

LIKENESS = {"AUROC 0.85": 1.466, "AUROC 0.95": 2.326, "AUROC 1": 20.0}
"""How many standard deviations texts with the concept are more alike than others."""
PERCENTILES = (0, 90, 98, 100)
POWER = 0.6  # as `fade_lens.data.sampling.design`


def by_likeness(values: np.ndarray, likeness: np.ndarray, n: int, rng: np.random.Generator) -> Sample:
    """The library's sample, the texts for the silent stratum spent on three strata of likeness instead."""
    sample = stratified(values, n, rng)
    firing = values[sample.indices] != 0
    silent = np.flatnonzero(values == 0)
    silent = silent[np.argsort(likeness[silent], kind="stable")]
    cuts = np.round(np.array(PERCENTILES) / 100 * len(silent)).astype(int)
    strata = [silent[start:stop] for start, stop in itertools.pairwise(cuts)]
    taken = _allocate(np.array([len(stratum) for stratum in strata]), int((~firing).sum()), POWER)
    chosen = [rng.choice(stratum, k, replace=False) for stratum, k in zip(strata, taken, strict=True)]
    inclusion = [np.full(k, k / len(stratum)) for stratum, k in zip(strata, taken, strict=True)]
    return Sample(
        np.concatenate([sample.indices[firing], *chosen]), np.concatenate([sample.inclusion[firing], *inclusion])
    )


def row(runs: int, n: int, case: tuple[str, float]) -> str:
    feature, prevalence = case
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        truth = true_scores(values, concept)
        noise = rng.normal(size=len(values))
        samples = {"activation": stratified(values, n, rng)}
        samples |= {name: by_likeness(values, noise + far * concept, n, rng) for name, far in LIKENESS.items()}
        rows: dict[str, tuple[float, ...]] = {}
        for name, sample in samples.items():
            rated = values[sample.indices], np.where(concept[sample.indices], 2, 0), sample.weights
            metrics = responsiveness(*rated, seed=seed), purity(*rated, seed=seed)
            width = widest(*metrics)
            if width is not None and metrics[0].value is not None and metrics[1].value is not None:
                errors = metrics[0].value - truth[0], metrics[1].value - truth[1]
                rows[name] = *errors, width
        if len(rows) == len(samples):  # all are compared on the same corpora
            for name, numbers in rows.items():
                found.setdefault(name, []).append(numbers)
    cells: list[str] = []
    for numbers in found.values():
        r, p, width = np.array(numbers).T
        cells.append(f"{np.sqrt(np.mean(r**2)):.3f} {np.sqrt(np.mean(p**2)):.3f} {width.mean():.2f}")
    return f"| {feature} | {100 * prevalence:g} % | {len(found['activation'])} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    bootstrap.REPLICATES = 400
    print("Error of Responsiveness, of Purity, width; strata by\n")
    print(f"| feature | concept in | runs | activation alone | {' | '.join(LIKENESS)} |\n|---|---|---|---|---|---|---|")
    cases = [(feature, prevalence) for feature in FEATURES if FEATURES[feature].fires for prevalence in (0.02, 0.1)]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for line in pool.map(partial(row, arguments.runs, arguments.texts), cases):
            print(line, flush=True)


if __name__ == "__main__":
    main()
