"""Torch's work by Ray: workers on this machine or a cluster run the model, and everything else of a run stays in the process that began it.

The judge, its limits, the store and the statistics are the driver's. Workers get arrays and give arrays, so that no key leaves the driver, every
answer is on disk before it is used, and what a worker that died had begun is done again by another.
"""

import errno
import io
import math
import os
import pickle
import re
import socket
import subprocess
import sys
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from fade_lens._util.errors import Argument, FadeLensError, InputError, WorkerError
from fade_lens._util.workers import HERE, Workers
from fade_lens.runs.ray_worker import KEPT, Worker, by_name, installed, pickler_of, required

Result = TypeVar("Result")

CONNECT = 30
"""Seconds within which a cluster must answer."""
TRIES = 5
"""Workers that may die over one piece of work before it is taken for the piece's fault."""
AHEAD = 8
"""Pieces a worker that may be done before an earlier one is."""
SETTINGS = b"\x04"
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""How HTTP/2 begins (RFC 9113), which Ray's servers speak: both sides send their settings at once."""
MEND = "start one there (ray start --head), or give its address, or 'auto' (RAY_ADDRESS, else this machine)"
SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$", re.IGNORECASE)
"""How names of the environment's keys end."""


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """How many Ray workers run the model, with which share of what machine; no number of a run depends on it.

    Args:
        address: "auto" (the cluster that RAY_ADDRESS names, else one on this machine for as long as the run takes), "local", or a cluster's
            address such as "10.0.0.1:6379". Where Ray has been initialized already it is used as it is, and left running.
        workers: how many; None: one for each share of a GPU, or without GPUs one a node.
        gpus: GPUs of each, such as 0.5; None: 1 where there are any. 0: CPU.
        cpus: processors, and so threads, of each; None: an equal share of what is there (1 with a GPU).
        wait: seconds in which all workers must be there.

    Raises:
        InputError: a number out of range, an address that is none.
    """

    address: str = "auto"
    workers: int | None = None
    gpus: float | None = None
    cpus: float | None = None
    wait: float = 60.0

    def __post_init__(self) -> None:
        least = {"workers": 1, "gpus": 0.0, "cpus": 0.01, "wait": 0.0}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and not low <= value < math.inf:
                raise InputError(f"{name} of Ray is {value}; give a number from {low:g} on")
        if self.address not in ("auto", "local") and place(self.address) is None:
            raise InputError(Argument("ray"), f" is {self.address!r}; give 'auto', 'local' or a cluster's address, such as '10.0.0.1:6379'")  # fmt: skip

    def cluster(self) -> str:
        """The address of a cluster that can be joined, or "local" for one on this machine.

        Raises:
            InputError: nobody answers there, or somebody who is no Ray cluster, or RAY_ADDRESS is no address.
        """
        if (address := os.environ.get("RAY_ADDRESS", "") if self.address == "auto" else self.address) in ("", "auto", "local"):  # fmt: skip
            return "local"
        if (there := place(address)) is None:
            raise InputError(f"RAY_ADDRESS is {address!r}; set it to a cluster's address, such as '10.0.0.1:6379', or unset it for this machine")  # fmt: skip
        try:
            with socket.create_connection(there, timeout=CONNECT / 3) as asked:
                asked.sendall(GREETING)
                said = asked.recv(9)
        except OSError as error:
            raise InputError(f"no Ray cluster answers at {address!r} ({error.strerror or error}): {MEND}") from None
        if said[3:4] != SETTINGS and os.environ.get("RAY_USE_TLS", "0") == "0":
            raise InputError(f"what answers at {address!r} is no Ray cluster: {MEND}")
        check_there(address)
        return address


Ray = RayWorkers | Workers | str | None
"""As arguments take it: settings, an address or "auto", workers that are there already; None: this process alone."""


@contextmanager
def workers_of(ray: Ray) -> Generator[Workers]:
    """Workers, for as long as they are needed: they begin with `Workers.start`, and those that were there already go on afterwards.

    Raises:
        InputError: settings that cannot be used.
        MissingExtraError: Ray is not installed.
    """
    if ray is None or isinstance(ray, Workers):
        yield HERE if ray is None else ray
        return
    pool = RayPool(RayWorkers(address=ray) if isinstance(ray, str) else ray)
    try:
        yield pool
    finally:
        pool.close()


