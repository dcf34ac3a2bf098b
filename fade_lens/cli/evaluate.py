"""`fade-lens evaluate`, and how a run's results are printed."""

import re
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fade_lens._util.errors import InputError
from fade_lens._util.options import names
from fade_lens._util.words import number
from fade_lens.cli.console import console, plain
from fade_lens.cli.judging import Judging
from fade_lens.cli.options import (
    Described,
    JudgeSpec,
    Only,
    Out,
    Quiet,
    chosen_descriptions,
)
from fade_lens.cli.ray import RayOptions
from fade_lens.cli.settings import RunSettings
from fade_lens.cli.subject import CorpusOptions, SubjectOptions

if TYPE_CHECKING:
    from fade_lens.metrics.metric import Metric
    from fade_lens.runs.record import RunRecord
    from fade_lens.runs.results import Result, Results
    from fade_lens.scorers.base import ScoreSpec

TABLE = "results.csv"
"""In the folder of a run."""
SHOWN, REASONS = 40, 8
"""Descriptions that are printed, the worst, and reasons below them; files have all."""


def evaluate(
    subject: SubjectOptions,
    corpus: CorpusOptions,
    judge: JudgeSpec,
    judging: Judging,
    out: Out,
    descriptions: Described = None,
    features: Only = None,
    explainer: Annotated[
        str | None,
        typer.Option(
            help="Who explains the features of --features that have no description first: one-shot, or another explainer."
        ),
    ] = None,
    held_out: Annotated[
        bool | None,
        typer.Option(
            help="Score on the texts that no explainer is shown; where descriptions were explained here unless given."
        ),
    ] = None,
    scorers: Annotated[
        str,
        typer.Option(
            help="What to score by, several between commas: fade, detection, fuzzing, embedding, intruder, neighbours, simulation, or a name that an installed package brings."
        ),
    ] = "fade",
    nulls: Annotated[
        str,
        typer.Option(
            help="Null descriptions, scored likewise: any of shuffled,random,generic; prints score minus null."
        ),
    ] = "",
    baselines: Annotated[
        str,
        typer.Option(
            help="Baseline features, explained and scored likewise: any of random,permuted,neurons,residual; prints score minus baseline."
        ),
    ] = "",
    quiet: Quiet = False,
    *,
    ray: RayOptions,
    settings: RunSettings,
) -> None:
    """Score descriptions of an SAE's latents, or of neurons.

    Example: `fade-lens evaluate --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre
    --descriptions labels.csv --corpus hf:NeelNanda/pile-10k --judge openai:gpt-4o-mini --out runs/l7`
    """
    from fade_lens.baselines.kinds import check_baselines
    from fade_lens.baselines.null_descriptions import check_nulls
    from fade_lens.data.descriptions import Description
    from fade_lens.explainers.base import check_evidence
    from fade_lens.explainers.table import explained_by
    from fade_lens.runs.estimating import MANY, estimate_run
    from fade_lens.runs.store import file_of
    from fade_lens.scorers.base import scorers_of

    chosen_settings, workers = settings.settings(neurons=subject.hook is not None), ray.settings()
    subject.check_given()
    chosen = to_evaluate(descriptions, features, explainer, subject)
    indices = chosen if isinstance(chosen, str) else [one if isinstance(one, int) else one.index for one in chosen]
    subject.check_given(indices)
    asked = judging.open(judge)
    check_nulls(asked_nulls := names(nulls))
    check_baselines(asked_baselines := names(baselines), explainer or explained_by(chosen))
    for scorer in scorers_of(asked_scorers := names(scorers)).values():
        scorer.check(chosen_settings)
    more: dict[str, Any] = {
        "scorers": asked_scorers,
        "nulls": asked_nulls,
        "baselines": asked_baselines,
        "explainer": explainer,
        **judging.checks(),
    }
    texts = corpus.open()
    check_evidence((one for one in chosen if isinstance(one, Description)), texts, chosen_settings.seed)
    published = subject.check(indices)
    if explainer is not None:
        subject.check_explainer(explainer, chosen_settings)
    if not judging.dry_run and not file_of(out).exists():  # what goes on may have nothing left to ask
        asked.check()  # before a model is loaded
    if judging.dry_run:
        from fade_lens.generation.arms import EVERY_ARM
        from fade_lens.runs.health import LOSS_SHARE, texts_before

        n_features = subject.n_features(published) or MANY
        chosen = as_indices(chosen, n_features, chosen_settings.seed)
        cost = estimate_run(asked, chosen_settings, texts, chosen, n_features, **more)
        console.print(plain(f"{len(chosen)} descriptions: {cost}"), soft_wrap=True)
        if subject.hook is None and (n := texts_before(chosen_settings, len(texts))):
            arms = f"{n // LOSS_SHARE} of them {1 + len(EVERY_ARM)} times more"
            console.print(plain(f"before them, without the judge: {n} texts through the model, {arms}, for the SAE's health"), soft_wrap=True)  # fmt: skip
        return
    from fade_lens.runs.fade import Fade

    model, source = subject.open(published)
    fade = Fade(model, source, corpus=texts, judge=asked, settings=chosen_settings)
    chosen = as_indices(chosen, fade.n_features, chosen_settings.seed)
    more |= {
        "store": out,
        "transcripts": judging.transcripts,
        "progress": not quiet,
        "held_out": held_out,
        "ray": workers,
    }
    finish(fade.evaluate(chosen, **more), out, quiet)


