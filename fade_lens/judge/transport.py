"""One request to a judge: looked up, paced, sent, retried, committed. All network I/O with language models is here."""

import asyncio
import json
import logging
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fade_lens.errors import FadeLensError, JudgeError
from fade_lens.judge import prompts
from fade_lens.judge.endpoint import Endpoint, redact
from fade_lens.judge.transcripts import Transcripts, key_of
from fade_lens.judge.usage import CHARS_PER_TOKEN, Budget, Ledger

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF = 30.0
LONGEST_RETRY_AFTER = 120.0
HIDDEN_TOKENS = 16_000
"""Room for a reasoning model's thoughts."""
SERVER_GONE = 5
"""Requests in a row given up before the server counts as gone."""

_REASONING = re.compile(r"(^|/)(o\d(-|$)|gpt-5(?!.*chat)|gpt-oss)|deepseek-r|\bqwq|magistral|reason|thinking", re.I)
_FILTERED = re.compile(r"content[_ ](filter|policy|management)|responsible ?ai|moderation|flagged", re.I)
_TOO_LONG = re.compile(
    r"context[_ ]?(length|size|window)|maximum context|prompt is too long|too many (input )?tokens", re.I
)
_NO_FORMAT = re.compile(r"response_?format|json_?(schema|object)|structured|grammar|guided", re.I)
_NO_QUOTA = re.compile(r"insufficient[_ ](quota|credits?|balance|funds)|exceeded your current quota", re.I)


@dataclass(frozen=True)
class Request:
    """What determines an answer, and what is recorded with it."""

    kind: str
    concept: str
    messages: list[dict[str, str]]
    parameters: dict[str, Any]
    expects: int
    """Completion tokens to reckon with."""
    structure: str | None = None
    """Name of the JSON schema that the answer is to follow."""
    repeat: int = 0
    attempt: int = 0
    note: dict[str, Any] = field(default_factory=dict)
    """Recorded only."""

    @property
    def prompt_tokens(self) -> float:
        """An estimate, from the number of characters."""
        return sum(len(message["content"]) for message in self.messages) / CHARS_PER_TOKEN


@dataclass(frozen=True)
class Answer:
    """What came back."""

    content: str
    finish_reason: str = "stop"
    refusal: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None
    """Alternatives of the first token."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def cut(self) -> bool:
        """Whether the answer stopped at a token limit."""
        return self.finish_reason == "length"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Answer":
        """The answer that a transcript holds."""
        logprobs = record.get("top_logprobs")
        pairs = None if logprobs is None else [(str(token), float(logprob)) for token, logprob in logprobs]
        known: dict[str, Any] = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        known["top_logprobs"] = pairs
        return cls(**known)


@dataclass(eq=False)
class Call:
    """One piece of work that was asked for: where its answers are kept, and why it must send nothing more."""

    transcripts: Transcripts
    stopped: FadeLensError | None = None


class Unanswered(Exception):
    """A request that gets no answer; only its own texts are lost. `too_long` says that fewer or shorter texts may do."""

    def __init__(self, reason: str, *, too_long: bool = False) -> None:
        super().__init__(reason)
        self.too_long = too_long


class Transient(Exception):
    """A failure that asking again may mend."""

    def __init__(self, reason: str, *, retry_after: float | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.retry_after, self.connected = retry_after, connected


class _Refused(Exception):
    """The server's content filter refused the prompt."""


