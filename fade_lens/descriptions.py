"""Descriptions of features: what is to be judged, and reading them from whatever a user holds."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fade_lens.corpus import parse_json, readable
from fade_lens.errors import InputError

INDEX_COLUMNS = ("index", "feature", "latent", "neuron", "feature_index")
TEXT_COLUMNS = ("description", "explanation", "text")
MAX_FILE_BYTES = 512 * 2**20
MOST_FEATURES = 2**24
"""No SAE is wider."""


@dataclass(frozen=True, order=True)
class Description:
    """A claim about one feature.

    Attributes:
        index: the feature's index in its SAE or hook.
        text: the description as it was given.
        origin: where it came from, for the record.
    """

    index: int
    text: str
    origin: str = ""

    @property
    def key(self) -> str:
        """What names this description in a store: the feature and the text."""
        return f"{self.index}:{self.text}"


def read_descriptions(source: Any) -> tuple[Description, ...]:
    """Descriptions from a dict `{index: text}`, a Series, a DataFrame, a CSV/JSON/JSONL file, or `Description`s.

    A table needs a column `index` (or `feature`, `latent`, `neuron`) and a column `description` (or `explanation`).
    A feature may have several descriptions; the same one twice is an error. A table of `fade_lens.neuronpedia.descriptions` is taken
    as it is: rows without a description are left out, and of repeated ones all but the first.

    Raises:
        InputError: nothing given, an empty or repeated description, an index that is no whole number, no such column,
            a damaged file.
    """
    if isinstance(source, str | Path):
        rows, origin = file_rows(Path(source)), Path(source).name
    elif isinstance(source, Mapping):
        rows, origin = list(cast(Mapping[Any, Any], source).items()), "a dict"
    elif hasattr(source, "columns") and {"state", "copies"} <= set(source.columns):
        return imported(source)
    elif hasattr(source, "columns"):
        rows, origin = table_rows(source, "the DataFrame"), "a DataFrame"
    elif hasattr(source, "items"):
        rows, origin = list(source.items()), "a Series"
    elif (
        isinstance(source, Iterable)
        and (given := list(cast(Iterable[Any], source)))
        and isinstance(given[0], Description)
    ):
        return checked([(d.index, d.text, d.origin) for d in given])
    else:
        raise InputError(
            f"descriptions is {type(source).__name__}; give a dict {{index: text}}, a Series, a DataFrame with columns "
            "'index' and 'description', or the path of a CSV, JSON or JSONL file"
        )
    return checked([(index, text, origin) for index, text in rows])


def imported(table: Any) -> tuple[Description, ...]:
    """The descriptions of a table that was imported from Neuronpedia, each with its origin."""
    from fade_lens.neuronpedia.frames import usable

    kept = usable(table)
    if not len(kept):
        raise InputError(
            f"none of the {len(table)} rows imported from Neuronpedia has a description; import other features"
        )
    return checked(zip(kept["index"].tolist(), kept["description"].tolist(), kept["origin"].tolist(), strict=True))


def checked(rows: Iterable[tuple[Any, Any, str]]) -> tuple[Description, ...]:
    """The rows as descriptions, each one sound and there once."""
    found: dict[str, Description] = {}
    for raw_index, text, origin in rows:
        index = whole_number(raw_index)
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"the description of feature {index} is empty ({text!r}); leave the feature out or describe it"
            )
        description = Description(index, " ".join(text.split()), origin)
        if description.key in found:
            raise InputError(f"feature {index} has the same description twice ({text!r:.80}); give each once")
        found[description.key] = description
    if not found:
        raise InputError("no descriptions were given; give at least one, such as {9: \"the word 'new'\"}")
    return tuple(found.values())


def whole_number(value: Any) -> int:
    """A feature index from an int, a float without a fraction or a string of digits (Neuronpedia's are strings)."""
    number = None
    try:
        plain = value.item() if hasattr(value, "item") else value  # of a NumPy or torch scalar
        if (isinstance(plain, str) and re.fullmatch(r"\s*\+?\d+\s*", plain)) or (
            not isinstance(plain, str | bool) and plain == int(plain)
        ):
            number = int(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass  # no number, several, nan or inf
    if number is None or number < 0:
        raise InputError(f"feature index {value!r} is not a whole number of 0 or more")
    return number


def file_rows(path: Path) -> list[tuple[Any, Any]]:
    """`(index, text)` rows of a descriptions file."""
    if not path.is_file():
        raise InputError(f"descriptions file {str(path)!r} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"descriptions file {path.name!r} has over {MAX_FILE_BYTES // 2**20} MB; split it")
    kind = path.suffix.lower()
    if kind not in (".csv", ".json", ".jsonl"):
        raise InputError(f"descriptions file {path.name!r} is of a kind that is not read; give .csv, .json or .jsonl")
    with readable(path):
        if kind == ".csv":
            return csv_rows(path)
        text = path.read_text(encoding="utf-8-sig")
    if kind == ".jsonl":
        lines = enumerate(text.split("\n"), start=1)  # splitlines would also split at U+2028 within a text
        data: Any = [parse_json(line, f"{path.name}, line {n}", unique_keys) for n, line in lines if line.strip()]
    else:
        data = parse_json(text, path.name, unique_keys)
    if isinstance(data, dict):
        return list(cast(dict[Any, Any], data).items())
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in cast(list[Any], data)):
        raise InputError(f"{path.name} must hold {{index: text}} or a list of objects with 'index' and 'description'")
    records = cast(list[dict[str, Any]], data)
    if not records:
        return []
    index, text = (column_among(records[0], names, path.name) for names in (INDEX_COLUMNS, TEXT_COLUMNS))
    return [(row.get(index), row.get(text)) for row in records]


def csv_rows(path: Path) -> list[tuple[Any, Any]]:
    """`(index, text)` rows of a CSV file."""
    import pandas as pd

    try:
        return table_rows(pd.read_csv(path, dtype=str, keep_default_na=False), path.name)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path.name} is empty; it needs a header and at least one row") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: of the values of a key that is there twice, all but the last would be lost."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(
                f"the key {key!r} is there twice in one object; give it once, or a list of objects with 'index' and "
                "'description' where a feature has several"
            )
        found[key] = value
    return found


def table_rows(table: Any, where: str) -> list[tuple[Any, Any]]:
    """`(index, text)` rows of a DataFrame, its index standing in where no column names the feature."""
    text = column_among(table.columns, TEXT_COLUMNS, where)
    if any(name in table.columns for name in INDEX_COLUMNS):
        keys = table[column_among(table.columns, INDEX_COLUMNS, where)]
    else:
        keys = table.index
    return list(zip(keys.tolist(), table[text].tolist(), strict=True))


def column_among(columns: Iterable[str], names: tuple[str, ...], where: str) -> str:
    """The first of `names` that is a column."""
    there = [str(c) for c in columns]
    for name in names:
        if name in there:
            return name
    raise InputError(
        f"{where} has no column {names[0]!r} (or {', '.join(names[1:])}); its columns are {', '.join(there)}"
    )


def parse_indices(spec: str) -> tuple[int, ...]:
    """Feature indices from a command line's word, such as `0:200,512` (the end is left out, as in Python).

    >>> parse_indices("3,7:10")
    (3, 7, 8, 9)
    """
    chosen: list[int] = []
    for part in spec.split(","):
        start, colon, end = part.strip().partition(":")
        try:
            asked = range(int(start or 0), int(end)) if colon else range(int(start), int(start) + 1)
        except ValueError:
            raise InputError(
                f"features {spec!r}: {part!r} is neither a number nor START:END, as in 0:200,512"
            ) from None
        if not asked or asked.start < 0 or asked.stop > MOST_FEATURES:
            raise InputError(f"features {spec!r}: {part!r} names no features between 0 and {MOST_FEATURES:,}")
        chosen += asked
    return tuple(dict.fromkeys(chosen))