def to_evaluate(descriptions: Path | None, features: str | None, explainer: str | None, subject: SubjectOptions) -> Any:
    """The descriptions asked for; with an explainer also the indices of the features that it has to explain, or words for them."""
    from fade_lens.data.descriptions import parse_indices, read_descriptions
    from fade_lens.data.indices import asked_indices
    from fade_lens.explainers.base import explainer_of

    if explainer is None:
        if descriptions is None:
            raise InputError("give --descriptions, or --explainer with --features to have them described first")
        return chosen_descriptions(descriptions, features, subject.sae_release, subject.sae_id, subject.sae)
    explainer_of(explainer)
    if features is None:
        raise InputError(f"--explainer {explainer} needs --features: which features it is to explain, such as 0:200")
    if descriptions is None:
        asked_indices(features)
        return features
    wanted = parse_indices(features)
    given = [d for d in read_descriptions(descriptions) if d.index in set(wanted)]
    missing = [index for index in wanted if index not in {d.index for d in given}]
    if not missing:
        raise InputError(
            f"--explainer {explainer}: every feature of --features has a description; leave --explainer out"
        )
    return [*given, *missing]


def as_indices(chosen: Any, n_features: int, seed: int) -> Any:
    """Words as the indices that they name; what is given otherwise stays."""
    from fade_lens.data.indices import chosen_indices

    return chosen_indices(chosen, n_features, seed) if isinstance(chosen, str) else chosen


def finish(results: "Results", out: Path, quiet: bool) -> None:
    """Write the run's files and show the table."""
    page = results.to_folder(out)
    if not quiet:
        console.print(table(results, out / TABLE))
        if results.nulls or results.baselines:
            console.print(subtracted_table(results))
        for line in [*about_explanations(results.run), *about_the_judge(results.run)]:
            console.print(plain(line), soft_wrap=True)
        console.print(plain(f"Report: {page}\nTable:  {out / TABLE}"), soft_wrap=True)


def about_explanations(run: "RunRecord") -> list[str]:
    """How many features were explained, and why the others were not; on which texts scores rest."""
    lines: list[str] = []
    if found := run.explained:
        without = "".join(f", {len(some)} {code}" for code, some in found["without"].items())
        lines.append(f"Explained: {found['described']} of {found['features']} features{without}")
    if run.held_out is not None:
        lines.append(f"Scored on:  {run.held_out:,} texts that no explainer was shown")
    return lines


