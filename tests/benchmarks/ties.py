"""How far the same activation is apart in batches of other shapes, in roundings of its terms and of itself (`fade_lens.subject.ties.SLACK`).

    python -m tests.benchmarks.ties [--dtype float32] [--demo]

Printed for each source: quantiles and maximum of |difference| / (rounding · (size of the terms + |value|)), what two values may differ
by in the same unit, and the share of the pairs that are told apart.
"""

import argparse

import numpy as np
import torch

from fade_lens.data.corpus import Corpus
from fade_lens.runs.settings import Settings
from fade_lens.subject.activations import max_activations
from fade_lens.subject.subject import Subject
from tests.tiny import WORDS, tiny_model, tiny_sae

BATCHES = (1, 64, 500, 6000)
ARCHITECTURES = ("standard", "jumprelu", "gated", "topk", "temporal", "matching_pursuit")


def row(name: str, subject: Subject, rounding: float) -> str:
    """One source's line."""
    assert subject.precision is not None
    parts = subject.model, subject.features, subject.tokens, subject.outliers
    one = max_activations(*parts).values.astype(np.float64)
    slack = subject.precision.relative / rounding
    unit = (subject.precision.absolute + subject.precision.relative * np.abs(one)) / slack
    others = [max_activations(*parts, batch_tokens=n).values.astype(np.float64) for n in BATCHES]
    apart = np.concatenate([(np.abs(one - other) / unit)[(one != 0) & (other != 0)] for other in others])
    quantiles = " ".join(f"{q:.2f}" for q in np.nanquantile(apart, [0.5, 0.99, 0.999, 1]))
    found = subject.activations.values
    told = np.mean([len(np.unique(column)) / len(np.unique(raw)) for column, raw in zip(found.T, one.T, strict=True)])
    return f"{name:<18} {quantiles}  allowed {slack:.0f}  distinct values kept {told:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    settings = Settings(context=64)
    if options.demo:
        from fade_lens import demo

        model, corpus = demo.model().to(dtype), demo.corpus(limit=150)
        sources = {"demo's SAE": (demo.sae(), 2048), "neurons": ("blocks.9.mlp.hook_post", 1024)}
    else:
        random = np.random.default_rng(0)
        corpus = Corpus.from_texts([" ".join(random.choice(WORDS, random.integers(1, 30))) for _ in range(400)])
        model = tiny_model(dtype=dtype)
        sources = {name: (tiny_sae(name), 64) for name in ARCHITECTURES} | {"neurons": ("blocks.1.mlp.hook_post", 128)}
    for name, (source, n) in sources.items():
        print(row(name, Subject(model, source, corpus, range(n), settings), torch.finfo(dtype).eps))


if __name__ == "__main__":
    main()
