"""Descriptions in files and folders that a user holds: bulk data, legacy exports, API answers, dashboard batches, plain tables."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from fade_lens._util.errors import InputError
from fade_lens._util.files import TABLES, json_lines, json_value, kind_of, read_table, readable
from fade_lens.data.descriptions import one_place
from fade_lens.data.rows import INDEX_COLUMNS, TEXT_COLUMNS, is_null, named, records_in, with_columns
from fade_lens.neuronpedia import bulk
from fade_lens.neuronpedia.ids import SourceId
from fade_lens.neuronpedia.records import Imported, Row, feature_of, records_of, row_of, word

KINDS = ("explanations", "features", "activations")
JSON = (".json", ".jsonl")


def read_path(path: Path, indices: Collection[int] | None = None, activations: int = 0) -> Imported:
    """All that a file or folder holds, its shape recognized; of stored contexts as many as asked for.

    Raises:
        InputError: no such path, nothing in it that is known, several sources in one folder, a broken file.
    """
    if path.is_dir():
        found = read_folder(path, indices, activations)
    elif path.is_file():
        found = read_file(path, activations)
    else:
        raise InputError(f"{str(path)!r} does not exist; give a file, a folder, or an id such as gpt2-small/8-res-jb")
    return found if indices is None else found.of(indices)


def read_folder(folder: Path, indices: Collection[int] | None, activations: int) -> Imported:
    """A folder in the bulk layout (that of a source, or one above it), or of dashboard batches, or of explanation batches alone."""
    sources = sorted(
        {p.parent for p in folder.rglob("explanations") if p.is_dir()}
        | {p.parent for p in folder.rglob("source.jsonl*")}
    )
    if len(sources) > 1:
        names = ", ".join(str(p.relative_to(folder)) for p in sources[:5])
        raise InputError(f"folder {folder.name!r} holds {len(sources)} sources ({names}, …); give one of them")
    if sources:
        return read_source_folder(sources[0], indices, activations)
    batches = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p) in JSON)
    if not batches:
        raise InputError(
            f"folder {folder.name!r} holds no Neuronpedia data: neither explanations/batch-N.jsonl.gz nor batch-N.json"
        )
    return Imported.together(read_file(path, activations) for path in batches)


def read_source_folder(folder: Path, indices: Collection[int] | None, activations: int) -> Imported:
    """The bulk layout: `explanations/`, and `features/`, `activations/` and `source.jsonl` where they are there."""
    files = {kind: batches_in(folder / kind) for kind in KINDS}
    config_file = next(iter(sorted(folder.glob("source.jsonl*"))), None)
    config = next((record for _, record in json_lines(config_file)), {}) if config_file is not None else {}
    rows = tuple(bulk.explanation_rows(files["explanations"], None, indices))
    source = source_of(rows) or source_of_config(config)
    return Imported(
        source=source,
        rows=rows,
        stats=bulk.feature_stats(files["features"], indices),
        activations=tuple(bulk.activation_rows(files["activations"], activations, wanted=indices))
        if activations
        else (),
        complete=bool(files["explanations"]),
        config=config,
    )


def batches_in(folder: Path) -> list[Path]:
    """The batches of a folder; the order says nothing about the indices in them."""
    return sorted(p for p in folder.iterdir() if p.is_file() and bulk.is_batch(p.name)) if folder.is_dir() else []


def read_file(path: Path, activations: int = 0) -> Imported:
    """One file, its shape recognized from what it holds."""
    kind = kind_of(path)
    if kind in TABLES:
        rows = table_rows(path)
        return Imported(source_of(rows), rows, looked_up=frozenset(row.index for row in rows))
    if kind == ".jsonl":
        records = list(json_lines(path))
        if records and "feature_index" not in records[0][1] and "tokens" in records[0][1]:
            return Imported(activations=tuple(bulk.activation_rows([path], activations)))
        return of_records(records)
    if kind == ".json":
        return of_value(json_value(path), path.name)
    raise InputError(
        f"{path.name!r} is of a kind that is not read; give .jsonl, .json, .csv or .parquet (or .gz of the first two)"
    )


def of_value(value: Any, where: str) -> Imported:
    """A JSON value: a legacy export in either shape, an API answer, a dashboard batch, `{index: text}`."""
    if isinstance(value, list):
        return of_records([(f"{where}, entry {n}", r) for n, r in enumerate(records_of(value))], complete=True)
    if not isinstance(value, dict):
        raise InputError(f"{where} is {type(value).__name__}; it must hold a list of descriptions or an object")
    record = cast(dict[str, Any], value)
    if "newUrl" in record and "explanations" not in record:
        raise InputError(
            f"{where} is not an export: it is Neuronpedia's answer that the endpoint was removed; "
            'fade_lens.neuronpedia.descriptions("MODEL/SOURCE") reads the bulk data that replaced it'
        )
    if isinstance(record.get("features"), list):
        return of_dashboard(record, where)
    if isinstance(record.get("explanations"), list):
        if named(record, INDEX_COLUMNS) is not None:
            return feature_of(record, where)
        return of_records(
            [(f"{where}, entry {n}", r) for n, r in enumerate(records_of(record["explanations"]))], complete=True
        )
    return of_records([(where, row) for row in records_in(record, where)])


def of_records(records: Iterable[tuple[str, Mapping[str, Any]]], complete: bool = False) -> Imported:
    """Descriptions one a record; records that hold a whole feature are taken apart."""
    rows: list[Row] = []
    features: list[Imported] = []
    for where, record in records:
        if isinstance(record.get("explanations"), list) or isinstance(record.get("activations"), list):
            features.append(feature_of(record, where))
        elif named(record, TEXT_COLUMNS) is None:
            raise InputError(f"{where} has no description; it has {', '.join(map(str, record))[:160]}")
        else:
            rows.append(row_of(record, where))
    looked_up = frozenset(row.index for row in rows)
    whole = Imported(source_of(rows), tuple(rows), looked_up=looked_up, complete=complete)
    return Imported.together([*features, whole])


def of_dashboard(record: dict[str, Any], where: str) -> Imported:
    """A batch that SAEDashboard wrote: statistics and contexts; descriptions only where somebody added them."""
    layer, model = word(record, "layer"), word(record, "model_id")
    name = "-".join(part for part in (layer, word(record, "sae_set")) if part)
    suffix = word(record, "sae_id_suffix")
    source = SourceId.named(model, f"{name}__{suffix}" if suffix else name)
    features = enumerate(records_of(record["features"]))
    return Imported.together(
        [Imported(source), *(feature_of(feature, f"{where}, feature {n}", source) for n, feature in features)]
    )


def table_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a table with a column for the index and one for the description, and whatever provenance it has."""
    with readable(path):
        table = read_table(path)
    return rows_of_table(table, path.name)


def rows_of_table(table: Any, where: str) -> tuple[Row, ...]:
    """The rows of a DataFrame, its own index standing in where no column names the feature; empty ones are left out."""
    table, index, text = with_columns(table, where)
    table = table.rename(columns={index: "index", text: "description"})
    records = cast(list[dict[str, Any]], table.to_dict("records"))
    return tuple(row_of(r, where) for r in records if not (is_null(r["index"]) and is_null(r["description"])))


def source_of(rows: Iterable[Row]) -> SourceId | None:
    """The source that all rows name, None where they name none. Raises `InputError` where they name several."""
    found = {(row.model_id, row.source_id) for row in rows if row.model_id and row.source_id}
    one_place(map("/".join, found), "the data")
    return SourceId.named(*found.pop()) if found else None


def source_of_config(config: dict[str, Any]) -> SourceId | None:
    """The source that a `source.jsonl` names."""
    model, source = word(config, "modelId", "model_id"), word(config, "id", "sourceId", "source_id")
    return SourceId.named(model, source)
