"""Where work is done that can be cut into pieces: in this process, or by workers elsewhere (`fade_lens.runs.ray`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers(ABC):
    """Who does work in pieces. What is found never depends on who does it, nor on how many they are."""

    @property
    def size(self) -> int:
        """How many work at a time."""
        return 1

    @property
    def device(self) -> str | None:
        """The kind of device that they compute on, such as "cuda"; None: that of the model as it is."""
        return None

    @property
    def record(self) -> Mapping[str, str]:
        """What a run's record says of them beside its versions, by name."""
        return {}

    def start(self) -> None:  # noqa: B027  there may be nothing to be done
        """Be ready, or raise why not; before anything is spent."""

    @abstractmethod
    def each(
        self, work: Callable[..., Iterable[Result]], held: tuple[Any, ...], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """What `work(*held, *task)` gives for each task, in the order of the tasks.

        Args:
            work: a function of a module; it changes nothing and reads no state but its arguments.
            held: what all tasks share, such as a model and features: sent to a worker once.
            tasks: small values, one piece of the work each.
        """


class InProcess(Workers):
    """This process, one piece after the other."""

    def each(
        self, work: Callable[..., Iterable[Result]], held: tuple[Any, ...], tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """See `Workers.each`; results come as they are made."""
        for task in tasks:
            yield from work(*held, *task)


HERE = InProcess()
