"""`fade-lens look`, `fires`, `steer`, `patchscopes` and `search`: features without a description, and descriptions by their meaning; no judge is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from fade_lens._util.errors import InputError
from fade_lens._util.files import write_csv
from fade_lens._util.words import amount, clip
from fade_lens.cli.console import console, plain
from fade_lens.cli.options import Quiet, numbers, open_tokenizer, run_folder
from fade_lens.cli.ray import RayOptions
from fade_lens.cli.subject import CorpusOptions, SubjectOptions, SubjectsOptions

if TYPE_CHECKING:
    import pandas as pd

    from fade_lens.runs.look import Look

Seed = Annotated[int, typer.Option(min=0, help="All randomness comes from it.")]
ToCsv = Annotated[Path | None, typer.Option("--csv", help="Write the table to this file as well.")]


@dataclass(frozen=True, kw_only=True)
class MaybeCorpus(CorpusOptions):
    """Natural texts, or none."""

    corpus: Annotated[  # pyright: ignore[reportIncompatibleVariableOverride]
        str | None,
        typer.Option(help="Natural texts that tell the unit of factors, as for `look`; or give --unit."),
        Path,
    ] = None


def look(
    subject: SubjectOptions,
    corpus: CorpusOptions,
    features: Annotated[
        str, typer.Option(help="Which to look at: 0:20,512, or random:50, so many of all, dead ones too.")
    ] = "random:20",
    out: Annotated[Path, typer.Option(help="Folder for the page and the table.", callback=run_folder)] = Path(
        "fade-lens-look"
    ),
    seed: Seed = 0,
    top_texts: Annotated[int, typer.Option(min=0, help="Strongest texts of each.")] = 10,
    stratum_texts: Annotated[int, typer.Option(min=0, help="Texts of each fifth, by activation, beside them.")] = 3,
    promoted_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens that the direction promotes most, and as many suppressed ones.")
    ] = 10,
    changed_tokens: Annotated[
        int,
        typer.Option(
            min=0, help="Tokens that steering makes likelier, and as many that it makes less likely; runs the model."
        ),
    ] = 0,
    neighbours: Annotated[
        int, typer.Option(min=0, help="Nearest decoder directions, and features that fire on the same texts.")
    ] = 10,
    caused_texts: Annotated[
        int,
        typer.Option(
            min=0, help="Of the strongest texts, how many with what each token does to activations behind it."
        ),
    ] = 0,
    quiet: Quiet = False,
    *,
    ray: RayOptions,
) -> None:
    """See latents of an SAE, or neurons, that have no description: their texts, the tokens they promote, their neighbours.

    Example: `fade-lens look --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre
    --features random:50 --corpus hf:NeelNanda/pile-10k --out looks/l7`
    """
    from fade_lens.data.indices import asked_indices

    asked_indices(features)
    subject.check_given(features)
    workers = ray.settings()
    texts, published = corpus.open(), subject.check(features)
    model, source = subject.open(published)
    from fade_lens.runs.look import look as looked

    numbers: dict[str, Any] = {
        "top_texts": top_texts,
        "stratum_texts": stratum_texts,
        "promoted_tokens": promoted_tokens,
        "changed_tokens": changed_tokens,
        "neighbours": neighbours,
        "caused_texts": caused_texts,
    }
    found = looked(model, source, features, texts, seed=seed, progress=not quiet, ray=workers, **numbers)
    page = found.to_html(out / "look.html")
    write_csv(found.frame, out / "look.csv")
    if not quiet:
        console.print(look_table(found))
        console.print(plain(f"Page:  {page}\nTable: {out / 'look.csv'}"), soft_wrap=True)


def look_table(found: "Look") -> Table:
    """The features that were looked at."""
    shown = Table(title="Where features fire", title_justify="left")
    for name, side in (
        ("feature", "right"),
        ("fires on", "right"),
        ("largest", "right"),
        ("strongest text", "left"),
        ("promotes", "left"),
    ):
        shown.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    for row in found.frame.to_dict("records"):
        text = f"[{row['flags']}]" if not row["strongest_text"] else row["strongest_text"]
        promoted = ", ".join(row["promoted"].split(", ")[:5])
        cells = (
            str(row["index"]),
            f"{100 * row['firing_rate']:.3g} %",
            amount(row["largest_activation"]),
            clip(" ".join(text.split()), 160),
            promoted,
        )
        shown.add_row(*map(plain, cells))
    return shown


def fires(
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    subject: SubjectsOptions,
    k: Annotated[
        int, typer.Option("-k", "--k", min=1, help="The features that fire most strongly anywhere in it.")
    ] = 20,
    csv: ToCsv = None,
) -> None:
    """Which latents, or neurons, fire on a text, and at which tokens; of one SAE or hook, or of several.

    Example: `fade-lens fires "Paris is in France" --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre`
    """
    if not text.strip():
        raise InputError(f"text is {text!r}; give a text to read")
    subject.check_given()
    model, sources = subject.open()
    from fade_lens.runs.fires import fires as fire

    frame = fire(model, sources, text, k)
    shown = Table(title=f"What fires on {clip(text, 60)!r}", title_justify="left")
    several = ["sae"] if len(sources) > 1 else []
    for name in (*several, "feature", "largest", "fires at"):
        shown.add_column(name, justify="right" if name in ("feature", "largest") else "left", overflow="fold")
    for place, found in frame.groupby(["sae", "index"], sort=False):
        rows: list[dict[str, Any]] = found.to_dict("records")
        places = ", ".join(
            f"{row['token'].strip() or repr(row['token'])} {amount(row['activation'])}" for row in rows[:8]
        )
        more = f", and at {len(rows) - 8} others" if len(rows) > 8 else ""
        names = map(str, cast("tuple[str, int]", place)[0 if several else 1 :])
        shown.add_row(*map(plain, (*names, amount(rows[0]["activation"]), places + more)))
    console.print(shown if len(frame) else plain("Nothing fires on it."))
    written(frame, csv)


def steer(
    subject: SubjectOptions,
    feature: Annotated[int, typer.Option(min=0, help="The one to steer, by its index.")],
    prompts: Annotated[list[str], typer.Option("--prompt", help="A text to continue; may be given several times.")],
    corpus: MaybeCorpus,
    factors: Annotated[
        str, typer.Option(help="Strengths, in units of the feature's reference activation, or of --unit.")
    ] = "0.5,1,1.5,2",
    unit: Annotated[
        float | None, typer.Option(help="The activation that factor 1 stands for, in place of a corpus.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Steering: add, clamp, scale or ablate.")] = "add",
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each continuation.")] = 30,
    temperature: Annotated[float, typer.Option(min=0, help="Of the continuations; 0 is greedy.")] = 0.7,
    seed: Seed = 0,
    csv: ToCsv = None,
) -> None:
    """What the model writes while a feature is steered, beside what it writes otherwise.

    Example: `fade-lens steer --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre --feature 9
    --prompt "My favourite" --corpus hf:NeelNanda/pile-10k`
    """
    from fade_lens.generation.checks import check_steering

    strengths = numbers("factors", factors)
    check_steering(prompts, strengths, unit, corpus.corpus, mode)
    subject.check_given(feature)
    texts = None if corpus.corpus is None else corpus.open()
    model, source = subject.open(subject.check(feature))
    from fade_lens.generation.steer import steer as steered

    frame = steered(
        model, source, feature, prompts, strengths, corpus=texts, unit=unit, mode=mode,  # pyright: ignore[reportArgumentType]
        new_tokens=new_tokens, temperature=temperature, seed=seed,
    )  # fmt: skip
    size = frame["unit"].tolist()[0]
    shown = Table(
        title=f"Feature {feature} steered" + ("" if size is None else f", factor 1 is {amount(size)}"),
        title_justify="left",
    )
    for name in ("factor", "nats a token", "text"):
        shown.add_column(name, justify="left" if name == "text" else "right", overflow="fold")
    for row in frame.to_dict("records"):
        factor = "unsteered" if not row["steered"] else "ablated" if mode == "ablate" else f"{row['factor']:g}"
        text = "(activations overflowed)" if row["continuation"] is None else row["prompt"] + row["continuation"]
        shown.add_row(
            *map(plain, (factor, "–" if row["nll"] != row["nll"] else f"{row['nll']:.2f}", text)),
            end_section=row["factor"] == strengths[-1],
        )
    console.print(shown)
    written(frame, csv)


def patchscopes(
    subject: SubjectOptions,
    features: Annotated[str, typer.Option(help="Which to ask about: 9,12, or random:20.")],
    scales: Annotated[
        str, typer.Option(help="Norms of what is put in for a word, in units of the residual stream's.")
    ] = "0.5,0.7,1,1.4,2,2.8",
    ask: Annotated[
        str | None, typer.Option(help="What the model is asked, with {x} where the direction is put in.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="How its answer begins; a base model is only asked if this is given.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="In front of which block it is put in; the third unless given.")
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 8,
    n_random: Annotated[int, typer.Option(min=4, help="Random directions that are asked about as well.")] = 8,
    seed: Seed = 0,
    csv: ToCsv = None,
) -> None:
    """An instruction-tuned model's own words for what features' directions mean, by strength.

    Example: `fade-lens patchscopes --model google/gemma-2b-it --sae-release gemma-2b-res-jb --sae-id blocks.6.hook_resid_post --features 9,12`
    """
    from fade_lens.data.indices import asked_indices

    asked_indices(features)
    strengths = numbers("scales", scales)
    subject.check_given(features)
    published = subject.check(features)
    from fade_lens.generation.patchscopes import check_instructed
    from fade_lens.runs.patchscopes import patchscopes as asked

    check_instructed(open_tokenizer(subject.model), answer)  # before weights are read
    model, source = subject.open(published)

    found = asked(
        model, source, features, strengths, ask=ask, answer=answer, layer=layer, new_tokens=new_tokens, n_random=n_random, seed=seed
    )  # fmt: skip
    shown = Table(title="What the model says of its directions", title_justify="left")
    for name, side in (("feature", "right"), ("scale", "right"), ("answer", "left"), ("kept", "left"), ("score", "right"), ("self-similarity", "right"), ("entropy", "right"), ("relevancy", "right"), ("of a random direction", "left")):  # fmt: skip
        shown.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    chosen = dict(zip(found.best["index"], found.best["scale"], strict=True))
    for row in found.frame.to_dict("records"):
        index, scale = row["index"], row["scale"]
        kept = "best" if scale == chosen[index] else "kept" if row["kept"] else ""
        signals = (f"{row[name]:.2f}" for name in ("score", "self_similarity", "entropy", "relevancy"))
        cells = (str(index), f"{scale:g}", row["answer"], kept, *signals, row["random_answer"])
        shown.add_row(*map(plain, cells), end_section=scale == strengths[-1])
    console.print(shown)
    written(found.frame, csv)


def search(
    descriptions: Annotated[Path, typer.Argument(help="CSV, JSON or JSONL with `index` and `description`.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many to show.")] = 10,
    method: Annotated[str, typer.Option(help="meaning (extra `similarity`), or words.")] = "meaning",
    csv: ToCsv = None,
) -> None:
    """The descriptions of a file that are nearest to a query.

    Example: `fade-lens search labels.csv "names of rivers"`
    """
    from fade_lens.data.search import search as found

    frame = found(descriptions, query, k, method=method)
    shown = Table(title=f"Nearest to {clip(query, 60)!r}", title_justify="left")
    for name, side in (("feature", "right"), ("likeness", "right"), ("description", "left")):
        shown.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    for row in frame.to_dict("records"):
        shown.add_row(*map(plain, (str(row["index"]), f"{row['similarity']:.2f}", row["description"])))
    console.print(shown if len(frame) else plain("No description shares a word with it."))
    written(frame, csv)


def written(frame: "pd.DataFrame", path: Path | None) -> None:
    """Keep a table as a file, where one is asked for."""
    if path is not None:
        write_csv(frame, path)
        console.print(plain(f"Table: {path}"), soft_wrap=True)
