"""`fade-lens map`: where the latents of SAEs lie, which belong together, what wide SAEs split."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fade_lens._util.errors import InputError
from fade_lens._util.options import names
from fade_lens.cli.console import console, plain
from fade_lens.cli.options import (  # fmt: skip
    DEMO,
    NEURONPEDIA,
    Column,
    Device,
    Limit,
    Quiet,
    check_model,
    check_subject,
    one_source,
    open_corpus,
    open_model,
    open_sae,
    run_folder,
)


def map(
    release: Annotated[
        str | None, typer.Argument(help="A release in SAELens' list, such as gpt2-small-res-jb; or give --sae.")
    ] = None,
    sae_ids: Annotated[
        str, typer.Option(help="Which of its SAEs: patterns such as 'blocks.8.hook_resid_pre*', between commas.")
    ] = "*",
    sae: Annotated[
        list[Path] | None,
        typer.Option("--sae", help="Folder of an SAE saved by SAELens, or `demo`; may be given several times."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page and the tables.", callback=run_folder)] = Path(
        "fade-lens-map"
    ),
    model: Annotated[
        str | None,
        typer.Option(help="Of the SAEs, for promoted tokens and texts; of a release it is the one that this names."),
        Path,
    ] = None,
    descriptions: Annotated[
        str | None,
        typer.Option(
            help="`neuronpedia`, a table with index, description and scores (and sae), or the folder of a release's run."
        ),
        Path,
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="Texts, as in `evaluate`, that show which latents fire, and together; none unless given."),
        Path,
    ] = None,
    corpus_column: Column = "text",
    corpus_limit: Limit = None,
    latents: Annotated[
        int | None, typer.Option(min=1, help="Of each SAE at most so many, drawn at random; all unless given.")
    ] = None,
    texts: Annotated[int, typer.Option(min=1, help="Texts of the corpus, drawn at random.")] = 300,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="Find the tokens that latents promote; needs the model.")
    ] = True,
    neighbours: Annotated[int, typer.Option(min=2, help="Of each latent that UMAP keeps near.")] = 15,
    least: Annotated[int, typer.Option(min=2, help="Latents that make a cluster.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="All randomness comes from it.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """A map of decoder directions: clusters, whether they are more than chance, what wide SAEs split; a page to look around in.

    Example: `fade-lens map gpt2-small-res-jb --sae-ids blocks.8.hook_resid_pre --descriptions neuronpedia --corpus hf:NeelNanda/pile-10k`
    """
    if (release is None) == (not sae):
        raise InputError(f"give a release, or --sae with the folder of an SAE; got {'both' if sae else 'neither'}")
    for folder in sae or ():
        one_source(None, None, folder, None)
    if corpus is not None and sae and model is None:
        raise InputError("--corpus is read by the SAEs' model: give --model too")
    if descriptions not in (None, NEURONPEDIA) and not Path(descriptions).exists():
        raise InputError(f"--descriptions is {descriptions!r}, which is no file or folder, nor {NEURONPEDIA!r}")
    given = None if corpus is None else open_corpus(corpus, corpus_column, corpus_limit, False)
    from fade_lens.analysis.geometry import check_extra

    check_extra()
    if model is not None:
        check_model(model, device, "float32")
    from fade_lens.analysis.latent_map import latent_map
    from fade_lens.analysis.opening import loaded_alike

    needs, folders = tokens or given is not None, by_folder(sae or ())
    subject: Any = model if needs else None
    if needs and model is not None and folders:
        configs = {name: check_subject(model, None, None, s, None, device, "float32") for name, s in folders.items()}
        loaded_alike({name: config for name, config in configs.items() if config} or configs)
        subject = open_model(model, device, "float32", next(filter(None, configs.values()), None))
    where = str(subject.cfg.device) if folders and subject is not None else "cpu"
    source: Any = release or {name: open_sae(None, None, s, where) for name, s in folders.items()}
    made = latent_map(
        source, names(sae_ids), model=subject, corpus=given, descriptions=descriptions, latents=latents, texts=texts, tokens=tokens,
        neighbours=neighbours, least=least, seed=seed, device=device, progress=not quiet,
    )  # fmt: skip
    table, page = made.to_csv(out / "map.csv"), made.to_html(out / "map.html")
    for name, why in made.failed.items():
        console.print(plain(f"NOT MAPPED {name}: {why}"), soft_wrap=True)
    if not quiet:
        from fade_lens.report.latent_map import told_of

        for said in (*made.facts, told_of(made), f"Page:  {page}\nTable: {table}"):
            console.print(plain(said), soft_wrap=True)


def by_folder(folders: Sequence[Path]) -> dict[str, Path]:
    """SAEs by the names of their folders, whole where two have the same last part.

    >>> list(by_folder([Path("a/sae"), Path("b/sae"), Path("c")]))
    ['a/sae', 'b/sae', 'c']
    """
    last = [DEMO if str(folder) == DEMO else folder.resolve().name for folder in folders]
    times = Counter(last)
    return {name if times[name] == 1 else str(folder): folder for name, folder in zip(last, folders, strict=True)}
