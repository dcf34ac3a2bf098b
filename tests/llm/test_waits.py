"""How long servers ask to wait, in the forms in which they say it."""

import logging
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import pytest

from fade_lens._util.errors import JudgeError
from fade_lens.judge import Judge
from fade_lens.llm import queue, waits
from fade_lens.llm.chat import Provider, Transient
from fade_lens.llm.endpoint import endpoint
from fade_lens.llm.waits import LONGEST_WAIT, wait_asked
from fade_lens.llm.wire import classify
from tests.fake_judge import FakeJudge

NOW = 1_795_000_000
SOON = NOW + 40


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "time", lambda: NOW)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": "0.25"}, 0.25),
        ({"retry-after": "86400"}, LONGEST_WAIT),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "120ms"}, None),
        ({"retry-after": formatdate(NOW - 60, usegmt=True)}, 0.0),
        ({"retry-after": formatdate(SOON, usegmt=True)}, 40.0),
        # Both limits are reached: nothing goes before the later one is lifted.
        (
            {
                **{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"},
                **{"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7.66s"},
            },
            7.66,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(1000 * SOON)}, 40.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "12"}, 12.0),
        ({"ratelimit": "limit=10, remaining=0, reset=14"}, 14.0),
        ({"ratelimit": '"default";r=0;t=25'}, 25.0),
        ({"ratelimit": '"default";r=3;t=25'}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "8"}, 8.0),
        ({"x-ratelimit-remaining-tokens": "-5", "x-ratelimit-reset-tokens": "3s"}, 3.0),
        ({"x-ms-retry-after-ms": "3000"}, 3.0),
        ({"retry-after": "PT1M5S"}, 65.0),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": datetime.fromtimestamp(SOON, UTC).isoformat(),
            },
            40.0,
        ),
    ],
)
def test_waits_in_headers(headers: dict[str, str], wait: float | None) -> None:
    assert wait_asked(headers, "") == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        # Fields
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]}}, 37),
        ([{"error": {"details": [{"retryDelay": "0.5s"}]}}], 0.5),
        ({"error": {"message": '{\n  "error": {"details": [{"retryDelay": "26s"}]}}'}}, 26),
        ({"error": {"message": "VertexAIException: retry_delay {\n  seconds: 38\n}"}}, 38),
        ({"error": {"metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(1000 * SOON)}}}}, 40),
        ({"error": {"metadata": {"retry_after_seconds": 17}}}, 17),
        ({"error": "Model x is currently loading", "estimated_time": 20.0}, 20),
        ({"detail": {"retry_after": 5}}, 5),
        ({"retry_after_ms": 4200}, 4.2),
        ({"error": {"retryAfterMs": "700"}}, 0.7),
        ({"error": {"resets_at": SOON}}, 40),
        # Words
        ("Rate limit reached for m on tokens per min (TPM): Limit 30000, Used 29000. Please try again in 1.2s. Visit …", 1.2),
        ("Please try again in 20ms.", 0.02),
        ("Limit 200 / day. Please try again in 6m0s.", LONGEST_WAIT),
        ("Please try again in 1m26.4s.", 86.4),
        ("have exceeded call rate limit of your current tier. Please retry after 26 seconds. Please go here: https://aka.ms/x", 26),
        ("Quota exceeded for metric: x, limit: 4000000\nPlease retry in 47.43s.", 47.43),
        ("Rate limit of 15 per 60s exceeded for UserByModel. Please wait 45 seconds before retrying.", 45),
        ("3 requests per 60 seconds are allowed, retry after 12 seconds", 12),
        ("max RPM: 3, please try again after 1 seconds", 1),
        ("Please try again in 1 minute and 3 seconds", 63),
        ("Your quota will reset after 12h34m16s", LONGEST_WAIT),
        ("请求过于频繁，请在30秒后重试", 30),
        ("Bitte in 5 Sekunden erneut versuchen", 5),
        ("Veuillez réessayer dans 10 secondes", 10),
        ("10秒後に再試行してください", 10),
        ("Reintente en 20 segundos", 20),
        ("Probeer het over 20 seconden opnieuw", 20),
        ("Försök igen om 20 sekunder", 20),
        ("20 saniye sonra tekrar deneyin", 20),
        ("Rate limit: you can make another request in 33 seconds", 33),
        ("The limit will be lifted in 1 min 5 sec", 65),
        # No wait
        ("Rate limit exceeded: 20 requests per minute. Retry later.", None),
        ("Limit 7000, Used 6148, Requested 7895. Please try again later.", None),
        ("The request timed out after 60 s, please retry", None),
        ({"error": {"retry_after": None, "retryable": True, "max_retries": 3}}, None),
        ("x" * 100_000, None),
    ],
)  # fmt: skip
def test_waits_in_bodies(said: object, wait: float | None) -> None:
    assert wait_asked({}, said) == (None if wait is None else pytest.approx(wait))


def test_headers_go_before_the_body() -> None:
    assert wait_asked({"retry-after": "3"}, {"retry_after": 50}) == 3


def test_a_quota_that_comes_back_is_not_used_up() -> None:
    said = {"message": "You exceeded your current quota, please check your plan. Please retry in 47.4s."}
    place = endpoint("http://h/v1", None)
    found = classify(429, {}, said, "", Provider("m", place))
    assert isinstance(found, Transient) and found.retry_after == pytest.approx(47.4)
    used_up = {"message": said["message"].replace("Please retry in 47.4s.", "")}
    assert isinstance(classify(429, {}, used_up, "", Provider("m", place)), JudgeError)


@pytest.mark.parametrize(
    "limit",
    [
        {"error": {"message": "Rate limit reached. Please try again in 400ms.", "code": "rate_limit_exceeded"}},
        [{"error": {"code": 429, "details": [{"retryDelay": "0.4s"}]}}],
    ],
)
def test_a_wait_told_in_the_body_holds_for_all_requests_and_is_shown_once(
    limit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue, "SHOWN_WAIT", 0.3)
    with (
        FakeJudge(script=["rate_limit"] * 2, retry_after=None, limit=limit) as fake,
        Judge("m", base_url=fake.base_url, concurrency=2) as judge,
        caplog.at_level(logging.WARNING),
    ):
        judge.rate("the word 'cat'", [f"{at}" for at in range(40)])
        assert fake.times[2] - fake.times[0] >= 0.39
    assert [r.getMessage().partition(" (")[0] for r in caplog.records] == ["judge 'm' asks to wait 0.4 s"]


def test_a_wait_at_the_start_is_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(queue, "SHOWN_WAIT", 0.1)
    with FakeJudge(script=["rate_limit"], retry_after="0.2") as fake, Judge("m", base_url=fake.base_url) as judge:
        judge.check()
    assert "asks to wait 0.2 s (HTTP 429: too many requests)" in caplog.text
