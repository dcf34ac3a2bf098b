"""Results in a file: one SQLite file for a run of any size, of which a result is read when it is looked at.

Of each result three things lie in it: the table's row, a head (description, scores, flags: what tables, means and lists need), and the rest, which is
evidence and nearly all of the bytes. Two tables keep them apart, so that going through the heads touches no evidence.
"""

import json
import os
import sqlite3
import sys
import zlib
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast, overload

from fade_lens._util.errors import InputError
from fade_lens._util.files import GZIP, whole_file
from fade_lens._util.reasons import Flag
from fade_lens._util.record import from_plain, to_plain
from fade_lens.baselines.permutation import PermutationTest
from fade_lens.data.descriptions import MOST_FEATURES, Description
from fade_lens.judge.reliability import Agreement
from fade_lens.llm.budget import Usage
from fade_lens.metrics.metric import Metric
from fade_lens.runs import database
from fade_lens.runs.result import Result, result_of
from fade_lens.scorers.base import Scored
from fade_lens.scorers.standing import ORDER, Standing
from fade_lens.subject.summary import FeatureSummary, TopText

FORMAT = 6
APPLICATION = 0x46414445
"""How the file's header says that it is of this library ("FADE")."""
SCHEMA = (
    "CREATE TABLE parts (part TEXT PRIMARY KEY, n INTEGER NOT NULL, record BLOB NOT NULL)",
    "CREATE TABLE heads (part TEXT NOT NULL, number INTEGER NOT NULL, feature INTEGER NOT NULL, standing TEXT NOT NULL, "
    "row TEXT NOT NULL, head TEXT NOT NULL, PRIMARY KEY (part, number))",
    "CREATE INDEX by_feature ON heads (part, feature, number)",
    "CREATE TABLE bodies (part TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (part, number))",
)
PAGE_BYTES = 2**14
CELL_BYTES = 2**29
"""The largest value that is read from a file, and the largest text that one is unpacked to."""
HEAD_BYTES = 2**22
"""The largest row or head."""
LEVEL = 1
"""Of packing: evidence gets a fifth larger than with the usual 6, and is written four times as fast."""
AT_ONCE = 200
"""Heads that are read at a time."""
LATELY = 4
"""Results of which the rest is in memory: those looked at last."""
REST = ("feature", "evidence", "shown")
"""The fields of a `Result` that no table needs."""
DAMAGED = (OSError, EOFError, sqlite3.Error, zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)  # fmt: skip
"""What reading a file raises that was cut, or written by somebody else."""


