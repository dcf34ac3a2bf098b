"""A GPU that is not there: its tensors lie in the CPU's memory, say that they are elsewhere, and refuse what a real GPU's would refuse.

An operation on tensors of both devices fails, so that what is forgotten on the CPU is found where no GPU can be had. They say that they are on the device
"meta", for a PyTorch that is built without CUDA lets nothing be on "cuda". Rounding, speed and memory are the CPU's, and what CUDA does by itself (streams,
graphs) is not seen.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
CROSSES = {"_to_copy", "copy_"}
"""Operations that read on one device and write on the other."""
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations whose indices may lie on the CPU."""
PLAIN_ATTENTION = 0
"""Of the kinds of attention that PyTorch chooses among, the one that is made of other operations."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; `inner` is where its numbers are."""

    inner: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> "OnGpu":
        layout = inner.shape, inner.stride(), inner.storage_offset()
        return Tensor._make_wrapper_subclass(cls, *layout, dtype=inner.dtype, device=DEVICE)

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
        raise TypeError("a tensor on the GPU is no array: copy it to the CPU first")

    __array__ = numpy

    def __format__(self, spec: str) -> str:
        return format(self.cpu(), spec)

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"


def with_lists_read(index: Any) -> Any:
    """An index whose lists of numbers are tensors on the CPU: PyTorch would make tensors of the device "meta" of them, which hold nothing."""
    if isinstance(index, tuple):
        return tuple(map(with_lists_read, index))
    return torch.tensor(index) if isinstance(index, (list, range)) else index


def is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of which a tensor or the result is on the GPU."""
    name, asked = func.overloadpacket.__name__, kwargs.get("device")
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in given if isinstance(t, OnGpu)]
    said = f"{name} of {[(t.device.type, tuple(t.shape)) for t in given]}"
    assert all(isinstance(t, OnGpu) or t.device.type == "cpu" for t in given), f"a tensor holds nothing: {said}"
    if name in INDEXES:
        assert isinstance(given[0], OnGpu), f"an index is not on the same device: {said}"
    elif there and name not in CROSSES:  # a single number may be anywhere
        assert all(isinstance(t, OnGpu) or not t.dim() for t in given), f"not all are on the same device: {said}"
    if name == "_fused_sdp_choice":
        return PLAIN_ATTENTION
    result_there = isinstance(args[0], OnGpu) if name == "copy_" else bool(there) if asked is None else is_there(asked)
    plain, named = tree_map_only(OnGpu, lambda t: t.inner, (args, kwargs))
    out = func(*plain, **(named if asked is None else named | {"device": torch.device("cpu")}))
    inner_of = {id(t.inner): t for t in there}

    def outside(found: Tensor) -> Tensor:
        if not result_there or id(found) in inner_of:
            return inner_of.get(id(found), found)
        return OnGpu(found)

    return tree_map_only(Tensor, outside, out)


class Gpu(TorchDispatchMode):
    """The time in which tensors can be made on the GPU that is not there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ours = is_there(kwargs.get("device")) or any(isinstance(t, OnGpu) for t in tree_leaves((args, kwargs)))
        return run(func, args, kwargs) if ours else func(*args, **kwargs)


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
        cast(Any, module).cfg.device = str(DEVICE)
    return module


@contextmanager
def pretended() -> Generator[None]:
    """The time in which there is a GPU."""
    with pytest.MonkeyPatch.context() as patch, Gpu():
        patch.setattr(torch, "tensor", made_first(torch.tensor))
        yield


def made_first(tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor`, which makes tensors of the device "meta" outside of any mode."""

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        found = tensor(data, **options)
        return found if device is None else found.to(device)

    return made
