"""Does it work? Latents of the demo's SAE explained by a small judge, and the explanations scored beside four other arms.

    python -m tests.benchmarks.does_it_work FOLDER        # resumes what FOLDER holds; nothing is asked twice

The subject is Gemma 3 270M with the demo's SAE; the judge, who also explains, is the demo's embedded one (Qwen2.5-Coder-1.5B) or any other by
its spec. The latents are drawn by seed among those that have a hand-written description and fire on enough texts. Arms:

- one-shot: what the explainer says;
- shuffled: another latent's one-shot description;
- tfidf: the words on which the latent fires, no language model;
- hand-written: `demo.descriptions()`;
- random: latents with permuted weights that fire on as many texts, explained one-shot as the others.

All are scored on the test texts alone, one-shot and shuffled first. Each arm is printed as it ends, then the paired differences.
"""

import argparse
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sae_lens import SAE

from fade_lens import Corpus, Description, Fade, Judge, Results, RunStore, Subject, compare, demo, read_descriptions
from fade_lens.baselines.null_descriptions import null_descriptions

ARMS = ("one-shot", "shuffled", "tfidf", "hand-written", "random")
ABOVE_ZERO = 1e4
"""A bias above any projection."""
LEAST = 70
"""Texts on which a latent must fire: the 30 % that are kept for tests then have about 21 of them, of which 20 are asked about."""
SCORES = {
    "embedding": ["embedding"],
    "detection": ["detection", "detection_auroc"],
    "fuzzing": ["fuzzing", "fuzzing_auroc"],
    "fade": ["clarity"],
}


def latents(activations: np.ndarray, indices: list[int], n: int, seed: int = 0) -> list[int]:
    """Latents drawn among those that fire on at least `LEAST` texts."""
    many = [index for index, own in zip(indices, activations.T, strict=True) if (own > 0).sum() >= LEAST]
    return sorted(np.random.default_rng(seed).choice(many, n, replace=False).tolist())


