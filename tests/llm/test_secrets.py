"""Keys and addresses: shown to the server that the user chose, and to nobody and nothing else."""

import base64
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fade_lens._util.errors import InputError, JudgeError
from fade_lens.judge import Judge, MemoryTranscripts, Prompts
from fade_lens.llm import endpoint, wire
from fade_lens.llm.chat import Answer, Provider
from fade_lens.llm.request import Request
from tests.fake_judge import FINAL, FakeJudge

KEY = "sk-very-secret-key-0123456789"
ASKED = Request("rate", "c", [{"role": "user", "content": "x"}], {}, expects=1)
TEXTS = ["a cat", "a dog"]


def everything_said(error: BaseException | None) -> str:
    """The error with all that hangs on it, the local variables of its frames included."""
    said: list[str] = []
    while error is not None:
        said += [str(error), repr(error), *traceback.format_exception(error)]
        for frame in traceback.walk_tb(error.__traceback__):
            if "fade_lens" in frame[0].f_code.co_filename:
                said += [repr(value) for value in frame[0].f_locals.values()]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@pytest.mark.parametrize("kind", ["ok", "error", "garbage", *FINAL])
def test_the_key_is_nowhere(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kept = MemoryTranscripts()
    said = ""
    with FakeJudge(plan={kind: 1.0} if kind != "ok" else {}, echo_key=True) as fake:
        judge = Judge("m", base_url=fake.base_url, api_key=KEY, max_retries=1)
        with judge, judge.session(kept):
            said += repr(judge) + repr(vars(judge)) + json.dumps(judge.identity) + repr(judge.endpoint)
            for ask in (judge.check, lambda: judge.rate("cat", TEXTS), lambda: judge.write("cat")):
                try:
                    said += repr(ask())
                except JudgeError as error:
                    said += everything_said(error)
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in fake.headers)
        assert fake.requests
    assert KEY not in said
    assert KEY not in caplog.text
    assert KEY not in repr(kept.items())


def test_the_key_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        endpoint.Secret(KEY).__reduce__()


def test_what_looks_like_a_key_is_redacted() -> None:
    assert endpoint.redact("got sk-abcdef123456, Bearer xyz", None) == "got ***, Bearer ***"
    assert endpoint.redact("got hunter2!", endpoint.Secret("hunter2")) == "got ***!"


@pytest.mark.parametrize("before", [280, 296])
def test_a_key_at_the_end_of_a_message_is_not_kept_in_part(before: int) -> None:
    key = "hunter2-hunter2-hunter2"
    said = {"message": "x" * before + key, "param": key}
    for status in (400, 401, 503):
        found = wire.classify(status, {}, said, "", Provider("m", endpoint.endpoint("http://h/v1", key)))
        assert "hunt" not in str(found) and "xxx" in str(found)


def test_a_key_that_a_server_puts_into_its_answer_is_left_out() -> None:
    message = {"content": f"sk-learn EMPTY {KEY}", "refusal": f"no: {KEY}"}
    for key, content in [(KEY, "sk-learn EMPTY ***"), ("EMPTY", message["content"])]:
        secret = endpoint.Secret(key)
        answer = wire.read_completion({"choices": [{"message": message}]}, ASKED, key=secret)
        assert answer.content == content and (KEY in str(answer.refusal)) == (key == "EMPTY")


def shown_key(fake: FakeJudge, **options: Any) -> str | None:
    with Judge("m", base_url=fake.base_url, **options) as judge:
        judge.rate("cat", TEXTS)
    return fake.headers[-1].get("authorization")


def test_an_openai_key_of_the_environment_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": KEY,
        "OPENAI_ADMIN_KEY": KEY,
        "OPENAI_ORG_ID": KEY,
        "OPENAI_PROJECT_ID": KEY,
        "OPENAI_CUSTOM_HEADERS": f"Authorization: Bearer {KEY}\nX-Mine: {KEY}",
    }.items():
        monkeypatch.setenv(name, value)
    with FakeJudge() as fake:
        assert shown_key(fake) is None
        assert KEY not in str(fake.headers)
        assert shown_key(fake, api_key="other") == "Bearer other"
        monkeypatch.setenv("FADE_LENS_API_KEY", "mine")
        assert shown_key(fake) == "Bearer mine"
        assert KEY not in str(fake.headers)
        with Judge.ollama("m", base_url=fake.base_url, rating="batched") as judge:
            judge.rate("cat", TEXTS)
        assert "authorization" not in fake.headers[-1]
    assert Judge("gpt-4o-mini").endpoint.key is not None


