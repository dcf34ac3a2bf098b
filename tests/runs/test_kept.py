"""Results in a file: read when they are looked at, whole or told to be broken."""

import gzip
import json
import pickle
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fade_lens import compare
from fade_lens._util.errors import InputError, StoreError
from fade_lens.report.standing import worst_first
from fade_lens.runs import kept
from fade_lens.runs.record import RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.scorers.fade import FadeEvidence
from fade_lens.subject.summary import FeatureSummary
from tests.explained import made_up_explained
from tests.made_up import KINDS, made_up_results, with_cross


def whole_run(n: int = 16, hostile: bool = False) -> Results:
    """A run that has everything which a run can have."""
    run = with_cross(made_up_results(n, hostile=hostile, n_rated=12, characters=40))
    beside = replace(made_up_results(3, n_rated=8, characters=40), beside=((7, 0),))
    weights = tuple((result.description.index, 1.0 + n) for n, result in enumerate(run))
    return replace(run, nulls={"shuffled": run.items[::-1]}, baselines={"random": beside}, weights=weights)


@pytest.fixture(scope="module")
def run() -> Results:
    return whole_run()


@pytest.fixture(scope="module")
def saved(run: Results, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return run.save(tmp_path_factory.mktemp("saved") / "r.sqlite").read_bytes()


@pytest.fixture
def path(saved: bytes, tmp_path: Path) -> Path:
    """The run's file."""
    (path := tmp_path / "r.sqlite").write_bytes(saved)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of results of which the evidence was read."""
    seen, unpacked = list[int](), kept.ResultsFile.body

    def counted(self: kept.ResultsFile, part: str, number: int) -> bytes:
        seen.append(number)
        return unpacked(self, part, number)

    monkeypatch.setattr(kept.ResultsFile, "body", counted)
    return seen


@pytest.mark.parametrize("hostile", [False, True])
def test_a_file_gives_back_every_kind_of_result_with_all_that_stands_beside_it(tmp_path: Path, hostile: bool) -> None:
    run = whole_run(len(KINDS), hostile)
    again = Results.load(run.save(tmp_path / "r.sqlite"))
    assert again == run and again.run == run.run and again.weights == run.weights
    assert again.baselines["random"].beside == ((7, 0),)
    cross = again.cross_scores
    assert cross is not None and run.cross_scores is not None and (cross.own_rows == run.cross_scores.own_rows).all()
    pd.testing.assert_frame_equal(again.frame, run.frame)
    pd.testing.assert_frame_equal(again.summary(), run.summary())
    assert repr(again) == repr(run)
    for one, other in zip(again, run, strict=True):
        assert repr(one) == repr(other) and one.to_row().keys() == other.to_row().keys()
        assert [(f.kind, f.words) for f in one.flags] == [(f.kind, f.words) for f in other.flags]
        assert {n: getattr(m.reason, "code", None) for n, m in one.metrics.items()} == {n: getattr(m.reason, "code", None) for n, m in other.metrics.items()}  # fmt: skip


def test_explained_results_keep_what_was_shown(tmp_path: Path) -> None:
    run = made_up_explained()
    again = Results.load(run.save(tmp_path / "r.sqlite"))
    assert [one.shown for one in again] == [one.shown for one in run] and again.without == run.without


def test_evidence_is_read_only_of_what_is_looked_at(tmp_path: Path, path: Path, run: Results, read: list[int]) -> None:
    again = Results.load(path)
    assert len(again) == 16 and len(again.frame) == 16 and repr(again) and again.specs
    again.summary(), again.summary("origin"), compare(again, made_up_results(5, n_rated=8))
    assert [one.standing for one in again] == [one.standing for one in run]
    assert again.items[3].flags == run.items[3].flags and again[7].description.index == 7
    assert not read
    again.save(tmp_path / "copy.sqlite")
    assert sorted(read) == sorted([*range(16)] * 2 + [0, 1, 2]), "what is copied is read, and nothing else is"
    read.clear()
    card = again[21]
    assert card.rated_evidence.texts == run[21].rated_evidence.texts and card.feature == run[21].feature
    assert set(read) == {3} and len(read) == 1, "the one result, once"
    for result in again:
        assert result.evidence
    assert len(read) == 17 - 1, "the one looked at last is still there"


def test_at_most_a_few_results_are_in_memory(path: Path, read: list[int]) -> None:
    again = Results.load(path)
    everyone = list(again)
    for _ in range(2):
        for result in everyone:
            assert result.feature
    assert len(read) == 32, "those of the first round are gone in the second"


def test_the_sequence_is_as_a_tuple(path: Path, run: Results) -> None:
    items = Results.load(path).items
    for at in (slice(2, 9), slice(None, None, -3), slice(9, 2), slice(-4, None), slice(14, 1, -5)):
        assert items[at] == run.items[at]
    assert items[-1] == run.items[-1] and items[True] == run.items[1] and items != run.items[:-1]
    with pytest.raises(IndexError):
        items[16]
    assert pickle.loads(pickle.dumps(items)) == items and pickle.loads(pickle.dumps(items[2])) == run.items[2]
    changed = replace(items[2], collides="with 9")
    assert type(changed) is Result and changed != items[2] and replace(changed, collides="") == items[2]


def test_a_feature_is_found_by_its_index(tmp_path: Path, run: Results) -> None:
    again = Results.load(Results((*run.items, run.items[2]), run.run).save(tmp_path / "r.sqlite"))
    assert [one.description.index for one in again.of(14)] == [14, 14] and again.of(10**30) == ()
    with pytest.raises(InputError, match=r"results\.of\(14\)"):
        again[14]
    with pytest.raises(InputError, match="not in these results; they hold 0, 7"):
        again[4]


def test_another_gate_is_held_against_results_of_a_file_too(path: Path) -> None:
    again = Results.load(path)
    strict = RunRecord({"gate": 1.5})
    assert {*map(str, (one.standing for one in replace(again, run=strict)))} <= {"fails", "open", "dead"}


def test_a_file_can_be_saved_over_itself_and_outlives_one_that_replaces_it(
    tmp_path: Path, path: Path, run: Results
) -> None:
    again = Results.load(path)
    replace(again, weights=()).save(path)
    made_up_results(2).save(tmp_path / "r.sqlite")
    assert again == run and len(Results.load(path)) == 2 and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to_is_read(tmp_path: Path, path: Path, run: Results) -> None:
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert Results.load(path) == run
    finally:
        tmp_path.chmod(0o700)


def test_the_parquet_file_is_the_frame(tmp_path: Path, run: Results) -> None:
    found = pd.read_parquet(run.to_parquet(tmp_path / "deep" / "r.parquet"))
    pd.testing.assert_frame_equal(found, run.frame, check_dtype=False)


def changed(change: Callable[[sqlite3.Connection], Any]) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        database = sqlite3.connect(path)
        change(database)
        database.commit()
        database.close()

    return made


def sql(*commands: str) -> Callable[[Path], None]:
    return changed(lambda database: [database.execute(command) for command in commands])


def record(**fields: Any) -> Callable[[Path], None]:
    """The record of the run with other fields."""

    def change(database: sqlite3.Connection) -> None:
        known = json.loads(zlib.decompress(database.execute("SELECT record FROM parts WHERE part = ''").fetchone()[0]))
        database.execute("UPDATE parts SET record = ? WHERE part = ''", (zlib.compress(json.dumps({**known, **fields}).encode()),))  # fmt: skip

    return changed(change)


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


BROKEN = {
    "nothing in it": content(b""),
    "no SQLite file": content(b"plain"),
    "damaged pages": lambda path: path.write_bytes(path.read_bytes()[:20_000] + b"\xff" * 40_000 + path.read_bytes()[60_000:]),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5000]),
    "another program's": lambda path: path.unlink() or sql("CREATE TABLE heads (part TEXT)")(path),
    "a view for a table": sql("ALTER TABLE heads RENAME TO other", "CREATE VIEW heads AS SELECT * FROM other"),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON heads BEGIN DELETE FROM bodies; END"),
    "a missing row": sql("DELETE FROM heads WHERE number = 3"),
    "missing evidence": sql("DELETE FROM bodies WHERE number = 3"),
    "a row twice as far": sql("UPDATE heads SET number = 99 WHERE number = 15 AND part = ''"),
    "no record": sql("DELETE FROM parts WHERE part = ''"),
    "no part of the nulls": sql("DELETE FROM parts WHERE part LIKE 'nulls/%'"),
    "a record that is no pack": sql("UPDATE parts SET record = 'text'"),
    "a record that is a list": changed(lambda db: db.execute("UPDATE parts SET record = ?", (zlib.compress(b"[1]"),))),
    "usage that is a number": record(run={"usage": 3}),
    "a hook that is a number": record(run={"features": {"hook": 3}}),
    "settings that are a number": record(run={"settings": 3}),
    "nulls that are a number": record(nulls=3),
    "scorers that are a number": record(scorers=3),
    "matrices of another size": record(cross_scores={"features": [1], "owners": [], "clarity": "", "responsiveness": "", "purity": "AAAA"}),
}  # fmt: skip


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_results_is_told_at_once(path: Path, break_it: Callable[[Path], Any]) -> None:
    break_it(path)
    with pytest.raises(InputError, match=r"'r\.sqlite'.* is not a results file of fade_lens: "):
        Results.load(path)


ROWS = {
    "head": ("no JSON", "[1]", "{}", '{"description": 3}', '{"standing": ["proud", ""]}', '{"metrics": 3, "standing": ["open", 3]}'),
    "row": ("no JSON", "[1]", '{"index": {"a": 1}}', '{"clarity": "high"}'),
    "body": (b"no pack", zlib.compress(b"[]"), zlib.compress(b"{}"), zlib.compress(b'{"feature": 3, "evidence": {}, "shown": []}'), zlib.compress(b'{"evidence": 3, "feature": {}, "shown": []}'), zlib.compress(bytes(2**16))[:-20]),
}  # fmt: skip


@pytest.mark.parametrize(("column", "value"), [(column, value) for column, values in ROWS.items() for value in values])
def test_a_result_that_is_broken_is_told_when_it_is_looked_at(
    path: Path, run: Results, column: str, value: Any
) -> None:
    table = "bodies" if column == "body" else "heads"
    changed(lambda db: db.execute(f"UPDATE {table} SET {column} = ? WHERE number = 1 AND part = ''", (value,)))(path)  # fmt: skip
    again = Results.load(path)
    assert again.items[0] == run.items[0]
    with pytest.raises(InputError, match=r"'r\.sqlite'"):
        one = again.items[1]
        _ = {"row": lambda: again.frame, "body": lambda: one.feature}.get(column, lambda: (one.description, one.standing, one.metrics))()  # fmt: skip


def test_a_scorer_that_is_not_installed_is_told(path: Path) -> None:
    record(scorers=["fate"])(path)
    with pytest.raises(InputError, match=r"no scorer 'fate'.*did you mean 'fade'.*Import the module"):
        _ = Results.load(path).specs


def test_a_text_that_unpacks_to_too_much_is_not_unpacked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CELL_BYTES", 500)
    with pytest.raises(InputError, match="not a results file"):
        Results.load(path)


@pytest.mark.parametrize("name", ["results.json.gz", "r.json.gz"])
def test_a_file_of_an_earlier_format_is_told_with_the_mend(tmp_path: Path, path: Path, run: Results, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b'{"format": 5, "run": {}, "items": []}'))
    with pytest.raises(InputError, match="earlier format than 6; this version reads 6: evaluate again, with the run's folder as transcripts"):  # fmt: skip
        Results.load(tmp_path if name == "results.json.gz" else tmp_path / name)
    sql("PRAGMA user_version = 9")(path)
    with pytest.raises(InputError, match="has format 9; this version reads 6"):
        Results.load(path)


def test_types_of_what_is_read(path: Path) -> None:
    one = Results.load(path).items[0]
    assert isinstance(one, Result) and isinstance(one.evidence["fade"], FadeEvidence)
    assert isinstance(one.feature, FeatureSummary) and "Result(" in repr(one) and one._repr_html_()


@pytest.mark.parametrize("pages", [1, 6, 10])
def test_a_full_disk_is_told_and_the_earlier_results_stay(pages: int, run: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    made_up_results(2, n_rated=8, characters=40).save(path := tmp_path / "results.sqlite")
    before, connect = path.read_bytes(), sqlite3.connect

    def small(*given: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*given, **options)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(StoreError, match=r"results\.sqlite' cannot be written: .*see that its disk has room"):
        run.save(path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    with pytest.raises(StoreError, match="cannot be written"):
        passing = kept.ResultsFile.passing(tmp_path)
        for number, result in enumerate(run):
            passing.keep("", number, result)


def test_results_are_not_written_over_a_folder_nor_below_a_file(run: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "results.sqlite", tmp_path / "folder"):
        with pytest.raises(StoreError, match="cannot be written"):
            run.save(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_a_list_of_the_worst_reads_no_evidence(run: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Results.load(run.save(tmp_path / "results.sqlite"))
    monkeypatch.setattr(kept.ResultsFile, "whole", lambda *_: pytest.fail("evidence was read"))
    shown = found._repr_html_()
    assert f">{found.items[0].description.index}<" in shown
    assert [r.description for r in worst_first(found, 3)] == [r.description for r in worst_first(run)[:3]]
