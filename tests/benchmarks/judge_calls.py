"""Judge calls a description at equal interval width, against the reference's design, by simulation (no network, about two minutes).

    python tests/benchmarks/judge_calls.py
    python tests/benchmarks/judge_calls.py --runs 200 --wrong-0 0.02 --wrong-2 0.2

A rule-based judge of known error rate rates corpora of 10,000 texts: of the texts without the concept it calls a share `--wrong-0` clear,
of those with it a share `--wrong-2` absent, the same texts whoever asks. The truth is what rating the whole corpus would give.

The reference asks 15 times for texts, rates 500 natural texts (a quarter of 90 % of them in each of the percentile bins 0-50-75-95-100, 10 %
the most active) and, where the gate is passed, 50 continuations at each of 7 factors, 15 texts a call: 15 + 34 + 28 = 77. It gives no
intervals and no weights; here its texts get both (the weights of its bins, `fade_lens.metrics`' intervals), which is generous. Then each
part of fade_lens is given as many calls as it needs to have intervals on average as narrow as that. `interval_width` is the width at which it
stops, so its average is below it; the one that gives the reference's average is searched for.

- rating: in rounds, until both intervals are no wider than that, on average as wide as the wider of the reference's two for that feature, or
  until Responsiveness is known to lie below the gate: then they stay wider ("below the gate" says how often);
- Faithfulness: in rounds likewise, at 4 factors and the baseline, against the interval of 50 prompts at 7 factors;
- Clarity: as many texts as the reference's, taken to be 10 a call, as many a call as `Judge` asks for by default.

The judge has its default settings but for `--batch`; `rated_texts`, `prompts` and `interval_width` are what the reference's width takes.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable

import numpy as np

from fade_lens.data.sampling import Sample
from fade_lens.judge import Judge
from fade_lens.metrics import intervals as bootstrap
from fade_lens.metrics.fade import purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness
from fade_lens.metrics.metric import Metric
from fade_lens.runs.settings import Settings
from fade_lens.scorers.ratings import widest
from tests.simulated import corpus, rated_in_rounds, steered, steered_in_rounds, true_scores

BATCH = 15
THEIRS = {"write": 15, "rate": 34, "steer": 28}
TEXTS_WRITTEN = 150
LIMIT, PROMPTS = 600, 100
"""Most texts rated and prompts continued here: the reference's 500 and 50 are no limit where its intervals are wide."""
SEARCH = 3
"""Most widths tried after the first."""
EFFECTS = {
    "without effect": (0.05, 0.05, 0.05, 0.05, 0.05),
    "one factor 5 to 20 %": (0.05, 0.05, 0.05, 0.05, 0.2),
    "one factor 5 to 50 %": (0.05, 0.05, 0.05, 0.05, 0.5),
    "one factor 5 to 65 %": (0.05, 0.05, 0.05, 0.05, 0.65),
    "rising from 5 to 45 %": (0.05, 0.1, 0.2, 0.35, 0.45),
}
"""Shares of continuations that express the concept, unsteered and at four factors; the reference's other two do nothing."""
CASES = [(f, p) for f in ("good", "strong", "sae", "half", "dense", "weak", "wrong") for p in (0.02, 0.1)]


def rated(concept: np.ndarray, wrong_0: float, wrong_2: float, rng: np.random.Generator) -> np.ndarray:
    """The judge's ratings of a whole corpus."""
    wrong = rng.random(len(concept)) < np.where(concept, wrong_2, wrong_0)
    return np.where(concept ^ wrong, 2, 0)


