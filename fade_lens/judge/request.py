"""What is asked of a judge, on whose behalf, and how fast."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fade_lens.errors import FadeLensError
from fade_lens.judge.transcripts import Transcripts
from fade_lens.judge.usage import CHARS_PER_TOKEN, Number


@dataclass(frozen=True)
class Request:
    """What determines an answer, and what is recorded with it."""

    kind: str
    concept: str
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

    @property
    def prompt_tokens(self) -> float:
        """An estimate, from the number of characters."""
        return sum(len(message["content"]) for message in self.messages) / CHARS_PER_TOKEN


@dataclass(eq=False)
class Call:
    """One piece of work that was asked for: where its answers are kept, and why it must send nothing more."""

    transcripts: Transcripts
    stopped: FadeLensError | None = None

    def stop(self, error: FadeLensError) -> None:
        """Nothing more is sent; the first reason counts."""
        self.stopped = self.stopped or error

    def go_on(self) -> None:
        """Raises why the work was stopped, if it was."""
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)


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
