"""The HTTP side of a judge: a client that shows a server nothing but what was chosen, what comes back, what errors mean."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fade_lens.errors import JudgeError
from fade_lens.judge.endpoint import Endpoint, Secret, redact, without_key
from fade_lens.judge.usage import CHARS_PER_TOKEN, Number
from fade_lens.judge.waits import wait_asked

T = TypeVar("T")

_FILTERED = re.compile(r"content[_ ](filter|policy|management)|responsible ?ai|moderation|flagged", re.I)
_TOO_LONG = re.compile(
    r"context[_ ]?(length|size|window)|maximum context|prompt is too long|too many (input )?tokens", re.I
)
_NO_QUOTA = re.compile(r"insufficient[_ ](quota|credits?|balance|funds)|exceeded your current quota", re.I)
FORMAT_REJECTED = re.compile(r"response_?format|json_?(schema|object)|structured|grammar|guided", re.I)
"""What a server says that does not know a response format."""


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    content: str
    finish_reason: str = "stop"
    refusal: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None
    """Alternatives of the first token."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batched: bool = False
    """Whether a Batch API gave it, at its price."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Answer":
        """The answer that a transcript holds."""
        logprobs = record.get("top_logprobs")
        pairs = None if logprobs is None else [(str(token), float(logprob)) for token, logprob in logprobs]
        known: dict[str, Any] = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        known["top_logprobs"] = pairs
        return cls(**known)

    @classmethod
    def from_completion(cls, body: Any, *, prompt_tokens: Number, key: Secret | None = None) -> "Answer":
        """A chat completion's first choice; `prompt_tokens` stands in where the server counts none. Raises for anything else.

        A `key` that the server repeats is left out.
        """
        if body.get("error"):  # some gateways answer 200 with an error inside
            raise ValueError(str(body["error"]))
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        finish = str(choice.get("finish_reason") or "stop")
        refusal = message.get("refusal") or ("content filter" if finish == "content_filter" else None)
        tokens = (choice.get("logprobs") or {}).get("content") or []
        alternatives = tokens[0].get("top_logprobs") or [tokens[0]] if tokens else None
        usage = body.get("usage") or {}
        return cls(
            content=without_key(str(content), key),
            finish_reason=finish,
            refusal=None if refusal is None else without_key(str(refusal), key),
            top_logprobs=None if alternatives is None else [(a["token"], float(a["logprob"])) for a in alternatives],
            prompt_tokens=int(usage.get("prompt_tokens") or prompt_tokens),
            completion_tokens=int(usage.get("completion_tokens") or len(content) / CHARS_PER_TOKEN),
        )


class Unanswered(Exception):
    """A request that gets no answer; only its own texts are lost. `too_long` says that fewer or shorter texts may do."""

    def __init__(self, reason: str, *, too_long: bool = False) -> None:
        super().__init__(reason)
        self.too_long = too_long


class Transient(Exception):
    """A failure that asking again may mend; `connected` is False where the server was not even reached."""

    def __init__(self, reason: str, *, retry_after: Number | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.retry_after, self.connected = retry_after, connected


class Refused(Exception):
    """The server's content filter refused the prompt."""


class Rejected(Exception):
    """The server does not accept the request as it is; something that can be left out may be the cause."""


def open_client(base_url: str, endpoint: Endpoint, timeout: Number) -> Any:
    """An `openai.AsyncOpenAI` that shows the endpoint's key, and nothing else of the environment's, to this server alone."""
    import openai

    async def authenticate(request: Any) -> None:
        ours = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
        for name in list(request.headers):
            # The client reads organization, project and custom headers from the environment: those are OpenAI's alone.
            foreign = not endpoint.is_openai and name not in ours and not name.startswith("x-stainless-")
            if foreign or name in ("authorization", "api-key"):
                del request.headers[name]
        request.headers.update(endpoint.headers())

    http_client = openai.DefaultAsyncHttpxClient(
        event_hooks={"request": [authenticate]},
        follow_redirects=False,
        trust_env=not endpoint.loopback,  # a proxy set for the outside cannot reach this machine's own servers
    )
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key="set by authenticate",
        timeout=timeout,
        max_retries=0,
        default_query=dict(endpoint.query),
        http_client=http_client,
    )


