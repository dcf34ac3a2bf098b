"""Everything that decides a run's numbers, put together from the settings of the scorers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from typing import Any

from fade_lens._util.errors import InputError
from fade_lens._util.registry import Registered, registered
from fade_lens.explainers import base as explainers
from fade_lens.scorers import base as scorers
from fade_lens.scorers.fade import FadeSettings
from fade_lens.subject.settings import SubjectSettings


@dataclass(frozen=True)
class Settings(FadeSettings):
    """Settings of a run; the defaults suit SAE latents and a paid judge (about 20 judge calls a description).

    They are those of the subject and of FADE's scorers; what each means stands where it is defined. Those of other scorers that are
    registered can be given to `Fade` by name, beside these.

    Raises:
        InputError: a value that cannot be used, by its name.
    """


def settings_of(given: Settings | None, overrides: Mapping[str, Any]) -> Settings:
    """Settings with some changed, those of every registered scorer and explainer among them.

    Raises:
        InputError: a name that none of them knows, or a value that cannot be used.
    """
    for registry in (scorers.REGISTRY, explainers.REGISTRY):
        registry.load_own()
    kind = composed(tuple(known.Settings for _, _, known in registered()))
    known = sorted(field.name for field in fields(kind))
    if unknown := set(overrides) - set(known):
        raise InputError(f"unknown setting {min(unknown)!r}; the settings are {', '.join(known)}")
    before = given or Settings()
    return kind(
        **{field.name: getattr(before, field.name) for field in fields(before) if field.name in known} | dict(overrides)
    )


@cache
def composed(parts: tuple[type[SubjectSettings], ...]) -> type[Settings]:
    """`Settings` with the parts that it does not have: what it makes is an instance of each."""
    more = tuple(part for part in dict.fromkeys(parts) if not issubclass(Settings, part))
    return make_dataclass("Settings", (), bases=(*more, Settings), frozen=True) if more else Settings


def recorded(settings: SubjectSettings, used: Iterable[type[Registered]]) -> dict[str, Any]:
    """The settings of the subject, of FADE and of some scorers or explainers as values that JSON knows, for the record of a run."""
    names = {field.name for kind in (Settings, *(one.Settings for one in used)) for field in fields(kind)}
    return {name: value for name, value in settings.to_dict().items() if name in names}
