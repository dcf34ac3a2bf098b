"""Workers killed at random moments through whole evaluations, ten in all: is anything lost, asked twice or other than in one process?

    python -m tests.benchmarks.ray_kills

A planted model, a judge on loopback that takes 50 ms, two workers of this machine. A thread kills whoever runs the model, every two to six
seconds, with SIGKILL (a new one needs three to be ready); evaluations follow each other, each in a store of its own, until ten have died.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import threading
from typing import Any

import psutil
import torch

from fade_lens import Fade, RayWorkers, Results
from fade_lens._util.workers import HERE, Workers
from fade_lens.runs.ray import workers_of
from tests.benchmarks.timing import Row, machine, table
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer


def run(workers: Workers, folder: str | None = None) -> tuple[Results, list[str]]:
    """A whole evaluation, and what it asked, in no order."""
    with FakeJudge(rule, writer, latency=0.05) as server:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(3000), judge=judge_of(server), controls=("random_direction",))  # fmt: skip
        found = fade.evaluate(TRUE, ray=workers, store=folder, progress=False)
        return found, sorted(json.dumps(body["messages"]) for body in server.bodies)


class Killer(threading.Thread):
    """Kills workers that run a piece of work, so many, from one random moment to the next."""

    def __init__(self, most: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.most, self.killed, self.over, self._random = most, list[int](), threading.Event(), random.Random(seed)

    def run(self) -> None:
        while len(self.killed) < self.most and not self.over.wait(self._random.uniform(2.0, 6.0)):
            mine = psutil.Process().children(recursive=True)
            there = [one.pid for one in mine if one.is_running() and (one.cmdline() or [""])[0] == "ray::Worker.run"]
            if there:
                self.killed.append(self._random.choice(there))
                os.kill(self.killed[-1], signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    alone, asked = run(HERE)
    evaluations, other, twice = 0, 0, 0
    with workers_of(RayWorkers(address="local", workers=2, cpus=1, wait=300)) as two:
        two.start()
        killer = Killer(arguments.kills, arguments.seed)
        killer.start()
        while killer.is_alive():
            with tempfile.TemporaryDirectory() as folder:
                found, asked_here = run(two, folder)
            evaluations += 1
            other += differing(found, alone)
            twice += asked_here != asked
        killer.over.set()
    print(machine())
    rows = [
        Row("workers killed", f"{evaluations} evaluations", str(len(killer.killed)), str(arguments.kills), len(killer.killed) == arguments.kills),
        Row("descriptions with another number", "one process", str(other), "0", not other),
        Row("evaluations that asked other questions, or one twice", f"one process: {len(asked)} questions", str(twice), "0", not twice),
    ]  # fmt: skip
    print(table(rows))


def differing(found: Results, alone: Results) -> int:
    """Descriptions with another number, text, rating or choice."""
    facts: Any = lambda one: (one.metrics, one.fade, one.feature, one.permutation)  # noqa: E731
    return sum(facts(one) != facts(other) for one, other in zip(found, alone, strict=True))


if __name__ == "__main__":
    main()
