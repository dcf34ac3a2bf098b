"""The command line: `fade-lens evaluate` and `fade-lens demo`. Heavy imports wait until a command runs."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fade_lens.errors import FadeLensError, InputError, JudgeError, MissingExtraError, StoreError, suggest

if TYPE_CHECKING:
    from fade_lens.descriptions import Description
    from fade_lens.judge import Judge
    from fade_lens.results import Results

EXIT_CODES: dict[type[FadeLensError], int] = {InputError: 2, JudgeError: 3, StoreError: 4, MissingExtraError: 5}
INTERRUPTED = 130
DEMO = "demo"
DEMO_SETTINGS = {"synthetic_texts": 8, "rated_texts": 40, "prompts": 10, "new_tokens": 24, "factors": (1.0, 2.0)}
DEMO_TEXTS = 700

app = typer.Typer(
    help="Does this description of this feature tell the truth? Scores descriptions of SAE latents and neurons by "
    "Clarity, Responsiveness, Purity and Faithfulness.\n\nStart with `fade-lens demo`: it needs no account and no model hub.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 unexpected error, 2 bad input, 3 the judge cannot be asked, 4 the run folder cannot be "
    "used, 5 an optional package is missing, 130 interrupted (run the same command again to go on).",
)
console = Console()
errors = Console(stderr=True)

Model = Annotated[
    str, typer.Option(help="Subject model, by its TransformerLens name (gpt2-small, google/gemma-2-2b), or `demo`.")
]
Release = Annotated[str | None, typer.Option(help="SAELens release, such as gpt2-small-res-jb.")]
SaeId = Annotated[str | None, typer.Option(help="SAE within the release, such as blocks.8.hook_resid_pre.")]
SaeFolder = Annotated[Path | None, typer.Option("--sae", help="Folder of an SAE saved by SAELens, or `demo`.")]
Hook = Annotated[
    str | None, typer.Option(help="Hook name in place of an SAE, to score neurons: blocks.3.mlp.hook_post.")
]
Described = Annotated[Path, typer.Option(help="CSV, JSON or JSONL with `index` and `description`.")]
Only = Annotated[str | None, typer.Option(help="Only these features of the file, such as 0:200,512.")]
Texts = Annotated[
    str, typer.Option(help="Natural texts: hf:DATASET, a .txt/.jsonl/.json/.csv/.parquet file, or `demo`.")
]
Column = Annotated[str, typer.Option(help="Column of the corpus that holds the text.")]
Limit = Annotated[int | None, typer.Option(help="Read at most this many texts (10,000 of a dataset unless given).")]
JudgeSpec = Annotated[
    str,
    typer.Option(
        help="openai:MODEL, ollama:MODEL, http://HOST:PORT/v1#MODEL, gguf:PATH, or `demo`. Keys come from the environment or .env."
    ),
]
Out = Annotated[
    Path, typer.Option(help="Folder for the run: run it again with the same folder to go on where it stopped.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no table.")]


@app.command()
def evaluate(
    model: Model,
    descriptions: Described,
    corpus: Texts,
    judge: JudgeSpec,
    out: Out,
    sae_release: Release = None,
    sae_id: SaeId = None,
    sae: SaeFolder = None,
    hook: Hook = None,
    features: Only = None,
    corpus_column: Column = "text",
    corpus_limit: Limit = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best there is unless given.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the model: float32, bfloat16 or float16.")] = "float32",
    preset: Annotated[
        str, typer.Option(help="default, or paper for the reference implementation's arithmetic.")
    ] = "default",
    seed: Annotated[int, typer.Option(help="All randomness of the run comes from it.")] = 0,
    synthetic_texts: Annotated[int, typer.Option(help="Texts the judge writes a description.")] = 30,
    rated_texts: Annotated[int, typer.Option(help="Natural texts the judge rates a description.")] = 200,
    prompts: Annotated[int, typer.Option(help="Natural beginnings continued at each steering factor.")] = 30,
    factors: Annotated[
        str, typer.Option(help="Steering factors, in units of the feature's reference activation.")
    ] = "0.5,1,2,3",
    mode: Annotated[str, typer.Option(help="Steering: add, clamp, scale or ablate.")] = "add",
    gate: Annotated[
        float | None, typer.Option(help="Clarity and Responsiveness below it skip Faithfulness; -1: never.")
    ] = 0.5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print judge calls, tokens and price, then stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score descriptions of an SAE's latents, or of neurons, on all four metrics.

    Example: `fade-lens evaluate --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.8.hook_resid_pre
    --descriptions labels.csv --corpus hf:NeelNanda/pile-10k --judge openai:gpt-4o-mini --out runs/l8`
    """
    from fade_lens.settings import Settings

    settings = Settings(
        preset=preset,  # pyright: ignore[reportArgumentType]
        seed=seed,
        synthetic_texts=synthetic_texts,
        rated_texts=rated_texts,
        prompts=prompts,
        factors=numbers(factors),
        mode=mode,
        gate=None if gate is not None and gate <= -1 else gate,
    )
    chosen = chosen_descriptions(descriptions, features)
    one_source(sae_release, sae_id, sae, hook)
    asked = open_judge(judge)
    texts = open_corpus(corpus, corpus_column, corpus_limit)
    if not dry_run:
        asked.check()  # before a model is loaded
    from fade_lens.fade import Fade

    subject = open_model(model, device, dtype)
    source = hook or open_sae(sae_release, sae_id, sae, str(subject.cfg.device))
    fade = Fade(subject, source, corpus=texts, judge=asked, settings=settings)
    if dry_run:
        console.print(f"{len(chosen)} descriptions: {fade.estimate(chosen)}")
        return
    finish(fade.evaluate(chosen, store=out, progress=not quiet), out, quiet)


