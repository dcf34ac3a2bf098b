"""`steer`: what a model writes while a feature is steered, beside what it writes otherwise."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of
from fade_lens._util.seeds import stream
from fade_lens.data.corpus import Corpus
from fade_lens.generation.checks import UNITS, Mode, check_steering
from fade_lens.generation.continuing import written
from fade_lens.generation.steering import Request, check_requests, check_settings
from fade_lens.subject.features import Source, features_of
from fade_lens.subject.hooks import Model
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import tokenize

if TYPE_CHECKING:
    import pandas as pd

UNSTEERED: dict[str, float] = {"add": 0.0, "scale": 1.0}
"""The factor that leaves the model alone, where there is one."""


def steer(
    model: Model,
    source: Source,
    index: int,
    prompts: Sequence[str] | str,
    factors: Sequence[float] | float = (0.5, 1.0, 1.5, 2.0),
    *,
    corpus: Corpus | Sequence[str] | Subject | None = None,
    unit: float | None = None,
    mode: Mode = "add",
    new_tokens: int = 30,
    temperature: float = 0.7,
    top_k: int | None = None,
    seed: int = 0,
) -> "pd.DataFrame":
    """Continue prompts while a feature is steered at every position, and without.

    Factors are in units of an activation of the feature: of `unit` where it is given, else of the feature's reference activation, the 99 %
    quantile of its largest activations over the texts of `corpus` on which it fires, as everywhere. One of the two is needed in the modes
    "add" and "clamp": a unit measured on the prompts would change with them, and most features are silent on most prompts. There is no `ray`:
    a few continuations are written at once here, and a `Subject` may have been observed by others.

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name for neurons.
        index: of the feature.
        prompts: what is continued; a prompt that is given twice is continued in two ways.
        factors: strengths; what they mean depends on the mode (see `fade_lens.generation.checks.Mode`).
        corpus: natural texts that tell the unit, or a `Subject` of the feature that is observed on them.
        unit: the activation that factor 1 stands for.
        mode: "add" the direction, or "clamp", "scale" or "ablate" (which takes no factors) the activation.
        temperature: 0 takes the likeliest token; else a prompt's continuations share their random numbers, so that they differ by steering.
        top_k: draw among so many likeliest tokens only.

    Returns:
        One row a prompt and factor, the unsteered one first: prompt, factor, steered, continuation, nll (mean negative log-likelihood a
        token under the unsteered model, nats), unit. The factor of the unsteered model is 0 for "add", 1 for "scale" and missing
        otherwise. A continuation during which the model's activations overflowed is missing.

    Raises:
        InputError: no prompts or factors, an index that is not there, a feature that never fires on the corpus and so has no unit, prompts that
            leave no room in the model's context.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    factors = (factors,) if isinstance(factors, int | float) else tuple(factors)
    check_settings(mode, new_tokens, temperature, top_k, None)
    check_steering(prompts, factors, unit, corpus, mode)
    features = features_of(model, source, [index])
    tokens = tokenize(model, prompts, context=int(model.cfg.n_ctx), prepend_bos=features.prepend_bos)
    room = int(model.cfg.n_ctx) - new_tokens
    if (long := np.flatnonzero(tokens.lengths > room)).size:
        raise InputError(
            Argument("prompts"),
            f"[{long[0]}] has more than {room} tokens, which with {new_tokens} new ones exceed the model's context of "
            f"{model.cfg.n_ctx}; shorten it or lower ",
            Argument("new_tokens"),
        )
    plain = UNSTEERED.get(mode, math.nan)
    strengths = (1.0,) if mode == "ablate" else tuple(float(f) for f in dict.fromkeys(factors) if f != plain)
    requests = [
        # One stream a prompt, whatever the factor: continuations differ by steering, not by luck.
        Request(tuple(tokens[i].tolist()), None if factor is None else 0, factor or 0.0, stream(seed, "steer", i))
        for i in range(len(prompts))
        for factor in (None, *strengths)
    ]
    check_requests(model, features, requests, torch.ones(1), mode, new_tokens)
    if unit is None and mode in UNITS:
        unit = unit_of(corpus if isinstance(corpus, Subject) else Subject(model, source, corpus or (), [index]))
    drawn: dict[str, Any] = {"new_tokens": new_tokens, "temperature": temperature, "top_k": top_k}
    reference = np.array([1.0 if unit is None else unit])
    texts, nll = written(model, features, requests, reference, mode=mode, **drawn)
    return table_of(
        {
            "prompt": prompts[i // (1 + len(strengths))],
            "factor": plain if request.feature is None else math.nan if mode == "ablate" else request.factor,
            "steered": request.feature is not None,
            "continuation": texts[i],
            "nll": nll[i],
            "unit": unit,
        }
        for i, request in enumerate(requests)
    )


def unit_of(subject: Subject) -> float:
    """The reference activation of a subject's only feature. Raises `InputError` if it never fires."""
    index = subject.features.indices[0]
    if math.isnan(unit := subject.reference(index)):
        raise InputError(
            f"feature {index} never fires on {subject.corpus.source}, which leaves no unit for its factors; give ",
            Argument("unit"),
            ", or other texts",
        )
    return unit
