"""How far to trust the numbers: coverage of the 95 % intervals and bias of the estimates, by simulation.

    python -m tests.benchmarks.coverage                    all tables
    python -m tests.benchmarks.coverage bias faithfulness --runs 200 --jobs 4 --seed 7

`random` is the table to read first: a new feature, and a new share of texts with its concept, for every run. The others hold one kind of feature
at a time. Some of their cases are marked, for no interval covers about 95 % there. `edge`: more than half of the samples have a score of 1 (to
0.001), where every interval reaches up to 1 and holds the truth. `lumps`: nearly all that differs between samples is how many of the texts with
the concept fire, and leaving out whole such outcomes (at most 5 % on either side) gives no coverage between 93 and 97 %. `blind`: more than half of
the samples hold no text with the concept from the stratum in which a text stands for most. They look alike whether the corpus has some there
or not, so that an interval which is right for a feature of the first kind is too wide for one of the second.

The features are those of `tests/simulated.py`.
"""

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from scipy.stats import binom

from fade_lens.data.sampling import Sample, uniform
from fade_lens.metrics import intervals as bootstrap
from fade_lens.metrics.fade import MIN_TEXTS, clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness
from fade_lens.metrics.ranking import average_precision, gini
from fade_lens.runs.settings import Settings
from tests.samples import stratified
from tests.simulated import (
    ALIKE,
    CORPUS,
    DEFAULT,
    FACTORS,
    FEATURES,
    SCHEMES,
    Limits,
    corpus,
    rated_in_rounds,
    steered,
    steered_in_rounds,
    true_scores,
)

BUDGET = 500
RARE, FEW = 0.005, 200
REPLICATES = 500  # a quarter of the library's: moves a single interval's ends, not how often intervals hold the truth
SHAPES = ("dense", "weak", "strong", "sae", "half", "good", "wrong")
SEED = 0


def draw(design: str, values: np.ndarray, rng: np.random.Generator) -> Sample:
    """The texts that a design rates."""
    return stratified(values, BUDGET, rng) if design == "stratified" else uniform(len(values), BUDGET, rng)


def covered(intervals: np.ndarray, truth: np.ndarray | float) -> str:
    """Share of intervals that hold the truth, and the shares that lie wholly above and below it."""
    above, below = intervals[:, 0] > truth + 1e-9, intervals[:, 1] < truth - 1e-9
    return f"{100 * np.mean(~above & ~below):5.1f} ({100 * above.mean():.0f}/{100 * below.mean():.0f})"


def kind(feature: str, positives: int, values: np.ndarray) -> str:
    """Why no interval can cover 93-97 %, if so: from the scores of the samples and how many texts with the concept each has."""
    if np.mean(values > 0.999) > 0.5:
        return "edge"
    fires = FEATURES[feature].fires
    if fires is None:
        return ""
    outcomes = binom.pmf(np.arange(positives + 1), positives, fires[1])
    below, above = np.cumsum(outcomes) - outcomes, np.cumsum(outcomes[::-1]) - outcomes[::-1]
    left_out = below[below <= 0.05][:, None] + above[above <= 0.05]
    return "" if ((left_out >= 0.03) & (left_out <= 0.07)).any() else "lumps"


# --- Features drawn at random ---------------------------------------------------------------------------------------------------

BANDS = ((3, 7), (8, 24), (25, 79))
"""Texts rated 2 (or synthetic) behind an interval: from as few as it needs."""


def random_row(runs: int, case: tuple[str, tuple[int, int]]) -> str:
    """How often intervals hold the truth over features and concepts drawn at random, at so many texts with the concept."""
    scheme, band = case
    rng = np.random.default_rng([SEED, band[0], *scheme.encode()])
    found: list[list[Limits]] = []
    while len(found) < runs:
        if rows := SCHEMES[scheme](band, rng, len(found)):
            found.append(rows)
    cells = []
    for low, high, truth in np.array(found, dtype=float).transpose(1, 2, 0):
        cells.append(f"{covered(np.stack([low, high], axis=1), truth):>14} {np.mean(high - low):6.2f}")
    return f"{scheme:24} {band[0]:3}-{band[1]:<3} " + "   ".join(cells)