@app.command()
def demo(
    judge: JudgeSpec = DEMO,
    out: Out = Path("fade-lens-demo"),
    quiet: Quiet = False,
) -> None:
    """Score four descriptions of a real SAE on Gemma 3 270M, one of them wrong on purpose.

    The model, the SAE, the texts and a small judge that runs in this process all come with the extra `demo`: no account,
    no key, no model hub. With a stronger judge, such as `--judge openai:gpt-4o-mini`, the same run is more exact.
    """
    from fade_lens import demo as parts
    from fade_lens.settings import Settings

    asked = open_judge(judge)
    settings = replace(Settings(), **DEMO_SETTINGS)
    if not quiet:
        console.print("Loading Gemma 3 270M and its SAE (the first time takes a minute) …")
    from fade_lens.fade import Fade

    fade = Fade(parts.model(), parts.sae(), corpus=parts.corpus(DEMO_TEXTS), judge=asked, settings=settings)
    if not quiet:
        console.print(f"{len(parts.DESCRIPTIONS)} descriptions, {fade.estimate(parts.DESCRIPTIONS)}")
    finish(fade.evaluate(parts.DESCRIPTIONS, store=out, progress=not quiet), out, quiet)


def finish(results: "Results", out: Path, quiet: bool) -> None:
    """Write the run's files and show the table."""
    results.save(out / "results.json.gz")
    results.frame.to_csv(out / "results.csv", index=False)
    page = results.to_html(out / "report.html")
    if not quiet:
        console.print(table(results))
        console.print(f"Report: {page}\nTable:  {out / 'results.csv'}")


def table(results: "Results") -> Table:
    """The four metrics of every description."""
    shown = Table(title="Does the description tell the truth?", title_justify="left")
    shown.add_column("feature", justify="right")
    shown.add_column("description", overflow="fold", max_width=44)
    for name in ("Clarity", "Responsiveness", "Purity", "Faithfulness"):
        shown.add_column(name, justify="right", min_width=len(name))
    for result in results:
        cells = [f"{m.value:.2f}" if m.value is not None else "–" for m in result.metrics.values()]
        shown.add_row(str(result.description.index), plain(result.description.text), *cells)
    reasons = {f"{r.description.index}: {m.reason}" for r in results for m in r.metrics.values() if m.reason}
    shown.caption = plain("\n".join(f"– {reason}" for reason in sorted(reasons)[:8])) if reasons else None
    shown.caption_justify = "left"
    return shown


