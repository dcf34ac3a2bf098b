"""Features without a description, as `look` and `fires` show them: the same card as that of a result, without scores."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from fade_lens._util.record import to_plain
from fade_lens._util.words import amount, clip, flat, number, plain
from fade_lens.analysis.notes import CardNotes
from fade_lens.neuronpedia.links import dashboard
from fade_lens.report import overview
from fade_lens.report.cards import DETAILS, Detail, compact, fitted, of_feature, shown_text, told_tokens
from fade_lens.report.links import source_of
from fade_lens.report.page import CARD_BYTES, CARDS_BYTES, rendered
from fade_lens.report.rows import Group, added, kinds
from fade_lens.runs.look import Look
from fade_lens.subject.look import FeatureLook
from fade_lens.subject.summary import LENS, Promoted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (("firing_rate", "Tokens"), ("largest", "Largest"), ("entropy", "Peaks"))
"""Columns of numbers: the share of tokens at which it fires, its largest activation, the entropy of the tokens at which it peaks."""
CHANGED = (
    "Change of the log-probability of the next token, in nats, on average over beginnings of natural texts, while the feature's direction is "
    "added at its reference activation; what random directions change as much is left out."
)
"""What stands over tokens by steering."""
HEAT_ROWS, HEAT_TOKENS = 20, 60
"""Of a text in a notebook: the latents and tokens in a table."""


def look_page(look: Look) -> str:
    """One HTML file: a table of the features as they were asked for, and a card for each."""
    budget = min(CARDS_BYTES // max(len(look), 1), CARD_BYTES)
    rows = [row(place, item, look) for place, item in enumerate(look)]
    dead = sum(item.feature.firing_texts == 0 for item in look)
    fire = Group("fires", len(look) - dead, "fire", "on the corpus.")
    never = Group("dead", dead, "dead", "never fire on it.")
    return rendered(
        kind="look",
        heading="Feature",
        column="Strongest text",
        caption="Features with their strongest texts; headings sort, texts open a card.",
        title=f"{amount(len(look))} feature{'' if len(look) == 1 else 's'} of {clip(look.run.model.name, 80)}",
        standings=[fire, *([never] if dead else [])],
        order="place",
        order_words="as asked for",
        facts=overview.shown(overview.subject_facts(look.run)),
        settings=[*flat(to_plain(look.run)), ("promoted tokens", LENS)],
        metrics=COLUMNS,
        rows=rows,
        flags=kinds(flag for item in look for flag in item.feature.flags),
        cards=[made(item, look, budget) for item in look],
    )


def made(item: FeatureLook, look: Look, budget: int) -> dict[str, Any]:
    """A card of at most so many bytes, with its link."""
    more = plain(added(notes(item, look)))
    return fitted(lambda detail: look_card(item, detail), budget - len(compact(more).encode())) | more


def notes(item: FeatureLook, look: Look) -> CardNotes:
    """The feature's page on Neuronpedia, where the SAE is known there."""
    source = source_of(look.run.features.neuronpedia_id)
    return CardNotes(links=() if source is None else (("Neuronpedia", dashboard(source, item.index)),))


