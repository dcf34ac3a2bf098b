"""Errors that a user can act on: each message names what was given, what was expected and how to mend it."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Argument:
    """An argument in an error's message, with the value that it has or should be given; the command line shows it as its option.

    >>> str(InputError("give ", Argument("rating", "single"))), InputError(Argument("seed"), " is -1").field
    ("give rating='single'", 'seed')
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value!r}"


class FadeLensError(Exception):
    """Base of every error that fade_lens raises on purpose; its message is made of texts and `Argument`s."""

    def __str__(self) -> str:
        return self.told(str)

    def told(self, write: Callable[[Argument], str]) -> str:
        """The message, its arguments written by `write`."""
        return "".join(write(part) if isinstance(part, Argument) else str(part) for part in self.args)

    @property
    def field(self) -> str | None:
        """The argument that cannot be used, where the message names one."""
        return next((part.name for part in self.args if isinstance(part, Argument)), None)


class InputError(FadeLensError, ValueError):
    """An argument, file or table that cannot be used as given; raised before any work is done."""


@contextmanager
def renamed(names: Mapping[str, str]) -> Generator[None]:
    """Let an `InputError` name arguments as the caller knows them.

    Args:
        names: what they are called here, by what they are called within.
    """
    try:
        yield
    except InputError as error:
        parts = (
            replace(part, name=names.get(part.name, part.name)) if isinstance(part, Argument) else part
            for part in error.args
        )
        raise InputError(*parts) from error


class MissingExtraError(FadeLensError, ImportError):
    """An optional dependency is absent; the message says which extra brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package!r}, which is not installed: pip install 'fade-lens[{extra}]'")


class JudgeError(FadeLensError):
    """The judge cannot answer at all (unreachable, bad key, unknown model): the run stops, what was done is kept."""


class StoreError(FadeLensError):
    """A run store that cannot be used: made with other settings, by another version, or damaged."""


class WorkerError(FadeLensError):
    """Ray's workers cannot go on: the run stops, what was done is kept."""


def suggest(name: str, known: Iterable[str], n: int = 3) -> str:
    """`"; did you mean 'x', 'y'?"` for the known names nearest to `name`, or an empty string."""
    near = get_close_matches(name, list(dict.fromkeys(other for other in known if other != name)), n=n, cutoff=0.6)
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""
