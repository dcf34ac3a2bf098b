"""Does `fade-lens demo` come to the same conclusion whatever the seed: is the wrong description the worst, and does every other one reach the gate?

    python -m tests.benchmarks.demo FOLDER [SEEDS]

runs it with the embedded judge at ten seeds (or so many), the model loaded once; FOLDER keeps each, so that it goes on where it stopped.
"""

import sys
import time
from pathlib import Path

from fade_lens import Fade, Judge, demo
from fade_lens.cli.demo import FEW, ONE_BY_ONE, beginnings
from fade_lens.metrics.metric import GATE
from fade_lens.runs.results import Result
from fade_lens.runs.settings import settings_of

WRONG = 4005


def least(result: Result) -> float:
    """The lower one of the scores that decide; an undefined one decides nothing."""
    return min(m.value for m in (result.clarity, result.responsiveness) if m.value is not None)


def main() -> None:
    folder, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10
    model, sae, judge = demo.model(), demo.sae(), Judge.local(demo.judge_gguf(), **ONE_BY_ONE)
    same = 0
    print("| seed | s | " + " | ".join(f"{i} {text}" for i, text in demo.DESCRIPTIONS.items()) + " | |")
    print("|--:|--:|" + "---|" * (len(demo.DESCRIPTIONS) + 1))
    for seed in range(seeds):
        started = time.monotonic()
        fade = Fade(model, sae, corpus=beginnings(), judge=judge, settings=settings_of(None, {**FEW, "seed": seed}))
        results = fade.evaluate(demo.DESCRIPTIONS, store=folder / f"seed{seed}", progress=False)
        by_index = {r.description.index: least(r) for r in results}
        others = [value for index, value in by_index.items() if index != WRONG]
        as_hoped = by_index[WRONG] < GATE <= min(others)
        same += as_hoped
        told = (f"{n(r.clarity.value)}, {n(r.responsiveness.value)} ({r.standing})" for r in results)
        print(
            f"| {seed} | {time.monotonic() - started:.0f} | {' | '.join(told)} | {'' if as_hoped else '**otherwise**'} |",
            flush=True,
        )
    print(f"\nClarity, Responsiveness (standing). The same conclusion at {same} of {seeds} seeds.")


def n(value: float | None) -> str:
    """A score in two digits."""
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