def plain(text: str) -> Any:
    """Text that rich shows as it is, whatever brackets it holds."""
    from rich.text import Text

    return Text(text)


def chosen_descriptions(path: Path, features: str | None) -> "tuple[Description, ...]":
    """The file's descriptions, of the features asked for."""
    from fade_lens.descriptions import parse_indices, read_descriptions

    found = read_descriptions(path)
    if features is None:
        return found
    wanted = set(parse_indices(features))
    kept = tuple(d for d in found if d.index in wanted)
    if not kept:
        raise InputError(f"--features {features!r} names no feature of {path.name}, which describes {len(found)}")
    return kept


def one_source(release: str | None, sae_id: str | None, folder: Path | None, hook: str | None) -> None:
    """Check that exactly one of SAE release, SAE folder and hook was given."""
    given = [name for name, value in (("--sae-release", release), ("--sae", folder), ("--hook", hook)) if value]
    if len(given) != 1:
        raise InputError(
            f"give one of --sae-release with --sae-id, --sae or --hook; got {' and '.join(given) or 'none'}"
        )
    if bool(release) != bool(sae_id):
        raise InputError("--sae-release and --sae-id go together; give both")


def open_judge(spec: str) -> "Judge":
    """The judge of a spec, `demo` being the embedded one."""
    from fade_lens.judge import Judge

    if spec == DEMO:
        from fade_lens import demo as parts
        from fade_lens.demo.parts import require

        require("xllamacpp", "The embedded judge")
        return Judge.local(parts.judge_gguf())
    return Judge.parse(spec)


def open_corpus(spec: str, column: str, limit: int | None) -> Any:
    """The corpus of a spec, `demo` being the demo's."""
    from fade_lens.corpus import Corpus

    if spec == DEMO:
        from fade_lens import demo as parts

        return parts.corpus(limit)
    return Corpus.parse(spec, column=column, limit=limit)


def open_model(name: str, device: str | None, dtype: str) -> Any:
    """The subject model, `demo` being the demo's."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"dtype is {dtype!r}; give float32, bfloat16 or float16")
    if name == DEMO:
        from fade_lens import demo as parts

        return parts.model()
    import torch
    from sae_lens import HookedSAETransformer

    try:
        return HookedSAETransformer.from_pretrained_no_processing(name, device=device, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        # TransformerLens lists every model it knows: the nearest names say more.
        from transformer_lens.loading_from_pretrained import OFFICIAL_MODEL_NAMES

        why = f"{str(error).splitlines()[0]:.160}{suggest(name, OFFICIAL_MODEL_NAMES)}"
        raise InputError(f"model {name!r} could not be loaded: {why}") from error


def open_sae(release: str | None, sae_id: str | None, folder: Path | None, device: str) -> Any:
    """The SAE of a release or folder."""
    from sae_lens import SAE

    if str(folder) == DEMO:
        from fade_lens import demo as parts

        return parts.sae()
    try:
        if folder is not None:
            return SAE.load_from_disk(folder, device=device)
        return SAE.from_pretrained(str(release), str(sae_id), device=device)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"SAE {folder or f'{release}, {sae_id}'} could not be loaded: {error}") from error


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"factors {text!r} must be numbers separated by commas, such as 0.5,1,2") from None


def main() -> None:
    """Entry point: every error that a user can act on is one sentence and its own exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Read when torch is loaded: threads that wait for each other leave the cores to a judge that runs in this process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except FadeLensError as error:
        errors.print(plain(f"fade-lens: {error}"), style="red")
        sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        errors.print("Interrupted. What was done is kept: run the same command again to go on.")
        sys.exit(INTERRUPTED)
