"""The run store: one SQLite file that keeps everything paid for or computed, so that a run killed at any moment goes on."""

import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
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

if TYPE_CHECKING:  # heavy: where a run's file lies is asked before torch is there
    from fade_lens.subject.activations import MaxActivations
    from fade_lens.subject.tokens import TokenizedTexts

FILE = "run.sqlite"
SUFFIXES = (".sqlite", ".sqlite3", ".db")
FORMAT = 5
TOLD = 8
"""Differences that a refusal names; another model differs in dozens."""
SHOWN = 80
"""Characters of a value that it shows; prompts are long."""
COMMITTED_BYTES = 2**26
"""Activations written in one transaction."""
PACKAGES = ("fade-lens", "sae-lens", "torch", "transformer-lens", "transformers")

TABLES = {
    "meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "texts": "number INTEGER PRIMARY KEY, text TEXT NOT NULL",
    "activations": "feature INTEGER PRIMARY KEY, maxima BLOB, positions BLOB, active INTEGER",
    "continuations": "feature INTEGER, control TEXT, factor REAL, texts TEXT NOT NULL, nll TEXT NOT NULL, "
    "PRIMARY KEY (feature, control, factor)",
    "transcripts": "key TEXT PRIMARY KEY, request TEXT NOT NULL, answer TEXT NOT NULL, created REAL NOT NULL",
}


