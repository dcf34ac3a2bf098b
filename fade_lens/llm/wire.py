"""The HTTP side of a judge: a client that shows a server nothing but what was chosen, what comes back, what errors mean."""

import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fade_lens._util.errors import JudgeError
from fade_lens.llm.budget import CHARS_PER_TOKEN, Number
from fade_lens.llm.capabilities import FORMAT_REJECTED, ROLE_REJECTED
from fade_lens.llm.chat import Answer, Provider, Transient, Unanswered
from fade_lens.llm.endpoint import Endpoint, Secret, redact, without_key
from fade_lens.llm.request import Request
from fade_lens.llm.thoughts import without_thoughts
from fade_lens.llm.waits import wait_asked
from fade_lens.llm.words import MOST_BYTES, parsed, read_body, status_in, words_of

T = TypeVar("T")

SHOWN_CHARS = 300

_FILTERED = re.compile(
    r"content[_ ](filter|policy|management)|responsible ?ai|moderation|flagged|guardrail|(usage|safety) (policy|guidelines?)|safety[_ ](check|risk)"
    r"|data[_ ]inspection|inappropriate|(?<!case[ -])sensitive|(high|exists) risk|敏感|违规|不安全",
    re.I,
)
_TOO_LONG = re.compile(
    r"context[_ -]?(length|size|window|limit)|maximum context|prompt (is )?too long|too many (input )?tokens|request too large"
    r"|request_too_large|max_prompt_tokens|string_above_max_length|max(imum)?[_ ]?(input[_ ])?(length|characters)",
    re.I,
)
_LENGTH = r"(max_(new_|completion_|output_)?tokens|tokens?|context|prompts?|inputs?|messages?|completions?|sequence|seq_len|model_len|window|session|request size)"
_EXCESS = (
    r"(exceed|too (long|large|many|big|high)|(long|great|larg|bigg|high)er than|(less|lower) than|overflow|shorter|reduce|at (most|least)"
    r"|not enough|<=|> ?\d|maximum|max length|range (of|is)|valid range|supported range|limit)"
)
_ASIAN_LENGTH = r"(tokens?|prompt|输入|上下文|长度|入力|トークン|입력|토큰)"
_ABOUT_LENGTH = re.compile(
    rf"{_LENGTH}\b.{{0,120}}{_EXCESS}|{_EXCESS}.{{0,120}}\b{_LENGTH}|{_ASIAN_LENGTH}.{{0,40}}(超|过长|限|范围|長すぎ|초과|길)|(超|초과).{{0,20}}{_ASIAN_LENGTH}",
    re.I,
)
_OF_A_PARAMETER = re.compile(
    r"logprobs|requested parameters|top_n_tokens|temperature|top_p|\bseed\b|\bstop\b|penalty|\brole", re.I
)
"""Parameters with limits of their own."""
_NO_QUOTA = re.compile(
    r"(insufficient|not enough|not_enough|overdue|low)[_ ].{0,20}(quota|credits?|balance|funds)|(quota|balance|credits?)\b.{0,30}(insufficient|not enough|too low)"
    r"|exceeded your current quota|credit balance|billing|payment|overdue|arrearage|all available credits|spend(ing)? limit|usage limits"
    r"|budget.{0,20}exceeded|free[_ ]?tier.{0,30}(exhausted|only)|free allocation|per[- ](day|month)\b|/ ?month\b|余额|欠费|额度不足|充值",
    re.I,
)
_NO_KEY = re.compile(
    r"(api|access|authentication)[ _-]?(key|token).{0,40}(invalid|not valid|incorrect|missing|expired|supplied)"
    r"|(invalid|incorrect|wrong|missing|expired).{0,20}(api|access)[ _-]?(key|token)|authentication (error|failed)|身份验证",
    re.I,
)
_NO_MODEL = re.compile(
    r"model\b.{0,80}(not found|not exist|unknown|not available|not loaded)|(unknown|invalid|no such) model\b|model_not_found|model identifier|模型不存在",
    re.I,
)
_NOT_TAKEN = re.compile(
    r"requested parameters|(un|not |n't |no .{0,60})(support|implement)|must (be|alternate)|are supported", re.I
)
"""What a server says of a parameter, a role or a format under a status that tells something else."""
_ABOUT_REQUEST = (400, 416, 422, 424)
"""What a server answers that has something against the request; 424 passes on what a model within it said."""