def random_table(runs: int) -> tuple[str, Callable[..., str], Iterable[tuple[str, tuple[int, int]]]]:
    head = (
        f"Features and concepts drawn at random, {runs} a row: coverage of the 95 % interval in % (intervals above/below the truth), mean width\n"
        "rated                     n            metric, or Responsiveness       Purity"
    )
    cases = [(name, band) for name in SCHEMES for band in (((50, 50),) if name.startswith("Faithfulness") else BANDS)]
    return head, partial(random_row, runs), cases


# --- Clarity ------------------------------------------------------------------------------------------------------------------


def clarity_row(runs: int, case: tuple[int, str]) -> str:
    positives, feature = case
    rng = np.random.default_rng([SEED, positives])
    big = np.repeat([True, False], 200_000)
    values = FEATURES[feature].activations(big, rng)
    truth = gini(values[big], values[~big])
    ours, percentile, values_found = [], [], []
    for run in range(runs):
        synthetic, natural = rng.choice(values[big], positives), np.sort(rng.choice(values[~big], 1000))
        metric = clarity(synthetic, natural, seed=run)
        values_found.append(metric.value)
        ours.append(metric.interval or (np.nan, np.nan))
        place = (np.searchsorted(natural, synthetic) + np.searchsorted(natural, synthetic, "right")) / len(natural) - 1
        percentile.append(np.quantile(rng.choice(place, (REPLICATES, positives)).mean(axis=1), [0.025, 0.975]))
    width = np.mean(np.diff(ours))
    return (
        f"{positives:3} {feature:8} {truth:6.3f} {kind(feature, positives, np.array(values_found)):5}"
        f"   {covered(np.array(ours), truth):>14} {width:6.2f}"
        f"   {covered(np.array(percentile), truth):>14}"
    )


def clarity_table(runs: int) -> tuple[str, Callable[[tuple[int, str]], str], Iterable[tuple[int, str]]]:
    head = (
        "Clarity: coverage of the 95 % interval in % (intervals above/below the truth), 1,000 natural texts\n"
        "  n feature   truth              fade_lens  width        percentile bootstrap"
    )
    return head, partial(clarity_row, runs), [(n, feature) for n in (3, 5, 15, 50) for feature in SHAPES]


# --- Responsiveness and Purity --------------------------------------------------------------------------------------------------


def prevalence_for(feature: str, design: str, positives: int, rng: np.random.Generator) -> float:
    """The prevalence at which the design chooses so many texts with the concept, by bisection."""
    low, high = 1e-5, 0.5
    for _ in range(14):
        middle = float(np.sqrt(low * high))
        found = []
        for _ in range(8):
            values, concept = corpus(feature, middle, rng)
            found.append(concept[draw(design, values, rng).indices].sum())
        low, high = (middle, high) if np.mean(found) < positives else (low, middle)
    return float(np.sqrt(low * high))


def rated_row(runs: int, case: tuple[int, str, str]) -> str:
    positives, design, feature = case
    rng = np.random.default_rng([SEED, positives])
    prevalence = positives / BUDGET if design == "uniform" else prevalence_for(feature, design, positives, rng)
    records: list[tuple[float, ...]] = []
    blind = 0
    for run in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        sample = draw(design, values, rng)
        chosen = concept[sample.indices]
        while chosen.sum() < MIN_TEXTS:  # no interval is given there
            values, concept = corpus(feature, prevalence, rng)
            sample = draw(design, values, rng)
            chosen = concept[sample.indices]
        blind += not chosen[sample.inclusion == sample.inclusion.min()].any()
        rated = values[sample.indices], np.where(chosen, 2, 0), sample.weights
        truth = true_scores(values, concept)
        for metric, true in zip((responsiveness, purity), truth, strict=True):
            result = metric(*rated, seed=run)
            low, high = result.interval or (np.nan, np.nan)
            records.append((true, result.value or 0.0, result.details["unweighted"] or 0.0, low, high))
    lines = []
    for index, name in enumerate(("Responsiveness", "Purity")):
        true, value, unweighted, low, high = np.array(records[index::2]).T
        mark = "edge" if np.mean(value > 0.999) > 0.5 else "blind" if blind > runs / 2 else ""
        coverage = covered(np.stack([low, high], axis=1), true)
        lines.append(
            f"{positives:3} {design:10} {feature:8} {prevalence:7.4f} {name:14} {mark:5} {true.mean():6.3f} {value.mean():6.3f}"
            f" {unweighted.mean():6.3f}   {coverage:>14} {np.mean(high - low):6.2f}"
        )
    return "\n".join(lines)


