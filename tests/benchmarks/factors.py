"""Which steering factors show the concept, and which only break the model: the measurement behind `Settings.factors`.

    python -m tests.benchmarks.factors [--latents 98,3450] [--prompts 20] [--new-tokens 24]

Latents of the demo's SAE whose concepts a rule can check ("the word X"). For each factor: the share of continuations that show the
concept by that rule, how much more surprising they are to the unsteered model than its own continuations (nats a token), and the share of
tokens that a continuation repeats. No judge is asked.
"""

import argparse
import re
import time

import numpy as np
import torch

from fade_lens import demo
from fade_lens._util.seeds import stream
from fade_lens.generation.fluency import negative_log_likelihood, repeated_share
from fade_lens.generation.steering import Request, generate
from fade_lens.judge import Judge
from fade_lens.runs.settings import Settings
from fade_lens.scorers.faithfulness import FaithfulnessEvaluator
from fade_lens.subject.subject import Subject
from tests.benchmarks.timing import machine

RULES = {
    4005: r"(?i)\bhere\b",
    951: r"(?i)\bespecially\b",
    9: r"(?i)\bus(e|es|ed|ing)\b",
    98: r"(?i)\bgood\b",
    625: r"(?i)\bsomething\b",
    3450: r"(?i)\bthrough\b",
    1402: r"(?i)\beither\b",
    2988: r"(?i)\b(try|tries|tried|trying)\b",
    418: r"(?i)\bdouble\b",
    1812: r"(?i)\bonce\b",
    2329: r"(?i)\bmornings?\b",
    2970: r"(?i)\biraqi?s?\b",
    3521: r"!",
    1658: r"\bMr\.?\b",
    2236: r"(?i)\b(apart|aside) from\b",
    3908: r"\b198\d",
    451: r"\b196\d",
    2093: r"\b20[01]\d",
    3361: r"\w@\w",
    417: r"#include",
    1372: r"(^|[.!?]\s+)Since\b",
    967: r"(^|[.!?]\s+)Now\b",
    3647: r"\bU\.S\.",
    1245: r"(?i)\bin this (case|context)\b",
    148: r"(?i)\bspen[dt]",
    306: r"\bso\b",
    2141: r"(?i)\b(press|media|newspapers?|journalists?)\b",
    623: r"\b\d+-\d+\b",
    3609: r"\bimport \w+|from \w+ import",
}
"""Regular expressions that tell whether a text shows the concept of a latent in the demo's table of descriptions."""
FACTORS = (-1.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", default=",".join(map(str, RULES)))
    parser.add_argument("--factors", default=",".join(map(str, FACTORS)))
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--texts", type=int, default=700)
    parser.add_argument("--show", type=int, default=0, help="Continuations to print of each set.")
    chosen = parser.parse_args()
    latents = [int(i) for i in chosen.latents.split(",")]
    factors = [float(f) for f in chosen.factors.split(",")]
    settings = Settings(prompts=chosen.prompts, new_tokens=chosen.new_tokens)
    words = {d.index: d.text for d in demo.parts.descriptions()}

    model = demo.model()
    subject = Subject(model, demo.sae(), demo.corpus(chosen.texts), latents, settings)
    prompts = FaithfulnessEvaluator(subject, Judge("nobody", base_url="http://127.0.0.1:1/v1"), settings).prompts
    reference = torch.tensor(np.nan_to_num([subject.reference(i) for i in latents]), dtype=torch.float32)
    started = time.monotonic()
    pairs = [(None, 0.0)] + [(column, f) for column in range(len(latents)) for f in factors]
    requests = [
        Request(p, column, f, stream(0, "factors", column, number))
        for column, f in pairs
        for number, p in enumerate(prompts)
    ]
    tokens = generate(
        model, subject.features, requests, reference, new_tokens=chosen.new_tokens, temperature=settings.temperature
    )
    generated, started = time.monotonic() - started, time.monotonic()
    nll = negative_log_likelihood(model, [r.prompt for r in requests], tokens).reshape(len(pairs), -1)
    measured = time.monotonic() - started
    written = [model.tokenizer.decode(row) for row in tokens]
    texts = [written[start : start + len(prompts)] for start in range(0, len(written), len(prompts))]
    repeated = [repeated_share(model, some) for some in texts]

    base = nll[0].mean()
    print(f"{len(prompts)} prompts, {chosen.new_tokens} new tokens, temperature {settings.temperature}; {machine()}")
    print(f"Generated in {generated:.0f} s, likelihoods in {measured:.0f} s. The unsteered model's own text: {base:.2f} nats a token "
          f"(deviation {nll[0].std():.2f} between texts), {repeated[0]:.0%} of tokens repeated.\n")  # fmt: skip
    print("Concept by rule, in % of continuations / increase of negative log-likelihood / % of tokens repeated\n")
    print("| latent | unsteered | " + " | ".join(f"{f:g}" for f in factors) + " |")
    print("|---|---|" + "---|" * len(factors))
    means = np.zeros((len(factors), 3))
    for column, index in enumerate(latents):
        shows = [[bool(re.search(RULES[index], t)) for t in texts[row]] for row in (0, *range(1 + column * len(factors), 1 + (column + 1) * len(factors)))]  # fmt: skip
        cells = [f"{100 * np.mean(shows[0]):.0f}"]
        for at in range(len(factors)):
            row = 1 + column * len(factors) + at
            numbers = 100 * np.mean(shows[at + 1]), nll[row].mean() - base, 100 * repeated[row]
            means[at] += np.array(numbers) / len(latents)
            cells.append(f"{numbers[0]:.0f} / {numbers[1]:+.1f} / {numbers[2]:.0f}")
        print(f"| {index} {words[index]} | {' | '.join(cells)} |")
    print("| **mean** |  | " + " | ".join(f"{a:.0f} / {b:+.1f} / {c:.0f}" for a, b, c in means) + " |")
    for row, (column, factor) in enumerate(pairs):
        for text in texts[row][: chosen.show]:
            print(f"{'unsteered' if column is None else latents[column]} x {factor:g}: {text!r}")


if __name__ == "__main__":
    main()
