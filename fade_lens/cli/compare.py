"""`fade-lens compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fade_lens.cli.console import console, plain
from fade_lens.cli.options import Quiet, numbers

if TYPE_CHECKING:
    from fade_lens.analysis.compare import Comparison

Runs = Annotated[
    list[Path], typer.Argument(help="Folders of `fade-lens evaluate`, or files that `Results.save` wrote.")
]


def compare(
    runs: Runs,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What to call a run; once for each, in their order. Else their folders."),
    ] = None,
    l0: Annotated[
        str | None, typer.Option(help="L0 of each run's SAE, such as 35,71, where the runs do not tell.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Groups to compare: run, or layer, width, l0, release, sae, explainer over all runs together."
        ),
    ] = "run",
    reference: Annotated[
        str | None,
        typer.Option(
            help="What every other run is compared with: a run's name, or best. Else all pairs; of over 20 runs, the best with each other."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the tables and the page.")] = Path("fade-lens-comparison"),
    quiet: Quiet = False,
) -> None:
    """Set runs side by side: metrics by layer, width, L0 and explainer, and differences, paired where they share features.

    Example: `fade-lens compare runs/l5 runs/l12 runs/l20 --name "layer 5" --name "layer 12" --name "layer 20"`
    """
    from fade_lens.analysis.compare import compare as compared

    comparison = compared(*runs, names=name or None, l0=numbers("l0", l0) if l0 else None, by=by, reference=reference)
    table = comparison.to_csv(out / "comparison.csv")
    page = comparison.to_html(out / "comparison.html")
    if not quiet:
        console.print(means(comparison))
        console.print(differences(comparison))
        for said in comparison.sentences:
            console.print(plain(said), soft_wrap=True)
        console.print(f"Page:  {page}\nTable: {table}")


def means(comparison: "Comparison") -> Table:
    """The scores of every run or group, with intervals."""
    from fade_lens._util.words import number

    key = "run" if comparison.by == "run" else "group"
    shown = Table(title=f"Means with 95 % intervals, by {comparison.by}", title_justify="left")
    shown.add_column(comparison.by, overflow="fold")
    for spec in comparison.specs:
        shown.add_column(spec.title, justify="right", min_width=len(spec.title))
    for group, rows in comparison.frame.groupby(key, sort=False):
        cells: list[str] = []
        for spec in comparison.specs:
            row = rows[rows["metric"] == spec.name].iloc[0]
            if row["mean"] != row["mean"]:
                cells.append("–")
                continue
            interval = "" if row["low"] != row["low"] else f"\n{number(row['low'])} to {number(row['high'])}"
            missing = f"\n{row['undefined']:.0%} undefined" if row["undefined"] else ""
            cells.append(f"{number(row['mean'])}{interval}{missing}")
        shown.add_row(plain(str(group)), *cells)
    return shown


def differences(comparison: "Comparison") -> Table:
    """The differences, with intervals and p-values."""
    from fade_lens._util.words import number

    shown = Table(title="Differences (first − second), paired where features are shared", title_justify="left")
    for heading in ("first", "second"):
        shown.add_column(heading, overflow="fold")
    for heading in ("metric", "difference", "95 % interval", "p", "features"):
        shown.add_column(heading, justify="right", no_wrap=heading != "metric")
    for row in comparison.differences.to_dict("records"):
        known = row["difference"] == row["difference"]
        interval = f"{number(row['low'])} to {number(row['high'])}" if row["low"] == row["low"] else "–"
        p_value = f"{row['p_value']:.3g}" if row["p_value"] == row["p_value"] else "–"
        value = number(row["difference"]) if known else "–"
        n = str(row["n_a"]) if row["paired"] else f"{row['n_a']} and {row['n_b']}"
        names = (plain(str(row[side])) for side in ("a", "b"))
        shown.add_row(*names, str(row["metric"]).replace("_", " "), value, interval, p_value, n)
    return shown
