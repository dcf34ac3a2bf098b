"""The run's settings as Python that makes them again."""

from dataclasses import fields
from typing import Any, cast

from fade_lens._util.record import to_plain
from fade_lens._util.words import clip
from fade_lens.runs.record import RunRecord
from fade_lens.runs.settings import Settings


def recipe(run: RunRecord) -> str:
    """Python for the same settings, with what it was run on as comments; empty where the run recorded no settings.

    >>> from fade_lens.runs.record import ModelRecord
    >>> print(recipe(RunRecord({"seed": 7, "factors": [0.5, 1.0], "outlier_factor": "inf"}, ModelRecord("gpt2"))))
    from fade_lens import Settings
    # model: {'name': 'gpt2'}
    settings = Settings(
        seed=7,
        outlier_factor=float('inf'),
        factors=(0.5, 1.0),
    )
    """
    given, features = run.settings, run.features
    if not given:
        return ""
    known = [f.name for f in fields(Settings) if f.name in given]
    lines = ["from fade_lens import Settings"]
    if features.release and features.sae_id:
        named = f"{clip(features.release, 200)!r}, {clip(features.sae_id, 200)!r}"
        lines += ["from sae_lens import SAE", f"sae = SAE.from_pretrained({named})"]
    for key in ("model", "features", "corpus", "judge", "versions"):
        told = to_plain(getattr(run, key)) or {}
        if told := {name: value for name, value in told.items() if value not in (None, "", {})}:
            lines.append(f"# {key}: {clip(repr(told), 400)}")  # `repr` keeps any text on its line
    others = [
        f"{name}={_value(name, value)}" for name, value in given.items() if name not in known and name.isidentifier()
    ]
    lines += [f"# of other scorers, for Fade(...): {clip(', '.join(others), 400)}"] if others else []
    lines += ["settings = Settings(", *(f"    {name}={_value(name, given[name])}," for name in known), ")"]
    return "\n".join(lines)


def _value(name: str, value: Any) -> str:
    if name == "outlier_factor" and isinstance(value, str):  # JSON has no infinity
        return f"float({clip(value, 40)!r})"
    return clip(repr(tuple(cast(list[Any], value)) if isinstance(value, list) else value), 400)
