"""Where work is done that can be cut into pieces: in this process, or by workers elsewhere (`fade_lens.runs.ray`)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

Result = TypeVar("Result")


@runtime_checkable
class Workers(Protocol):
    """Who does work in pieces. What is found never depends on who does it, nor on how many they are.

    Attributes:
        size: how many work at a time.
        device: the kind of device that they compute on, such as "cuda"; None: that of the model as it is.
    """

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> str | None: ...

    def start(self) -> None:
        """Be ready, or raise why not; before anything is spent."""
        ...

    def each(
        self, work: Callable[..., Iterable[Result]], held: tuple[Any, ...], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """What `work(*held, *task)` gives for each task, in the order of the tasks.

        Args:
            work: a function of a module; it changes nothing and reads no state but its arguments.
            held: what all tasks share, such as a model and features: sent to a worker once.
            tasks: small values, one piece of the work each.
        """
        ...


class InProcess:
    """This process, one piece after the other."""

    size: int = 1
    device: str | None = None

    def start(self) -> None:
        """Nothing to be done."""

    def each(
        self, work: Callable[..., Iterable[Result]], held: tuple[Any, ...], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """See `Workers.each`; results come as they are made."""
        for task in tasks:
            yield from work(*held, *task)


HERE = InProcess()
