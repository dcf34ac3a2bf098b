"""Progress bars for long stages, with time left, in terminals and notebooks."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class Terminal(Console):
    """Where people read; that nobody reads any more (`| head`), or a window of no width, stops no run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.width:  # COLUMNS=0, as some job systems set it
            self.width = 80

    def on_broken_pipe(self) -> None:
        """What is printed from now on goes nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Stages:
    """Named stages of a run, each a bar; silent where `shown` is False."""

    def __init__(self, shown: bool = True) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Terminal(),
            disable=not shown,
        )

    @contextmanager
    def showing(self) -> Generator[None]:
        """The bars on screen. At the end each is full: what was left out, as where enough is known, is not to be done any more."""
        with self._bars:
            yield
            for task in self._bars.tasks:
                self._bars.update(task.id, total=task.completed)

    def stage(self, name: str, total: int) -> Advance:
        """Begin a stage of `total` steps; call the result with the number of steps done."""
        task = self._bars.add_task(name, total=max(total, 1), completed=0 if total else 1)
        return lambda steps: self._bars.advance(task, steps)

    def wait(self, name: str, futures: "Iterable[Future[Any]]") -> None:
        """Wait for work of another thread, the bar of a stage moving as it is done; the first error is raised."""
        pending = set(futures)
        advance = self.stage(name, len(pending))
        while pending:
            done, pending = wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
            advance(len(done))