def reference_sample(values: np.ndarray, rng: np.random.Generator) -> Sample:
    """The reference's design over ranks (equal activations by chance), with the inclusion probabilities that it does not use."""
    order = rng.permutation(len(values))
    order = order[np.argsort(values[order], kind="stable")]
    n, top = len(values), 50
    cuts = [0, n // 2, 3 * n // 4, 95 * n // 100, n - top]
    bins = [order[start:stop] for start, stop in itertools.pairwise(cuts)]
    chosen = [rng.choice(stratum, 112, replace=False) for stratum in bins]
    inclusion = [np.full(112, 112 / len(stratum)) for stratum in bins]
    return Sample(np.concatenate([order[-top:], *chosen]), np.concatenate([np.ones(top), *inclusion]))


def score(values: np.ndarray, ratings: np.ndarray, sample: Sample, seed: int) -> tuple[Metric, Metric]:
    rows = values[sample.indices], ratings[sample.indices], sample.weights
    return responsiveness(*rows, seed=seed), purity(*rows, seed=seed)


def widths(metrics: tuple[Metric, Metric]) -> list[float]:
    """Of both intervals; an undefined one is as wide as the metric's range."""
    return [
        m.interval[1] - m.interval[0] if m.interval else whole for m, whole in zip(metrics, (2.0, 1.0), strict=True)
    ]


def compare(feature: str, prevalence: float, runs: int, errors: tuple[float, float], batch: int) -> dict[str, float]:
    """One kind of feature: widths, calls, and how often the intervals hold the whole corpus' value."""
    rng = np.random.default_rng(0)
    made = []
    for seed in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        ratings = rated(concept, *errors, rng)
        made.append((values, ratings, score(values, ratings, reference_sample(values, rng), seed)))
    reference = float(np.mean([widths(metrics) for *_, metrics in made], axis=0).max())
    passed_there = np.mean([(m[0].value or -1) >= 0.5 for *_, m in made])

    def ours(width: float) -> np.ndarray:
        settings = Settings(rated_texts=LIMIT, interval_width=width)
        rows = []
        for seed, (values, ratings, _) in enumerate(made):
            chance = np.random.default_rng([1, seed])
            n, metrics, _ = rated_in_rounds(values, ratings, settings, batch, chance, seed)
            yes = ratings == 2
            truth = true_scores(values, yes)
            held = [
                m.interval is None or m.interval[0] - 1e-9 <= t <= m.interval[1] + 1e-9
                for m, t in zip(metrics, truth, strict=True)
            ]
            hopeless = metrics[0].interval is not None and metrics[0].interval[1] < 0.5
            rows.append((math.ceil(n / batch), *widths(metrics), *held, (metrics[0].value or -1) >= 0.5, hopeless))
        calls, wide_r, wide_p, *shares = np.mean(rows, axis=0)
        return np.array([max(wide_r, wide_p), calls, *shares])

    width, calls, held_r, held_p, passed, hopeless = matched(reference, ours)
    return {
        "width_there": reference,
        "width": float(width),
        "calls": float(calls),
        "held_r": float(held_r),
        "held_p": float(held_p),
        "passed_there": float(passed_there),
        "passed": float(passed),
        "hopeless": float(hopeless),
    }


def matched(width: float, measure: Callable[[float], np.ndarray]) -> np.ndarray:
    """What `measure` finds, the average width first, at the `interval_width` that makes that average `width` or a little less.

    Where the gate or the last text ends the rating first the average may be wider, whatever is asked for.
    """
    wanted, found = width, measure(width)
    for _ in range(SEARCH):
        if found[0] >= width:
            break
        wanted *= width / found[0]
        wider = measure(wanted)
        if wider[0] > width:
            break
        found = wider
    return found


def steering(effect: str, runs: int, batch: int) -> tuple[float, float, float, float]:
    """One kind of effect: the width of the reference's 50 prompts at 6 factors and the baseline, and here width, calls and coverage."""
    rates = np.array(EFFECTS[effect])
    theirs, ours = np.array([rates[0], rates[0], *rates]), np.array([rates[0], *rates[-4:]])
    truth = (rates.max() - rates[0]) / (1 - rates[0])
    rng = np.random.default_rng(1)
    there = [
        faithfulness({float(f): np.where(row, 2, 0) for f, row in enumerate(steered(theirs, 50, rng))}, seed=seed)
        for seed in range(runs)
    ]
    width = float(np.mean([found for one in there if (found := widest(one)) is not None]))

    def here(wanted: float) -> np.ndarray:
        rows = []
        for seed in range(runs):
            chance = np.random.default_rng([1, seed])
            rounds, found = steered_in_rounds(dict(enumerate(steered(ours, PROMPTS, chance))), wanted, batch, seed)
            low, high = found.interval or (0.0, 1.0)
            rows.append((high - low, sum(math.ceil(texts / batch) for texts in rounds), low <= truth <= high))
        return np.mean(rows, axis=0)

    wide, calls, held = matched(width, here)
    return width, float(wide), float(calls), float(held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--wrong-0", type=float, default=0.005, help="share of texts without the concept rated 2")
    parser.add_argument("--wrong-2", type=float, default=0.1, help="share of texts with the concept rated 0")
    parser.add_argument("--batch", type=int, default=BATCH, help="texts a request here (the reference: 15)")
    arguments = parser.parse_args()
    errors = arguments.wrong_0, arguments.wrong_2
    bootstrap.REPLICATES = 400
    started = time.monotonic()
    write = math.ceil(TEXTS_WRITTEN / Judge("any").texts_per_set)
    print(f"Clarity: {TEXTS_WRITTEN} texts in {THEIRS['write']} calls there, {write} here\n")
    print("| steering | width there | width here | calls there | here | holds the truth |\n|---|---|---|---|---|---|")
    found = {effect: steering(effect, 2 * arguments.runs, arguments.batch) for effect in EFFECTS}
    for effect, (there, here, calls, held) in found.items():
        print(f"| {effect} | {there:.2f} | {here:.2f} | {THEIRS['steer']} | {calls:.1f} | {100 * held:.0f} % |")
    steer = float(np.mean([calls for _, _, calls, _ in found.values()]))
    print(f"| **all** | | | {THEIRS['steer']} | **{steer:.1f}** | |\n", flush=True)
    print(
        "| feature | concept in | width there | width here | rating calls | below the gate | holds the truth: R, P | all calls there | here | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    totals = []
    for feature, prevalence in CASES:
        found = compare(feature, prevalence, arguments.runs, errors, arguments.batch)
        theirs = THEIRS["write"] + THEIRS["rate"] + THEIRS["steer"] * found["passed_there"]
        ours = write + found["calls"] + steer * found["passed"]
        totals.append((theirs, ours, found["passed_there"]))
        print(
            f"| {feature} | {100 * prevalence:g} % | {found['width_there']:.2f} | {found['width']:.2f} | {found['calls']:.1f} | "
            f"{100 * found['hopeless']:.0f} % | {100 * found['held_r']:.0f} %, {100 * found['held_p']:.0f} % | "
            f"{theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} |",
            flush=True,
        )
    table = np.array(totals)
    for name, rows in (
        ("all", table),
        ("mostly pass the gate", table[table[:, 2] >= 0.5]),
        ("mostly do not", table[table[:, 2] < 0.5]),
    ):
        theirs, ours, _ = rows.mean(axis=0)
        print(f"| **{name}** | | | | | | | {theirs:.0f} | {ours:.0f} | **{ours / theirs:.2f}** |")
    print(f"\n{arguments.runs} runs a row, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
