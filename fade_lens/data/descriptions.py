"""Descriptions of features: what is to be judged, and reading them from whatever a user holds."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import kind_of, read_table, readable
from fade_lens._util.reasons import Reason
from fade_lens._util.wording import one_line
from fade_lens.data.rows import Row, file_rows, is_null, numbered, table_rows, whole_number
from fade_lens.data.rules import STRONGEST, Rule, rules_in_words, rules_of

logger = logging.getLogger(__name__)

MOST_FEATURES = 2**24
"""No SAE is wider."""
DESCRIBED = "described"
"""The state of a row with a description, in tables that have rows without one."""
EXPLAINED = frozenset({"index", "description", "explainer"})
"""The columns that a table of `Explanations` has; it is known by these and by one of `TOLD`."""
TOLD = frozenset({"evidence", "shown", "prompt_version", "dropped_rules"})
WINDOW = re.compile(r"(\d{1,12}):(\d{1,12})-(\d{1,12})")
"""A window that was shown: text, first and last token."""


@dataclass(frozen=True, order=True)
class Provenance(Brief):
    """Where a description comes from; its text is that in words.

    Attributes:
        kind: "given" (by the user, in a file or a value), "neuronpedia", "explained" (by an explainer of this library), or "null" (made
            to score nothing).
        source: the file or value, such as "labels.csv" or "a dict"; the Neuronpedia source, such as "gpt2-small/8-res-jb"; or the kind
            of null description, such as "shuffled".
        explainer: the model that wrote it, such as "gpt-4o-mini".
        method: how it was made, such as "oai_token-act-pair", or the name of the explainer, such as "one-shot".
        explanation_id: the id that its source gives it.
        version: of the explainer's prompts.
        evidence: the seed and the corpus that it was explained on.
        shown: windows that the explainer was shown, each as the number of a text and the positions of its first and last token (left out).
        cost: US dollars that the answers cost that it rests on; None where that is not known.
        candidates: descriptions that it was chosen among, by how they do on texts that are not tested on; None where nothing was chosen.

    >>> str(Provenance("neuronpedia", "gpt2-small/8-res-jb", "gpt-4o-mini", "oai_token-act-pair"))
    'Neuronpedia gpt2-small/8-res-jb, gpt-4o-mini (oai_token-act-pair)'
    """

    kind: Literal["given", "neuronpedia", "explained", "null"] = "given"
    source: str = ""
    explainer: str = ""
    method: str = ""
    explanation_id: str = ""
    version: str = ""
    evidence: str = ""
    shown: tuple[tuple[int, int, int], ...] = field(default=(), compare=False, repr=False)
    cost: float | None = field(default=None, compare=False)
    candidates: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.kind == "null":
            return f"null:{self.source}"
        place = f"Neuronpedia {self.source}" if self.kind == "neuronpedia" else self.source
        return ", ".join(filter(None, (place, self.maker)))

    @property
    def maker(self) -> str:
        """Who wrote it and how; "" where that is not known."""
        return " ".join(filter(None, (self.explainer, self.method and f"({self.method})")))


@dataclass(frozen=True, order=True, init=False)
class Description(Brief):
    """A claim about one feature.

    Attributes:
        index: the feature's index in its SAE or hook.
        text: the description as it was given.
        provenance: where it came from, for the record; words alone are the source of one that was given.
        rules: where it is made of rules: each one's text and its strength, 0 to 5; the text above is then made of them.
    """

    index: int
    text: str
    provenance: Provenance
    rules: tuple[Rule, ...] = ()

    def __init__(self, index: int, text: str, provenance: Provenance | str = "", rules: tuple[Rule, ...] = ()) -> None:
        made = Provenance(source=provenance) if isinstance(provenance, str) else provenance
        for name, value in (("index", index), ("text", text), ("provenance", made), ("rules", rules)):
            object.__setattr__(self, name, value)

    @property
    def id(self) -> str:
        """What names this description in a run: the feature, the text, the rules, and its explainer: two may say the same, to be compared."""
        maker = f" {self.provenance.maker}" if self.provenance.kind == "explained" else ""
        return f"{self.words}{json.dumps(self.rules) if self.rules else ''}{maker}"

    @property
    def words(self) -> str:
        """What decides the questions about it: the feature and the text, so that who asks about the same words shares the answers."""
        return f"{self.index}:{self.text}"

    @property
    def claims(self) -> tuple[Rule, ...]:
        """What it claims, each a text with a strength: its rules, without those of strength 0; or its text at full strength."""
        return tuple(rule for rule in self.rules if rule[1]) if self.rules else ((self.text, STRONGEST),)

    @property
    def alone(self) -> tuple["Description", ...]:
        """Each claim of a description with rules as a description of its own; none for one without."""
        return tuple(Description(self.index, text) for text, _ in self.claims) if self.rules else ()

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return str(self.provenance)

    @property
    def null(self) -> str | None:
        """The kind of null description that it is; None for one that claims something."""
        return self.provenance.source if self.provenance.kind == "null" else None


def read_descriptions(source: Any) -> tuple[Description, ...]:
    """Descriptions from whatever holds them. A feature may have several.

    Args:
        source: a dict `{index: text}`, a Series, a DataFrame, the path of a CSV, TSV, JSON, JSONL or Parquet file (or .gz), or
            `Description`s. A table needs a column for the feature (`index`, `feature`, `latent`, `neuron`) and one for the text
            (`description`, `explanation`, `label`, `concept`), in upper or lower case, or one of `rules` (see
            `fade_lens.data.rules.rules_of`), of which a text is made where there is none. Its rows that have no description, and those
            that repeat one, are left out and counted in a warning; in a dict and among `Description`s either is an error.

    Raises:
        InputError: nothing given, an index that is no whole number, rows of several layers or models, no such column, a damaged file.
    """
    if isinstance(source, str | Path):
        if (table := explanations_in(source)[0]) is not None:
            return explained(table, Path(source).name)
        rows, origin = file_rows(Path(source)), Path(source).name
    elif isinstance(source, Mapping):
        given = cast(Mapping[Any, Any], source)
        one_place({numbered(index)[0] for index in given}, "the dict")
        return checked((numbered(index)[1], text, Provenance(source="a dict")) for index, text in given.items())
    elif hasattr(source, "columns") and {"state", "copies"} <= set(source.columns):
        return imported(source)
    elif hasattr(source, "columns") and is_explained(source):
        return explained(source, "the table")
    elif hasattr(source, "columns"):
        rows, origin = table_rows(source, "the DataFrame"), "a DataFrame"
    elif hasattr(source, "items"):
        rows, origin = [Row("", index, text) for index, text in source.items()], "a Series"
    elif (
        isinstance(source, Iterable)
        and (given := list(cast(Iterable[Any], source)))
        and isinstance(given[0], Description)
    ):
        return checked((d.index, d.text, d.provenance, d.rules) for d in given)
    else:
        raise InputError(
            f"descriptions is {type(source).__name__}; give a dict {{index: text}}, a Series, a DataFrame with columns "
            "'index' and 'description', or the path of a CSV, JSON or JSONL file"
        )
    return checked((index, text, Provenance(source=origin), rules) for index, text, rules in sound(rows, origin))


def undescribed(source: Any) -> tuple[tuple[Description, ...], tuple[int, ...]]:
    """The descriptions of a source that may have none for some features, and the indices of these.

    Args:
        source: as `read_descriptions` takes it, empty descriptions (None, NaN, blanks) included, or feature indices alone.

    Raises:
        InputError: as `read_descriptions`; or every feature is described.
    """
    if isinstance(source, Mapping):
        rows = [Row("", *row) for row in cast(Mapping[Any, Any], source).items()]
    elif isinstance(source, str | Path):
        rows = file_rows(Path(source))
    elif hasattr(source, "columns"):
        rows = table_rows(source, "the DataFrame")
    elif hasattr(source, "items"):
        rows = [Row("", index, text) for index, text in source.items()]
    elif isinstance(source, Iterable):
        given = list(cast("Iterable[Any]", source))
        rows = [Row("", one, None) for one in given if not isinstance(one, Description)]
        source = [one for one in given if isinstance(one, Description)]
    else:
        raise InputError(
            f"descriptions is {source!r:.80}; give feature indices, such as [9, 11], or a dict {{index: text or None}}"
        )
    bare = [row for row in rows if is_null(row.text) and not rules_of(row.rules, f"feature {row.index}")]
    indices = [numbered(row.index)[1] for row in bare]
    if not indices:
        raise InputError(
            "every feature has a description, so that there is nothing to explain; leave explainer out, or name more features"
        )
    if isinstance(source, Mapping):
        source = {index: text for index, text in cast(Mapping[Any, Any], source).items() if not is_null(text)}
    some = len(indices) < len(rows) or (isinstance(source, list) and source)
    described = read_descriptions(source) if some else ()
    known = {d.index for d in described}
    return described, tuple(dict.fromkeys(index for index in indices if index not in known))


def sound(rows: Iterable[Row], origin: str) -> list[tuple[int, str, tuple[Rule, ...]]]:
    """The rows of a table that describe a feature, each once; how many others there are is told."""
    found: dict[tuple[int, str, tuple[Rule, ...]], None] = {}
    places: set[str] = set()
    empty = repeated = 0
    for number, (place, given, text, cell) in enumerate(rows, 1):
        rules = rules_of(cell, f"{origin}, row {number}")
        text = rules_in_words(rules) if is_null(text) else text
        if is_null(text):
            empty += 1
            continue
        if is_null(given):
            raise InputError(f"{origin}, row {number}: the description {text!r:.80} has no feature index")
        if not isinstance(text, str):
            raise InputError(
                f"{origin}, row {number}: the description is {type(text).__name__} ({text!r:.80}), not a text"
            )
        inside, index = numbered(given)
        places.add("/".join(filter(None, (place, inside))))
        repeated += (row := (index, one_line(text), rules)) in found
        found[row] = None
    one_place(places, origin)
    if empty or repeated:
        logger.warning(
            "%s: %d descriptions; %d rows have none and %d repeat one: left out", origin, len(found), empty, repeated
        )
        if not found:
            raise InputError(f"none of the {empty} rows of {origin} has a description; give at least one")
    return list(found)


def one_place(places: Iterable[str], origin: str) -> None:
    """Raises `InputError` where descriptions of several layers or models are together."""
    if len(several := sorted(filter(None, set(places)))) > 1:
        raise InputError(
            f"{origin} has descriptions of {len(several)} sources ({', '.join(several[:4])}), whose indices mean "
            "different features; give the rows of one"
        )


def explanations_in(source: Any) -> tuple[Any, str]:
    """The table of a DataFrame, or of a CSV file, that `Explanations` wrote, and what it is called; None for anything else."""
    if hasattr(source, "columns"):
        table, where = source, "the table"
    elif not isinstance(source, str | Path) or kind_of(path := Path(source)) != ".csv" or not path.is_file():
        return None, ""
    else:
        with readable(path):
            table, where = read_table(path), path.name
    return (table if is_explained(table) else None), where


def is_explained(table: Any) -> bool:
    """Whether a table is one of `Explanations`, maybe with some of its columns taken out."""
    return set(table.columns) >= EXPLAINED and bool(TOLD & set(table.columns))


def explained(table: Any, where: str) -> tuple[Description, ...]:
    """The descriptions of a table of `Explanations`, each with its rules and what is known of how it was made."""
    rows = explained_rows(table, where)
    found = [(index, text, about, rules) for index, text, about, rules, reason in rows if reason is None]
    if not found:
        told = ", ".join(f"{n} {code}" for code, n in Counter(row[-1].code for row in rows if row[-1]).most_common())
        raise InputError(
            f"none of the {len(table)} features of {where} has a description ({told or 'no rows'}); explain others"
        )
    if left_out := len(rows) - len(found):
        logger.warning("%s: %d features have no description, and are left out", where, left_out)
    return checked(found)


def explained_rows(table: Any, where: str) -> list[tuple[int, str, Provenance, tuple[Rule, ...], Reason | None]]:
    """The rows of a table of `Explanations`: index, text, provenance, rules, and the reason of one without a description."""

    def row(given: Mapping[str, Any]) -> tuple[int, str, Provenance, tuple[Rule, ...], Reason | None]:
        index, text = whole_number(given["index"]), given["description"]
        missing = is_null(text) or not one_line(str(text))
        code, words = (given.get(name) for name in ("reason_code", "reason"))
        why = Reason(str(code), str(words)) if not (is_null(code) or is_null(words)) else Reason("empty", "its row has no description")  # fmt: skip
        return index, "" if missing else one_line(str(text)), *told_of(given, where), why if missing else None

    return [row(given) for given in table.to_dict("records")]


def told_of(row: Mapping[str, Any], where: str) -> tuple[Provenance, tuple[Rule, ...]]:
    """Provenance and rules of a row of a table of explanations."""

    def word(name: str) -> str:
        return "" if is_null(given := row.get(name)) else str(given)

    place = f"{where}, feature {row['index']}"
    about = Provenance(
        "explained", explainer=word("model"), method=word("explainer"), version=word("prompt_version"),
        evidence=word("evidence"), shown=windows_of(word("shown"), place), cost=number_of(row, "judge_cost", place),
        candidates=None if (n := number_of(row, "search_candidates", place)) is None else round(n),
    )  # fmt: skip
    return about, rules_of(row.get("rules"), place)


def windows_of(text: str, place: str) -> tuple[tuple[int, int, int], ...]:
    """The windows that a row says were shown."""
    found = [WINDOW.fullmatch(part) for part in text.split()]
    windows = tuple((int(m[1]), int(m[2]), int(m[3])) for m in found if m)
    if len(windows) < len(found) or any(first >= last for _, first, last in windows):
        raise InputError(f"{place}: shown is {text!r:.80}; leave it as `Explanations.to_csv` wrote it (TEXT:FIRST-LAST …), or empty")  # fmt: skip
    return windows


def number_of(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """The number in a column of a row; None where it has none."""
    given: Any = row.get(name)
    if is_null(given):
        return None
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{place}: {name} is {given!r:.80}; give a number, or nothing where it is not known")
    return number


def imported(table: Any) -> tuple[Description, ...]:
    """The descriptions of a table that was imported from Neuronpedia, each with its origin."""
    kept = usable(table)
    if not len(kept):
        raise InputError(
            f"none of the {len(table)} rows imported from Neuronpedia has a description; import other features"
        )
    one_place(map("/".join, zip(kept["model_id"], kept["source_id"], strict=True)), "the table")
    return checked((row["index"], row["description"], provenance_of(row)) for row in kept.to_dict("records"))


def provenance_of(row: Mapping[str, Any]) -> Provenance:
    """The provenance of a row of an imported table: of Neuronpedia where it names a model and a source there, else its own origin."""
    place = "/".join(filter(None, (row["model_id"], row["source_id"])))
    known = row["explanation_model_name"], row["type_name"], row["explanation_id"]
    named = row["model_id"] and row["source_id"]
    return Provenance("neuronpedia", place, *known) if named else Provenance("given", row.get("read_from", ""), *known)


def usable(table: Any) -> Any:
    """The rows of an imported table that can be scored: with a text, each text of a feature once."""
    kept = table[(table["state"] == DESCRIBED) & table["description"].map(lambda text: bool(one_line(text)))]
    return kept[~kept.assign(text=kept["description"].map(one_line)).duplicated(["index", "text"])]


def checked(
    rows: Iterable[tuple[Any, Any, Provenance] | tuple[Any, Any, Provenance, tuple[Rule, ...]]],
) -> tuple[Description, ...]:
    """The rows as descriptions, each one sound and there once."""
    found: dict[str, Description] = {}
    for raw_index, text, provenance, *given in rows:
        index = whole_number(raw_index)
        rules = rules_of(given[0], f"feature {index}") if given else ()
        text = rules_in_words(rules) if is_null(text) and rules else text
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"the description of feature {index} is empty ({text!r}); leave the feature out or describe it"
            )
        description = Description(index, one_line(text), provenance, rules)
        if description.id in found:
            raise InputError(f"feature {index} has the same description twice ({text!r:.80}); give each once")
        found[description.id] = description
    if not found:
        raise InputError("no descriptions were given; give at least one, such as {9: \"the word 'new'\"}")
    return tuple(found.values())


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
                Argument("features"), f" {spec!r}: {part!r} is neither a number nor START:END, as in 0:200,512"
            ) from None
        if not asked or asked.start < 0 or asked.stop > MOST_FEATURES:
            raise InputError(
                Argument("features"), f" {spec!r}: {part!r} names no features between 0 and {MOST_FEATURES:,}"
            )
        chosen += asked
    return tuple(dict.fromkeys(chosen))
