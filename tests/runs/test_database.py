"""A store on disks that are full, read-only, shared or damaged: it goes on, or says in one sentence what is wrong and how to mend it."""

import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fade_lens._util.errors import StoreError
from fade_lens._util.files import whole_file, write_text
from fade_lens.runs import database
from fade_lens.runs.store import RunStore, StoreReader, read_transcripts, saved_activations
from fade_lens.subject.activations import MaxActivations

IDENTITY = {"model": {"name": "tiny"}, "settings": {"seed": 0}}
N_TEXTS = 500


def answer(number):
    return {"content": f"answer {number} " + "x" * (7 * number % 300)}


def put_some(store, numbers):
    for number in numbers:
        store.put(f"key {number}", {"kind": "rate", "number": number}, answer(number))


def numbers_in(path):
    """The answers of a store, in order, each as it was put."""
    found = list(read_transcripts(path))
    assert all(said == answer(request["number"]) for request, said in found)
    return [request["number"] for request, _ in found]


def observed(n):
    values = np.random.default_rng(0).normal(size=(N_TEXTS, n)).astype(np.float32)
    return MaxActivations(values, np.ones((N_TEXTS, n), dtype=np.int32), np.arange(N_TEXTS), np.arange(n), 0)


def journal_of(file):
    with closing(sqlite3.connect(file)) as db:
        return db.execute("PRAGMA journal_mode").fetchone()[0]


