"""Rows of whatever people keep descriptions in: tables, JSON values, files."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import TABLES, kind_of, parse_json, read_table, read_text, readable

INDEX_COLUMNS = ("index", "feature", "latent", "neuron", "feature_index", "latent_index", "neuron_index", "feature_id", "latent_id", "neuron_id", "feature_idx", "latent_idx", "neuron_idx", "idx")  # fmt: skip
TEXT_COLUMNS = ("description", "explanation", "text", "concept", "label", "interpretation")
RULES_COLUMNS = ("rules",)
NO_NAME = re.compile(r"Unnamed: 0|\s*")
"""What pandas calls a column whose heading is empty, as that of the index in a CSV file that pandas wrote."""
NAMED_FEATURE = re.compile(r"(|.*[_/ ])(?:latent|feature|neuron)[_ -]?([0-9]{1,9})", re.I)
"""A feature as Delphi and others write it: "layers.3_latent12", "feature_7"."""
PLACE_COLUMNS = (("model_id",), ("source_id", "layer", "hook", "hook_name"))
LARGEST_INDEX = 2**53
"""Beyond it, floats skip whole numbers."""


class Row(NamedTuple):
    """What a row says of a feature: where the feature is, its index, its description, and the rules that this is made of, each as it is given."""

    place: str
    index: Any
    text: Any
    rules: Any = None


def is_null(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, pandas' NA, or a text of blanks."""
    if isinstance(value, str):
        return not value.strip()
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def whole_number(value: Any) -> int:
    """A feature index from an int, a float without a fraction, or a string of either ("7", "7.0", "3,000")."""
    number = None
    try:
        plain = value.item() if hasattr(value, "item") else value  # of a NumPy or torch scalar
        if isinstance(plain, str):
            if re.fullmatch(r"\s*\+?([0-9]+|[0-9]{1,3}([,'’\u00a0\u202f\u2009 ][0-9]{3})+)(\.0*)?\s*", plain):
                number = int(re.sub(r"\D", "", plain.partition(".")[0]))
        elif not isinstance(plain, bool) and plain == int(plain):
            number = int(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass  # no number, several, nan or inf
    if number is None or not 0 <= number < LARGEST_INDEX:
        raise InputError(f"feature index {value!r:.80} is not a whole number of 0 or more")
    return number


def numbered(value: Any) -> tuple[str, int]:
    """Where a feature is and its index, from a number or an id that ends in one.

    >>> numbered("gpt2-small/6-res-jb/204"), numbered("L5/123"), numbered("3.0")
    (('gpt2-small/6-res-jb', 204), ('L5', 123), ('', 3))
    >>> numbered("layers.3_latent12"), numbered("Feature 7")
    (('layers.3', 12), ('', 7))
    """
    if isinstance(value, str) and (named := NAMED_FEATURE.fullmatch(value)):
        return named[1].rstrip("_/ "), int(named[2])
    if isinstance(value, str) and "/" in value:
        place, _, last = value.partition("?")[0].strip().rstrip("/").rpartition("/")
        return place.split("://", 1)[-1], whole_number(last)
    return "", whole_number(value)


def file_rows(path: Path) -> list[Row]:
    """The rows of a descriptions file."""
    if path.is_dir() and (files := sorted(path.glob("*.txt"))):  # Delphi's: a file a latent, named after it
        with readable(path):
            texts = {file: read_text(file).strip() for file in files}
        return [Row("", f.stem, parse_json(t, f.name, dict) if t[:1] + t[-1:] == '""' else t) for f, t in texts.items()]
    if not path.is_file():
        raise InputError(f"descriptions file {str(path)!r} does not exist")
    kind = kind_of(path)
    if kind not in (*TABLES, ".json", ".jsonl"):
        raise InputError(
            f"descriptions file {path.name!r} is of a kind that is not read; give .csv, .tsv, .json, .jsonl or .parquet"
        )
    with readable(path):
        if kind in TABLES:
            return table_rows(read_table(path), path.name)
        text = read_text(path)
    if kind == ".json" or text.lstrip().startswith("["):
        return value_rows(parse_json(text, path.name, unique_keys), path.name)
    lines = enumerate(text.split("\n"), start=1)  # splitlines would also split at U+2028 within a text
    return value_rows(
        [parse_json(line, f"{path.name}, line {n}", unique_keys) for n, line in lines if line.strip()], path.name
    )


def value_rows(value: Any, where: str) -> list[Row]:
    """The rows of a JSON value."""
    records = records_in(value, where)
    columns = list(dict.fromkeys(key for row in records for key in row))
    index = column_among(columns, INDEX_COLUMNS, where) if records else ""
    rules = named(columns, RULES_COLUMNS)
    text = named(columns, TEXT_COLUMNS) if rules or not records else column_among(columns, TEXT_COLUMNS, where)
    return [Row(place_of(row), row.get(index), row.get(text), row.get(rules)) for row in records]


def records_in(value: Any, where: str) -> list[Mapping[str, Any]]:
    """The records of a JSON value: a list of them, `{index: text}` and its relatives, one record, or columns as pandas writes them.

    Raises:
        InputError: none of these, saying what it is where that is known.
    """
    wanted = f"{where} is none of the shapes that are read: it must hold {{index: text}} or a list of objects with 'index' and 'description'"
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, Any], value)
        text = named(fields, TEXT_COLUMNS)
        if isinstance(fields.get("explanations"), list):
            value = [fields]
        elif text is not None and isinstance(fields[text], Mapping | list):
            import pandas as pd

            try:
                table, _, _ = with_columns(pd.DataFrame(dict(fields)), where)
            except ValueError as error:  # columns of several lengths
                raise InputError(f"{wanted}: {error}") from error
            value = table.to_dict("records")
        elif text is not None:
            value = [fields]
        elif (value := by_index(fields, where)) is None:
            raise InputError(f"{wanted}; {said(fields)}")
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in cast(list[Any], value)):
        raise InputError(wanted)
    return [record for row in cast(list[Mapping[str, Any]], value) for record in described(row, where)]


