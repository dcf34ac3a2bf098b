"""The run store: nothing kept is lost, and a store made with other settings says which."""

import sqlite3
import threading

import numpy as np
import pytest

from fade_lens.activations import MaxActivations
from fade_lens.errors import StoreError
from fade_lens.judge import Transcripts
from fade_lens.store import RunStore

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
