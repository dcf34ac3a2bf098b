"""A judge for tests: a real HTTP server on loopback that rates by a rule, writes by a function, and misbehaves on command."""

import json
import math
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fade_lens.judge.prompts import Prompts, read_rating
from tests.fake_batches import FakeBatches

OURS = Prompts()
Rule = Callable[[str, str], int]
Writer = Callable[[str, int], list[str]]

FAILURES = ("slow", "rate_limit", "error", "hang_up")
"""Misbehaviour of the transport: the request gets no answer, or a late one."""
BAD_ANSWERS = ("cut", "refuse", "garbage", "wrong_ids", "partial", "extra_ids", "rating_3")
"""Misbehaviour of the answer."""
FORMS = ("fenced", "prose", "python", "commas", "mapping", "integers", "thoughts")
"""Harmless ways to say the same."""
FINAL = ("unauthorized", "forbidden", "not_found", "quota", "too_long", "filtered", "redirect")
"""HTTP errors that asking again does not mend."""
ALL_KINDS = (*FAILURES, *BAD_ANSWERS, *FORMS, *FINAL, "empty")


def evenly(total: float, kinds: Iterable[str] = FAILURES + BAD_ANSWERS) -> dict[str, float]:
    """A plan in which `total` of all requests are met with one of `kinds`, each as often."""
    kinds = list(kinds)
    return dict.fromkeys(kinds, total / len(kinds))


def mentions(concept: str, text: str) -> int:
    """The default rule: 2 where the last word of the concept (quotes off) is in the text as a word, 1 as a part, else 0."""
    word = concept.split()[-1].strip("'\"«».").lower()
    return 2 if re.search(rf"\b{re.escape(word)}\b", text.lower()) else 1 if word in text.lower() else 0


def sentences(concept: str, variation: int) -> list[str]:
    """The default writer: ten texts that hold the last word of the concept."""
    word = concept.split()[-1].strip("'\"«».")
    return [f"Sentence {10 * variation + at} of many has {word} in it." for at in range(10)]


