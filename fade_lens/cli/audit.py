"""`fade-lens audit`."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fade_lens._util.errors import InputError
from fade_lens._util.words import clip
from fade_lens.cli.console import console, plain
from fade_lens.cli.evaluate import about_the_judge
from fade_lens.cli.judging import Judging
from fade_lens.cli.options import (
    Only,
    Out,
    Quiet,
    neuronpedia_source,
    open_sae,
)
from fade_lens.cli.ray import RayOptions
from fade_lens.cli.settings import RunSettings
from fade_lens.cli.subject import CorpusOptions, SubjectOptions

if TYPE_CHECKING:
    from fade_lens.analysis.audit import Audit
    from fade_lens.explainers.table import Explanations
    from fade_lens.neuronpedia import Imported
    from fade_lens.runs.fade import Fade
    from fade_lens.runs.ray import RayWorkers

logger = logging.getLogger(__name__)

CONTEXTS = 16
"""Stored contexts that the mapping check runs again."""
SHOWN = 20
DESCRIBED_ANEW = 1000
"""Features without a usable description, the worst, whose strongest texts are looked for in one more pass over the corpus."""
MISSING_ROWS = 2000
"""Features without a description that an audit of a whole SAE lists; of more it only says how many."""


@dataclass(frozen=True, kw_only=True)
class AuditedSubject(SubjectOptions):
    """As elsewhere, but that it can do without a model."""

    model: Annotated[
        str,
        typer.Option(help="Subject model, as for `evaluate`; not needed with --flags-only.", show_default=False),
        Path,
    ] = ""


@dataclass(frozen=True, kw_only=True)
class AuditCorpus(CorpusOptions):
    """As elsewhere, but that it can do without."""

    corpus: Annotated[
        str,
        typer.Option(help="Natural texts, as for `evaluate`; not needed with --flags-only.", show_default=False),
        Path,
    ] = ""


def audit(
    out: Out,
    subject: AuditedSubject,
    corpus: AuditCorpus,
    judging: Judging,
    judge: Annotated[
        str | None, typer.Option(help="Judge, as for `evaluate`; not needed with --flags-only."), Path
    ] = None,
    neuronpedia: Annotated[
        str | None,
        typer.Option(
            metavar="ID|FOLDER|FILE",
            help="Where the descriptions are: an id such as gpt2-small/8-res-jb, a folder in the bulk layout, a file. The SAE's own id unless given.",
        ),
        Path,
    ] = None,
    features: Only = None,
    flags_only: Annotated[
        bool, typer.Option("--flags-only", help="Only what can be told at sight: no model, no judge.")
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Ask Neuronpedia, feature by feature, for its own scores, to compare.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Score although the mapping check failed or the SAE differs.")
    ] = False,
    quiet: Quiet = False,
    *,
    ray: RayOptions,
    settings: RunSettings,
) -> None:
    """Find the wrong, swapped, empty and leaked descriptions of an SAE's features, and say what to do about each.

    Example: `fade-lens audit --model gpt2-small --sae-release gpt2-small-res-jb --sae-id blocks.7.hook_resid_pre
    --features 0:200 --corpus hf:NeelNanda/pile-10k --judge openai:gpt-4o-mini --out runs/audit`
    """
    from fade_lens.data.descriptions import parse_indices
    from fade_lens.neuronpedia import load
    from fade_lens.neuronpedia.loading import path_of

    if not flags_only:
        given = {"--model": subject.model, "--corpus": corpus.corpus, "--judge": judge}
        if missing := [name for name, value in given.items() if not value]:
            raise InputError(f"give {' and '.join(missing)}, or --flags-only for what can be told without a model")
    wanted = None if features is None else parse_indices(features)
    if not flags_only or subject.hook or subject.sae or neuronpedia is None:
        subject.check_given(wanted)
    if neuronpedia is not None and (file := path_of(neuronpedia)) is not None and not file.exists():
        raise InputError(f"--neuronpedia {neuronpedia!r} does not exist; give a file, a folder, or an id such as gpt2-small/8-res-jb")  # fmt: skip

    def read() -> "Imported":
        source = neuronpedia or neuronpedia_source(subject.sae_release, subject.sae_id, subject.sae)
        if not quiet:
            console.print(plain(f"Reading the descriptions of {source} …"))
        found = load(source, wanted, activations=0 if flags_only else CONTEXTS, stats=True, scores=scores)
        if not quiet:
            console.print(plain(f"{len(found.rows)} descriptions" + (f" of {found.source}" if found.source else "")))
        return found

    if flags_only:
        finish(by_flags(read(), wanted, open_sae(None, None, subject.sae, "cpu") if subject.sae else None), out, quiet)
        return
    from fade_lens.explainers.table import Explanations
    from fade_lens.runs.estimating import MANY, estimate_run
    from fade_lens.runs.store import file_of
    from fade_lens.scorers.base import scorer_of

    chosen_settings, workers = settings.settings(neurons=subject.hook is not None), ray.settings()
    scorer_of("fade").check(chosen_settings)
    asked = judging.open(str(judge))
    checks = judging.checks()  # a gold set that cannot be read is told now
    texts = corpus.open()
    published = subject.check(wanted)
    found, given = read(), None if neuronpedia is None else Explanations.read(neuronpedia)
    if judging.dry_run:
        n_features = subject.n_features(published)
        _, chosen = to_be_scored(found, wanted, n_features, given)
        if len(chosen):
            cost = estimate_run(asked, chosen_settings, texts, chosen, n_features or MANY, **checks)
            console.print(plain(f"{len(chosen)} to score: {cost}"), soft_wrap=True)
        return
    if not file_of(out).exists():  # what goes on may have nothing left to ask
        asked.check()  # before a model is loaded
    from fade_lens.runs.fade import Fade

    model, opened = subject.open(published)
    fade = Fade(model, opened, corpus=texts, judge=asked, settings=chosen_settings)
    finish(scored(found, wanted, fade, judging, checks, out, given, force=force, quiet=quiet, ray=workers), out, quiet)


def by_flags(found: "Imported", wanted: tuple[int, ...] | None, sae: Any) -> "Audit":
    """An audit without model and judge."""
    from fade_lens.analysis.audit import audit as verdicts
    from fade_lens.neuronpedia import flags
    from fade_lens.neuronpedia.flagging import mismatches, saelens_config
    from fade_lens.neuronpedia.frames import frame
    from fade_lens.neuronpedia.records import number

    told = number(saelens_config(found.config).get("d_sae")) if sae is None else int(sae.cfg.d_sae)
    n_features = None if told is None else int(told)
    mismatch = "" if sae is None else mismatches(found, sae)
    table = flags(
        frame(found, asked_for(found, wanted, n_features)), stats=found.stats, n_features=n_features, mismatch=mismatch
    )
    unlisted = not_listed(table, found, wanted, n_features)
    return verdicts(table, stats=found.stats, source=found.source, unlisted=unlisted)


def scored(
    found: "Imported",
    wanted: tuple[int, ...] | None,
    fade: "Fade",
    judging: Judging,
    checks: dict[str, Any],
    out: Path,
    given: "Explanations | None" = None,
    *,
    force: bool,
    quiet: bool,
    ray: "RayWorkers | None" = None,
) -> "Audit":
    """An audit with everything, explanations that were `given` on the texts that no explainer saw."""
    from fade_lens.analysis.audit import audit as verdicts
    from fade_lens.neuronpedia import check_mapping
    from fade_lens.neuronpedia.flagging import mismatches

    model, sae, n_features = fade.model, fade.source, fade.n_features
    mismatch = "" if isinstance(sae, str) else mismatches(found, sae)
    if mismatch and not force:
        raise InputError(
            f"the descriptions were made with another SAE: {mismatch}; give that SAE, or --force to score anyway"
        )
    mapping = None
    if not found.activations:
        logger.warning("no stored activations came with the descriptions: that they belong to this SAE is not checked")
    else:
        try:
            mapping = check_mapping(model, sae, found.activations, strict=not force)
            if mapping.agreement is None:
                logger.warning("that the descriptions belong to this SAE %s", mapping)
        except InputError as error:
            if not force:
                raise InputError(*error.args, "; --force scores anyway") from error
            logger.warning("scored although %s", error)
    table, chosen = to_be_scored(found, wanted, n_features, given)
    results = None
    if len(chosen):
        if not quiet:
            console.print(plain(f"{len(chosen)} to score: {fade.estimate(chosen, **checks)}"), soft_wrap=True)
        about: dict[str, Any] = {"transcripts": judging.transcripts, "progress": not quiet, "ray": ray}
        results = fade.evaluate(chosen, store=out, **about, **checks)
        for line in () if quiet else about_the_judge(results.run):
            console.print(plain(line), soft_wrap=True)
    unlisted = not_listed(table, found, wanted, n_features)
    done = verdicts(table, results, stats=found.stats, source=found.source, mapping=mapping, unlisted=unlisted)
    scored_ones = {result.description.index for result in results or ()}
    others = [index for index, _ in done.relabelling.undescribed if index not in scored_ones][:DESCRIBED_ANEW]
    return replace(done, summaries=fade.summaries(others, ray=ray)) if others else done


def to_be_scored(
    found: "Imported", wanted: tuple[int, ...] | None, n_features: int | None, given: "Explanations | None"
) -> tuple[Any, Any]:
    """The table of flags, and the descriptions in it that are worth scoring."""
    from fade_lens.analysis.audit import to_score
    from fade_lens.neuronpedia import flags
    from fade_lens.neuronpedia.frames import frame

    table = flags(frame(found, asked_for(found, wanted, n_features)), stats=found.stats, n_features=n_features)
    chosen: Any = to_score(table)
    if given is not None:
        known = {f"{row['index']}:{row['description']}" for row in chosen.to_dict("records")}
        chosen = [d for d in given if d.words in known]
    if not len(chosen):
        logger.warning("no description is worth scoring; the audit rests on the flags")
    return table, chosen


def asked_for(found: "Imported", wanted: tuple[int, ...] | None, n_features: int | None) -> tuple[int, ...] | None:
    """The features that get a row: those asked for, else all with any data, and all without a description unless they are many."""
    if wanted is not None:
        return wanted
    known = {row.index for row in found.rows} | set(found.looked_up) | set(found.stats if found.complete else ())
    if found.complete and n_features is not None and (without := n_features - len(known)) > 0:
        known |= set(range(n_features)) if without <= MISSING_ROWS else set()
    return tuple(sorted(known))


def not_listed(table: Any, found: "Imported", wanted: tuple[int, ...] | None, n_features: int | None) -> int:
    """How many features that are known to have no description have no row: none where features were asked for by number."""
    known = found.complete and wanted is None and n_features is not None
    return max(n_features - table["index"].nunique(), 0) if known else 0


def finish(done: "Audit", out: Path, quiet: bool) -> None:
    """Write everything and show the worst."""
    written = done.save(out)
    if quiet:
        return
    console.print(table_of(done))
    for row in done.agreement.dropna().to_dict("records"):
        said = f"{row['score']} and {row['metric']}: Spearman {row['rho']:.2f} (n = {row['n']}, p = {row['p']:.2g})"
        console.print(plain(said))
    console.print(plain(done.told), highlight=False, soft_wrap=True)
    for name, path in written.items():
        console.print(plain(f"{name}: {path}"), soft_wrap=True)


def table_of(done: "Audit") -> Table:
    """The worst rows."""
    from fade_lens.analysis.audit import text_of

    shown = Table(title="What is wrong, the worst first", title_justify="left")
    for name, justify in (("feature", "right"), ("verdict", "left"), ("description", "left"), ("why", "left")):
        shown.add_column(name, justify=justify, overflow="fold", max_width=48)  # pyright: ignore[reportArgumentType]
    bad: Any = done.frame[
        ~done.frame["verdict"].isin(["holds", "unscored", "not looked up"]) | (done.frame["flags"].map(len) > 0)
    ]
    for row in bad.head(SHOWN).to_dict("records"):
        flags = [
            flag for flag in row["flags"] if flag.kind not in ("swapped", "mislabelled", "copied")
        ]  # the suggestion says it
        left = row["standing_reason"] if row["verdict"] == "open" else ""
        why = "; ".join(filter(None, [row["suggestion"], left, *flags]))
        shown.add_row(str(row["index"]), row["verdict"], plain(clip(text_of(row) or "–", 120)), plain(clip(why, 200)))
    if len(bad) > SHOWN:
        shown.caption = f"{len(bad) - SHOWN} more in the report"
    return shown
