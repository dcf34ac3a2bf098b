"""The command line. Each command has its module; heavy imports wait until a command runs."""

import atexit
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from fade_lens.cli import audit, compare, evaluate, judge, sanity
from fade_lens.cli.console import errors, make_printable, plain
from fade_lens.errors import FadeLensError, InputError, JudgeError, MissingExtraError, StoreError
from fade_lens.neuronpedia.errors import NeuronpediaError

EXIT_CODES: dict[type[FadeLensError], int] = {
    InputError: 2,
    JudgeError: 3,
    StoreError: 4,
    MissingExtraError: 5,
    NeuronpediaError: 6,
}
INTERRUPTED = 130
INTERRUPTED_MESSAGE = "Interrupted. What was done is kept: run the same command again to go on."

app = typer.Typer(
    help="Does this description of this feature tell the truth? Scores descriptions of SAE latents and neurons by "
    "Clarity, Responsiveness, Purity and Faithfulness.\n\nStart with `fade-lens demo`: it needs no account and no model hub.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 unexpected error, 2 bad input, 3 the judge cannot be asked, 4 the run folder cannot be "
    "used, 5 an optional package is missing, 6 Neuronpedia cannot be read, 130 interrupted (run the same command again to go on).",
)
for command in (evaluate.evaluate, audit.audit, compare.compare, evaluate.demo, sanity.sanity):
    app.command()(command)
app.add_typer(judge.app, name="judge")


def main() -> None:
    """Entry point: every error that a user can act on is one sentence and its own exit code."""
    make_printable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Read when torch is loaded: threads that wait for each other leave the cores to a judge that runs in this process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # not where interrupts are ignored, as under nohup
        signal.signal(signal.SIGINT, interrupted)
    try:
        app()
    except SystemExit as end:  # typer makes an interrupt of it
        if end.code == INTERRUPTED:
            leave()
        raise
    except FadeLensError as error:
        errors.print(plain(f"fade-lens: {error}"), style="red")
        sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        leave()


def interrupted(*_: object) -> None:
    """The first interrupt ends the run in order. The second ends the process, whatever holds Python's lock: all is on disk."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError):
        os.write(2, b"\nStopping. Interrupt again to end at once; what is done is kept.\n")
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """End after an interrupt, without waiting for a judge in this process that is still answering."""
    errors.print(INTERRUPTED_MESSAGE)
    local = sys.modules.get("fade_lens.judge.local")
    if local is not None and local.running():
        sys.stdout.flush()
        atexit.register(os._exit, INTERRUPTED)  # comes before all that was registered earlier
    sys.exit(INTERRUPTED)
