"""Reading the files that people have (text, CSV, JSON, JSONL, Parquet; packed or not, of any separator, from any system), and tables that any file
can hold.

What others wrote is data and may be hostile: sizes are bounded, nothing in it is run.
"""

import gzip
import io
import json
import os
import re
import tomllib
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fade_lens._util.errors import Argument, InputError, MissingExtraError, StoreError

if TYPE_CHECKING:
    import pandas as pd

MAX_FILE_BYTES = 512 * 2**20
"""The largest table or descriptions file, unpacked."""
LINE_BYTES = 32 * 2**20
"""The longest line read: an explanation with its embedding has 6 kB, a feature with its contexts about 1.2 MB."""
LINES_BYTES = 16 * 2**30
"""The largest JSONL file, unpacked."""
JSON_BYTES = 2 * 2**30
"""The largest file that is one JSON value."""
TOML_BYTES = 2**18
"""The largest TOML file."""
GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a file begins that Excel ("Unicode text") or PowerShell (`>`) wrote."""
SEPARATORS = ",\t;|"
TABLES = (".csv", ".tsv", ".parquet")
PARQUET_ROWS = 10_000
"""Rows of a Parquet file's row groups."""


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


@contextmanager
def whole_file(path: str | Path) -> Generator[Path]:
    """A path to write to, whose file takes its place at the end: whatever ends the process, what is there is whole. Its folder is made.

    Raises:
        StoreError: it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    if path.exists():
        path = path.resolve()  # a link stays one
        partial = partial if path.is_file() else path  # such as /dev/stdout
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if partial != path:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        why = error.strerror or error
        raise StoreError(
            f"{str(path)!r} cannot be written: {why}; see that its disk has room and its folder can be written to, and run again: what a run's folder holds is kept"
        ) from error
    finally:
        if partial != path:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text, such as a page, in UTF-8, all of it or nothing; its folder is made where it is not there."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)


def write_csv(frame: "pd.DataFrame", path: str | Path) -> Path:
    """Write a table without its index, all of it or nothing; its folder is made where it is not there."""
    with whole_file(path) as partial:
        frame.to_csv(partial, index=False, errors="replace")
    return Path(path)


def write_parquet(frame: "pd.DataFrame", path: str | Path) -> Path:
    """Write a table without its index as Parquet, all of it or nothing; its folder is made where it is not there.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    with whole_file(path) as partial:
        try:
            frame.to_parquet(partial, index=False, row_group_size=PARQUET_ROWS)
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "Writing Parquet") from error
    return Path(path)


def kind_of(path: Path) -> str:
    """What kind of file it is, whether packed or not, such as ".csv"."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def open_plain(path: Path) -> Any:
    """The file unpacked; its first bytes say whether it is packed, since servers may unpack on the way."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """A text file unpacked, to be read a line at a time: UTF-8, or UTF-16 where its first bytes say so; bytes that are neither are replaced."""
    file = open_plain(path)
    encoding = encoding_of(file.peek(4)[:4])
    return io.TextIOWrapper(file, encoding, "replace")


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked. Raises `InputError` for one that is too large."""
    with open_plain(path) as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise InputError(f"{path.name!r} has over {MAX_FILE_BYTES // 2**20} MB; split it")
    return raw


