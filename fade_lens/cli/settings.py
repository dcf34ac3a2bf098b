"""The settings as options of the command line: each field of a settings dataclass is one, with its help and its default."""

import re
from dataclasses import Field, dataclass, fields
from inspect import Parameter, get_annotations
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from fade_lens._util.options import for_json, read, types_of
from fade_lens.cli.completion import completed
from fade_lens.cli.groups import Group, parameter

PANEL = "Settings"


@dataclass(frozen=True, kw_only=True)
class SettingsOptions(Group):
    """The settings that a command was given, by name; `settings` are all of them."""

    given: dict[str, Any]

    @classmethod
    def kinds(cls) -> list[type]:
        """The dataclasses whose fields are options."""
        from fade_lens.runs.settings import every_setting

        return [every_setting(installed=True)]

    @classmethod
    def known(cls) -> dict[str, tuple["Field[Any]", Any, type]]:
        """Every setting with its type, and the settings that it is of."""
        return {one.name: (one, types_of(kind)[one.name], kind) for kind in cls.kinds() for one in fields(kind)}

    @classmethod
    def options(cls) -> list[Parameter]:
        """An option for each setting, and one for each that can be switched off."""
        switches = [switch_of(one, whole) for one, _, whole in cls.known().values() if one.metadata["switch"]]
        return [option_of(*one) for one in cls.known().values()] + switches

    @classmethod
    def of(cls, given: dict[str, Any]) -> Any:
        """The settings as they were given. Raises `InputError` for what cannot be read as one."""
        told: dict[str, Any] = {}
        for name, (setting, kind, _) in cls.known().items():
            value = given.get(name) if given.get(setting.metadata["switch"], True) else "none"
            if value is not None:
                told[name] = read(value, setting, kind) if isinstance(value, str) else value
        return cls(given=told)

    def settings(self, *, neurons: bool = False) -> Any:
        """The settings of a run, of `neurons` rather than SAE latents. Raises `InputError`."""
        from fade_lens.runs.settings import settings_of

        return settings_of(None, self.given, neurons=neurons)


class RunSettings(SettingsOptions):
    """All settings, with a preset for those that are not given."""

    @classmethod
    def options(cls) -> list[Parameter]:
        """One for the preset, and those of the settings."""
        from fade_lens.runs.presets import PRESETS

        text = "Settings for what is not given here. paper: the reference implementation's."
        option = typer.Option(
            help=text, metavar="|".join(PRESETS), rich_help_panel=PANEL, autocompletion=completed(lambda: PRESETS)
        )
        return [parameter("preset", Annotated[str, option], next(iter(PRESETS))), *super().options()]

    @classmethod
    def of(cls, given: dict[str, Any]) -> Any:
        """The settings as they were given, the preset among them."""
        return cls(given={"preset": given["preset"], **super().of(given).given})


class ExplainSettings(SettingsOptions):
    """The settings of the subject and of explainers."""

    @classmethod
    def kinds(cls) -> list[type]:
        """Theirs."""
        from fade_lens.explainers.base import REGISTRY
        from fade_lens.runs.settings import every_setting
        from fade_lens.subject.settings import SubjectSettings

        every_setting(installed=True)
        return [SubjectSettings, *(explainer.Settings for explainer in REGISTRY.values())]


def option_of(setting: "Field[Any]", kind: Any, whole: type) -> Parameter:
    """A setting as an option. One that is not given is None, whatever its default is."""
    about, name = setting.metadata, setting.name.replace("_", "-")
    text = about["help"].split(". ")[0].rstrip(".")
    if about["none"]:
        off = "none" if about["off"] is None else f"{about['off']:g}"
        text += f"; {off}: {about['none']}"
    flag = kind is bool
    option = typer.Option(
        f"--{name}" + (f"/--no-{name}" if flag else ""),
        help=f"{text}.",
        show_default=written(setting.default),
        metavar=None if flag else form(setting, kind),
        rich_help_panel=theme_of(setting, whole),
        autocompletion=completed(lambda: setting.metadata["limits"]["choices"]),
    )
    return parameter(setting.name, Annotated[(bool if flag else str) | None, option, kind], None)


def switch_of(setting: "Field[Any]", whole: type) -> Parameter:
    """The option that switches a setting off."""
    name, text = setting.metadata["switch"], f"The latter is --{setting.name.replace('_', '-')} none."
    option = typer.Option(f"--{name}/--no-{name}", help=text, rich_help_panel=theme_of(setting, whole))
    return parameter(name, Annotated[bool, option], True)


def theme_of(setting: "Field[Any]", whole: type) -> str:
    """The title of a setting in help, by the settings that it is first defined in.

    >>> from fade_lens.scorers.clarity import ClaritySettings
    >>> theme_of(fields(ClaritySettings)[-1], ClaritySettings)
    'Settings: clarity'
    """
    first = next(one for one in reversed(whole.__mro__) if setting.name in get_annotations(one))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", first.__name__.removesuffix("Settings")).lower()
    return f"{PANEL}: {words}"


def form(setting: "Field[Any]", kind: Any) -> str:
    """How a value is written."""
    number = next(one for one in get_args(kind) or (kind,) if one is not NoneType)
    word = "|".join(setting.metadata["limits"]["choices"]) or {int: "N", float: "NUMBER"}.get(number, "TEXT")
    return f"{word},..." if get_origin(kind) is tuple else word


def written(value: Any) -> str:
    """A default as one would write it.

    >>> written((0.5, 2.0)), written(None), written(200), written(float("inf"))
    ('0.5,2', 'none', '200', 'inf')
    """
    if isinstance(value, tuple):
        return ",".join(map(written, value)) or "none"
    plain = for_json(value)
    return "none" if plain is None else f"{plain:g}" if isinstance(plain, float) else str(plain)
