"""A run whose torch work is Ray's: equal to one process' in every text, rating and choice, whatever happens to workers."""

import json
import os
import random
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, InputError, Judge, MissingExtraError, RayWorkers, Subject, WorkerError, baseline, causes
from fade_lens._util.workers import HERE, Workers
from fade_lens.cli.ray import RayOptions
from fade_lens.runs import ray as by_ray
from fade_lens.runs.ray import lacking, shared, workers_of
from fade_lens.runs.store import read_transcripts
from fade_lens.subject.activations import OutlierRule, max_activations, token_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.tokens import tokenize
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.runs import ray_work
from tests.runs.ray_work import Sized
from tests.tiny import HOOK, tiny_bridge, tiny_model, tiny_sae

KEY = "sk-SECRET-planted-key"


# ----------------------------------------------------------------------------------------------- without a cluster


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pieces_of_any_size_give_the_same_bits(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.subject.activations.WINDOW", 64)
    model = planted_model()
    features = features_of(model, planted_sae(), [0, 1, 2, 5])
    tokens = tokenize(model, [*natural_texts(90), ""], context=16, prepend_bos=False)
    rule = OutlierRule.fit(model, features, tokens, factor=5.0)
    monkeypatch.setattr("fade_lens.subject.activations.BATCHES", 10**6)
    whole = max_activations(model, features, tokens, rule, batch_tokens=60)
    rows = token_activations(model, features, tokens, rule, batch_tokens=60)
    monkeypatch.setattr("fade_lens.subject.activations.BATCHES", 5)
    done = list[int]()
    cut = max_activations(model, features, tokens, rule, batch_tokens=60, workers=Sized(size), progress=done.append)
    np.testing.assert_array_equal(cut.values, whole.values)
    np.testing.assert_array_equal(cut.positions, whole.positions)
    np.testing.assert_array_equal(cut.active, whole.active)
    np.testing.assert_array_equal(cut.counted, whole.counted)
    assert sum(done) == 90
    columns = [[number % 4, 1] for number in range(len(tokens))]
    some = token_activations(model, features, tokens, rule, columns=columns, batch_tokens=60, workers=Sized(size))
    for number, (found, row) in enumerate(zip(some[:90], rows, strict=False)):
        np.testing.assert_array_equal(found, row[:, columns[number]])


def seen(ray: Any) -> list[Any]:
    """What runs the model beside a run: a look with causes and steered tokens, summaries, causes, a random SAE's thresholds, features untangled."""
    model, sae, texts = planted_model(), planted_sae(), natural_texts(300)
    with FakeJudge(rule, writer, says=lambda _: '{"description": "names of animals"}') as server:
        fade = Fade(model, sae, corpus=texts, judge=judge_of(server), contrast_kinds=("token_silent",))
        look = fade.look([0, 1, 3], ray=ray, progress=False, changed_tokens=3, caused_texts=2)
        subject = Subject(model, sae, texts, [0, 1])
        with workers_of(ray) as subject.workers:
            random_sae: Any = baseline("random", subject).source
            neurons = baseline("neurons", subject).indices
        untangled = fade.untangle({0: "animals", 1: "animals"}, ray=ray, progress=False)
        told = causes(model, sae, [0, 1], texts[:40], silences=True, ray=ray)
        return [look.items, fade.summaries([0, 2], ray=ray), random_sae.b_enc.tolist(), neurons, untangled.rows, told.to_csv()]  # fmt: skip


@pytest.fixture(scope="module")
def seen_alone() -> list[Any]:
    """All that in one process."""
    return seen(None)


def test_what_else_runs_the_model_takes_workers_and_is_the_same_in_pieces(seen_alone: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    workers = Sized(3)
    monkeypatch.setattr("fade_lens.subject.activations.BATCHES", 1)
    assert seen(workers) == seen_alone
    assert Counter(workers.given) == {"maxima": 5, "tables": 6, "of_a_few": 4, "next_tokens": 1, "projected": 1}


def test_shares_follow_what_a_cluster_has() -> None:
    gpus = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}]
    assert shared(RayWorkers(), gpus) == (3, 1.0, 1.0)
    assert shared(RayWorkers(gpus=0.5), gpus) == (6, 1.0, 0.5)
    assert shared(RayWorkers(gpus=0), gpus) == (2, 16.0, 0.0)
    assert shared(RayWorkers(workers=3), [{"CPU": 2.0}]) == (3, 0.66, 0.0)
    assert shared(RayWorkers(workers=2, cpus=4), [{"CPU": 2.0}]) == (2, 4.0, 0.0)
    assert shared(RayWorkers(workers=2, gpus=1), [{"CPU": 2.0}]).gpus == 1.0, "what is not there is asked for, and told"


