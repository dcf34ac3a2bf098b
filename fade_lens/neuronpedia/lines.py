"""Reading JSON and JSONL files, gzipped or not, a line at a time, with limits: what others wrote is data and may be hostile."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from fade_lens._util.errors import InputError
from fade_lens._util.tables import UTF_16, open_plain

LINE_BYTES = 32 * 2**20
"""The longest line read: an explanation with its embedding has 6 kB, a feature with its contexts about 1.2 MB."""
FILE_BYTES = 16 * 2**30
"""The largest file read, unpacked."""
JSON_BYTES = 2 * 2**30
"""The largest file that is one JSON value."""


def json_lines(
    path: Path, *, line_bytes: int = LINE_BYTES, file_bytes: int = FILE_BYTES
) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(file and line, object)` for every line of a file.

    Raises:
        InputError: a line that is no JSON object, too long a line, too large a file, a damaged one.
    """
    total = 0
    try:
        with open_plain(path) as file:
            number = 0
            if file.peek(2)[:2] in UTF_16:
                file = io.TextIOWrapper(file, "utf-16", "replace", newline="\n")
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
        return json.loads(raw.decode("utf-16" if raw.startswith(UTF_16) else "utf-8-sig", "replace"))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} is damaged ({error}); delete it and run again") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is not valid JSON: {error}") from error
