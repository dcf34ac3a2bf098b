"""Steered generation and the activation pass on whatever card is there: equality first, then speed.

    python -m tests.benchmarks.gpu [--minutes 8.5] [--small] [--device cuda]

No hub: models of Gemma 2 2B's shape (bfloat16) and GPT-2 small's (float32) with random weights, prompts of 16 tokens, 30 new ones. This
library steers 64 latents additively at seven factors; Hugging Face and `HookedTransformer` only generate. A cell is run to warm up, this
library's three times (steps are recorded in the second batch and compared in the third), then up to three times within its seconds: the median
counts. Cells for which no time is left, or no memory, show –. A step's milliseconds hold its share of the prompts' pass, and all that Python does.

The floor of a step: the weights read once at the bandwidth of a copy, then their products at the rate of a large one, both measured
in the same run. The time that the GPU is busy is that of its kernels, as `torch.profiler` sees them, in units of the time without it.
`--small` tries everything on tiny models, on a CPU too.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sae_lens import SAE, HookedSAETransformer, JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformer_lens import HookedTransformerConfig
from transformers import AutoModel, AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedTokenizerFast

from fade_lens.data.corpus import Corpus
from fade_lens.generation.decoders.base import Decoder
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.generation.steering import Request, decoder_for, generate
from fade_lens.subject.activations import OutlierRule, batches, max_activations, usual_tokens
from fade_lens.subject.features import features_of
from fade_lens.subject.memory import free_bytes, is_out_of_memory, make_room, rows_at_once
from fade_lens.subject.tokens import TokenizedTexts, tokenize
from tests.benchmarks.timing import machine

FACTORS = (-1.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CELL, ROUNDS = 12.0, 3
"""Seconds after which a cell is not run again, and runs at most beside the first."""


@dataclass(frozen=True)
class Case:
    """What is run: a model's shape and dtype, and the sizes of the tables."""

    name: str
    sizes: dict[str, Any]
    dtype: torch.dtype
    batches: tuple[int, ...] = (64, 350, 1024)
    prompt: int = 16
    new: int = 30
    steered: int = 64
    latents: tuple[int, ...] = (64, 16_384)
    texts: int = 512
    length: int = 128

    def config(self, layers: int | None = None) -> Any:
        """The same shape as Hugging Face has it."""
        s = self.sizes
        shape = {"vocab_size": s["d_vocab"], "eos_token_id": None, "bos_token_id": 0, "pad_token_id": 0}
        n = layers or s["n_layers"]
        if s["normalization_type"] == "LN":
            return GPT2Config(**shape, n_layer=n, n_embd=s["d_model"], n_head=s["n_heads"], n_positions=s["n_ctx"])
        return Gemma2Config(
            **shape,
            num_hidden_layers=n,
            hidden_size=s["d_model"],
            intermediate_size=s["d_mlp"],
            num_attention_heads=s["n_heads"],
            num_key_value_heads=s["n_key_value_heads"],
            head_dim=s["d_head"],
            query_pre_attn_scalar=s["d_head"],
            max_position_embeddings=s["n_ctx"],
        )


def gpt2_sizes(layers: int, d_model: int, heads: int, d_vocab: int) -> dict[str, Any]:
    return {
        "n_layers": layers, "d_model": d_model, "n_heads": heads, "d_head": d_model // heads, "d_mlp": 4 * d_model, "n_ctx": 1024,
        "d_vocab": d_vocab, "act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "standard",
    }  # fmt: skip


def gemma_sizes(layers: int, d_model: int, d_mlp: int, heads: int, d_head: int, d_vocab: int) -> dict[str, Any]:
    return {
        "n_layers": layers, "d_model": d_model, "n_heads": heads, "d_head": d_head, "d_mlp": d_mlp, "n_ctx": 1024, "d_vocab": d_vocab,
        "act_fn": "gelu_pytorch_tanh", "normalization_type": "RMS", "final_rms": True, "use_normalization_before_and_after": True,
        "gated_mlp": True, "n_key_value_heads": heads // 2, "use_local_attn": True, "window_size": 4096,
        "attn_types": (["global", "local"] * layers)[:layers], "attn_scores_soft_cap": 50.0, "output_logits_soft_cap": 30.0,
        "positional_embedding_type": "rotary", "rotary_dim": d_head,
    }  # fmt: skip


