"""`fade-lens sanity`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fade_lens.cli.console import console
from fade_lens.cli.options import DEMO, Device, check_model, known_dtype, open_model

if TYPE_CHECKING:
    from fade_lens.analysis.planted import Planted
    from fade_lens.analysis.sanity import Check


def sanity(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run (or its results.sqlite), to test the scores on its own evidence."),
    ] = None,
    planted: Annotated[
        bool,
        typer.Option(
            "--planted", help="Also plant latents of known truth in a model and score them; no judge is asked."
        ),
    ] = False,
    model: Annotated[
        str, typer.Option(help="Model for --planted, by its TransformerLens name, or `demo`."), Path
    ] = DEMO,
    device: Device = None,
    dtype: Annotated[
        str, typer.Option(help="Of the model: float32, bfloat16 or float16.", callback=known_dtype)
    ] = "float32",
    draws: Annotated[int, typer.Option(min=1, help="Random changes of the labels of each description.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="All randomness comes from it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Which scores notice a wrong description?

    Half of the labels are dropped, or as many wrong ones added, on an ideal feature and on a run's own rated texts: a score that hardly falls
    cannot tell the description from a too narrow or a too wide one (Oikarinen et al., ICML 2025). Exit code 1 if planted truth is not found.

    Example: `fade-lens sanity runs/l7 --planted --model gpt2-small`
    """
    from fade_lens.analysis import sanity as tests

    if planted:
        check_model(model, device, dtype)
    results = None
    if run is not None:
        from fade_lens.runs.results import Results

        results = Results.load(run)
    found: dict[str, Any] = {"ideal feature": tests.simulated()}
    if results is not None:
        found["run"] = tests.of_run(results, draws=draws, seed=seed)
    truth = None
    if planted:
        from fade_lens.analysis.planted import planted as plant

        truth = plant(open_model(model, device, dtype))
    if as_json:
        record: dict[str, Any] = {name: [asdict(check) for check in checks] for name, checks in found.items()}
        if truth is not None:
            record["planted"] = {"passed": truth.passed, "descriptions": rows_of(truth)}
        console.print_json(json.dumps(record))
    else:
        titles = {
            "ideal feature": f"An ideal feature that fires on {tests.FREQUENCIES[0]:.0%} to {tests.FREQUENCIES[-1]:.2%} of texts",
            "run": f"This run's descriptions of Responsiveness {2 * tests.LEAST_AUROC - 1:g} and more",
        }
        for name, checks in found.items():
            console.print(table(titles[name], checks))
        if truth is not None:
            console.print(planted_table(truth))
    if truth is not None and not truth.passed:
        raise typer.Exit(1)


def table(title: str, checks: "Sequence[Check]") -> Table:
    """Every metric with both tests."""
    cases = max(check.cases for check in checks)
    shown = Table(title=f"{title} ({cases} cases)", title_justify="left")
    shown.add_column("score")
    for test in dict.fromkeys(check.test for check in checks):
        shown.add_column(test, justify="right")
        shown.add_column("noticed", justify="right")
        shown.add_column("")
    for metric in dict.fromkeys(check.metric for check in checks):
        cells = [cell for check in checks if check.metric == metric for cell in cells_of(check)]
        shown.add_row(metric, *cells)
    shown.caption = "fall of the score as a share of its range (ideal: the least, run: the mean); share of cases in which it is noticed"
    shown.caption_justify = "left"
    return shown


def cells_of(check: "Check") -> tuple[str, str, str]:
    """Fall, share of cases noticed, verdict."""
    verdict = "[green]passes[/green]" if check.passed else "[red]fails[/red]"
    return f"{check.fall:.3f}", f"{check.noticed:.0%}", verdict


def rows_of(planted: "Planted") -> list[dict[str, Any]]:
    """Every description of planted latents with its scores."""
    from fade_lens.scorers.fade import METRICS

    return [
        {"latent": r.description.index, "description": r.description.text, "true": results is planted.true}
        | {name: r.metrics[name].value for name in METRICS}
        for results in (planted.true, planted.shuffled)
        for r in results
    ]


def planted_table(planted: "Planted") -> Table:
    """Planted latents with their true and their shuffled descriptions."""
    verdict = "found" if planted.passed else "NOT FOUND: do not trust this set-up"
    from fade_lens.scorers.fade import METRICS

    shown = Table(title=f"Planted truth: {verdict}", title_justify="left")
    shown.add_column("latent", justify="right")
    shown.add_column("description")
    for name in METRICS:
        shown.add_column(name.capitalize(), justify="right", min_width=len(name))
    for row in rows_of(planted):
        scores = ["–" if row[name] is None else f"{row[name]:.2f}" for name in METRICS]
        shown.add_row(str(row["latent"]), row["description"] + ("" if row["true"] else " (shuffled)"), *scores)
    return shown
