"""The same judge elsewhere: what a judge is known by, in a store's settings and in the keys of its answers."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fade_lens._util.errors import InputError, StoreError
from fade_lens.cli.judging import Judging
from fade_lens.judge import Judge, MemoryTranscripts
from fade_lens.judge.reliability import Reliability
from fade_lens.llm import local
from fade_lens.llm.endpoint import OWN, Endpoint
from fade_lens.llm.local import PIECE, fingerprint
from fade_lens.runs.store import RunStore
from tests.fake_judge import FakeJudge

CONCEPT = "the word 'cat'"
TEXTS = ["a cat", "a dog"]


def asked(kept: MemoryTranscripts, model: str = "m", url: str | None = None, **options: Any) -> int:
    """How many requests it takes to rate and write, on a server of its own."""
    with FakeJudge() as fake, FakeJudge() as writes:
        if "writer" in options:
            options["writer"] = f"{writes.base_url}#{options['writer']}"
        with Judge(model, base_url=url or fake.base_url, **options) as judge, judge.session(kept):
            judge.rate(CONCEPT, TEXTS)
            judge.write(CONCEPT, n_texts=2)
            return fake.requests + writes.requests


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:8000", "localhost.:1", "127.0.0.1:8001", "127.8.8.8", "0.0.0.0:8000", "[::1]:8000", "[fe80::1]:80", "[fd12::5]"),
        *("10.1.2.3:8000", "172.20.0.2:8000", "192.168.1.7:1234", "169.254.1.1", "100.101.102.103:8000", "[::ffff:192.168.1.7]"),
        *("gpu7:8000", "gpu-box", "workstation.local:8000", "nas.lan", "node.cluster.internal", "host.docker.internal:11434"),
        *("vllm.ns.svc:8000", "vllm.ns.svc.cluster.local", "pc.fritz.home.arpa", "me.tail1234.ts.net", "PC.LOCAL"),
        *("nas.fritz.box:8000", "desktop.mshome.net", "gpu01.cluster", "llm.service.consul", "llm.localhost:1", "[fe80::1%25eth0]:8000"),
    ],
)  # fmt: skip
def test_a_server_of_the_users_own_is_known_by_its_model(host: str) -> None:
    for scheme in ("http", "https"):
        assert Judge("m", base_url=f"{scheme}://{host}/v1").identity["endpoint"] == OWN
    assert Judge("m", base_url=f"http://{host}/v1").identity == Judge.parse("vllm:m").identity


@pytest.mark.parametrize("host", ["localhost.:1", "llm.localhost", "127.0.1.1:80", "[::1]", "[::ffff:127.0.0.1]:8000"])
def test_this_machine_is_known_under_each_of_its_names(host: str) -> None:
    assert Endpoint(f"http://{host}/v1").loopback
    assert not any(
        Endpoint(f"http://{other}/v1").loopback for other in ("localhost.org", "gpu", "10.0.0.1", "[fd12::5]")
    )


@pytest.mark.parametrize(
    "host", ["api.openai.com", "8.8.8.8:8000", "172.32.0.1", "[2606:4700::1111]", "mylocal.com", "lan.example.org", "x.proxy.runpod.net"]
)  # fmt: skip
def test_a_public_server_is_known_by_its_address_too(host: str) -> None:
    url = f"https://{host}/v1"
    assert Judge("m", base_url=url).identity["endpoint"] == url
    again = f"https://{host.upper()}{'' if host.endswith('8000') else ':443'}/v1/"
    assert Judge("m", base_url=again).identity == Judge("m", base_url=url).identity
    assert Judge("m", base_url=f"https://{host}/other/v1").identity != Judge("m", base_url=url).identity


def test_specs_of_local_servers_name_one_judge() -> None:
    same = [Judge.parse(f"{kind}:m") for kind in ("vllm", "lmstudio", "llamacpp")]
    same += [Judge.parse("http://10.0.0.5:9/v1#m"), Judge("m", base_url="http://gpu:8000/v1")]
    assert all(judge.identity == same[0].identity for judge in same)
    ollama = [Judge.parse("ollama:llama3.2"), Judge.parse("ollama:llama3.2:latest")]
    ollama += [Judge.ollama("llama3.2", base_url="http://gpu:11434/v1")]
    assert all(judge.identity == ollama[0].identity for judge in ollama)
    assert Judge.parse("ollama:llama3.2:1b").identity != ollama[0].identity
    assert Judge("m:latest", base_url="https://api.example.com/v1").identity["model"] == "m:latest"
    places = ["https://one.openai.azure.com", "https://two.openai.azure.com"]
    one, two = (Judge.azure("d", azure_endpoint=place) for place in places)
    assert one.identity != two.identity


def test_answers_count_on_another_port() -> None:
    kept = MemoryTranscripts()
    assert asked(kept, writer="w") == 2
    assert asked(kept, writer="w") == 0
    assert asked(kept, "m:latest", writer="w:latest") == 0
    assert asked(kept, "other", writer="w") == 1
    assert asked(kept, writer="other") == 1
    assert all(r["endpoint"].startswith("http://127.0.0.1:") for _, r, _ in kept.items()), "the log has the address"


def test_a_name_tells_two_apart_and_makes_one_of_two() -> None:
    kept = MemoryTranscripts()
    assert asked(kept) == 2
    assert asked(kept, name="8 bit") == 2
    assert asked(kept, name="8 bit") == 0
    assert asked(kept) == 0
    urls = ["https://a.proxy.example.net/v1", "https://b.proxy.example.net/v1"]
    assert len({Judge("m", base_url=url, name="pod").identity["endpoint"] for url in urls}) == 1
    assert Judging(judge_name="pod").open(f"{urls[0]}#m").identity == Judge("m", base_url=urls[1], name="pod").identity
    for name in ("", "  ", "a\nb", "x" * 201):
        with pytest.raises(InputError, match="name is"):
            Judge("m", base_url="http://h/v1", name=name)


def test_a_store_goes_on_at_another_port_and_says_how_to_elsewhere(tmp_path: Path) -> None:
    def identity(url: str, model: str = "m", **options: Any) -> dict[str, Any]:
        return {"judge": Judge(model, base_url=url, writer=f"{url}#w", **options).identity}

    own, public = tmp_path / "own", tmp_path / "public"
    for port in (8000, 8001):
        RunStore(own, identity(f"http://localhost:{port}/v1")).close()
    with pytest.raises(StoreError, match="another judge answered is asked anew"):
        RunStore(own, identity("http://localhost:8000/v1", "n"))
    with pytest.raises(StoreError, match="say so with name='own server'"):
        RunStore(own, identity("http://localhost:8000/v1", name="8 bit"))
    first, second = "https://a.example.net/v1", "https://b.example.net/v1"
    RunStore(public, {"judge": Judge("m", base_url=first).identity}).close()
    with pytest.raises(StoreError, match=f"say so with name='{first}'"):
        RunStore(public, {"judge": Judge("m", base_url=second).identity})
    RunStore(public, {"judge": Judge("m", base_url=second, name=first).identity}).close()


def test_a_second_judge_that_counts_as_the_first_is_refused() -> None:
    first = Judge("m", base_url="http://localhost:8000/v1", rating="single")
    with pytest.raises(InputError, match="counts as the same judge"):
        Reliability(first, second="http://localhost:8001/v1#m")
    Reliability(first, second="http://localhost:8001/v1#other")
    Reliability(first, second="http://localhost:8000/v1#m")  # the very same judge: its own answers, in another order
    named = Judge("m", base_url="http://localhost:8000/v1", name="8 bit")
    Reliability(named, second="http://localhost:8001/v1#m")


def weights(path: Path, change: int | None = None) -> Path:
    data = bytearray(os.urandom(16) * 400_000) if not path.exists() else bytearray(path.read_bytes())
    if change is not None:
        data[change : change + 100_000] = bytes(100_000)
    path.write_bytes(data)
    return path


def test_weights_are_known_by_name_and_content_not_by_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path, copy = weights(tmp_path / "q.gguf"), tmp_path / "other" / "q.gguf"
    copy.write_bytes(path.read_bytes())
    assert Judge.local(path).identity == Judge.local(copy).identity
    found = {fingerprint(path)}
    for change in (
        PIECE * 10,
        2_000_000,
        3_333_333,
        6_300_000,
    ):  # one trained further has other weights, and the same size
        found.add(fingerprint(weights(copy, change)))
    assert len(found) == 5
    path.rename(tmp_path / "r.gguf")
    assert Judge.local(tmp_path / "r.gguf").identity != Judge.local(copy).identity
    assert Judge.local(copy, name="x").identity["endpoint"] == "x"
    assert Endpoint("http://127.0.0.1/v1", name="gguf:1").label == "gguf:1"


def test_a_gguf_judge_answers_for_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryTranscripts()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "q.gguf").write_bytes(b"GGUF" + bytes(1000))
        with FakeJudge() as fake:
            monkeypatch.setattr(
                local, "serve", lambda _, url=fake.base_url, **__: SimpleNamespace(base_url=url, model="q")
            )
            with Judge.local(tmp_path / folder / "q.gguf") as judge, judge.session(kept):
                judge.rate(CONCEPT, TEXTS)
                assert (fake.requests > 0) == (folder == "a")
