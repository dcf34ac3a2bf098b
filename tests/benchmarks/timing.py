"""Ratios of times on a machine that does other things too: everything to compare runs in turn, round after round."""

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

Times = dict[str, list[float]]


def alternate(work: Mapping[str, Callable[[], float | None]], rounds: int) -> Times:
    """Seconds of each piece of work, in every round once; work that returns a number timed itself (another process)."""
    times: Times = {name: [] for name in work}
    for name in work:
        work[name]()  # warm
    for turn in range(rounds):
        for name in list(work)[:: 1 if turn % 2 else -1]:  # neither is always the one after the other
            started = time.perf_counter()
            own = work[name]()
            times[name].append(time.perf_counter() - started if own is None else own)
    return times


def ratio(times: Times, name: str, to: str) -> float:
    """The median over the rounds of one piece of work's time in units of another's."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def median(times: Times, name: str) -> float:
    return statistics.median(times[name])


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table."""

    what: str
    against: str
    found: str
    needed: str = ""
    holds: bool | None = None


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | against | measured | needed | holds |", "|---|---|---|---|---|"]
    words = {None: "", True: "yes", False: "**no**"}
    return "\n".join(
        [*lines, *(f"| {r.what} | {r.against} | {r.found} | {r.needed} | {words[r.holds]} |" for r in rows)]
    )


def machine() -> str:
    """What the numbers were measured on, and how busy it was."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    busy = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores, {device}, torch {torch.__version__}{busy}"


def resident() -> int:
    """Bytes of this process in memory, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def peak_memory(every: float = 0.01) -> Iterator[Callable[[], int]]:
    """Within the block, the call gives the most bytes that were in memory at once above those at its start (Linux)."""
    before, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            most[0] = max(most[0], resident() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(most[0], resident() - before)
    finally:
        done.set()
        watcher.join()
