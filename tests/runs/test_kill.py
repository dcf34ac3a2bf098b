"""`kill -9` at random moments of a run: the next one asks nothing twice and ends with the numbers of an undisturbed run.

Loading torch takes longer than a run on the tiny model, so one process loads everything and forks for every run.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fade_lens import Explanations, Fade, Judge, Results
from fade_lens.runs.store import read_transcripts
from tests.explainers.test_explainers import names_marked
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer

KILLS, STORES = 20, 4
LATENCY, CONCURRENCY = 0.03, 3
SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 120, "synthetic_texts": 20}
TESTED = {"detection_texts": 24, "fuzzing_texts": 16, "fuzzing_silent": 4, "decisions_per_request": 3}
KEY = "sk-SECRET-planted-key"


def evaluated(url: str, store: str):
    """One whole run, with many small requests."""
    with Judge(
        "planted", base_url=url, api_key=KEY, concurrency=CONCURRENCY, texts_per_request=8, texts_per_set=5
    ) as judge:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(), judge=judge, **SMALL)
        return fade.evaluate(TRUE, store=store, progress=False)


def explained(url: str, store: str) -> Explanations:
    """Features explained by two explainers, one after the other, in one folder."""
    with Judge("planted", base_url=url, api_key=KEY, concurrency=1) as judge:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(300), judge=judge, least_texts=1)
        made = [
            fade.explain(range(8), explainer=name, store=store, progress=False) for name in ("one-shot", "structured")
        ]
        return made[0] + made[1]


def explained_and_evaluated(url: str, store: str) -> Results:
    """Features explained first, then scored, as `evaluate --explainer` does."""
    with Judge("planted", base_url=url, api_key=KEY, concurrency=CONCURRENCY) as judge:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(300), judge=judge, least_texts=1, **TESTED)
        return fade.evaluate([0, 1, 2, 3], explainer="one-shot", scorers=("detection", "fuzzing"), store=store, progress=False)  # fmt: skip


FORKS = """
import os, signal, sys, time
sys.path[:0] = [{root!r}]
import torch
torch.set_num_threads(1)
from tests.runs import test_kill
import fade_lens.llm.openai, openai
print("ready", flush=True)
for line in sys.stdin:
    store, run, seconds = line.rstrip("\\n").split("\\t")
    process = os.fork()
    if process == 0:
        getattr(test_kill, run)({url!r}, store)
        os._exit(0)
    if seconds:
        time.sleep(float(seconds))
        os.kill(process, signal.SIGKILL)  # not waited for yet, so that the id is its own even if it has ended
    os.waitpid(process, 0)
    print("over", flush=True)
"""


class Forks:
    """Runs that can be killed."""

    def __init__(self, url: str) -> None:
        code = FORKS.format(root=str(Path(__file__).parents[2]), url=url)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.say, self.hear = self.process.stdin, self.process.stdout
        assert self.hear.readline().strip() == "ready"

    def run(self, store: Path, seconds: float | None = None, run: str = "evaluated") -> float:
        """A run killed after so many seconds, or left to its end; returns how long it ran."""
        started = time.monotonic()
        self.say.write(f"{store}\t{run}\t{'' if seconds is None else seconds}\n")
        self.say.flush()
        assert self.hear.readline().strip() == "over"
        return time.monotonic() - started


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def kept_in(store: Path) -> set[str]:
    """The questions whose answers a folder has."""
    file = store / "run.sqlite"
    return {json.dumps(request["messages"]) for request, _ in read_transcripts(file)} if file.exists() else set()


@needs_fork
def test_explaining_that_is_killed_asks_nothing_twice_and_ends_alike(tmp_path: Path) -> None:
    chance = random.Random(1)
    with FakeJudge(rule=lambda concept, text: min(rule(concept, text), 1), says=names_marked, latency=0.03) as server:
        forks = Forks(server.base_url)
        try:
            for run in (explained, explained_and_evaluated):
                before = server.requests
                undisturbed = run(server.base_url, str(tmp_path / f"{run.__name__}, undisturbed"))
                asked, store, begun = server.requests - before, tmp_path / run.__name__, 0
                whole = forks.run(tmp_path / f"{run.__name__}, timed", run=run.__name__)
                assert server.requests - before == 2 * asked
                for _ in range(3):
                    answered, before = kept_in(store), server.requests
                    forks.run(store, whole * chance.uniform(0.1, 0.7), run.__name__)
                    sent = [json.dumps(body["messages"]) for body in server.bodies[before:]]
                    begun += 0 < len(sent) < asked
                    assert not answered & set(sent), "an answer that was kept is not asked for again"
                answered, before = kept_in(store), server.requests
                finished = run(server.base_url, str(store))
                assert begun and not answered & {json.dumps(body["messages"]) for body in server.bodies[before:]}
                pd.testing.assert_frame_equal(finished.frame, undisturbed.frame)
                ends = [
                    one.rows if isinstance(one, Explanations) else (one.items, one.without)
                    for one in (finished, undisturbed)
                ]
                assert ends[0] == ends[1]
        finally:
            forks.process.kill()
            forks.process.wait()


@pytest.mark.slow
@needs_fork
def test_killed_at_twenty_moments_it_asks_nothing_twice(tmp_path):
    chance = random.Random(0)
    with FakeJudge(rule=rule, writer=writer, latency=LATENCY) as server:
        undisturbed = evaluated(server.base_url, str(tmp_path / "undisturbed"))
        asked = server.requests
        forks = Forks(server.base_url)
        try:
            whole = forks.run(tmp_path / "timed")
            assert server.requests == 2 * asked
            begun = 0
            for number in range(STORES):
                store = tmp_path / str(number)
                answered: set[str] = set()
                from_here = server.requests
                for _ in range(KILLS // STORES):
                    before = server.requests
                    # One after the other they reach from the first moments of a run to its end.
                    forks.run(store, whole * chance.uniform(0.03, 0.4))
                    sent = [json.dumps(body["messages"]) for body in server.bodies[before:]]
                    begun += len(sent) > 1
                    assert not answered & set(sent), "an answer that was kept is not asked for again"
                    answered = kept_in(store)
                before = server.requests
                finished = evaluated(server.base_url, str(store))
                assert not answered & {json.dumps(body["messages"]) for body in server.bodies[before:]}
                # All that a kill may cost: what was in flight, and a check (two questions) while nothing was answered yet.
                most = asked + (KILLS // STORES) * (CONCURRENCY + 2)
                assert server.requests - from_here <= most
                assert finished.items == undisturbed.items
                pd.testing.assert_frame_equal(finished.frame, undisturbed.frame)
                assert [r.usage for r in finished] == [r.usage for r in undisturbed]
            assert begun >= KILLS // 3, "many of the runs were in the midst of their questions"
        finally:
            forks.process.kill()
            forks.process.wait()
