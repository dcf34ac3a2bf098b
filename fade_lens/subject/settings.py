"""Settings of what is evaluated: which positions of which texts count, and the unit of steering."""

from dataclasses import dataclass, fields
from typing import get_args

from fade_lens._util.options import Options, option
from fade_lens.metrics.metric import Arithmetic

DTYPES = ("float32", "bfloat16", "float16")
"""What models are run in."""
DEVICES = ("cpu", "cuda", "mps")
"""What models are run on; a number may follow, as in cuda:1."""


@dataclass(frozen=True)
class SubjectSettings(Options):
    """What a `Subject` needs to know; the settings of every scorer begin with it."""

    arithmetic: Arithmetic = option(
        "default",
        "How scores are computed: signed, weighted and cross-fitted (default), or as the reference does, digit for digit (paper).",
        choices=get_args(Arithmetic),
    )
    seed: int = option(
        0,
        "All randomness of the run comes from it, from the feature and from the purpose; the order of features changes nothing.",
        least=0,
    )
    context: int | None = option(
        None,
        "Tokens of a text that count, BOS included.",
        least=2,
        none="what the SAE was trained on, at most 128",
    )
    outlier_factor: float = option(
        5.0,
        "Positions whose residual norm is above this many medians never count, for their activations are massive; inf: off.",
        above=1,
        mend="it must be above 1 (inf switches the rule off)",
    )
    reference_quantile: float = option(
        0.99,
        "A feature's reference activation: this quantile of its largest activations over the texts on which it fires.",
        above=0,
        most=1,
    )
    top_texts: int = option(
        10,
        "Strongest natural texts kept with their token-level activations, for people to look at.",
        least=0,
    )


@dataclass(frozen=True)
class SummarySettings(SubjectSettings):
    """What is told of every feature beside its strongest texts; no score depends on it."""

    promoted_tokens: int = option(
        10, "Tokens that the direction promotes most, and as many that it suppresses; 0: none.", least=0
    )
    neighbours: int = option(
        10, "Nearest decoder directions, and in `look` latents that fire on the same texts; 0: none.", least=0
    )
    caused_texts: int = option(
        0,
        "Of the strongest texts so many are shown with what each token does to the activations behind it, found by leaving it out. A text costs half the square of its tokens.",
        least=0,
    )


@dataclass(frozen=True)
class HealthSettings(SubjectSettings):
    """What is seen of the SAE before anything is scored; no score depends on it."""

    health_texts: int = option(
        200,
        """Texts on which a run first looks whether the SAE does what it should, and warns where not. At most a tenth of the corpus, and not at all where that is
        fewer than 50 texts, so that it never costs much more than the pass over the corpus; 0: never.""",
        least=0,
    )


def unbound() -> set[str]:
    """The names of settings that no score depends on: they are no part of what a store is bound to."""
    shown = {one.name for kind in (SummarySettings, HealthSettings) for one in fields(kind)}
    return shown - {one.name for one in fields(SubjectSettings)}
