"""What runs in a Ray worker (see `fade_lens.runs.ray`), and how models and SAEs are sent there. Nothing heavy is imported until there is work."""

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fade_lens._util.errors import FadeLensError, MissingExtraError

KEPT = 4
"""Kinds of work whose model, SAE and features a worker holds at a time; the driver keeps as many SAEs ready."""


def required() -> Any:
    """Ray. Raises `MissingExtraError` where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "Work on several machines") from error
    return ray


@cache
def installed() -> str:
    """This fade_lens: its version, a hash of its code, and the libraries without which a worker draws other tokens, or cannot read what it is sent."""
    import fade_lens

    digest, folder = sha256(), Path(fade_lens.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    libraries = (f"{name} {version(name).partition('+')[0]}" for name in ("torch", "transformer-lens", "sae-lens"))
    return f"{fade_lens.__version__} ({digest.hexdigest()[:8]}) with {', '.join(libraries)}"


def pickler_of(cloudpickle: Any, sent: Callable[[Any], str]) -> Any:
    """A pickler that leaves out models, SAEs and tensors on accelerators: `sent` sends each apart, and gives its name."""
    from torch import Tensor
    from torch.nn import Module

    from fade_lens.subject.features import Latents, features_of

    class Pickler(by_name(cloudpickle)):
        def persistent_id(self, obj: Any) -> str | None:
            apart = isinstance(obj, Module) or (isinstance(obj, Tensor) and obj.device.type != "cpu")
            return sent(obj) if apart else None

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is Latents:  # its encoder is made anew of the SAE
                return features_of, (obj.model, obj.sae, obj.indices)
            return super().reducer_override(obj)

    return Pickler


def by_name(cloudpickle: Any) -> Any:
    """A pickler that sends context variables, and what holds one, by the names that modules know them under.

    Once a model has run, the hooks of transformers refer to such.
    """

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if any(isinstance(one, ContextVar) for one in (obj, *getattr(obj, "__dict__", {}).values())):
                for name, module in list(sys.modules.items()):
                    for attribute, value in list(getattr(module, "__dict__", {}).items()):
                        if value is obj:
                            return named, (name, attribute)
            return super().reducer_override(obj)

    return Pickler


def named(module: str, attribute: str) -> Any:
    """What a module knows under a name."""
    return getattr(import_module(module), attribute)


class Worker:
    """What runs in a Ray worker: pure functions of arrays, with a model that it keeps.

    Args:
        device: the kind of device that it computes on.
        threads: of torch on a CPU.
        precision: of the driver's float32 products (`torch.get_float32_matmul_precision`).
    """

    def __init__(self, device: str, threads: int, precision: str) -> None:
        self._device, self._threads, self._precision = device, threads, precision
        self._modules: dict[str, Any] = {}
        self._held: OrderedDict[str, tuple[Any, Any, set[str]]] = OrderedDict()

    def about(self) -> tuple[str, str]:
        """The node, and its fade_lens; nothing heavy is imported yet."""
        return required().util.get_node_ip_address(), installed()

    def run(self, key: str, packed: bytes, modules: list[tuple[str, Any]], task: bytes) -> bytes:
        """One piece of work, and what it gave, or an error that is to be told."""
        try:
            work, held = self._unpacked(key, packed, modules)
            found = "found", list(work(*held, *pickle.loads(task)))
        except FadeLensError as error:
            found = "told", error
        return pickle.dumps(found, 5)

    def _unpacked(self, key: str, packed: bytes, modules: list[tuple[str, Any]]) -> tuple[Any, Any]:
        if key not in self._held:
            while len(self._held) >= KEPT:
                self._held.popitem(last=False)
            refs = dict(modules)
            needed = {*refs}.union(*(names for *_, names in self._held.values()))
            self._modules = {name: module for name, module in self._modules.items() if name in needed}
            unpickler: Any = pickle.Unpickler(io.BytesIO(packed))
            unpickler.persistent_load = lambda name: self._module(name, refs[name])
            self._held[key] = (*unpickler.load(), set(refs))
            if torch := sys.modules.get("torch"):  # what the work imported
                torch.set_num_threads(self._threads)
                torch.set_float32_matmul_precision(self._precision)
        self._held.move_to_end(key)
        return self._held[key][:2]

    def _module(self, name: str, ref: Any) -> Any:
        import torch

        if name not in self._modules:
            buffer = required().get(ref)
            module = torch.load(io.BytesIO(buffer), map_location=self._device, weights_only=False)
            self._modules[name] = module.to(self._device)
        return self._modules[name]
