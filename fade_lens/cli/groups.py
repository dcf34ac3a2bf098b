"""Options that commands share, as one value: a command names the group, and each of the group's fields is an option of its own."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of options: a dataclass whose fields are annotated as typer's options are."""

    @classmethod
    def options(cls) -> list[inspect.Parameter]:
        """A parameter for each option."""
        hints = get_type_hints(cls, include_extras=True)
        return [
            parameter(f.name, hints[f.name], inspect.Parameter.empty if f.default is MISSING else f.default)
            for f in fields(cls)
        ]

    @classmethod
    def of(cls, given: dict[str, Any]) -> Any:
        """The group as its options were given."""
        return cls(**given)


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """One that is given by its name, as all options are."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which the options of each group stand in the group's place."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups = {p.name: p.annotation for p in own if isinstance(p.annotation, type) and issubclass(p.annotation, Group)}
    shown: dict[str, tuple[str, inspect.Parameter]] = {}
    """By name: whose option it is, and the option. The first of a name stays: an installed package's setting may have another's."""
    for p in own:
        options = groups[p.name].options() if p.name in groups else [parameter(p.name, p.annotation, p.default)]
        for option in options:
            shown.setdefault(option.name, (p.name, option))

    def called(**given: Any) -> None:
        parts: dict[str, dict[str, Any]] = {p.name: {} for p in own}
        for name, value in given.items():
            parts[shown[name][0]][name] = value
        command(**{name: groups[name].of(part) if name in groups else part[name] for name, part in parts.items()})

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature([option for _, option in shown.values()])  # pyright: ignore[reportFunctionMemberAccess]
    called.__annotations__ = {name: option.annotation for name, (_, option) in shown.items()}
    return called
