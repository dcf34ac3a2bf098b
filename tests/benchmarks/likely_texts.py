"""Does the judge see the concept of a wrong description? With texts rated that are like the description, and without; on the demo's SAE.

    python -m tests.benchmarks.likely_texts [--draws 30] [--by none,words,meaning]      # "meaning" needs the extra `similarity`

Of the demo's 48 descriptions 20 are exchanged in pairs. Where at least three texts of the corpus show the concept of an exchanged one, as
`tests/demo_rules.py` has it: how often do three of the rated texts show it? Fewer give no interval. And how wide are the intervals of the
descriptions that are not exchanged, as a share of what they are without texts that are like the description?

Activations and likenesses are kept in the cache folder, so that the model runs over the corpus once (minutes); the rest takes a minute.
"""

import argparse
from functools import cache

import numpy as np
from jaxtyping import Float

from fade_lens import Description, Settings, Subject, demo
from fade_lens._util.cache import cache_folder
from fade_lens.data.sampling import design
from fade_lens.evidence.likeness import BY, Likeness
from fade_lens.evidence.windows import Evidence
from fade_lens.metrics.fade import MIN_TEXTS, purity, responsiveness
from fade_lens.metrics.intervals import percentiles
from tests.benchmarks.swaps import exchanged
from tests.demo_rules import rule

PAIRS, TEXTS, RATED = 10, 2000, 200
DESCRIPTIONS = sorted(demo.descriptions())
RARE = 40
"""A concept that no more texts show is rare."""


@cache
def subject() -> Subject:
    """The demo's latents over its corpus, not yet observed."""
    return Subject(demo.model(), demo.sae(), demo.corpus(TEXTS), [d.index for d in DESCRIPTIONS])


def kept(name: str) -> Float[np.ndarray, "description text"]:
    """By description and text: "activations", whether it "shows" the concept, or the likeness by "words" or "meaning"; made once."""
    path = cache_folder() / f"likely_texts-{TEXTS}-{name}.npy"
    if not path.exists():
        if name == "activations":
            found = subject().activations.values.T.astype(np.float64)
        elif name == "shows":
            found = np.array([[rule(d.text, text) == 2 for text in subject().tokens.texts] for d in DESCRIPTIONS])
        else:
            likeness = Likeness(Evidence(subject()), name)
            found = np.array([likeness.to(d.text) for d in DESCRIPTIONS])
        np.save(path, found)
    return np.load(path)


def measured(by: str, feature: int, text: int, draw: int) -> tuple[int, float, float]:
    """Of a description on a feature, both by their places: rated texts that show it, and the widths of both intervals (NaN: none)."""
    values, options = kept_once("activations")[feature], Settings()
    chosen = design(
        values,
        RATED,
        np.random.default_rng([draw, feature]),
        likeness=None if by == "none" else kept_once(by)[text],
        likely=options.likely_share,
    )
    sample = chosen.first(len(chosen))
    shown = kept_once("shows")[text][sample.indices]
    rows = values[sample.indices], np.where(shown, 2, 0), sample.weights
    found = [metric(*rows, seed=draw).interval for metric in (responsiveness, purity)]
    widths = [np.nan if interval is None else interval[1] - interval[0] for interval in found]
    return int(shown.sum()), widths[0], widths[1]


kept_once = cache(kept)


def share(hits: list[tuple[int, bool]]) -> str:
    """A share in % with its interval, concepts drawn with replacement; `hits` are of (concept, whether)."""
    of = {concept: [hit for one, hit in hits if one == concept] for concept, _ in hits}
    sums = np.array([(sum(some), len(some)) for some in of.values()])
    random = np.random.default_rng(0)
    drawn = sums[random.integers(len(sums), size=(4000, len(sums)))].sum(axis=1)
    low, high = percentiles(drawn[:, 0] / drawn[:, 1], 0.025)
    return f"{100 * sums[:, 0].sum() / sums[:, 1].sum():.0f} % ({100 * low:.0f} … {100 * high:.0f})"


def ratio(now: list[float], before: list[float]) -> str:
    """The median of the ratio, its quartiles, and in how many both are defined."""
    found = np.array(now) / np.array(before)
    low, middle, high = np.nanquantile(found, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.2f} … {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--by", default=",".join(BY))
    given = parser.parse_args()
    place = {d.text: at for at, d in enumerate(DESCRIPTIONS)}
    in_corpus = kept_once("shows").sum(axis=1)
    cases: list[tuple[int, int, int]] = []  # draw, feature, text
    for draw in range(given.draws):
        described: list[Description] = exchanged(DESCRIPTIONS, PAIRS, draw)[0]
        cases += [(draw, at, place[d.text]) for at, d in enumerate(described)]
    wrong = [case for case in cases if case[1] != case[2] and in_corpus[case[2]] >= MIN_TEXTS]
    right = [case for case in cases if case[1] == case[2]]
    print(
        f"{TEXTS} texts, {RATED} rated, {given.draws} draws; {len(wrong)} wrong descriptions whose concept {MIN_TEXTS} texts show, "
        f"{sum(in_corpus[text] <= RARE for _, _, text in wrong)} of these rare (at most {RARE}); {len(right)} right ones\n"
    )
    print(f"| likely texts by | wrong: {MIN_TEXTS} rated show it | of rare ones | texts that show it | right: with intervals | width of Responsiveness' | of Purity's |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    first: list[tuple[int, float, float]] = []
    for by in given.by.split(","):
        found = [measured(by, feature, text, draw) for draw, feature, text in wrong]
        hits = [(text, n >= MIN_TEXTS) for (n, *_), (_, _, text) in zip(found, wrong, strict=True)]
        rare = [hit for hit in hits if in_corpus[hit[0]] <= RARE]
        own = [measured(by, feature, text, draw) for draw, feature, text in right]
        first = first or own
        widths = [ratio([row[at] for row in own], [row[at] for row in first]) for at in (1, 2)]
        defined = np.mean([not np.isnan(row[1]) for row in own])
        print(f"| {by} | {share(hits)} | {share(rare)} | {np.mean([n for n, *_ in found]):.1f} | {100 * defined:.0f} % | {' | '.join(widths)} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
