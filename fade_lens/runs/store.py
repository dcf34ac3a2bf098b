"""The run store: one SQLite file that keeps everything paid for or computed, so that a run killed at any moment goes on."""

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float

from fade_lens._util.errors import Argument, StoreError
from fade_lens._util.files import clean
from fade_lens._util.grid import Grid
from fade_lens._util.words import clip
from fade_lens.runs.database import checked, checksum, opened, tables_of, to_read, told, transaction

if TYPE_CHECKING:  # heavy: where a run's file lies is asked before torch is there
    from fade_lens.subject.activations import MaxActivations
    from fade_lens.subject.tokens import TokenizedTexts

FILE = "run.sqlite"
SUFFIXES = (".sqlite", ".sqlite3", ".db")
FORMAT, BEFORE = 6, 5
"""Of this version, and the one that it goes on with: rows without a checksum."""
AT_ONCE = 500
"""Rows read at a time: a reader that is slow, or stopped, holds up nobody who writes."""
TOLD = 8
"""Differences that a refusal names; another model differs in dozens."""
SHOWN = 80
"""Characters of a value that it shows; prompts are long."""
COMMITTED_BYTES = 2**26
"""Activations read, or written in one transaction."""
READ = "read as a run store"
PACKAGES = ("fade-lens", "sae-lens", "torch", "transformer-lens", "transformers")

TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER",
    "texts": "number INTEGER PRIMARY KEY, text TEXT NOT NULL, checksum INTEGER",
    "activations": "feature INTEGER PRIMARY KEY, maxima BLOB, positions BLOB, active INTEGER, checksum INTEGER",
    "continuations": "feature INTEGER, control TEXT, factor REAL, texts TEXT NOT NULL, nll TEXT NOT NULL, checksum INTEGER, "
    "PRIMARY KEY (feature, control, factor)",
    "transcripts": "key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL, created REAL NOT NULL, checksum INTEGER",
}