class FakeJudge:
    """An OpenAI-compatible server with `base_url`, for use in a `with` block.

    `rule(concept, text)` gives ratings, `writer(concept, variation)` texts. `plan` maps kinds of misbehaviour (see
    `ALL_KINDS`) to probabilities, drawn from `seed`; `script` lists the kinds (or "ok") of the first requests; `choose(body)`
    may name the kind for a request (None: by script and plan). Every request's body is in `bodies`, its headers in
    `headers`; `requests`, `met` (counts by kind) and `peak` (most requests at once) count them. `batches` adds the Batch API.
    `says(body)` may give the words of an answer, and gives those of free questions; `begins` are the likely first tokens (with log-probabilities) of an answer about one
    text; `limit` is the whole body of "rate_limit". `reply(body)` may give status and body (JSON-able, text or bytes) of any request. `asked_in` are the
    prompts that it understands.
    """

    def __init__(
        self,
        rule: Rule = mentions,
        writer: Writer = sentences,
        *,
        plan: Mapping[str, float] | None = None,
        script: Iterable[str] = (),
        choose: Callable[[dict[str, Any]], str | None] | None = None,
        seed: int = 0,
        latency: float = 0.0,
        slow_seconds: float = 1.0,
        retry_after: str | None = "0.05",
        key: str | None = None,
        formats: Iterable[str] = ("json_schema", "json_object"),
        unsupported: Iterable[str] = (),
        logprobs: bool = True,
        echo_key: bool = False,
        batches: bool = False,
        says: Callable[[dict[str, Any]], str | None] = lambda _: None,
        begins: Mapping[str, float] | None = None,
        limit: object = None,
        reply: Callable[[dict[str, Any]], "tuple[int, Any] | None"] | None = None,
        asked_in: Prompts = OURS,
    ) -> None:
        unknown = (set(plan or {}) | set(script)) - {*ALL_KINDS, "ok"}
        assert not unknown, f"unknown misbehaviour {unknown}"
        self.rule, self.writer = rule, writer
        self.plan, self.script, self.choose = dict(plan or {}), list(script), choose
        self.latency, self.slow_seconds, self.retry_after = latency, slow_seconds, retry_after
        self.key, self.formats, self.unsupported = key, tuple(formats), tuple(unsupported)
        self.logprobs, self.echo_key = logprobs, echo_key
        self.says, self.begins, self.limit = says, begins, limit
        self.reply = reply
        self.prompts = asked_in
        self.batches = FakeBatches(self) if batches else None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.met: Counter[str] = Counter()
        self.peak = self._now = 0
        self.closed = False
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def __enter__(self) -> "FakeJudge":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def enter(self, body: dict[str, Any], headers: dict[str, str], path: str) -> str:
        """Records a request and picks what happens to it."""
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.times.append(time.monotonic())
            self._now += 1
            self.peak = max(self.peak, self._now)
        return self.pick(body)

    def pick(self, body: dict[str, Any]) -> str:
        """What happens to a request."""
        with self._lock:
            kind = self.choose(body) if self.choose is not None else None
            if kind is None and self.script:
                kind = self.script.pop(0)
            if kind is None:
                kinds, weights = list(self.plan), list(self.plan.values())
                kind = self._random.choices([*kinds, "ok"], [*weights, max(0.0, 1 - sum(weights))])[0]
            self.met[kind] += 1
            return kind

    def leave(self) -> None:
        with self._lock:
            self._now -= 1

    def chance(self) -> random.Random:
        with self._lock:
            return random.Random(self._random.random())

    def outcome(self, body: dict[str, Any], kind: str) -> tuple[int, dict[str, Any]]:
        """HTTP status and body for a request."""
        if kind in _STATUS:
            return _STATUS[kind][0], {"error": _STATUS[kind][1]}
        return 200, self.completion(body, kind)

    def completion(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        """A chat completion for a request body, misbehaving as `kind` says."""
        messages = body["messages"]
        message: dict[str, Any] = {"role": "assistant"}
        finish, logprobs, ours = "stop", None, True
        if (rating := read_rating(messages)) is not None:
            concept, samples = rating
            content = _rating_content(
                {name: self.rule(concept, text) for name, text in samples.items()}, kind, self.chance()
            )
        elif (writing := self.prompts.read_writing(messages)) is not None:
            concept, n, variation = writing
            content = _writing_content(self.writer(concept, variation)[:n], kind)
        elif (one := read_single(messages, self.prompts)) is not None:
            value = self.rule(*one)
            content = "Yes" if value == 2 else "No"
            logprobs = _logprobs(value) if self.logprobs and kind != "garbage" else None
            if logprobs and self.begins is not None:
                tokens = [{"token": token, "logprob": p} for token, p in self.begins.items()]
                content, logprobs = tokens[0]["token"], {"content": [{**tokens[0], "top_logprobs": tokens}]}
        else:  # a free question
            content = self.says(body)
            assert content is not None, f"a request that is none of ours: {messages}"
            ours = False
        if kind == "cut":
            content, finish = content[: int(len(content) * 0.6)], "length"
        elif kind == "garbage":
            content = "As a large language model, I find this quite a thought-provoking question!"
        elif kind == "empty":
            content, logprobs = "", None
        said = self.says(body) if ours else None
        message["content"] = content if said is None else said
        if kind == "refuse":
            message |= {"content": None, "refusal": "I cannot help with that."}
            logprobs = None
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }


def read_single(messages: list[dict[str, str]], asked_in: Prompts = OURS) -> tuple[str, str] | None:
    """Concept and text of a one-text request, whatever its wording."""
    marks = {"concept": "\x01concept\x01", "text": "\x01text\x01"}
    # A concept that quotes a string is followed by lines on where the string is.
    found = {"concept": r"(?P<concept>[^\n]*)(?:\n“[^\n]*)*", "text": r"(?P<text>.*)"}
    template = "\x02".join(part["content"] for part in asked_in.single_messages(marks["concept"], marks["text"]))
    pattern = re.escape(template)
    for name, mark in marks.items():
        pattern = pattern.replace(re.escape(mark), found[name], 1).replace(re.escape(mark), f"(?P={name})")
    match = re.fullmatch(pattern, "\x02".join(part["content"] for part in messages), re.S)
    return (match["concept"], match["text"]) if match else None


_SCORES: dict[int, float] = {}


def _logprobs(value: int) -> dict[str, Any]:
    """Alternatives whose score the calibration takes for `value`, when most background texts have score -9."""
    from fade_lens.judge import single

    if not _SCORES:
        calibration = single.Calibration.fit([-9.0] * len(single.BACKGROUND))
        for score in range(-36, 37):
            _SCORES.setdefault(calibration.rating(score / 4 + 1e-3), score / 4 + 1e-3)
        _SCORES[0], _SCORES[2] = -9.0, 9.0
    no = -math.log1p(math.exp(_SCORES[value]))
    chances = {"Yes": no + _SCORES[value], "No": no, "Maybe": -20.0}
    alternatives = [{"token": token, "logprob": p} for token, p in sorted(chances.items(), key=lambda item: -item[1])]
    return {"content": [{**alternatives[0], "top_logprobs": alternatives}]}