def rated_table(runs: int) -> tuple[str, Callable[[tuple[int, str, str]], str], Iterable[tuple[int, str, str]]]:
    head = (
        f"Responsiveness and Purity: {BUDGET} texts rated of a corpus of {CORPUS:,}; n = mean number of texts rated 2; "
        "coverage of the corpus' value\n"
        "  n design     feature    preval. metric                truth  value unweig.         coverage  width"
    )
    cases = [(n, d, f) for n in (5, 15, 50) for d in ("uniform", "stratified") for f in SHAPES]
    return head, partial(rated_row, runs), cases


def rare_row(runs: int, feature: str) -> str:
    """Of all runs, those in which there is an interval, and how often it is wrong."""
    rng = np.random.default_rng([SEED, 5])
    wrong, given, expected = np.zeros((2, 2)), 0, 0
    for run in range(runs):
        values, concept = corpus(feature, RARE, rng)
        sample = stratified(values, FEW, rng)
        chosen = concept[sample.indices]
        expected += chosen.sum()
        rated = values[sample.indices], np.where(chosen, 2, 0), sample.weights
        truth = true_scores(values, concept)
        found = [metric(*rated, seed=run).interval for metric in (responsiveness, purity)]
        given += found[0] is not None
        for row, interval, true in zip(wrong, found, truth, strict=True):
            if interval is not None:
                row += interval[0] > true + 1e-9, interval[1] < true - 1e-9
    cells = "   ".join(f"{100 * row.sum() / runs:5.1f} ({100 * (1 - row.sum() / given):5.1f})" for row in wrong)
    return f"{feature:8} {expected / runs:6.1f} {100 * given / runs:8.0f}   {cells}"


def rare_table(runs: int) -> tuple[str, Callable[[str], str], Iterable[str]]:
    head = (
        f"A rare concept: in {RARE:.1%} of texts, {FEW} of {CORPUS:,} rated (stratified). n = mean number of texts rated 2; there is an interval from {MIN_TEXTS};\n"
        "wrong intervals in % of all runs (coverage of those given)\n"
        "feature       n  given %   Responsiveness         Purity"
    )
    return head, partial(rare_row, runs), SHAPES


# --- Optional stopping ---------------------------------------------------------------------------------------------------------


def stopping_row(runs: int, case: tuple[int, float, float, str]) -> str:
    most, width, prevalence, feature = case
    options = Settings(interval_width=width, rated_texts=most)
    rng = np.random.default_rng(3 + 1000 * SEED)
    rows: list[tuple[float, ...]] = []
    for seed in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        n, metrics, stopped = rated_in_rounds(values, np.where(concept, 2, 0), options, 15, rng, seed)
        limits = [limit for metric in metrics for limit in metric.interval or (np.nan, np.nan)]
        truth = true_scores(values, concept)
        rows.append((n, "wider" in (stopped or ""), "below" in (stopped or ""), *limits, *truth))
    n, narrow, hopeless, *limits = np.array([row for row in rows if not np.isnan(row).any()]).T
    cells = []
    for at in (0, 2):
        interval = np.stack(limits[at : at + 2], axis=1)
        cells.append(f"{covered(interval, limits[4 + at // 2]):>14} {np.diff(interval).mean():5.2f}")
    return (
        f"{feature:8} {100 * prevalence:5.1f} % {most:5} {width or 0:6.2f} {len(n):5} {n.mean():7.0f} {100 * narrow.mean():6.0f} %"
        f" {100 * hopeless.mean():6.0f} %   " + "   ".join(cells)
    )


def stopping_table(
    runs: int,
) -> tuple[str, Callable[[tuple[int, float, float, str]], str], Iterable[tuple[int, float, float, str]]]:
    head = (
        "Rating in rounds, at most `most` texts, stopped when both intervals are no wider than `width` or Responsiveness' lies below 0.5;\n"
        "of those `runs` in which there are intervals\n"
        "feature  preval.  most   width  runs   texts   narrow hopeless   Responsiveness coverage, width    Purity coverage, width"
    )
    looks = [(DEFAULT.rated_texts, DEFAULT.interval_width or 0), *((BUDGET, width) for width in (0.2, 0.3, 0.5))]
    return head, partial(stopping_row, runs), [(*look, p, f) for look in looks for p in (0.02, 0.1) for f in SHAPES]


# --- Bias of the unweighted estimate ---------------------------------------------------------------------------------------------


