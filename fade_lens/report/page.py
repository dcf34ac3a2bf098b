"""One self-contained HTML page of a run, and fragments for notebooks.

Everything shown is hostile data. In the page it goes through one of two gates: jinja2's autoescape, or `compact` JSON which the
page's script puts into text nodes. The page's policy (CSP) lets nothing run but that script, known by its hash, and nothing load.
"""

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fade_lens.metrics import Metric
from fade_lens.report import overview
from fade_lens.report.cards import DETAILS, card, compact, fitted
from fade_lens.report.standing import TITLES, below, gate_of, standing, why, worst_first
from fade_lens.report.words import amount, clip, flat, number, visible
from fade_lens.results import METRICS, Result, Results

CARDS_BYTES = 8_000_000
"""What the cards of a page may take together: with the table of 1,000 descriptions the page stays under 10 MB."""
CARD_BYTES = 400_000
"""What one card may take."""
TABLE_ROWS = 100
"""Rows of the table in a notebook."""
PAGE_ROWS = 50
"""Rows that the page lays out before it is asked for more."""


def page(results: Results) -> str:
    """One HTML file: the overview, the table with the worst descriptions first, and a card for each description.

    It needs no network and no other file. Of a large run the cards show less of the evidence (they say how much), so that the
    page stays small; `Results.save` keeps all of it.
    """
    gate = gate_of(results.run)
    budget = min(CARDS_BYTES // max(len(results), 1), CARD_BYTES)
    ordered = worst_first(results, gate)
    style, script = _source("page.css"), _source("page.js")
    return _environment().get_template("page.html").render(
        title=_title(results),
        policy=f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        gate=gate,
        page_rows=PAGE_ROWS,
        tally=overview.tally(ordered, gate),
        facts=overview.facts(results),
        panels=overview.panels(results),
        reasons=overview.reasons(results),
        settings=flat(results.run),
        metrics=[(name, TITLES[name]) for name in METRICS],
        rows=[_row(place, result, gate) for place, result in enumerate(ordered)],
        flags=sorted({flag.split(":")[0] for result in ordered for flag in result.flags}),
        cards=[Markup(compact(fitted(result, budget, gate))) for result in ordered],
    )  # fmt: skip


def result_card(result: Result) -> str:
    """One description with its evidence, as a notebook shows it; nothing in it runs."""
    return str(_notebook().card(card(result, DETAILS[2])))


def results_table(results: Results) -> str:
    """The four metrics of every description, the worst first, as a notebook shows it."""
    gate = gate_of(results.run)
    ordered = worst_first(results, gate)
    shown = [_row(place, result, gate) for place, result in enumerate(ordered[:TABLE_ROWS])]
    headings = [(name, TITLES[name]) for name in METRICS]
    return str(_notebook().table(shown, headings, overview.tally(ordered, gate), len(ordered)))


def _notebook() -> Any:
    """The macros of the notebook fragments, by name."""
    return _environment().get_template("notebook.html").module


def _row(place: int, result: Result, gate: float) -> dict[str, Any]:
    """A row of the table."""
    return {
        "place": place,
        "index": result.description.index,
        "text": clip(result.description.text, 240),
        "origin": clip(result.description.origin, 60),
        "standing": standing(result, gate),
        "why": why(result, gate),
        "flags": [clip(flag, 120) for flag in result.flags],
        "kinds": " ".join(sorted({flag.split(":")[0] for flag in result.flags})),
        "cells": [_cell(name, metric, below(name, metric, gate)) for name, metric in result.metrics.items()],
    }


def _cell(name: str, metric: Metric, bad: bool) -> dict[str, Any]:
    """One metric in a row."""
    return {
        "name": name,
        "value": metric.value,
        "words": number(metric.value),
        "low": metric.interval[0] if metric.interval else None,
        "high": metric.interval[1] if metric.interval else None,
        "interval": f"{number(metric.interval[0])} to {number(metric.interval[1])}" if metric.interval else "",
        "reason": clip(metric.reason or metric.interval_reason or "", 160),
        "bad": bad,
    }


def _title(results: Results) -> str:
    model = results.run.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    return f"{amount(len(results))} description{'' if len(results) == 1 else 's'}" + (
        f" of {clip(str(name), 80)}" if name else ""
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fade_lens.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Unseen characters are shown by their codes wherever a string is printed; markup made here holds numbers only.
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )


@cache
def _source(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
