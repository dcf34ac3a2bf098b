"""The health of SAEs on a page and in a notebook, a card each; a figure of L0 over tokens."""

from typing import TYPE_CHECKING, Any

from fade_lens._util.words import clip, plain
from fade_lens.report.health_card import health_card
from fade_lens.report.page import environment, joined, policy
from fade_lens.runs.health import Health

if TYPE_CHECKING:
    import plotly.graph_objects as go


def health_page(health: Health) -> str:
    """One HTML file: a card for every SAE."""
    style = joined("page.css")
    return environment().get_template("health_page.html").render(policy=policy(style), style=style, **parts(health))


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
    """How many tokens have how many latents that are not zero, a line an SAE."""
    import plotly.graph_objects as go

    from fade_lens.report.plots import label

    figure = go.Figure()
    for one in health:
        edges, counts = one.l0_tokens
        figure.add_trace(go.Scatter(x=edges[:-1], y=[n / max(sum(counts), 1) for n in counts], line={"shape": "hv"}, name=label(one.name, 60)))  # fmt: skip
    return figure.update_layout(xaxis_title="L0 of a token", yaxis_title="share of tokens", height=380)
