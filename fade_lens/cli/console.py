"""The terminal: where tables and sentences go."""

from typing import Any

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def plain(text: str) -> Any:
    """Text that rich shows as it is, whatever brackets it holds; what would steer the terminal is shown by its code."""
    from rich.text import Text

    from fade_lens.report.words import visible

    return Text(visible(text))