def read_completion(body: Any, request: Request, *, key: Secret | None = None) -> Answer:
    """The answer that a chat completion holds, in its first choice.

    Args:
        body: of the server's answer; a stream of events is put together.
        request: what was asked; its estimates stand in where the server counts no tokens.
        key: what must not appear in the answer, should the server repeat it.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: the body is no chat completion, or holds an error.
    """
    body = _whole(body)
    choice = body["choices"][0]
    if body.get("error") or choice.get("error"):  # some gateways answer 200 with an error inside
        raise ValueError(str(body.get("error") or choice["error"]))
    message = choice["message"]
    content, thought = _text(message.get("content")), _thought(message)
    finish = str(choice.get("finish_reason") or "stop")
    if not content.strip() and finish == "stop" and (answer := without_thoughts(thought).strip()):
        # A server that takes all for thoughts: only what is whole and in the very form asked for is the answer.
        content = answer if request.structure is not None and request.structure.admits(parsed(answer)) else content
    refusal = message.get("refusal") or ("content filter" if finish == "content_filter" else None)
    tokens = (choice.get("logprobs") or {}).get("content") or []
    alternatives = tokens[0].get("top_logprobs") or [tokens[0]] if tokens else None
    usage = body.get("usage") or {}
    details = usage.get("completion_tokens_details") or {}
    counted = details.get("reasoning_tokens") or usage.get("reasoning_tokens")
    shown = len(content) + len(thought)
    return Answer(
        content=without_key(content, key),
        finish_reason=finish,
        refusal=None if refusal is None else without_key(str(refusal), key),
        top_logprobs=None if alternatives is None else [(a["token"], float(a["logprob"])) for a in alternatives],
        prompt_tokens=int(usage.get("prompt_tokens") or request.prompt_tokens),
        completion_tokens=int(usage.get("completion_tokens") or shown / CHARS_PER_TOKEN),
        thought_tokens=int(counted or len(thought) / CHARS_PER_TOKEN),
    )


_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts")


def _text(content: object) -> str:
    """A message's text, given as a string or in parts; parts that hold thoughts are left out."""
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, Mapping):
        if re.search(r"think|thought|reason", str(content.get("type") or "")) or content.get("thought") is True:
            return ""
        text = content.get("text") or content.get("content") or content.get("value")
        return _text(text)
    return content if isinstance(content, str) else ""


def _thought(message: Mapping[str, Any]) -> str:
    """What a server shows of a model's thoughts: beside the answer, or as parts of it."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    shown = [message.get(name) for name in _THOUGHTS] + [
        part.get(name) for part in parts for name in ("thinking", "text")
    ]
    return next((text for thought in shown if (text := _text(thought))), "") if not parts or not _text(content) else ""


def _whole(body: Any) -> Any:
    """A completion; of a stream's events (which some servers send unasked), what they come to."""
    if not isinstance(body, list) or not body or not all(isinstance(event, Mapping) for event in body):
        return body
    if failed := next((event for event in body if event.get("error")), None):
        return failed
    choices = [choice for event in body for choice in (event.get("choices") or [])[:1]]
    deltas = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    names = {name for delta in deltas for name in delta if name != "role"}
    message = {name: "".join(_text(delta.get(name)) for delta in deltas) for name in names}
    logprobs = [token for choice in choices for token in (choice.get("logprobs") or {}).get("content") or []]
    finish = next((choice["finish_reason"] for choice in choices[::-1] if choice.get("finish_reason")), None)
    usage = next((event["usage"] for event in body[::-1] if event.get("usage")), {})
    choice = {"message": message, "finish_reason": finish, "logprobs": {"content": logprobs} if logprobs else None}
    return {"choices": [choice] if choices else [], "usage": usage}


class Refused(Exception):
    """The server's content filter refused the prompt."""


