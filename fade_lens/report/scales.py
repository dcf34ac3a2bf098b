"""What a model says of its own directions, by the strength at which they are put in: a figure of the signals, and a table."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fade_lens._util.words import amount, clip
from fade_lens.generation.patchscopes import ByScale, best
from fade_lens.report.plots import BLUE, GREY, ORANGE, label
from fade_lens.runs.patchscopes import SelfExplanations

PANELS = {
    "self_similarity": "Self-similarity",
    "entropy": "Entropy of the answer's first token (nats)",
    "relevancy": "Relevancy",
    "score": "Score: beyond random directions, in their standard deviations",
}
SHOWN = 20
"""Features whose answers stand in a notebook's table."""


def scales_figure(found: SelfExplanations, index: int) -> go.Figure:
    """A panel a signal: the feature's over scales, that of each random direction in grey; kept answers are orange, and the text is under the mouse."""
    own = found[index]
    figure = make_subplots(2, 2, subplot_titles=list(PANELS.values()), vertical_spacing=0.16)
    for place, name in enumerate(PANELS):
        at: dict[str, Any] = {"row": place // 2 + 1, "col": place % 2 + 1}
        for other in found.random:
            figure.add_trace(_line(other, name, GREY), **at)
        figure.add_trace(_line(own, name, BLUE), **at)
        figure.update_xaxes(title_text="scale" if place > 1 else "", type="log", tickvals=[a.scale for a in own], **at)
    chosen = best(own)
    said = "nothing beyond what random directions are said to be" if chosen is None else f"“{label(chosen.text, 80)}”"
    figure.update_layout(title=f"Feature {index}: {said}", height=640, showlegend=False, margin={"t": 110})
    return figure


def _line(answers: ByScale, name: str, colour: str) -> go.Scatter:
    own = colour == BLUE
    return go.Scatter(
        x=[a.scale for a in answers],
        y=[getattr(a, name) for a in answers],
        mode="lines+markers",
        line={"color": colour, "width": 2.5 if own else 1},
        marker={"size": [11 if own and a.kept else 7 if own else 3 for a in answers], "color": [ORANGE if own and a.kept else colour for a in answers]},
        opacity=1 if own else 0.6,
        text=[label(a.text, 80) or "(no answer)" for a in answers],
        hovertemplate=f"{'' if own else 'random direction, '}scale %{{x}}: %{{y:.3g}}<br>%{{text}}<extra></extra>",
    )  # fmt: skip


def answer_rows(found: SelfExplanations) -> dict[str, Any]:
    """The answers of each feature by scale, for a table; those of one random direction last."""
    scales = [f"{answer.scale:g}" for answer in next(iter(found.answers.values()), ())]
    rows = [(str(index), *_cells(own)) for index, own in list(found.answers.items())[:SHOWN]]
    rows += [("random", *_cells(own)) for own in found.random[:1]]
    return {"scales": scales, "rows": rows, "shown": min(SHOWN, len(found)), "of": len(found)}


def _cells(own: ByScale) -> tuple[str | None, list[tuple[str, bool, str]]]:
    chosen = best(own)
    cells = [(clip(a.text, 60), a.kept, f"score {amount(a.score)}, self-similarity {a.self_similarity:.2f}, entropy {a.entropy:.2f} nats, relevancy {a.relevancy:.2f}") for a in own]  # fmt: skip
    return chosen and chosen.text, cells
