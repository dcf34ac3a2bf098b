"""What follows from an audit: the description that each feature should have, and which features must be described anew."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fade_lens._util.brief import Brief
from fade_lens._util.wording import one_line
from fade_lens.analysis.verdicts import ELSEWHERE, best_of, defined
from fade_lens.neuronpedia.flagging import kinds_of
from fade_lens.subject.summary import FeatureSummary

LEFT = ("open", "dead", "unscored")
"""Verdicts with which a description stays where there is no better one."""
NOT_HERE = {"index_out_of_range", "sae_mismatch"}
"""Flags of rows that are of another SAE: nothing is to be described."""


@dataclass(frozen=True)
class Relabelling(Brief):
    """What is to be done with the descriptions of an audit.

    Attributes:
        rows: the descriptions that the features should have, as rows of the audit; one that is new for its feature has the id ""
            and, in `moved_from`, the feature that it was given to.
        outdated: ids of descriptions that the rows replace, or that are to be replaced by new ones.
        undescribed: features without a description that can stay, each with the rows that say why.
    """

    rows: tuple[dict[str, Any], ...]
    outdated: tuple[str, ...]
    undescribed: tuple[tuple[int, tuple[Mapping[str, Any], ...]], ...]


def relabelled(rows: Iterable[Mapping[str, Any]]) -> Relabelling:
    """The descriptions that features should have, by the verdicts of an audit.

    A feature gets the best of its descriptions that hold; else a text that fits it better than the feature that had it (of a swapped
    pair, the other's); else the best of those that nothing speaks against for certain; else it is to be described anew.
    """
    groups: dict[int, list[Mapping[str, Any]]] = {}
    moved: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(int(row["index"]), []).append(row)
        if row["verdict"] in ELSEWHERE:
            moved.setdefault(int(row["better_feature"]), []).append(row)
    found: list[dict[str, Any]] = []
    undescribed: list[tuple[int, tuple[Mapping[str, Any], ...]]] = []
    for index, group in groups.items():
        arrived = sorted(moved.get(index, ()), key=lambda row: row["verdict"] != "swapped")
        if good := best([row for row in group if row["verdict"] == "holds"]):
            found += map(dict, good)
        elif arrived:
            found.append(moved_row(arrived[0], index, group))
        elif left := best([row for row in group if row["verdict"] in LEFT]):
            found += map(dict, left)
        elif all(row["verdict"] != "not looked up" and not set(kinds_of(row["flags"])) & NOT_HERE for row in group):
            undescribed.append((index, tuple(group)))
    kept = {row["explanation_id"] for row in found}
    outdated = [str(row["explanation_id"]) for group in groups.values() for row in group if row["verdict"] not in ("holds", *LEFT)]  # fmt: skip
    return Relabelling(
        tuple(found), tuple(name for name in dict.fromkeys(outdated) if name and name not in kept), tuple(undescribed)
    )


def best(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best where they can be compared, else all."""
    return list(rows) if (one := best_of(rows)) is None else [one]


def moved_row(row: Mapping[str, Any], index: int, group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A description given to another feature: what its scores were there says nothing here."""
    there = next((own for own in group if defined(own["description"]) and own["description"] is not None and one_line(own["description"]) == one_line(row["description"])), {})  # fmt: skip
    named = {name: row[name] for name in ("description", "type_name", "explanation_model_name")}
    told = {"moved_from": int(row["index"]), "verdict_there": row["verdict"]}
    return {"index": index, "explanation_id": str(there.get("explanation_id") or ""), **named, **told}


def to_describe(index: int, rows: Sequence[Mapping[str, Any]], summary: FeatureSummary | None) -> dict[str, Any]:
    """What is needed to describe a feature anew: what it was called, why not any more, and the texts on which it is strongest."""
    texts = [] if summary is None else [
        {"text": "".join(top.tokens), "activation": top.activation, "tokens": top.tokens, "activations": top.activations}
        for top in summary.top
    ]  # fmt: skip
    return {
        "index": index,
        "verdicts": [row["verdict"] for row in rows],
        "descriptions": [row["description"] for row in rows if row["state"] == "described"],
        "flags": list(dict.fromkeys(flag for row in rows for flag in row["flags"])),
        "dashboard_url": rows[0]["dashboard_url"],
        "firing_rate": None if summary is None else summary.firing_rate,
        "top_texts": texts,
    }
