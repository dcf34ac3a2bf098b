"""The table of descriptions that everything else works on, with where each comes from and what is known of features without one."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fade_lens._util.wording import one_line
from fade_lens.data.descriptions import DESCRIBED, provenance_of
from fade_lens.explainers.table import Explanations
from fade_lens.neuronpedia.records import Imported, Row

if TYPE_CHECKING:
    import pandas as pd

NONE, UNKNOWN = "none", "unknown"
"""A feature without a description was looked up; or was never looked up."""

COLUMNS = (
    "index",
    "description",
    "state",
    "origin",
    "explanation_id",
    "model_id",
    "source_id",
    "type_name",
    "explanation_model_name",
    "created_at",
    "notes",
    "scores",
    "copies",
    "read_from",
)


def frame(found: Imported, indices: Sequence[int] | None = None) -> "pd.DataFrame":
    """One row a description, in the order of the indices, and a row for every feature asked for that has none.

    Columns: `index`, `description`, `state` ("described", "none": looked up and has none, "unknown": never looked up), `origin`,
    `explanation_id`, `model_id`, `source_id`, `type_name`, `explanation_model_name`, `created_at`, `notes`, `scores` (a tuple of
    `Score`), `copies` (how often the same text was given for the feature), `read_from` (the file
    or record). `frame.attrs` has `source`, `complete` (whether
    every feature of the source was looked up) and `repeated` (rows whose text was given before).
    """
    import pandas as pd

    rows = [row for row in found.rows if row.description is not None]
    copies = Counter((row.index, one_line(row.description)) for row in rows)
    records = [record_of(row, copies[row.index, one_line(row.description)]) for row in rows]
    described = {row.index for row in rows}
    # A record without a text says that somebody looked.
    looked_up = set(found.looked_up) | {row.index for row in found.rows}
    wanted = indices if indices is not None else sorted(looked_up)
    for index in dict.fromkeys(wanted):
        if index not in described:
            state = NONE if found.complete or index in looked_up else UNKNOWN
            records.append(empty_record(index, state, found))
    place = {index: at for at, index in enumerate(dict.fromkeys(indices or ()))}
    records.sort(key=lambda record: (place.get(record["index"], 0), record["index"]))
    table = pd.DataFrame(records, columns=list(COLUMNS))
    # None stays None, whatever pandas makes of texts.
    table["description"] = pd.Series([record["description"] for record in records], dtype=object)
    table.attrs = {
        "source": str(found.source) if found.source else "",
        "complete": found.complete,
        "repeated": len(rows) - len(copies),
    }
    return table


def explained(explanations: Explanations) -> "pd.DataFrame":
    """The table of features that were explained here, those without a description included, whose reason stands in `notes`."""
    rows: list[Row] = []
    for one in explanations.rows:
        text, about = None if one.description is None else one.description.text, one.provenance
        why = str(one.reason or "")
        rows.append(Row(one.index, text, type_name=about.method, explanation_model_name=about.explainer, notes=why))
    return frame(Imported(rows=tuple(rows), looked_up=frozenset(row.index for row in rows)))


def record_of(row: Row, copies: int) -> dict[str, Any]:
    """A row of the table."""
    record = {
        "index": row.index,
        "description": row.description,
        "state": DESCRIBED,
        "origin": "",
        "explanation_id": row.explanation_id,
        "model_id": row.model_id,
        "source_id": row.source_id,
        "type_name": row.type_name,
        "explanation_model_name": row.explanation_model_name,
        "created_at": row.created_at,
        "notes": row.notes,
        "scores": row.scores,
        "copies": copies,
        "read_from": row.origin,
    }
    return {**record, "origin": str(provenance_of(record))}


def empty_record(index: int, state: str, found: Imported) -> dict[str, Any]:
    """The row of a feature without a description."""
    blank = dict.fromkeys(COLUMNS, "")
    source = found.source
    named = {"model_id": source.model_id, "source_id": source.source_id} if source else {}
    return {**blank, "index": index, "description": None, "state": state, "scores": (), "copies": 0, **named}
