"""The command line. Each command has its module; heavy imports wait until a command runs."""

import atexit
import inspect
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from fade_lens._util.errors import FadeLensError, InputError, JudgeError, MissingExtraError, StoreError
from fade_lens.cli import audit, compare, evaluate, explain, judge, look, sanity
from fade_lens.cli.console import errors, make_printable, plain
from fade_lens.cli.groups import with_options
from fade_lens.neuronpedia.errors import NeuronpediaError

EXIT_CODES: dict[type[FadeLensError], int] = {
    InputError: 2,
    JudgeError: 3,
    StoreError: 4,
    MissingExtraError: 5,
    NeuronpediaError: 6,
}
JUDGE_NAME = "--judge-name"
"""`Judge(name=…)`."""
INTERRUPTED = 130
INTERRUPTED_MESSAGE = "Interrupted. What was done is kept: run the same command again to go on."

COMMANDS = (
    look.look, look.fires, look.steer, look.search, explain.explain, evaluate.evaluate, audit.audit, compare.compare, evaluate.demo,
    sanity.sanity,
)  # fmt: skip


class Commands(TyperGroup):
    """The commands, of which only the one that is called learns its options: some come from modules that `--help` need not wait for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, next((whole(one) for one in COMMANDS if one.__name__ == name), command), rest


def whole(command: Callable[..., None]) -> Any:
    """A command with all of its options."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.command(command.__name__)(with_options(command))
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    help="Does this description of this feature tell the truth? Scores descriptions of SAE latents and neurons by "
    "Clarity, Responsiveness, Purity and Faithfulness.\n\nStart with `fade-lens demo`: it needs no account and no model hub.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 unexpected error, 2 bad input, 3 the judge cannot be asked, 4 the run folder cannot be "
    "used, 5 an optional package is missing, 6 Neuronpedia cannot be read, 130 interrupted (run the same command again to go on).",
)
for command in COMMANDS:
    app.command(command.__name__, help=inspect.getdoc(command))(lambda: None)
app.add_typer(judge.app, name="judge")


def in_options(message: str) -> str:
    """A message of the library, which names Python's arguments, in this command's words.

    >>> in_options("give rating='single', or raise max_calls")
    'give --rating single, or raise --max-calls'
    """
    options = {param.name: param.opts[0] for command in map(whole, COMMANDS) for param in command.params}
    names = "|".join(options | {"name": JUDGE_NAME})

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["text"] or match["value"]
        found = JUDGE_NAME if name == "name" else options[name]
        return f"{found} {shlex.quote(value)}" if value else found if "_" in name else match[0]

    # Not where it is part of a path or of a quotation; a name that is a plain word is one only where a value follows.
    return re.sub(
        rf"""(?<![\w./\\'"-])(?P<name>{names})(?:=(?:'(?P<text>[^']*)'|(?P<value>[\w.]*\w)))?(?![\w/\\'"=-]|\.\w)""",
        option,
        message,
    )


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
    try:
        app()
    except SystemExit as end:  # typer makes an interrupt of it
        if end.code == INTERRUPTED:
            leave()
        raise
    except FadeLensError as error:
        errors.print(plain(f"fade-lens: {in_options(str(error))}"), style="red")
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