class ResultsFile:
    """A file of results, open for reading or while it is written; threads may share it."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.path, self._database = path, db
        self._lately = OrderedDict[tuple[str, int], Result]()
        self._last: tuple[str, dict[str, Any]] = "", {}

    @classmethod
    def create(cls, place: Path, path: Path) -> "ResultsFile":
        """A new file at a place, called `path` where it cannot be written; what is written is whole once `finish` returns."""
        with database.told(path, "written"):
            found = cls(sqlite3.connect(place, isolation_level=None, check_same_thread=False), path)
        marks = {"page_size": PAGE_BYTES, "journal_mode": "OFF", "application_id": APPLICATION, "user_version": FORMAT}
        for command in (*(f"PRAGMA {name} = {value}" for name, value in marks.items()), "BEGIN", *SCHEMA):
            found._write(command)
        return found

    @classmethod
    def open(cls, path: Path) -> "ResultsFile":
        """A file that is there; nothing is written to it, and it may be in a folder that cannot be written to.

        Raises:
            InputError: it is of another format, none of ours, or cut.
        """
        with told(path):
            with path.open("rb") as file:
                packed = file.read(2) == GZIP
            if packed:
                raise InputError(_of_format(path, f"an earlier format than {FORMAT}"))
            # Never changed once it has its name, so nothing is locked, on a network's disk either.
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False)  # fmt: skip
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES)
            db.execute("PRAGMA trusted_schema = OFF")
            mark, version, pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version", "page_count", "page_size"))  # fmt: skip
            if mark != APPLICATION:
                raise ValueError("it holds no results" if pages else "it is empty")
            if version != FORMAT:
                raise InputError(_of_format(path, f"format {version}"))
            if pages * size > path.stat().st_size:
                raise ValueError("it was cut")
            made = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
            if sorted(sql for (sql,) in made) != sorted(SCHEMA):
                raise ValueError("its tables are not those of results")
            return cls(db, path)

    @classmethod
    @contextmanager
    def written(cls, path: Path) -> Generator["ResultsFile"]:
        """A new file in the place of an earlier one, which stays whole until the new one is.

        Raises:
            StoreError: it cannot be written.
        """
        with whole_file(path) as partial:
            partial.unlink(missing_ok=True)  # of a process with the same number that was killed
            file = cls.create(partial, path)
            try:
                yield file
                file.finish()
            finally:
                file.close()

    @classmethod
    def passing(cls, folder: Path) -> "ResultsFile":
        """A new file without a name, which is gone with this object."""
        path = folder / f"results.{os.getpid()}.{os.urandom(4).hex()}.partial"
        found = cls.create(path, path)
        with suppress(OSError):  # where open files cannot be unlinked it is left behind
            path.unlink()
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return ResultsFile.open, (self.path,)

    def finish(self) -> None:
        """All on disk."""
        self._write("COMMIT")

    def close(self) -> None:
        """No more of it."""
        self._database.close()

    def keep(self, part: str, number: int, result: Result) -> None:
        """Write a result; of one that lies in a file already, the bytes that are there."""
        if isinstance(result, Kept):
            row, head, body = result.raw, result.told, result.file.body(result.part, result.number)
        else:
            row, head, body = row_of(result), dumps(head_of(result)), packed({name: to_plain(getattr(result, name)) for name in REST})  # fmt: skip
        self.tell(part, number, result, row, head)
        self._write("INSERT INTO bodies VALUES (?, ?, ?)", (part, number, body))

    def tell(self, part: str, number: int, result: Result, row: str, head: str) -> None:
        """Write row and head of a result, in place of those that are there."""
        values = (part, number, int(result.description.index), str(result.standing), row, head)
        self._write("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?)", values)

    def keep_part(self, part: str, items: Sequence[Result], record: Mapping[str, Any]) -> None:
        """Write some results, and what belongs to all of them; of results that were written here one by one the record alone."""
        if not (isinstance(items, KeptResults) and items.file is self):
            for number, result in enumerate(items):
                self.keep(part, number, result)
        known = {**record, "scorers": scorers_in(items)}
        self._write("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", (part, len(items), packed(known)))

    def record(self, part: str) -> tuple[int, dict[str, Any]]:
        """How many results a part has, and what belongs to all of them."""
        with told(self.path):
            n, record = self._one("SELECT n, record FROM parts WHERE part = ?", part)
            for table in ("heads", "bodies"):
                counted = self._one(f"SELECT COUNT(*), MIN(number), MAX(number) FROM {table} WHERE part = ?", part)
                if counted != ((n, 0, n - 1) if n else (0, None, None)):
                    raise ValueError(f"it says that it holds {n} results, and has {counted[0]}")
            return n, unpacked(record)

    def heads(self, part: str, numbers: range) -> Iterator[tuple[int, str, str]]:
        """Number, row and head of consecutive results."""
        for start in range(numbers.start, numbers.stop, AT_ONCE):
            asked = "SELECT number, row, head FROM heads WHERE part = ? AND number >= ? AND number < ? ORDER BY number"
            with told(self.path):
                found = self._database.execute(asked, (part, start, min(start + AT_ONCE, numbers.stop))).fetchall()
            yield from found

    def numbers(self, part: str, feature: int) -> list[int]:
        """Which results are of a feature."""
        with told(self.path):
            found = self._database.execute("SELECT number FROM heads WHERE part = ? AND feature = ? ORDER BY number", (part, feature))  # fmt: skip
            return [number for (number,) in found.fetchall()]

    def standings(self, part: str) -> Counter[str]:
        """How many results have each standing."""
        with told(self.path):
            return Counter(dict(self._database.execute("SELECT standing, COUNT(*) FROM heads WHERE part = ? GROUP BY standing", (part,)).fetchall()))  # fmt: skip

    def body(self, part: str, number: int) -> bytes:
        """The rest of a result, packed."""
        return cast(bytes, self._one("SELECT body FROM bodies WHERE part = ? AND number = ?", part, number)[0])

    def head(self, kept: "Kept") -> dict[str, Any]:
        """What is at hand of a result. That of the last is kept here and not in the result, of which there may be a hundred thousand."""
        text, found = self._last
        if text is not kept.told:
            with told(self.path, kept.number):
                found = loaded(kept.told)
            self._last = kept.told, found
        return found

    def whole(self, kept: "Kept") -> Result:
        """A result with all of its evidence; of those looked at last it is at hand."""
        key = kept.part, kept.number
        if (found := self._lately.get(key)) is None:
            with told(self.path, kept.number):
                head = {name: value for name, value in kept.head.items() if name in Result.__dataclass_fields__}
                found = self._lately[key] = result_of({**head, **unpacked(self.body(*key))})
            while len(self._lately) > LATELY:
                self._lately.popitem(last=False)
        return found

    def _write(self, command: str, given: tuple[Any, ...] = ()) -> None:
        with database.told(self.path, "written"):
            self._database.execute(command, given)

    def _one(self, asked: str, *given: Any) -> Any:
        if (found := self._database.execute(asked, given).fetchone()) is None:
            raise LookupError(f"it has no part or result {given}")
        return found


class Kept(Result):
    """A result in a file: scores and flags are at hand, feature and evidence are read when they are looked at."""

    file: ResultsFile
    part: str
    number: int
    raw: str
    """The table's row."""
    told: str
    """The head."""

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """With anything replaced it is a `Result` like others."""
        return Result(*given, **named)

    @classmethod
    def of(cls, file: ResultsFile, part: str, number: int, raw: str, head: str) -> "Kept":
        """That of a number."""
        made = object.__new__(cls)
        made.__dict__.update(file=file, part=part, number=number, raw=raw, told=head)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept.of, (self.file, self.part, self.number, self.raw, self.told)

    def _read(self, kind: Any, name: str) -> Any:
        with told(self.file.path, self.number):
            return from_plain(kind, self.head[name])

    @property
    def head(self) -> dict[str, Any]:
        """What is at hand, as it was written."""
        return self.file.head(self)

    @property
    def description(self) -> Description:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(Description, "description")

    @property
    def permutation(self) -> PermutationTest | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(PermutationTest | None, "permutation")

    @property
    def usage(self) -> Usage | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(Usage | None, "usage")

    @property
    def agreement(self) -> tuple[Agreement, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(tuple[Agreement, ...], "agreement")

    @property
    def neuronpedia(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(str, "neuronpedia")

    @property
    def collides(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(str, "collides")

    @property
    def gate(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._read(float, "gate")

    @property
    def scorers(self) -> tuple[str, ...]:
        return self._read(tuple[str, ...], "scorers")

    @property
    def metrics(self) -> dict[str, Metric]:
        return self._read(Mapping[str, Metric], "metrics")

    @property
    def standing(self) -> Standing:  # pyright: ignore[reportIncompatibleVariableOverride]
        word, why = self._read(tuple[str, str], "standing")
        if word not in ORDER:
            raise InputError(f"{self.file.path.name!r}, result {self.number}: standing {word!r:.40} is none of {', '.join(ORDER)}")  # fmt: skip
        return Standing(word, why)

    @property
    def feature_flags(self) -> tuple[Flag, ...]:
        return tuple(Flag(*pair) for pair in self._read(tuple[tuple[str, str], ...], "feature_flags"))

    @property
    def scorer_flags(self) -> tuple[Flag, ...]:
        return tuple(Flag(*pair) for pair in self._read(tuple[tuple[str, str], ...], "scorer_flags"))

    @property
    def scorer_columns(self) -> dict[str, Any]:
        return self._read(Mapping[str, Any], "scorer_columns")

    @property
    def feature_columns(self) -> dict[str, Any]:
        return self._read(Mapping[str, Any], "feature_columns")

    @property
    def feature(self) -> FeatureSummary:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.file.whole(self).feature

    @property
    def evidence(self) -> Mapping[str, Scored]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.file.whole(self).evidence

    @property
    def shown(self) -> tuple[TopText, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.file.whole(self).shown

    def to_row(self) -> dict[str, Any]:
        """One row of `Results.frame`, as it was written."""
        if not self.raw:
            return super().to_row()
        with told(self.file.path, self.number):
            row = loaded(self.raw)
            if bad := next((name for name, cell in row.items() if isinstance(cell, list | dict)), None):
                raise ValueError(f"column {bad!r:.60} holds {row[bad]!r:.60}")
            return row

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        if isinstance(other, Kept) and (self.told, self.raw) == (other.told, other.raw):
            same = self.file.body(self.part, self.number) == other.file.body(other.part, other.number)
            return same or self.file.whole(self) == other.file.whole(other)
        if self.description != other.description:
            return False
        return self.file.whole(self) == (other.file.whole(other) if isinstance(other, Kept) else other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class KeptResults(Sequence[Result]):
    """The results of a part of a file, each read when it is looked at.

    Attributes:
        gate: that these results are held against.
        scorers: the names of the run's.
    """

    def __init__(self, file: ResultsFile, part: str, n: int, gate: float, scorers: Sequence[str]) -> None:
        self.file, self.part, self.gate, self.scorers, self._n = file, part, gate, tuple(scorers), n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> Kept: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Kept, ...]: ...
    def __getitem__(self, at: int | slice) -> Kept | tuple[Kept, ...]:
        chosen = range(self._n)[at]
        if isinstance(chosen, range):
            found = tuple(self._between(min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1)) if chosen else ()
            return found[:: chosen.step]
        return next(self._between(chosen, chosen + 1))

    def __iter__(self) -> Iterator[Kept]:
        return self._between(0, self._n)

    def _between(self, start: int, stop: int) -> Iterator[Kept]:
        return (Kept.of(self.file, self.part, *row) for row in self.file.heads(self.part, range(start, stop)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | KeptResults):
            return NotImplemented
        others = cast(Sequence[Result], other)
        return self is other or (len(self) == len(others) and all(a == b for a, b in zip(self, others, strict=True)))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def of(self, index: int) -> tuple[Kept, ...]:
        """Those of one feature."""
        found = self.file.numbers(self.part, int(index)) if 0 <= index <= MOST_FEATURES else ()
        return tuple(self[number] for number in found)

    @property
    def standings(self) -> Counter[str]:
        """How many have each standing."""
        return self.file.standings(self.part)

    def __repr__(self) -> str:
        return f"KeptResults({len(self):,} in {self.file.path.name!r})"


def head_of(result: Result) -> dict[str, Any]:
    """What tables, means and lists need of a result, feature and evidence left out."""
    fields = {name: to_plain(getattr(result, name)) for name in Result.__dataclass_fields__ if name not in REST}
    flags = {name: [[flag.kind, flag.words] for flag in getattr(result, name)] for name in ("feature_flags", "scorer_flags")}  # fmt: skip
    found = {name: to_plain(getattr(result, name)) for name in ("scorers", "metrics", "scorer_columns", "feature_columns")}  # fmt: skip
    return {**fields, **found, **flags, "standing": [str(result.standing), result.standing.why]}


def row_of(result: Result) -> str:
    """The table's row of a result."""
    return dumps(result.to_row())


def scorers_in(items: Sequence[Result]) -> tuple[str, ...]:
    """The names of the scorers of some results, in their order."""
    return items.scorers if isinstance(items, KeptResults) else tuple(dict.fromkeys(name for result in items for name in result.scorers))  # fmt: skip


def dumps(value: Any) -> str:
    """JSON in ASCII: a lone surrogate has no UTF-8."""
    return json.dumps(value, default=_number)


def _number(value: Any) -> Any:
    """A number of NumPy's as Python has it."""
    if type(value).__module__ != "numpy":
        raise TypeError(f"{value!r:.80} is no JSON value")
    return value.item()


def loaded(text: str | bytes, most: int = HEAD_BYTES) -> dict[str, Any]:
    """The record that a text is. Raises `ValueError` for anything else, and for one of over `most` characters."""
    if len(text) > most:
        raise ValueError(f"a record has {len(text):,} characters")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{found!r:.80} is no record")
    return {sys.intern(name): value for name, value in cast(dict[str, Any], found).items()}


def packed(record: Mapping[str, Any]) -> bytes:
    """A record as it is written where it may be large."""
    return zlib.compress(dumps(record).encode(), LEVEL)


def unpacked(data: bytes) -> dict[str, Any]:
    """The record that `packed` made. Raises `ValueError` for anything else, and for too long a one."""
    engine = zlib.decompressobj()
    text = engine.decompress(data, CELL_BYTES)
    if not engine.eof:
        raise ValueError(f"a record is cut, or has over {CELL_BYTES >> 20} MB")
    return loaded(text, CELL_BYTES)


@contextmanager
def told(path: Path, number: int | None = None) -> Generator[None]:
    """What a damaged file raises, as an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        place = "" if number is None else f", result {number}"
        raise InputError(f"{path.name!r}{place} is not a results file of fade_lens: {error}") from error


def _of_format(path: Path, found: str) -> str:
    return f"results file {path.name!r} has {found}; this version reads {FORMAT}: evaluate again, with the run's folder as transcripts, so that nothing is asked twice"  # fmt: skip