def permuted(model: Any, corpus: Corpus, indices: list[int], rates: list[float], path: Path) -> Any:
    """The SAE with the weights of some latents permuted, each with the bias at which it fires on its share of the texts."""
    if not path.exists():
        random = np.random.default_rng(0)
        sae: Any = demo.sae()
        with torch.no_grad():
            for i in indices:
                order = torch.tensor(random.permutation(len(sae.W_enc)))
                sae.W_enc[:, i], sae.W_dec[i] = sae.W_enc[order, i], sae.W_dec[i, order]
                sae.threshold[i], sae.b_enc[i] = 0.0, ABOVE_ZERO  # so that it fires everywhere
            largest = Subject(model, sae, corpus, indices)
            for i, rate in zip(indices, rates, strict=True):
                sae.b_enc[i] -= float(np.quantile(largest.natural(i), 1 - rate))
        sae.save_model(path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
    return SAE.load_from_disk(path, device="cpu")


def explained(fade: Fade, indices: list[int], explainer: str, path: Path, **known: Any) -> tuple[Description, ...]:
    """The explanations of some latents, or those that an earlier run left."""
    if not path.exists():
        fade.explain(indices, explainer=explainer, **known).to_csv(path)
    table = pd.read_csv(path)
    for row in table.to_dict("records"):
        print(
            f"  {path.stem} {row['index']}: {row['description'] if isinstance(row['description'], str) else row['reason']}",
            flush=True,
        )
    return read_descriptions(table[table["description"].notna()])


def told(results: dict[str, Results], scores: list[str]) -> None:
    """Means of the arms and their paired differences, as Markdown."""
    found = compare(*results.values(), names=list(results), scores=scores)
    print("\n| arm | score | mean | 95 % interval | latents |\n|---|---|---|---|---|")
    for row in found.frame.to_dict("records"):
        print(
            f"| {row['run']} | {row['metric']} | {row['mean']:.2f} | {row['low']:.2f} to {row['high']:.2f} | {row['n']} |"
        )
    print("\n| difference | score | mean | 95 % interval | p | latents |\n|---|---|---|---|---|---|")
    for row in found.paired.to_dict("records"):
        print(
            f"| {row['a']} − {row['b']} | {row['metric']} | {row['difference']:+.2f} | {row['low']:+.2f} to {row['high']:+.2f} | {row['p_value']:.3f} | {row['n_a']} |"
        )
    print(flush=True)


def main() -> None:
    """Explains, scores, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", default="demo", help="demo, or a judge such as openai:gpt-4o-mini")
    parser.add_argument("--showing", default="small", help="how the explainer is shown a latent")
    parser.add_argument("--latents", type=int, default=12)
    parser.add_argument("--corpus", type=int, default=2000, help="texts of the corpus")
    parser.add_argument(
        "--texts", type=int, default=40, help="texts that detection, and fuzzing, tests a description on"
    )
    parser.add_argument("--written", type=int, default=4, help="texts written for Clarity")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)

    settings: dict[str, Any] = {
        "embedding_texts": options.texts,
        "detection_texts": options.texts,
        "fuzzing_texts": options.texts,
        "fuzzing_silent": 0,
        "showing": options.showing,
    }
    # Clarity alone of FADE's four: one text is rated, none is steered.
    settings |= {"synthetic_texts": options.written, "rated_texts": 1, "factors": ()}
    model, sae, corpus, hand = demo.model(), demo.sae(), demo.corpus(options.corpus), demo.descriptions()
    started = time.monotonic()
    judge = Judge.local(demo.judge_gguf()) if options.judge == "demo" else Judge.parse(options.judge)
    with judge:
        store: dict[str, Any] = {"store": folder / "store", "progress": False}
        fade = Fade(model, sae, corpus=corpus, judge=judge, **settings)
        described = [d.index for d in hand]
        # The pass over the corpus for all of them at once; nothing more is read.
        Fade(model, sae, corpus=corpus, judge=judge, **settings, shown_windows=1).explain(
            described, explainer="tfidf", **store
        )
        with RunStore(folder / "store") as run:
            passed = run.activations(described)
        assert passed is not None
        chosen = latents(passed.values, described, options.latents)
        rates = [float((passed.values[:, described.index(i)] > 0).mean()) for i in chosen]
        print(
            f"latents {chosen}, firing on {', '.join(f'{rate:.1%}' for rate in rates)} of {len(corpus)} texts",
            flush=True,
        )

        own: dict[str, Any] = {"store": folder / "random", "progress": False}

        @cache
        def arm(name: str) -> tuple[Fade, Any, dict[str, Any]]:
            """Who scores the descriptions of an arm, these, and where answers are kept; made when they are needed."""
            if name == "random":
                sae = permuted(model, demo.corpus(400), chosen, rates, folder / "permuted")
                by = Fade(model, sae, corpus=corpus, judge=judge, **settings)
                return by, explained(by, chosen, "one-shot", folder / "random.csv", **own), own
            if name == "shuffled":
                return fade, null_descriptions(arm("one-shot")[1], ["shuffled"], 0, seed=0)["shuffled"], store
            if name == "hand-written":
                return fade, tuple(d for d in hand if d.index in chosen), store
            return fade, explained(fade, chosen, name, folder / f"{name}.csv", **store), store

        first = [["embedding"]] if find_spec("sentence_transformers") else []  # no calls: told at once
        every, main_arms = ["detection", "fuzzing", "fade"], ARMS[:2]  # the comparison that matters is told first
        pairs = ((every[:n], main_arms) for n in (1, 2, 3))
        for scorers, names in (*((one, ARMS[:-1]) for one in first), *pairs, *((every[:n], ARMS) for n in (1, 2, 3))):
            results: dict[str, Results] = {}
            for name in names:
                by, descriptions, known = arm(name)
                results[name] = by.evaluate(descriptions, scorers=scorers, held_out=True, **known)
                results[name].save(folder / f"{name}.sqlite")
                print(f"{name}: {', '.join(scorers)}; {time.monotonic() - started:.0f} s since the start", flush=True)
                if len(results) > 1:
                    told(results, [score for name in scorers for score in SCORES[name]])


if __name__ == "__main__":
    main()