async def post(
    client: Any, body: Mapping[str, Any], *, model: str, prompt_tokens: Number, endpoint: Endpoint
) -> Answer:
    """One chat completion, asked once. Raises `Transient`, `Unanswered`, `Refused`, `Rejected` or `JudgeError`."""

    async def ask() -> Answer:
        raw = await client.chat.completions.with_raw_response.create(
            model=body["model"],
            messages=body["messages"],
            extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
        )
        completion = json.loads(raw.http_response.text)
        return Answer.from_completion(completion, prompt_tokens=prompt_tokens, key=endpoint.key)

    return await translated(ask, model=model, endpoint=endpoint)


async def translated(ask: Callable[[], Awaitable[T]], *, model: str, endpoint: Endpoint) -> T:
    """What `ask` gives, the client's exceptions turned into this module's. Raises as `post` does."""
    import openai

    failure: Exception
    try:
        return await ask()
    except openai.APIStatusError as error:
        failure = classify(
            error.status_code, error.response.headers, error.body, error.response.text, model=model, endpoint=endpoint
        )
    except (openai.APITimeoutError, TimeoutError):
        failure = Transient("no answer in time")
    except openai.APIConnectionError as error:
        reached = type(error.__cause__).__name__ != "ConnectError"
        cause = redact(repr(error.__cause__), endpoint.key)
        failure = Transient(f"connection failed ({cause:.200})", connected=reached)
    except (openai.OpenAIError, ValueError, TypeError, LookupError, AttributeError) as error:
        failure = Transient(f"the answer is not of the form expected ({redact(repr(error), endpoint.key):.200})")
    raise failure  # outside the handler: the client's exceptions hold the request, whose headers hold the key


def classify(
    status: int, headers: Mapping[str, str], body: object, text: str, *, model: str, endpoint: Endpoint
) -> Exception:
    """What an HTTP error means: transient, final, or about its own request alone."""
    wait = wait_asked(headers, [body, text])
    detail = body if isinstance(body, Mapping) else {}
    code = str(detail.get("code") or detail.get("type") or "")
    inner = detail.get("message") or detail.get("error") or text
    message = redact(" ".join(str(inner).split()), endpoint.key)[:300]  # cut last: half a key is not recognized
    said = f"{code} {message}"
    if status in (400, 403) and _FILTERED.search(said):
        return Refused(message)
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(said)):
        return Unanswered(f"too long for the judge: {message}", too_long=True)
    rejected = status in (400, 422) or (status in (500, 501) and FORMAT_REJECTED.search(said))
    if rejected and code != "json_validate_failed":  # that one is a model's slip, not a server's limit
        return Rejected(f"{message} {redact(str(detail.get('param') or ''), endpoint.key)}".strip())
    # Gemini says of each minute's limit that the quota is exceeded: one that comes back is not used up.
    if (status == 429 and wait is None and _NO_QUOTA.search(said)) or status == 402:
        return JudgeError(f"judge {model!r} at {endpoint.label}: the account's quota is used up: {message}")
    if status in (400, 408, 409, 425, 429) or status >= 500:
        return Transient(f"HTTP {status}: {message}", retry_after=wait)
    return JudgeError(sentence(f"HTTP {status}: {message}", model=model, endpoint=endpoint, status=status))


def sentence(reason: str, *, model: str, endpoint: Endpoint, status: int = 0, connected: bool = True) -> str:
    """One sentence that says what is wrong with the judge and what to look at."""
    where = f"judge {model!r} at {endpoint.label}"
    if not connected:
        return f"{where} cannot be reached: {reason}; is the server running, and is the address right?"
    if status == 401:
        return f"{where} does not accept the key: {reason}; check api_key or the environment variable that holds it"
    if status == 403:
        return f"{where} does not allow this: {reason}; check what the key may use"
    if status == 404:
        return f"{where} is not there: {reason}; check the model's name and the address (most servers' end in /v1)"
    if 300 <= status < 400:
        return f"{where} sends requests elsewhere, which is not followed: {reason}; give the final address as base_url"
    return f"{where} does not answer: {reason}; everything answered so far is kept"
