"""Several meanings: words of known number, the demo's latents, and what a small judge makes of some of these.

    python -m tests.benchmarks.meanings words            # no model but MiniLM: separability of windows of one, two related, two unrelated words
    python -m tests.benchmarks.meanings latents FOLDER   # no judge: how many meanings the demo's described latents have
    python -m tests.benchmarks.meanings judged FOLDER    # the embedded judge explains and scores a few: kinds of negatives, rules, complexity

The last two resume what FOLDER holds. The extras `demo` and `similarity` are needed.
"""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from fade_lens import (
    Answer,
    Fade,
    Judge,
    Request,
    Results,
    RunStore,
    by_negative,
    compare,
    complexity,
    demo,
    polysemanticity,
)
from fade_lens.explainers.meanings import vectors
from fade_lens.metrics.separability import APART, parts_of
from tests.benchmarks.does_it_work import LEAST, explained, latents

AROUND = 8
"""Words on either side of a word."""
SINGLE = ("for", "can", "your", "time", "all", "year", "you", "new", "old", "most", "one", "package", "from", "was")
RELATED = (("your", "you"), ("all", "most"), ("for", "from"), ("new", "old"))
UNRELATED = (
    ("for", "can"), ("can", "your"), ("time", "all"), ("all", "year"), ("year", "you"), ("you", "new"), ("old", "most"), ("one", "package"),
    ("package", "from"), ("from", "was"),
)  # fmt: skip
HARD = ("similar_silent", "token_silent", "neighbour")


