"""`fade-lens judge log`: what the judge was asked in a run, and what it answered."""

import json
from collections import deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fade_lens._util.errors import InputError
from fade_lens.cli.console import console, plain
from fade_lens.cli.help import ThemedCommand, ThemedGroup

if TYPE_CHECKING:
    from fade_lens.judge.log import Entry

app = typer.Typer(cls=ThemedGroup, help="Look into what the judge was asked.", no_args_is_help=True)
SHOWN = 160
"""Characters of a text that are shown unless all is asked for."""


@app.callback()
def judge() -> None:
    """Look into what the judge was asked."""


@app.command(cls=ThemedCommand)
def log(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a file of shared answers.")],
    concept: Annotated[str | None, typer.Option(help="Only questions about descriptions that hold this text.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only one kind: rate, rate one, write, batch, or one of an explainer or scorer.")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Only answers that gave less than was asked for.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many, the latest ones.", min=1)] = None,
    full: Annotated[bool, typer.Option("--full", help="The whole question and the answer as it came.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with everything.")] = False,
) -> None:
    """Show a run's questions and answers, in the order they were answered; also while the run goes on.

    Example: `fade-lens judge log runs/l7 --failures`
    """
    from fade_lens.judge.log import KINDS, Entry
    from fade_lens.runs.store import read_transcripts

    kinds, n, failed = [*KINDS], 0, 0
    latest: deque[Entry] = deque(maxlen=limit)

    def show(entry: Entry) -> None:
        if as_json:
            typer.echo(json.dumps(entry.to_dict(), ensure_ascii=True))
        else:
            for line in lines(entry, full):
                console.print(plain(line), soft_wrap=True)

    for entry in (Entry(request, answer) for request, answer in read_transcripts(run)):
        kinds += [entry.kind] if entry.kind not in kinds else []
        asked = entry.kind == kind if kind else entry.kind != "batch"
        if not asked or (concept or "").casefold() not in entry.concept.casefold():
            continue
        if not (failure := entry.failure) and failures:
            continue
        n, failed = n + 1, failed + bool(failure)
        if limit:
            latest.append(entry)
        else:
            show(entry)
    if kind is not None and kind not in kinds:
        raise InputError(f"--kind is {kind!r}; give one of {', '.join(kinds)}")
    for entry in latest:
        show(entry)
    if not as_json:
        more = f", the last {limit} shown" if limit and limit < n else ""
        console.print(plain(f"{n} answers{more}; {failed} gave less than was asked for"), soft_wrap=True)


def lines(entry: "Entry", full: bool) -> list[str]:
    """An entry for a terminal: whatever the texts hold, nothing in them can act on it."""
    from fade_lens._util.words import visible

    request, answer = entry.request, entry.answer
    tokens = f"{answer.get('prompt_tokens', 0)} + {answer.get('completion_tokens', 0)} tokens"
    again = [f"{name} {request[name]}" for name in ("repeat", "attempt") if request.get(name)]
    head = [entry.kind, entry.concept, str(request.get("model", "")), tokens, *again]
    shown = [visible(" · ".join(" ".join(part.split()) for part in head if part))]
    if entry.failure:
        shown.append(f"  ! {one_line(entry.failure)}")
    if full:
        parts = [*((m["role"], m["content"]) for m in request.get("messages", [])), ("answer", entry.content)]
        for role, content in parts:
            shown += [f"  {role}:", *(f"    {line}" for line in visible(content).splitlines())]
    else:
        shown += [f"  {rating:>4}  {one_line(text)}" for rating, text in entry.texts]
        if not entry.texts:
            shown.append(f"        {one_line(entry.content or str(dict(islice(answer.items(), 2))))}")
    return [*shown, ""]


def one_line(text: str) -> str:
    """A text on one line, its beginning where it is long."""
    from fade_lens._util.words import clip, visible

    return clip(visible(" ".join(text.split())), SHOWN)