class StoreReader:
    """What a run keeps, read and left as it is; also while the run goes on. Thread-safe; a `with` block closes it.

    Args:
        path: the run's folder, or the store's file.

    Raises:
        StoreError: there is no run store, or it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._lock = file_of(Path(path)), RLock()
        if not self.path.is_file():
            raise StoreError(
                f"{str(path)!r} holds no run store ({FILE}): give the folder that a run was told to write to"
            )
        with told(self.path, READ):
            self._db = to_read(self.path)
            there = tables_of(self._db)
        self._empty = there < TABLES.keys()
        """Whether the run was killed before it had made its tables."""

    # Transcripts (the judge's side; see fade_lens.judge.Transcripts)

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a request's key."""
        rows = self._rows("SELECT * FROM transcripts WHERE key = ?", key)
        return self._parsed(rows[0][2])[0] if rows else None

    def record(self, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The request and the answer kept under a key."""
        rows = self._rows("SELECT * FROM transcripts WHERE key = ?", key)
        return self._parsed(*rows[0][1:3]) if rows else None

    @property
    def answered(self) -> bool:
        """Whether it holds any answer."""
        return bool(self._rows("SELECT 1 FROM transcripts LIMIT 1"))

    def transcripts(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every request and its answer, in the order they were answered, `AT_ONCE` at a time."""
        some, done = "SELECT rowid AS number FROM transcripts WHERE rowid > ? ORDER BY rowid LIMIT ?", 0
        while (last := self._rows(f"SELECT max(number) FROM ({some})", done, AT_ONCE)) and last[0][0] is not None:
            between = "SELECT * FROM transcripts WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
            for _, request, answer, _ in self._rows(between, done, done := last[0][0]):
                yield self._parsed(request, answer)

    # What torch computed

    def activations(self, indices: Sequence[int]) -> "MaxActivations | None":
        """The pass over the corpus for these features, if it holds all of them."""
        counted = self.get_meta("counted")
        if counted is None or {i for (i,) in self._of_features("feature", indices, AT_ONCE)} != set(indices):
            return None
        shape = (len(indices), len(counted))
        values, positions = (Grid(shape, dtype, self.path.parent) for dtype in (np.float32, np.int32))
        active = np.zeros(len(indices), dtype=np.int64)
        columns: defaultdict[int, list[int]] = defaultdict(list)
        for column, index in enumerate(indices):
            columns[index].append(column)
        for index, maxima, places, n in self._of_features("*", list(columns), min(AT_ONCE, in_one(len(counted)))):
            with told(self.path, READ):
                for column in columns[index]:
                    values.rows[column], positions.rows[column] = np.frombuffer(maxima, "<f4"), np.frombuffer(places, "<i4")  # fmt: skip
                    active[column] = n
        values.release()
        positions.release()
        left_out = (int(self.get_meta(name)) for name in ("n_outliers", "n_overflowed"))
        from fade_lens.subject.activations import MaxActivations

        return MaxActivations(values.rows.T, positions.rows.T, np.array(counted, dtype=np.int64), active, *left_out)

    def _of_features(self, columns: str, indices: Sequence[int], at_once: int) -> Iterator[tuple[Any, ...]]:
        """What is kept of the passes over the corpus for some features, in any order."""
        for at in range(0, len(indices), at_once):
            some = [int(index) for index in indices[at : at + at_once]]
            marks = ", ".join("?" * len(some))
            yield from self._rows(f"SELECT {columns} FROM activations WHERE feature IN ({marks})", *some)

    def continuations(self, index: int, factor: float, control: str = "") -> tuple[str, ...] | None:
        """The texts that `keep_continuations` kept."""
        return self._continued(3, index, factor, control)

    def continuations_nll(self, index: int, factor: float, control: str = "") -> tuple[float, ...] | None:
        """The likelihoods that `keep_continuations` kept."""
        return self._continued(4, index, factor, control)

    def _continued(self, column: int, index: int, factor: float, control: str) -> tuple[Any, ...] | None:
        query = "SELECT * FROM continuations WHERE feature = ? AND factor = ? AND control = ?"
        rows = self._rows(query, index, factor, control)
        return tuple(self._parsed(rows[0][column])[0]) if rows else None

    # Housekeeping

    def get_meta(self, key: str) -> Any:
        """A value kept about the run, or None."""
        rows = self._rows("SELECT * FROM meta WHERE key = ?", key)
        return self._parsed(rows[0][1])[0] if rows else None

    def check_format(self) -> None:
        """Raise `StoreError` for a store that another version of this library made and this one cannot read."""
        if (found := self.get_meta("format")) not in (None, BEFORE, FORMAT):
            self.close()
            raise StoreError(f"{str(self.path)!r} has format {found}; this version reads {FORMAT}: use another folder")

    def close(self) -> None:
        """Close the file; what was kept is on disk already."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a table, whole ones as they were written."""
        with self._lock, told(self.path, READ):
            if self._empty:
                return []
            found = self._db.execute(query, values)
            summed = found.description[-1][0] == "checksum"
            return [checked(row) if summed else row for row in found]

    def _parsed(self, *texts: str) -> tuple[Any, ...]:
        with told(self.path, READ):
            return tuple(map(json.loads, texts))


class RunStore(StoreReader):
    """Judge transcripts, activations and continuations of one run, each committed before it is used.

    A store belongs to one set of settings (`identity`: model, features, corpus, judge, settings); which descriptions are
    evaluated in it is open. Several processes may share it. Thread-safe; a `with` block closes it.

    Raises:
        StoreError: the file was made with other settings (it says which), by another format, is damaged or no store, or its disk is full or cannot be written to.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any] | None = None) -> None:
        self.path, self._lock, self._empty = file_of(Path(path)), RLock(), False
        now = None if identity is None else json.loads(json.dumps(identity))
        with told(self.path, "used as a run store"):
            self._db = opened(self.path)
            try:
                self._begin(now)
            except BaseException:
                self.close()
                raise
        if now is not None:
            self._check(now)

    def _begin(self, identity: Any) -> None:
        """Make what is missing, tables and identity in one transaction: a kill leaves all of it, or nothing; what is there stays."""
        made = {} if identity is None else {"identity": identity, "versions": versions()}
        if there := tables_of(self._db):
            if not there >= TABLES.keys():
                raise sqlite3.DatabaseError("it holds the tables of something else")
            self.check_format()
            if self.get_meta("format") == FORMAT and (not made or self.get_meta("identity") is not None):
                return
        with transaction(self._db):  # the second of two that begin at once waits here, and finds all made
            for name, columns in TABLES.items():
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
                if "checksum" not in {column for _, column, *_ in self._db.execute(f"PRAGMA table_info({name})")}:
                    self._db.execute(f"ALTER TABLE {name} ADD COLUMN checksum INTEGER")
            for key, value in {**made, "format": FORMAT}.items():
                row = (key, dumps(value))
                how = "REPLACE" if key == "format" else "IGNORE"
                self._db.execute(f"INSERT OR {how} INTO meta VALUES (?, ?, ?)", (*row, checksum(row)))

    def _check(self, now: Any) -> None:
        """Refuse the store if it was made with other settings."""
        before = self.get_meta("identity")
        differences = {
            n: values
            for n, values in sorted(paired(flat(before), flat(now)).items())
            if len(set(map(dumps, values))) > 1
        }
        if not differences:
            return
        self.close()
        told = [
            f"{name} was {clip(repr(old), SHOWN)}, is {clip(repr(new), SHOWN)}"
            for name, (old, new) in differences.items()
        ]
        was = "; ".join([*told[:TOLD], *([f"and {len(told) - TOLD} more"] if len(told) > TOLD else [])])
        mend: tuple[str | Argument, ...] = (
            "Use the settings it was made with, or another folder, with this one as transcripts: what the same judge was asked is not asked again",
        )
        if "judge.model" in differences:
            mend = ("Use the judge it was made with, or another folder: what another judge answered is asked anew",)
        elif "judge.endpoint" in differences:
            mend = (
                "If it is the same judge elsewhere, say so with ",
                Argument("name", differences["judge.endpoint"][0]),
                "; if not, use another folder: what another judge answered is asked anew",
            )
        raise StoreError(f"{str(self.path)!r} was made with other settings: {was}. ", *mend, ".")

    def __enter__(self) -> "RunStore":
        return self

    # What is kept

    def put(self, key: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._keep("transcripts", [(key, dumps(request), dumps(answer), time.time())])

    def keep_texts(self, tokens: "TokenizedTexts") -> None:
        """Keep the corpus as the model and the judge see it, and where they are windows, the document of each (`get_meta("documents")`)."""
        if not self._rows("SELECT 1 FROM texts LIMIT 1"):
            if tokens.documents.tolist() != list(range(len(tokens))):  # in windows
                self.set_meta("documents", tokens.documents.tolist())
            self._keep("texts", ((i, clean(text)) for i, text in enumerate(tokens.texts)))

    def keep_activations(self, indices: Sequence[int], activations: "MaxActivations") -> None:
        """Keep one pass over the corpus, some features at a time: of each feature all is on disk, or nothing."""
        self.set_meta("counted", activations.counted.tolist())
        self.set_meta("n_outliers", activations.n_outliers)
        self.set_meta("n_overflowed", activations.n_overflowed)
        values, positions = activations.values, activations.positions
        rows = (
            (
                int(index),
                np.ascontiguousarray(values[:, column], dtype="<f4").tobytes(),
                np.ascontiguousarray(positions[:, column], dtype="<i4").tobytes(),
                int(activations.active[column]),
            )
            for column, index in enumerate(indices)
        )
        while some := tuple(islice(rows, in_one(len(values)))):
            self._keep("activations", some)

    def keep_continuations(
        self, index: int, factor: float, texts: Sequence[str], nll: Sequence[float] = (), control: str = ""
    ) -> None:
        """Keep what the model wrote at one factor of one feature (-1: unsteered) or control, in the order of the prompts.

        `nll` is each text's mean negative log-likelihood a token under the unsteered model.
        """
        self._keep("continuations", [(index, control, float(factor), dumps(list(texts)), dumps(list(nll)))])

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value about the run."""
        self._keep("meta", [(key, dumps(value))])

    def _keep(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Rows in place of those with the same key, all of them on disk when this returns, or none."""
        marks = ", ".join("?" * (TABLES[table].split(", PRIMARY")[0].count(",") + 1))
        with self._lock, told(self.path, "written"), transaction(self._db):
            summed = ((*row, checksum(row)) for row in rows)
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", summed)


def in_one(n_texts: int) -> int:
    """Features whose activations are read or written at a time."""
    return max(1, COMMITTED_BYTES // (8 * max(1, n_texts)))


def read_transcripts(path: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every request and its answer in a run's folder or file, in the order they were answered; also while the run goes on.

    Raises:
        StoreError: there is no run store.
    """
    with StoreReader(path) as store:
        yield from store.transcripts()


def saved_activations(path: str | Path, indices: Sequence[int]) -> dict[int, Float[np.ndarray, " text"]]:
    """The largest activations that an earlier run kept in its folder, by feature.

    Raises:
        StoreError: there is no run, or it has not all of these features.
    """
    if not file_of(Path(path)).is_file():
        raise StoreError(f"activations is {str(path)!r}, which holds no run store ({FILE}): give the folder of a run")
    with StoreReader(path) as store:
        store.check_format()
        found = store.activations(indices)
    if found is None:
        raise StoreError(
            f"the run in {str(path)!r} has not the activations of all {len(indices)} features that are asked for"
        )
    return dict(zip(indices, found.values.T, strict=True))


def file_of(path: Path) -> Path:
    """The store's file: `path` itself where it names one, else in that folder."""
    path = path.expanduser()
    return path if path.suffix in SUFFIXES else path / FILE


def versions() -> dict[str, str]:
    """The installed versions that may change a run's numbers."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def dumps(value: Any) -> str:
    """JSON that SQLite can hold whatever the texts are (lone surrogates are escaped)."""
    return json.dumps(value, ensure_ascii=True)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested dict with dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in cast(dict[str, Any], value).items():
        found |= flat(inner, f"{name}.{key}" if name else key)
    return found


def paired(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """For every name of either mapping, both values."""
    return {name: (before.get(name), now.get(name)) for name in {*before, *now}}
