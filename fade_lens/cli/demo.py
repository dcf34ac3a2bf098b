"""`fade-lens demo`."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fade_lens.cli.console import console, plain
from fade_lens.cli.evaluate import finish
from fade_lens.cli.judging import DryRun
from fade_lens.cli.options import (
    DEMO,
    Concurrency,
    JudgeSpec,
    MaxCalls,
    MaxCost,
    Out,
    Price,
    Quiet,
    Rating,
    open_judge,
)

if TYPE_CHECKING:
    from fade_lens.data.corpus import Corpus
    from fade_lens.data.descriptions import Description
    from fade_lens.judge import Judge
    from fade_lens.runs.settings import Settings

FEW: dict[str, Any] = {
    "synthetic_texts": 6,
    "rated_texts": 12,
    "top_share": 0.2,
    "likely_share": 0.3,
    "prompts": 4,
    "new_tokens": 16,
    "factors": (1.5,),
    "health_texts": 6,
    "top_texts": 8,
}
"""Settings with which a small judge on two cores needs two minutes; the intervals are wide for it."""
ONE_BY_ONE: dict[str, Any] = {"parallel": 1, "texts_per_set": FEW["synthetic_texts"]}
"""Of the embedded judge: two cores answer as many questions one after the other as two at a time, and read what all begin with once."""
TEXTS, CHARACTERS = 300, 180
"""Natural texts, and how much of each is read: small judges take their time for every word."""


def demo(
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="The other half: have a latent without a description explained, and score what comes of it.",
        ),
    ] = False,
    judge: JudgeSpec = DEMO,
    out: Out = Path("fade-lens-demo"),
    seed: Annotated[int, typer.Option(help="Draws texts, prompts and samples.")] = 0,
    rating: Rating = "auto",
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    price: Price = None,
    concurrency: Concurrency = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Score four descriptions of a real SAE on Gemma 3 270M, one of them wrong on purpose.

    The model, the SAE, the texts and a small judge that runs in this process all come with the extra `demo`: no account,
    no key, no model hub. With a stronger judge, such as `--judge openai:gpt-4o-mini`, the same run is more exact.
    """
    from fade_lens import demo as parts
    from fade_lens.data.descriptions import read_descriptions
    from fade_lens.demo.parts import check_extra
    from fade_lens.runs.estimating import MANY, estimate_run
    from fade_lens.runs.settings import settings_of
    from fade_lens.runs.store import file_of

    check_extra()
    limits: dict[str, Any] = {"max_calls": max_calls, "max_cost": max_cost, "concurrency": concurrency}
    asked = open_judge(judge, rating=rating, price=price, **limits, **(ONE_BY_ONE if judge == DEMO else {}))
    more: dict[str, Any] = {"explainer": "one-shot"} if explain else {}
    shown = {"showing": "small"} if explain else {}
    settings, texts = settings_of(None, {**FEW, **shown, "seed": seed}), beginnings()
    described = () if explain else read_descriptions(parts.DESCRIPTIONS)
    chosen = described or [parts.TO_EXPLAIN]
    if dry_run or not quiet:
        what = f"latent {parts.TO_EXPLAIN} without a description" if explain else f"{len(chosen)} descriptions"
        console.print(plain(f"{what}: {estimate_run(asked, settings, texts, chosen, MANY, **more)}"), soft_wrap=True)
    if dry_run:
        return
    if judge != DEMO and not file_of(out).exists():
        asked.check()  # before a model is loaded
    if not quiet:
        console.print("Loading Gemma 3 270M and its SAE (the first time takes a minute) …")
    with ahead(asked, settings, described, out):
        from fade_lens.runs.fade import Fade

        fade = Fade(parts.model(), parts.sae(), corpus=texts, judge=asked, settings=settings)
        finish(fade.evaluate(chosen, store=out, progress=not quiet, **more), out, quiet)


def beginnings() -> "Corpus":
    """The natural texts."""
    from fade_lens import demo as parts
    from fade_lens.data.corpus import Corpus

    return Corpus.from_texts(
        (t[:CHARACTERS] for t in parts.corpus(TEXTS).texts or ()), "beginnings of the demo's texts"
    )


@contextmanager
def ahead(judge: "Judge", settings: "Settings", descriptions: "Iterable[Description]", out: Path) -> Generator[None]:
    """A block, such as one that loads a model, in which the judge already writes texts, which needs none.

    Answers go to the run's folder. Where there is a run in it already nothing is asked: it may have been made with other settings.
    """
    from fade_lens.runs.store import RunStore, file_of
    from fade_lens.scorers.clarity import ClaritySettings, submit_texts

    if file_of(out).exists():
        yield
        return
    with RunStore(out) as store, judge.session(store):
        own = ClaritySettings.of(settings)
        for d in descriptions:
            submit_texts(judge, d, own)
        yield
