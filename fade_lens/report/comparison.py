"""Runs side by side: one self-contained page, tables for a notebook, a figure. Nothing in them runs a script."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from fade_lens._util.words import amount, clip, number, visible
from fade_lens.analysis.compare import ALIKE, UNKNOWN, Comparison, further, told, varying
from fade_lens.analysis.summary import BEST, subtracted, unconditional
from fade_lens.report.overview import minus
from fade_lens.report.page import environment, whole
from fade_lens.scorers.base import ScoreSpec

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fade_lens.analysis.release import Release

AXES = {
    "layer": "layer",
    "width": "width (latents)",
    "l0": "L0 (latents a token)",
    "recovered": "loss recovered by the SAE",
    "architecture": "architecture",
}
BETTER = {"width": -1, "l0": -1, "recovered": 1}
"""Of which axes less (-1) or more (1) is better, so that runs can be traded off against a score."""
WIDTH, HEIGHT = 300, 198
LEFT, BOTTOM, TOP, RIGHT = 34, 32, 18, 14


PLAIN: dict[str, Any] = {"kicker": "comparison", "links": {}, "drawn": (), "failed": ()}
"""What a release's page has beside a comparison's."""


def comparison_page(comparison: Comparison, **more: Any) -> str:
    """One HTML file: what the runs scored, their means, plots against layer, width, L0, recovered loss and architecture, differences."""
    return whole("compare.html", **_parts(comparison) | PLAIN | more, plots=_plots(comparison))


def release_page(release: "Release") -> str:
    """The same for the SAEs of a release, each linked to its own report, with those that could not be scored, and why."""
    n = len(release.results)
    links = {place: f"{release.place(name)}/report.html" for place, name in enumerate(release.results, 1)}
    drawn = [
        f"{clip(name, 120)}: {amount(len(one.indices))} latents"
        + ("" if one.n_alive is None else f" of the {amount(one.n_alive)} that fire on {amount(one.n_tokens)} tokens, of {amount(one.n_features)}")
        + f"; {amount(one.n_described)} described"
        + (f"; each stands for {amount(float(f'{min(one.weights):.3g}'))} to {amount(float(f'{max(one.weights):.3g}'))} latents" if len(set(one.weights)) > 1 else "")
        for name, one in release.drawn.items()
        if name in release.results
    ]  # fmt: skip
    failed = [(clip(name, 120), clip(why, 600)) for name, why in release.failed.items()]
    title = f"{amount(n)} SAE{'' if n == 1 else 's'} scored"
    return comparison_page(release.comparison, title=title, kicker="release", links=links, drawn=drawn, failed=failed)


def comparison_tables(comparison: Comparison) -> str:
    """The tables of the page, for a notebook."""
    return str(environment().get_template("compare_notebook.html").render(**_parts(comparison)))


def _parts(comparison: Comparison) -> dict[str, Any]:
    """What the templates show in tables."""
    rows = comparison.frame.to_dict("records")
    key = "run" if comparison.by == "run" else "group"
    groups: dict[str, dict[tuple[str, str | None], Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), {})[str(row["metric"]), subtracted(row)] = row
    shown = shown_of(comparison)
    names = dict.fromkeys((str(row["metric"]), subtracted(row)) for row in rows)
    questions = {spec.name: spec.question for spec in comparison.specs}
    return {
        "title": f"{len(comparison.runs)} runs compared",
        "by": comparison.by,
        "weighted": any(fact.weighted for fact in comparison.runs),
        "runs": [_facts(place, fact) for place, fact in enumerate(comparison.runs, 1)],
        "metrics": [
            (titled(m, shown), questions.get(m, "")) if null is None else (minus(m, null), "") for m, null in names
        ],
        "groups": [
            (
                place,
                clip(name, 120),
                [_cell(found.get((m, null)), shown.get(m) if null is None else None) for m, null in names],
            )
            for place, (name, found) in enumerate(groups.items(), 1)
        ],
        "pairs": [_pair(row, shown) for row in comparison.differences.to_dict("records")],
        "against": _against(comparison.reference),
        "sentences": [clip(said, 1000) for said in comparison.sentences],
    }


def _against(reference: str | None) -> str:
    """With what every other run is compared, in a sentence; "" where all pairs are."""
    if reference == BEST:
        return "Of each score, the run whose mean is highest is compared with every other; picked for that, its lead is a little overstated."
    return "" if reference is None else f"Every other run is compared with {clip(visible(reference), 120)}."


def shown_of(comparison: Comparison) -> dict[str, ScoreSpec]:
    """The scores by the names of their rows, those with 0 below the gate among them."""
    gated = {unconditional(spec.name): spec for spec in comparison.specs if spec.gated}
    return {spec.name: spec for spec in comparison.specs} | {
        name: replace(spec, name=name, title=f"{spec.title}, 0 below the gate") for name, spec in gated.items()
    }


def titled(name: str, shown: Mapping[str, ScoreSpec]) -> str:
    """What people call a row of a comparison."""
    return shown[name].title if name in shown else name


def _facts(place: int, fact: Any) -> dict[str, str]:
    l0 = (
        "not known"
        if fact.l0 is None
        else f"{'≈ ' if fact.l0_from == 'estimate' else ''}{amount(float(f'{fact.l0:.3g}'))}"
    )
    return {
        "number": str(place),
        "run": clip(fact.run, 120),
        "model": clip(fact.model, 80),
        "features": clip(" ".join(filter(None, (fact.features, fact.release and f"({fact.release})"))), 160),
        "layer": "" if fact.layer is None else str(fact.layer),
        "width": "" if fact.width is None else amount(fact.width),
        "l0": l0 if fact.features.startswith("sae") else "",
        "health": clip(fact.health, 300),
        "explainer": clip(fact.explainer, 120),
        "judge": clip(fact.judge, 80),
        "descriptions": f"{amount(fact.n_descriptions)} of {amount(fact.n_features)} features",
    }


def _cell(row: Mapping[str, Any] | None, spec: ScoreSpec | None) -> dict[str, Any]:
    if row is None or _missing(row["mean"]):
        return {
            "value": "undefined",
            "note": "" if row is None else clip(str(row["reasons"]), 160),
            "bar": None,
            "undefined": "",
        }
    interval = None if _missing(row["low"]) else (float(row["low"]), float(row["high"]))
    limits = (-1.0, 1.0) if spec is None else spec.range  # differences to null descriptions have no spec
    undefined = float(row["undefined"])
    return {
        "value": number(float(row["mean"])),
        "note": f"{number(interval[0])} to {number(interval[1])}" if interval else "no interval: too few features",
        "bar": bar(float(row["mean"]), interval, limits),
        "undefined": f"{undefined:.0%} undefined" if undefined else "",
    }


def _pair(row: Mapping[str, Any], shown: Mapping[str, ScoreSpec]) -> dict[str, Any]:
    known = not _missing(row["difference"])
    interval = None if not known or _missing(row["low"]) else (float(row["low"]), float(row["high"]))
    return {
        "metric": titled(str(row["metric"]), shown),
        "a": clip(str(row["a"]), 80),
        "b": clip(str(row["b"]), 80),
        "means": f"{number(_float(row['mean_a']))} and {number(_float(row['mean_b']))}",
        "value": number(_float(row["difference"])),
        "note": f"{number(interval[0])} to {number(interval[1])}" if interval else "no interval",
        "bar": bar(float(row["difference"]), interval, (-1.0, 1.0)) if known else None,
        "p": "" if _missing(row["p_value"]) else _p(float(row["p_value"])),
        "n": amount(int(row["n_a"])) if row["paired"] else f"{amount(int(row['n_a']))} and {amount(int(row['n_b']))}",
        "left_out": amount(int(row["left_out"])),
        "apart": interval is not None and (interval[0] > 0 or interval[1] < 0),
        "further": "".join(further(row)) if told(row)[0] in (ALIKE, UNKNOWN) else "",
    }


def bar(value: float, interval: tuple[float, float] | None, limits: tuple[float, float]) -> Markup:
    """A value and its interval on a line, as an SVG of numbers only."""
    low, high = limits
    x = lambda v: f"{4 + (min(max(v, low), high) - low) / (high - low) * 112:.1f}"  # noqa: E731
    line = f'<path class="interval" stroke-width="3" d="M{x(interval[0])} 6H{x(interval[1])}"/>' if interval else ""
    return Markup(
        f'<svg class="cell" viewBox="0 0 120 12" aria-hidden="true"><path class="axis" d="M4 6H116M{x(0.0)} 1V11"/>{line}'
        f'<path class="dot" stroke-width="8" d="M{x(value)} 6h0"/></svg>'
    )


def _plots(comparison: Comparison) -> list[dict[str, Any]]:
    """A row of panels for each of the `AXES` on which the runs differ; on that of architectures each has a place."""
    if comparison.by != "run":
        return []
    made: list[dict[str, Any]] = []
    for fact in varying(comparison):
        known = [getattr(run, fact) for run in comparison.runs]
        names = sorted(set(known)) if isinstance(known[0], str) else []
        xs = {run.run: float(names.index(x) if names else x) for run, x in zip(comparison.runs, known, strict=True)}
        panels: list[dict[str, Any]] = []
        for spec in comparison.specs:
            rows = _means(comparison, spec.name)
            points = [
                (xs[str(r["run"])], float(r["mean"]), None if _missing(r["low"]) else (float(r["low"]), float(r["high"])), list(xs).index(str(r["run"])) + 1)
                for r in rows
            ]  # fmt: skip
            panels.append(
                {
                    "title": spec.title,
                    "drawing": scatter(points, spec.range, AXES[fact], names, BETTER.get(fact, 0)),
                    "said": _said(points, names, BETTER.get(fact, 0)),
                }
            )
        estimated = fact == "l0" and any(run.l0_from == "estimate" for run in comparison.runs)
        made.append(
            {
                "axis": AXES[fact],
                "panels": panels,
                "estimated": estimated,
                "traded": any("front" in panel["drawing"] for panel in panels),
            }
        )
    return made


def _means(comparison: Comparison, metric: str) -> list[dict[str, Any]]:
    """The rows with a mean of a metric itself, nothing subtracted."""
    rows = comparison.frame.to_dict("records")
    return [row for row in rows if row["metric"] == metric and subtracted(row) is None and not _missing(row["mean"])]


def scatter(
    points: Sequence[tuple[float, float, tuple[float, float] | None, int]],
    limits: tuple[float, float],
    axis: str,
    names: Sequence[str] = (),
    better: int = 0,
) -> Markup:
    """Means with intervals against a number, or the place of one of `names`; each point has its run's number. An axis over more than a factor of ten is logarithmic.

    Where more (`better` 1) or less (-1) of the number is better, a line joins the Pareto front.
    """
    values = [p[0] for p in points] or [0.0]
    least, most = (0.0, float(len(names))) if names else (min(values), max(values))
    log = least > 0 and most / least > 10
    turn = math.log10 if log else float
    first, span = turn(least), (turn(most) - turn(least)) or 1.0
    low = min([limits[0] if limits[0] == 0 else 0.0, *(min(p[1], *(p[2] or ())) if p[2] else p[1] for p in points)])

    def x(value: float) -> str:
        return f"{LEFT + 14 + (turn(value) - first) / span * (WIDTH - LEFT - RIGHT - 28):.1f}"

    def y(value: float) -> str:
        return f"{TOP + (1 - (value - low) / (1 - low)) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [f'<path class="axis" d="M{LEFT} {y(t)}H{WIDTH - RIGHT}"/>' for t in (0.0, 0.5, 1.0)]
    parts += [
        f'<text x="{LEFT - 5}" y="{float(y(t)) + 3:.1f}" text-anchor="end">{number(t, 1)}</text>'
        for t in (0.0, 0.5, 1.0)
    ]
    for value in range(len(names)) if names else _spaced(sorted(set(values)), turn, span):
        words = escape(clip(names[int(value)], max(4, 36 // len(names)))) if names else _tick(value)
        parts.append(
            f'<text x="{x(value)}" y="{HEIGHT - 18}" text-anchor="{"start" if names else "middle"}">{words}</text>'
        )
    parts.append(
        f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{axis}{", log scale" if log else ""}</text>'
    )
    if len(best := front(points, better)) > 1:
        parts.append(f'<path class="front" d="M{"L".join(f"{x(p[0])} {y(p[1])}" for p in best)}"/>')
    seen, room = Counter[float](), (WIDTH - LEFT - RIGHT) / max(len(set(values)), len(names))
    step = min(11.0, room / max(Counter(values).values()))
    for value, mean, interval, run in points:
        place = float(x(value)) + step * seen[value]  # runs at the same place stand side by side
        seen[value] += 1
        if interval:
            parts.append(
                f'<path class="interval" stroke-width="2" d="M{place:.1f} {y(interval[0])}V{y(interval[1])}"/>'
            )
        parts.append(f'<path class="dot" stroke-width="8" d="M{place:.1f} {y(mean)}h0"/>')
        parts.append(f'<text class="name" x="{place + 3:.1f}" y="{float(y(mean)) - 6:.1f}">{run}</text>')
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>')


def front(points: Sequence[tuple[float, float, Any, int]], better: int) -> list[tuple[float, float, Any, int]]:
    """The Pareto front: points than which none has both a better number and a higher mean, by their numbers; none where no number is better.

    >>> [run for *_, run in front([(1, 0.2, None, 1), (2, 0.5, None, 2), (3, 0.4, None, 3)], better=-1)]
    [1, 2]
    """
    best = list[tuple[float, float, Any, int]]()
    for point in sorted(points, key=lambda p: (-better * p[0], -p[1])) if better else ():
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return sorted(best, key=lambda p: p[0])


def comparison_figure(comparison: Comparison, against: str) -> "go.Figure":
    """A panel of means with intervals for each score, by group or against one of the `AXES`."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from fade_lens._util.errors import InputError
    from fade_lens.report.plots import label

    key = "run" if comparison.by == "run" else "group"
    if against not in ("run", *AXES) or (
        against != "run" and (comparison.by != "run" or against not in varying(comparison))
    ):
        raise InputError(
            f"against is {against!r}; give 'run', or what is known of all runs and differs: {', '.join(varying(comparison)) or 'nothing here'}"
        )
    figure = make_subplots(
        high := -(-len(comparison.specs) // 2),
        2,
        subplot_titles=[s.title for s in comparison.specs],
        vertical_spacing=0.2,
    )
    for place, spec in enumerate(comparison.specs):
        rows = _means(comparison, spec.name)
        ends = [(r["mean"], r["mean"]) if _missing(r["low"]) else (r["low"], r["high"]) for r in rows]
        names = [label(str(r[key]), 60) for r in rows]
        trace = go.Scatter(
            x=names if against == "run" else [label(r[against], 60) if isinstance(r[against], str) else float(r[against]) for r in rows],
            y=[r["mean"] for r in rows],
            error_y={"type": "data", "array": [e[1] - r["mean"] for e, r in zip(ends, rows, strict=True)], "arrayminus": [r["mean"] - e[0] for e, r in zip(ends, rows, strict=True)]},
            mode="markers",
            marker={"size": 9, "color": "#0072b2"},
            text=names,
            hovertemplate="%{text}<br>%{y:.2f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(trace, place // 2 + 1, place % 2 + 1)
        if against != "run":
            figure.update_xaxes(title_text=AXES[against], row=place // 2 + 1, col=place % 2 + 1)
    return figure.update_layout(showlegend=False, height=340 * high)


def _said(points: Sequence[tuple[float, float, Any, int]], names: Sequence[str] = (), better: int = 0) -> str:
    """The panel in words, for those who do not see it."""
    at = [clip(names[int(x)], 40) if names else _tick(x) for x, *_ in points]
    said = "; ".join(f"run {p[3]}: {number(p[1])} at {place}" for p, place in zip(points, at, strict=True))
    best = ", ".join(str(run) for *_, run in front(points, better))
    return f"{said}; none beats {best} in both" if best else said or "undefined"


def _spaced(values: Sequence[float], turn: Any, span: float) -> list[float]:
    """The values whose labels do not overlap."""
    kept: list[float] = []
    for value in values:
        if not kept or (turn(value) - turn(kept[-1])) / span > 0.16:
            kept.append(value)
    return kept


def _tick(value: float) -> str:
    return amount(int(value)) if value.is_integer() else amount(float(f"{value:.3g}"))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _float(value: Any) -> float | None:
    return None if _missing(value) else float(value)


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