def test_keys_from_a_dotenv_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\n")
    key = Judge("gpt-4o-mini").endpoint.key
    assert key is not None and key.reveal() == KEY
    with FakeJudge() as fake:
        assert shown_key(fake) is None
        (tmp_path / ".env").write_text("FADE_LENS_API_KEY='mine'\n")
        assert shown_key(fake) == "Bearer mine"


def test_the_address_is_never_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeJudge() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        # Everything outside this machine is refused by this proxy, so the test sends nothing anywhere.
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        judge = Judge("gpt-4o-mini", max_retries=0)
        assert judge.endpoint.base_url == "https://api.openai.com/v1"
        with judge, pytest.raises(JudgeError, match="cannot be reached"):
            judge.check()
        assert fake.requests == 0


def test_a_proxy_of_the_environment_does_not_hide_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with FakeJudge() as fake:
        assert shown_key(fake) is None


def test_a_redirect_is_not_followed() -> None:
    with (
        FakeJudge(plan={"redirect": 1.0}) as fake,
        Judge("m", base_url=fake.base_url) as judge,
        pytest.raises(JudgeError, match="give the final address"),
    ):
        judge.check()


def test_a_missing_key_is_said_before_anything_is_sent() -> None:
    with Judge("gpt-4o-mini") as judge:
        judge.estimate(30, 500)
        for ask in (judge.check, lambda: judge.rate("cat", TEXTS)):
            with pytest.raises(JudgeError, match="set OPENAI_API_KEY"):
                ask()


def test_azure() -> None:
    with FakeJudge(key=KEY) as fake:
        address = fake.base_url.removesuffix("/v1")
        with Judge.azure("judge-1", azure_endpoint=f"{address}/", api_key=KEY, api_version="2025-01-01") as judge:
            judge.rate("cat", TEXTS)
            assert fake.paths == ["/openai/deployments/judge-1/chat/completions?api-version=2025-01-01"]
            assert fake.headers[0]["api-key"] == KEY and "authorization" not in fake.headers[0]
            assert "max_completion_tokens" in fake.bodies[0]
        with Judge.azure("judge-1", azure_endpoint=f"{address}/openai/v1/", api_key=KEY) as judge:
            judge.rate("cat", TEXTS)
            assert fake.paths[1:] == ["/openai/v1/chat/completions"] and fake.bodies[1]["model"] == "judge-1"
            assert fake.headers[1]["api-key"] == KEY and "authorization" not in fake.headers[1]
        with (
            Judge.azure("judge-1", azure_endpoint=address) as judge,
            pytest.raises(JudgeError, match="AZURE_OPENAI_API_KEY"),
        ):
            judge.check()


def test_specs(tmp_path: Path) -> None:
    assert Judge.parse("openai:gpt-4o-mini").identity["model"] == "gpt-4o-mini"
    ollama = Judge.parse("ollama:llama3.2:1b", rating="auto")
    assert (ollama.model, ollama.rating, ollama.endpoint.base_url) == (
        "llama3.2:1b",
        "single",
        "http://localhost:11434/v1",
    )
    other = Judge.parse("http://host:8000/v1#org/model", rating="auto", concurrency=2)
    assert (other.model, other.rating, other.endpoint.base_url) == ("org/model", "batched", "http://host:8000/v1")
    for spec, address, cost in [
        ("vllm:org/model", "http://localhost:8000/v1", 0.0),
        ("lmstudio:model", "http://localhost:1234/v1", 0.0),
        ("llamacpp:model", "http://localhost:8080/v1", 0.0),
        ("openrouter:org/model:free", "https://openrouter.ai/api/v1", None),
    ]:
        judge = Judge.parse(spec, rating="single")
        assert (judge.model, judge.rating, judge.endpoint.base_url, judge.usage.cost) == (
            spec.partition(":")[2],
            "single",
            address,
            cost,
        )
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF0000")
    local = Judge.parse(f"gguf:{path}")
    assert (local.model, local.rating, local.usage.cost) == ("tiny", "single", 0.0)
    assert str(tmp_path) not in json.dumps(local.identity) and local.endpoint.label.startswith("gguf:")


