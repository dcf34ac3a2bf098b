"""plotly figures for notebooks: one description's evidence, and the scores of a whole run."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fade_lens._util.errors import InputError
from fade_lens._util.words import clip, number, visible
from fade_lens.baselines.cross_scores import SPECS
from fade_lens.metrics.metric import Metric
from fade_lens.report.overview import Mean, means
from fade_lens.report.standing import below, concept_rates, worst_first
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.base import ScoreSpec

# Okabe and Ito's colours: told apart with any colour vision, and seen on white as on dark grey.
GREY, BLUE, ORANGE, GREEN, PURPLE = "#8a8a8a", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
RATING_WORDS = {0: "0: not expressed", 1: "1: partly", 2: "2: clearly", None: "unrated"}
RATING_COLOURS = {0: GREY, 1: PURPLE, 2: ORANGE, None: BLUE}
ONE_BY_ONE = 40
"""Up to so many descriptions are drawn one by one with their intervals; more as distributions."""


def result_figure(result: Result) -> go.Figure:
    """Four panels: activations of synthetic and natural texts, activation by rating, concept rate by factor, the radar."""
    figure = make_subplots(
        2,
        2,
        specs=[[{}, {}], [{}, {"type": "polar"}]],
        subplot_titles=(
            "Activation: synthetic and natural texts", "Activation by the judge's rating",
            "Concept rate by steering factor", "The scores",
        ),
        vertical_spacing=0.18,
    )  # fmt: skip
    _activations(figure, result)
    _ratings(figure, result)
    _steering(figure, result)
    _radar(figure, result)
    figure.update_layout(
        title=f"Feature {result.description.index}: {label(result.description.text, 100)}",
        height=760,
        showlegend=False,
        margin={"t": 110},
    )
    return figure


def overview_figure(results: Results) -> go.Figure:
    """The scores of every description with their 95 % intervals; of many descriptions, the distributions."""
    found = means(results)
    titles = [_overview_title(s, [r.metric(s.name) for r in results], found.get((s.name, None))) for s in results.specs]
    few = len(results) <= ONE_BY_ONE
    figure = (
        make_subplots(1, len(titles), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
        if few
        else make_subplots(-(-len(titles) // 2), 2, subplot_titles=titles, vertical_spacing=0.2)
    )
    (_one_by_one if few else _distributions)(figure, results)
    figure.update_layout(
        title=f"{len(results)} description{'' if len(results) == 1 else 's'}",
        height=220 + 26 * len(results) if few else 340 * -(-len(titles) // 2),
        showlegend=False,
        bargap=0.05,
        margin={"t": 120},
    )
    return figure


def label(text: str, characters: int = 60) -> str:
    """Hostile text as plotly shows it literally: neither its HTML subset nor TeX."""
    return html.escape(" ".join(clip(visible(text), characters).split()), quote=False).replace("$", "&#36;")


def _strip(name: str, values: Sequence[float], colour: str, texts: Sequence[str] | None = None) -> go.Box:
    """A box with every value beside it."""
    return go.Box(
        y=list(values),
        x=[name] * len(values),
        name=name,
        boxpoints="all",
        jitter=0.6,
        pointpos=0,
        line={"color": colour, "width": 1.5},
        fillcolor="rgba(0,0,0,0)",
        marker={"color": colour, "size": 4, "opacity": 0.55},
        text=texts,
        hovertemplate="%{y:.3g}<br>%{text}<extra></extra>" if texts else "%{y:.3g}<extra></extra>",
    )


def _activations(figure: go.Figure, result: Result) -> None:
    written = [(t.activation, label(t.text, 160)) for t in result.clarity_evidence.texts if t.activation is not None]
    figure.add_trace(_strip("natural", result.feature.quantiles, GREY), 1, 1)
    if written:
        figure.add_trace(_strip("synthetic", [a for a, _ in written], ORANGE, [t for _, t in written]), 1, 1)
    else:
        _note(figure, "no synthetic text", 1, 1)
    figure.update_yaxes(title_text="largest activation of a text", row=1, col=1)


def _ratings(figure: go.Figure, result: Result) -> None:
    texts = result.rated_evidence.texts
    for rating, words in RATING_WORDS.items():
        group = [t for t in texts if t.rating == rating]
        if group:
            hover = [label(t.text if t.rating is not None else t.reason or t.text, 160) for t in group]
            trace = _strip(f"{words}<br>n = {len(group)}", [t.activation for t in group], RATING_COLOURS[rating], hover)
            figure.add_trace(trace, 1, 2)
    if not texts:
        _note(figure, "no text was rated", 1, 2)


def _steering(figure: go.Figure, result: Result) -> None:
    rates = concept_rates(result.faithfulness_evidence.continuations)
    if not rates:
        _note(figure, f"not steered:<br>{label(result.faithfulness.reason or 'no continuations', 70)}", 2, 1)
        return
    figure.add_trace(
        go.Scatter(
            x=[f"{r.factor:g}" for r in rates],
            y=[r.rate for r in rates],
            error_y={
                "type": "data",
                "array": [r.interval[1] - r.rate for r in rates],
                "arrayminus": [r.rate - r.interval[0] for r in rates],
            },
            mode="lines+markers",
            line={"color": ORANGE},
            marker={"size": 8},
            customdata=[[r.expressed, r.n, r.unrated] for r in rates],
            hovertemplate="factor %{x}: %{customdata[0]} of %{customdata[1]} rated 2, %{customdata[2]} unrated<extra></extra>",
        ),
        2,
        1,
    )
    if (baseline := next((r for r in rates if r.factor == 0), None)) is not None:
        figure.add_hline(
            y=baseline.rate,
            line={"dash": "dash", "color": GREY},
            annotation_text=f"unsteered model {baseline.rate:.0%}",
            row=2,  # pyright: ignore[reportArgumentType]
            col=1,  # pyright: ignore[reportArgumentType]
        )
    figure.update_xaxes(title_text="steering factor (units of the reference activation)", type="category", row=2, col=1)
    figure.update_yaxes(title_text="continuations rated 2", range=[-0.03, 1.03], tickformat=".0%", row=2, col=1)


def _radar(figure: go.Figure, result: Result) -> None:
    metrics = {spec.title: result.metric(spec.name) for spec in result.specs}
    floor = min([0.0] + [m.value for m in metrics.values() if m.value is not None])
    corners = {
        name: f"{name}<br>{number(m.value)}{_bracket(m)}" if m.value is not None else f"{name}<br>undefined"
        for name, m in metrics.items()
    }
    defined = [n for n in metrics if metrics[n].value is not None]
    missing = [n for n in metrics if metrics[n].value is None]
    around = [*defined, *defined[:1]] if len(defined) > 2 else defined
    figure.add_trace(
        go.Scatterpolar(
            r=[metrics[n].value for n in around],
            theta=[corners[n] for n in around],
            fill="toself" if len(defined) > 2 else None,
            mode="lines+markers",
            line={"color": BLUE},
            marker={"size": 8},
            hovertemplate="%{theta}<extra></extra>",
        ),
        2,
        2,
    )
    figure.add_trace(
        go.Scatterpolar(
            r=[1.0] * len(missing),
            theta=[corners[n] for n in missing],
            mode="markers",
            marker={"symbol": "x-thin", "size": 10, "line": {"width": 2, "color": ORANGE}},
            text=[label(metrics[n].reason or "", 160) for n in missing],
            hovertemplate="undefined: %{text}<extra></extra>",
        ),
        2,
        2,
    )
    figure.update_polars(
        radialaxis={"range": [floor, 1], "tickvals": [v for v in (-0.5, 0, 0.5, 1) if v >= floor], "angle": 45, "tickangle": 45},
        angularaxis={"categoryorder": "array", "categoryarray": [corners[n] for n in metrics], "rotation": 135, "direction": "clockwise"},
    )  # fmt: skip
    for place, name in enumerate(missing):
        figure.add_annotation(
            text=f"× {name} undefined: {label(metrics[name].reason or '', 80)}",
            showarrow=False,
            font={"size": 11, "color": ORANGE},
            xref="paper",
            yref="paper",
            x=1,
            y=-0.06 - 0.035 * place,
            xanchor="right",
        )


def _one_by_one(figure: go.Figure, results: Results) -> None:
    gate = results.run.gate
    ordered = worst_first(results)
    names = [f"{r.description.index}: {label(r.description.text, 40)}" for r in ordered]
    # Two descriptions that look the same are still two categories.
    rows = [name + "\u200b" * names[:place].count(name) for place, name in enumerate(names)]
    for column, spec in enumerate(results.specs, 1):
        low, high = spec.range
        metrics = [r.metric(spec.name) for r in ordered]
        shown = [(row, m) for row, m in zip(rows, metrics, strict=True) if m.value is not None]
        absent = [(row, m) for row, m in zip(rows, metrics, strict=True) if m.value is None]
        figure.add_trace(
            go.Scatter(
                x=[m.value for _, m in shown],
                y=[row for row, _ in shown],
                mode="markers",
                marker={
                    "size": 9,
                    "color": [ORANGE if below(spec, m, gate) else BLUE for _, m in shown],
                },
                error_x={
                    "type": "data",
                    "color": GREY,
                    "array": [m.interval[1] - (m.value or 0) if m.interval else 0 for _, m in shown],
                    "arrayminus": [(m.value or 0) - m.interval[0] if m.interval else 0 for _, m in shown],
                },
                text=[f"{number(m.value)}{_bracket(m)}" for _, m in shown],
                hovertemplate="%{y}<br>%{text}<extra></extra>",
            ),
            1,
            column,
        )
        figure.add_trace(
            go.Scatter(
                x=[(low + high) / 2] * len(absent),
                y=[row for row, _ in absent],
                mode="text",
                text=["undefined"] * len(absent),
                textfont={"color": GREY, "size": 11},
                customdata=[label(m.reason or "", 160) for _, m in absent],
                hovertemplate="%{y}<br>undefined: %{customdata}<extra></extra>",
            ),
            1,
            column,
        )
        figure.update_xaxes(range=[low - 0.08, high + 0.08], row=1, col=column)
    # Categories count upwards, so the worst goes last in the list to be on top.
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], automargin=True)


def _distributions(figure: go.Figure, results: Results) -> None:
    found = means(results)
    for place, spec in enumerate(results.specs):
        row, column = place // 2 + 1, place % 2 + 1
        low, high = spec.range
        values = [v for r in results if (v := r.metric(spec.name).value) is not None]
        bins: dict[str, Any] = {"start": low, "end": high + 1e-6, "size": (high - low) / 20}
        figure.add_trace(
            go.Histogram(x=values, xbins=bins, marker={"color": BLUE}, hovertemplate="%{x}: %{y}<extra></extra>"), row, column
        )  # fmt: skip
        if mean := found.get((spec.name, None)):
            place_in: dict[str, Any] = {"row": row, "col": column}
            if mean.interval:
                low_end, high_end = mean.interval
                figure.add_vrect(x0=low_end, x1=high_end, fillcolor=ORANGE, opacity=0.3, line_width=0, **place_in)
            figure.add_vline(x=mean.value, line={"color": ORANGE, "width": 2}, **place_in)
        figure.update_xaxes(range=[low, high], row=row, col=column)
        figure.update_yaxes(title_text="descriptions", row=row, col=column)


def _overview_title(spec: ScoreSpec, metrics: Sequence[Metric], mean: Mean | None) -> str:
    words = [f"<b>{spec.title}</b>"]
    if mean is not None:
        words.append(f"mean {mean.words}")
    if missing := sum(m.value is None for m in metrics):
        words.append(f"{missing} undefined")
    return "<br>".join(words)


def _bracket(metric: Metric) -> str:
    return f" [{number(metric.interval[0])}, {number(metric.interval[1])}]" if metric.interval else ""


def _note(figure: go.Figure, text: str, row: int, column: int) -> None:
    """Words in the middle of an empty panel."""
    figure.add_trace(go.Scatter(x=[0], y=[0], mode="text", text=[text], hoverinfo="skip"), row, column)
    figure.update_xaxes(visible=False, row=row, col=column)
    figure.update_yaxes(visible=False, row=row, col=column)


def cross_figure(results: Results) -> go.Figure:
    """Every feature of the run (rows) against every description (columns), a button for each metric; a swap shows off the diagonal.

    Crosses mark each description's own feature, circles a feature of the run that fits it better.

    Raises:
        InputError: the results keep no matrices.
    """
    cross = results.cross_scores
    if cross is None:
        raise InputError(
            "the results keep no matrices: they are of an earlier version, or of a run too large (fade_lens.baselines.permutation.MOST)"
        )
    names = [f"{r.description.index}: {label(r.description.text, 40)}" for r in results]
    columns = [name + "\u200b" * names[:place].count(name) for place, name in enumerate(names)]
    rows = [f"feature {feature}" for feature in cross.features]
    figure = go.Figure()
    for spec in SPECS:
        low, high = spec.range
        figure.add_trace(
            go.Heatmap(
                z=getattr(cross, spec.name),
                x=columns,
                y=rows,
                zmin=low,
                zmax=high,
                colorscale="RdBu_r" if low < 0 else "Blues",
                visible=spec is SPECS[0],
                colorbar={"title": spec.title},
                hovertemplate="%{y}<br>%{x}<br>%{z:.2f}<extra></extra>",
            )
        )
    better = [(c, r.permutation.better_feature) for c, r in zip(columns, results, strict=True) if r.permutation]
    for words, symbol, marks in (
        ("own feature", "x-thin", [(c, r.description.index) for c, r in zip(columns, results, strict=True)]),
        ("fits better", "circle-open", [(c, feature) for c, feature in better if feature is not None]),
    ):
        figure.add_trace(
            go.Scatter(
                x=[c for c, _ in marks],
                y=[f"feature {feature}" for _, feature in marks],
                mode="markers",
                name=words,
                marker={"symbol": symbol, "color": "black", "size": 10, "line": {"width": 1.5, "color": "black"}},
                hoverinfo="skip",
            )
        )
    buttons = [
        {"label": spec.title, "method": "update", "args": [{"visible": [spec is other for other in SPECS] + [True, True]}]}
        for spec in SPECS
    ]  # fmt: skip
    side = min(1600, 260 + 16 * max(len(rows), len(columns)))
    figure.update_layout(
        title="Every feature against every description",
        updatemenus=[
            {"type": "buttons", "direction": "right", "x": 0, "y": 1.08, "xanchor": "left", "buttons": buttons}
        ],
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.08},
        width=side + 180,
        height=side + 120,
    )
    crowded = max(len(rows), len(columns)) > 100
    figure.update_xaxes(showticklabels=not crowded, type="category", tickangle=-60)
    figure.update_yaxes(showticklabels=not crowded, type="category", autorange="reversed", automargin=True)
    return figure