@pytest.fixture
def no_shared_memory(tmp_path):
    """A folder in which SQLite cannot have the memory that WAL needs."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.sqlite-shm").symlink_to(tmp_path / "nowhere" / "at all")
    return folder


@pytest.fixture
def network_disk(tmp_path, monkeypatch):
    """A folder that the system says is on another machine."""
    folder = tmp_path / "on a network" / "run"
    mounts = f"none / ext4 rw 0 0\nhost:/ {str(folder.parent).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    monkeypatch.setattr(database, "MOUNTS", write_text(tmp_path / "mounts", mounts))
    return folder


@pytest.mark.parametrize("kind", ["no_shared_memory", "network_disk"])
def test_where_readers_cannot_read_beside_a_writer_they_wait(kind, request):
    folder = request.getfixturevalue(kind)
    with RunStore(folder, IDENTITY) as store, RunStore(folder, IDENTITY) as other:
        put_some(store, range(10))
        put_some(other, range(10, 20))
        assert store.get("key 15") == answer(15) and numbers_in(folder) == list(range(20))
    assert journal_of(folder / "run.sqlite") == "delete"


def test_a_store_that_is_moved_to_such_a_disk_goes_on(no_shared_memory, tmp_path):
    with RunStore(tmp_path / "here", IDENTITY) as store:
        put_some(store, range(5))
    shutil.copy(tmp_path / "here" / "run.sqlite", no_shared_memory)
    assert numbers_in(no_shared_memory) == list(range(5)), "reading changes nothing"
    with RunStore(no_shared_memory, IDENTITY) as store:
        put_some(store, range(5, 10))
    assert numbers_in(no_shared_memory) == list(range(10))


def test_which_disks_are_shared_is_read_from_the_mounts(tmp_path, monkeypatch):
    mounts = (
        "none / ext4 rw 0 0\nhost:/ /data nfs rw 0 0\nnone /data/scratch xfs rw 0 0\nhost /a\\040b fuse.sshfs rw 0 0\n"
    )
    monkeypatch.setattr(database, "MOUNTS", write_text(tmp_path / "mounts", mounts))
    found = {place: database.is_shared(Path(place)) for place in ("/data/run", "/data/scratch/run", "/a b/c", "/home", "/database")}  # fmt: skip
    assert [place for place, shared in found.items() if shared] == ["/data/run", "/a b/c"]
    monkeypatch.setattr(database, "MOUNTS", tmp_path / "none")
    assert not database.is_shared(tmp_path)


@pytest.mark.parametrize("kind", ["tmp_path", "network_disk"])
def test_the_log_is_read_while_a_run_writes(kind, request):
    folder, wrong = request.getfixturevalue(kind), []
    with RunStore(folder, IDENTITY) as store:
        writer = threading.Thread(target=put_some, args=(store, range(60)))
        writer.start()
        while writer.is_alive():
            found = numbers_in(folder)
            wrong += [found] if found != list(range(len(found))) else []
        writer.join()
    assert not wrong and numbers_in(folder) == list(range(60))


def test_a_reader_that_stops_in_the_midst_holds_up_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("fade_lens.runs.store.AT_ONCE", 4)
    with RunStore(tmp_path, IDENTITY) as store:
        put_some(store, range(30))
        reading = read_transcripts(tmp_path)
        next(reading)
        with closing(sqlite3.connect(tmp_path / "run.sqlite")) as other:
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0), "no reader is waited for"
        put_some(store, range(30, 40))
        assert [request["number"] for request, _ in reading] == list(range(1, 40))


def test_every_commit_is_synced_whatever_the_build_does(tmp_path, monkeypatch):
    opened, connect = [], sqlite3.connect

    def lax(*given, **options):
        opened.append(connect(*given, **options))
        opened[-1].execute("PRAGMA synchronous=NORMAL")
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", lax)
    with RunStore(tmp_path, IDENTITY):
        assert opened[0].execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
        assert opened[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_process_that_holds_the_store_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT", 0.05)
    with RunStore(tmp_path, IDENTITY) as store, closing(sqlite3.connect(tmp_path / "run.sqlite")) as other:
        put_some(store, range(3))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="cannot be written: database is locked; another process holds it"):
            put_some(store, [3])
        assert numbers_in(tmp_path) == [0, 1, 2]
        other.execute("ROLLBACK")
        put_some(store, [3])
    assert numbers_in(tmp_path) == [0, 1, 2, 3]


def limited(folder, size):
    """In a process of its own: answers put until a file would be larger than `size`; what was told, and how many were kept."""
    import resource

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        said, kept = "no error", 0
        try:
            with RunStore(folder, IDENTITY) as store:
                for kept in range(200):
                    put_some(store, [kept])
        except StoreError as error:
            said = str(error)
        except BaseException as error:
            said = f"not told: {error!r}"
        os.write(writing, f"{kept}\n{said}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        kept, _, said = pipe.read().partition("\n")
    return int(kept), said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["tmp_path", "network_disk"])
def test_a_full_disk_is_told_and_what_was_kept_is_there(kind, request):
    folder = request.getfixturevalue(kind)
    for size in (0, 1, 4096, 5000, 30_000):
        run = folder / str(size)
        kept, said = limited(run, size)
        assert "cannot be" in said and "see that its disk has room, and run again" in said and "run.sqlite" in said, (
            said
        )
        with RunStore(run, IDENTITY) as store:
            assert numbers_in(run) == list(range(kept)), "of what was put all is there"
            put_some(store, range(kept, kept + 3))
        assert numbers_in(run) == list(range(kept + 3))


def test_a_full_disk_is_told_as_sqlite_tells_it(tmp_path, monkeypatch):
    connect = sqlite3.connect

    def small(*given, **options):
        db = connect(*given, **options)
        db.execute("PRAGMA max_page_count=20")
        return db

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", small)
        with RunStore(tmp_path, IDENTITY) as store:
            with pytest.raises(StoreError, match=r"cannot be written: .* is full; see that its disk has room"):
                put_some(store, range(1000))
            before = numbers_in(tmp_path)
            with pytest.raises(StoreError, match="is full"):
                store.keep_activations(range(100), observed(100))
            assert store.activations(range(100)) is None
    with RunStore(tmp_path, IDENTITY) as store:
        assert before and numbers_in(tmp_path) == before == list(range(len(before)))
        store.keep_activations(range(100), observed(100))
        np.testing.assert_array_equal(store.activations(range(100)).values, observed(100).values)


def test_results_and_reports_are_whole_or_as_they_were(tmp_path):
    page = write_text(tmp_path / "new folder" / "report.html", "before")
    with pytest.raises(KeyboardInterrupt), whole_file(page) as partial:
        partial.write_text("half of")
        raise KeyboardInterrupt
    assert page.read_text() == "before" and list(page.parent.iterdir()) == [page]
    link = tmp_path / "link.html"
    link.symlink_to(page)
    write_text(link, "after")
    assert link.is_symlink() and page.read_text() == "after"
    write_text("/dev/null", "nothing")
    with pytest.raises(StoreError, match=r"report.html/page.html' cannot be written: .*see that its disk has room"):
        write_text(page / "page.html", "a folder is a file")


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    with RunStore(tmp_path / "run", IDENTITY) as store:
        store.keep_activations([4, 9], observed(2))
        put_some(store, range(3))
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda *_: False)
        assert numbers_in(tmp_path / "run") == [0, 1, 2]
        np.testing.assert_array_equal(saved_activations(tmp_path / "run", [9])[9], observed(2).values[:, 1])
        patched.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        with pytest.raises(StoreError, match="Read-only file system; give a folder that can be written to"):
            RunStore(tmp_path / "new", IDENTITY)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_lies_where_the_file_should_be_is_told(tmp_path):
    (tmp_path / "run.sqlite").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            StoreError, match=r"cannot be used as a run store: .*a folder is where its file should be, or"
        ):
            RunStore(path, IDENTITY)
    other = tmp_path / "photographs.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE photographs (name TEXT)")
    before = other.read_bytes()
    with pytest.raises(StoreError, match="it holds the tables of something else; it is damaged, or no run store"):
        RunStore(other, IDENTITY)
    assert other.read_bytes() == before, "somebody else's file is left alone"


@pytest.fixture
def killed(tmp_path):
    """The files of a run that was killed: most of it in the journal."""
    folder = tmp_path / "killed"
    with RunStore(tmp_path / "run", IDENTITY) as store:
        put_some(store, range(5))
        with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        put_some(store, range(5, 12))
        shutil.copytree(tmp_path / "run", folder)
    (folder / "run.sqlite-shm").unlink()
    return folder


def copied(folder, to, **files):
    """The folder with other contents of some files."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    for name, content in files.items():
        (to / name.replace("_", "-").replace("sqlite", "run.sqlite")).write_bytes(content)
    return to