def read_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16 or UTF-32, as its first bytes say. Raises `UnicodeDecodeError` for others."""
    raw = read_bytes(path)
    return raw.decode(encoding_of(raw))


def encoding_of(raw: bytes) -> str:
    """The encoding that the first bytes of a text tell; a NUL among them is half of an ASCII letter in UTF-16 without a mark."""
    if raw.startswith(UTF_16):
        return "utf-32" if raw[2:4] == b"\x00\x00" else "utf-16"
    return {0: "utf-16-be", 1: "utf-16-le"}.get(raw[:2].find(b"\x00"), "utf-8-sig")


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
    text = re.sub(r"\A\ufeff?\"?sep=(.)\"?\r?[\n\r]", "", read_text(path))  # a line that Excel alone reads
    header = re.sub('"[^"]*"', "", text.lstrip().partition("\n")[0])
    try:
        return pd.read_csv(io.StringIO(text), sep=max(SEPARATORS, key=header.count), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{path.name} cannot be read as a table: it is empty; give a header and at least one row"
        ) from None


@contextmanager
def readable(path: Path) -> Generator[None, None, None]:
    """What a damaged file, or one that is not in UTF-8, raises while it is read, as an InputError."""
    try:
        yield
    except InputError:
        raise
    # The errors of pandas, pyarrow and of decoding are ValueErrors, those of gzip OSErrors.
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{path.name} cannot be read ({why}); mend it if it is damaged, and save it as UTF-8 if it is text"
        ) from error


def table_column(path: Path, column: str) -> Iterator[Any]:
    """One column of a CSV or Parquet file, a part of the file at a time."""
    names, parts = csv_parts(path, column) if kind_of(path) == ".csv" else parquet_parts(path, column)
    if column not in names:
        raise InputError(
            f"{path.name} has no column {column!r}; its columns are {', '.join(names)}; name one with ",
            Argument("column"),
        )
    for part in parts:
        yield from part


def csv_parts(path: Path, column: str) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns of a CSV file, and one of them in parts."""
    import pandas as pd

    names = [str(name) for name in pd.read_csv(path, nrows=0).columns]

    def parts() -> Iterator[list[Any]]:
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "usecols": [column]}
        reader: Any = pd.read_csv(path, chunksize=10_000, **options)
        with reader:
            for part in reader:
                yield part[column].tolist()

    return names, parts()


def parquet_parts(path: Path, column: str) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns of a Parquet file, and one of them in parts."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "Reading Parquet") from None
    file: Any = ParquetFile(path)
    found = (batch.column(0).to_pylist() for batch in file.iter_batches(10_000, columns=[column]))
    return list(file.schema_arrow.names), found


def parse_json(text: str, where: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON, or an InputError that says where it is broken; `pairs_hook` makes the objects of their pairs."""
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error


def json_lines(
    path: Path, *, line_bytes: int = LINE_BYTES, file_bytes: int = LINES_BYTES
) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(file and line, object)` for every line of a file.

    Raises:
        InputError: a line that is no JSON object, too long a line, too large a file, a damaged one.
    """
    total = 0
    try:
        with open_plain(path) as file:
            number = 0
            if (encoding := encoding_of(file.peek(4)[:4])) != "utf-8-sig":
                file = io.TextIOWrapper(file, encoding, "replace", newline="\n")
            while line := file.readline(line_bytes + 1):
                number += 1
                total += len(line)
                if len(line) > line_bytes or total > file_bytes:
                    raise InputError(
                        f"{path.name}, line {number} is longer than any that Neuronpedia writes; it is not read"
                    )
                if line.strip():
                    where = f"{path.name}, line {number}"
                    yield where, json_object(line, where)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} is damaged ({error}); delete it and run again") from error


def json_object(line: bytes | str, where: str) -> dict[str, Any]:
    """The JSON object of a line."""
    try:
        value = json.loads(line if isinstance(line, str) else line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is {type(value).__name__}; every line must be an object")
    return cast(dict[str, Any], value)


def json_value(path: Path, limit: int = JSON_BYTES) -> Any:
    """The JSON value that a file is.

    Raises:
        InputError: it is none, too large or damaged.
    """
    try:
        with open_plain(path) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise InputError(f"{path.name} is over {limit // 2**20} MB; give it as JSONL, or split it")
        return json.loads(raw.decode(encoding_of(raw), "replace"))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} is damaged ({error}); delete it and run again") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is not valid JSON: {error}") from error


def toml_table(path: Path, what: str) -> dict[str, Any]:
    """The table that a TOML file is; messages call it `what`.

    Raises:
        InputError: no such file, too large, no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(TOML_BYTES + 1)
    except OSError as error:
        raise InputError(f"{what} {str(path)!r} cannot be read: {error.strerror or error}") from None
    if len(content) > TOML_BYTES:
        raise InputError(f"{what} {path.name!r} is larger than {TOML_BYTES >> 10} KiB: give a {what}")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and decoding's
        raise InputError(f"{what} {path.name!r} is no TOML file in UTF-8: {error}") from None
