"""The terminal: where tables and sentences go."""

import codecs
import io
import sys
from typing import Any

from fade_lens._util.progress import Terminal

console = Terminal()
errors = Terminal(stderr=True)

PLAIN = {"–": "-", "—": "-", "−": "-", "…": "...", "·": "*", "•": "*", "×": "x", "⟨": "<", "⟩": ">", "‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " "}  # fmt: skip
"""What stands in for our own characters where a screen or file has none of them; others are shown by their code."""


def plain(text: str) -> Any:
    """Text that rich shows as it is, whatever brackets it holds; what would steer the terminal is shown by its code."""
    from rich.text import Text

    from fade_lens._util.words import visible

    return Text(visible(text))


def make_printable() -> None:
    """Let standard output and error take any text, whatever their encoding: tables, bars, logs, help and sentences."""
    codecs.register_error("fade_lens.plain", in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is not
            stream.reconfigure(errors="fade_lens.plain")


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks, in those that every encoding has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end
