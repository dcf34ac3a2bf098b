"""The power is cut between any two writes of a run: what is on disk then is resumed to the whole run's numbers, and nothing on it is asked again."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from fade_lens import Fade, Judge, Results
from fade_lens.judge.asking import CHECKED
from fade_lens.runs.store import read_transcripts, transaction
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer

SMALL = {"prompts": 3, "prompt_tokens": 3, "new_tokens": 3, "rated_texts": 30, "synthetic_texts": 10, "factors": (1.0,), "health_texts": 0}  # fmt: skip


def whole_run(url, folder, of):
    """A run and its files."""
    with Judge("planted", base_url=url, concurrency=1) as judge:
        fade = Fade(*of[:2], corpus=of[2], judge=judge, **SMALL)
        results = fade.evaluate({0: TRUE[0]}, store=folder, progress=False)
        results.to_folder(folder)
    return results


def questions(records):
    """What was asked, the check of a judge that has answered nothing yet left out."""
    return {text for record in records if CHECKED[0] not in (text := json.dumps(record["messages"]))}


def test_a_run_that_dies_between_any_two_writes_ends_alike(tmp_path, monkeypatch):
    run, copies, of = tmp_path / "run", [], (planted_model(), planted_sae(), natural_texts(60))

    def copy():
        """The disk as it is now: database, journal and files, one of them half written maybe."""
        copies.append(tmp_path / f"copy {len(copies)}")
        shutil.copytree(run, copies[-1])
        (copies[-1] / "run.sqlite-shm").unlink(missing_ok=True)

    @contextmanager
    def cut(db):
        copy()
        with transaction(db):
            yield

    replace = Path.replace

    def replaced(path, to):
        copy()
        return replace(path, to)

    with FakeJudge(rule=rule, writer=writer) as server:
        with monkeypatch.context() as patched:
            patched.setattr("fade_lens.runs.store.transaction", cut)
            patched.setattr(Path, "replace", replaced)
            undisturbed = whole_run(server.base_url, run, of)
        copy()
        asked, seen = questions(server.bodies), set()
        for place in copies:
            kept, before = questions(request for request, _ in read_transcripts(place)), server.requests
            seen.add(len(kept))
            finished = whole_run(server.base_url, place, of)
            sent = questions(server.bodies[before:])
            assert not kept & sent and kept | sent == asked
            assert finished.items == undisturbed.items == Results.load(place).items
            pd.testing.assert_frame_equal(finished.frame, undisturbed.frame)
            assert (place / "report.html").exists()
            assert sorted(file.name for file in place.iterdir() if file.suffix == ".csv") == ["results.csv"]
        assert seen == set(range(len(asked) + 1)) and len(copies) > 12
