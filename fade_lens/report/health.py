"""The health of SAEs on a page and in a notebook, a card each; a figure of L0 over tokens."""

from typing import TYPE_CHECKING, Any

from fade_lens._util.words import clip, plain
from fade_lens.report.health_card import health_card
from fade_lens.report.page import environment, whole
from fade_lens.runs.health import Health

if TYPE_CHECKING:
    import plotly.graph_objects as go


def health_page(health: Health) -> str:
    """One HTML file: a card for every SAE."""
    return whole("health_page.html", **parts(health))


def health_cards(health: Health) -> str:
    """The same cards, for a notebook."""
    return str(environment().get_template("health_notebook.html").render(**parts(health)))


def parts(health: Health) -> dict[str, Any]:
    """What the templates show."""
    n = len(health)
    return {
        "title": f"Health of {n} SAE{'' if n == 1 else 's'} of {clip(health.model, 80)}",
        "corpus": clip(health.corpus, 200),
        "cards": [health_card(one) for one in health],
        "answers": [plain(dict(row)) for row in health.answers],
    }


def health_figure(health: Health) -> "go.Figure":
    """How many tokens have how many latents that are not zero, and how many latents have which density, a line an SAE."""
    import numpy as np
    from plotly.subplots import make_subplots

    from fade_lens.report.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, label

    figure, colours = make_subplots(1, 2), (BLUE, ORANGE, GREEN, PURPLE, GREY)
    for place, one in enumerate(health):
        edges, counts = one.l0_tokens
        alive = (density := health.densities.get(one.name, np.zeros(0)))[density > 0]
        many, decades = np.histogram(np.log10(alive), 40, (-6, 0))
        lines = ((edges[:-1], [n / max(sum(counts), 1) for n in counts]), (10 ** decades[:-1], many / max(len(density), 1)))  # fmt: skip
        for column, (x, y) in enumerate(lines, 1):
            shown = {"shape": "hv", "color": colours[place % len(colours)]}
            figure.add_scatter(x=x, y=y, line=shown, name=label(one.name, 60), legendgroup=str(place), showlegend=column == 1, row=1, col=column)  # fmt: skip
    figure.update_xaxes(title_text="L0 of a token", row=1, col=1)
    figure.update_xaxes(title_text="density: share of tokens (silent latents left out)", type="log", row=1, col=2)
    figure.update_yaxes(title_text="share of tokens", row=1, col=1)
    return figure.update_yaxes(title_text="share of latents", row=1, col=2).update_layout(height=380)