def look_card(item: FeatureLook, detail: Detail = DETAILS[0]) -> dict[str, Any]:
    """What there is to see of a feature as a JSON value; every string `visible`, every number finite."""
    (edges, counts), about = item.histogram, of_feature(item.feature, detail)
    if isinstance(item.nearest, tuple):
        together = [
            "Fire on the same texts, by share of texts",
            item.together[: 5 * detail.top],
            "none of those looked at",
        ]
        about["neighbours"]["lists"].append(together)
    if item.changed is not None:
        about["tokens"].append(
            told_tokens("Tokens when it is steered", CHANGED, ("Likelier", "Less likely"), item.changed, detail)
        )
    return plain(
        {
            "index": item.index,
            "text": f"Feature {item.index}",
            "hint": hint(item),
            "origin": "",
            "standing": standing(item),
            "why": clip(hint(item), 300),
            "flags": [clip(flag, 200) for flag in item.feature.flags],
            "metrics": [],
            "detection": [],
            "judge": [],
            **about,
            "look": {
                "histogram": {"low": edges[0], "high": edges[-1], "counts": counts} if counts else None,
                "strata": [
                    {
                        "low": stratum.low,
                        "high": stratum.high,
                        "of": stratum.n,
                        "texts": [shown_text(text, detail) for text in stratum.texts[: max(detail.top // 2, 1)]],
                    }
                    for stratum in item.strata
                ],
            },
        }
    )


def standing(item: FeatureLook) -> str:
    """Whether it fires at all."""
    return "fires" if item.feature.firing_texts else "dead"


def hint(item: FeatureLook) -> str:
    """Where the strongest texts peak."""
    peaks = Counter(text.peak.strip() or text.peak.replace("\n", "↵") for text in item.feature.top)
    said = ", ".join(f"“{clip(token, 30)}” ({n})" for token, n in peaks.most_common(4))
    more = f" and {len(peaks) - 4} others" if len(peaks) > 4 else ""
    return f"its {len(item.feature.top)} strongest texts peak at {said}{more}" if said else "never fires on the corpus"


def row(place: int, item: FeatureLook, look: Look) -> dict[str, Any]:
    """One row as the templates want it."""
    feature, lens = item.feature, item.promoted
    promoted = lens.promoted[:5] if isinstance(lens, Promoted) else ()
    numbers = (
        (
            feature.firing_rate,
            share(feature.firing_rate),
            f"{amount(feature.firing_texts)} of {amount(feature.n_texts)} texts",
        ),
        (feature.largest if feature.firing_texts else None, amount(feature.largest), ""),
        (item.entropy, f"{number(item.entropy, 1)} bits", "0: one token alone" if item.entropy == 0 else ""),
    )
    return {
        "place": place,
        "index": item.index,
        "text": clip(feature.top[0].passage(), 240) if feature.top else "(no text)",
        "origin": "",
        "standing": standing(item),
        "why": hint(item),
        "flags": [clip(flag, 120) for flag in feature.flags],
        "kinds": " ".join(kinds(feature.flags)),
        "cells": [
            {"name": name, "value": value, "words": words, "note": note, "interval": "", "reason": "never fires", "bad": False}
            for (name, _), (value, words, note) in zip(COLUMNS, numbers, strict=True)
        ],
        "hints": [hint(item), *([f"promotes {', '.join(f'“{clip(token, 30)}”' for token, _ in promoted)}"] if promoted else [])],
        "verdict": "",
        "severity": None,
        "suggestion": "",
        "links": notes(item, look).links,
    }  # fmt: skip


def share(value: float) -> str:
    """A small share in per cent.

    >>> share(0.00123), share(0.0)
    ('0.123 %', '0 %')
    """
    return f"{100 * value:.3g} %"


def heat_tables(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """The strongest latents of each SAE by the tokens of the text, each value with its share of the latent's largest."""
    by_sae: dict[str, dict[int, dict[int, float]]] = {}
    tokens: dict[int, str] = {}
    for found in frame.to_dict("records"):  # the strongest first, so that of each latent the first is its largest
        cells = by_sae.setdefault(str(found["sae"]), {}).setdefault(found["index"], {})
        cells[found["position"]] = found["activation"]
        tokens[found["position"]] = str(found["token"])
    return [heat_table(name, rows, tokens) for name, rows in by_sae.items()]


def heat_table(name: str, found: dict[int, dict[int, float]], tokens: dict[int, str]) -> dict[str, Any]:
    """One SAE's part of them."""
    rows = list(found.items())[:HEAT_ROWS]
    places = sorted({at for _, cells in rows for at in cells})
    shown = places[:HEAT_TOKENS]
    cut = [f"{len(shown)} of {len(places)} tokens"] if len(shown) < len(places) else []
    cut += [f"{len(rows)} of {len(found)} features"] if len(rows) < len(found) else []

    def cell(cells: dict[int, float], at: int) -> tuple[float, float] | None:
        return (cells[at], abs(cells[at]) / abs(next(iter(cells.values())))) if at in cells else None

    return {
        "name": name,
        "left_out": ", ".join(cut),
        "tokens": [clip(tokens[at], 30) for at in shown],
        "rows": [(index, [cell(cells, at) for at in shown]) for index, cells in rows],
    }
