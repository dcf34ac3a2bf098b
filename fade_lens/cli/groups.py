"""Options that commands share, as one value: a command names the group, and each of the group's fields is an option of its own."""

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from fade_lens.cli.completion import COMPLETIONS
from fade_lens.cli.config import CONFIG, keeping, options_of_file

THEMES = {
    **dict.fromkeys(("descriptions", "features", "explainer", "held_out", "neuronpedia"), "Descriptions"),
    **dict.fromkeys(("scorers", "nulls", "baselines", "scores"), "Scores"),
    "judge": "Judge",
    **dict.fromkeys(
        ("model", "sae_release", "sae_id", "sae_ids", "sae", "hook", "feature", "device", "dtype"), "Subject"
    ),
    **dict.fromkeys(("corpus", "corpus_column", "corpus_limit", "corpus_windows"), "Natural texts"),
    **dict.fromkeys(("out", "csv", "store", "as_json", "quiet", "dry_run", "config"), "Output"),
}
"""Under which title help shows options whose group has none."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of options: a dataclass whose fields are annotated as typer's options are."""

    theme: ClassVar[str] = ""
    """The title under which help shows those that have no other."""

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


def told(option: inspect.Parameter, theme: str) -> inspect.Parameter:
    """An option with its title in help and with what a shell offers after it, where it has none."""
    kind, about, *more = get_args(option.annotation)
    about = copy(about)
    about.rich_help_panel = about.rich_help_panel or (theme if isinstance(about, OptionInfo) else None) or None
    about.autocompletion = about.autocompletion or COMPLETIONS.get(option.name)
    return option.replace(annotation=Annotated[kind, about, *more])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which the options of each group stand in the group's place, and which takes a file of options and leaves one."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups = {p.name: p.annotation for p in own if isinstance(p.annotation, type) and issubclass(p.annotation, Group)}
    shown: dict[str, tuple[str, inspect.Parameter]] = {}
    """By name: whose option it is, and the option. The first of a name stays: an installed package's setting may have another's."""
    for p in own:
        group = groups.get(p.name)
        for option in group.options() if group else [parameter(p.name, p.annotation, p.default)]:
            shown.setdefault(
                option.name, (p.name, told(option, (group and group.theme) or THEMES.get(option.name, "")))
            )
    options = {name: option for name, (_, option) in shown.items()}

    def from_file(ctx: Any, config: Path | None) -> Path | None:
        if config is not None:
            ctx.default_map = options_of_file(config, options, command.__name__)
        return config

    def called(ctx: Any, config: Path | None, **given: Any) -> None:  # noqa: ARG001
        parts: dict[str, dict[str, Any]] = {p.name: {} for p in own}
        for name, value in given.items():
            parts[shown[name][0]][name] = value
        with keeping(ctx, command.__name__, options, given):
            command(**{name: groups[name].of(part) if name in groups else part[name] for name, part in parts.items()})

    file = Annotated[Path | None, typer.Option(help=CONFIG, is_eager=True, callback=from_file, rich_help_panel=THEMES["config"])]  # fmt: skip
    parameters = [parameter("ctx", typer.Context, inspect.Parameter.empty), *options.values(), parameter("config", file, None)]  # fmt: skip
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called
