"""Swapped descriptions on the real model: of forty with some exchanged in pairs, how many are found, how many false alarms.

    python -m tests.benchmarks.swaps                                 # a rule-based judge, about 10 minutes on two cores
    python -m tests.benchmarks.swaps --judge gguf --rated 40 --synthetic 20 --pairs 5 --seeds 1

The subject is Gemma 3 270M with the demo's SAE and 40 of its 48 descriptions. The rule-based judge (`tests/demo_rules.py`) answers
over HTTP: regular expressions rate, and its texts are written from templates. It sees the description only, never the feature.
A swap is found where `better_feature` names the feature that the description was taken from; a false alarm is any other named.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fade_lens import Description, Fade, Judge, Results, demo
from tests.demo_rules import rule, writer
from tests.fake_judge import FakeJudge

N_DESCRIPTIONS = 40


def exchanged(descriptions: list[Description], pairs: int, seed: int) -> tuple[list[Description], dict[int, int]]:
    """The descriptions with `pairs` pairs exchanged at random, and for each exchanged one's feature the one it was taken from."""
    chosen = np.random.default_rng(seed).permutation(len(descriptions))[: 2 * pairs].tolist()
    texts = [d.text for d in descriptions]
    truth: dict[int, int] = {}
    for a, b in zip(chosen[::2], chosen[1::2], strict=True):
        texts[a], texts[b] = texts[b], texts[a]
        truth[descriptions[a].index], truth[descriptions[b].index] = descriptions[b].index, descriptions[a].index
    return [Description(d.index, text) for d, text in zip(descriptions, texts, strict=True)], truth


def line(results: Results, truth: dict[int, int], pairs: int, seed: int, seconds: float) -> str:
    """One row of the table."""
    named = {
        r.description.index: r.permutation.better_feature
        for r in results
        if r.permutation and r.permutation.better_feature is not None
    }
    found = sum(named.get(index) == feature for index, feature in truth.items())
    wrong = sum(truth.get(index) != feature for index, feature in named.items())
    placed = sum(
        r.permutation is not None
        and r.permutation.suggested_feature == truth.get(r.description.index, r.description.index)
        for r in results
    )
    q = {r.description.index: r.permutation.q_value if r.permutation else None for r in results}
    fits = {index for index, value in q.items() if value is not None and value <= 0.05}
    right = set(q) - set(truth)
    return (
        f"| {len(truth)} in {pairs} pairs | {seed} | {found} of {len(truth)} | {wrong} | {placed} of {len(results)} "
        f"| {len(fits & right)} of {len(right)} | {len(fits & set(truth))} of {len(truth)} | {seconds:.0f} |"
    )


@contextlib.contextmanager
def judge_of(kind: str) -> Iterator[Judge]:
    """The rule-based judge behind a server on loopback, the demo's embedded judge, or any judge by its spec."""
    if kind == "rules":
        with FakeJudge(rule=rule, writer=writer) as server:
            yield Judge("rules", base_url=server.base_url, api_key="none")
    elif kind == "gguf":
        yield Judge.local(demo.judge_gguf())
    else:
        yield Judge.parse(kind)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="rules", help="rules, gguf, or a judge such as openai:gpt-4o-mini")
    parser.add_argument("--pairs", default="0,5,10,20", help="numbers of exchanged pairs, with commas between")
    parser.add_argument("--seeds", type=int, default=3, help="exchanges drawn for each number of pairs")
    parser.add_argument("--texts", type=int, default=2000, help="texts of the corpus")
    parser.add_argument("--rated", type=int, default=200, help="texts rated for each description")
    parser.add_argument("--synthetic", type=int, default=30, help="texts written for each description")
    parser.add_argument("--out", type=Path, help="folder for the results of every run")
    options = parser.parse_args()

    descriptions = sorted(demo.descriptions())
    kept = sorted(np.random.default_rng(0).permutation(len(descriptions))[:N_DESCRIPTIONS].tolist())
    descriptions = [descriptions[place] for place in kept]
    model, sae, corpus = demo.model(), demo.sae(), demo.corpus(options.texts)
    print(
        f"{len(descriptions)} descriptions, {options.texts} texts, {options.rated} rated and {options.synthetic} written for each, judge: {options.judge}\n"
    )
    print(
        "| swapped | draw | swaps found | false alarms | rightly placed | unswapped with q ≤ 0.05 | swapped with q ≤ 0.05 | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with judge_of(options.judge) as judge, tempfile.TemporaryDirectory() as store:
        fade = Fade(
            model,
            sae,
            corpus=corpus,
            judge=judge,
            rated_texts=options.rated,
            synthetic_texts=options.synthetic,
            gate=2.0,  # no description passes: steering tells nothing about swaps
        )
        for pairs in map(int, options.pairs.split(",")):
            for seed in range(options.seeds if pairs else 1):
                started = time.perf_counter()
                given, truth = exchanged(descriptions, pairs, seed)
                results = fade.evaluate(given, store=store, progress=False)
                print(line(results, truth, pairs, seed, time.perf_counter() - started), flush=True)
                if options.out:
                    results.save(options.out / f"swaps-{options.judge}-{pairs}-{seed}.sqlite")


if __name__ == "__main__":
    main()