class _Rejected(Exception):
    """The server does not know something that was asked for and can be left out."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Pace:
    """Spreads amounts evenly, so that no minute holds more than `per_minute` of them; None is no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = 0.0

    async def wait(self, amount: float) -> None:
        """Waits for this amount's turn."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)

    def correct(self, amount: float) -> None:
        """Adds what an estimate missed."""
        self._next += amount * self._seconds_each


class Transport:
    """Sends requests for one model to one endpoint; lives in the judge's event loop."""

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        *,
        ledger: Ledger,
        budget: Budget,
        concurrency: int,
        timeout: float,
        max_retries: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        start: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        self.model, self.endpoint = model, endpoint
        self.reasoning = bool(_REASONING.search(model))
        self.calls: set[Call] = set()
        self._ledger, self._budget = ledger, budget
        self._timeout, self._max_retries = timeout, max_retries
        self._requests, self._tokens = Pace(requests_per_minute), Pace(tokens_per_minute)
        self._slots = asyncio.Semaphore(concurrency)
        self._start = start
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._wire_model = model
        self._paused_until = 0.0
        self._in_a_row = 0
        self._ever_answered = False
        self._formats = ["json_schema", "json_object", "none"]
        self._left_out: set[str] = set()
        self._pending: dict[tuple[int, str], asyncio.Task[Answer]] = {}

    async def ask(self, request: Request, call: Call) -> Answer:
        """The answer to `request`, from `call`'s transcripts or from the server; the same request is in flight only once.

        Raises `Unanswered` where only this request is lost, `JudgeError` where the judge cannot be asked at all.
        """
        if call.stopped is not None:
            raise call.stopped.with_traceback(None)
        key = self.key(request)
        record = call.transcripts.get(key)
        if record is not None:
            self._ledger.add(cached=1)
            return Answer.from_record(record)
        place = (id(call.transcripts), key)
        task = self._pending.get(place)
        if task is None:
            task = self._pending[place] = asyncio.create_task(self._persist(key, request, call))
            task.add_done_callback(lambda done: (self._pending.pop(place, None), done.cancelled() or done.exception()))
        return await asyncio.shield(task)  # a caller that gives up does not throw away an answer on its way

    async def probe(self, request: Request) -> Answer:
        """An answer straight from the server, with few retries. Raises `JudgeError` in one clear sentence."""
        retrying = self._retrying(attempts=min(3, self._max_retries + 1))
        failure: Exception
        try:
            return await retrying(self._attempt, request, None, "")
        except Transient as error:
            failure = error
        except Unanswered as error:
            failure = error
        raise JudgeError(self._sentence(str(failure), connected=getattr(failure, "connected", True)))

    def key(self, request: Request) -> str:
        """The transcript key: a hash of everything that determines the answer."""
        return key_of(
            model=self.model,
            endpoint=self.endpoint.label,
            messages=request.messages,
            parameters=request.parameters,
            structure=request.structure,
            repeat=request.repeat,
            attempt=request.attempt,
        )

    def stop(self, error: FadeLensError) -> None:
        """Lets no call that exists send anything more; what is in flight comes home."""
        for call in self.calls:
            call.stopped = call.stopped or error

    async def drain(self, seconds: float) -> None:
        """Waits for what is in flight, at most `seconds`, then lets go of it."""
        tasks = list(self._pending.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Closes the connections."""
        await self.drain(0)
        if self._client is not None:
            await self._client.close()

    async def _persist(self, key: str, request: Request, call: Call) -> Answer:
        """`request` sent until it is answered or given up."""
        failure: Transient | None = None
        try:
            answer = await self._retrying(self._max_retries + 1)(self._attempt, request, call, key)
        except Transient as error:
            failure = error
        except Unanswered:
            self._in_a_row = 0
            self._ledger.add(failed=1)
            raise
        except FadeLensError as error:
            self.stop(error)
            raise
        except Exception as error:  # such as transcripts that cannot be written: nothing more may be paid for
            self.stop(JudgeError(f"the judge's work was stopped by {type(error).__name__}: {error}"))
            raise
        else:
            self._in_a_row = 0
            return answer
        self._in_a_row += 1
        self._ledger.add(failed=1)
        logger.warning("judge: a request was given up after %d attempts: %s", self._max_retries + 1, failure)
        if self._in_a_row >= SERVER_GONE or not (failure.connected or self._ever_answered):
            gone = JudgeError(self._sentence(str(failure), connected=failure.connected))
            self.stop(gone)
            raise gone
        raise Unanswered(f"failed: {failure}")

    def _retrying(self, attempts: int) -> AsyncRetrying:
        backoff = wait_random_exponential(multiplier=BACKOFF_SECONDS, max=LONGEST_BACKOFF)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, Transient) else None
            return backoff(state) if asked is None else asked * (1 + 0.1 * random.random())

        def note(state: RetryCallState) -> None:
            self._ledger.add(retries=1)
            error = state.outcome.exception() if state.outcome else None
            logger.info("judge: %s; attempt %d", error, state.attempt_number + 1)

        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_attempt(attempts),
            wait=wait,
            before_sleep=note,
            reraise=True,
        )

    async def _attempt(self, request: Request, call: Call | None, key: str) -> Answer:
        """One request sent once (again where the server rejects an option that can be left out), and its answer committed."""
        client = await self._connected()
        async with self._slots:
            await self._admitted(request, call)
            reckoned = self._ledger.cost(request.prompt_tokens, request.expects)
            self._budget.reserve(reckoned)
            try:
                answer = await self._adapting(client, request)
                self._ledger.add(
                    calls=1, prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens
                )
            finally:
                self._budget.release(reckoned)
            self._ever_answered = True
            if call is not None:
                call.transcripts.put(key, self._record(request), {**asdict(answer), "time": round(time(), 3)})
        self._tokens.correct(answer.prompt_tokens + answer.completion_tokens - request.prompt_tokens - request.expects)
        return answer

    async def _admitted(self, request: Request, call: Call | None) -> None:
        loop = asyncio.get_running_loop()
        await self._requests.wait(1)
        await self._tokens.wait(request.prompt_tokens + request.expects)
        while (left := self._paused_until - loop.time()) > 0:
            await asyncio.sleep(left)
        if call is not None and call.stopped is not None:
            raise call.stopped.with_traceback(None)

    async def _adapting(self, client: Any, request: Request) -> Answer:
        while True:
            wire_format = self._formats[0]
            body = self._body(request, wire_format)
            try:
                return await self._post(client, body, request)
            except _Refused as error:
                return Answer("", finish_reason="content_filter", refusal=str(error) or "content filter")
            except _Rejected as error:
                rejected = error.message
            if not self._leave_out(rejected, body, wire_format):
                raise JudgeError(f"judge {self.model!r} at {self.endpoint.label} rejects the request: {rejected}")

    def _leave_out(self, message: str, body: Mapping[str, Any], wire_format: str) -> bool:
        """Remembers what the server rejects; False where nothing that was sent can be left out."""
        if "response_format" in body and _NO_FORMAT.search(message):
            if self._formats[0] == wire_format:
                logger.info("judge: response_format %s is not supported here (%s)", wire_format, message)
                self._formats.pop(0)
            return True
        for name in ("max_completion_tokens", "max_tokens", "temperature", "seed"):
            if name in body and re.search(rf"\b{name}\b", message):
                logger.info("judge: %s is not supported here (%s)", name, message)
                self._left_out.add(name)
                return True
        return False

    def _body(self, request: Request, wire_format: str) -> dict[str, Any]:
        """The request as this server takes it. Nothing here enters the key: it says how to ask, not what."""
        parameters = dict(request.parameters)
        hosted = self.endpoint.is_openai or self.endpoint.key_header != "Authorization"
        limit = parameters.pop("max_tokens", None)
        if self.reasoning:
            parameters.pop("temperature", None)
            limit = limit + HIDDEN_TOKENS if limit is not None and hosted else None
        names = ["max_completion_tokens", "max_tokens"] if hosted else ["max_tokens", "max_completion_tokens"]
        name = next((name for name in names if name not in self._left_out), None)
        if limit is not None and name is not None:
            parameters[name] = limit
        body = {key: value for key, value in parameters.items() if key not in self._left_out}
        if request.structure is not None and wire_format == "json_schema":
            schema = {"name": request.structure, "strict": True, "schema": prompts.SCHEMAS[request.structure]}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.structure is not None and wire_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def _post(self, client: Any, body: dict[str, Any], request: Request) -> Answer:
        import openai

        failure: Exception
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self._wire_model, messages=request.messages, extra_body=body
            )
            self._heed(raw.headers)
            return _read(json.loads(raw.http_response.text), request)
        except openai.APIStatusError as error:
            failure = self._failure(error.status_code, error.response.headers, error.body, error.message)
        except openai.APITimeoutError:
            failure = Transient(f"no answer within {self._timeout:g} s")
        except openai.APIConnectionError as error:
            refused = type(error.__cause__).__name__ == "ConnectError"
            failure = Transient(
                redact(f"connection failed ({error.__cause__!r})", self.endpoint.key), connected=not refused
            )
        except (openai.OpenAIError, ValueError, TypeError, LookupError, AttributeError) as error:
            failure = Transient(redact(f"the answer is no chat completion ({error!r:.200})", self.endpoint.key))
        raise failure  # outside the handler: the client's exceptions hold the request, whose headers hold the key

    def _failure(self, status: int, headers: Mapping[str, str], body: object, text: str) -> Exception:
        """What an HTTP error means: transient, final, or about this request alone."""
        detail = body if isinstance(body, Mapping) else {}
        code = str(detail.get("code") or detail.get("type") or "")
        inner = detail.get("message") or detail.get("error") or text
        message = redact(" ".join(str(inner).split())[:300], self.endpoint.key)
        said = f"{code} {message}"
        if status in (400, 403) and _FILTERED.search(said):
            return _Refused(message)
        if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(said)):
            return Unanswered(f"too long for the judge: {message}", too_long=True)
        rejected = status in (400, 422) or (status in (500, 501) and _NO_FORMAT.search(said))
        if rejected and code != "json_validate_failed":  # that one is a model's slip, not a server's limit
            return _Rejected(f"{message} {detail.get('param') or ''}".strip())
        if status == 429 and _NO_QUOTA.search(said):
            return JudgeError(
                f"judge {self.model!r} at {self.endpoint.label}: the account's quota is used up: {message}"
            )
        if status in (400, 408, 409, 425, 429) or status >= 500:
            wait = retry_after(headers)
            if wait is not None:
                self._pause(wait)
            return Transient(f"HTTP {status}: {message}", retry_after=wait)
        return JudgeError(self._sentence(f"HTTP {status}: {message}", status=status))

    def _heed(self, headers: Mapping[str, str]) -> None:
        """Waits before the next request where the server says that none is left."""
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}") == "0":
                self._pause(_duration(headers.get(f"x-ratelimit-reset-{what}", "")) or 0.0)

    def _pause(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_RETRY_AFTER)
        self._paused_until = max(self._paused_until, until)

    def _sentence(self, reason: str, *, status: int = 0, connected: bool = True) -> str:
        where = f"judge {self.model!r} at {self.endpoint.label}"
        if not connected:
            return f"{where} cannot be reached: {reason}; is the server running, and is the address right?"
        if status == 401:
            return f"{where} does not accept the key: {reason}; check api_key or the environment variable that holds it"
        if status == 403:
            return f"{where} does not allow this: {reason}; check what the key may use"
        if status == 404:
            return f"{where} is not there: {reason}; check the model's name and that the address ends as the server wants it (often /v1)"
        if 300 <= status < 400:
            return (
                f"{where} sends requests elsewhere, which is not followed: {reason}; give the final address as base_url"
            )
        return f"{where} does not answer: {reason}; everything answered so far is kept"

    def _record(self, request: Request) -> dict[str, Any]:
        record = {name: value for name, value in asdict(request).items() if name not in ("note", "expects")}
        return {**record, **request.note, "model": self.model, "endpoint": self.endpoint.label}

    async def _connected(self) -> Any:
        """The client, made at the first request; a local server is started then."""
        async with self._connecting:
            if self._client is None:
                base_url = self.endpoint.base_url
                if self._start is not None:
                    base_url, self._wire_model = await asyncio.to_thread(self._start)
                if self.endpoint.needs_key and self.endpoint.key is None:
                    raise JudgeError(
                        f"no key for the judge {self.model!r}: set {self.endpoint.needs_key} in the environment or in .env, "
                        "or pass api_key"
                    )
                self._client = _client(base_url, self.endpoint, self._timeout)
        return self._client


def _client(base_url: str, endpoint: Endpoint, timeout: float) -> Any:
    """An `AsyncOpenAI` that shows the endpoint's key and nothing else of the environment's to the server."""
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


def _read(body: Any, request: Request) -> Answer:
    """A chat completion's first choice. Raises for anything else."""
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
    return Answer(
        content=content,
        finish_reason=finish,
        refusal=refusal,
        top_logprobs=None if alternatives is None else [(a["token"], float(a["logprob"])) for a in alternatives],
        prompt_tokens=int(usage.get("prompt_tokens") or request.prompt_tokens),
        completion_tokens=int(usage.get("completion_tokens") or len(content) / CHARS_PER_TOKEN),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (Retry-After as seconds or date, or rate-limit resets), capped; None if it does not say."""
    waits: list[float | None] = []
    if (milliseconds := headers.get("retry-after-ms")) is not None:
        waits.append(_number(milliseconds, 0.001))
    if (value := headers.get("retry-after")) is not None:
        waits.append(_number(value) if re.fullmatch(r"\s*[\d.]+\s*", value) else _until(value))
    for what in ("requests", "tokens"):
        if not waits and headers.get(f"x-ratelimit-remaining-{what}") == "0":
            waits.append(_duration(headers.get(f"x-ratelimit-reset-{what}", "")))
    wait = next((wait for wait in waits if wait is not None), None)
    return None if wait is None else min(max(wait, 0.0), LONGEST_RETRY_AFTER)


def _number(text: str, unit: float = 1.0) -> float | None:
    try:
        return float(text) * unit
    except ValueError:
        return None


def _until(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time()
    except (ValueError, TypeError):
        return None


def _duration(text: str) -> float | None:
    """Seconds of a duration such as "1s", "6m0s" or "120ms"."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([\d.]+)(ms|[hms])", text)
    return sum(float(number) * units[unit] for number, unit in parts) if parts else _number(text)
