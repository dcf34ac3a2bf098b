"""The activation pass: against a bare forward pass and the reference, over numbers of latents, and what memory it takes.

    python -m tests.benchmarks.activations                                      all but the reference
    python -m tests.benchmarks.activations --python REFERENCE_ENV/bin/python    an environment with fade-language

Gemma 3 270M with the demo's SAE and texts. What is compared runs in turn, round after round; the numbers are medians of the
rounds' ratios, so a busy machine does little harm. The bare pass is `model(tokens, stop_at_layer=10)` on the same batches with
the padding side given, without which TransformerLens builds an attention mask and takes longer.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata

from fade_lens import demo
from fade_lens.data.corpus import Corpus
from fade_lens.runs.store import RunStore
from fade_lens.subject.activations import OutlierRule, batches, max_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.tokens import TokenizedTexts, tokenize
from tests.benchmarks.reference_times import reference
from tests.benchmarks.timing import Row, alternate, machine, median, peak_memory, ratio, table

LAYERS = 10
SIZES = (1, 8, 64, 512, 1024, 4096)
LATENTS, TEXTS = 16_384, 10_000
SHORT_TEXTS = 200_000
MILLION = 1_000_000


def batch_tokens() -> int:
    return 16384 if torch.cuda.is_available() else 2048


def some(tokens: TokenizedTexts, n: int) -> TokenizedTexts:
    """Evenly spaced texts of a corpus."""
    return tokens.select(np.linspace(0, len(tokens) - 1, n).astype(int).tolist())


def spread(n: int, of: int) -> list[int]:
    return np.unique(np.linspace(0, of - 1, n).astype(int)).tolist()


def the_pass(model: Model, sae: SAE[Any], tokens: TokenizedTexts, rounds: int) -> list[Row]:
    """Time for 1 to 4,096 latents in units of the bare pass, and of the outlier rule, which is fitted once a run."""
    rule = OutlierRule.fit(model, features_of(model, sae, [0]), tokens, factor=5.0)

    def bare() -> None:
        with torch.no_grad():
            for batch in batches(tokens, batch_tokens()):
                model(batch.ids.to(sae.device), stop_at_layer=LAYERS, padding_side="right")  # type: ignore[operator]
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    work: dict[str, Any] = {"bare": bare}
    for size in SIZES:
        features = features_of(model, sae, spread(size, int(sae.cfg.d_sae)))
        work[str(size)] = lambda features=features: max_activations(model, features, tokens, rule) and None
    times = alternate(work, rounds)
    most = {64: 1.15, 1024: 1.3}
    rows = []
    for size in SIZES:
        found = ratio(times, str(size), "bare")
        needed = f"≤ {most[size]}" if size in most else ""
        rows.append(
            Row(
                f"activation pass, {size:,} latents",
                f"bare forward pass, {LAYERS} layers",
                f"{found:.2f} × its time ({tokens.lengths.sum() / median(times, str(size)):,.0f} tokens/s)",
                needed,
                found <= most[size] if size in most else None,
            )
        )
    return rows


def padding(corpus: TokenizedTexts) -> Row:
    found = 1 - corpus.lengths.sum() / sum(batch.ids.numel() for batch in batches(corpus, batch_tokens()))
    return Row("padding in batches", f"all tokens run, {len(corpus):,} texts", f"{found:.2%}", "< 5 %", found < 0.05)


def against_reference(
    python: Path, model: Model, sae: SAE[Any], tokens: TokenizedTexts, rounds: int, latents: int = 64
) -> list[Row]:
    """64 features: the reference runs the model for each, so one of its features is timed and multiplied."""
    features = features_of(model, sae, spread(latents, int(sae.cfg.d_sae)))
    rule = OutlierRule.fit(model, features, tokens, factor=5.0)
    with reference(python) as theirs:
        times = alternate(
            {
                "ours": lambda: max_activations(model, features, tokens, rule) and None,
                "theirs": lambda: theirs.time(natural=list(tokens.texts), latent=features.indices[0])["seconds"],
            },
            rounds,
        )
    one = ratio(times, "theirs", "ours")
    read = reading_back(max_activations(model, features, tokens, rule), features.indices)
    return [
        Row(
            f"natural activations of {latents} latents, {len(tokens)} texts",
            f"reference without its cache (one latent timed, × {latents})",
            f"{latents * one:,.0f} × faster",
            "≥ 30",
            latents * one >= 30,
        ),
        Row(
            "the same",
            "reference with its cache (the one pass that fills it; reading it is not counted)",
            f"{one:.1f} × faster",
            "≥ 1",
            one >= 1,
        ),
        Row(f"reading the {latents} latents from the store again", "", f"{read * 1000:.1f} ms"),
    ]


def reading_back(found: Any, indices: tuple[int, ...]) -> float:
    """Seconds to read a pass from a store."""
    with tempfile.TemporaryDirectory() as folder, RunStore(folder) as store:
        store.keep_activations(indices, found)
        started = time.perf_counter()
        for index in indices:
            assert store.activations([index]) is not None
        return time.perf_counter() - started


def memory(model: Model, length: int = 8) -> list[Row]:
    """A pass of 16,384 latents over 10,000 texts, kept in a store and read again; short texts, for what it takes is theirs."""
    metadata = SAEMetadata(hook_name="blocks.9.hook_resid_post", model_name=model.cfg.model_name, prepend_bos=True)
    config = JumpReLUSAEConfig(d_in=int(model.cfg.d_model), d_sae=LATENTS, metadata=metadata)
    sae: SAE[Any] = JumpReLUSAE(config).to("cuda" if torch.cuda.is_available() else "cpu")
    sae.device = next(sae.parameters()).device
    generator = np.random.default_rng(0)
    given = generator.integers(1000, 200_000, (TEXTS, length - 1)).tolist()
    tokens = tokenize(model, Corpus.from_tokens(given), context=length, prepend_bos=True)
    features = features_of(model, sae, range(LATENTS))
    bare = OutlierRule(float("inf"))
    max_activations(model, features_of(model, sae, [0]), some(tokens, 512), bare)  # what the model itself needs, first
    with tempfile.TemporaryDirectory() as folder:
        with peak_memory() as most:
            found = max_activations(model, features, tokens, bare, folder=Path(folder))
            one_pass = most()
        with RunStore(folder) as store, peak_memory() as most:
            store.keep_activations(features.indices, found)
            del found
            again = store.activations(features.indices)
            assert again is not None
            kept = most()
            started = time.perf_counter()
            float(again.values[:, LATENTS // 2].max())
            column = time.perf_counter() - started
    what = f"{LATENTS:,} latents × {TEXTS:,} texts"
    return [
        Row(
            f"memory of the pass, {what}", "above the model", f"{one_pass / 1e9:.2f} GB", "< 2 GB", one_pass < 2 * 10**9
        ),
        Row(
            "memory of keeping and reading them again",
            "above the pass",
            f"{kept / 1e9:.2f} GB",
            "< 2 GB",
            one_pass + kept < 2 * 10**9,
        ),
        Row(f"one latent's {TEXTS:,} values", "", f"{column * 1e6:.0f} µs"),
    ]


def tokenization(model: Model, texts: tuple[str, ...]) -> list[Row]:
    """Tokenizing many short texts, and long ones cut to the context."""
    short = Corpus(tuple(f"{texts[i % len(texts)][:60]} {i}" for i in range(SHORT_TEXTS)), None, "short texts")
    started = time.perf_counter()
    with peak_memory() as most:
        tokens = tokenize(model, short, context=64, prepend_bos=True)
        above = most()
    seconds, scale = time.perf_counter() - started, MILLION / SHORT_TEXTS
    page = "\n".join(texts[:60])
    long = [page[i:] + page[:i] for i in range(200)]

    def whole() -> None:
        model.tokenizer(long, add_special_tokens=False)

    times = alternate(
        {
            "cut": lambda: tokenize(model, Corpus.from_texts(long), context=128, prepend_bos=True) and None,
            "whole": whole,
        },
        3,
    )
    return [
        Row(
            f"tokenizing {SHORT_TEXTS:,} texts, {tokens.lengths.sum():,} tokens",
            f"{MILLION:,}, extrapolated",
            f"{seconds:.0f} s and {above / 1e9:.2f} GB → {seconds * scale:.0f} s and {above * scale / 1e9:.1f} GB",
        ),
        Row(
            f"tokenizing texts of {len(page):,} characters, context 128",
            "tokenizing them whole",
            f"{1 / ratio(times, 'cut', 'whole'):.1f} × faster",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that holds fade-language")
    parser.add_argument("--texts", type=int, default=96, help="texts of up to 64 tokens to time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["pass", "reference", "memory", "tokens"], help="one section")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, sae, corpus = demo.model(), demo.sae(), demo.corpus()
    sections = {arguments.only} if arguments.only else {"pass", "reference", "memory", "tokens"}
    rows: list[Row] = []
    tokens = tokenize(model, corpus, context=64, prepend_bos=True)
    if "pass" in sections:
        rows += the_pass(model, sae, some(tokens, arguments.texts), arguments.rounds)
        rows.append(padding(tokenize(model, corpus, context=128, prepend_bos=True)))
    if "reference" in sections and arguments.python:
        rows += against_reference(arguments.python, model, sae, some(tokens, arguments.texts), arguments.rounds)
    if "memory" in sections:
        rows += memory(model)
    if "tokens" in sections:
        assert corpus.texts is not None
        rows += tokenization(model, corpus.texts)
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