def _rating_content(ratings: dict[str, int], kind: str, chance: random.Random) -> str:
    entries: list[dict[str, Any]] = [{"id": name, "rating": value} for name, value in ratings.items()]
    chance.shuffle(entries)
    if kind == "wrong_ids":
        entries = [{**entry, "id": str(1000 + int(entry["id"]))} for entry in entries]
    elif kind == "partial":
        entries = entries[: len(entries) // 2]
    elif kind == "extra_ids":
        entries += [{"id": str(name), "rating": 2} for name in range(1, 99, 7)]
    elif kind == "rating_3":
        entries = [{**entry, "rating": 3} for entry in entries]
    elif kind == "integers":
        entries = [{"id": int(entry["id"]), "rating": str(entry["rating"])} for entry in entries]
    mapping = {entry["id"]: entry["rating"] for entry in entries}
    return _in_form(kind, entries, mapping, f"Is {entries[0]['id'] if entries else 0}: 1 right?")


def _in_form(kind: str, entries: list[dict[str, Any]], mapping: dict[Any, Any], thought: str) -> str:
    """Ratings in one of `FORMS`, or as they are asked for."""
    plain = json.dumps({"ratings": entries})
    forms = {
        "fenced": f"Sure!\n```json\n{json.dumps({'ratings': entries}, indent=1)}\n```\nDone.",
        "prose": f"I compared each [carefully]. {plain} That is all.",
        "python": str({"ratings": entries}),
        "commas": plain.replace("}]}", "},]}"),
        "mapping": json.dumps(mapping),
        "thoughts": f"<think>{thought} Hm.</think>{plain}",
    }
    return forms.get(kind, plain)


def _writing_content(texts: list[str], kind: str) -> str:
    plain = json.dumps({"texts": texts})
    forms = {
        "fenced": f"```json\n{plain}\n```",
        "prose": f"Here you are:\n{plain}\nEnjoy!",
        "python": str({"texts": texts}),
        "commas": plain.replace("]}", ",]}"),
        "mapping": json.dumps({str(at): text for at, text in enumerate(texts)}),
        "thoughts": f"<think>['no', 'not this']</think>{plain}",
    }
    return forms.get(kind, plain)


_STATUS: dict[str, tuple[int, dict[str, Any]]] = {
    "error": (500, {"message": "internal error", "type": "server_error"}),
    "rate_limit": (429, {"message": "too many requests", "type": "requests", "code": "rate_limit_exceeded"}),
    "unauthorized": (401, {"message": "Incorrect API key provided.", "code": "invalid_api_key"}),
    "forbidden": (403, {"message": "this key may not use the model"}),
    "not_found": (404, {"message": "The model does not exist", "code": "model_not_found"}),
    "quota": (429, {"message": "You exceeded your current quota.", "code": "insufficient_quota"}),
    "too_long": (400, {"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}),
    "filtered": (400, {"message": "triggered the content management policy", "code": "content_filter"}),
    "redirect": (307, {"message": "elsewhere"}),
}


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    fake: FakeJudge

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        fake = self.server.fake
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if fake.closed:  # a connection kept alive outlives the listening socket
            self.close_connection = True
            return
        path = self.path.split("?")[0]
        if path.endswith(("/files", "/batches")):
            self._batch_call(fake, path, raw)
            return
        body = json.loads(raw)
        kind = fake.enter(body, {name.lower(): value for name, value in self.headers.items()}, self.path)
        try:
            self._answer(fake, body, kind)
        finally:
            fake.leave()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self._batch_call(self.server.fake, path, b"")

    def _batch_call(self, fake: FakeJudge, path: str, raw: bytes) -> None:
        batches, name = fake.batches, path.rpartition("/")[2]
        fake.paths.append(self.path)
        if batches is None:
            self._send(404, {"error": {"message": "Not Found"}})
        elif path.endswith("/files"):
            parts = raw.split(b"\r\n\r\n")
            content = next(part for part in parts if part.startswith(b'{"custom_id"'))
            self._send(200, batches.upload(content.rpartition(b"\r\n--")[0].decode().strip()))
        elif path.endswith("/content"):
            self._send_text(200, batches.files[path.split("/")[-2]], "application/jsonl")
        elif name != "batches":
            self._send(200, batches.look(name))
        elif not raw:
            self._send(200, {"object": "list", "data": list(batches.made.values())[::-1], "has_more": False})
        elif (made := batches.create(json.loads(raw))) is not None:
            self._send(200, made)
        else:
            self.close_connection = True

    def _answer(self, fake: FakeJudge, body: dict[str, Any], kind: str) -> None:
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("api-key", "")
        if fake.key is not None and shown != fake.key:
            kind = "unauthorized"
        time.sleep(fake.slow_seconds if kind == "slow" else fake.latency)
        wanted = body.get("response_format", {}).get("type")
        rejected = next((name for name in fake.unsupported if name in body), None)
        if (said := None if fake.reply is None else fake.reply(body)) is not None:
            status, answer = said
            if isinstance(answer, bytes):
                self._send_bytes(status, answer, "application/octet-stream")
            else:
                self._send_text(status, answer if isinstance(answer, str) else json.dumps(answer), "text/plain")
        elif kind == "hang_up":
            self.close_connection = True
        elif kind in _STATUS:
            status, error = _STATUS[kind]
            if fake.echo_key:
                error = {**error, "message": f"{error['message']} You sent {shown}."}
            limited = kind == "rate_limit"
            told = fake.limit if limited and fake.limit is not None else {"error": error}
            self._send(status, told, fake.retry_after if limited else None)
        elif wanted is not None and wanted not in fake.formats:
            message = f"Invalid parameter: 'response_format' of type '{wanted}' is not supported with this model."
            self._send(400, {"error": {"message": message, "param": "response_format"}})
        elif rejected is not None:
            self._send(400, {"error": {"message": f"Unsupported parameter: '{rejected}'.", "param": rejected}})
        else:
            self._send(200, fake.completion(body, kind))

    def _send(self, status: int, body: object, retry_after: str | None = None) -> None:
        self._send_text(status, json.dumps(body), "application/json", retry_after)

    def _send_text(self, status: int, text: str, kind: str, retry_after: str | None = None) -> None:
        self._send_bytes(status, text.encode(), kind, retry_after)

    def _send_bytes(self, status: int, payload: bytes, kind: str, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/v1/chat/completions")
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(payload)
