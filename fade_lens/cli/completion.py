"""What a shell offers after an option, where it can be told without a heavy import."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fade_lens.subject.settings import DEVICES, DTYPES

LIST = "pretrained_saes.yaml"
"""SAELens' releases, in its package."""


def completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The completion of one of some names, or of the last of several between commas.

    >>> completed(lambda: ("fade", "fuzzing"))("detection,f")
    ['detection,fade', 'detection,fuzzing']
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def registered(noun: str) -> Iterable[str]:
    """The names of all scorers, or of all explainers, installed packages' among them."""
    from fade_lens._util.registry import REGISTRIES
    from fade_lens.runs.settings import every_setting

    every_setting(installed=True)
    return (name for registry in REGISTRIES if registry.noun == noun for name in registry)


def kinds(what: str) -> Iterable[str]:
    """The kinds of null descriptions, or of baseline features."""
    from fade_lens.baselines.kinds import BASELINES
    from fade_lens.baselines.null_descriptions import NULLS

    return NULLS if what == "nulls" else BASELINES


@cache
def listed() -> str:
    """SAELens' list as it stands, or nothing: its package is found, not imported."""
    spec = find_spec("sae_lens")
    file = Path(spec.origin).with_name(LIST) if spec and spec.origin else None
    return file.read_text(encoding="utf-8") if file and file.is_file() else ""


def saes(ctx: Any, incomplete: str) -> list[str]:
    """The SAEs of the release that was given."""
    release = re.escape(str(ctx.params.get("sae_release")))
    found = re.search(rf"(?ms)^{release}:\n(.*?)(?=^\S|\Z)", listed())
    return [one for one in re.findall(r"(?m)^  - id: (\S+)", found[1]) if one.startswith(incomplete)] if found else []


COMPLETIONS: dict[str, Callable[..., Any]] = {
    "scorers": completed(lambda: registered("scorer")),
    "explainer": completed(lambda: registered("explainer")),
    **{name: completed(lambda name=name: kinds(name)) for name in ("nulls", "baselines")},
    **dict.fromkeys(("sae_release", "release"), completed(lambda: re.findall(r"(?m)^([\w.+-]+):", listed()))),
    "sae_id": saes,
    "dtype": completed(lambda: DTYPES),
    "device": completed(lambda: DEVICES),
    **dict.fromkeys(("judge", "writer", "second_judge"), completed(lambda: ("openai:", "azure:", "ollama:", "openrouter:", "gguf:", "demo"))),
    "rating": completed(lambda: ("auto", "batched", "single")),
}  # fmt: skip
"""By the name of the parameter."""
