"""What is told of steering before anything heavy is imported."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from fade_lens._util.errors import Argument, InputError, suggest

Mode = Literal["add", "clamp", "scale", "ablate"]
"""What steering does to a feature whose activation at a position is `a`, reference activation `r`, at a factor:

| mode | the activation becomes | factor that leaves the model alone |
|---|---|---|
| add | a + factor · r | 0 |
| clamp | factor · r | none |
| scale | factor · a | 1 |
| ablate | 0 | none |

In every mode the change of the activation, times the feature's direction, is *added* to the hook's tensor, so that
the error of an SAE's reconstruction stays in. A model whose forward pass replaces the tensor by the reconstruction
(an SAE spliced in without an error term) therefore differs; to compare end to end with a method that writes to the
latents of a spliced-in SAE, splice it in as `x + decode(latents') - decode(latents)`.
"""
MODES: tuple[str, ...] = get_args(Mode)
UNITS = ("add", "clamp")
"""Modes whose factors are in units of an activation."""


def check_mode(mode: str) -> None:
    """Raise `InputError` for a mode that is none."""
    if mode not in MODES:
        raise InputError(
            Argument("mode"), f" {mode!r} is unknown{suggest(mode, MODES)}; give one of {', '.join(MODES)}"
        )


def check_steering(
    prompts: Sequence[str], factors: Sequence[float], unit: float | None, corpus: Any, mode: str
) -> None:
    """Raise `InputError` for what cannot be used, before the model runs."""
    check_mode(mode)
    if not prompts:
        raise InputError(Argument("prompts"), " is empty; give at least one text to continue")
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            raise InputError(Argument("prompts"), f"[{number}] is {prompt!r}; give a text to continue")
    if not factors and mode != "ablate":
        raise InputError(Argument("factors"), " is empty; give at least one, such as (1.0, 2.0)")
    for factor in factors:
        if not math.isfinite(factor):
            raise InputError(Argument("factors"), f" holds {factor}; every factor must be a finite number")
    if unit is not None and not (math.isfinite(unit) and unit > 0):
        raise InputError(Argument("unit"), f" is {unit}; give the activation that factor 1 stands for, above 0")
    if unit is None and corpus is None and mode in UNITS:
        raise InputError(
            Argument("mode"),
            f" {mode!r} needs to know what factor 1 stands for: give ",
            Argument("corpus"),
            " (natural texts, whose strongest activations are the unit) or ",
            Argument("unit"),
            " (an activation)",
        )
