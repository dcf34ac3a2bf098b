"""`fade-lens release`: many SAEs of one model, scored and set side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fade_lens._util.errors import InputError
from fade_lens._util.options import names
from fade_lens.cli.compare import means
from fade_lens.cli.console import console, plain
from fade_lens.cli.judging import Judging
from fade_lens.cli.options import NEURONPEDIA, Device, Dtype, JudgeSpec, Out, Quiet, check_model
from fade_lens.cli.ray import RayOptions
from fade_lens.cli.settings import RunSettings
from fade_lens.cli.subject import CorpusOptions

if TYPE_CHECKING:
    from fade_lens.analysis.release import Release
    from fade_lens.runs.results import Results


def release(
    release: Annotated[str, typer.Argument(help="A release in SAELens' list, such as gpt2-small-res-jb.")],
    corpus: CorpusOptions,
    judge: JudgeSpec,
    judging: Judging,
    out: Out,
    sae_ids: Annotated[
        str, typer.Option(help="Which of its SAEs: patterns such as 'blocks.*.hook_resid_pre', between commas.")
    ] = "*",
    latents: Annotated[
        int, typer.Option(min=1, help="Latents drawn of each SAE, among those that fire on some hundred texts.")
    ] = 100,
    strata: Annotated[
        int,
        typer.Option(
            min=0,
            help="Ranges of how often latents fire, of each of which equally many are drawn; means weigh them. 0: uniformly.",
        ),
    ] = 0,
    descriptions: Annotated[
        str | None,
        typer.Option(
            help="`neuronpedia`, or a CSV file with sae, index and description, of whose latents are then drawn."
        ),
        Path,
    ] = None,
    explainer: Annotated[
        str | None,
        typer.Option(help="Who explains drawn latents without a description: one-shot, or another explainer."),
    ] = None,
    scorers: Annotated[str, typer.Option(help="What to score by, as in `evaluate`.")] = "fade",
    baselines: Annotated[str, typer.Option(help="Baseline features beside each SAE's, as in `evaluate`.")] = "",
    reference: Annotated[
        str | None,
        typer.Option(
            help="What every other SAE is compared with: its id, or best. Else all pairs; of over 20 SAEs, the best with each other."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the one the release names."), Path] = None,
    device: Device = None,
    dtype: Dtype = None,
    quiet: Quiet = False,
    *,
    ray: RayOptions,
    settings: RunSettings,
) -> None:
    """Score latents of every SAE of a release, and set the SAEs side by side: against layer, width, L0 and recovered loss.

    Example: `fade-lens release gpt2-small-res-jb --sae-ids "blocks.*.hook_resid_pre" --latents 100 --descriptions neuronpedia
    --corpus hf:NeelNanda/pile-10k --judge openai:gpt-4o-mini --out runs/res-jb`
    """
    from fade_lens.data.rows import by_sae
    from fade_lens.data.sampling import check_strata
    from fade_lens.explainers.base import explainer_of
    from fade_lens.runs.store import FILE
    from fade_lens.scorers.base import scorers_of

    if descriptions is None and explainer is None:
        raise InputError("give --descriptions (such as neuronpedia), or --explainer to have latents described first")
    check_strata(latents, strata)
    workers = ray.settings()
    chosen_settings = settings.settings(neurons=False)
    scorers_of(asked_scorers := names(scorers))
    if explainer is not None:
        explainer_of(explainer)
    given: Any = descriptions if descriptions in (None, NEURONPEDIA) else by_sae(descriptions)
    asked = judging.open(judge)
    texts = corpus.open()
    # What is told from here on needs torch.
    from fade_lens.analysis.opening import names_in
    from fade_lens.analysis.release import release as score
    from fade_lens.analysis.release import release_estimate

    found = names_in(release, names(sae_ids))
    if model is not None:
        check_model(model, device, dtype)
    estimated = release_estimate(
        len(found),
        texts,
        asked,
        latents=latents,
        explainer=explainer,
        scorers=asked_scorers,
        baselines=names(baselines),
        settings=chosen_settings,
    )
    if judging.dry_run or not quiet:
        n = f"{len(found)} SAEs, {latents} latents of each: {estimated}"
        console.print(plain(n), soft_wrap=True)
    if judging.dry_run:
        return
    if not any(out.glob(f"*/{FILE}")):  # what goes on may have nothing left to ask
        asked.check()  # before a model is loaded

    def told(name: str, what: "Results | str") -> None:
        said = (
            what if isinstance(what, str) else f"{len(what)} descriptions scored, {what.run.usage or 'nothing asked'}"
        )
        console.print(plain(f"{name}: {said}"), soft_wrap=True)

    done = score(
        release, names(sae_ids), corpus=texts, folder=out, judge=asked, model=model, latents=latents, strata=strata, descriptions=given, explainer=explainer,
        scorers=asked_scorers, baselines=names(baselines), reference=reference, device=device, dtype=dtype, progress=not quiet, told=None if quiet else told, ray=workers, settings=chosen_settings,
    )  # fmt: skip
    table, page = done.to_csv(out / "release.csv"), done.to_html(out / "release.html")
    if not quiet:
        console.print(facts(done))
        console.print(means(done.comparison))
        for said in done.comparison.sentences:
            console.print(plain(said), soft_wrap=True)
        console.print(plain(f"Page:  {page}\nTable: {table}"), soft_wrap=True)


def facts(done: "Release") -> Table:
    """What the SAEs are, how healthy they are, and those that could not be scored."""
    from fade_lens._util.words import amount, number

    shown = Table(title="SAEs", title_justify="left")
    for heading in ("sae", "layer", "width", "L0", "recovered", "fire", "latents", "warnings"):
        shown.add_column(heading, justify="left" if heading in ("sae", "warnings") else "right", overflow="fold")
    for row in done.frame.to_dict("records"):
        if row["failed"] is not None and row["failed"] == row["failed"]:
            shown.add_row(plain(row["sae"]), *[""] * 6, plain(f"not scored: {row['failed']}"))
            continue
        known = [
            "–" if value is None or value != value else said(value)
            for value, said in (
                (row["layer"], lambda v: str(int(v))),
                (row["width"], lambda v: amount(int(v))),
                (row["l0"], lambda v: amount(float(f"{v:.3g}"))),
                (row["recovered"], number),
                (row["alive"], lambda v: f"{v:.0%}"),
            )
        ]
        shown.add_row(plain(row["sae"]), *known, str(int(row["latents"])), row["warnings"])
    return shown
