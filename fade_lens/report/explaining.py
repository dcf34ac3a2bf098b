"""Explanations that were not scored yet: a table, and a card for every feature with what its explainer was shown."""

from collections.abc import Sequence
from typing import Any

from fade_lens._util.reasons import Flag
from fade_lens._util.record import to_plain
from fade_lens._util.words import amount, clip, flat, plain
from fade_lens.analysis.notes import CardNotes
from fade_lens.explainers.base import Explanation
from fade_lens.explainers.table import Explanations
from fade_lens.report.cards import Detail, explained, fitted, ruled
from fade_lens.report.page import CARD_BYTES, CARDS_BYTES, rendered
from fade_lens.report.rows import Group, added, kinds
from fade_lens.scorers.base import RuleScores

COLUMNS = (("shown", "Windows shown"), ("calls", "Calls"), ("cost", "Cost"))


def explanations_page(found: Explanations) -> str:
    """One HTML file: a table of the features as they were asked for, and a card for each."""
    budget, n = min(CARDS_BYTES // max(len(found.rows), 1), CARD_BYTES), len(found.rows)
    priced = any(one.usage is not None and one.usage.cost is not None for one in found.rows)
    columns = COLUMNS if priced else COLUMNS[:-1]
    shared = found.collisions()
    flags = [[flag] if (flag := shared.flag(one.index)) else [] for one in found.rows]
    without = Group("without", n - len(found), "without one", found.counted + ".")
    return rendered(
        kind="explanations",
        heading="Feature",
        column="Description",
        caption="Features with their descriptions; headings sort, descriptions open a card.",
        title=f"{amount(len(found))} of {amount(n)} features described",
        standings=[Group("described", len(found), "described", ""), *([without] if found.reasons else [])],
        order="place",
        order_words="as asked for",
        facts=[],
        settings=flat(to_plain(dict(found.run))),
        metrics=columns,
        rows=[row(place, one, columns, own) for place, (one, own) in enumerate(zip(found.rows, flags, strict=True))],
        flags=kinds(flag for own in flags for flag in own),
        cards=[
            fitted(lambda detail, one=one, own=own: explanation_data(one, detail, own), budget)
            for one, own in zip(found.rows, flags, strict=True)
        ],
    )


def explanation_data(one: Explanation, detail: Detail, flags: Sequence[Flag] = ()) -> dict[str, Any]:
    """A card as a JSON value; every string `visible`, every number finite."""
    text, rules = ("(no description)", ()) if one.description is None else (one.description.text, one.description.rules)
    about = explained(one.provenance, one.windows, detail)
    if about is not None and one.search:
        told = "; ".join(f"{name.replace('_', ' ')} {amount(value)}" for name, value in one.search.items())
        about["facts"].append(["Chosen by", clip(told, 200)])
    known = {"index": one.index, "text": clip(text, 3000), "origin": "", "metrics": [], "flags": list(flags)}
    known |= {"rules": ruled([RuleScores(*rule, {}) for rule in rules])}
    return plain(known | {"standing": standing(one), "why": why(one), "explained": about} | added(CardNotes()))


def standing(one: Explanation) -> str:
    """Whether it has a description."""
    return "without" if one.description is None else "described"


def why(one: Explanation) -> str:
    """Who described it, or why it has no description."""
    return clip(f"by {one.provenance.maker}" if one.reason is None else str(one.reason), 300)


def row(place: int, one: Explanation, columns: Sequence[tuple[str, str]], flags: Sequence[Flag]) -> dict[str, Any]:
    """One row as the templates want it."""
    usage, n = one.usage, len(one.shown)
    cost = None if usage is None else usage.cost
    numbers = (
        (n, amount(n)),
        (None if usage is None else usage.calls, "" if usage is None else amount(usage.calls)),
        (cost, "" if cost is None else f"${cost:,.4f}"),
    )
    return {
        "place": place,
        "index": one.index,
        "text": "(no description)" if one.description is None else clip(one.description.text, 240),
        "origin": "",
        "standing": standing(one),
        "why": why(one),
        "flags": list(flags),
        "kinds": " ".join(kinds(flags)),
        "cells": [
            {"name": name, "value": value, "words": words, "note": "", "interval": "", "reason": "", "bad": False}
            for (name, _), (value, words) in zip(columns, numbers, strict=False)
        ],
        "hints": [why(one)],
        "verdict": "",
        "severity": None,
        "suggestion": "",
        "links": (),
    }  # fmt: skip
