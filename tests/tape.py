"""What a CUDA graph does, on any device: operations are recorded with the tensors that they read and write, and run again without Python."""

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

WAITS = ("nonzero", "_local_scalar_dense", "unique", "masked_select", "equal")
"""Operations for whose result a GPU must be waited for, by how their names begin."""


class NoWaits(TorchDispatchMode):
    """The time in which an operation that waits for the device fails."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not name.lstrip("_").startswith(tuple(w.lstrip("_") for w in WAITS)), f"{name} waits for the device"
        if name.startswith("index") and args[0].device.type != "meta":
            masks = [t for t in tree_leaves(args[1:]) if isinstance(t, Tensor) and t.dtype == torch.bool]
            assert not masks or name == "index_put_", f"{name} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Records a step: `Tape.record` is what a `GraphDecoder` takes in place of CUDA graphs.

    Tensors that were there before are held weakly: a replay that reads one that is gone fails, as on a GPU it would read what lies there now.
    """

    recorded, replayed = 0, 0

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        held = tree_map_only(Tensor, lambda t: t if id(t) in self.made else ref(t), (args, kwargs))
        self.made |= {id(t) for t in tree_leaves(out) if isinstance(t, Tensor)}
        self.made -= {id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)} - self.made
        self.done.append((func, *held, out))
        return out

    def replay(self) -> None:
        def there(held: Any) -> Any:
            tensor = held() if isinstance(held, ref) else held
            assert tensor is not None, "a replay reads memory that is free"
            return tensor

        for func, args, kwargs, out in self.done:
            args, kwargs = tree_map_only(ref, there, (args, kwargs))
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    @classmethod
    def record(cls, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        tape = cls()
        cls.recorded += 1
        with tape:
            state = step()

        def replay() -> Tensor:
            cls.replayed += 1
            tape.replay()
            return state

        return replay
