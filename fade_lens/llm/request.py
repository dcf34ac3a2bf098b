"""What is asked of a judge, on whose behalf, and how fast."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

from fade_lens._util.errors import FadeLensError
from fade_lens.llm.budget import CHARS_PER_TOKEN, Number
from fade_lens.llm.transcripts import Transcripts


@dataclass(frozen=True)
class Request:
    """What determines an answer, and what is recorded with it."""

    kind: str
    concept: str
    """What is asked about."""
    messages: list[dict[str, str]]
    parameters: dict[str, Any]
    expects: int
    """Completion tokens to reckon with."""
    structure: str | None = None
    """Name of the JSON schema that the answer is to follow."""
    repeat: int = 0
    attempt: int = 0
    note: dict[str, Any] = field(default_factory=dict)
    """Recorded only."""
    parts: int = 1
    """Texts that it asks for or about: several can also be asked for in smaller requests."""

    @property
    def prompt_tokens(self) -> float:
        """An estimate, from the number of characters."""
        return sum(len(message["content"]) for message in self.messages) / CHARS_PER_TOKEN

    @property
    def need(self) -> float:
        """The tokens that prompt and answer take at least, by the same estimate."""
        return self.prompt_tokens + self.expects


@dataclass(eq=False)
class Call:
    """One piece of work that was asked for: where its answers are kept, and why it must send nothing more."""

    transcripts: Transcripts
    answered: set[str] = field(default_factory=set[str])
    """Keys of what this run was answered; what else is in the transcripts was left by an earlier one."""
    check: bool = False
    """Whether it only asks if the judge can do it: with few attempts, and at once."""
    stopped: FadeLensError | None = None
    order: int = field(default_factory=count().__next__)
    """What was asked for earlier is served first."""

    def stop(self, error: FadeLensError) -> None:
        """Nothing more is sent; the first reason counts."""
        self.stopped = self.stopped or error

    def go_on(self) -> None:
        """Raises why the work was stopped, if it was."""
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)


class Slots:
    """Room for so many requests in flight; of those that wait, the ones that belong to the earliest work come first.

    Work that is asked for in order is thus done in about that order, and what follows from it can begin before all is done.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = count()

    @asynccontextmanager
    async def one(self, order: int) -> AsyncGenerator[None]:
        """One request's place, held within the block."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heappush(self._waiting, (order, next(self._ticket), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Gives a place to the next that waits."""
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Pace:
    """Spreads amounts evenly, so that no minute holds more than `per_minute` of them; None is no limit."""

    def __init__(self, per_minute: Number | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = 0.0

    async def wait(self, amount: Number) -> None:
        """Waits for this amount's turn."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)

    def correct(self, amount: Number) -> None:
        """Adds what an estimate missed."""
        self._next += amount * self._seconds_each
