"""What is known of latents, for a map: descriptions and numbers such as scores, from whatever people keep them in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import read_table, readable
from fade_lens.analysis.release import NEURONPEDIA, Release
from fade_lens.data.descriptions import read_descriptions
from fade_lens.data.rows import INDEX_COLUMNS, by_sae, named, whole_number
from fade_lens.runs.results import Results

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("sae", "index", "description")
MOSTLY = 0.5
"""The share of a column's cells that make it numbers."""


def labels_of(given: Any, saes: Mapping[str, Any]) -> dict[str, "pd.DataFrame"]:
    """Descriptions and numbers by SAE: columns index, description and any others of numbers, a row a latent.

    Args:
        given: "neuronpedia"; a `Release`, or the folder of one; for a single SAE also `Results`, their file, or what `Fade.evaluate` takes;
            by the names of several SAEs any of these in a dict; or a table, or its file, with a column `sae`. None: nothing is known.
        saes: by name, the SAEs of the map.

    Raises:
        InputError: none of these, or of an SAE that is not on the map.
    """
    if given is None:
        return {}
    if isinstance(given, str) and given == NEURONPEDIA:
        from fade_lens.neuronpedia import descriptions

        return {name: labelled(descriptions(sae)) for name, sae in saes.items()}
    if isinstance(given, Release):
        return {name: labelled(results) for name, results in given.results.items() if name in saes}
    if isinstance(given, str | Path) and (folder := Path(given)).is_dir():
        found = {name: folder / Release.place(name) for name in saes if (folder / Release.place(name)).is_dir()}
        if not found and len(saes) > 1:
            raise InputError(Argument("descriptions"), f" is the folder {str(given)!r}, which holds no run of these SAEs: {', '.join(list(saes)[:3])}")  # fmt: skip
        return {name: labelled(Results.load(run)) for name, run in found.items()} or {next(iter(saes)): labelled(Results.load(folder))}  # fmt: skip
    if len(saes) == 1 and not told_apart(given, saes):
        return {next(iter(saes)): labelled(given)}
    if isinstance(given, Results):
        raise InputError(Argument("descriptions"), f" are results of one SAE, and the map has {len(saes)}; give them in a dict by the SAE's name")  # fmt: skip
    parts = by_sae(given)
    for name in parts:
        if name not in saes:
            raise InputError(Argument("descriptions"), f" are of {name!r}, which is none of the SAEs{suggest(name, saes)}")  # fmt: skip
    return {name: labelled(part) for name, part in parts.items()}


def told_apart(given: Any, saes: Mapping[str, Any]) -> bool:
    """Whether descriptions say which SAE they are of."""
    if isinstance(given, Mapping):
        return bool({*map(str, cast("Mapping[Any, Any]", given))} & set(saes))
    table = table_at(given)
    return table is not None and "sae" in table.columns


def table_at(given: Any) -> "pd.DataFrame | None":
    """A DataFrame, or the table in a file; None for anything else."""
    if isinstance(given, str | Path) and (path := Path(given)).suffix in (".csv", ".tsv", ".parquet"):
        if not path.is_file():
            raise InputError(Argument("descriptions"), f" is {str(given)!r}, which is no file")
        with readable(path):
            return read_table(path)
    return cast(Any, given) if hasattr(given, "columns") else None


def labelled(given: Any) -> "pd.DataFrame":
    """One SAE's latents: index, description (the first of several) and numbers."""
    import pandas as pd

    if isinstance(given, Results):
        scores = [spec.name for spec in given.specs if spec.name in given.frame]
        frame: Any = given.frame
        return frame[["index", "description", *scores]].drop_duplicates("index")
    texts = pd.DataFrame([(d.index, d.text) for d in read_descriptions(given)], columns=["index", "description"])
    texts, table = texts.drop_duplicates("index"), table_at(given)
    if table is None or (column := named(list(table.columns), INDEX_COLUMNS)) is None:
        return texts
    numbers: dict[Any, Any] = {
        name: pd.to_numeric(table[name], errors="coerce") for name in scored(list(table.columns), column)
    }
    kept = {name: values for name, values in numbers.items() if values.notna().mean() >= MOSTLY}
    found = pd.DataFrame({"index": [whole_number(i) for i in table[column]], **kept}).drop_duplicates("index")
    return found.merge(texts, on="index", how="left")


def scored(columns: Sequence[Any], index: Any) -> list[Any]:
    """The columns that may be scores: neither keys nor the ends of intervals."""
    return [c for c in columns if c != index and str(c) not in KEYS and not str(c).endswith(("_low", "_high"))]