def test_workers_that_do_not_come_are_told_with_what_was_asked_and_what_there_is() -> None:
    asked = shared(RayWorkers(workers=3, gpus=2), [{"CPU": 8.0, "GPU": 1.0}])
    said = str(lacking(asked, 1, 30, {"CPU": 8, "GPU": 1}, {"CPU": 7}))
    assert "3 workers with 1 CPU and 2 GPUs each, and 1 came within 30 s" in said
    assert "8 CPUs, of which 7 are free and 1 GPUs, of which 0 are free" in said


@pytest.mark.parametrize("settings", [{"workers": 0}, {"gpus": -1}, {"cpus": 0}, {"address": "somewhere"}, {"address": "host:99999"}])  # fmt: skip
def test_settings_that_cannot_be_used_are_told(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings.values())).__repr__()):
        RayWorkers(**settings)


def test_without_ray_one_sentence_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(20), judge="http://localhost:1/v1#none")
    with pytest.raises(MissingExtraError, match=r"pip install 'fade-lens\[ray\]'"):
        fade.evaluate(TRUE, ray="auto", progress=False)
    with pytest.raises(MissingExtraError):
        RayOptions(ray="auto").settings()


GREETS = bytes(3) + b"\x04" + bytes(5)
"""What a server that speaks HTTP/2 says first."""


@contextmanager
def listening(says: bytes | None) -> Generator[str]:
    """The address of somebody who says that to who connects, and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # it is closed
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].sendall(says or b"")

        connections = list[socket.socket]()
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for one in connections:
            one.close()


def test_options_of_the_shell_are_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    assert RayOptions().settings() is None
    monkeypatch.setattr(by_ray, "check_there", lambda _: None)
    with listening(GREETS) as address:
        told = RayOptions(ray=address, ray_workers=2, ray_gpus=0.5, ray_cpus=1).settings()
    assert told == RayWorkers(address=address, workers=2, gpus=0.5, cpus=1)
    with pytest.raises(InputError, match="--ray-workers needs --ray"):
        RayOptions(ray_workers=2).settings()


def test_nobody_at_an_address_is_told_at_once_and_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    for given in (address, "auto"):
        with pytest.raises(InputError, match=f"no Ray cluster answers at '{address}'"):
            RayOptions(ray=given).settings()
    monkeypatch.setenv("RAY_ADDRESS", "head")
    with pytest.raises(InputError, match="RAY_ADDRESS is 'head'; set it to a cluster's address, such as"):
        RayOptions(ray="auto").settings()


@pytest.mark.parametrize("says", [None, b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_somebody_else_at_an_address_is_told_within_a_bounded_time(says: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(by_ray, "CONNECT", 3)
    with listening(says) as address, pytest.raises(InputError, match=f"no Ray cluster.* at '{address}'|at '{address}' is no Ray cluster"):  # fmt: skip
        RayWorkers(address=address).cluster()


def test_who_speaks_as_a_cluster_does_and_is_none_is_told_within_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    monkeypatch.setattr(by_ray, "CONNECT", 1)
    with listening(GREETS) as address, pytest.raises(InputError, match="is no Ray cluster, or does not answer within 1 s"):  # fmt: skip
        RayWorkers(address=address).cluster()


# ---------------------------------------------------------------------------------------------- on three workers


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    """Three workers of a cluster on this machine, started while the environment holds a key."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FADE_LENS_API_KEY", KEY)
        patch.setenv("MY_PROXY_TOKEN", KEY)
        with workers_of(RayWorkers(address="local", workers=3, cpus=0.3, wait=300)) as made:
            made.start()
            assert os.environ["FADE_LENS_API_KEY"] == KEY, "it is put back"
            yield made


def evaluated(url: str, ray: Any, store: Path | None) -> Any:
    """A small run."""
    about: dict[str, Any] = {"new_tokens": 5, "prompts": 10, "controls": ("random_direction",)}
    with Judge("planted", base_url=url, api_key=KEY) as judge:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(300), judge=judge, **about)
        return fade.evaluate(TRUE, ray=ray, store=store, progress=False)


def run(ray: Any, store: Path | None = None) -> tuple[Any, list[str]]:
    """The run, and what it asked."""
    with FakeJudge(rule, writer, key=KEY) as server:
        return evaluated(server.base_url, ray, store), questions(server.bodies)


def questions(bodies: list[dict[str, Any]]) -> list[str]:
    """What was asked, in no order."""
    return sorted(json.dumps(body["messages"]) for body in bodies)


