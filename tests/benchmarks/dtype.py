"""How far bfloat16 moves what is found: activations, continuations and the four metrics.

    python -m tests.benchmarks.dtype [--descriptions 12] [--texts 400] [--prompts 12] [--dtype bfloat16] [--small]

Gemma 3 270M with the demo's SAE (in float32 both times), texts and descriptions; the judge answers by rule (`tests.demo_rules`), so that nothing
but the model's dtype differs: the same texts, prompts, seeds and factors. A second run in float32 with another seed shows how far chance moves the metrics.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from fade_lens import Fade, Judge, demo
from fade_lens.data.descriptions import Description
from fade_lens.generation.steering import Request, generate
from fade_lens.runs.results import Results
from fade_lens.subject.activations import OutlierRule, max_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests import demo_rules
from tests.benchmarks.timing import machine
from tests.fake_judge import FakeJudge

METRICS = ("clarity", "responsiveness", "purity", "faithfulness")
QUANTILES = (0.5, 0.9, 0.99, 1.0)
PROMPT, NEW, FACTORS, CONTEXT = 16, 16, (0.5, 1.0, 2.0), 64


def cast(model: Any, dtype: torch.dtype) -> Any:
    model.to(dtype)
    model.cfg.dtype = dtype
    return model


def activations(model: Any, sae: Any, described: list[Description], texts: int) -> np.ndarray:
    """The largest activation of each latent on each text."""
    tokens = tokenize(model, demo.corpus(texts), context=CONTEXT, prepend_bos=True)
    features = features_of(model, sae, [d.index for d in described])
    return max_activations(model, features, tokens, OutlierRule.fit(model, features, tokens, factor=5.0)).values


def continuations(model: Any, sae: Any, described: list[Description], prompts: int, temperature: float) -> np.ndarray:
    """Tokens of steered continuations."""
    tokens = tokenize(model, demo.corpus(10 * prompts), context=CONTEXT, prepend_bos=True)
    chosen = [tuple(tokens[i][:PROMPT].tolist()) for i in range(len(tokens)) if tokens.lengths[i] >= PROMPT][:prompts]
    features = features_of(model, sae, [d.index for d in described])
    requests = [Request(p, i % len(features), f, i) for i, p in enumerate(chosen) for f in FACTORS]
    reference = torch.full((len(features),), 600.0)
    return generate(model, features, requests, reference, new_tokens=NEW, temperature=temperature)


def evaluated(model: Any, sae: Any, described: list[Description], options: Any, seed: int) -> Results:
    """The four metrics, Faithfulness whatever the gate."""
    settings: dict[str, Any] = {
        "rated_texts": min(options.texts, 120),
        "synthetic_texts": 20,
        "prompts": options.prompts,
        "prompt_tokens": PROMPT,
        "new_tokens": NEW,
        "context": CONTEXT,
        "factors": FACTORS,
        "gate": None,
        "seed": seed,
    }
    with FakeJudge(rule=demo_rules.rule, writer=demo_rules.writer) as server:
        judge = Judge("rules", base_url=server.base_url, api_key="sk-made-up")
        found = Fade(model, sae, corpus=demo.corpus(options.texts), judge=judge, **settings).evaluate(
            described, progress=False
        )
        judge.close()
    return found


def changes(usual: Results, other: Results, name: str) -> str:
    """How far a metric moved: mean and largest change over the descriptions, and how many are defined in one run alone."""
    pairs = [(a.metrics[name].value, b.metrics[name].value) for a, b in zip(usual, other, strict=True)]
    moved = [b - a for a, b in pairs if a is not None and b is not None]
    alone = sum((a is None) != (b is None) for a, b in pairs)
    if not moved:
        return "–"
    size = np.abs(moved)
    return f"{np.mean(moved):+.3f}, {size.mean():.3f}, {size.max():.3f} of {len(moved)}" + (
        f" ({alone} in one alone)" if alone else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptions", type=int, default=12)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--small", action="store_true", help="two descriptions, to see that it runs")
    options = parser.parse_args()
    if options.small:
        options.descriptions, options.texts, options.prompts = 2, 60, 3
    narrow: torch.dtype = getattr(torch, options.dtype)
    model, sae, described = demo.model(), demo.sae(), list(demo.descriptions()[: options.descriptions])
    found: dict[torch.dtype, tuple[np.ndarray, list[np.ndarray], Results]] = {}
    seconds: dict[torch.dtype, float] = {}
    chance = None
    for dtype in (torch.float32, narrow):
        cast(model, dtype)
        values = activations(model, sae, described, options.texts)
        started = time.perf_counter()
        written = [continuations(model, sae, described, options.prompts, t) for t in (0.0, 0.7)]
        seconds[dtype] = time.perf_counter() - started
        found[dtype] = values, written, evaluated(model, sae, described, options, seed=0)
        if dtype == torch.float32:
            chance = evaluated(model, sae, described, options, seed=1)
    assert chance is not None
    (usual, texts, metrics), (moved, others, other) = found.values()
    fires = [np.isfinite(v) & (v != 0) for v in (usual, moved)]
    both = fires[0] & fires[1]
    change = np.abs(moved[both] - usual[both]) / np.abs(usual[both])
    print(f"{machine()}\n\n{options.dtype} against float32, {len(described)} latents, {options.texts} texts\n")
    print("| largest activation of a text, relative change | " + " | ".join(f"{q:.0%}" for q in QUANTILES) + " |")
    print("|---|" + "---|" * len(QUANTILES))
    print(f"| {both.sum():,} that fire | " + " | ".join(f"{q:.2%}" for q in np.quantile(change, QUANTILES)) + " |")
    top = usual >= np.nanquantile(usual, 0.99, axis=0)
    near = np.abs(moved - usual)[both & top] / np.abs(usual[both & top])
    if len(near):
        print(f"| the highest 1 % of each latent | {' | '.join(f'{q:.2%}' for q in np.quantile(near, QUANTILES))} |")
    print(f"\n{(fires[0] != fires[1]).sum()} texts of {both.size:,} fire in one alone.\n")
    print("| continuations | tokens that differ | texts that differ | first difference, median |\n|---|---|---|---|")
    for name, a, b in zip(("greedy", "0.7"), texts, others, strict=True):
        rows = (a != b).any(axis=1)
        first = np.median((a != b)[rows].argmax(axis=1) + 1) if rows.any() else float("nan")
        print(f"| {name} | {(a != b).mean():.1%} | {rows.sum()} of {len(rows)} | token {first:g} of {NEW} |")
    print(f"\n| metric: mean change, mean and largest size | {options.dtype} | float32, another seed |\n|---|---|---|")
    for name in METRICS:
        print(f"| {name} | {changes(metrics, other, name)} | {changes(metrics, chance, name)} |")
    print(f"\nContinuations took {seconds[narrow] / seconds[torch.float32]:.2f} × the time of float32.")


if __name__ == "__main__":
    main()