class Rejected(Exception):
    """The server does not accept the request as it is; something that can be left out may be the cause: `said` may name it."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(reason)
        self.said = said


def open_client(base_url: str, endpoint: Endpoint, timeout: Number) -> Any:
    """An `openai.AsyncOpenAI` that shows the endpoint's key, and nothing else of the environment's, to this server alone."""
    import httpx2
    import openai

    class Bounded(httpx2.AsyncByteStream):
        """A body, unpacked, of no more than a full answer's size."""

        def __init__(self, stream: httpx2.AsyncByteStream, packed: bool) -> None:
            self._stream, self._unpack = stream, zlib.decompressobj(47) if packed else None

        async def __aiter__(self) -> AsyncIterator[bytes]:
            left = MOST_BYTES
            async for part in self._stream:
                part = self._unpack.decompress(part, left + 1) if self._unpack else part
                if (left := left - len(part)) < 0:
                    raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
                yield part

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Any) -> None:
        if response.request.url.path.endswith("/completions"):  # files of batches may be larger
            packed = response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate")
            if packed:
                del response.headers["content-encoding"]
            response.stream = Bounded(response.stream, packed)

    async def authenticate(request: Any) -> None:
        ours = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
        for name in list(request.headers):
            # The client reads organization, project and custom headers from the environment: those are OpenAI's alone.
            foreign = not endpoint.is_openai and name not in ours and not name.startswith("x-stainless-")
            if foreign or name in ("authorization", "api-key"):
                del request.headers[name]
        request.headers.update({"accept-encoding": "gzip"} | endpoint.headers())

    http_client = openai.DefaultAsyncHttpxClient(
        event_hooks={"request": [authenticate], "response": [bound]},
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


async def post(client: Any, body: Mapping[str, Any], request: Request, judge: Provider) -> Answer:
    """One chat completion, asked once. Raises `Transient`, `Unanswered`, `Refused`, `Rejected` or `JudgeError`."""

    async def ask() -> Answer | Exception:
        raw = await client.chat.completions.with_raw_response.create(
            model=body["model"],
            messages=body["messages"],
            extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
        )
        response = raw.http_response
        answered = read_body(response.content, response.charset_encoding)
        try:
            return read_completion(answered, request, key=judge.endpoint.key)
        except (ValueError, TypeError, LookupError, AttributeError):
            status = status_in(answered) or response.status_code
        return classify(status, response.headers, answered, "nothing", judge)

    answer = await translated(ask, judge)
    if isinstance(answer, Exception):  # raised here, where nothing holds the server's own words, which may hold the key
        raise answer
    return answer


async def translated(ask: Callable[[], Awaitable[T]], judge: Provider) -> T:
    """What `ask` gives, the client's exceptions turned into this module's. Raises as `post` does."""
    import openai

    failure: Exception
    try:
        return await ask()
    except openai.APIStatusError as error:
        failure = classify(  # with no name for the response: what is raised keeps this frame, and the response the key
            error.status_code,
            error.response.headers,
            read_body(error.response.content, error.response.charset_encoding),  # the client keeps some kinds to itself
            "no words",
            judge,
        )
    except (openai.APITimeoutError, TimeoutError):
        failure = Transient("no answer in time")
    except openai.APIConnectionError as error:
        reached = type(error.__cause__).__name__ != "ConnectError"
        cause = redact(repr(error.__cause__), judge.endpoint.key)
        failure = Transient(f"connection failed ({cause:.200})", connected=reached)
    except (openai.OpenAIError, ValueError, TypeError, LookupError, AttributeError) as error:
        failure = Transient(f"the answer is not of the form expected ({redact(repr(error), judge.endpoint.key):.200})")
    raise failure  # outside the handler: the client's exceptions hold the request, whose headers hold the key


def classify(status: int, headers: Mapping[str, str], body: object, text: str, judge: Provider) -> Exception:
    """What an HTTP error (or an answer that is none) means.

    Args:
        status: of the HTTP answer, or the one that an error within it names.
        headers: of the answer.
        body: of the answer, as `read_body` reads it.
        text: stands for words where the body holds none.
        judge: the model, for messages; its server's key is left out of them.

    Returns:
        `Transient` where asking again may help, `Unanswered` or `Refused` where this request alone is lost, `Rejected` where something in
        it may be left out, `JudgeError` where the judge cannot be asked at all.
    """
    words, wait = words_of(body), wait_asked(headers, [body, text])
    everything = redact(words.text or text, judge.endpoint.key)
    message = everything[:SHOWN_CHARS]  # cut last: half a key is not recognized
    said = f"{redact(words.codes, judge.endpoint.key)} {everything}"
    asked = 200 <= status < 300 or status in _ABOUT_REQUEST
    if (asked or status == 403) and _FILTERED.search(said):
        return Refused(message)
    # Gemini says of each minute's limit that the quota is exceeded: one that comes back is not used up.
    paced = status == 429 and "rate limit" in said.lower()  # billing is then named as what would raise it
    if status == 402 or (
        wait is None and not paced and _NO_QUOTA.search(said) and (asked or status in (401, 403, 429))
    ):
        return JudgeError(f"{judge.named}: the account's quota is used up: {message}")
    if status == 413 or (status == 429 and "request too large" in said.lower()) or _is_length(status, said):
        return Unanswered(f"too long for the judge: {message}", too_long=True, said=said)
    if (asked or status == 404) and (_NO_KEY.search(said) or _NO_MODEL.search(said)):
        status = 401 if _NO_KEY.search(said) else 404
        return JudgeError(sentence(f"HTTP {status}: {message}", judge, status=status))
    form = FORMAT_REJECTED.search(said) or ROLE_REJECTED.search(said)
    rejected = (
        status in (400, 416, 422)
        or (form and (asked or status in (500, 501)))
        or (status in (404, 500, 501) and _NOT_TAKEN.search(said) and (form or _OF_A_PARAMETER.search(said)))
    )
    if rejected and "json_validate_failed" not in said:  # that one is a model's slip, not a server's limit
        return Rejected(message, said)
    if 200 <= status < 300:
        return Transient(f"the answer is not of the form expected ({message:.200})", retry_after=wait)
    if status in (400, 408, 409, 424, 425, 429) or status >= 500:
        return Transient(f"HTTP {status}: {message}", retry_after=wait)
    return JudgeError(sentence(f"HTTP {status}: {message}", judge, status=status))


def _is_length(status: int, said: str) -> bool:
    """Whether a request was refused for its length, in whatever words."""
    if _TOO_LONG.search(said):
        return status < 300 or status in _ABOUT_REQUEST or status >= 500
    about = _ABOUT_LENGTH.search(said) and not (_OF_A_PARAMETER.search(said) or FORMAT_REJECTED.search(said))
    return bool(about) and (status < 300 or status in (*_ABOUT_REQUEST, 500))


def sentence(reason: str, judge: Provider, *, status: int = 0, connected: bool = True) -> str:
    """One sentence that says what is wrong with the judge and what to look at."""
    where = judge.named
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
