"""The run store: nothing kept is lost, and a store made with other settings says which."""

import os
import signal
import sqlite3
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from fade_lens._util.errors import StoreError
from fade_lens.judge import Transcripts
from fade_lens.runs.store import RunStore, read_transcripts, transaction
from fade_lens.subject.activations import MaxActivations

IDENTITY = {"model": {"name": "tiny"}, "settings": {"seed": 0, "factors": [1.0, 2.0]}}


def test_transcripts_survive(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        assert isinstance(store, Transcripts)
        assert store.get("k") is None
        store.put("k", {"concept": "a\ud800b"}, {"content": "2 \u2028 😀"})
    with RunStore(tmp_path, IDENTITY) as store:
        assert store.get("k") == {"content": "2 \u2028 😀"}
        assert list(store.transcripts()) == [({"concept": "a\ud800b"}, {"content": "2 \u2028 😀"})]


def test_what_is_put_is_there_for_another_reader_at_once(tmp_path):
    store = RunStore(tmp_path, IDENTITY)
    store.put("k", {}, {"content": "2"})
    other = sqlite3.connect(tmp_path / "run.sqlite")
    assert other.execute("SELECT count(*) FROM transcripts").fetchone() == (1,)


def test_activations_come_back_exactly(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(7, 3)).astype(np.float32)
    values[2] = np.nan
    kept = MaxActivations(values, random.integers(-1, 9, (7, 3), dtype=np.int32), np.arange(7), np.array([5, 6, 7]), 4)
    with RunStore(tmp_path, IDENTITY) as store:
        assert store.activations([4, 9]) is None
        store.keep_activations([4, 9, 2], kept)
    with RunStore(tmp_path, IDENTITY) as store:
        found = store.activations([2, 4])
        assert found is not None
        np.testing.assert_array_equal(found.values, values[:, [2, 0]])
        np.testing.assert_array_equal(found.positions, kept.positions[:, [2, 0]])
        assert found.active.tolist() == [7, 5] and found.n_outliers == 4 and found.counted.tolist() == list(range(7))
        assert store.activations([2, 5]) is None


def test_large_activations_come_back_mapped_and_a_few_at_a_time(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    values = random.normal(size=(7, 30)).astype(np.float32)
    kept = MaxActivations(values, random.integers(-1, 9, (7, 30), dtype=np.int32), np.arange(7), np.arange(30), 4)
    monkeypatch.setattr("fade_lens.runs.store.COMMITTED_BYTES", 8 * 7 * 4)  # four features a transaction
    monkeypatch.setattr("fade_lens._util.grid.IN_MEMORY", 0)
    with RunStore(tmp_path, IDENTITY) as store:
        store.keep_activations(range(30), kept)
        found = store.activations(range(29, -1, -1))
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.values, values[:, ::-1])
    np.testing.assert_array_equal(found.positions, kept.positions[:, ::-1])


def test_a_run_killed_while_activations_are_kept_takes_none_for_whole(tmp_path, monkeypatch):
    values = np.ones((7, 30), dtype=np.float32)
    kept = MaxActivations(values, np.zeros((7, 30), dtype=np.int32), np.arange(7), np.arange(30), 4)
    monkeypatch.setattr("fade_lens.runs.store.COMMITTED_BYTES", 8 * 7 * 4)

    @contextmanager
    def dies(db):
        with transaction(db):
            yield
            if db.execute("SELECT count(*) FROM activations").fetchone() > (8,):
                raise KeyboardInterrupt

    monkeypatch.setattr("fade_lens.runs.store.transaction", dies)
    with RunStore(tmp_path, IDENTITY) as store, pytest.raises(KeyboardInterrupt):
        store.keep_activations(range(30), kept)
    with RunStore(tmp_path, IDENTITY) as store:
        assert store.activations(range(30)) is None
        np.testing.assert_array_equal(store.activations(range(8)).values, values[:, :8])


def test_continuations(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        store.keep_continuations(-1, 0.0, ["a", "\udfff"])
        store.keep_continuations(3, 0.5, ["b"])
        assert store.continuations(-1, 0.0) == ("a", "\udfff")
        assert store.continuations(3, 0.5) == ("b",)
        assert store.continuations(3, 1.0) is None


def test_other_settings_are_named(tmp_path):
    RunStore(tmp_path, IDENTITY).close()
    with pytest.raises(StoreError, match=r"settings.seed was 0, is 1\. "):
        RunStore(tmp_path, {**IDENTITY, "settings": {"seed": 1, "factors": [1.0, 2.0]}})
    with pytest.raises(StoreError, match=r"judge.model was None, is 'x'"):
        RunStore(tmp_path, {**IDENTITY, "judge": {"model": "x"}})
    RunStore(tmp_path, IDENTITY).close()


def test_what_is_no_store(tmp_path):
    (tmp_path / "run.sqlite").write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(StoreError, match="cannot be used as a run store"):
        RunStore(tmp_path, IDENTITY)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used as a run store"):
        RunStore(tmp_path / "file", IDENTITY)


def test_another_format(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        store.set_meta("format", 99)
    with pytest.raises(StoreError, match="format 99"):
        RunStore(tmp_path, IDENTITY)


def test_threads_may_write_at_once(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        threads = [
            threading.Thread(target=lambda n=n: [store.put(f"{n}-{i}", {}, {"content": str(i)}) for i in range(50)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(store.transcripts())) == 400


def test_a_store_of_before_is_refused(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        store.set_meta("format", 3)
    with pytest.raises(StoreError, match="has format 3; this version reads 6: use another folder"):
        RunStore(tmp_path, IDENTITY)


def test_a_run_killed_at_any_step_of_making_its_store_goes_on(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folders = [tmp_path / str(step) for step in range(100)]
    for step, folder in enumerate(folders):
        if (child := os.fork()) == 0:
            killed_after(step, folder)
        ended = os.waitpid(child, 0)[1]
        assert list(read_transcripts(folder)) == [], "judge log reads it"
        with RunStore(folder) as store:
            assert store.get_meta("identity") in (None, IDENTITY), "all of the identity or nothing"
        with RunStore(folder, IDENTITY) as store:
            store.put("k", {}, {"content": "2"})
            assert store.get_meta("format") and store.get_meta("versions")
        assert len(list(read_transcripts(folder))) == 1
        with pytest.raises(StoreError, match="made with other settings"):
            RunStore(folder, {**IDENTITY, "settings": {"seed": 1}})
        if ended == 0:
            break
    assert ended == 0 and step > 8, "killed at every statement, then not at all"


def killed_after(statements, folder):
    """In a process of its own: make a store, killed before its nth statement."""
    connect, left = sqlite3.connect, [statements]

    def counted(_):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*given, **options):
        db = connect(*given, **options)
        if not statements:
            counted("")
        db.set_trace_callback(counted)
        return db

    sqlite3.connect = traced
    RunStore(folder, IDENTITY)
    os._exit(0)


def test_an_empty_file_is_a_store_without_answers(tmp_path):
    (tmp_path / "run.sqlite").touch()
    assert list(read_transcripts(tmp_path)) == []
    with RunStore(tmp_path, IDENTITY) as store:
        assert not store.answered
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE photographs (name TEXT)")
    with pytest.raises(StoreError, match="cannot be read as a run store"):
        list(read_transcripts(tmp_path / "other.db"))


def test_many_may_begin_at_once(tmp_path):
    found, gate = [], threading.Barrier(8)

    def begin(folder, seed):
        gate.wait()
        try:
            RunStore(folder, {**IDENTITY, "settings": {"seed": seed}}).close()
            found.append(seed)
        except StoreError as error:
            found.append(str(error))

    for number in range(20):
        found.clear()
        threads = [threading.Thread(target=begin, args=(tmp_path / str(number), n % 2)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = {f for f in found if isinstance(f, int)}
        assert len(taken) == 1, "one of two settings has the store"
        assert all("settings.seed was" in f for f in found if isinstance(f, str))


def test_a_run_in_a_folder_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    with RunStore(tmp_path, {}) as store:
        store.put("k", {"kind": "rate"}, {"content": "kept"})
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(StoreError, match="read a copy of the folder"):
            list(read_transcripts(tmp_path))  # its last answers are not in the file yet
    before = sorted(tmp_path.iterdir())
    assert [answer for _, answer in read_transcripts(tmp_path)] == [{"content": "kept"}]
    assert sorted(tmp_path.iterdir()) == before
