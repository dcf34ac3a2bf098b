"""Help as plain text: options by theme, every name whole, no line wider than the screen."""

import inspect
import re
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

NAMES = 26
"""Columns for names; the text of a longer one begins on the next line."""
ORDER = ("Arguments", "Subject", "Natural texts", "Descriptions", "Scores", "Judge", "Output")
"""Themes that come first; then the others as they are met, and what has no theme."""
OTHER = "Options"
DEFAULT = re.compile(r"default: \(([^()]*)\)")
"""How typer writes a default that is given in words."""
KIND = re.compile(r"<(?:list\[(?=\w+\]))?(\w+)(?:\]| range)?>")
"""How it writes the kind of a value, or of each of several."""


class Themed:
    """A command whose help is `page`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write("".join(f"{line}\n" for line in page(self, ctx, formatter.width)))


class ThemedCommand(Themed, TyperCommand):
    """A command."""


class ThemedGroup(Themed, TyperGroup):
    """A group of commands."""


def page(command: Any, ctx: Any, width: int) -> Iterator[str]:
    """The lines of a command's help, of `width` columns at most."""
    yield from folded(" ".join(["Usage:", ctx.command_path, *command.collect_usage_pieces(ctx)]), width)
    for paragraph in paragraphs(command.help):
        yield from ("", *folded(paragraph, width, "  "))
    found = themes(command, ctx)
    for title in sorted(found, key=lambda one: (ORDER.index(one) if one in ORDER else len(ORDER), one == OTHER)):
        yield from ("", f"{title}:")
        for name, text in found[title]:
            lines = list(folded(text, width, " " * (NAMES + 2)))
            if len(name) <= NAMES - 2 and lines:
                lines[0] = f"  {name:<{NAMES}}{lines[0].lstrip()}"
                yield from lines
            else:
                yield from (*folded(name, width, "  "), *lines)
    for paragraph in paragraphs(command.epilog):
        yield from ("", *folded(paragraph, width))


def themes(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Names and texts of parameters and commands, by theme."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        if (record := param.get_help_record(ctx)) is not None:
            untitled = "Arguments" if param.param_type_name == "argument" else OTHER
            name, text = (
                KIND.sub(lambda kind: f"<{kind[1].lower()}>", record[0]),
                DEFAULT.sub(r"default: \1", record[1].replace("\\[", "[")),
            )  # older typer's escape
            found.setdefault(getattr(param, "rich_help_panel", None) or untitled, []).append((name, text))
    for name in command.list_commands(ctx) if isinstance(command, TyperGroup) else ():
        one: Any = command.get_command(ctx, name)
        text = next(paragraphs(one.help), "")
        found.setdefault(getattr(one, "rich_help_panel", None) or "Commands", []).append((name, text))
    return found


def paragraphs(text: str | None) -> Iterator[str]:
    """The paragraphs of a text, each on one line."""
    return (" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n") if part.strip())


def folded(text: str, width: int, indent: str = "") -> list[str]:
    """A text in lines that end between words: the name of an option has hyphens and is one word."""
    return wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