def bias_row(runs: int, case: tuple[str, float, int]) -> str:
    feature, prevalence, budget = case
    rng = np.random.default_rng(1000 * SEED)
    rows = []
    for _ in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        sample = stratified(values, budget, rng)
        chosen, scores = concept[sample.indices], values[sample.indices]
        if chosen.any():
            rows.append(
                (
                    average_precision(values, concept),
                    average_precision(scores, chosen, sample.weights),
                    average_precision(scores, chosen),
                    gini(values[concept], values[~concept]),
                    gini(scores[chosen], scores[~chosen], sample.weights[chosen], sample.weights[~chosen]),
                    gini(scores[chosen], scores[~chosen]),
                )
            )
    means = np.mean(rows, axis=0)
    return f"{feature:8} {100 * prevalence:5.1f} % {budget:6}   " + "   ".join(f"{value:6.3f}" for value in means)


def bias_table(runs: int) -> tuple[str, Callable[[tuple[str, float, int]], str], Iterable[tuple[str, float, int]]]:
    head = (
        f"Design weights: texts rated of {CORPUS:,}, stratified by activation; means over runs\n"
        "                            Purity                       Responsiveness\n"
        "feature  preval.  rated   corpus  weighted unweighted   corpus  weighted unweighted"
    )
    cases = [("clear", 0.005, budget) for budget in (500, 1000, 2000)]
    cases += [(f, p, BUDGET) for p in (0.02, 0.1) for f in ("clear", "strong", "sae", "half")]
    return head, partial(bias_row, runs), cases


def design_row(runs: int, case: tuple[str, float]) -> str:
    feature, prevalence = case
    rng = np.random.default_rng(1000 * SEED)
    powers = (0.0, 0.4, 0.5, 0.6, 0.7)
    errors: dict[object, list[tuple[float, float]]] = {power: [] for power in (*powers, "uniform")}
    for _ in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        truth = gini(values[concept], values[~concept]), average_precision(values, concept)
        samples = {power: stratified(values, BUDGET, rng, power=power) for power in powers}
        for name, sample in {**samples, "uniform": uniform(CORPUS, BUDGET, rng)}.items():
            chosen, scores, weights = concept[sample.indices], values[sample.indices], sample.weights
            if chosen.any():
                signed = gini(scores[chosen], scores[~chosen], weights[chosen], weights[~chosen])
                errors[name].append((signed - truth[0], average_precision(scores, chosen, weights) - truth[1]))
    cells = [np.sqrt(np.mean(np.square(rows), axis=0)) for rows in errors.values()]
    return f"{feature:8} {100 * prevalence:5.1f} %   " + "   ".join(f"{r:.3f} {p:.3f}" for r, p in cells)


def design_table(runs: int) -> tuple[str, Callable[[tuple[str, float]], str], Iterable[tuple[str, float]]]:
    head = (
        "Strata share the budget by their sizes to a power: root mean square error of Responsiveness and Purity\n"
        "feature  preval.   0.0           0.4           0.5           0.6           0.7           uniform"
    )
    return (
        head,
        partial(design_row, runs),
        [(f, p) for p in (0.005, 0.02, 0.1) for f in SHAPES],
    )


# --- Texts that are like the description --------------------------------------------------------------------------------------------


