"""Everything that decides a run's numbers, put together from the settings of the scorers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, make_dataclass
from functools import cache
from typing import Any

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.registry import Registered, registered
from fade_lens.explainers import base as explainers
from fade_lens.runs.presets import preset_settings
from fade_lens.scorers import base as scorers
from fade_lens.scorers.fade import FadeSettings
from fade_lens.subject.settings import HealthSettings, SubjectSettings, SummarySettings, unbound


@dataclass(frozen=True)
class Settings(FadeSettings, SummarySettings, HealthSettings):
    """Settings of a run; the defaults suit SAE latents and a paid judge (about 20 judge calls a description).

    They are those of the subject and of FADE's scorers; what each means stands where it is defined. Those of other scorers that are
    registered can be given to `Fade` by name, beside these.

    Raises:
        InputError: a value that cannot be used, by its name.
    """


def settings_of(given: Settings | None, overrides: Mapping[str, Any], *, neurons: bool = False) -> Settings:
    """Settings with some changed, those of every registered scorer and explainer among them.

    Args:
        given: settings to begin with; None: the defaults.
        overrides: what to change, by name. `preset` changes what is not given, neither here nor, other than the default, in `given`.
        neurons: whether they are for neurons rather than SAE latents.

    Raises:
        InputError: a name that none of them knows, or a value that cannot be used.
    """
    kind = every_setting()
    changed = dict(overrides)
    preset = preset_settings(changed.pop("preset", "default"), neurons=neurons)
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(changed) - set(known)):
        names = ", ".join(["preset", *sorted(known)])
        raise InputError(Argument(unknown[0]), f" is no setting{suggest(unknown[0], known)}; the settings are {names}")
    before = given or Settings()
    kept = {field.name: getattr(before, field.name) for field in fields(before) if field.name in known}
    kept = {name: value for name, value in kept.items() if name not in preset or value != known[name].default}
    return kind(**preset | kept | changed)


def every_setting(*, installed: bool = False) -> type[Settings]:
    """The settings of the subject and of every registered scorer and explainer; of `installed` packages' too, by their entry points."""
    for registry in (scorers.REGISTRY, explainers.REGISTRY):
        registry.load_own()
        if installed:
            registry.load_installed()
    return composed(tuple(known.Settings for _, _, known in registered()))


@cache
def composed(parts: tuple[type[SubjectSettings], ...]) -> type[Settings]:
    """`Settings` with the parts that it does not have: what it makes is an instance of each."""
    kinds = dict.fromkeys(parts)
    more = tuple(
        part for part in kinds if not any(issubclass(other, part) for other in (*kinds, Settings) if other is not part)
    )
    return make_dataclass("Settings", (), bases=(*more, Settings), frozen=True) if more else Settings


def recorded(settings: SubjectSettings, used: Iterable[type[Registered]]) -> dict[str, Any]:
    """The settings of the subject, of FADE and of some scorers or explainers as values that JSON knows, for the record of a run.

    Those of what is only shown are left out, so that a store takes them as they are now.
    """
    names = {field.name for kind in (Settings, *(one.Settings for one in used)) for field in fields(kind)}
    return {name: value for name, value in settings.to_dict().items() if name in names - unbound()}