TRIED = {"batches": (4, 9), "prompt": 5, "new": 6, "steered": 8, "latents": (8, 64), "texts": 12, "length": 16}
GEMMA = Case("Gemma 2 2B's shape", gemma_sizes(26, 2304, 9216, 8, 256, 256_000), torch.bfloat16)
GPT2 = Case("GPT-2 small's shape", gpt2_sizes(12, 768, 12, 50_257), torch.float32)
SMALL = (
    Case("a small Gemma 2", gemma_sizes(2, 32, 64, 4, 8, 300), torch.float32, **TRIED),
    Case("a small GPT-2", gpt2_sizes(2, 32, 4, 300), torch.float32, **TRIED),
)


def made(case: Case, device: str, seed: int = 0) -> HookedSAETransformer:
    """A model with random weights, made on the device."""
    cfg = HookedTransformerConfig(**case.sizes, dtype=case.dtype, device=device, init_weights=False, model_name="made")
    with torch.device(device):
        model = HookedSAETransformer(cfg)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.02 if parameter.ndim > 1 else 0.01, generator=generator)
            if ".ln" in name or name.startswith("ln_"):
                parameter.add_(0.0 if name.endswith(".b") else 1.0)
            if name == "unembed.W_U":  # logits of a spread at which what is likely differs from what is not
                parameter.mul_(100 / cfg.d_model**0.5)
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {f"w{i}": i for i in range(3, cfg.d_vocab)}
    backend = Tokenizer(WordLevel(words, unk_token="<pad>"))
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    return model


def sae_of(model: HookedSAETransformer, latents: int) -> SAE[Any]:
    """A JumpReLU SAE in the middle of the model, some percent of whose latents fire."""
    cfg = model.cfg
    metadata = SAEMetadata(hook_name=hook(model), model_name=cfg.model_name, prepend_bos=True)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=cfg.d_model, d_sae=latents, device=str(cfg.device), metadata=metadata))
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.copy_(torch.randn(weight.shape, generator=generator) / cfg.d_model**0.5)
        sae.threshold.fill_(0.05)
    return sae


def hook(model: HookedSAETransformer) -> str:
    return f"blocks.{model.cfg.n_layers // 2}.hook_resid_post"


