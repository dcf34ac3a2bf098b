"""Small rules: what errors mean, prices, keys of transcripts."""

import pytest

from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge
from fade_lens.llm.budget import Ledger, Usage, price_of
from fade_lens.llm.chat import Answer, Provider, Transient, Unanswered
from fade_lens.llm.endpoint import endpoint
from fade_lens.llm.request import Request
from fade_lens.llm.transcripts import MemoryTranscripts, Transcripts, key_of
from fade_lens.llm.wire import Refused, Rejected, classify, read_completion


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, {}, Transient),
        (503, {"message": "loading model"}, Transient),
        (529, {}, Transient),
        (408, {}, Transient),
        (429, {"message": "Rate limit reached. Add a payment method at /account/billing to raise it."}, Transient),
        (400, {"code": "json_validate_failed", "message": "Failed to generate JSON"}, Transient),
        (429, {"code": "insufficient_quota"}, JudgeError),
        (402, {"message": "Insufficient credits"}, JudgeError),
        (401, {}, JudgeError),
        (403, {}, JudgeError),
        (404, {}, JudgeError),
        (405, {}, JudgeError),
        (308, {}, JudgeError),
        (400, {"code": "content_filter"}, Refused),
        (403, {"message": "your input was flagged by moderation"}, Refused),
        (400, {"code": "context_length_exceeded"}, Unanswered),
        (
            400,
            {"type": "exceed_context_size_error", "message": "request exceeds the available context size"},
            Unanswered,
        ),
        (413, {}, Unanswered),
        (400, {"param": "temperature", "message": "Unsupported value"}, Rejected),
        (422, {"message": "extra fields"}, Rejected),
        (500, {"message": "grammar could not be parsed"}, Rejected),
        (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}, Rejected),
    ],
)
def test_what_an_http_error_means(status: int, body: dict[str, str], kind: type[Exception]) -> None:
    found = classify(status, {}, body, "text", Provider("m", endpoint("http://h/v1", None)))
    assert type(found) is kind


def test_answers_of_many_servers() -> None:
    asked = Request("rate", "c", [{"role": "user", "content": 31 * "x"}], {}, expects=1)

    def read(message: dict[str, object], **choice: object) -> Answer:
        return read_completion({"choices": [{"message": message, **choice}]}, asked)

    assert read({"content": "hi"}) == Answer("hi", prompt_tokens=7, completion_tokens=0)
    assert read({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}).content == "ab"
    assert read({"content": None}, finish_reason="content_filter").refusal == "content filter"
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": []}]}
    answer = read({"content": "Yes"}, logprobs=logprobs)
    assert answer.top_logprobs == [("Yes", -0.1)]
    from dataclasses import asdict

    assert Answer.from_record({**asdict(answer), "time": 1.0}) == answer
    for bad in ({}, {"choices": []}, {"error": {"message": "overloaded"}}, {"choices": [{}]}, [], "text", None):
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
            read_completion(bad, asked)


def test_transcript_keys() -> None:
    one = key_of(model="m", messages=[{"role": "user", "content": "é\ud800"}], repeat=0)
    assert one == key_of(repeat=0, messages=[{"content": "é\ud800", "role": "user"}], model="m")
    assert one != key_of(model="m", messages=[{"role": "user", "content": "é\ud800"}], repeat=1)
    kept = MemoryTranscripts()
    assert isinstance(kept, Transcripts) and kept.get(one) is None
    kept.put(one, {"kind": "rate"}, {"content": "x"})
    assert kept.get(one) == {"content": "x"} and len(kept) == 1 and kept.items()[0][0] == one


def test_usage_adds_up() -> None:
    ledger = Ledger((1.0, 2.0))
    ledger.spend(500_000, 250_000)
    ledger.spend(500_000, 250_000)
    before = ledger.usage
    assert before.cost == pytest.approx(2.0)
    ledger.add(calls=1, retries=3)
    assert ledger.usage - before == Usage(calls=1, retries=3)
    assert (before + Usage(cost=None)).cost is None


def test_prices_of_the_servers_that_list_them() -> None:
    openai = "https://api.openai.com/v1"
    assert price_of("gpt-4o-mini", openai) == (0.15, 0.6)
    assert price_of("gpt-4o-mini-2024-07-18", openai) == price_of("gpt-4o-mini-2031-01-31", openai) == (0.15, 0.6)
    assert price_of("nobody-knows", openai) is None and price_of("gpt-4o-mini", "https://models.example.org/v1") is None
    cost = {
        spec: Judge.parse(spec, api_key="k" * 20).price_of(10**6, 0)
        for spec in (
            "openrouter:openai/gpt-4o-mini",
            "https://api.deepseek.com/v1#deepseek-chat",
            "http://10.0.0.1/v1#gpt-4o-mini",
        )
    }
    assert list(map(bool, cost.values())) == [True, True, False], cost
    assert Judge.azure("gpt-4o-mini", azure_endpoint="https://x.openai.azure.com", api_key="k").price_of(1, 1) is None
