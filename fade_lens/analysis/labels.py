"""What is known of latents, for a map: descriptions and numbers such as scores, from whatever people keep them in."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import TABLES, clean, kind_of, open_plain, read_table, readable, table_of
from fade_lens.analysis.release import NEURONPEDIA, Release
from fade_lens.data.descriptions import read_descriptions
from fade_lens.data.rows import RULES_COLUMNS, TEXT_COLUMNS, by_sae, is_null, named, numbered, with_columns
from fade_lens.neuronpedia import descriptions
from fade_lens.neuronpedia.errors import NotThereError
from fade_lens.runs.results import RESULTS_FILE, Results

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("sae", "index", "description")
IMPORTED = frozenset({"state", "copies"})
"""The columns by which a table imported from Neuronpedia is known; none of its columns is a score."""
SAVED = (b"SQLite format 3\0", b'{"format": ')
"""How a file of results begins, now and in earlier formats, unpacked."""
MOSTLY = 0.5
"""The share of a column's cells, empty ones left out, that make it numbers."""


def check_labels(given: Any) -> None:
    """Raise `InputError` for what names a file or folder that is not there: before weights are read."""
    if isinstance(given, str | Path) and given != NEURONPEDIA and not Path(given).exists():
        raise InputError(Argument("descriptions"), f" is {str(given)!r}, which is no file or folder, nor {NEURONPEDIA!r}")  # fmt: skip


def labels_of(
    given: Any, saes: Mapping[str, Any], absent: Collection[str] = ()
) -> "tuple[dict[str, pd.DataFrame], list[str]]":
    """Descriptions and numbers by SAE: columns index, description and any others of numbers, a row a latent; and what is missing, in sentences.

    Args:
        given: "neuronpedia"; a `Release`, or the folder of one; for a single SAE also `Results`, their file or folder, or what `Fade.evaluate` takes;
            by the names of several SAEs any of these in a dict; or a table, or its file, with a column `sae`. None: nothing is known.
        saes: by name, the SAEs of the map.
        absent: names of SAEs that could not be loaded, which may have descriptions too.

    Raises:
        InputError: none of these, of an SAE that is not on the map, or of a latent that its SAE does not have.
        NeuronpediaError: Neuronpedia cannot be read. That it does not have an SAE is one of the sentences, and the others go on.
    """
    found, missing = dict[str, "pd.DataFrame"](), list[str]()
    for name, part in parts_of(given, saes).items():
        if name not in saes:
            if name not in absent:
                raise InputError(Argument("descriptions"), f" are of {name!r}, which is none of the SAEs{suggest(name, saes)}")  # fmt: skip
            continue
        try:
            table: Any = labelled(descriptions(saes[name]) if is_word(part) else part)
        except (InputError, NotThereError) as error:
            if not is_word(part):
                raise
            missing.append(f"{name} has no descriptions on Neuronpedia: {error}")
            continue
        found[name], width = table, int(saes[name].cfg.d_sae)
        last = int(table["index"].max()) if len(table) else 0
        if last >= width:
            raise InputError(Argument("descriptions"), f" are of latent {last} of {name!r}, which has {width:,}; give those of this SAE")  # fmt: skip
    return found, missing


def is_word(given: Any) -> bool:
    """Whether it is the word for what Neuronpedia has."""
    return isinstance(given, str) and given == NEURONPEDIA