def likely_row(runs: int, case: tuple[str, float]) -> str:
    feature, prevalence = case
    rng = np.random.default_rng(1000 * SEED)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("none", *ALIKE)}
    for run in range(runs):
        values, concept = corpus(feature, prevalence, rng)
        truth, noise = true_scores(values, concept), rng.normal(size=len(values))
        for name, rows in found.items():
            likeness = None if name == "none" else noise + ALIKE[name] * concept
            sample = stratified(values, FEW, np.random.default_rng([SEED, run]), likeness=likeness)
            rated = values[sample.indices], np.where(concept[sample.indices], 2, 0), sample.weights
            limits = [metric(*rated, seed=run).interval or (np.nan, np.nan) for metric in (responsiveness, purity)]
            rows.append((*limits[0], *limits[1], *truth))
    before, cells = np.array(found["none"]), []
    for rows in found.values():
        given = np.array(rows)
        known = ~np.isnan(given[:, 0])
        of = [covered(given[known, at : at + 2], given[known, 4 + at // 2]).split()[0] for at in (0, 2)]
        wide = [np.nanmedian(np.diff(given[:, at : at + 2]) / np.diff(before[:, at : at + 2])) for at in (0, 2)]
        cells.append(f"{100 * known.mean():3.0f} {of[0]:>5} {of[1]:>5} {wide[0]:5.2f} {wide[1]:5.2f}")
    return f"{feature:8} {100 * prevalence:5.1f} %   " + "   ".join(cells)


def likely_table(runs: int) -> tuple[str, Callable[[tuple[str, float]], str], Iterable[tuple[str, float]]]:
    head = (
        f"Texts that are like the description, {FEW} of {CORPUS:,} rated; by the AUROC of the likeness for the concept: % of runs with intervals, coverage of\n"
        "Responsiveness and Purity in these, median widths of both as a share of those without such texts\n"
        "feature  preval.   none                           0.85                           0.95                           1"
    )
    shapes = ("dense", "sae", "half", "good", "wrong")
    return head, partial(likely_row, runs), [(f, p) for p in (0.005, 0.02, 0.1) for f in shapes]


# --- Faithfulness ------------------------------------------------------------------------------------------------------------------


def faithfulness_row(runs: int, case: tuple[str, tuple[float, ...], float | None]) -> str:
    name, rates, width = case
    rng = np.random.default_rng(1000 * SEED)
    baseline = rates[FACTORS.index(0.0)]
    truth = max(max(rates) - baseline, 0.0) / (1 - baseline)
    rows = []
    for run in range(runs):
        hits = dict(zip(FACTORS, steered(np.array(rates), 50, rng), strict=True))
        if width is None:
            texts, result = (
                50 * len(FACTORS),
                faithfulness({f: np.where(row, 2, 0) for f, row in hits.items()}, seed=run),
            )
        else:
            rounds, result = steered_in_rounds(hits, width, 15, run)
            texts = sum(rounds)
        if result.value is not None and result.interval is not None:
            rows.append((texts, result.details["maximum"], result.value, result.details["signed"], *result.interval))
    texts, maximum, value, signed, low, high = np.array(rows, dtype=float).T
    return (
        f"{name:22} {'all' if width is None else width:>5} {texts.mean():6.0f}   {truth:6.3f}   {maximum.mean():6.3f} {np.quantile(maximum, 0.95):6.3f}   {value.mean():6.3f}"
        f" {np.quantile(value, 0.95):6.3f}   {signed.mean():+7.3f}"
        f"   {covered(np.stack([low, high], axis=1), truth):>14} {np.mean(high - low):6.2f}"
    )


def faithfulness_table(
    runs: int,
) -> tuple[
    str,
    Callable[[tuple[str, tuple[float, ...], float | None]], str],
    Iterable[tuple[str, tuple[float, ...], float | None]],
]:
    cases: list[tuple[str, tuple[float, ...]]] = []
    for base in (0.02, 0.05, 0.2):
        cases.append((f"null, base {base}", (base,) * 7))
        cases += [(f"one factor {base} to {p}", (base,) * 6 + (p,)) for p in (0.3, 0.6) if p > base]
        cases.append((f"dose, base {base}", (base, base, base, base + 0.05, base + 0.15, base + 0.3, base + 0.4)))
        cases.append((f"harm, base {base}", (base / 2, base / 2, base, base / 2, base / 2, 0.0, 0.0)))
    head = (
        "Faithfulness: 50 prompts, six factors and the baseline, all rated or in rounds until the interval is no wider than `width`;\n"
        "reference = largest share of all factors\n"
        "                                                   reference        fade_lens\n"
        "case                   width  texts    truth     mean  95th %     mean  95th %    signed         coverage  width"
    )
    return head, partial(faithfulness_row, runs), [(*case, width) for width in (None, 0.3, 0.2) for case in cases]


TABLES = {
    "random": random_table,
    "clarity": clarity_table,
    "rated": rated_table,
    "rare": rare_table,
    "stopping": stopping_table,
    "bias": bias_table,
    "design": design_table,
    "likely": likely_table,
    "faithfulness": faithfulness_table,
}


def _quick(seed: int) -> None:
    global SEED
    bootstrap.REPLICATES, SEED = REPLICATES, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="all by default")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, initializer=_quick, initargs=(arguments.seed,)) as pool:
        for name in arguments.tables or TABLES:
            head, row, cases = TABLES[name](arguments.runs)
            print(f"\n{head}", flush=True)
            for line in pool.map(row, cases):
                print(line, flush=True)


if __name__ == "__main__":
    main()
