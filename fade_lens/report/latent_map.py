"""A map of latents as a page to look around in, and as a figure for a notebook."""

import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.words import clip, visible
from fade_lens.data.rows import is_null
from fade_lens.report.cards import compact
from fade_lens.report.page import hash_of, joined, whole
from fade_lens.report.shards import ALLOWED, shards

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from fade_lens.analysis.latent_map import LatentMap

SHARD = 2000
"""Latents whose texts lie in one file."""
INLINE = 20_000
"""Up to so many latents their texts are in the page itself."""
TEXT, WORDS, ROWS = 300, 160, 200
SCRIPTS = ("base.js", "shards.js", "map.js")


def map_page(made: "LatentMap", folder: str) -> tuple[str, dict[str, str]]:
    """The page, and what lies in the folder beside it, by the names of the files: nothing where the page holds all."""
    from plotly.offline import get_plotlyjs

    frame: Any = made.frame
    texts = [shown_of(row) for row in frame.to_dict("records")]
    beside = len(frame) > INLINE
    starts = list[int]()
    files = dict(shards("texts", map(compact, texts), starts, SHARD)) if beside else {}
    saes = {name: number for number, name in enumerate(dict.fromkeys(frame["sae"]))}
    data = {
        "saes": [clip(visible(name), 120) for name in saes],
        "sae": [saes[name] for name in frame["sae"]],
        "index": frame["index"].tolist(),
        "cluster": frame["cluster"].tolist(),
        "x": rounded(frame["x"], 3),
        "y": rounded(frame["y"], 3),
        "colours": [[clip(visible(name), 80), rounded(frame[name], 4)] for name in made.colours[2:]],
        "texts": None if beside else texts,
        "starts": starts,
        "folder": folder,
    }
    library, script = Markup(get_plotlyjs().replace("</", "<\\/")), joined(*SCRIPTS)
    # The library draws with WebGL, whose programs it compiles as it runs, and styles what it draws.
    runs = f"'{hash_of(library)}' '{hash_of(script)}' 'unsafe-eval'" + (ALLOWED if beside else "")
    allowed = {"script-src": runs, "style-src": "'unsafe-inline'", "img-src": "data: blob:"}
    page = whole(
        "map.html",
        allowed=allowed,
        library=library,
        script=script,
        data=Markup(compact(data)),
        title=f"{len(frame):,} latent{'' if len(frame) == 1 else 's'}",
        facts=[clip(said, 300) for said in made.facts],
        failed=[(clip(name, 120), clip(why, 400)) for name, why in made.failed.items()],
        colours=[clip(name, 80) for name in made.colours],
        clusters=tabled(made.clusters),
        splits=tabled(made.splits),
        n_clusters=len(made.clusters),
        n_splits=len(made.splits),
        told=told_of(made),
        beside=f"{folder}/" if beside else "",
    )
    return page, files


def shown_of(row: dict[str, Any]) -> list[Any]:
    """What is said of a latent: description, promoted tokens, parent, address."""
    parent = ""
    if not is_null(row.get("parent")):
        parent = f"{row['parent_sae']} #{int(row['parent'])}, cosine {row['parent_cosine']:.2f}"
        parent += "" if row["split"] else " (too little: new)"
        parent += "" if is_null(row.get("inclusion")) else f", which fires on {row['inclusion']:.0%} of its tokens"
    words = (row.get("description"), TEXT), (row.get("promoted"), WORDS), (parent, 200), (row.get("url"), 300)
    return ["" if is_null(value) else clip(visible(str(value)), most) for value, most in words]


def rounded(column: Any, digits: int) -> list[float | None]:
    """Numbers that a page can hold; None for what is missing."""
    return [round(v, digits) if isinstance(v, float | int) and math.isfinite(v) else None for v in column.astype("float64").tolist()]  # fmt: skip


def tabled(table: "pd.DataFrame") -> dict[str, Any]:
    """A table for the page, its first rows."""
    return {"head": list(table.columns), "rows": [[cell(v) for v in row] for row in table.head(ROWS).itertuples(index=False)]}  # fmt: skip


def cell(value: Any) -> str:
    """A cell in words."""
    if isinstance(value, float):
        return "not known" if not math.isfinite(value) else f"{value:.3g}"
    return clip(str(value), 120)


def told_of(made: "LatentMap") -> str:
    """Whether clusters are more than random sets, in a sentence."""
    table: Any = made.clusters
    if not len(table):
        return "No clusters were found."
    said = f"{len(table):,} cluster{'' if len(table) == 1 else 's'}"
    if "lift_p" not in table:
        return f"{said}; whether their latents fire together is not known without texts."
    n, chance = int((table["lift_p"] < 0.05).sum()), len(table) / 20
    return f"{said}, whose latents fire together {table['lift'].median():.1f} times as often as by chance (the median; random sets: {table['lift_random'].median():.1f}); {n:,} of them more than 95 % of random sets, where {chance:.0f} would without any tie."


def map_figure(made: "LatentMap", colour: str) -> "go.Figure":
    """The map, a point a latent, coloured by the SAE, the cluster, or a column of numbers."""
    import plotly.graph_objects as go

    from fade_lens.report.plots import GREY, label

    if colour not in made.colours:
        raise InputError(Argument("colour"), f" is {colour!r}; give one of {', '.join(made.colours)}{suggest(colour, made.colours)}")  # fmt: skip
    figure = go.Figure()
    frame: Any = made.frame
    groups: Any = frame.groupby("sae", sort=False) if colour == "sae" else [("", frame)]
    for name, rows in groups:
        lines = [f"{label(r['sae'], 60)} #{r['index']}" + "".join(f"<br>{label(w, 80)}" for w in shown_of(r)[:3] if w) for r in rows.to_dict("records")]  # fmt: skip
        marker: dict[str, Any] = {"size": 4, "opacity": 0.7}
        if colour == "cluster":
            marker |= {"color": [GREY if c < 0 else f"hsl({c * 137.5 % 360:.0f},65%,45%)" for c in rows["cluster"]]}
        elif colour != "sae":
            marker |= {"color": rounded(rows[colour], 4), "colorscale": "Viridis", "showscale": True, "colorbar": {"title": label(colour, 30)}}  # fmt: skip
        figure.add_trace(go.Scattergl(x=rows["x"], y=rows["y"], mode="markers", marker=marker, name=label(str(name), 60), text=lines, hovertemplate="%{text}<extra></extra>"))  # fmt: skip
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False, scaleanchor="x").update_layout(height=700, showlegend=colour == "sae", title=f"{len(made):,} latents")  # fmt: skip