def test_keys_of_named_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENROUTER_API_KEY", "theirs")
    found = Judge.parse("openrouter:org/model").endpoint.key
    assert found is not None and found.reveal() == "theirs"
    assert Judge.parse("vllm:model").endpoint.key is None
    with pytest.raises(InputError, match="AZURE_OPENAI_ENDPOINT"):
        Judge.parse("azure:judge-1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    assert Judge.parse("azure:judge-1").endpoint.base_url == "https://mine.openai.azure.com/openai/deployments/judge-1"


@pytest.mark.parametrize(
    "spec", ["gpt-4o-mini", "", "openai:", "gguf:", "ftp://x#m", "claude:opus", "http://host:8000/v1"]
)
def test_bad_specs_list_the_forms(spec: str) -> None:
    with pytest.raises(InputError, match=r"openai:gpt-4o-mini.*gguf:|#model"):
        Judge.parse(spec)


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8000", "ftp://h/v1", "http://", "http://h/v1?key=pw", "", "http://user:pw@h/v1", "http://h h/v1"),
        *("http://h:notaport/v1", "http://h:99999/v1", "http://[::1/v1", "http://user:pw/x@h/v1", "user:pw@h/v1"),
    ],
)
def test_bad_addresses(url: str) -> None:
    asks = [lambda: Judge("m", base_url=url)]
    if url.startswith("http:"):
        asks += [lambda: Judge.parse(url), lambda: Judge.parse(f"{url}#m"), lambda: Judge.ollama("m", base_url=url)]
    for ask in asks:
        with pytest.raises(InputError, match=r"base_url|is not understood") as caught:
            ask()
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "kéy"])
def test_bad_keys(key: str) -> None:
    with pytest.raises(InputError, match="api_key"):
        Judge("m", base_url="http://h/v1", api_key=key)


def test_a_gguf_that_is_not_there() -> None:
    with pytest.raises(InputError, match="not a file"):
        Judge.parse("gguf:/nowhere/model.gguf")


def made_again(judge: Judge) -> Judge:
    content = pickle.dumps(judge)
    assert KEY.encode() not in content and base64.b64encode(KEY.encode())[:-4] not in content
    return pickle.loads(content)


def test_a_pickled_judge_holds_no_key_and_finds_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FADE_LENS_API_KEY", KEY)
    prompts = Prompts(rating="Own rules.")
    with FakeJudge(key=KEY) as fake:
        first = Judge(
            "m", base_url=fake.base_url, max_calls=50, price=(1.0, 2.0), name="mine", texts_per_request=7,
            temperature=0.5, concurrency=3, prompts=prompts, writer=f"{fake.base_url}#w",
        )  # fmt: skip
        first.rate("the word 'cat'", TEXTS)
        judge = made_again(first)
        assert judge.identity == first.identity and judge.usage.calls == 0 and repr(judge) == repr(first)
        assert judge.endpoint == replace(first.endpoint, key=judge.endpoint.key) and judge.prompts == prompts
        assert [r.value for r in judge.rate("the word 'cat'", TEXTS)] == [
            r.value for r in first.rate("the word 'cat'", TEXTS)
        ]
        assert judge.estimate(30, 100) == first.estimate(30, 100) and judge.price_of(10**6, 0) == 1.0
        monkeypatch.setenv("FADE_LENS_API_KEY", "another")
        with pytest.raises(JudgeError, match="does not accept the key"):
            pickle.loads(pickle.dumps(judge.__class__("m", base_url=fake.base_url))).rate("the word 'cat'", TEXTS)


def test_a_worker_finds_the_key_in_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    content = pickle.dumps(Judge("gpt-4o-mini"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    found = pickle.loads(content).endpoint.key
    assert found is not None and found.reveal() == "sk-of-the-worker"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(JudgeError, match="set OPENAI_API_KEY"):
        pickle.loads(content).rate("c", TEXTS)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: Judge("m", api_key=KEY), "OPENAI_API_KEY"),
        (lambda: Judge("m", base_url="https://h.example/v1", api_key=KEY), "FADE_LENS_API_KEY"),
        (lambda: Judge.azure("d", azure_endpoint="https://a.example", api_key=KEY), "AZURE_OPENAI_API_KEY"),
        (lambda: Judge.parse("openrouter:o/m", api_key=KEY), "OPENROUTER_API_KEY"),
        (lambda: Judge("n", base_url="http://localhost:1/v1", writer=Judge("m", api_key=KEY)), "OPENAI_API_KEY"),
    ],
)
def test_a_key_given_as_argument_is_not_pickled_but_told(
    made: Callable[[], Judge], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"set {name} in the environment") as refused:
        pickle.dumps(made())
    assert KEY not in str(refused.value)
    monkeypatch.setenv(name, KEY)  # the same one is found again
    made_again(made())


def test_judges_without_a_key_can_be_pickled(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF")
    for judge in (
        Judge.ollama("m"),
        Judge.local(path, n_ctx=512, name="small"),
        Judge.parse("vllm:m"),
        Judge(Silent()),
    ):
        again = made_again(judge)
        assert again.identity == judge.identity and again.usage == judge.usage and repr(again) == repr(judge)


class Silent:
    """A model that answers nothing; pickled as any object is."""

    async def ask(self, request: Request) -> Answer:
        return Answer("")