def words(n_texts: int, most: int = 100) -> None:
    """Windows of words of the demo's corpus as those of latents of one or two meanings: separability, and what a normal distribution would say."""
    texts = [re.findall(r"\s*(?:\w+|[^\w\s])", text)[:60] for text in demo.corpus(n_texts).texts or ()]
    random = np.random.default_rng(0)

    def window(text: Sequence[str], at: int) -> tuple[str, str]:
        return "".join(text[max(0, at - AROUND) : at + AROUND + 1]).strip(), text[at].strip()

    places: dict[str, list[tuple[str, str]]] = {word: [] for word in SINGLE}
    for text in texts:
        for word, found in places.items():
            at = next((at for at, own in enumerate(text) if own.strip().lower() == word), None)
            if at is not None and len(found) < most:
                found.append(window(text, at))
    unrelated = vectors([window(text, int(random.integers(len(text)))) for text in texts[::20] if text])
    known = {word: vectors(found) for word, found in places.items()}
    width = unrelated.shape[1]
    kinds = (("one", [(word,) for word in SINGLE]), ("two related", RELATED), ("two unrelated", UNRELATED))
    print("| known by | windows of | separability of two parts | meanings found | cut in two against a normal distribution |\n|---|---|---|---|---|")  # fmt: skip
    for way, kept in (("the window and its peak", slice(width)), ("the window alone", slice(width // 2))):
        scale = (width / kept.stop) ** 0.5  # of length 1
        for name, groups in kinds:
            values, numbers, cuts = list[float](), list[int](), 0
            for group in groups:
                own = np.concatenate([known[word][: most // len(group), kept] * scale for word in group])
                own = own[random.permutation(len(own))]
                shown, held = own[: int(0.72 * len(own))], own[int(0.72 * len(own)) :]
                found = parts_of(shown, held, unrelated[:, kept] * scale)
                values.append(found.separability.get(2, float("nan")))
                numbers.append(found.k)
                cuts += normal_p(shown, held, random) <= 0.05
            shares = ", ".join(f"{k}: {numbers.count(k)}" for k in sorted(set(numbers)))
            print(f"| {way} | {name} ({len(groups)}) | {np.nanmin(values):.2f} to {np.nanmax(values):.2f} | {shares} | {cuts} |", flush=True)  # fmt: skip


def normal_p(shown: np.ndarray, held: np.ndarray, random: np.random.Generator, n: int = 39, dims: int = 8) -> float:
    """How seldom as clear a cut in two comes of one normal distribution of the same covariance: the silhouette of the held-out, by the means of the shown."""
    both = np.concatenate([shown, held])
    middle = both.mean(axis=0)
    rows = (both - middle) / np.sqrt(len(both) - 1)

    def cut(own: np.ndarray, others: np.ndarray) -> float:
        axes = np.linalg.svd(own - own.mean(axis=0), full_matrices=False)[2][:dims]
        a, b = (own - own.mean(axis=0)) @ axes.T, (others - own.mean(axis=0)) @ axes.T
        means = min((kmeans2(a, 2, minit="++", seed=random) for _ in range(3)), key=lambda one: float(((a - one[0][one[1]]) ** 2).sum()))[0]  # fmt: skip
        far = np.sort(np.linalg.norm(b[:, None] - means[None], axis=2), axis=1)
        return float(((far[:, 1] - far[:, 0]) / far[:, 1]).mean())

    seen = cut(shown, held)
    drawn = (random.normal(size=(len(both), len(both))) @ rows + middle for _ in range(n))
    return (1 + sum(cut(one[: len(shown)], one[len(shown) :]) >= seen for one in drawn)) / (n + 1)


def made(store: Path, n_texts: int, judge: Judge, **settings: Any) -> tuple[Fade, list[int], np.ndarray]:
    """The demo's model and SAE, the described latents, and their largest activations on every text, kept in a store of the judge's own."""
    fade = Fade(demo.model(), demo.sae(), corpus=demo.corpus(n_texts), judge=judge, showing="small", **settings)
    described = sorted(d.index for d in demo.descriptions())
    fade.explain(described, explainer="tfidf", store=store, progress=False)
    with RunStore(store) as run:
        passed = run.activations(described)
    assert passed is not None
    return fade, described, passed.values


class Nothing:
    """Stands for a judge that has nothing to say."""

    name = "nothing"

    async def ask(self, request: Request) -> Answer:
        return Answer('{"description": ""}')


def of_latents(folder: Path, n_texts: int) -> None:
    """How many meanings the described latents have that fire on enough texts."""
    with Judge(Nothing()) as judge:
        fade, described, values = made(folder / "looked", n_texts, judge)
        chosen = latents(values, described, int(((values > 0).sum(axis=0) >= LEAST).sum()))
        found = fade.explain(chosen, explainer="meanings", store=folder / "looked", progress=False).rows
    numbers = [int(one.search["meanings"]) for one in found]
    print(f"{len(chosen)} latents that fire on {LEAST} of {n_texts} texts: " + ", ".join(f"{numbers.count(k)} have {k}" for k in sorted(set(numbers))))  # fmt: skip
    print("\n| latent | meanings | separability of 2, 3, … parts |\n|---|--:|---|")
    for one, k in zip(found, numbers, strict=True):
        shares = ", ".join(f"{value:.2f}" for name, value in one.search.items() if name.startswith("separability"))
        print(f"| {one.index} | {k} | {shares} |")


def judged(folder: Path, n_texts: int, n_latents: int, judge: Judge) -> None:
    """A few latents explained in one piece and by meanings, scored against kinds of silent texts, and graded."""
    started = time.monotonic()
    with judge:
        fade, described, values = made(folder / "judged", n_texts, judge, detection_texts=24, detection_hard=HARD)
        chosen, store = latents(values, described, n_latents), {"store": folder / "judged", "progress": False}
        results: dict[str, Results] = {}
        for name in ("one-shot", "meanings"):
            some = explained(fade, chosen, name, folder / f"{name}.csv", **store)
            results[name] = fade.evaluate(some, scorers=("detection",), held_out=True, **store)
            results[name].save(folder / f"{name}.sqlite")
            print(f"\n{name}, {time.monotonic() - started:.0f} s since the start\n\n{by_negative(results[name]).table.round(2).to_string(index=False)}\n", flush=True)  # fmt: skip
        print(compare(*results.values(), names=list(results), scores=["detection", "detection_auroc"]).paired.round(3).to_string(index=False))  # fmt: skip
        print(f"\n{polysemanticity(results['meanings']).sweep.round(2).to_string(index=False)}\n", flush=True)
        hand = [d for d in demo.descriptions() if d.index in chosen]
        for name, some in (("hand-written", hand), *results.items()):
            frame = complexity(some, judge, store=folder / "judged", progress=False)
            columns = ["index", "description", "complexity", "complexity_low", "complexity_high", "failed"]
            print(f"{name}: mean complexity {frame['complexity'].mean():.2f}\n{frame[columns].round(2).to_string(index=False, max_colwidth=80)}\n", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("words", "latents", "judged"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--corpus", type=int, default=2000, help="texts of the corpus")
    parser.add_argument("--latents", type=int, default=5)
    parser.add_argument("--judge", default="demo", help="demo, or a judge such as openai:gpt-4o-mini")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    print(f"two parts are two from a separability of {APART}\n")
    if options.part == "words":
        words(options.corpus)
    elif options.folder is None:
        parser.error("give the folder")
    elif options.part == "latents":
        of_latents(options.folder, options.corpus)
    else:
        judge = Judge.local(demo.judge_gguf()) if options.judge == "demo" else Judge.parse(options.judge)
        judged(options.folder, options.corpus, options.latents, judge)


if __name__ == "__main__":
    main()
