"""A judge that takes half a second: how well a run keeps its limit of requests in flight busy, against the reference in the same run.

    python -m tests.benchmarks.judge_overlap --python REFERENCE_ENV/bin/python     an environment with fade-language
    python -m tests.benchmarks.judge_overlap                                       makes one (pip, a temporary folder)

32 descriptions of a tiny model, default settings, no gate, 32 requests in flight at most; the judge is one loopback server for both
packages. Ideal is calls × latency / limit, all else being free. The reference, with its own defaults and a tiny model of its own,
takes the descriptions one after the other; a few are timed and its time a description is what they took on average.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from fade_lens import Fade, Judge
from fade_lens.data.descriptions import Description
from tests.benchmarks.parity_metrics import environment
from tests.benchmarks.reference_times import Reference, reference
from tests.benchmarks.timing import Row, machine, table
from tests.parity_case import SharedJudge
from tests.planted import CLASSES, natural_texts, planted_model, planted_sae
from tests.tiny import D_MODEL, OTHERS, SPECIAL, VOCABULARY, WORDS, word_tokenizer

LATENCY, LIMIT, DESCRIPTIONS, TEXTS = 0.5, 32, 32, 600


def serve(pipe: Connection) -> None:
    """The judge in a process of its own, as judges are: says its address, then how many requests and how many at once so far."""
    with SharedJudge(latency=LATENCY) as server:
        pipe.send(server.base_url)
        while pipe.recv():
            pipe.send((server.requests, server.peak))


class Server:
    """The judge's process, seen from here."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        self.base_url: str = self._pipe.recv()

    @property
    def seen(self) -> tuple[int, int]:
        """Requests so far, and most at once."""
        self._pipe.send(True)
        return self._pipe.recv()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(False)
        self._process.join()


def described() -> list[Description]:
    """As many descriptions of the three planted latents."""
    return [Description(place % len(CLASSES), f"the word '{word}'") for place, word in enumerate(WORDS[:DESCRIPTIONS])]


def ours(url: str, texts: list[str]) -> tuple[float, float]:
    """Seconds of a run, loading and the first look whether the judge is there apart, and of the same run once all answers are there: what torch alone takes."""
    model, sae = planted_model(), planted_sae()
    with tempfile.TemporaryDirectory() as folder:
        seconds: list[float] = []
        for _ in range(2):
            with Judge("m", base_url=url, api_key="none", concurrency=LIMIT) as judge:
                judge.check()
                fade = Fade(model, sae, corpus=texts, judge=judge, gate=None)
                started = time.perf_counter()
                fade.evaluate(described(), store=folder, progress=False)
                seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


def tiny_llama(folder: Path) -> None:
    """A model that the reference can hook, with the planted directions, and its SAE, in `folder`."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=D_MODEL, intermediate_size=D_MODEL, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    vocabulary = {word: place for place, word in enumerate(VOCABULARY)}
    with torch.no_grad():
        for index, words in CLASSES.items():
            for word in words:
                model.model.embed_tokens.weight[vocabulary[word], index] = 4.0
        for place, word in enumerate(OTHERS):
            model.model.embed_tokens.weight[vocabulary[word], 8 + place] = 4.0
    model.generation_config.suppress_tokens = list(range(len(SPECIAL)))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    weights = planted_sae().state_dict()
    save_file(
        {name: weights[name].clone() for name in ("W_enc", "b_enc", "threshold", "W_dec")},
        folder / "sae_weights.safetensors",
    )


def theirs(worker: Reference, url: str, texts: list[str], description: Description) -> float:
    """Seconds of one description, with the reference's defaults and no gate."""
    settings = {
        "subjectLLM": {"sae_module": True, "batch_size": 50},
        "evaluationLLM": {"type": "openai", "name": "m", "api_key": "none", "base_url": url},
        "experiments": {"gini_threshold": -1},
    }
    return worker.time(run=settings, texts=texts, latent=description.index, concept=description.text)["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that holds fade-language")
    parser.add_argument("--descriptions", type=int, default=2, help="how many the reference is timed on")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    texts = natural_texts(TEXTS)
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        python = arguments.python or environment(folder)
        seconds, alone = ours(server.base_url, texts)
        requests, peak = server.seen
        calls = requests - 4  # the checks
        tiny_llama(Path(folder))
        each: list[float] = []
        asked: list[int] = []
        with reference(python, Path(folder), Path(folder), 0) as worker:
            for description in described()[: arguments.descriptions]:
                before, _ = server.seen
                each.append(theirs(worker, server.base_url, texts, description))
                asked.append(server.seen[0] - before)
    ideal = calls * LATENCY / LIMIT
    them = statistics.mean(each)
    rows = [
        Row(
            f"fade_lens: {DESCRIPTIONS} descriptions, {calls} calls, {LIMIT} at once (peak {peak}), {seconds:.1f} s",
            f"calls × {LATENCY} s / {LIMIT} = {ideal:.1f} s",
            f"{seconds / ideal:.2f} ×",
            "≤ 1.2",
            seconds / ideal <= 1.2,
        ),
        Row("of which without a judge", "", f"{alone:.1f} s"),
        Row(
            f"reference: a description, {statistics.mean(asked):.0f} calls, {them:.1f} s",
            f"calls × {LATENCY} s / {LIMIT} = {statistics.mean(asked) * LATENCY / LIMIT:.1f} s",
            f"{them / (statistics.mean(asked) * LATENCY / LIMIT):.1f} ×",
        ),
        Row(
            f"{DESCRIPTIONS} descriptions: {them * DESCRIPTIONS:.0f} s (reference, from {len(each)}) against {seconds:.0f} s",
            "the reference",
            f"{them * DESCRIPTIONS / seconds:.0f} × faster",
        ),
    ]
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
