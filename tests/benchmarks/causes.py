"""Causes of later firing: kept keys and values against whole texts, which a plain loop runs one by one; positions computed and time.

    python -m tests.benchmarks.causes [--texts 8] [--tokens 32] [--rounds 3]      # a tiny model, seconds
    python -m tests.benchmarks.causes --real                                      # the demo's model and SAE, minutes

Texts are natural ones of the demo's corpus (tiny: random tokens) of so many tokens, and every column of the features is asked for, with
`silences`, so that each text runs to its end: the counts are then those of the formula, m + m(m − 1)/2 for m(m − 1), and what is more is padding.
The largest difference between the ways is printed beside, in units of the largest cause.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from fade_lens import Corpus, Subject, demo
from fade_lens.subject.activations import token_activations
from fade_lens.subject.causes import causes_of
from tests.architectures import hooked, sae_at
from tests.benchmarks.timing import Row, alternate, machine, median, ratio, table

WAYS: Mapping[str, Mapping[str, Any]] = {
    "kept": {"cached": True},
    "whole texts, batched": {"cached": False},
    "plain loop": {"cached": False, "batch_tokens": 1},
}


def subject_of(options: argparse.Namespace) -> Subject:
    """Eight features over texts of equal length."""
    if options.real:
        indices = sorted(d.index for d in demo.descriptions())[:8]
        whole = Subject(demo.model(), demo.sae(), demo.corpus(400), indices)
        long = [text for text in range(len(whole.tokens)) if len(whole.tokens[text]) >= options.tokens]
        texts = [whole.tokens[text][: options.tokens].tolist() for text in long[: options.texts]]
        return Subject(whole.model, whole.source, Corpus.from_tokens(texts), indices)
    random = np.random.default_rng(0).integers(5, 60, (options.texts, options.tokens)).tolist()
    return Subject(hooked("gpt2"), sae_at("blocks.1.hook_resid_post"), Corpus.from_tokens(random), range(8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    subject = subject_of(options := parser.parse_args())
    model: Any = subject.model
    seen = token_activations(model, subject.features, subject.tokens, subject.outliers)
    columns = [list(range(len(subject.features)))] * len(subject.tokens)
    find = partial(causes_of, model, subject.features, subject.tokens, seen, columns, silences=True)

    ran: dict[str, int] = {}
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, how in WAYS.items():

        def count(values: torch.Tensor, hook: Any, name: str = name) -> None:
            ran[name] = ran.get(name, 0) + values.shape[0] * values.shape[1]

        with model.hooks(fwd_hooks=[("hook_embed", count)]):
            found[name] = [one.causes for one in find(**how)]

    def work(how: Mapping[str, Any]) -> None:
        find(**how)

    times = alternate({name: partial(work, how) for name, how in WAYS.items()}, options.rounds)
    m = [int((~subject.tokens.special_of(text)).sum()) for text in range(len(subject.tokens))]
    formula = {"kept": sum(n + n * (n - 1) // 2 for n in m), "plain loop": sum(n * (n - 1) for n in m)}
    rows = [Row("positions by the formula", "", ", ".join(f"{name}: {n:,}" for name, n in formula.items()))]
    largest = max(float(np.nanmax(np.abs(one))) for one in found["plain loop"])
    for name in list(WAYS):
        pairs = zip(found[name], found["plain loop"], strict=True)
        differ = max(float(np.nanmax(np.abs(a - b))) for a, b in pairs) / largest
        fewer, faster = ran["plain loop"] / ran[name], ratio(times, "plain loop", name)
        said = f"{ran[name]:,} positions, {median(times, name):.3f} s"
        rows.append(Row(name, "plain loop", f"{said}: {fewer:.2f} times fewer, {faster:.2f} times faster; differs by {differ:.1e}"))  # fmt: skip
    print(f"{machine()}; {len(m)} texts of {options.tokens} tokens, {model.cfg.model_name}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