def described(row: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """The records of one that may hold several descriptions: under "explanations", as a list, as objects, or as `{index: text}`."""
    text = named(row, TEXT_COLUMNS)
    cell = row[text] if text is not None else row.get("explanations")
    if text is None and not isinstance(cell, list):
        return by_index(row, where) or [row]
    if not isinstance(cell, list | Mapping):
        return [row]
    own = {name: value for name, value in row.items() if name not in (text, "explanations")}
    found: list[Mapping[str, Any]] = []
    for one in cast(list[Any], cell) if isinstance(cell, list) else [cell]:
        inner = cast(Mapping[str, Any], one) if isinstance(one, Mapping) else {"description": one}
        if (name := named(inner, TEXT_COLUMNS)) is None:
            raise InputError(f"{where} has no column 'description' in {', '.join(map(str, row))[:160]}; {said(inner)}")
        found.append({**inner, **own, "description": inner[name]})
    return found


def by_index(fields: Mapping[str, Any], where: str) -> list[Mapping[str, Any]] | None:
    """Records of `{index: text}`, `{index: [text, …]}` and `{index: {"concept": text, …}}`; None where the keys are no indices."""
    if not fields or not all(
        re.search(r"(^|/)\s*[+-]?\d[\d,.]*\s*$", key) or NAMED_FEATURE.fullmatch(key) for key in map(str, fields)
    ):
        return None
    found: list[Mapping[str, Any]] = []
    for key, value in fields.items():
        for one in (cast(list[Any], value) or [None]) if isinstance(value, list) else [value]:
            if not isinstance(one, Mapping):
                found.append({"index": key, "description": one})
                continue
            inner = cast(Mapping[str, Any], one)
            index, text = (named(inner, names) for names in (INDEX_COLUMNS, TEXT_COLUMNS))
            if text is None:
                raise InputError(f"{where}: {key} has no description under {', '.join(TEXT_COLUMNS)}; {said(inner)}")
            found.append({**inner, "index": key if index is None else inner[index], "description": inner[text]})
    return found


def said(fields: Mapping[str, Any]) -> str:
    """What an object holds instead of descriptions, named where it is known."""
    keys = {str(key) for key in fields}
    if keys & {"Clarity", "Faithfulness"}:
        return "these are the reference implementation's metrics of one feature, which do not say what was described"
    if {"items", "run", "format"} <= keys:
        return "it is a run that fade_lens saved: fade_lens.Results.load reads it, and results.csv beside it has its descriptions"
    if keys and all(isinstance(v, int) for v in fields.values()):
        return "it maps texts to numbers, as the reference implementation's ratings do"
    return f"its keys are {', '.join(map(str, fields))[:160]}"


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


def table_rows(table: Any, where: str) -> list[Row]:
    """The rows of a DataFrame, its index standing in where no column names the feature."""
    table, index, text = with_columns(table, where)
    rules = named(table.columns, RULES_COLUMNS)
    places = [names for group in PLACE_COLUMNS if (names := named(table.columns, group)) is not None]
    beside = zip(*(table[name].tolist() for name in places), strict=True) if places else iter(lambda: (), None)
    told = ("/".join(str(part) for part in parts if not is_null(part)) for parts in beside)
    cells = (table[name].tolist() for name in (index, text, *[rules] * (rules is not None)))
    return [Row(*row) for row in zip(told, *cells, strict=False)]


def with_columns(table: Any, where: str) -> tuple[Any, str, str]:
    """A DataFrame with its index as a column where no column names the feature, and the columns of feature and text."""
    if named(table.columns, RULES_COLUMNS) is not None and named(table.columns, TEXT_COLUMNS) is None:
        table = table.assign(description=None)  # to be made of the rules
    text = column_among(table.columns, TEXT_COLUMNS, where)
    if (index := named(table.columns, INDEX_COLUMNS)) is not None:
        return table, index, text
    if (index := named([name for name in table.index.names if name], INDEX_COLUMNS)) is not None:
        return table.reset_index(), index, text
    if table.index.nlevels > 1:
        raise InputError(
            f"{where} has an index of {table.index.nlevels} levels, none of which is named {INDEX_COLUMNS[0]!r} "
            f"(or {', '.join(INDEX_COLUMNS[1:4])}); name the one that has the features: table.index.names = [...]"
        )
    if len(table.columns) > 1 and NO_NAME.fullmatch(str(first := table.columns[0])):
        return table, first, text
    if (mute := [str(c) for c in table.columns if c != text and numbers(table[c])]) and table.index.tolist() == list(
        range(len(table))
    ):
        raise InputError(
            f"{where} has no column {INDEX_COLUMNS[0]!r} (or {', '.join(INDEX_COLUMNS[1:4])}); if {' or '.join(map(repr, mute[:4]))} "
            f"has the features, name it {INDEX_COLUMNS[0]!r}; if none has, add that column"
        )
    return table.assign(index=table.index), "index", text


def numbers(column: Any) -> bool:
    """Whether every cell of a column is a feature's number, so that the rows' own numbers may not be meant."""
    try:
        return bool([numbered(cell) for cell in column.tolist()])
    except InputError:
        return False


def place_of(row: Mapping[str, Any]) -> str:
    """The model and layer that a record names, "" where it names none."""
    found = (row.get(name) for group in PLACE_COLUMNS if (name := named(row, group)) is not None)
    return "/".join(str(part) for part in found if not is_null(part))


def named(columns: Collection[Any], names: tuple[str, ...]) -> Any:
    """The column that has the first of these names, as it is or as people write it ("Feature Index"); None without any."""
    if names[0] in columns:  # quick, for the rows of large exports
        return names[0]
    there = {str(column): column for column in columns}
    bare = {letters(name): column for name, column in reversed(there.items())}
    return next((c for name in names if (c := there.get(name, bare.get(letters(name)))) is not None), None)


def letters(name: str) -> str:
    """A column's name without what people write differently."""
    return re.sub(r"[\s_-]", "", name).casefold()


def column_among(columns: Iterable[Any], names: tuple[str, ...], where: str) -> Any:
    """The column that has the first of these names. Raises `InputError` where there is none."""
    there = list(columns)
    if (found := named(there, names)) is not None:
        return found
    raise InputError(
        f"{where} has no column {names[0]!r} (or {', '.join(names[1:])}); its columns are {', '.join(map(str, there))[:300]}"
    )


def by_sae(descriptions: Any) -> Mapping[str, Any]:
    """Descriptions by the name of their SAE: of a mapping as it is, of a table or its file by the column `sae`; None has none.

    Raises:
        InputError: no such file, one that is damaged or empty, or a table that does not tell the SAE.
    """
    if descriptions is None:
        return {}
    if isinstance(descriptions, Mapping):
        return {str(name): some for name, some in cast("Mapping[Any, Any]", descriptions).items()}
    table = descriptions
    if isinstance(descriptions, str | Path):
        if not (path := Path(descriptions)).is_file():
            raise InputError(Argument("descriptions"), f" is {str(descriptions)!r}, which is no file; give 'neuronpedia', or a CSV file with columns sae, index, description")  # fmt: skip
        with readable(path):
            table = read_table(path)
    if not hasattr(table, "columns") or "sae" not in table.columns:
        raise InputError(Argument("descriptions"), " have no column 'sae', which tells the SAE of each; give a table with sae, index and description")  # fmt: skip
    return {str(name): rows.drop(columns="sae") for name, rows in table.groupby("sae", sort=False)}
