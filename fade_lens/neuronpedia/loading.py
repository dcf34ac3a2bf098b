"""One way in: descriptions of an SAE's features, of an id, of a file or folder, as a table."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fade_lens._util.errors import InputError
from fade_lens._util.files import TABLES
from fade_lens._util.wording import one_line
from fade_lens.data.rows import whole_number
from fade_lens.neuronpedia.api import read_feature, read_features
from fade_lens.neuronpedia.bulk import read_bulk
from fade_lens.neuronpedia.files import JSON, read_path, rows_of_table, source_of
from fade_lens.neuronpedia.frames import frame
from fade_lens.neuronpedia.ids import Hosts
from fade_lens.neuronpedia.records import Imported
from fade_lens.neuronpedia.resolving import resolve
from fade_lens.neuronpedia.transport import Web

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)
Key = TypeVar("Key")

ONE_BY_ONE = 50
"""Features of a source that the bulk data does not have are asked for one by one, up to this many."""


def load(
    source: Any,
    indices: Iterable[int] | None = None,
    *,
    activations: int = 0,
    stats: bool = False,
    scores: bool = False,
    hosts: Hosts | None = None,
    web: Web | None = None,
) -> Imported:
    """All that a source holds, or what it holds of some features.

    Args:
        source: an SAE, an id such as "gpt2-small/8-res-jb", the path of a file or folder, or a DataFrame.
        indices: features; None for all that have a description.
        activations: stored contexts to read beside the descriptions (for `check_mapping`).
        stats: read what Neuronpedia knows of the features beside descriptions (firing rate, largest activation).
        scores: ask the API, feature by feature, for the scores and statistics that the bulk data does not have.
        hosts: where Neuronpedia is.
        web: the HTTP client.

    Raises:
        InputError: no such source, file or feature.
        NeuronpediaError: Neuronpedia cannot be read.
    """
    wanted = None if indices is None else tuple(dict.fromkeys(whole_number(i) for i in indices))
    chosen = None if wanted is None else frozenset(wanted)
    if hasattr(source, "columns"):
        found = imported_table(source, "the DataFrame")
        return found if chosen is None else found.of(chosen)
    if (path := path_of(source)) is not None:
        found = read_path(path, chosen, activations)
    else:
        hosts, web = hosts or Hosts(), web or Web()
        name = resolve(source)
        try:
            found = read_bulk(web, hosts, name, chosen, activations, stats)
        except InputError:
            if wanted is None or len(wanted) > ONE_BY_ONE:
                raise
            logger.info("%s is not in the bulk data; its features are asked for one by one", name)
            return read_features(web, hosts, name, wanted)
    if scores:
        if found.source is None:
            raise InputError(
                "scores are asked for by the source's id, which these descriptions do not tell; give the id"
            )
        asked = wanted if wanted is not None else sorted({row.index for row in found.rows})
        found = with_scores(found, read_features(web or Web(), hosts or Hosts(), found.source, asked))
    return found


def path_of(source: Any) -> Path | None:
    """The path that was given, None for an id or an SAE."""
    if isinstance(source, os.PathLike):
        return Path(source)
    if not isinstance(source, str) or "://" in source:
        return None
    path = Path(source).expanduser()
    # "gpt2-small/8-res-jb" could be both: a folder that is there is meant.
    meant = path.is_absolute() or source.startswith(".") or path.suffix.lower() in (*JSON, *TABLES, ".gz")
    return path if meant or path.exists() else None


def with_scores(found: Imported, asked: Imported) -> Imported:
    """The descriptions with the scores that the API has of them, its statistics and contexts."""
    by_id = {row.explanation_id: row.scores for row in asked.rows if row.explanation_id}
    by_text = {(row.index, one_line(row.description)): row.scores for row in asked.rows}
    rows = tuple(
        replace(
            row, scores=by_id.get(row.explanation_id) or by_text.get((row.index, one_line(row.description)), row.scores)
        )
        for row in found.rows
    )
    return replace(found, rows=rows).join(replace(asked, rows=()))


def descriptions(
    source: Any,
    indices: Iterable[int] | None = None,
    *,
    scores: bool = False,
    hosts: Hosts | None = None,
    web: Web | None = None,
) -> "pd.DataFrame":
    """All descriptions of an SAE's features with their provenance; several of one feature, and repeated ones, are kept.

    A feature asked for that has none is a row with the state "none" (looked up, has none) or "unknown" (never looked up).
    `Fade.evaluate` takes the table as it is. See `frame` for its columns, `load` for the arguments.

    Raises:
        InputError: no such source, file or feature.
        NeuronpediaError: Neuronpedia cannot be read.
    """
    wanted = None if indices is None else [whole_number(i) for i in indices]
    return frame(load(source, wanted, scores=scores, hosts=hosts, web=web), wanted)


def feature(source: Any, index: int, *, hosts: Hosts | None = None, web: Web | None = None) -> Imported:
    """One feature from the API: descriptions with scores, statistics and stored contexts."""
    return read_feature(web or Web(), hosts or Hosts(), resolve(source), whole_number(index))


def from_dataframe(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table that somebody made of an export (columns such as `modelId`, `layer`, `index`, `description`), as `descriptions` gives it.

    A row with neither text nor provenance stands for a feature without a description, as ARENA's notebooks fill them in.
    """
    return frame(imported_table(table, "the DataFrame"))


def from_dataframes(tables: "Mapping[Key, pd.DataFrame]") -> "dict[Key, pd.DataFrame]":
    """Several such tables, one a source, under the names they have."""
    return {name: frame(imported_table(table, f"DataFrame {name!r}")) for name, table in tables.items()}


def imported_table(table: Any, where: str) -> Imported:
    """The rows of a DataFrame."""
    rows = tuple(
        replace(row, description=None)
        if not one_line(row.description or "") and not row.explanation_model_name and not row.model_id
        else row
        for row in rows_of_table(table, where)
    )
    return Imported(source_of(rows), rows, looked_up=frozenset(row.index for row in rows))


def load_and_process_autointerp_dfs(
    source: Any, width: int | None = None, *, hosts: Hosts | None = None, web: Web | None = None
) -> "pd.DataFrame":
    """The table that ARENA's notebooks work with: `width` rows in order, the first description of each latent, "" where it has none.

    Args:
        source: an SAE, an id, or a file of the legacy export.
        width: number of latents; an SAE's own by default, else up to the last one that is described.
    """
    table: Any = descriptions(source, hosts=hosts, web=web)
    described = table[table["state"] == "described"].drop_duplicates("index")
    size = width if width is not None else getattr(getattr(source, "cfg", None), "d_sae", None)
    if size is None:
        size = 1 + max(described["index"], default=-1)
    full = described.set_index("index").reindex(range(int(size))).rename_axis("index").reset_index()
    full["description"] = full["description"].fillna("")
    names = {
        "model_id": "modelId",
        "source_id": "layer",
        "type_name": "typeName",
        "explanation_model_name": "explanationModelName",
    }
    return full[["index", "description", *names]].rename(columns=names)
