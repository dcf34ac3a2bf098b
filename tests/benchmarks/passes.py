"""One pass for several SAEs and hooks: against the deepest one's pass, and against a pass for each.

    python -m tests.benchmarks.passes            # a small random model, some seconds: the ratios are no measure of real ones
    python -m tests.benchmarks.passes --real     # Gemma 3 270M: the demo's SAE at four layers, and neurons at four layers

What is compared runs in turn, round after round; the numbers are medians of the rounds' ratios. "With what belongs to it" is the pass of a
`Subject`: the rule for massive activations and the precision of the features are fitted too, on a few texts however many the corpus has.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE

from fade_lens import Corpus, Subject, demo
from fade_lens.subject.activations import OutlierRule, max_activations, max_activations_of_each
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.settings import SubjectSettings
from tests.benchmarks.timing import Row, alternate, machine, median, peak_memory, ratio, table

MOST = 1.3


def at(sae: SAE[Any], hook: str) -> SAE[Any]:
    """The SAE, reading another hook."""
    import copy

    other = copy.copy(sae)
    other.cfg = copy.copy(sae.cfg)
    other.cfg.metadata = copy.copy(sae.cfg.metadata)
    other.cfg.metadata.hook_name = hook
    return other


def rows(what: str, model: Model, sources: Sequence[Any], corpus: Corpus, latents: int, rounds: int) -> list[Row]:
    """Four sources in one pass; the last one is the deepest."""
    settings = SubjectSettings(context=64)
    width = min(features_of(model, source, [0]).n_features for source in sources)
    indices = list(range(0, width, max(1, width // latents)))[:latents]
    subjects = [Subject(model, source, corpus, indices, settings) for source in sources]
    tokens = subjects[0].tokens
    rules = OutlierRule.fit_each(model, [one.features for one in subjects], tokens, factor=5.0)
    every = [(one.features, rule) for one, rule in zip(subjects, rules, strict=True)]

    def fresh(some: Sequence[Any]) -> None:
        Subject.observe_each([Subject(model, source, corpus, indices, settings) for source in some])

    work: dict[str, Any] = {
        "deepest": lambda: max_activations_of_each(model, every[-1:], tokens) and None,
        "together": lambda: max_activations_of_each(model, every, tokens) and None,
        "one by one": lambda: [max_activations(model, f, tokens, rule) for f, rule in every] and None,
        "deepest subject": lambda: fresh(sources[-1:]),
        "subjects together": lambda: fresh(sources),
    }
    times = alternate(work, rounds)
    with peak_memory() as most:
        work["deepest"]()
        alone = most()
    with peak_memory() as most:
        work["together"]()
        together = most()
    found, whole, apart = (ratio(times, *pair) for pair in (("together", "deepest"), ("subjects together", "deepest subject"), ("one by one", "together")))  # fmt: skip
    named = f"{what}, {len(indices)} features of each, {len(tokens):,} texts"
    speed = f"{tokens.lengths.sum() / median(times, 'together'):,.0f} tokens/s"
    return [
        Row(named, "the deepest one's pass", f"{found:.2f} × its time ({speed})", f"≤ {MOST}", found <= MOST),
        Row("the same with what belongs to it", "that of the deepest one", f"{whole:.2f} × its time"),
        Row("the same", "one by one", f"{apart:.2f} × faster"),
        Row("memory", "the deepest one's pass", f"{together / 1e6:,.0f} MB, {alone / 1e6:,.0f} MB alone"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2 if torch.get_num_threads() > 1 else 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.real:
        model, sae, layers = demo.model(), demo.sae(), (0, 3, 6, 9)
        corpus = demo.corpus(arguments.texts)
    else:
        from tests.planted import natural_texts
        from tests.tiny import tiny_model, tiny_sae

        model, sae, layers = tiny_model(n_layers=8, d_model=32), tiny_sae("jumprelu"), (1, 3, 5, 7)
        corpus = Corpus.from_texts(natural_texts(arguments.texts))
    saes = [at(sae, f"blocks.{layer}.hook_resid_post") for layer in layers]
    neurons = [f"blocks.{layer}.mlp.hook_post" for layer in layers]
    made = rows("4 SAEs at 4 hooks", model, saes, corpus, 64, arguments.rounds)
    made += rows("neurons at 4 hooks", model, neurons, corpus, 64, arguments.rounds)
    print(f"{machine()}\n\n{table(made)}")


if __name__ == "__main__":
    main()