def test_a_torn_journal_holds_what_was_whole(killed, tmp_path):
    wal, seen = (killed / "run.sqlite-wal").read_bytes(), set()
    noise = random.Random(0).randbytes(5000)
    frames = range(32, len(wal), 24 + 4096)
    cuts = [0, 31, *(frame + off for frame in frames for off in (0, 25)), len(wal) - 1, len(wal)]
    for at, cut in enumerate(cuts):
        run = copied(killed, tmp_path / "torn", sqlite_wal=wal[:cut] + noise * (at // 2 % 2))
        found = numbers_in(run)
        assert found == list(range(max(5, len(found)))), "all that was committed before"
        seen.add(len(found))
        if at % 9 == 0:
            with RunStore(run, IDENTITY) as store:
                put_some(store, range(len(found), 13))
            assert numbers_in(run) == list(range(13))
    assert seen == set(range(5, 13))


def test_a_torn_file_is_told_or_read_as_it_was(killed, tmp_path):
    with RunStore(killed, IDENTITY) as store:
        store.keep_activations(range(8), observed(8))
    file, told = (killed / "run.sqlite").read_bytes(), 0
    chance = random.Random(0)
    torn = [file[:cut] for cut in range(0, len(file), 6007)]
    for _ in range(40):
        at, size = chance.randrange(len(file)), chance.choice((1, 16, 512, 4096))
        noise = chance.choice((bytes(size), chance.randbytes(size)))
        torn.append((file[:at] + noise + file[at + size :])[: len(file)])
    for content in torn:
        run = copied(killed, tmp_path / "torn", sqlite=content)
        try:
            with RunStore(run, IDENTITY) as store:
                for number in range(12):
                    assert store.get(f"key {number}") in (answer(number), None)
                if (found := store.activations(range(8))) is not None:
                    np.testing.assert_array_equal(found.values, observed(8).values)
                put_some(store, range(12, 14))
                list(store.transcripts())
        except StoreError as error:
            told += 1
            assert "run.sqlite" in str(error) and "another folder" in str(error)
        try:
            numbers_in(run)
        except StoreError as error:
            assert "run.sqlite" in str(error)
    assert told > 20


def test_a_file_that_lost_all_but_its_journal_is_told(killed, tmp_path):
    run = copied(killed, tmp_path / "torn", sqlite=b"")
    with pytest.raises(StoreError, match="is empty, and what was written last is beside it"):
        RunStore(run, IDENTITY)
    assert (run / "run.sqlite-wal").stat().st_size, "and the journal stays"


def test_damage_that_sqlite_does_not_see_is_told(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        store.keep_activations([1, 2], observed(2))
        store.keep_continuations(1, 0.5, ["a text"], [1.5])
        put_some(store, [1])
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        for table, column in {"activations": "maxima", "continuations": "nll", "transcripts": "answer", "meta": "value"}.items():  # fmt: skip
            db.execute(f"UPDATE {table} SET {column} = replace({column}, '1', '2')" if column != "maxima" else "UPDATE activations SET maxima = positions WHERE feature = 2")  # fmt: skip
        db.commit()
    with StoreReader(tmp_path) as store:
        for look in (
            lambda: store.activations([2]),
            lambda: store.continuations_nll(1, 0.5),
            lambda: store.get("key 1"),
        ):
            with pytest.raises(
                StoreError, match="cannot be read as a run store: a row of it is not what was written; it is damaged"
            ):
                look()


def test_a_store_of_the_version_before_goes_on(tmp_path):
    with RunStore(tmp_path, IDENTITY) as store:
        put_some(store, range(3))
        store.keep_activations([1, 2], observed(2))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        for table in ("meta", "texts", "activations", "continuations", "transcripts"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        db.execute("UPDATE meta SET value = '5' WHERE key = 'format'")
        db.commit()
    assert numbers_in(tmp_path) == [0, 1, 2]
    np.testing.assert_array_equal(saved_activations(tmp_path, [2])[2], observed(2).values[:, 1])
    with RunStore(tmp_path, IDENTITY) as store:
        put_some(store, range(3, 6))
        np.testing.assert_array_equal(store.activations([1, 2]).values, observed(2).values)
    assert numbers_in(tmp_path) == list(range(6))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == ("6",)
        assert db.execute("SELECT count(checksum) FROM transcripts").fetchone() == (3,)


def test_many_features_are_read_in_few_queries(tmp_path, monkeypatch):
    n, asked, connect = 3000, [], sqlite3.connect

    def traced(*given, **options):
        db = connect(*given, **options)
        db.set_trace_callback(asked.append)
        return db

    values = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32)
    kept = MaxActivations(values, np.ones((3, n), dtype=np.int32), np.arange(3), np.arange(n), 0)
    with RunStore(tmp_path, IDENTITY) as store:
        store.keep_activations(range(n), kept)
    monkeypatch.setattr(sqlite3, "connect", traced)
    with RunStore(tmp_path, IDENTITY) as store:
        order = [int(i) for i in np.random.default_rng(1).permutation(n)] + [7, 7]
        np.testing.assert_array_equal(store.activations(order).values, values[:, order])
        assert store.activations([*order, n]) is None
    assert len(asked) < 40
