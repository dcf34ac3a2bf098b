import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from fade_lens._util.errors import InputError, MissingExtraError
from fade_lens.judge import Prompts, single
from fade_lens.llm import local
from fade_lens.llm.local import LocalServer, serve


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent\.gguf"):
        serve(tmp_path / "absent.gguf")
    with pytest.raises(InputError, match="not a file"):
        LocalServer(tmp_path)


def test_a_file_that_is_no_gguf_is_told_by_its_first_bytes(tmp_path: Path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(InputError, match=r"no GGUF file.*PK"):
        serve(path)


def test_a_broken_gguf_is_refused_in_words(tmp_path: Path):
    pytest.importorskip("xllamacpp")
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="incomplete"):
        serve(path)
    assert not local.running()


@pytest.mark.parametrize("options", [{"n_ctx": 0}, {"parallel": 0}, {"threads": -1}])
def test_options_are_checked(tmp_path: Path, options: dict[str, int]):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InputError, match=next(iter(options))):
        LocalServer(path, **options)


@pytest.mark.parametrize(("n_ctx", "at_a_time"), [(512, 1), (2048, 1), (4095, 1), (4096, 2), (8192, 2)])
def test_a_small_context_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_ctx: int, at_a_time: int):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    stub = MagicMock()
    stub.Server.return_value.listening_address = "http://127.0.0.1:9"
    monkeypatch.setitem(sys.modules, "xllamacpp", stub)
    monkeypatch.setattr(urllib.request, "build_opener", MagicMock())
    with LocalServer(path, n_ctx=n_ctx):
        assert stub.CommonParams.return_value.n_parallel == at_a_time
    with LocalServer(path, n_ctx=n_ctx, parallel=3):
        assert stub.CommonParams.return_value.n_parallel == 3


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtraError, match=r"fade-lens\[local\]"):
        LocalServer(path)


# ---------------------------------------------------------------- a server that never ends

STAND_IN = """
import ctypes, os, signal, sys, time, types
from fade_lens.llm import local
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background

class Server:
    listening_address = "http://127.0.0.1:1"
    def __init__(self, params): pass
    def __del__(self):
        os.write(1, b"ending\\n")
        ctypes.PyDLL(None).sleep(600)  # holds Python's lock, as llama.cpp does while its threads answer

class Params:
    def __getattr__(self, name):
        self.__dict__[name] = Params()
        return self.__dict__[name]

sys.modules["xllamacpp"] = types.SimpleNamespace(CommonParams=Params, Server=Server)
local.LocalServer._await_loop = lambda self: None
local._END_SECONDS = 0.2

path, way = sys.argv[1:]
del sys.argv[1:]

def working():
    server = local.serve(path)
    try:
        os.write(1, b"answering\\n")
        time.sleep(600)
    finally:
        os.write(1, b"unwinding\\n")
        if way == "stuck":
            server.close()

if way == "script":
    local.serve(path)
else:
    import fade_lens.cli, typer
    fade_lens.cli.app = typer.Typer()
    fade_lens.cli.app.command()(working)
    fade_lens.cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="interrupts are signals")
def test_an_interrupt_ends_a_command_whose_server_never_does(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    command = [sys.executable, "-c", STAND_IN, str(tmp_path / "model.gguf")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ways = ("free", "stuck", "terminated", "script")
    runs = {way: subprocess.Popen([*command, way], **pipes) for way in ways}
    try:
        for way in ways[:3]:
            assert runs[way].stdout.readline() == "answering\n"
        for way, sent in zip(ways, (signal.SIGINT, signal.SIGINT, signal.SIGTERM), strict=False):
            runs[way].send_signal(sent)
        assert [runs["stuck"].stdout.readline() for _ in range(2)] == ["unwinding\n", "ending\n"]
        runs["stuck"].send_signal(signal.SIGINT)
        said = {way: run.communicate(timeout=120) for way, run in runs.items()}
    finally:
        for run in runs.values():
            run.kill()
    assert {way: run.returncode for way, run in runs.items()} == {
        "free": 130,
        "stuck": -2,
        "terminated": -15,
        "script": 1,
    }
    assert "run the same command again" in " ".join(said["free"][1].split()), "what is kept is told"
    assert "Interrupt again to end at once" in said["stuck"][1] and said["script"] == ("ending\n", "")


# ---------------------------------------------------------------- the real model


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    try:
        from fade_lens.demo import judge_gguf

        path = judge_gguf()
    except ImportError as error:
        pytest.skip(f"the extra `demo`, which brings the judge's weights, is not installed: {error}")
    share = os.environ.get("OMP_NUM_THREADS")  # of the cores, where other tests run beside
    with LocalServer(path, n_ctx=4096, threads=int(share) if share else None) as running:
        yield running


def ask(server: LocalServer, concept: str, text: str) -> float:
    body = {"model": server.model, "messages": Prompts().single_messages(concept, text), **single.PARAMETERS}
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        top = json.load(answer)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    score = single.score([(entry["token"], entry["logprob"]) for entry in top])
    assert score is not None
    return score


@pytest.mark.real
def test_two_clear_concepts_are_told_apart(server: LocalServer):
    texts = {
        "text in German": "Die Katze schläft am Fenster, weil es draußen seit gestern regnet.",
        "sports matches and their results": "The visitors won 3-1 after two late goals by their captain.",
    }
    others = ["Mix the flour with two eggs and bake it for an hour.", "int main(void) { return 0; }"]
    for concept, text in texts.items():
        with ThreadPoolExecutor(2) as pool:
            right, *wrong = pool.map(
                lambda t, c=concept: ask(server, c, t), [text, *others, *(set(texts.values()) - {text})]
            )
        assert right > max(wrong) + 2, concept


@pytest.mark.real
def test_only_this_machine_reaches_it_and_no_path_is_told(server: LocalServer):
    assert server.base_url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{server.base_url}/models", timeout=60) as answer:
        assert json.load(answer)["data"][0]["id"] == server.model
        assert answer.headers.get("Access-Control-Allow-Origin", "") == ""
    assert "/" not in server.model


@pytest.mark.real
def test_a_server_is_shared_until_it_is_closed(server: LocalServer, capfd: pytest.CaptureFixture[str]):
    path = server.path
    first = serve(path, n_ctx=512, parallel=1)
    assert serve(str(path), n_ctx=512, parallel=1) is first
    first.close()
    first.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{first.base_url}/models", timeout=5)
    with serve(path, n_ctx=512, parallel=1) as second:
        assert second is not first
    assert capfd.readouterr() == ("", "")
