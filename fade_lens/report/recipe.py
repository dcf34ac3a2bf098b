"""The run's settings as Python that makes them again."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from fade_lens._util.words import clip
from fade_lens.runs.settings import Settings


def recipe(run: Mapping[str, Any]) -> str:
    """Python for the same settings, with what it was run on as comments; empty where the run recorded no settings.

    >>> print(recipe({"settings": {"seed": 7, "factors": [0.5, 1.0], "outlier_factor": "inf"}, "model": {"name": "gpt2"}}))
    from fade_lens import Settings
    # model: {'name': 'gpt2'}
    settings = Settings(
        seed=7,
        outlier_factor=float('inf'),
        factors=(0.5, 1.0),
    )
    """
    settings = run.get("settings")
    if not isinstance(settings, Mapping) or not settings:
        return ""
    given = cast(Mapping[str, Any], settings)
    known = [f.name for f in fields(Settings) if f.name in given]
    lines = ["from fade_lens import Settings", *_sae(run.get("features"))]
    # `repr` keeps any text on its line.
    lines += [f"# {key}: {clip(repr(run[key]), 400)}" for key in _ABOUT if run.get(key)]
    others = [
        f"{name}={_value(name, value)}" for name, value in given.items() if name not in known and name.isidentifier()
    ]
    lines += [f"# of other scorers, for Fade(...): {clip(', '.join(others), 400)}"] if others else []
    lines += ["settings = Settings(", *(f"    {name}={_value(name, given[name])}," for name in known), ")"]
    return "\n".join(lines)


_ABOUT = ("model", "features", "corpus", "judge", "versions")


def _sae(features: Any) -> list[str]:
    """Python that opens the SAE, where its release was recorded."""
    named = cast(Mapping[str, Any], features) if isinstance(features, Mapping) else {}
    release, sae_id = (named.get(key) for key in ("release", "sae_id"))
    if not (isinstance(release, str) and isinstance(sae_id, str)):
        return []
    return ["from sae_lens import SAE", f"sae = SAE.from_pretrained({clip(release, 200)!r}, {clip(sae_id, 200)!r})"]


def _value(name: str, value: Any) -> str:
    if name == "outlier_factor" and isinstance(value, str):  # JSON has no infinity
        return f"float({clip(value, 40)!r})"
    return clip(repr(tuple(cast(list[Any], value)) if isinstance(value, list) else value), 400)
