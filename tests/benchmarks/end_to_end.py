"""A whole run against the reference: 8 latents, 200 texts of up to 64 tokens, seven factors × 50 continuations × 30 tokens, a
judge that answers at once.

    python -m tests.benchmarks.end_to_end --python REFERENCE_ENV/bin/python            a few minutes
    python -m tests.benchmarks.end_to_end --python REFERENCE_ENV/bin/python --full     nothing extrapolated; an hour

The same work on both sides: clamp steering at the reference's factors, greedy decoding, whole texts as prompts, no gate, all
texts rated, float32. The reference has its own batch of 4. Loading is not counted. Without `--full` the reference runs one
latent with 4 continuations a factor, and fade_lens 8 latents with 8 (small batches, which favours the reference); the time for
steering is multiplied up to 50, and the reference's to 8 latents: it has nothing that a second latent shares with the first.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from fade_lens import Fade, Judge, demo
from fade_lens.scorers import FaithfulnessEvaluator
from fade_lens.subject.hooks import Model
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import tokenize
from tests.benchmarks.reference_times import Reference, reference
from tests.benchmarks.timing import Row, machine, table
from tests.parity_case import SharedJudge

FACTORS = (-50.0, -10.0, -1.0, 0.0, 1.0, 10.0, 50.0)
LATENTS, TEXTS, CONTINUATIONS, CONTEXT, NEW_TOKENS = 8, 200, 50, 64, 30
WRITTEN = 10

Parts = dict[str, float]
"""Seconds of a run: `natural`, `steering` and the `rest`."""


def ours(
    model: Model, sae: SAE[Any], texts: list[str], latents: list[int], concept: str, url: str, continuations: int
) -> Parts:
    """All latents in one run."""
    parts = {"natural": 0.0, "steering": 0.0}
    started = time.perf_counter()
    with timed(Subject, "observe", parts, "natural"), timed(FaithfulnessEvaluator, "steer", parts, "steering"):
        fade = Fade(
            model,
            sae,
            corpus=texts,
            judge=Judge("rule", base_url=url, api_key="none", texts_per_set=WRITTEN),
            preset="paper",
            context=CONTEXT,
            synthetic_texts=WRITTEN,
            rated_texts=TEXTS,
            gate=None,
            factors=FACTORS,
            prompts=continuations,
            prompt_tokens=CONTEXT,
            new_tokens=NEW_TOKENS,
        )
        results = fade.evaluate(dict.fromkeys(latents, concept), progress=False)
    seconds = time.perf_counter() - started
    steered = sum(len(r.faithfulness_evidence.continuations) for r in results)
    assert steered == len(latents) * continuations * len(FACTORS), f"only {steered} texts were steered"
    return parts | {"rest": seconds - sum(parts.values())}


def theirs(worker: Reference, texts: list[str], latent: int, concept: str, url: str, continuations: int) -> Parts:
    """One latent."""
    settings = {
        "subjectLLM": {"sae_module": True, "batch_size": 4},
        "evaluationLLM": {"type": "openai", "name": "rule", "api_key": "none", "base_url": url},
        "experiments": {
            "gini_threshold": -1,
            "responsiveness_and_purity": {"num_samples": TEXTS},
            "faithfulness": {"num_samples": continuations, "generation_length": NEW_TOKENS},
        },
    }
    found = worker.time(run=settings, texts=texts, latent=latent, concept=concept)
    return {name: found[name] for name in ("natural", "steering")} | {
        "rest": found["seconds"] - found["natural"] - found["steering"]
    }


@contextmanager
def timed(owner: type, method: str, parts: Parts, part: str) -> Iterator[None]:
    """Within the block, a method's time is added to a part."""
    original: Callable[..., Any] = getattr(owner, method)

    def timed_method(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        found = original(*args, **options)
        parts[part] += time.perf_counter() - started
        return found

    setattr(owner, method, timed_method)
    try:
        yield
    finally:
        setattr(owner, method, original)


def common_word(texts: list[str]) -> str:
    """A word that about a tenth of the texts hold: the reference fails where no text, or every one, shows the concept."""
    words = [set(re.findall(r"\b[a-z]{4,}\b", text.lower())) for text in texts]
    counts = {word: sum(word in found for found in words) for word in sorted(set().union(*words))}
    return min(counts, key=lambda word: abs(counts[word] - len(texts) // 10))


def total(parts: Parts, continuations: int, latents: int) -> float:
    """Seconds for all continuations and latents, from those of a part of them."""
    return latents * (parts["natural"] + parts["rest"] + parts["steering"] * CONTINUATIONS / continuations)


def described(parts: Parts) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment with fade-language")
    parser.add_argument("--full", action="store_true", help="50 continuations a factor on both sides, 8 latents")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, sae = demo.model(), demo.sae()
    tokens = tokenize(model, demo.corpus(TEXTS), context=CONTEXT, prepend_bos=True)
    texts = list(tokens.texts)
    concept = f"the word '{common_word(texts)}'"
    candidates = [d.index for d in demo.descriptions()]
    seen = Subject(model, sae, texts, candidates)
    latents = [i for i in candidates if seen.reference(i) > 0][:LATENTS]  # a silent one is not steered
    assert len(latents) == LATENTS
    n_ours, n_theirs = (CONTINUATIONS, CONTINUATIONS) if arguments.full else (8, 4)
    timed_latents = latents if arguments.full else latents[:1]
    ratios: list[float] = []
    rows: list[Row] = []
    with SharedJudge() as server, reference(arguments.python) as worker:
        url = server.base_url
        for turn in range(arguments.rounds):
            each = [theirs(worker, texts, i, concept, url, n_theirs) for i in timed_latents]
            found = ours(model, sae, texts, latents, concept, url, n_ours)
            whole = [total(p, n_theirs, 1) for p in each]
            them, us = statistics.mean(whole) * LATENTS, total(found, n_ours, 1)
            ratios.append(them / us)
            rows.append(
                Row(f"round {turn + 1}: reference, {len(each)} latents × {n_theirs} texts", "", described(each[0]))
            )
            rows.append(Row(f"round {turn + 1}: fade_lens, {LATENTS} latents × {n_ours} texts", "", described(found)))
            rows.append(
                Row(
                    f"round {turn + 1}: {LATENTS} latents × {CONTINUATIONS} texts",
                    "",
                    f"{them:.0f} s against {us:.0f} s",
                )
            )
    best = statistics.median(ratios)
    against = "the reference" if arguments.full else "the reference, scaled from one latent and 4 texts a factor"
    rows.append(Row(f"whole run, {LATENTS} latents", against, f"{best:.1f} × faster", "≥ 10", best >= 10))
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
