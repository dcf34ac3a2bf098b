"""What an audit says of each description: a verdict, how much it matters, what to do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fade_lens.data.descriptions import DESCRIBED
from fade_lens.neuronpedia.flagging import kinds_of
from fade_lens.neuronpedia.frames import NONE
from fade_lens.scorers.fade import METRICS

ELSEWHERE = ("swapped", "mislabelled")
"""Verdicts on a description that fits another feature better."""
SEVERITY: dict[str, float] = {
    "unusable": 0.95,
    "swapped": 0.9,
    "mislabelled": 0.85,
    "fails": 0.75,
    "missing": 0.6,
    "open": 0.5,
    "unscored": 0.35,
    "dead": 0.3,
    "not looked up": 0.2,
    "holds": 0.1,
}
"""Every verdict and how much it matters, before the metrics and flags move it a little: what rows are sorted by, and nothing else. Verdicts on
what was scored, and is not of another feature, are how it stands (`fade_lens.scorers.standing`)."""

UNUSABLE = ("index_out_of_range", "sae_mismatch", "empty", "prompt_leak")
"""With one of these flags a description is not worth a judge's time."""

FLAG_WEIGHTS = {
    "generic": 0.1,
    "dead": 0.1,
    "duplicate_description": 0.05,
    "overlong": 0.05,
    "dense": 0.05,
    "single_token_fallback": 0.05,
}
SPREAD = 0.04
"""How far the metrics move a severity: never past the next verdict."""


@dataclass(frozen=True)
class Verdict:
    """One or two words, a severity in [0, 1], and what to do in a sentence."""

    word: str
    severity: float
    suggestion: str = ""


def scorable(row: Mapping[str, Any]) -> bool:
    """Whether a row has a description that is worth scoring."""
    return row["state"] == DESCRIBED and not set(kinds_of(row["flags"])) & set(UNUSABLE)


def verdict_of(row: Mapping[str, Any], *, swapped: bool = False) -> Verdict:
    """The verdict on one row of an audit.

    Args:
        row: state, flags, and the metrics, `standing` and `better_feature` where it was scored.
        swapped: whether the feature that the description fits better has a description that fits this row's feature better.
    """
    word = word_of(row, swapped)
    scores = [float(row[name]) for name in METRICS if defined(row.get(name))]
    quality = min(1.0, max(0.0, sum(scores) / len(scores))) if scores else 0.5
    flagged = min(SPREAD, sum(FLAG_WEIGHTS.get(kind, 0.0) for kind in kinds_of(row["flags"])))
    severity = SEVERITY[word] + flagged - (SPREAD * quality if scores else 0.0)
    return Verdict(word, round(min(1.0, max(0.0, severity)), 3), suggestion_of(word, row))


def word_of(row: Mapping[str, Any], swapped: bool = False) -> str:
    """The verdict's word."""
    kinds = kinds_of(row["flags"])
    if set(kinds) & {"index_out_of_range", "sae_mismatch"}:
        return "unusable"
    if row["state"] != DESCRIBED:
        return "missing" if row["state"] == NONE else "not looked up"
    if set(kinds) & set(UNUSABLE):
        return "unusable"
    if not row.get("scored"):
        return "unscored"
    if defined(row.get("better_feature")):
        return "swapped" if swapped else "mislabelled"
    return str(row["standing"])


def suggestion_of(word: str, row: Mapping[str, Any]) -> str:
    """What to do."""
    if word == "swapped":
        return f"it and the description of feature {int(row['better_feature'])} are swapped: exchange them"
    if word == "mislabelled":
        better = f"feature {int(row['better_feature'])}"
        if "copied" in kinds_of(row["flags"]):
            return f"it is the description of {better}, which it fits: describe this feature anew"
        return f"it fits {better} of this run better: describe it again"
    if word == "missing":
        return "describe it"
    if word == "unusable":
        other = set(kinds_of(row["flags"])) & {"index_out_of_range", "sae_mismatch"}
        return "give the SAE that it belongs to" if other else "describe it again"
    return {"fails": "describe it again", "open": "look at its strongest texts, or have more texts rated"}.get(word, "")


def partners(rows: Iterable[Mapping[str, Any]]) -> set[tuple[int, int]]:
    """Pairs of features of which each has a description that fits the other better, both ways round."""
    better = {(int(row["index"]), int(row["better_feature"])) for row in rows if defined(row.get("better_feature"))}
    return {(one, other) for one, other in better if (other, one) in better}


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The best of one feature's descriptions: by the mean of the metrics that are defined for all of them; None without any."""
    scored = [row for row in rows if row.get("scored")]
    for names in (METRICS, METRICS[:3], METRICS[:1]):
        shared = [name for name in names if all(defined(row.get(name)) for row in scored)]
        if scored and shared:
            return max(scored, key=lambda row: sum(float(row[name]) for name in shared) / len(shared))
    return None


def defined(value: Any) -> bool:
    """Whether a cell holds a number."""
    return value is not None and type(value).__name__ != "NAType" and value == value