def texts_in(file: Path) -> dict[Any, Any]:
    """The continuations that a store has."""
    with closing(sqlite3.connect(file)) as opened:
        return {row[:3]: row[3:] for row in opened.execute("SELECT * FROM continuations")}


@pytest.fixture(scope="module")
def alone() -> tuple[Any, list[str]]:
    """The run in one process."""
    return run(None)


def assert_equal(found: Any, expected: Any) -> None:
    assert [one.metrics for one in found] == [one.metrics for one in expected]
    assert [one.fade for one in found] == [one.fade for one in expected], "texts, ratings, choices and activations"
    assert [one.feature for one in found] == [one.feature for one in expected]
    assert [one.permutation for one in found] == [one.permutation for one in expected]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of continuations, or a batch of texts, is a piece of work, so that all workers have some."""
    monkeypatch.setattr("fade_lens.generation.continuing.BATCHES", 0)
    monkeypatch.setattr("fade_lens.subject.activations.BATCHES", 1)


@pytest.mark.usefixtures("cut")
def test_a_run_on_workers_is_that_of_one_process(pool: Workers, alone: tuple[Any, list[str]], tmp_path: Path) -> None:
    found, asked = run(pool, tmp_path)
    assert_equal(found, alone[0])
    assert asked == alone[1]
    assert found.run.versions["ray"].endswith("3 workers with 0.3 CPU each")
    again, asked_again = run(None, tmp_path)
    assert_equal(again, found)
    assert not asked_again, "any process opens it and goes on"


@pytest.mark.parametrize("kind", ["topk", "gated", "temporal", "neurons", "residual", "permuted", "random", "bridge"])
def test_every_kind_of_features_arrives_as_it_was_sent(pool: Workers, kind: str, tmp_path: Path) -> None:
    model: Any = tiny_bridge(tmp_path) if kind == "bridge" else tiny_model()
    hook = "blocks.0.hook_out" if kind == "bridge" else HOOK
    source: Any = (
        hook
        if kind in ("neurons", "bridge")
        else tiny_sae(kind if kind in ("topk", "gated", "temporal") else "jumprelu")
    )
    if kind in ("residual", "permuted", "random"):
        source = baseline(kind, Subject(model, source, natural_texts(60), [0, 1, 2])).source
    features = features_of(model, source, [2, 0, 1])
    tokens = tokenize(model, natural_texts(30), context=16, prepend_bos=True)
    rule = OutlierRule(float("inf"))
    own, theirs = (max_activations(model, features, tokens, rule, workers=one) for one in (HERE, pool))
    np.testing.assert_array_equal(own.values, theirs.values)
    np.testing.assert_array_equal(own.active, theirs.active)


DRIVER = """
import sys
sys.path[:0] = [{root!r}]
import torch
torch.set_num_threads(1)
from fade_lens import RayWorkers
from tests.runs.test_ray import evaluated
evaluated({url!r}, RayWorkers(address="local", workers=1, cpus=1, wait=300), {store!r})
"""


def test_a_driver_that_is_killed_with_its_workers_is_resumed_by_one_process(alone: tuple[Any, list[str]], tmp_path: Path) -> None:  # fmt: skip
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    import psutil

    store = tmp_path / "run"
    with FakeJudge(rule, writer, key=KEY, latency=0.02) as server:
        code = DRIVER.format(root=str(Path(__file__).parents[2]), url=server.base_url, store=str(store))
        driver = psutil.Popen([sys.executable, "-c", code])
        while driver.poll() is None and len(server.bodies) < 0.8 * len(alone[1]):
            time.sleep(0.01)
        assert driver.poll() is None, "it is in the midst of its run"
        for one in (driver, *driver.children(recursive=True)):
            one.kill()
        driver.wait()
        answered = {json.dumps(request["messages"]) for request, _ in read_transcripts(store / "run.sqlite")}
        before, texts = len(server.bodies), texts_in(store / "run.sqlite")
        found = evaluated(server.base_url, None, store)
        asked, anew = questions(server.bodies), questions(server.bodies[before:])
    assert answered and texts, "the one that was killed had answers and continuations"
    assert_equal(found, alone[0])
    assert answered.isdisjoint(anew), "what was answered is not asked again"
    assert {*asked} == {*alone[1]} and len(anew) == len({*anew}), "nothing else is"
    assert texts.items() <= texts_in(store / "run.sqlite").items(), "what was written is kept"


def test_what_else_runs_the_model_is_the_same_on_workers(pool: Workers, seen_alone: list[Any]) -> None:
    assert seen(pool) == seen_alone


def test_explanations_on_workers_are_those_of_one_process(pool: Workers) -> None:
    found = []
    for ray in (None, pool):
        with FakeJudge(rule, writer, key=KEY, says=lambda _: '{"description": "names of animals"}') as server:
            fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(600), judge=judge_of(server))
            found.append(
                (fade.explain([0, 1, 3], ray=ray, progress=False), [body["messages"] for body in server.bodies])
            )
    (own, asked), (theirs, asked_there) = found
    assert [(r.index, r.description, r.reason) for r in own.rows] == [
        (r.index, r.description, r.reason) for r in theirs.rows
    ]
    assert sorted(map(str, asked)) == sorted(map(str, asked_there)), "the same windows were shown"


def test_no_worker_knows_the_judges_key(pool: Workers) -> None:
    for known, begun in pool.each(ray_work.environment, (), [()] * 4):
        assert not [name for name, value in known.items() if KEY in value]
        assert KEY.encode() not in begun
    session = Path("/tmp/ray/session_latest")
    files = [path for path in session.rglob("*") if path.is_file()]
    assert files, "Ray keeps its logs there"
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_workers_of_a_cluster_that_was_there_get_no_key_either(pool: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with workers_of(RayWorkers(workers=1, cpus=0.1, wait=300)) as other:
        ((known, begun),) = other.each(ray_work.environment, (), [()])
    assert KEY not in str(known)
    assert KEY.encode() not in begun
    assert list(pool.each(ray_work.squares, (0,), [(3, 0.0)])) == [(3, 9)], "what was there is left running"


def test_an_error_for_the_user_arrives_as_it_was_raised(pool: Workers) -> None:
    with pytest.raises(InputError, match="context is 2; give another") as raised:
        list(pool.each(ray_work.refused, (), [(number,) for number in range(5)]))
    assert raised.value.field == "context"


def test_a_full_disk_on_a_worker_sends_the_piece_elsewhere_or_is_one_sentence(pool: Workers, tmp_path: Path) -> None:
    tasks = [(number, 2) for number in range(4)]
    assert list(pool.each(ray_work.full_disk, (str(tmp_path),), tasks)) == [0, 1, 2, 3]
    with pytest.raises(WorkerError, match=r"no room on the disk of a node: No space left on device.*goes on with it"):
        list(pool.each(ray_work.full_disk, (str(tmp_path),), [(9, 1000)]))


@pytest.mark.usefixtures("cut")
def test_two_workers_killed_in_a_run_change_nothing(pool: Workers, alone: tuple[Any, list[str]], tmp_path: Path) -> None:  # fmt: skip
    victims, moments = sorted(set(pool.each(ray_work.own_process, (), [()] * 6))), random.Random(0)
    for victim in victims[:2]:
        threading.Timer(moments.uniform(0.1, 0.5), os.kill, (victim, signal.SIGKILL)).start()
    found, asked = run(pool, tmp_path)
    assert_equal(found, alone[0])
    assert asked == alone[1], "nothing is asked twice"
    assert len({*pool.each(ray_work.own_process, (), [()] * 6)} & {*victims}) == len(victims) - 2


def test_work_that_ends_every_process_is_given_up(pool: Workers) -> None:
    with pytest.raises(WorkerError, match="failed on 5 Ray workers one after the other"):
        list(pool.each(ray_work.deadly, (), [(0,), (1,)]))


def test_a_model_that_cannot_be_sent_is_one_sentence(pool: Workers) -> None:
    model = planted_model()
    model.lock = threading.Lock()
    fade = Fade(model, planted_sae(), corpus=natural_texts(50))
    with fade.opened([0], None, None, (), workers=pool) as (subject, *_), pytest.raises(InputError) as raised:
        subject.observe()
    assert "HookedSAETransformer cannot be sent to Ray's workers" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("asked", [{"workers": 40, "cpus": 1}, {"workers": 1, "gpus": 3}])
def test_more_than_the_cluster_has_is_told_before_anything_is_spent(pool: Workers, asked: dict[str, Any]) -> None:
    with FakeJudge(rule, writer, key=KEY) as server:
        fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(50), judge=judge_of(server))
        with pytest.raises(InputError, match="came within 1 s: the cluster has"):
            fade.evaluate(TRUE, ray=RayWorkers(wait=1, **asked), progress=False)
        assert not server.bodies


def test_another_fade_lens_on_a_node_is_told(pool: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_ray, "installed", lambda: "0.0.7 (abcdef)")
    said = pytest.raises(
        InputError, match=r"has fade_lens 0\.\d.* with torch \d.*this process 0\.0\.7 \(abcdef\): install the same"
    )
    with workers_of(RayWorkers(workers=1, cpus=0.1, wait=300)) as other, said:
        other.start()
