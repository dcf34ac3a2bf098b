"""Classes that are found by a name: those of a package of ours, and those that installed packages bring by entry points."""

import logging
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Generic, TypeVar

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.options import Options

logger = logging.getLogger(__name__)


class Registered:
    """What is registered: a class with settings of its own, a frozen dataclass of `option`s."""

    Settings: ClassVar[Any]


T = TypeVar("T", bound=Registered)
REGISTRIES: "list[Registry[Any]]" = []
"""All of them: a setting belongs to one class, since the settings of a run are those of all."""


class Registry(dict[str, type[T]], Generic[T]):
    """The registered classes by name; a name that is not there yet is looked for in modules that are not imported yet.

    Args:
        noun: what each class is, such as "scorer".
        package: whose modules hold our own, such as "fade_lens.scorers"; also the group of entry points of installed packages.
    """

    def __init__(self, noun: str, package: str) -> None:
        super().__init__()
        self.noun, self.package = noun, package
        self.own_loaded = self.installed_loaded = False
        REGISTRIES.append(self)

    def load_own(self) -> None:
        """Import the package's own classes: every module of it. A second call does nothing."""
        if not self.own_loaded:
            self.own_loaded = True
            for module in pkgutil.iter_modules(import_module(self.package).__path__):
                import_module(f"{self.package}.{module.name}")

    def load_installed(self) -> None:
        """Import those of installed packages, by their entry points; one that cannot be imported is told and left out."""
        if self.installed_loaded:
            return
        self.installed_loaded = True
        for point in entry_points(group=self.package):
            try:
                point.load()
            except Exception as error:
                logger.warning("%s %r of %s cannot be imported: %s", self.noun, point.name, point.value, error)

    def add(self, name: str, made: type[T]) -> None:
        """Register a class; one of the same qualified name replaces itself, as when a notebook's cell is run again.

        Raises:
            InputError: the name is another class's, or that of a setting is.
        """
        if (known := self.get(name)) is not None and known.__qualname__ != made.__qualname__:
            raise InputError(
                f"{self.article} is already registered as {name!r} ({known.__qualname__}); give yours another name"
            )
        for registry, other, known in registered():
            owners = {} if registry is self and other == name else owners_of(known.Settings)
            for setting, owner in owners_of(made.Settings).items():
                if owners.get(setting, owner) is not owner:
                    raise InputError(
                        f"setting {setting!r} of {self.noun} {name!r} is already one of {registry.noun} {other!r}; call it otherwise"
                    )
        self[name] = made

    def find(self, name: str) -> type[T]:
        """The class of a name.

        Raises:
            InputError: none is registered under it, here or by an installed package.
        """
        for load in (self.load_own, self.load_installed):
            if name not in self:
                load()
        if name not in self:
            raise InputError(
                f"there is no {self.noun} {name!r}; there is {', '.join(map(repr, sorted(self)))}{suggest(name, self) or '.'} "
                "Import the module that registers it, or install its package"
            )
        return self[name]

    def find_all(self, names: Sequence[str], example: str) -> dict[str, type[T]]:
        """The classes of several names. Raises `InputError` for an unknown one, or for none."""
        if isinstance(names, str) or not names:
            raise InputError(
                Argument(f"{self.noun}s"), f" is {names!r}; give a tuple of at least one name, such as {example}"
            )
        return {name: self.find(name) for name in names}

    @property
    def article(self) -> str:
        """The noun with its article."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"


def registered() -> "Iterator[tuple[Registry[Any], str, Any]]":
    """Every registered class with its registry and its name."""
    return ((registry, name, known) for registry in REGISTRIES for name, known in registry.items())


def owners_of(settings: type[Options]) -> dict[str, type]:
    """The names of settings, each with the class that it comes from."""
    line = [kind for kind in reversed(settings.__mro__) if issubclass(kind, Options)]
    return {f.name: next(kind for kind in line if f.name in kind.__annotations__) for f in fields(settings)}
