"""`fade-lens explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fade_lens.cli.console import console, plain
from fade_lens.cli.judging import Judging
from fade_lens.cli.options import Explain, JudgeSpec, Quiet, csv_file
from fade_lens.cli.ray import RayOptions
from fade_lens.cli.settings import ExplainSettings
from fade_lens.cli.subject import CorpusOptions, SubjectOptions

if TYPE_CHECKING:
    from fade_lens.explainers.table import Explanations

SHOWN = 40
"""Explanations that are printed; the file has all."""


def explain(
    subject: SubjectOptions,
    features: Annotated[str, typer.Option(help="Features to explain, such as 0:200,512 or random:50.")],
    corpus: CorpusOptions,
    judge: JudgeSpec,
    judging: Judging,
    out: Annotated[
        Path, typer.Option(help="CSV file for the descriptions; `evaluate --descriptions` reads it.", callback=csv_file)
    ],
    explainer: Explain = "one-shot",
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps what was computed and answered, for a later run too; unless given, beside the CSV file."
        ),
    ] = None,
    quiet: Quiet = False,
    *,
    ray: RayOptions,
    settings: ExplainSettings,
) -> None:
    """Describe an SAE's latents, or neurons, that have no description.

    Example: `fade-lens explain --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre
    --features 0:200 --corpus hf:NeelNanda/pile-10k --judge openai:gpt-4o-mini --out labels.csv`
    """
    from fade_lens.data.indices import asked_indices, chosen_indices
    from fade_lens.explainers.base import explainer_of
    from fade_lens.runs.estimating import MANY, estimate_run
    from fade_lens.runs.store import file_of

    chosen_settings, workers = settings.settings(), ray.settings()
    asked_indices(features)
    subject.check_given(features)
    asks = explainer_of(explainer).asks
    asked, folder = judging.open(judge), store or out.with_suffix("")
    texts = corpus.open()
    published = subject.check(features)
    subject.check_explainer(explainer, chosen_settings)
    if asks and not judging.dry_run and not file_of(folder).exists():  # what goes on may have nothing left to ask
        asked.check(rates=False)  # before a model is loaded
    if judging.dry_run:
        n_features = subject.n_features(published) or MANY
        chosen = chosen_indices(features, n_features, chosen_settings.seed)
        cost = estimate_run(asked, chosen_settings, texts, chosen, n_features, explainer=explainer, scorers=())
        console.print(plain(f"{len(chosen)} features: {cost}"), soft_wrap=True)
        return
    from fade_lens.runs.fade import Fade

    model, source = subject.open(published)
    fade = Fade(model, source, corpus=texts, judge=asked, settings=chosen_settings)
    chosen = chosen_indices(features, fade.n_features, chosen_settings.seed)
    found = fade.explain(
        chosen, explainer=explainer, store=folder, transcripts=judging.transcripts, progress=not quiet, ray=workers
    )
    found.to_csv(out)
    if not quiet:
        console.print(table(found))
        console.print(plain(f"Table:  {out}\nFolder: {folder}"), soft_wrap=True)


def table(found: "Explanations") -> Table:
    """The descriptions, and why the other features have none."""
    shown = Table(title=f"{len(found)} of {len(found.rows)} features described", title_justify="left")
    shown.add_column("feature", justify="right")
    shown.add_column("description", overflow="fold")
    for row in found.rows[:SHOWN]:
        text = f"– {row.reason}" if row.description is None else row.description.text
        shown.add_row(str(row.index), plain(text))
    if (more := len(found.rows) - SHOWN) > 0:
        shown.caption = f"and {more:,} more in the file"
    return shown
