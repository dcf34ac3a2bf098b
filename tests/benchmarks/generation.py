"""Steered generation: new tokens a second, against Hugging Face `generate` and `HookedTransformer.generate`.

    python -m tests.benchmarks.generation [--batches 32,128,350] [--dtypes float32,bfloat16] [--rounds 1] [--temperatures 0,0.7]

Gemma 3 270M, prompts of 16 tokens, 20 new ones, greedy and sampled (0.7 is an evaluation's default). This library steers (additively, a latent of the demo's SAE at
seven factors a prompt, as an evaluation does); the others only generate: Hugging Face without any logits processor.
What is compared runs in turn; ratios are medians over the rounds. `HookedTransformer.generate` makes the logits of whole
prompts (5.9 GB for 350 of them) and takes minutes at large batches.
"""

import argparse
import time
from itertools import product
from typing import Any

import numpy as np
import torch

from fade_lens import demo
from fade_lens.demo.parts import gemma_folder
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.generation.next_token import Sampler
from fade_lens.generation.steering import (
    Request,
    Steering,
    continue_batch,
    decoder_for,
    generate,
    uniforms,
)
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import textless_tokens
from tests.benchmarks.timing import Times, machine, median, ratio

PROMPT, NEW, LATENT, FACTORS = 16, 20, 98, (-1.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
REFERENCE = 600.0


def prompts_of(model: Any, n: int) -> list[tuple[int, ...]]:
    """The first tokens of texts of the demo's corpus."""
    found: list[tuple[int, ...]] = []
    for text in demo.corpus().texts or ():
        tokens = model.to_tokens(text)[0, :PROMPT].tolist()
        if len(tokens) == PROMPT:
            found.append(tuple(tokens))
        if len(found) == n:
            break
    return found


def hugging_face(dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(gemma_folder(), dtype=dtype, local_files_only=True)
    hf.generation_config.eos_token_id = None  # every text runs on to its last token
    return hf.to(device).eval()


def measure(model: Any, hf: Any, sae: Any, batch: int, temperature: float, rounds: int, hooked_batch: int) -> list[str]:
    """One row of the table."""
    features, reference = features_of(model, sae, [LATENT]), torch.tensor([REFERENCE])
    prompts = prompts_of(model, -(-batch // len(FACTORS)))
    requests = [Request(p, 0, f, stream=0) for p in prompts for f in FACTORS][:batch]
    tokens = torch.tensor([r.prompt for r in requests], device=hf.device)
    decoder = decoder_for(model, features, requests)  # made once a run

    def ours(rows: int = batch, new: int = NEW) -> None:
        options: dict[str, Any] = {"new_tokens": new, "temperature": temperature, "batch_size": batch}
        generate(model, features, requests[:rows], reference, **options, decoder=decoder)

    # From the whole vocabulary, as here; Hugging Face's own default is the 50 likeliest.
    sampled: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    )

    def theirs(rows: int = batch, new: int = NEW) -> None:
        mask = torch.ones_like(tokens[:rows])
        hf.generate(tokens[:rows], attention_mask=mask, max_new_tokens=new, **sampled)

    def hooked(rows: int = batch, new: int = NEW) -> None:
        options = {**sampled, "top_k": None} if temperature else sampled
        model.generate(tokens[:rows], max_new_tokens=new, **options, stop_at_eos=False, verbose=False)

    work = {"ours": ours, "hf": theirs} | ({"hooked": hooked} if batch <= hooked_batch else {})
    for run in work.values():
        run(2, 2)  # warm
    times: Times = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    speed = {name: batch * NEW / median(times, name) for name in work}
    against = [f"{speed[n]:.0f} ({ratio(times, n, 'ours'):.1f} ×)" if n in work else "" for n in ("hf", "hooked")]
    return [str(batch), f"{temperature:g}", f"{speed['ours']:.0f}", *against]


def agreement(model: Any, sae: Any) -> str:
    """Whether the tokens are those of the plain loop: TransformerLens' own forward pass and cache, no shortcut."""
    features = features_of(model, sae, [LATENT])
    requests = [Request(p, 0, f, stream=0) for p in prompts_of(model, 5) for f in FACTORS]
    found = generate(model, features, requests, torch.tensor([REFERENCE]), new_tokens=NEW)
    with torch.no_grad():
        decoder = HookedDecoder(model, whole=True)
        forbidden = textless_tokens(model, decoder.head.d_vocab)
        sampler = Sampler(decoder.head, uniforms(requests, NEW), forbidden, 0.0, None)
        steering = Steering(model, features, requests, torch.tensor([REFERENCE]), "add")
        plain = continue_batch(decoder, steering, requests, sampler, NEW)
    same = int((found == plain).all(axis=1).sum())
    return f"{same} of {len(requests)} texts equal those of the plain loop, token for token ({np.mean(found == plain):.1%} of tokens)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="32,128,350")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--temperatures", default="0,0.7")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--hooked-batch", type=int, default=32, help="Largest batch for HookedTransformer.generate.")
    chosen = parser.parse_args()
    model, sae = demo.model(), demo.sae()
    print(f"New tokens a second, and our speed in units of theirs; {machine()}\n")
    print("| dtype | batch | temperature | fade_lens | Hugging Face | HookedTransformer |\n|---|---|---|---|---|---|")
    for name in chosen.dtypes.split(","):
        dtype: torch.dtype = getattr(torch, name)
        model.to(dtype)
        model.cfg.dtype = dtype
        hf = hugging_face(dtype, next(model.parameters()).device)
        for batch, temperature in product(
            map(int, chosen.batches.split(",")), map(float, chosen.temperatures.split(","))
        ):
            row = measure(model, hf, sae, batch, temperature, chosen.rounds, chosen.hooked_batch)
            print(f"| {name} | {' | '.join(row)} |", flush=True)
        if dtype == torch.float32:
            print(f"\n{agreement(model, sae)}\n", flush=True)


if __name__ == "__main__":
    main()
