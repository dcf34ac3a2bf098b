"""`fade-lens health`: does an SAE do in its model what it should? No judge is asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fade_lens._util.errors import InputError
from fade_lens._util.words import amount, number
from fade_lens.cli.console import console, plain
from fade_lens.cli.options import Quiet, run_folder
from fade_lens.cli.subject import CorpusOptions, SubjectsOptions

if TYPE_CHECKING:
    from fade_lens.runs.health import Health


def health(
    subject: SubjectsOptions,
    corpus: CorpusOptions,
    out: Annotated[Path, typer.Option(help="Folder for the page and the tables.", callback=run_folder)] = Path(
        "fade-lens-health"
    ),
    texts: Annotated[int, typer.Option(min=1, help="Texts of the corpus, drawn at random.")] = 200,
    loss_texts: Annotated[int, typer.Option(min=1, help="Of these, those whose predictions are compared.")] = 64,
    loss_tokens: Annotated[
        int, typer.Option(min=0, help="Of each of these texts, tokens at which they are compared; 0: all.")
    ] = 16,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="A text whose continuation is known; --answer has it.")
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option("--answer", help='What follows the --prompt of the same place, such as " Mary"; its first token.'),
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a text that count; the SAE's own, at most 128, unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="All randomness comes from it.")] = 0,
    quiet: Quiet = False,
) -> None:
    """How well SAEs reconstruct, what the model loses by them, how their latents fire, and the likely cause where one is sick.

    Example: `fade-lens health --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre
    --corpus hf:NeelNanda/pile-10k`
    """
    if len(prompts or ()) != len(answers or ()):
        raise InputError(f"--prompt is given {len(prompts or ())} times and --answer {len(answers or ())} times; give an answer for each prompt")  # fmt: skip
    if subject.hook:
        raise InputError("--hook names neurons, which reconstruct nothing: only SAEs have health; give --sae-id or --sae")  # fmt: skip
    subject.check_given()
    natural = corpus.open()
    model, sources = subject.open()
    from fade_lens.runs.health import health as seen

    asked = dict(zip(prompts or (), answers or (), strict=True))
    found = seen(model, sources, natural, texts=texts, loss_texts=loss_texts, loss_tokens=loss_tokens or None, prompts=asked, context=context, seed=seed, progress=not quiet)  # fmt: skip
    table, page = found.to_csv(out / "health.csv"), found.to_html(out / "health.html")
    if not quiet:
        console.print(health_table(found))
        for row in found.answers:
            console.print(plain(f"{row['sae']}, {row['arm']}: {row['token']!r} is number {amount(row['rank'])}, probability {row['probability']:.2g}"), soft_wrap=True)  # fmt: skip
    for one in found:
        for warning in one.warnings:
            console.print(plain(f"WARNING {one.name}: {warning.words}"), soft_wrap=True)
    if not quiet:
        console.print(plain(f"Page:  {page}\nTable: {table}"), soft_wrap=True)


def health_table(found: "Health") -> Table:
    """The figures that tell most."""
    shown = Table(title="Do the SAEs do what they should?", title_justify="left")
    names = ("sae", "L0", "variance explained", "loss recovered", "as SAELens has it", "silent latents", "warning")
    for name in names:
        shown.add_column(name, justify="left" if name in ("sae", "warning") else "right", overflow="fold")
    for one in found:
        l0 = one.value("l0")
        figures = [number(one.value(name)) for name in ("variance_explained", "ce_recovered_zero", "recovered_saelens")]
        silent = f"{100 * one.latents['dead']:.0f} %" if one.latents else "undefined"
        causes = ", ".join(warning.cause for warning in one.warnings) or "none"
        shown.add_row(*map(plain, (one.name, "undefined" if l0 is None else f"{l0:.3g}", *figures, silent, causes)))
    return shown
