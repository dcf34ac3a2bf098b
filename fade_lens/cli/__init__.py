"""The command line. Each command has its module; heavy imports wait until a command runs."""

import atexit
import inspect
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from fade_lens._util.errors import (
    Argument,
    FadeLensError,
    InputError,
    JudgeError,
    MissingExtraError,
    StoreError,
    WorkerError,
)
from fade_lens.cli import audit, compare, demo, evaluate, explain, health, judge, look, map, release, sanity
from fade_lens.cli.console import errors, make_printable, plain
from fade_lens.cli.groups import with_options
from fade_lens.cli.help import ThemedCommand, ThemedGroup
from fade_lens.neuronpedia.errors import NeuronpediaError

EXIT_CODES: dict[type[FadeLensError], int] = {
    InputError: 2,
    JudgeError: 3,
    StoreError: 4,
    MissingExtraError: 5,
    NeuronpediaError: 6,
    WorkerError: 7,
}
RENAMED = {
    "name": "judge_name",
    "column": "corpus_column",
    "limit": "corpus_limit",
    "windows": "corpus_windows",
    "release": "sae_release",
}
"""Arguments of the library whose options are called otherwise, for a command has more to name."""
INTERRUPTED = 130
INTERRUPTED_MESSAGE = "Interrupted. What was done is kept: run the same command again to go on."

COMMANDS = (
    look.look, look.fires, look.steer, look.patchscopes, look.search, health.health, explain.explain, evaluate.evaluate,
    release.release, map.map, audit.audit, compare.compare, demo.demo,
    sanity.sanity,
)  # fmt: skip


class Commands(ThemedGroup):
    """The commands, of which only the one that is called learns its options: some come from modules that `--help` need not wait for."""

    called_options: Mapping[str, str] = {}
    """The options of the command that was called, by the names of their parameters."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        command = next((whole(one) for one in COMMANDS if one.__name__ == name), command)
        self.called_options = {str(param.name): param.opts[0] for param in getattr(command, "params", ()) if param.opts}
        return name, command, rest


def whole(command: Callable[..., None]) -> Any:
    """A command with all of its options."""
    alone = typer.Typer(add_completion=False)
    alone.command(command.__name__, cls=ThemedCommand)(with_options(command))
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    help="Does this description of this feature tell the truth? Scores descriptions of SAE latents and neurons by "
    "Clarity, Responsiveness, Purity and Faithfulness.\n\nStart with `fade-lens demo`: it needs no account and no model hub.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 unexpected error, 2 bad input, 3 the judge cannot be asked, 4 the run folder cannot be "
    "used, 5 an optional package is missing, 6 Neuronpedia cannot be read, 7 Ray's workers cannot go on, 130 interrupted (run the same command again to go on).",
)
for command in COMMANDS:
    app.command(command.__name__, help=inspect.getdoc(command))(lambda: None)
app.add_typer(judge.app, name="judge")


def show_version(asked: bool | None) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"fade-lens {version('fade-lens')}")
        raise typer.Exit


@app.callback()
def every_command(
    show: Annotated[
        bool | None, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)
    ] = None,
) -> None:
    """What stands before the command's name."""


def as_option(argument: Argument, options: Mapping[str, str]) -> str:
    """An argument of the library as its option, where the command has one, by the argument's name.

    >>> as_option(Argument("max_calls", 5), {"max_calls": "--max-calls"}), as_option(Argument("context"), {})
    ('--max-calls 5', 'context')
    """
    option = options.get(RENAMED.get(argument.name, argument.name))
    if option is None or argument.value is None:
        return option or str(argument)
    return f"{option} {shlex.quote(str(argument.value))}"


def main() -> None:
    """Entry point: every error that a user can act on is one sentence and its own exit code."""
    make_printable()
    # The handler that finds stderr anew at each message: progress bars stand in front of it while they are shown.
    handlers = [logging.lastResort] if logging.lastResort else None
    for handler in handlers or ():
        handler.addFilter(unsaid)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=handlers)
    # Read when torch is loaded: threads that wait for each other leave the cores to a judge that runs in this process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # not where interrupts are ignored, as under nohup
        signal.signal(signal.SIGINT, interrupted)
    commands: Any = typer.main.get_command(app)
    try:
        commands(prog_name="fade-lens")  # for completion, too
    except SystemExit as end:  # typer makes an interrupt of it
        if end.code == INTERRUPTED:
            leave()
        raise
    except FadeLensError as error:
        said = error.told(lambda argument: as_option(argument, commands.called_options))
        errors.print(plain(f"fade-lens: {said}"), style="red")
        sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except OSError as error:  # a full disk, a folder that went away
        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        errors.print(
            plain(f"fade-lens: {error}; what a run's folder holds is kept: mend that and run it again"), style="red"
        )
        sys.exit(1)
    except KeyboardInterrupt:
        leave()


def unsaid(record: logging.LogRecord) -> bool:
    """Whether nothing has printed a message yet: some libraries (datasets) print theirs themselves and hand them on as well."""
    logger = logging.getLogger(record.name)
    while logger.parent is not None:
        if any(isinstance(handler, logging.StreamHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def interrupted(*_: object) -> None:
    """The first interrupt ends the run in order. The second ends the process, whatever holds Python's lock: all is on disk."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError):
        os.write(2, b"\nStopping. Interrupt again to end at once; what is done is kept.\n")
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """End after an interrupt, without waiting for a judge in this process that is still answering."""
    errors.print(INTERRUPTED_MESSAGE)
    local = sys.modules.get("fade_lens.llm.local")
    if local is not None and local.running():
        sys.stdout.flush()
        atexit.register(os._exit, INTERRUPTED)  # comes before all that was registered earlier
    sys.exit(INTERRUPTED)
