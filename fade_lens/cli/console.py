"""The terminal: where tables and sentences go."""

from typing import Any

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def plain(text: str) -> Any:
    """Text that rich shows as it is, whatever brackets it holds."""
    from rich.text import Text

    return Text(text)
