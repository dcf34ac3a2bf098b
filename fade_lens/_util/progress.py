"""Progress bars for long stages, with time left, in terminals and notebooks."""

import io
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, ClassVar

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

Advance = Callable[[int], None]
MOST_ROWS = 12
"""Descriptions whose scores are shown while others are computed, the latest."""
CELL = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:1.3;margin:0;background:none;color:inherit">{code}</pre>'
)
"""How bars stand in a notebook: in the colours of its theme."""
CELL_WIDTH, CELL_SECONDS = 100, 0.5
"""Characters of a line there, and how often they are drawn anew."""


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


class Bars(Progress):
    """Bars of stages, below them that of the judge's answers, above them the scores that are known so far."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        self.scores: dict[str, tuple[int, dict[str, str]]] = {}
        """By row its number and its cells by their columns; what changed last stands last."""
        self.answers: tuple[TaskID, Callable[[], int]] | None = None
        """The bar of the judge's answers, and how many there are."""
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        latest = list(reversed(self.scores.items()))[:MOST_ROWS]  # a copy: others write meanwhile
        if rows := sorted((number, name, row) for name, (number, row) in latest):
            columns = list(dict.fromkeys(column for _, _, row in rows for column in row))
            table = Table(*["", *columns], box=SIMPLE_HEAD, pad_edge=False)
            for _, name, row in rows:
                cells = (row.get(column, "…") for column in columns)
                table.add_row(Text(name, overflow="ellipsis", no_wrap=True), *cells)
            yield table
        if self.answers is not None:
            task, count = self.answers
            total = self._tasks[task].total or 0
            self.update(task, completed=min(count(), total))
        yield from super().get_renderables()


def in_notebook() -> bool:
    """Whether what is shown goes into a notebook's cell: Jupyter, Colab, VS Code."""
    return Console().is_jupyter


class Cell:
    """One output of a notebook's cell, in which the bars of all that the cell runs stand below each other and change in place.

    It is plain HTML: it needs no widgets, and what a notebook keeps is how the bars ended.
    """

    last: "ClassVar[Cell | None]" = None

    def __init__(self, number: int) -> None:
        self.number, self.seen, self.handle = number, "", None
        self.bars: list[Progress] = []
        self.lock = threading.Lock()

    @classmethod
    def current(cls) -> "Cell":
        """The output of the cell that runs now."""
        from IPython.core.getipython import get_ipython

        number = int(getattr(get_ipython(), "execution_count", 0))
        if cls.last is None or cls.last.number != number:
            cls.last = cls(number)
        return cls.last

    def draw(self) -> None:
        """Show the bars as they are now."""
        from IPython.display import HTML, display

        with self.lock:
            screen = Console(file=io.StringIO(), record=True, width=CELL_WIDTH, color_system="truecolor", force_terminal=True, force_jupyter=False)  # fmt: skip
            for bars in self.bars:
                screen.print(bars.get_renderable())
            found = screen.export_html(inline_styles=True, code_format=CELL)
            if found == self.seen or not any(bars.tasks for bars in self.bars):
                return
            self.seen = found
            if self.handle is None:
                self.handle: Any = display(HTML(found), display_id=True)
            else:
                self.handle.update(HTML(found))

    @contextmanager
    def showing(self, bars: Progress) -> Generator[None]:
        """Bars in this output, drawn anew while they move."""
        self.bars.append(bars)
        done = threading.Event()

        def redraw() -> None:
            while not done.wait(CELL_SECONDS):
                self.draw()

        drawing = threading.Thread(target=redraw, daemon=True)
        drawing.start()
        try:
            yield
        finally:
            done.set()
            drawing.join()
            self.draw()


class Stages:
    """Named stages of a run, each a bar; silent where `shown` is False."""

    def __init__(self, shown: bool = True) -> None:
        self._cell = Cell.current() if shown and in_notebook() else None
        self._bars = Bars(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Terminal(),
            speed_estimate_period=60.0,
            disable=not shown or self._cell is not None,
        )

    @contextmanager
    def showing(self) -> Generator[None]:
        """The bars on screen. At the end each is full, for what was left out, as where enough is known, is not to be done any more; stages of nothing are gone."""
        with self._bars if self._cell is None else self._cell.showing(self._bars):
            yield
            self._bars.scores.clear()  # they are printed in full
            for task in self._bars.tasks:
                self._bars.update(task.id, total=task.completed, visible=task.completed > 0)

    def shown(self) -> RenderableType:
        """What is on the screen while `showing`."""
        return self._bars.get_renderable()

    def stage(self, name: str, total: int) -> Advance:
        """Begin a stage of `total` steps, or add these to one of that name; call the result with the number of steps done."""
        known = next((task for task in self._bars.tasks if task.description == name), None)
        if known is None:
            task = self._bars.add_task(name, total=max(total, 1), completed=0 if total else 1)
        else:
            self._bars.update(task := known.id, total=(known.total or 0) + total)
        return lambda steps: self._bars.advance(task, steps)

    def answers(self, count: Callable[[], int], expected: int) -> None:
        """A bar of all that is asked of the judge, which tells the time left of the whole run.

        Args:
            count: how many answers there are.
            expected: how many there will be at most; `fewer` takes off what need not be asked.
        """
        if expected:
            self._bars.answers = self._bars.add_task("judge: all answers", total=expected), count

    def fewer(self, n: int) -> None:
        """So many answers less are to come than was expected."""
        if self._bars.answers is not None and n:
            task, count = self._bars.answers
            self._bars.update(task, total=max((self._bars.tasks[task].total or 0) - n, count()))

    def found(self, row: str, scores: Mapping[str, str]) -> None:
        """Show the scores of a description while the others are computed.

        Args:
            row: the description.
            scores: in words, by their titles.
        """
        shown = self._bars.scores
        number, before = shown.pop(row, (len(shown), {}))
        shown[row] = number, {**before, **scores}

    def wait(self, name: str, futures: "Iterable[Future[Any]]") -> None:
        """Wait for work of another thread, the bar of a stage moving as it is done; the first error is raised."""
        pending = set(futures)
        advance = self.stage(name, len(pending))
        while pending:
            done, pending = wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
            advance(len(done))
