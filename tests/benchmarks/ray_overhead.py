"""What Ray costs a run that waits for its judge, and what the first bottleneck of a run on many workers is.

    python -m tests.benchmarks.ray_overhead

A planted model and a judge in a process of its own that takes 200 ms, at most 16 requests at once: a run in one process and on two workers of
this machine, in turn. Then the rates: questions that the driver carries with a judge that answers at once, descriptions that its statistics do
(a run whose answers, activations and continuations are all kept), activations and continuations of a worker, what a piece of work costs to send,
and how many sampled tokens differ between workers and one process (0 on equal machines; elsewhere run it there).
"""

import argparse
import multiprocessing
import tempfile
import time
from itertools import zip_longest
from multiprocessing.connection import Connection
from typing import Any

import torch

from fade_lens import Fade, Judge, RayWorkers
from fade_lens._util.workers import HERE, Workers
from fade_lens.data.descriptions import Description
from fade_lens.generation.continuations import Steered
from fade_lens.generation.continuing import Continuer
from fade_lens.runs.ray import workers_of
from fade_lens.subject.activations import OutlierRule, max_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests.benchmarks.timing import Row, alternate, machine, median, ratio, table
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, natural_texts, planted_model, planted_sae
from tests.runs.ray_work import squares
from tests.tiny import WORDS

LATENCY, LIMIT = 0.2, 16


def serve(pipe: Connection, latency: float) -> None:
    """The judge, in a process of its own: says its address, then how many requests came so far."""
    with FakeJudge(latency=latency) as server:
        pipe.send(server.base_url)
        while pipe.recv():
            pipe.send(server.requests)


class Server:
    """The judge's process, seen from here."""

    def __init__(self, latency: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, latency), daemon=True)
        self._process.start()
        self.base_url: str = self._pipe.recv()

    @property
    def requests(self) -> int:
        """So far."""
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()


def described(n: int) -> list[Description]:
    """As many descriptions of the three planted latents."""
    return [Description(at % len(CLASSES), f"the word '{WORDS[at % len(WORDS)]}', {at}") for at in range(n)]


def run(server: Server, descriptions: int, workers: Workers, folder: str | None = None) -> float:
    """Seconds of a run, the first look whether the judge is there left out."""
    with Judge("m", base_url=server.base_url, api_key="none", concurrency=LIMIT) as judge:
        judge.check()
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(600), judge=judge, gate=None)
        started = time.perf_counter()
        fade.evaluate(described(descriptions), ray=workers, store=folder, progress=False)
        return time.perf_counter() - started


def torch_rates(workers: Workers, texts: list[str], factors: int) -> tuple[float, float, list[str]]:
    """Tokens a second through the model and encoder, continuations of 30 tokens a second, and these, by their tokens (words)."""
    model, sae = planted_model(), planted_sae()
    features = features_of(model, sae, list(range(8)))
    tokens = tokenize(model, texts, context=64, prepend_bos=True)
    pass_of: Any = lambda: max_activations(model, features, tokens, OutlierRule(float("inf")), workers=workers)  # noqa: E731
    pass_of()
    started = time.perf_counter()
    pass_of()
    activations = len(tokens.ids) / (time.perf_counter() - started)
    prompts = [tuple(tokens[number][:4].tolist()) for number in range(30)]
    sets = [Steered(index, 0.1 * factor) for index in range(8) for factor in range(1, factors + 1)]
    started = time.perf_counter()
    continuer = Continuer(model, features, lambda _: 1.0, prompts, workers=workers)
    continuer.write(sets)
    rate = len(sets) * len(prompts) / (time.perf_counter() - started)
    return activations, rate, [token for one in sets for text in continuer.texts(one) for token in text.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=20000)
    parser.add_argument("--factors", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n = arguments.descriptions
    slow, fast = Server(LATENCY), Server(0.0)
    started = time.perf_counter()
    with workers_of(RayWorkers(address="local", workers=2, cpus=1, wait=300)) as two:
        two.start()
        ready = time.perf_counter() - started
        run(fast, 1, two)
        first = time.perf_counter() - started
        work = {"one process": lambda: run(slow, n, HERE), "two workers": lambda: run(slow, n, two)}
        times = alternate(work, arguments.rounds)
        overhead = ratio(times, "two workers", "one process")
        before = fast.requests
        with tempfile.TemporaryDirectory() as folder:
            seconds = run(fast, n, two, folder)
            asked = fast.requests - before
            again = run(fast, n, two, folder)
        started, pieces = time.perf_counter(), 400
        list(two.each(squares, (0,), ((number, 0.0) for number in range(pieces))))
        piece = (time.perf_counter() - started) / pieces
        rates = {name: torch_rates(who, natural_texts(arguments.texts), arguments.factors) for name, who in (("one process", HERE), ("two workers", two))}  # fmt: skip
    for server in (slow, fast):
        server.close()
    print(machine())
    own, theirs = (rates[name][2] for name in ("one process", "two workers"))
    differ = sum(a != b for a, b in zip_longest(own, theirs))
    alone, with_two = median(times, "one process"), median(times, "two workers")
    rows = [
        Row("judge-bound run, two workers", f"one process: {alone:.1f} s", f"{with_two:.1f} s, × {overhead:.3f}", "≤ 1.10", overhead <= 1.10),
        Row("a cluster of two workers ready", "", f"{ready:.1f} s; first run done after {first:.1f} s"),
        Row("questions that the driver carries", "a judge that answers at once", f"{asked / seconds:.0f} a second ({asked} for {n} descriptions)"),
        Row("descriptions that its statistics do", "everything kept", f"{n / again:.1f} a second"),
        Row("a piece of work, sent and taken back", "", f"{1000 * piece:.1f} ms"),
        *(Row(f"activations and continuations, {name}", "", f"{a / 1000:.0f} thousand tokens/s, {c:.0f} continuations/s") for name, (a, c, _) in rates.items()),
        Row("sampled tokens that differ", f"one process: {len(own):,}", str(differ), "0", not differ),
    ]  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
