"""A GPU that is not there: tensors say that they are on one, lie in the CPU's memory, and refuse what a real one's would refuse.

An operation on tensors of both devices fails as CUDA's does, so that what is forgotten on the CPU is found where no GPU can be had. Rounding, speed and
memory are the CPU's, and what CUDA does by itself (streams, graphs) is not seen.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
CROSSES = {"_to_copy", "copy_", "_copy_from", "_copy_from_and_resize"}
"""Operations that read on one device and write on the other."""
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations whose indices may lie on the CPU."""
MATH_ATTENTION = 0


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; `inner` is where its numbers are."""

    inner: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> "OnGpu":
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=DEVICE, requires_grad=False
        )  # fmt: skip

    def __init__(self, inner: Tensor, requires_grad: bool = False) -> None:
        self.inner = inner.detach()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(with_lists_read(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(with_lists_read(index), value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    __array__ = numpy

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"

    __str__ = __repr__


def with_lists_read(index: Any) -> Any:
    """An index whose lists of numbers are tensors on the CPU: on the device "meta" they are read to nothing."""
    if isinstance(index, tuple):
        return tuple(map(with_lists_read, index))
    return torch.tensor(index) if isinstance(index, (list, range)) else index


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of which a tensor or the result is on the GPU."""
    name = func.overloadpacket.__name__
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in given if isinstance(t, OnGpu)]
    asked = kwargs.get("device")
    assert all(isinstance(t, OnGpu) or t.device.type == "cpu" for t in given), (
        f"{name} of a tensor that holds nothing: it was made of a list"
    )
    if name == "_fused_sdp_choice":
        return MATH_ATTENTION
    if there and name not in CROSSES:
        others = given[:1] if name in INDEXES else given
        mixed = [t for t in others if not isinstance(t, OnGpu) and t.dim()]
        if name in INDEXES and not isinstance(given[0], OnGpu):
            mixed = given[:1]  # what is indexed is on the CPU, an index on the GPU
        assert not mixed, (
            f"Expected all tensors to be on the same device: {name} of {[(t.device.type, tuple(t.shape)) for t in given]}"
        )
    result_there = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
    if name in ("copy_", "_copy_from"):
        result_there = isinstance(args[0], OnGpu)
    plain = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    plain_args, plain = tree_map_only(OnGpu, lambda t: t.inner, (args, plain))
    if name == "_to_copy":
        plain.pop("non_blocking", None)
    out = func(*plain_args, **plain)
    if (
        name == "_to_copy"
        and asked is not None
        and isinstance(out, Tensor)
        and out.data_ptr() == plain_args[0].data_ptr()
    ):
        out = out.clone()  # another device has a copy
    inner_of = {id(t.inner): t for t in there}

    def outside(found: Tensor) -> Tensor:
        if id(found) in inner_of:
            return inner_of[id(found)]
        return OnGpu(found) if result_there and not isinstance(found, OnGpu) else found

    return tree_map_only(Tensor, outside, out)


class Gpu(TorchDispatchMode):
    """The time in which tensors can be made on the GPU that is not there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        there = asked is not None and torch.device(asked).type == DEVICE.type
        if there or any(isinstance(t, OnGpu) for t in tree_leaves((args, kwargs))):
            return run(func, args, kwargs)
        return func(*args, **kwargs)


def on_gpu(module: nn.Module) -> Any:
    """A module, its parameters and buffers on the GPU."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(OnGpu(parameter.data), requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, OnGpu(buffer))
        if isinstance(getattr(part, "device", None), torch.device):
            cast(Any, part).device = DEVICE
    if hasattr(module, "cfg"):
        module.cfg.device = str(DEVICE)  # type: ignore[union-attr]
    return module


class Event:
    def record(self, *_: Any) -> None:
        return None

    synchronize = record


@contextmanager
def pretended(record: Callable[..., Any] | None = None) -> Generator[None]:
    """The time in which there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda *_: SimpleNamespace())
        patch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda *_: 0)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**33, 2**33))
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch, "tensor", made_first(torch.tensor))
        with Gpu():
            yield


def made_first(tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor`, which makes tensors of the device "meta" that hold nothing, outside of any mode."""

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        found = tensor(data, **options)
        return found if device is None else found.to(device)

    return made