def parts_of(given: Any, saes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is given of each SAE."""
    if given is None:
        return {}
    if is_word(given):
        return dict.fromkeys(saes, given)
    if isinstance(given, Release):
        found: dict[str, Any] = {name: results for name, results in given.results.items() if name in saes}
        of = f"those of a release of {', '.join(list(given.results)[:3])}"
    elif isinstance(given, str | Path) and (folder := Path(given)).is_dir():
        places = {name: folder / Release.place(name) for name in saes}
        found, of = {name: place for name, place in places.items() if (place / RESULTS_FILE).is_file()}, f"in the folder {str(given)!r}"  # fmt: skip
    else:
        table = table_at(given)
        if table is not None and "sae" in table.columns:
            return by_sae(table)
        if isinstance(given, Mapping) and {*map(str, cast("Mapping[Any, Any]", given))} & {*saes}:
            return by_sae(given)
        if len(saes) == 1:
            return {next(iter(saes)): given}
        if isinstance(given, Results):
            raise InputError(Argument("descriptions"), f" are results of one SAE, and the map has {len(saes)}; give them in a dict by the SAE's name")  # fmt: skip
        return by_sae(given)
    if not found and len(saes) == 1 and not isinstance(given, Release):
        return {next(iter(saes)): given}
    if not found:
        raise InputError(Argument("descriptions"), f" are {of}, which holds no run of these SAEs: {', '.join(list(saes)[:3])}")  # fmt: skip
    return found


def table_at(given: Any) -> "pd.DataFrame | None":
    """A DataFrame, or the table in a file; None for anything else."""
    if isinstance(given, str | Path) and kind_of(path := Path(given)) in TABLES:
        check_labels(given)
        with readable(path):
            return read_table(path)
    return cast(Any, given) if hasattr(given, "columns") else None


def results_at(given: Any) -> Results | None:
    """Results, or those of a file or a run's folder; None for anything else."""
    if not isinstance(given, str | Path):
        return given if isinstance(given, Results) else None
    path = Path(given)
    if path.is_dir():
        return None if any(path.glob("*.txt")) else Results.load(path)  # Delphi's folder holds a text a latent
    if not path.is_file():
        return None
    with readable(path), open_plain(path) as file:
        return Results.load(path) if file.read(len(SAVED[0])).startswith(SAVED) else None


def labelled(given: Any) -> "pd.DataFrame":
    """One SAE's latents: index, description (the first of several) and numbers."""
    import pandas as pd

    if (results := results_at(given)) is not None:
        scores = [spec.name for spec in results.specs if spec.name in results.frame]
        frame: Any = results.frame
        return frame[["index", "description", *scores]].drop_duplicates("index")
    if (table := table_at(given)) is None:
        return texts_of(given)
    table = table.loc[:, ~table.columns.duplicated()]
    rules = named(table.columns, RULES_COLUMNS)
    if rules is None and named(table.columns, TEXT_COLUMNS) is None:  # numbers alone
        table = table.assign(description=None)
    table, index, text = with_columns(table, Path(given).name if isinstance(given, str | Path) else "the table of descriptions")  # fmt: skip
    said = [not all(map(is_null, cells)) for cells in zip(table[text], table[rules or text], strict=True)]
    texts = texts_of(given if all(said) else table[said]) if any(said) else None
    table = table[~table[index].map(is_null).astype(bool)].reset_index(drop=True)
    names = [] if set(table.columns) >= IMPORTED else [c for c in table.columns if c not in (index, text) and str(c) not in KEYS and not str(c).endswith(("_low", "_high"))]  # fmt: skip
    numbers = {clean(str(name)): values for name in names if (values := numbers_of(table[name])) is not None}
    indices = np.array([numbered(cell)[1] for cell in table[index]], dtype=np.int64)
    found: Any = pd.DataFrame({"index": indices, **numbers}).drop_duplicates("index")
    found = found.assign(description=None) if texts is None else found.merge(texts, on="index", how="left")
    return found[["index", "description", *numbers]]


def texts_of(given: Any) -> "pd.DataFrame":
    """The first description of each latent."""
    return table_of({"index": d.index, "description": d.text} for d in read_descriptions(given)).drop_duplicates("index")  # fmt: skip


def numbers_of(column: Any) -> "pd.Series | None":
    """A column's cells as numbers, true and false as 1 and 0; None for a column of something else."""
    import pandas as pd

    words = column[~column.map(is_null).astype(bool)].map(str).str.strip()
    numbers: Any = pd.to_numeric(words.replace({"True": "1", "False": "0"}), errors="coerce")
    numbers = numbers.astype("float64")
    return numbers.reindex(column.index) if len(numbers) and numbers.notna().mean() >= MOSTLY else None
