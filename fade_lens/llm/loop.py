"""A private thread that runs one event loop, so that async work can be asked for from scripts and notebooks alike."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from fade_lens._util.errors import JudgeError

T = TypeVar("T")


class LoopThread:
    """A daemon thread with an event loop. It starts at the first piece of work, and ends with `close`, with its owner, or with Python."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._end: Callable[[], object] = lambda: None

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin work in the thread: a future of what it returns or raises. Raises `JudgeError` after `close`."""
        with self._lock:
            if self._closed:
                work.close()
                raise JudgeError("this judge was closed: make a new one")
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="fade-lens-judge", daemon=True)
                thread.start()
                self._end = weakref.finalize(self, _end_loop, loop, thread)
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do work in the thread and wait for it; nothing where the thread was never started."""
        if self._loop is not None and not self._closed:
            self.submit(work()).result()

    def close(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do a last piece of work, then end the thread; a second call does nothing."""
        self.run(last)
        with self._lock:
            self._closed = True
            self._end()


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    if thread is threading.current_thread():  # the owner's last reference went with a piece of work
        loop.call_soon(loop.stop)
        return
    if thread.is_alive():
        asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(timeout=5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)
    if not loop.is_running():
        loop.close()
