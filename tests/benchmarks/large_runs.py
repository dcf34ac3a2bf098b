"""Seconds of one core and memory of everything that is done with the results of a large run, and how they grow with the run.

    python -m tests.benchmarks.large_runs [1000 10000 100000] [--folder /tmp]

The evidence is made up, in the sizes of a run with default settings: 100 rated texts, 30 written ones, 150 continuations of each description that
passes the gate, 10 strongest texts of 64 tokens. Results are written as they come. Every step runs in a process of its own; its memory is the most
that the process held, the libraries in it (told as "nothing").
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fade_lens import compare, neuronpedia, summary
from fade_lens.analysis.audit import audit
from fade_lens.data.collisions import collisions
from fade_lens.data.descriptions import Description
from fade_lens.neuronpedia.frames import frame
from fade_lens.neuronpedia.records import Imported, Row
from fade_lens.report.cards import DETAILS, card
from fade_lens.runs.kept import KeptResults, ResultsFile
from fade_lens.runs.results import Result, Results
from tests.benchmarks.timing import machine
from tests.made_up import CONCEPTS, KINDS, Prose, made_up_result, made_up_run

DIFFERENT = 64
"""Results with evidence of their own; the others are these under other indices and descriptions."""
CARDS = 100
"""Cards that are opened, all over the run."""
STEPS = dict[str, Callable[[Path, int], object]]()


def step(name: str) -> Callable[[Callable[[Path, int], object]], Callable[[Path, int], object]]:
    def register(made: Callable[[Path, int], object]) -> Callable[[Path, int], object]:
        STEPS[name] = made
        return made

    return register


def made(n: int, n_rated: int) -> Iterator[Result]:
    """Made-up results, one at a time."""
    prose, random = Prose(n), np.random.default_rng(n)
    words = ["".join(random.choice(list("etaoinshrdlu"), random.integers(2, 9))) for _ in range(5000)]
    prose.body = " ".join(words[i % 5000] for i in random.zipf(1.2, 100_000))  # packs to two fifths, as English does
    some = [made_up_result(KINDS[i % len(KINDS)], index=i, n_rated=n_rated, prose=prose) for i in range(min(n, DIFFERENT))]  # fmt: skip
    for i in range(n):
        yield replace(some[i % len(some)], description=Description(i, f"{CONCEPTS[i % len(CONCEPTS)]}, the {i // 2}th"))


def write(path: Path, n: int, n_rated: int) -> None:
    """A run's file, each result written as it comes and then forgotten."""
    coming, run = ResultsFile.passing(path.parent), made_up_run()
    for number, result in enumerate(made(n, n_rated)):
        coming.keep("", number, result)
    Results(KeptResults(coming, "", n, run.gate, ("fade",)), run).save(path)


def first(folder: Path) -> Results:
    return Results.load(folder / "first.sqlite")


@step("nothing")
def nothing(folder: Path, n: int) -> None:
    """The libraries alone."""


@step("write as they come, save")
def write_first(folder: Path, n: int) -> None:
    write(folder / "first.sqlite", n, 100)


@step("write the other run, 10 rated texts")
def write_second(folder: Path, n: int) -> None:
    write(folder / "second.sqlite", n, 10)


@step("load")
def load(folder: Path, n: int) -> None:
    assert len(first(folder)) == n and repr(first(folder))


@step("frame")
def made_frame(folder: Path, n: int) -> None:
    assert len(first(folder).frame) == n


@step("frame, to_parquet")
def to_parquet(folder: Path, n: int) -> None:
    first(folder).to_parquet(folder / "first.parquet")


@step("summary")
def summed(folder: Path, n: int) -> None:
    summary(first(folder))


@step("compare with the other run")
def compared(folder: Path, n: int) -> None:
    compare(folder / "first.sqlite", folder / "second.sqlite")


@step("collisions of all, half of them with one description")
def collided(folder: Path, n: int) -> None:
    found = collisions(Description(i, "of many" if i % 2 else f"of {i % 1000}") for i in range(n))
    assert all(found.flag(i) for i in range(n))


@step("audit")
def audited(folder: Path, n: int) -> None:
    results = first(folder)
    rows = tuple(Row(one.description.index, one.description.text, explanation_id=str(i)) for i, one in enumerate(results))  # fmt: skip
    assert len(audit(neuronpedia.flags(frame(Imported(rows=rows))), results).frame) == n


@step(f"{CARDS} cards")
def cards(folder: Path, n: int) -> None:
    results = first(folder)
    for place in range(CARDS):
        card(results[place * 7919 % n], DETAILS[0])


@step("every result, evidence and all")
def everything(folder: Path, n: int) -> None:
    assert sum(len(result.rated_evidence.texts) for result in first(folder)) >= n


def measured(work: Callable[[Path, int], object], folder: Path, n: int) -> tuple[float, float]:
    """Seconds of one core, and GB that the process held at most."""

    def inside(there: Any) -> None:
        started = time.process_time()
        work(folder, n)
        there.send((time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))

    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=inside, args=(there,))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where some GB are free")
    options = parser.parse_args()
    found, sizes = dict[tuple[str, int], tuple[float, float]](), dict[int, int]()
    for n in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, work in STEPS.items():
                found[name, n] = measured(work, Path(folder), n)
                print(f"{n:>7,} {name}: {found[name, n][0]:.1f} s, {found[name, n][1]:.2f} GB", flush=True)
            sizes[n] = (Path(folder) / "first.sqlite").stat().st_size
    print(f"\n{machine()}, load {os.getloadavg()[0]:.1f}\n")
    print("| | " + " | ".join(f"{n:,}" for n in options.sizes) + " |\n|---|" + "--:|" * len(options.sizes))
    for name in STEPS:
        cells = (f"{seconds:.3g} s, {memory:.2f} GB" for seconds, memory in (found[name, n] for n in options.sizes))
        print(f"| {name} | {' | '.join(cells)} |")
    print("| file | " + " | ".join(f"{size / 2**30:.2f} GB" for size in sizes.values()) + " |")


if __name__ == "__main__":
    main()