def place(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None where it is none.

    >>> place("ray://head:10001"), place("[::1]:6379"), place("head")
    (('head', 10001), ('::1', 6379), None)
    """
    found = re.fullmatch(r"(?:ray://)?(?:\[([0-9a-fA-F:]+)\]|([^\s:/@\[\]]+)):(\d{1,5})", address)
    return (found[1] or found[2], int(found[3])) if found and 0 < int(found[3]) < 2**16 else None


class Share(NamedTuple):
    """How many workers are asked for, and what each is to have."""

    workers: int
    cpus: float
    gpus: float

    @property
    def words(self) -> str:
        """In words, as a message has them."""
        gpu = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return (
            f"{self.workers} worker{'s' * (self.workers > 1)} with {self.cpus:g} CPU{'s' * (self.cpus > 1)}{gpu} each"
        )


def shared(settings: RayWorkers, nodes: Sequence[Mapping[str, float]]) -> Share:
    """What is asked for of a cluster whose nodes have these resources.

    >>> shared(RayWorkers(), [{"CPU": 8.0}, {"CPU": 4.0}]), shared(RayWorkers(gpus=0.5), [{"CPU": 8.0, "GPU": 2.0}])
    (Share(workers=2, cpus=4.0, gpus=0.0), Share(workers=4, cpus=1.0, gpus=0.5))
    """
    cpus, gpus = ([node.get(kind, 0.0) for node in nodes] for kind in ("CPU", "GPU"))
    gpu = settings.gpus if settings.gpus is not None else float(sum(gpus) > 0)
    usual = sum(int(has // gpu) for has in gpus) if gpu else sum(has > 0 for has in cpus)
    n = settings.workers or max(1, usual)
    most = min((has for has in cpus if has), default=1.0)
    part = min(most, sum(cpus) / n)
    cpu = settings.cpus or (1.0 if gpu and part >= 1 else math.floor(part) if part >= 1 else math.floor(100 * part) / 100)  # fmt: skip
    return Share(n, float(cpu or 0.01), gpu)


def lacking(asked: Share, came: int, seconds: float, total: Mapping[str, float], free: Mapping[str, float]) -> InputError:  # fmt: skip
    """What is told where workers do not come."""
    has = " and ".join(f"{total.get(kind, 0):g} {kind}s, of which {free.get(kind, 0):g} are free" for kind in ("CPU", "GPU"))  # fmt: skip
    when = f"within {seconds:g} s" if seconds else "and more cannot"
    return InputError(
        f"Ray was asked for {asked.words}, and {came} came {when}: the cluster has {has}. Ask for fewer workers or smaller shares "
        "(--ray-workers, --ray-cpus, --ray-gpus; RayWorkers), add nodes, or wait longer (RayWorkers(wait=…))"
    )


def secrets() -> list[str]:
    """The environment's variables that may hold keys; Ray's own stay."""
    return [name for name in os.environ if SECRET.search(name) and not name.startswith("RAY_")]


@contextmanager
def without_keys() -> Generator[None]:
    """The time in which processes are started that are to know no key."""
    taken = {name: os.environ.pop(name) for name in secrets()}
    try:
        yield
    finally:
        os.environ.update(taken)


JOIN = """
import ray, sys
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    sys.exit(str(error.__cause__ or error))
"""


@cache
def check_there(address: str) -> None:
    """Raise `InputError` unless what listens at an address is a cluster, and can be joined within `CONNECT` seconds.

    Ray's own connection may wait for minutes, or end the process: another process tries it first, once an address.
    """
    with without_keys():
        asked = subprocess.Popen([sys.executable, "-c", JOIN, address], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        _, said = asked.communicate(timeout=CONNECT)
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        raise InputError(f"what answers at {address!r} is no Ray cluster, or does not answer within {CONNECT} s: {MEND}") from None  # fmt: skip
    if "InvalidAuthToken" in said:
        raise InputError(f"the Ray cluster at {address!r} asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that holds it, unless ~/.ray/auth_token does")  # fmt: skip
    if asked.returncode:
        raise InputError(f"the Ray cluster at {address!r} cannot be joined ({last_line(said)}): {MEND}")


def last_line(text: object) -> str:
    """The last line of an error that says something."""
    return next((line.strip() for line in reversed(str(text).splitlines()) if line.strip()), "no reason given")[:300]


@dataclass
class Job:
    """A piece of work: which it is, what is sent, and the workers that it failed on."""

    number: int
    task: bytes
    failed: list[Any] = field(default_factory=list[Any])


class RayPool(Workers):
    """Ray workers (see `fade_lens._util.workers.Workers`), each an actor that keeps the model and what else it was sent.

    Raises:
        InputError, MissingExtraError: as in `workers_of`.
    """

    def __init__(self, settings: RayWorkers) -> None:
        self.settings, self._ray = settings, required()
        self._mine = self._local = self._started = False
        self._share, self._failed = Share(1, 1.0, 0.0), 0
        self._workers: list[Any] = []
        self._coming: dict[Any, Any] = {}
        """Workers that are not there yet, by what they will say of themselves."""
        self._modules: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        """By identity: models and SAEs, which are kept so that it is never another's, and where Ray has them."""

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        self.start()
        return self._share.workers

    @property
    def device(self) -> str | None:
        """The kind of device that workers compute on."""
        self.start()
        return "cuda" if self._share.gpus else "cpu"

    @property
    def record(self) -> Mapping[str, str]:
        """How many workers there are."""
        self.start()
        return {"ray": f"{self._ray.__version__}, {self._share.words}"}

    def start(self) -> None:
        """Join or start the cluster, and wait for the workers.

        Raises:
            InputError: nobody at the address, more asked for than the cluster has, another fade_lens on a node.
            WorkerError: a cluster on this machine cannot be started.
        """
        if self._started:
            return
        self._started = True
        try:
            self._connect()
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._share = shared(self.settings, nodes)
            self._gather(self._share, nodes)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address = self.settings.cluster()
        self._local = address == "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
        if self._local:
            quiet["include_dashboard"] = False
        before, self._mine = os.environ.get("RAY_USAGE_STATS_ENABLED"), True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with without_keys(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(address=address, **quiet)
        except Exception as error:
            raise WorkerError(f"Ray cannot start {'here' if self._local else 'with ' + repr(address)}: {last_line(error)}") from error  # fmt: skip
        finally:
            if before is None:
                del os.environ["RAY_USAGE_STATS_ENABLED"]

    def _gather(self, asked: Share, nodes: Sequence[Mapping[str, float]]) -> None:
        room = (min(node.get("CPU", 0) // asked.cpus, node.get("GPU", 0) // asked.gpus if asked.gpus else math.inf) for node in nodes)  # fmt: skip
        if self._local and (most := int(sum(room))) < asked.workers:  # it will never have more
            raise lacking(asked, most, 0, self._ray.cluster_resources(), self._ray.available_resources())
        for _ in range(asked.workers):
            self._begin_one()
        end = monotonic() + self.settings.wait
        while self._coming:
            if monotonic() > end:
                total, free = self._ray.cluster_resources(), self._ray.available_resources()
                raise lacking(asked, len(self._workers), self.settings.wait, total, free)
            self._arrivals(0.2)

    def _begin_one(self) -> None:
        import torch

        about: dict[str, Any] = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus, "scheduling_strategy": "SPREAD"}  # fmt: skip
        if not self._local and (names := secrets()):  # a cluster on this machine has been started without them
            about["runtime_env"] = {"env_vars": dict.fromkeys(names, "")}
        made = self._ray.remote(Worker).options(**about)
        worker = made.remote(
            "cuda" if self._share.gpus else "cpu", max(1, int(self._share.cpus)), torch.get_float32_matmul_precision()
        )
        self._coming[worker.about.remote()] = worker

    def _arrivals(self, seconds: float) -> None:
        """Take in the workers that have come."""
        ready, _ = self._ray.wait(list(self._coming), timeout=seconds) if self._coming else ([], [])
        for ref in ready:
            worker = self._coming.pop(ref)
            try:
                node, code = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                self._failed += 1
                if self._failed <= TRIES:  # whatever ended it may have been chance
                    self._begin_one()
                    continue
                raise InputError(f"a Ray worker cannot begin ({last_line(error)}): install fade-lens {installed()} with the extra 'ray' on every node") from None  # fmt: skip
            if code != installed():
                raise InputError(f"the Ray node {node} has fade_lens {code}, and this process {installed()}: install the same on every node")  # fmt: skip
            self._workers.append(worker)
            self._failed = 0

    def close(self) -> None:
        """Let the workers go, and end what was started here."""
        with suppress(Exception):
            for worker in (*self._workers, *self._coming.values()):
                self._ray.kill(worker)
        self._workers, self._coming, self._started = [], {}, False
        self._modules.clear()
        if self._mine:
            self._mine = False
            self._ray.shutdown()

    def each(
        self, work: Callable[..., Iterable[Result]], held: tuple[Any, ...], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """See `Workers.each`. What a worker that dies had begun is given to another, up to `TRIES` times.

        Raises:
            WorkerError: no worker is left, or one piece of work failed on so many.
            InputError: something of `held` cannot be sent.
            FadeLensError: what the work raised.
        """
        self.start()
        sent, numbered = self._sent(work, held), (Job(n, pickle.dumps(task, 5)) for n, task in enumerate(tasks))
        again, flying, done, first = deque[Job](), dict[Any, tuple[Any, Job]](), dict[int, list[Result]](), 0
        job, seen = next(numbered, None), monotonic()
        while job or again or flying:
            for worker in self._workers:
                while sum(other is worker for other, _ in flying.values()) < 2:
                    # Where it failed before it is tried again only if nobody else is there.
                    mine = next((one for one in again if worker not in one.failed or set(one.failed) >= set(self._workers)), None)  # fmt: skip
                    if mine is not None:
                        again.remove(mine)
                    elif job is not None and job.number < first + AHEAD * self.size:
                        mine, job = job, next(numbered, None)
                    else:
                        break
                    flying[worker.run.remote(*sent, mine.task)] = worker, mine
            ready, _ = self._ray.wait(list(flying), timeout=1.0) if flying else ([], [])
            self._arrivals(0.0 if flying else 1.0)
            if self._workers:
                seen = monotonic()
            elif monotonic() - seen > self.settings.wait:
                raise WorkerError(f"every Ray worker has died, and none came within {self.settings.wait:g} s: what was done is kept, and the same call goes on with it")  # fmt: skip
            for ref in ready:
                worker, begun = flying.pop(ref)
                try:
                    done[begun.number] = self._got(ref)
                except Lost as lost:
                    begun.failed.append(worker)
                    if len(begun.failed) >= TRIES:
                        raise WorkerError(f"a piece of work failed on {TRIES} Ray workers one after the other ({lost}): what was done is kept, and the same call goes on with it") from None  # fmt: skip
                    again.append(begun)
                    if lost.dead and worker in self._workers:
                        self._workers.remove(worker)
                        self._begin_one()
            while first in done:
                yield from done.pop(first)
                first += 1

    def _got(self, ref: Any) -> list[Any]:
        """What a worker gave. Raises what it was told to tell, and `Lost` where it can be had from another."""
        errors = self._ray.exceptions
        try:
            kind, value = pickle.loads(self._ray.get(ref))
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                raise Lost(f"no room on the disk of a node: {cause.strerror}", dead=False) from None
            raise (cause or WorkerError(f"a Ray worker failed: {last_line(error)}")) from None
        except (errors.OutOfDiskError, errors.ObjectLostError, errors.ObjectStoreFullError) as error:
            raise Lost(f"a node has no room, or lost what it had: {last_line(error)}", dead=False) from None
        except errors.RayError as error:
            raise Lost(f"the worker died: {last_line(error)}", dead=True) from None
        if kind == "told":
            raise value
        return value

    def _sent(self, work: Any, held: tuple[Any, ...]) -> tuple[Any, ...]:
        """What workers need of a kind of work: models and SAEs apart from the rest, each sent once."""
        used: dict[str, Any] = {}
        buffer = io.BytesIO()
        try:
            pickler_of(self._ray.cloudpickle, lambda module: self._sent_module(module, used))(buffer).dump((work, held))
            packed = buffer.getvalue()
            refs = self._ray.put(packed)
        except FadeLensError:
            raise
        except Exception as error:
            raise unsent(error) from error
        while len(self._modules) > max(2 * KEPT, len(used)):
            self._modules.popitem(last=False)
        return sha256(packed).hexdigest(), refs, list(used.items())

    def _sent_module(self, module: Any, used: dict[str, Any]) -> str:
        import torch

        key = id(module)
        if key not in self._modules:
            import numpy as np

            buffer = io.BytesIO()
            try:
                torch.save(module, buffer, pickle_module=SimpleNamespace(__name__="by_name", Pickler=by_name(self._ray.cloudpickle)))  # fmt: skip
            except Exception as error:
                raise unsent(error, type(module).__name__) from error
            self._modules[key] = module, self._ray.put(np.frombuffer(buffer.getbuffer(), dtype=np.uint8))
        self._modules.move_to_end(key)
        ref = self._modules[key][1]
        used[ref.hex()] = ref
        return ref.hex()


class Lost(Exception):
    """A piece of work that another worker may do; `dead`: this one never will."""

    def __init__(self, why: str, *, dead: bool) -> None:
        super().__init__(why)
        self.dead = dead


def unsent(error: Exception, what: str = "what workers need") -> FadeLensError:
    """What is told where something cannot be sent to workers."""
    if type(error).__module__.startswith("ray"):
        return WorkerError(f"Ray has no room for {what} ({last_line(error)}): free memory or disk, or give it more")
    return InputError(f"{what} cannot be sent to Ray's workers ({type(error).__name__}: {last_line(error)}): take off hooks and attributes that cannot be pickled, or leave ray out")  # fmt: skip