def requests_of(case: Case, n: int) -> list[Request]:
    """Requests of an evaluation: each prompt at every factor, the features in turn."""
    prompts = np.random.default_rng(0).integers(3, case.sizes["d_vocab"], (-(-n // len(FACTORS)), case.prompt)).tolist()
    return [
        Request(tuple(prompt), i % case.steered, factor, i * len(FACTORS) + j)
        for i, prompt in enumerate(prompts)
        for j, factor in enumerate(FACTORS)
    ][:n]


class Clock:
    """Times cells until no time is left."""

    def __init__(self, device: torch.device, minutes: float) -> None:
        self._device, self._end = device, time.monotonic() + 60 * minutes

    def left(self) -> float:
        return self._end - time.monotonic()

    def once(self, run: Callable[[], Any]) -> float:
        """Seconds of a run."""
        self.wait()
        started = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def seconds(self, run: Callable[[], Any], warm: int = 1) -> float | None:
        """The median of a cell's runs after so many that do not count, or None where no time or memory is left for it."""
        if self.left() < CELL:
            return None
        try:
            for _ in range(warm - 1):
                self.once(run)
            first, times = self.once(run), list[float]()
            until = time.monotonic() + min(CELL - first, self.left() - CELL)
            while len(times) < ROUNDS and (not times or time.monotonic() + times[-1] < until) and first < CELL:
                times.append(self.once(run))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            make_room(self._device)
            return None
        return statistics.median(times or [first])


def row(*cells: Any) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def header(*cells: str) -> None:
    print()
    row(*cells)
    row(*["---"] * len(cells))


def number(amount: float, seconds: float | None) -> str:
    """So much a second."""
    return "–" if not seconds else f"{amount / seconds:,.0f}"


def times_of(seconds: float | None, other: float | None) -> str:
    """How many times as fast as another."""
    return "–" if not seconds or not other else f"{other / seconds:.2f} ×"


def equality(cases: Sequence[Case], device: torch.device) -> bool:
    """In float32 on small models: our decoder against the plain loop, and the device against the CPU."""
    header("model, float32", "sampling", "equal to the plain loop", "equal to the CPU", "steps replayed")
    whole = True
    for case in cases:
        on_cpu = made(case, "cpu")
        model = copy.deepcopy(on_cpu).to(str(device))
        requests = requests_of(case, 56)
        for temperature in (0.0, 0.7):
            found, replayed = tokens_of(model, case, requests, temperature)
            plain, _ = tokens_of(model, case, requests, temperature, HookedDecoder(model, whole=False))
            others = plain, tokens_of(on_cpu, case, requests, temperature)[0]
            same = [np.mean(found == other) for other in others]
            texts = [int((found == other).all(axis=1).sum()) for other in others]
            whole &= texts[0] == len(requests)
            told = [f"{t} of {len(requests)} texts ({s:.2%} of tokens)" for s, t in zip(same, texts, strict=True)]
            row(case.name, f"{temperature:g}" if temperature else "greedy", *told, replayed)
    return whole


def tokens_of(
    model: HookedSAETransformer,
    case: Case,
    requests: list[Request],
    temperature: float,
    decoder: Decoder | None = None,
) -> tuple[np.ndarray, int]:
    """A decoder's third batch, the first whose steps are replayed where they are recorded, and how many were; None: the decoder that is chosen."""
    features = features_of(model, sae_of(model, max(case.latents)), range(case.steered))
    decoder = decoder or decoder_for(model, features, requests)
    options: dict[str, Any] = {"new_tokens": case.new, "temperature": temperature, "decoder": decoder}
    *_, found = (generate(model, features, requests, torch.full((case.steered,), 0.5), **options) for _ in range(3))
    return found, getattr(decoder, "replayed", 0)


@dataclass(frozen=True)
class Card:
    """Bytes a second of a copy, read and written, and products a second of a large matrix."""

    bandwidth: float
    products: float

    @classmethod
    def measured(cls, clock: Clock, device: torch.device, dtype: torch.dtype, small: bool) -> "Card":
        size = 512 if small else 8192
        source = torch.zeros(size, size, 4 if small else 8, dtype=dtype, device=device)
        target = torch.empty_like(source)
        a = torch.randn(size, size, device=device).to(dtype)
        copied = min(clock.once(lambda: target.copy_(source)) for _ in range(5))
        multiplied = min(clock.once(lambda: a @ a) for _ in range(5))
        return cls(2 * source.nbytes / copied, 2 * size**3 / multiplied)

    def floor(self, model: HookedSAETransformer, rows: int) -> float:
        """Seconds of a step at least: weights but those of the embedding are read once, and each is multiplied for every row."""
        used = [p for name, p in model.named_parameters() if not name.startswith(("embed.", "pos_embed."))]
        read, products = sum(p.nbytes for p in used), 2 * rows * sum(p.numel() for p in used)
        return read / self.bandwidth + products / self.products


def busy(run: Callable[[], Any], seconds: float | None, device: torch.device) -> str:
    """The share of a run's time in which kernels run on the GPU."""
    if device.type != "cuda" or not seconds:
        return "–"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize(device)
    kernels = [event for event in profile.key_averages() if str(event.device_type).endswith("CUDA")]
    return f"{sum(event.self_device_time_total for event in kernels) / 1e6 / seconds:.0%}"


def generation(case: Case, model: HookedSAETransformer, clock: Clock, card: Card, hooked: bool) -> None:
    """New tokens a second."""
    device = torch.device(model.cfg.device)
    features = features_of(model, sae_of(model, max(case.latents)), range(case.steered))
    reference = torch.full((case.steered,), 5.0)
    decoder = decoder_for(model, features, requests_of(case, max(case.batches)))
    compact = CompactDecoder(model, [features.read_hook, features.write_hook], [requests_of(case, 1)[0].prompt])
    with device:  # where random weights are quickly made
        hf = AutoModelForCausalLM.from_config(case.config(), dtype=case.dtype).eval()
    print(
        f"\n{case.name}, {case.dtype}: new tokens a second, and in units of the others' speed; decoder {type(decoder).__name__}"
    )
    header(
        "batch", "sampling", "fade_lens", "plain compact loop", "Hugging Face", "HookedTransformer", "ms a step", "floor", "GPU busy"
    )  # fmt: skip
    for batch in case.batches:
        requests = requests_of(case, batch)
        tokens = torch.tensor([r.prompt for r in requests], device=device)
        for temperature in (0.7, 0.0):
            drawn: dict[str, Any] = (
                {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
            )

            def ours(by: Decoder = decoder, batch=batch, temperature=temperature, requests=requests) -> None:
                options: dict[str, Any] = {"new_tokens": case.new, "temperature": temperature, "batch_size": batch}
                generate(model, features, requests, reference, decoder=by, **options)

            def theirs(tokens=tokens, drawn=drawn) -> None:
                mask, top = torch.ones_like(tokens), {"top_k": 0} if drawn["do_sample"] else {}
                with torch.no_grad():
                    hf.generate(tokens, attention_mask=mask, max_new_tokens=case.new, **drawn, **top)

            def lens(tokens=tokens, drawn=drawn) -> None:
                with torch.no_grad():
                    model.generate(tokens, max_new_tokens=case.new, stop_at_eos=False, verbose=False, **drawn)

            took = clock.seconds(ours, warm=3)
            loop, other = clock.seconds(lambda ours=ours: ours(compact)), clock.seconds(theirs)
            third = clock.seconds(lens) if hooked else None
            amount, step, floor = batch * case.new, (took or 0) / case.new, card.floor(model, batch)
            row(
                batch,
                f"{temperature:g}" if temperature else "greedy",
                number(amount, took),
                *(f"{number(amount, s)} ({times_of(took, s)})" for s in (loop, other, third)),
                f"{1000 * step:.1f}" if took else "–",
                f"{1000 * floor:.1f} ({step / floor:.1f} ×)" if took else f"{1000 * floor:.1f}",
                busy(ours, took, device),
            )


def activation_pass(case: Case, model: HookedSAETransformer, clock: Clock) -> None:
    """Tokens a second, against the model alone up to the same layer, as TransformerLens and Hugging Face run it."""
    device, layers = torch.device(model.cfg.device), model.cfg.n_layers // 2 + 1
    ids = np.random.default_rng(1).integers(3, case.sizes["d_vocab"], (case.texts, case.length - 1)).tolist()
    tokens = tokenize(model, Corpus.from_tokens(ids), context=case.length, prepend_bos=True)
    size, amount, rule = usual_tokens(model, tokens), int(tokens.lengths.sum()), OutlierRule(float("inf"))
    with device:  # where random weights are quickly made
        hf = AutoModel.from_config(case.config(layers), dtype=case.dtype).eval()

    def bare() -> None:
        for batch in on_device(tokens, size, device):
            model(batch, stop_at_layer=layers, padding_side="right")

    def theirs() -> None:
        for batch in on_device(tokens, size, device):
            hf(batch, use_cache=False)

    with torch.no_grad():
        alone, other = clock.seconds(bare), clock.seconds(theirs)
    sae = sae_of(model, max(case.latents))
    print(f"\n{case.name}, {case.dtype}: tokens a second of a pass through {layers} layers, {size:,} tokens a batch")
    header("latents", "fade_lens", "bare forward", "its time, in units of that", "Hugging Face's forward", "GPU busy")
    for latents in case.latents:
        features = features_of(model, sae, range(latents))

        def ours(features=features) -> None:
            max_activations(model, features, tokens, rule, batch_tokens=size)

        took = clock.seconds(ours)
        cells = number(amount, took), number(amount, alone), times_of(alone, took), number(amount, other)
        row(f"{latents:,}", *cells, busy(ours, took, device))


def on_device(tokens: TokenizedTexts, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    return (batch.ids.to(device, non_blocking=True) for batch in batches(tokens, size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=8.5, help="from when models are made; no cell is begun after it"
    )
    parser.add_argument("--small", action="store_true", help="tiny models, in seconds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    device, small = torch.device(chosen.device), chosen.small
    clock = Clock(device, chosen.minutes)
    print(machine())
    equal = equality(SMALL, device)
    if not equal:
        print("\n**Tokens differ from those of the plain loop.**")
    for case in SMALL if small else (GEMMA, GPT2):
        card = Card.measured(clock, device, case.dtype, small)
        rates = f"{card.bandwidth / 1e9:,.0f} GB/s of a copy, {card.products / 1e12:,.1f} TFLOP/s of a product"
        model = made(case, str(device))
        memory = free_bytes(device)
        fits = rows_at_once(model, [(1,) * case.prompt], case.new)
        room = "" if memory is None else f"{memory / 1e9:.0f} GB free: "
        print(f"\n{case.name}, {case.dtype}: {rates}; {room}{fits:,} continuations would run at a time")
        generation(case, model, clock, card, hooked=case.sizes["normalization_type"] == "LN")
        activation_pass(case, model, clock)
        del model
        make_room(device)
    sys.exit(not equal)


if __name__ == "__main__":
    main()
