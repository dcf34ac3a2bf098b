"""What Ray's workers are given in tests: functions of a module that imports nothing heavy, for every worker that is killed starts anew."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.workers import InProcess


class Sized(InProcess):
    """As many workers as are said, in this process; the work that they were given, by name."""

    def __init__(self, size: int) -> None:
        self._size, self.given = size, list[str]()

    @property
    def size(self) -> int:
        return self._size

    def each(self, work: Any, held: Any, tasks: Any) -> Iterator[Any]:
        self.given.append(work.__name__)
        return super().each(work, held, tasks)


def squares(held: int, number: int, seconds: float) -> Iterator[tuple[int, int]]:
    """The square of a number and of what is held, after a while."""
    time.sleep(seconds)
    yield number, number**2 + held


def own_process() -> Iterator[int]:
    """The worker's process."""
    time.sleep(0.2)  # so that each worker gets a piece
    yield os.getpid()


def environment() -> Iterator[tuple[dict[str, str], bytes]]:
    """What the worker's process knows by its environment, and what it was started with."""
    path = Path("/proc/self/environ")
    yield dict(os.environ), path.read_bytes() if path.exists() else b""


def refused(number: int) -> Iterator[int]:
    """An error that a user can act on, on one of the pieces."""
    if number == 2:
        raise InputError(Argument("context"), f" is {number}; give another")
    yield number


def full_disk(folder: str, number: int, times: int) -> Iterator[int]:
    """A disk that is full for the first `times` tries at each piece."""
    tried = Path(folder, str(number))
    with tried.open("a") as file:
        file.write("x")
    if tried.stat().st_size <= times:
        raise OSError(errno.ENOSPC, "No space left on device")
    yield number


def deadly(number: int) -> Iterator[int]:
    """A piece of work that ends every process that does it."""
    if number:
        os.kill(os.getpid(), signal.SIGKILL)
    yield number
