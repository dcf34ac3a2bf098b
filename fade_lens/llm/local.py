"""A GGUF judge served inside the process: llama.cpp's own OpenAI-compatible server on loopback, through `xllamacpp`."""

import atexit
import faulthandler
import hashlib
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from platform import machine
from typing import Any

from fade_lens._util.errors import InputError, MissingExtraError

_GGUF_MAGIC = b"GGUF"
_CACHE_MIB = 512
_START_SECONDS = 300
_END_SECONDS = 10.0
"""How long the end of the interpreter waits for a server that is still answering."""
_LEAST_TOKENS = 2048
"""What a request should have at least: a rating's worked examples alone take several hundred."""
PIECES, PIECE = 256, 1 << 14
"""Pieces of a file of weights that are looked at, and the bytes of each."""
_servers: dict[tuple[object, ...], "LocalServer"] = {}
_lock = threading.Lock()


class LocalServer:
    """One GGUF model behind an OpenAI-compatible HTTP API that only this machine can reach.

    Its attributes `base_url` and `model` are what an OpenAI client needs; any key is accepted. The server stops with `close`, at the
    end of a `with` block, or when the interpreter ends.

    Args:
        gguf_path: the file of the model.
        n_ctx: tokens of context, shared by the requests that are answered at a time.
        parallel: how many these are; None is two, or one where half the context would be too little.
        threads: of the CPU; None takes all that this process may use.

    Raises:
        InputError: no such file, or one that llama.cpp cannot load.
        MissingExtraError: `xllamacpp` is not installed.
    """

    def __init__(
        self,
        gguf_path: str | os.PathLike[str],
        *,
        n_ctx: int = 8192,
        parallel: int | None = None,
        threads: int | None = None,
    ) -> None:
        path = _checked(gguf_path)
        for name, value in {"n_ctx": n_ctx, "parallel": parallel, "threads": threads}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: give at least 1")
        try:
            xllamacpp: Any = import_module("xllamacpp")
        except ImportError as error:
            raise MissingExtraError("xllamacpp", "local", "A judge served inside the process") from error

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {path.stem}
        params.n_ctx, params.n_parallel = n_ctx, parallel or min(2, max(1, n_ctx // _LEAST_TOKENS))
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or _available_cpus()
        # Port 0: the system picks a free one. No CORS: a page open in a browser must not read what the judge says.
        params.hostnames, params.port, params.cors_origins = ["127.0.0.1"], 0, ""
        params.ui = params.endpoint_slots = False
        # Each slot keeps its last prompt, whose examples all ratings share; the RAM keeps it while a slot writes texts.
        params.cache_prompt, params.cache_ram_mib = True, _CACHE_MIB
        # Ratings are all prompt: on x86-64 the plain kernels read prompts about a fifth faster than repacked weights do,
        # which write a fifth faster, and the file's pages are not copied.
        params.no_extra_bufts = machine().lower() in {"x86_64", "amd64"}
        params.verbosity = -1  # llama.cpp writes to stderr past Python's logging
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise InputError(
                f"gguf_path {str(path)!r} could not be loaded by llama.cpp: the file is incomplete, of an architecture "
                "it does not know, or too large for this machine's memory; fetch it again or take a smaller model"
            ) from error
        self.base_url: str = f"{self._server.listening_address}/v1"
        self.path, self.model = path, path.stem
        self._await_loop()
        atexit.register(self._close_at_exit)

    def _await_loop(self) -> None:
        """Ask for one token: a server that is closed before its loop runs is never told to end, and waits for ever."""
        body = json.dumps({"prompt": "a", "n_predict": 1, "cache_prompt": False}).encode()
        request = urllib.request.Request(f"{self.base_url[:-3]}/completion", body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=_START_SECONDS
        ) as answer:
            answer.read()

    def close(self) -> None:
        """Stops the server and frees the model's memory; a second call does nothing. An interrupt meanwhile ends the process."""
        atexit.unregister(self._close_at_exit)
        with _lock:
            for key in [key for key, server in _servers.items() if server is self]:
                del _servers[key]
        with _ended_by_interrupt():
            self._server = None

    def _close_at_exit(self) -> None:
        with Path(os.devnull).open("w") as nowhere:
            faulthandler.dump_traceback_later(_END_SECONDS, exit=True, file=nowhere)  # by a thread that needs no lock
            self.close()
            faulthandler.cancel_dump_traceback_later()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._server is None

    def __enter__(self) -> "LocalServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalServer({self.model!r}, {'closed' if self.closed else self.base_url})"


@contextmanager
def _ended_by_interrupt() -> Generator[None]:
    """llama.cpp waits, with Python's lock held, for the threads that answer: meanwhile no handler of Python's can run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def running() -> bool:
    """Whether this process serves a model."""
    with _lock:
        return bool(_servers)


def serve(
    gguf_path: str | os.PathLike[str], *, n_ctx: int = 8192, parallel: int | None = None, threads: int | None = None
) -> LocalServer:
    """The process's one server for this file and these options, started at the first call; see `LocalServer`."""
    key = (_checked(gguf_path).resolve(), n_ctx, parallel, threads)
    with _lock:
        if key not in _servers:
            _servers[key] = LocalServer(gguf_path, n_ctx=n_ctx, parallel=parallel, threads=threads)
        return _servers[key]


def fingerprint(path: Path) -> str:
    """A short text that differs between files of weights and does not depend on where they lie.

    It is computed from the size, the beginning, the end and pieces in between. That is enough, as a model that was trained further differs
    almost everywhere, and reading all of a large file would take longer than the first answers.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(PIECE << 6))
        for at in range(PIECES):
            file.seek(max(0, size - PIECE) * (at + 1) // PIECES)
            digest.update(file.read(PIECE))
    return digest.hexdigest()[:12]


def address(gguf_path: str | os.PathLike[str], **options: Any) -> tuple[str, str]:
    """Where the process serves a file, and the name of the model there; see `serve`."""
    server = serve(gguf_path, **options)
    return server.base_url, server.model


def _checked(gguf_path: str | os.PathLike[str]) -> Path:
    path = Path(gguf_path).expanduser()
    if not path.is_file():
        raise InputError(f"gguf_path {str(path)!r} is not a file: give the path of a GGUF model")
    with path.open("rb") as file:
        magic = file.read(len(_GGUF_MAGIC))
    if magic != _GGUF_MAGIC:
        raise InputError(f"gguf_path {str(path)!r} is no GGUF file: it begins with {magic!r}, not {_GGUF_MAGIC!r}")
    return path


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
