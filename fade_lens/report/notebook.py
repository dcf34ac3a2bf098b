"""Results in a notebook: a card, a table, the page in a frame, a feature's Neuronpedia dashboard. Nothing needs a network but the last."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from fade_lens._util.brief import Brief
from fade_lens.analysis.notes import Notes
from fade_lens.explainers.base import Explanation
from fade_lens.explainers.table import Explanations
from fade_lens.report.cards import DETAILS, card
from fade_lens.report.explaining import explanation_data
from fade_lens.report.looking import heat_tables, look_card
from fade_lens.report.page import environment, page
from fade_lens.report.rows import Counted, entries, row, worst
from fade_lens.report.scales import answer_rows
from fade_lens.runs.look import Look
from fade_lens.runs.patchscopes import SelfExplanations
from fade_lens.runs.results import Result, Results

if TYPE_CHECKING:
    import pandas as pd

DARK = ':is([data-jp-theme-light="false"], .vscode-dark, .vscode-high-contrast:not(.vscode-high-contrast-light), [theme="dark"])'
LIGHT = ':is([data-jp-theme-light="true"], .vscode-light, .vscode-high-contrast-light, [theme="light"])'
"""How JupyterLab, VS Code and Colab tell which theme they have."""
THEMES = f"""<style>
@media (prefers-color-scheme: dark) {{ .fade-lens-frame {{ filter: invert(.92) hue-rotate(180deg); }} }}
{LIGHT} .fade-lens-frame {{ filter: none; }} {DARK} .fade-lens-frame {{ filter: invert(.92) hue-rotate(180deg); }}
</style>"""
"""A page in a frame knows the system's colours and not the notebook's: it is light there, and turned dark from outside, without a script."""
TABLE_ROWS = 100
"""Rows of the static table."""
LOOK_CARDS = 20
"""Cards of features that are looked at: the other ones are on the page."""
FRAME_BYTES = 1_500_000
"""What the cards of a sortable table may take: a notebook is saved with its outputs."""


def result_card(result: Result) -> str:
    """One description with its evidence; nothing in it runs."""
    return str(_macros().card(card(result, DETAILS[2])))


def results_table(results: Results) -> str:
    """The scores of every description, the worst first; nothing in it runs."""
    counted = Counted(evidence=False)
    ordered = worst(counted.each(entries(results)), TABLE_ROWS)
    shown = [row(place, entry, results.specs) for place, entry in enumerate(ordered)]
    headings = [(spec.name, spec.title) for spec in results.specs]
    return str(_macros().table(shown, headings, counted.standings, counted.n))


@dataclass(frozen=True)
class Table(Brief):
    """A run's page inside a notebook: the table sorts, filters and opens cards.

    It stands in a frame of its own: its styles and script touch nothing of the notebook, and the notebook's nothing of it.
    """

    results: Results
    height: int
    notes: Notes | None = None

    def _repr_html_(self) -> str:
        document = page(self.results, self.notes, cards_bytes=FRAME_BYTES, table_only=True)
        return THEMES + (
            '<iframe class="fade-lens-frame" title="Descriptions and their metrics" sandbox="allow-scripts allow-popups allow-popups-to-escape-sandbox" '
            f'style="width:100%;height:{int(self.height)}px;border:1px solid rgba(128,128,128,.4);border-radius:6px" '
            f'srcdoc="{escape(document)}"></iframe>'
        )


def look_cards(look: Look) -> str:
    """Features without a description, a card each; nothing in it runs."""
    return str(_macros().looks([look_card(item, DETAILS[3]) for item in look.items[:LOOK_CARDS]], len(look)))


def explanation_card(explanation: Explanation) -> str:
    """One explanation with what its explainer was shown; nothing in it runs."""
    return str(_macros().explanations([explanation_data(explanation, DETAILS[3])], 1))


def explanation_cards(found: Explanations) -> str:
    """Explanations, a card each; nothing in it runs."""
    shown = [explanation_data(row, DETAILS[4]) for row in found.rows[:TABLE_ROWS]]
    return str(_macros().explanations(shown, len(found.rows)))


def fires_table(frame: "pd.DataFrame") -> str:
    """Latents by the tokens of a text, shaded; nothing in it runs."""
    return str(_macros().heat(heat_tables(frame)))


def self_explanations_table(found: SelfExplanations) -> str:
    """What a model says of its directions, by scale, kept answers in full colour; nothing in it runs."""
    return str(_macros().scales(answer_rows(found)))


def _macros() -> Any:
    """The macros of the fragments, by name."""
    return environment().get_template("notebook.html").module
