"""The settings as options of the command line: each of a settings dataclass' fields is one, with its help and its default."""

import logging
from dataclasses import Field, dataclass, fields
from inspect import Parameter
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from fade_lens._util.options import Options, for_json, read, types_of
from fade_lens.cli.groups import Group, parameter

PANEL = "Settings"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SettingsOptions(Group):
    """The settings of a kind. `given` holds those that the command was given: a preset changes the others."""

    given: dict[str, Any]

    @classmethod
    def kind(cls) -> type[Options]:
        """Whose settings; a subclass tells others."""
        from fade_lens.runs.settings import every_setting

        return every_setting(installed=True)

    @classmethod
    def options(cls) -> list[Parameter]:
        """An option for each setting, and one for each that can be switched off."""
        kinds = types_of(cls.kind())
        own = fields(cls.kind())
        return [option_of(one, kinds[one.name]) for one in own] + [
            switch_of(one) for one in own if one.metadata["switch"]
        ]

    @classmethod
    def of(cls, given: dict[str, Any]) -> "SettingsOptions":
        """The settings as they were given. Raises `InputError` for what cannot be read as one."""
        kinds = types_of(cls.kind())
        told: dict[str, Any] = {}
        for one in fields(cls.kind()):
            if (value := given.get(one.name)) is not None:
                told[one.name] = read(value, one, kinds[one.name]) if isinstance(value, str) else value
            if not given.get(one.metadata["switch"], True):
                told[one.name] = read("none", one, kinds[one.name])
        return cls(given=told)


@dataclass(frozen=True, kw_only=True)
class RunSettings(SettingsOptions):
    """All settings of a run, with its preset."""

    @classmethod
    def options(cls) -> list[Parameter]:
        """One for the preset, and those of the settings."""
        from fade_lens.runs.presets import PRESETS

        text = "Settings to begin with; those that are given beside it stay. paper: the reference implementation's."
        option = typer.Option(help=text, metavar="|".join(PRESETS), rich_help_panel=PANEL)
        return [parameter("preset", Annotated[str, option], next(iter(PRESETS))), *super().options()]

    @classmethod
    def of(cls, given: dict[str, Any]) -> "RunSettings":
        """The settings as they were given, the preset among them."""
        return cls(given={"preset": given["preset"], **super().of(given).given})

    def settings(self, *, neurons: bool) -> Any:
        """The settings of the run, of `neurons` rather than SAE latents. Raises `InputError`."""
        from fade_lens.runs.settings import settings_of

        return settings_of(None, self.given, neurons=neurons)


def option_of(setting: "Field[Any]", kind: Any) -> Parameter:
    """A setting as an option; one that is not given is None, whatever its default."""
    about = setting.metadata
    first = about["help"].split(". ")[0].rstrip(".")
    if about["none"]:
        first += f"; {'none' if about['off'] is None else f'{about["off"]:g}'}: {about['none']}"
    flags = [f"--{'/--no-'.join([setting.name.replace('_', '-')] * 2)}"] if kind is bool else []
    option = typer.Option(
        *flags,
        help=f"{first}.",
        show_default=shown(setting.default),
        metavar=None if kind is bool else form(setting, kind),
        rich_help_panel=PANEL,
    )
    return parameter(setting.name, Annotated[bool | None if kind is bool else str | None, option], None)


def switch_of(setting: "Field[Any]") -> Parameter:
    """The option that switches a setting off."""
    name = setting.metadata["switch"]
    option = typer.Option(
        f"--{name}/--no-{name}",
        help=f"The latter is --{setting.name.replace('_', '-')} none: {setting.metadata['none']}.",
        rich_help_panel=PANEL,
    )
    return parameter(name, Annotated[bool, option], True)


def form(setting: "Field[Any]", kind: Any) -> str:
    """How a value is written."""
    words = "|".join(setting.metadata["limits"]["choices"])
    allowed = [one for one in get_args(kind) or (kind,) if one not in (NoneType, ...)]
    one = words or {int: "whole number", float: "number"}.get(allowed[0], "text")
    return f"{one},…" if get_origin(kind) is tuple else one


def shown(value: Any) -> str:
    """A default as one would write it."""
    plain = for_json(value)
    return (
        "none"
        if value is None or value == ()
        else ",".join(map(shown, value))
        if isinstance(value, tuple)
        else f"{plain:g}"
        if isinstance(plain, float)
        else str(plain)
    )
