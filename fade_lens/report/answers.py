"""What stored answers tell of a run as a whole: scores by kind of negatives, and by number of rules; as tables of the page and as figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from fade_lens._util.words import amount, number
from fade_lens.analysis.by_negative import BASE, SCORES, ByNegative, by_negative
from fade_lens.analysis.polysemanticity import Polysemanticity, polysemanticity
from fade_lens.evidence.negatives import KINDS
from fade_lens.report.decisions import kind_words
from fade_lens.report.overview import Mean
from fade_lens.runs.results import Results
from fade_lens.scorers.base import specs_of
from fade_lens.scorers.deciding import WindowScores

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

TITLES = {"auroc": "AUROC", "false_positives": "False positives"}


@dataclass(frozen=True)
class Table:
    """A table of the page: a title, what it means, headings, and rows of words."""

    title: str
    note: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> list[Table]:
    """The tables that a run's answers about windows can fill, scorer by scorer."""
    asked = [name for name in dict.fromkeys(n for r in results for n in r.evidence) if all(isinstance(r.evidence.get(name), WindowScores) for r in results)]  # fmt: skip
    return [table for name in asked for table in (*kinds_table(results, name), *rules_table(results, name))]


def kinds_table(results: Results, scorer: str) -> list[Table]:
    """Scores by kind of negatives, where there are several."""
    kinds = {t.kind for r in results for t in scored(r.evidence[scorer]).texts if not t.positive} & set(KINDS)
    if BASE not in kinds or len(kinds) < 2:
        return []
    found = by_negative(results, scorer, seed=int(results.run.settings.get("seed", 0)))
    rows = [
        [kind_words(row["kind"]), *(mean(row, f"{score}{part}") for score in SCORES for part in ("", "_difference")), amount(row["n_features"])]
        for row in found.table.to_dict("records")
    ]  # fmt: skip
    note = f"{titled(scorer)} against each kind of silent texts: means over features, and differences from random ones for the same description, with 95 % intervals."
    headings = ["Silent texts", *(f"{TITLES[score]}{part}" for score in SCORES for part in ("", ": difference")), "Features"]  # fmt: skip
    return [Table("By kind of negatives", note, headings, rows)]


def rules_table(results: Results, scorer: str) -> list[Table]:
    """Scores by number of rules, where there are rules and each was asked about."""
    if results.run.corpus.documents is not None or not any(t.rules for r in results for t in scored(r.evidence[scorer]).texts):  # fmt: skip
        return []
    found = polysemanticity(results, scorer, seed=int(results.run.settings.get("seed", 0))).sweep
    rows = [
        [amount(row["n_rules"]), mean(row, "score"), mean(row, "gain"), amount(row["n_features"]), f"{amount(row['chosen'])} ({row['share']:.0%})" if row["chosen"] else "0"]
        for row in found.to_dict("records")
    ]  # fmt: skip
    note = (
        f"{titled(scorer)} of the first so many rules, as 2 · AUROC − 1: means over features with 95 % intervals. How many a description takes is chosen on "
        "half of the texts; the scores are those on the other half."
    )
    return [Table("By number of rules", note, ["Rules", "Score", "Gain", "Features", "Descriptions that take so many"], rows)] * bool(rows)  # fmt: skip


def scored(found: Any) -> WindowScores:
    """Evidence that is known to be of windows."""
    assert isinstance(found, WindowScores)
    return found


def titled(scorer: str) -> str:
    """What a scorer's scores are called."""
    return ", ".join(spec.title for spec in specs_of([scorer]))


def mean(row: dict[Any, Any], name: str) -> str:
    """A mean with its interval, in words; nothing where there is none."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return "" if isnan(value) else Mean(value, None if isnan(low) else (low, high)).words


def sweep_figure(found: Polysemanticity) -> "go.Figure":
    """The scores over the number of rules, a line a description and their mean; and how many descriptions take each number."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from fade_lens.report.plots import BLUE, GREY, label

    figure = make_subplots(1, 2, subplot_titles=("Score of the first rules", "Rules that a description takes"))
    most = len(found.sweep)
    for one in found.items:
        if one.reported is not None:
            line = [one.reported.scores[min(n, one.n_rules) - 1] for n in range(1, most + 1)]
            told = f"{one.description.index}: {label(one.description.text, 80)}"
            figure.add_trace(go.Scatter(x=list(range(1, most + 1)), y=line, mode="lines", line={"color": GREY, "width": 1}, opacity=0.5, name=told, hovertemplate=f"{told}<br>%{{y:.2f}}<extra></extra>"), 1, 1)  # fmt: skip
    figure.add_trace(means(found.sweep, "n_rules", "score"), 1, 1)
    figure.add_trace(go.Bar(x=found.sweep["n_rules"].tolist(), y=found.sweep["chosen"].tolist(), marker={"color": BLUE}, hovertemplate="%{x} rules: %{y}<extra></extra>"), 1, 2)  # fmt: skip
    figure.update_xaxes(title_text="rules", dtick=1)
    figure.update_yaxes(title_text="2 · AUROC − 1", row=1, col=1)
    figure.update_yaxes(title_text="descriptions", rangemode="tozero", row=1, col=2)
    without = sum(one.number is None for one in found.items)
    figure.update_layout(title=f"{len(found.items)} descriptions, {without} of them without a number", showlegend=False, height=420)  # fmt: skip
    return figure


def by_negative_figure(found: ByNegative) -> "go.Figure":
    """AUROC and false positives by kind: a dot a description, the means with their intervals."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from fade_lens.report.plots import GREY, label

    figure = make_subplots(1, 2, subplot_titles=[TITLES[score] for score in SCORES])
    for at, score in enumerate(SCORES, 1):
        told = [f"{index}: {label(text, 80)}" for index, text in zip(found.frame["index"], found.frame["description"], strict=True)]  # fmt: skip
        figure.add_trace(
            go.Box(x=found.frame["kind"].map(kind_words), y=found.frame[score], boxpoints="all", jitter=0.6, pointpos=0, line={"width": 0}, fillcolor="rgba(0,0,0,0)", marker={"color": GREY, "size": 4, "opacity": 0.6}, text=told, hovertemplate="%{text}<br>%{y:.2f}<extra></extra>"),
            1, at,
        )  # fmt: skip
        figure.add_trace(means(found.table.assign(kind=found.table["kind"].map(kind_words)), "kind", score), 1, at)
        figure.update_yaxes(range=[-0.03, 1.03], row=1, col=at)
    figure.add_hline(y=0.5, line={"dash": "dash", "color": GREY}, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.update_layout(title="By kind of negatives", showlegend=False, height=420)
    return figure


def means(frame: "pd.DataFrame", x: str, y: str) -> "go.Scatter":
    """Means with their intervals."""
    import plotly.graph_objects as go

    from fade_lens.report.plots import ORANGE

    low, high = (frame[y] - frame[f"{y}_low"], frame[f"{y}_high"] - frame[y])
    return go.Scatter(
        x=frame[x].tolist(), y=frame[y].tolist(), mode="markers" if x == "kind" else "lines+markers",
        line={"color": ORANGE}, marker={"color": ORANGE, "size": 10},
        error_y={"type": "data", "array": high.fillna(0).tolist(), "arrayminus": low.fillna(0).tolist()},
        text=[number(value) for value in frame[y]], hovertemplate="mean %{text}<extra></extra>",
    )  # fmt: skip