class RunStore:
    """Judge transcripts, activations and continuations of one run, each committed before it is used.

    A store belongs to one set of settings (`identity`: model, features, corpus, judge, settings); which descriptions are
    evaluated in it is open. Thread-safe; a `with` block closes it.

    Raises:
        StoreError: the file was made with other settings (it says which), by another format, or is no store.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any] | None = None) -> None:
        path = Path(path)
        self.path = file_of(path)
        self._lock = RLock()
        now = None if identity is None else json.loads(json.dumps(identity))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, check_same_thread=False, timeout=60.0, isolation_level=None)
            self._begin(now)
        except (OSError, sqlite3.Error) as error:
            mend = "" if os.access(self.path.parent, os.W_OK) else "; give a folder that can be written to"
            raise StoreError(f"{str(self.path)!r} cannot be used as a run store: {error}{mend}") from error
        if (found := self.get_meta("format")) not in (None, FORMAT):
            self.close()
            raise StoreError(f"{str(self.path)!r} has format {found}; this version reads {FORMAT}: use another folder")
        if now is not None:
            self._check(now)

    def _begin(self, identity: Any) -> None:
        """Make what is missing, tables and identity in one transaction: a kill leaves all of it, or nothing; what is there stays."""
        made = {} if identity is None else {"identity": identity, "versions": versions()}
        if tables_of(self._db) >= TABLES.keys() and (not made or self.get_meta("identity") is not None):
            return
        set_wal(self._db)
        with transaction(self._db):  # the second of two that begin at once waits here, and finds all made
            for name, columns in TABLES.items():
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
            rows = [(key, dumps(value)) for key, value in {"format": FORMAT, **made}.items()]
            self._db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", rows)

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

    # Transcripts (the judge's side; see fade_lens.judge.Transcripts)

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a request's key."""
        row = self._one("SELECT answer FROM transcripts WHERE key = ?", key)
        return None if row is None else cast(dict[str, Any], json.loads(row[0]))

    def put(self, key: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._write(
            "INSERT OR REPLACE INTO transcripts VALUES (?, ?, ?, ?)",
            [(key, dumps(request), dumps(answer), time.time())],
        )

    def record(self, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The request and the answer kept under a key."""
        row = self._one("SELECT request, answer FROM transcripts WHERE key = ?", key)
        return None if row is None else (json.loads(row[0]), json.loads(row[1]))

    @property
    def answered(self) -> bool:
        """Whether it holds any answer."""
        return self._one("SELECT 1 FROM transcripts LIMIT 1") is not None

    def transcripts(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every request and its answer, in the order they were answered."""
        with self._lock:
            rows = self._db.execute("SELECT request, answer FROM transcripts ORDER BY created, key").fetchall()
        for request, answer in rows:
            yield json.loads(request), json.loads(answer)

    # What torch computed

    def keep_texts(self, tokens: "TokenizedTexts") -> None:
        """Keep the corpus as the model and the judge see it, and where they are windows, the document of each (`get_meta("documents")`)."""
        if self._one("SELECT 1 FROM texts LIMIT 1") is None:
            self._write("INSERT INTO texts VALUES (?, ?)", ((i, clean(text)) for i, text in enumerate(tokens.texts)))
            if tokens.documents.tolist() != list(range(len(tokens))):  # in windows
                self.set_meta("documents", tokens.documents.tolist())

    def keep_activations(self, indices: Sequence[int], activations: "MaxActivations") -> None:
        """Keep one pass over the corpus, some features at a time: of each feature all is on disk, or nothing."""
        self.set_meta("counted", activations.counted.tolist())
        self.set_meta("n_outliers", activations.n_outliers)
        self.set_meta("n_overflowed", activations.n_overflowed)
        values, positions = activations.values, activations.positions
        rows = (
            (
                index,
                np.ascontiguousarray(values[:, column], dtype="<f4").tobytes(),
                np.ascontiguousarray(positions[:, column], dtype="<i4").tobytes(),
                int(activations.active[column]),
            )
            for column, index in enumerate(indices)
        )
        at_once = max(1, COMMITTED_BYTES // (8 * max(1, len(values))))
        while some := tuple(islice(rows, at_once)):
            self._write("INSERT OR REPLACE INTO activations VALUES (?, ?, ?, ?)", some)

    def activations(self, indices: Sequence[int]) -> "MaxActivations | None":
        """The pass over the corpus for these features, if it holds all of them."""
        counted = self.get_meta("counted")
        if counted is None or not all(self._one("SELECT 1 FROM activations WHERE feature = ?", i) for i in indices):
            return None
        shape = (len(indices), len(counted))
        values, positions = (Grid(shape, dtype, self.path.parent) for dtype in (np.float32, np.int32))
        active = np.zeros(len(indices), dtype=np.int64)
        for column, index in enumerate(indices):
            row = self._one("SELECT maxima, positions, active FROM activations WHERE feature = ?", index)
            assert row is not None
            values.rows[column] = np.frombuffer(row[0], dtype="<f4")
            positions.rows[column] = np.frombuffer(row[1], dtype="<i4")
            active[column] = row[2]
        values.release()
        positions.release()
        left_out = (int(self.get_meta(name)) for name in ("n_outliers", "n_overflowed"))
        from fade_lens.subject.activations import MaxActivations

        return MaxActivations(values.rows.T, positions.rows.T, np.array(counted, dtype=np.int64), active, *left_out)

    def keep_continuations(
        self, index: int, factor: float, texts: Sequence[str], nll: Sequence[float] = (), control: str = ""
    ) -> None:
        """Keep what the model wrote at one factor of one feature (-1: unsteered) or control, in the order of the prompts.

        `nll` is each text's mean negative log-likelihood a token under the unsteered model.
        """
        row = (index, control, factor, dumps(list(texts)), dumps(list(nll)))
        self._write("INSERT OR REPLACE INTO continuations VALUES (?, ?, ?, ?, ?)", [row])

    def continuations(self, index: int, factor: float, control: str = "") -> tuple[str, ...] | None:
        """The texts that `keep_continuations` kept."""
        return self._continued("texts", index, factor, control)

    def continuations_nll(self, index: int, factor: float, control: str = "") -> tuple[float, ...] | None:
        """The likelihoods that `keep_continuations` kept."""
        return self._continued("nll", index, factor, control)

    def _continued(self, column: str, index: int, factor: float, control: str) -> tuple[Any, ...] | None:
        query = f"SELECT {column} FROM continuations WHERE feature = ? AND factor = ? AND control = ?"
        row = self._one(query, index, factor, control)
        return None if row is None else tuple(json.loads(row[0]))

    # Housekeeping

    def get_meta(self, key: str) -> Any:
        """A value kept about the run, or None."""
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else json.loads(row[0])

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a JSON value about the run."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, dumps(value))])

    def close(self) -> None:
        """Close the file; what was kept is on disk already."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchone()
            except sqlite3.DatabaseError as error:
                raise StoreError(f"{str(self.path)!r} cannot be read as a run store: {error}") from error

    def _write(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._lock:
            try:
                with transaction(self._db):
                    self._db.executemany(query, rows)
            except sqlite3.Error as error:
                raise StoreError(f"{str(self.path)!r} cannot be written: {error}") from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Generator[None]:
    """All of it on disk at the end, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def tables_of(db: sqlite3.Connection) -> set[str]:
    """The tables that a file has; none where a run was killed before it had made any."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def set_wal(db: sqlite3.Connection) -> None:
    """Readers beside a writer. SQLite does not wait for a lock here: of two that begin at once one is told to come again."""
    for wait in (*[0.02] * 500, None):
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if wait is None or error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(wait)


def read_transcripts(path: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every request and its answer in a run's folder or file, in the order they were answered; also while the run goes on.

    Raises:
        StoreError: there is no run store.
    """
    file = file_of(Path(path))
    if not file.is_file():
        raise StoreError(f"{str(path)!r} holds no run store ({FILE}): give the folder that a run was told to write to")
    writable, unfinished = os.access(file.parent, os.W_OK), file.with_name(f"{file.name}-wal")
    if not writable and unfinished.is_file() and unfinished.stat().st_size:
        raise StoreError(
            f"{str(file)!r} was left by a run that goes on or was killed, in a folder that cannot be written to: read a copy of the folder"
        )
    try:
        # Where it can be written to, what a killed run was in the midst of writing is put right before it is read.
        how = "mode=rw" if writable else "immutable=1"
        db = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, timeout=60.0)
        with closing(db):
            if "transcripts" not in (there := tables_of(db)) and there <= TABLES.keys():
                return  # killed before anything was asked
            for request, answer in db.execute("SELECT request, answer FROM transcripts ORDER BY created, key"):
                yield json.loads(request), json.loads(answer)
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"{str(file)!r} cannot be read as a run store: {error}") from error


def saved_activations(path: str | Path, indices: Sequence[int]) -> dict[int, Float[np.ndarray, " text"]]:
    """The largest activations that an earlier run kept in its folder, by feature.

    Raises:
        StoreError: there is no run, or it has not all of these features.
    """
    if not file_of(Path(path)).is_file():
        raise StoreError(f"activations is {str(path)!r}, which holds no run store ({FILE}): give the folder of a run")
    with RunStore(path) as store:
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
