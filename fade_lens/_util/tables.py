"""Tables of texts that any file can hold, and reading the files that people have: packed or not, of any separator, from any system."""

import gzip
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens._util.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

MAX_FILE_BYTES = 512 * 2**20
"""The largest table or descriptions file, unpacked."""
GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file begins that Excel ("Unicode text") or PowerShell (`>`) wrote."""
SEPARATORS = ",\t;|"
TABLES = (".csv", ".tsv", ".parquet")


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


def kind_of(path: Path) -> str:
    """What kind of file it is, whether packed or not, such as ".csv"."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def open_plain(path: Path) -> Any:
    """The file unpacked; its first bytes say whether it is packed, since servers may unpack on the way."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked. Raises `InputError` for one that is too large."""
    with open_plain(path) as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"{path.name!r} has over {MAX_FILE_BYTES // 2**20} MB; split it")
    return raw


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 where its first bytes say so. Raises `UnicodeDecodeError` for others."""
    raw = read_bytes(path)
    return raw.decode("utf-16" if raw.startswith(UTF_16) else "utf-8-sig")


def read_table(path: Path) -> "pd.DataFrame":
    """A CSV file, its separator told by its header, with every cell as it is written; or a Parquet file.

    Raises:
        InputError: too large, or empty.
        MissingExtraError: a Parquet file without pyarrow.
    """
    import pandas as pd

    if kind_of(path) == ".parquet":
        try:
            return pd.read_parquet(io.BytesIO(read_bytes(path)))
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", f"reading {path.name}") from error
    text = read_text(path)
    header = re.sub('"[^"]*"', "", text.lstrip().partition("\n")[0])
    try:
        return pd.read_csv(io.StringIO(text), sep=max(SEPARATORS, key=header.count), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{path.name} cannot be read as a table: it is empty; give a header and at least one row"
        ) from None