def about_the_judge(run: "RunRecord") -> list[str]:
    """What the judge was asked and cost, and how far it agrees with itself, with others and with the gold set."""

    def share(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.2f}"

    lines = [f"Judge:  {run.usage}"] if run.usage else []
    if gold := run.gold:
        rates = f"sensitivity {share(gold.sensitivity)}, specificity {share(gold.specificity)}"
        lines.append(
            f"Gold:   {gold.agreement.n} texts rated, {rates}, weighted kappa {share(gold.agreement.weighted)}"
        )
    for one in run.agreement:
        kappas = f"kappa {share(one.kappa)}, weighted {share(one.weighted)}"
        lines.append(f"Agrees: with {one.by} on {share(one.same)} of {one.n} texts, {kappas}")
    return lines


def table(results: "Results", file: Path) -> Table:
    """The scores of the worst descriptions with their 95 % intervals; `file` has all."""
    from fade_lens.report.standing import worst_first

    specs = [spec for spec in results.specs if any(not left_out(result.metric(spec.name)) for result in results)]
    shown = Table(title="Does the description tell the truth?", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("feature", justify="right")
    shown.add_column("description", overflow="fold", min_width=16, max_width=44)
    for spec in specs:
        # A hyphen where a heading is wider than what stands below it: eighty columns hold four scores.
        heading = re.sub(r"(?<=\w{6})ness$", "-\nness", spec.title)
        shown.add_column(heading, justify="right", min_width=max(map(len, heading.split())), no_wrap=True)
    worst = worst_first(results, SHOWN)
    for result in worst:
        cells = [cell_of(result.metric(spec.name)) for spec in specs]
        shown.add_row(f"{result.description.index}\n{result.standing}", plain(result.description.text), *cells)
    reasons = dict.fromkeys(
        f"{result.description.index}: {why}"
        for result in sorted(worst, key=lambda one: one.standing != "open")
        for why in reasons_of(result, specs)
    )
    lines = [f"{len(results) - SHOWN:,} more in {file}"] if len(results) > SHOWN else []
    lines += [f"– {reason}" for reason in list(reasons)[:REASONS]]
    lines += [f"and {len(reasons) - REASONS} more such" for _ in range(1) if len(reasons) > REASONS]
    shown.caption = plain("\n".join(lines)) if lines else None
    shown.caption_justify = "left"
    return shown


def reasons_of(result: "Result", specs: "Sequence[ScoreSpec]") -> list[str]:
    """Why a description's standing is open, and why scores of it are undefined."""
    left = result.standing == "open"
    undefined = (result.metric(spec.name).reason for spec in specs if not (left and spec.decides))
    return [*([result.standing.why] if left else []), *filter(None, undefined)]


def left_out(metric: "Metric") -> bool:
    """Whether the user asked for no such score, so that there is no reason to tell."""
    return metric.value is None and getattr(metric.reason, "code", "") in ("no_factors", "not_scored")


def cell_of(metric: "Metric") -> str:
    """A score, and its interval below."""
    if metric.value is None:
        return "–"
    low, high = metric.interval or (None, None)
    return number(metric.value) + ("" if low is None else f"\n{number(low)}–{number(high)}")


def subtracted_table(results: "Results") -> Table:
    """How much better the descriptions score than null descriptions and baseline features, metric by metric."""
    from fade_lens.analysis.summary import subtracted

    shown = Table(title="Score minus that of null descriptions and baseline features", title_justify="left")
    for name in ("score", "minus"):
        shown.add_column(name)
    for name in ("mean", "95 %", "of"):
        shown.add_column(name, justify="right")
    for row in results.summary().to_dict("records"):
        if (other := subtracted(row)) is not None:
            mean, limits = ("–" if isnan(row["mean"]) else f"{row['mean']:+.2f}"), "–"
            if not isnan(row["low"]):
                limits = f"{row['low']:+.2f} … {row['high']:+.2f}"
            shown.add_row(row["metric"].capitalize(), other, mean, limits, str(row["n"]))
    return shown
