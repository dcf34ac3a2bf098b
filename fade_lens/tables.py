"""Tables of texts that any file can hold."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def clean(text: str) -> str:
    """Text that UTF-8 can encode: half characters (lone surrogates), which JSON may hold, become question marks.

    >>> clean("half \\ud800")
    'half ?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def table_of(records: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """A DataFrame of records, every text in it `clean`: pandas may keep texts as UTF-8 and then takes no others."""
    import pandas as pd

    rows = [{name: clean(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in records]
    return pd.DataFrame(rows)
