"""What a server takes, as far as its refusals have told: the one place where a request is made to suit it.

Nothing decided here enters a transcript's key: it says how something is asked, not what.
"""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fade_lens.llm.request import Message, Request, Structure
from fade_lens.llm.words import room_told

logger = logging.getLogger(__name__)

HIDDEN_TOKENS = 16_000
"""Room for a reasoning model's thoughts."""
FEWER_LOGPROBS = 5
LEAST_TEMPERATURE = 0.01
"""For servers that take none of 0."""
LIMITS = ("max_tokens", "max_completion_tokens")

# "gpt-35" is what Azure calls GPT-3.5.
_REASONING = re.compile(
    r"(^|/)(o\d(-|$)|gpt-(?!35)([5-9]|\d\d)(?!.*chat)|gpt-oss)|deepseek-r|\bqwq|magistral|reason|thinking", re.I
)
FORMAT_REJECTED = re.compile(
    r"response[_ ]?(format|schema)|json[_ ]?(schema|object|mode)|structured|grammar|guided|additionalProperties|schema",
    re.I,
)
"""What a server says that does not know a response format."""
_KEYWORD = re.compile(r"additionalProperties|\benum\b|\bstrict\b|keyword|schema fields?|unknown name|\bconst\b", re.I)
"""… or only something in the schema."""
ROLE_REJECTED = re.compile(
    r"\bsystem['\"`]?\W{0,3}(role|message|prompt|instruction)|\broles?\b.{0,60}\b(system|alternat|user)|\bonly\b.{0,60}\broles?\b|developer instruction"
    r"|chat[ _]template|template error|jinja|raise_exception",
    re.I,
)
"""What a chat template says that knows no system message."""


@dataclass
class Capabilities:
    """How one server is asked: at first with everything that servers may take, later without what this one has refused."""

    reasoning: bool
    """Whether the model thinks before it answers, in tokens that count as its answer's."""
    hosted: bool
    """Whether the server is OpenAI's or Azure's."""
    formats: list[str] = field(default_factory=lambda: ["json_schema", "json_schema, simple", "json_object", "none"])
    """Response formats still to be tried; the first one is sent."""
    left_out: set[str] = field(default_factory=set[str])
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    """Parameters that are sent with another value."""
    merged: bool = False
    """Whether the system message goes into the user's."""
    total: float = math.inf
    """Tokens that prompt and answer may have together, counted as `Request.prompt_tokens` counts."""
    most: float = math.inf
    """Tokens that an answer may have."""
    refused: float = math.inf
    """The smallest size (`Request.need`) of a request that was too long and could not be shortened."""
    proven: set[str] = field(default_factory=set[str])
    """What answered requests held."""
    guessed: tuple[list[str], bool, set[str]] | None = None
    """What was sent before anything was left out by guessing."""

    @classmethod
    def of(cls, model: str, *, hosted: bool) -> "Capabilities":
        """What to begin with for a model of this name."""
        return cls(bool(_REASONING.search(model)), hosted)

    def body(self, request: Request, model: str) -> dict[str, Any]:
        """The request as this server takes it."""
        parameters = dict(request.parameters)
        limit = parameters.pop("max_tokens", None)
        if self.reasoning:
            parameters.pop("temperature", None)
            limit = limit + HIDDEN_TOKENS if limit is not None and self.hosted else None
        names = LIMITS[::-1] if self.hosted else LIMITS
        name = next((name for name in names if name not in self.left_out), None)
        if limit is not None and name is not None:
            room = min(self.most, self.total - request.prompt_tokens)
            parameters[name] = min(limit, max(1, request.expects, math.floor(room) if room < limit else limit))
        body: dict[str, Any] = {
            "model": model,
            "messages": _merged(request.messages) if self.merged else request.messages,
        }
        body |= {name: self.values.get(name, value) for name, value in parameters.items() if name not in self.left_out}
        if request.structure is not None and (form := _response_format(self.formats[0], request.structure)):
            body["response_format"] = form
        return body

    def limit(self, body: Mapping[str, Any]) -> int:
        """The tokens that an answer to `body` may have; 0 where it names no limit."""
        return next((int(body[name]) for name in LIMITS if name in body), 0)

    def fits(self, request: Request) -> bool:
        """Whether there is room for the request and its answer, as far as is known."""
        return request.need < self.refused and request.need <= self.total

    def learn(self, said: str, body: Mapping[str, Any]) -> None:
        """Remember what a server names as the cause of a refusal: it is left out from now on, or sent with another value.

        Args:
            said: the server's words.
            body: what was refused.
        """
        if "response_format" in body and FORMAT_REJECTED.search(said):
            self._next_format(said, keyword=bool(_KEYWORD.search(said)))
        elif ROLE_REJECTED.search(said) and not self.merged:
            logger.info("judge: no system message here (%s)", said[:300])
            self.merged = True
        elif "logprobs" in body and re.search(r"logprobs|top_n_tokens", said):
            self._fewer_logprobs(said, body)
        else:
            for name in body:
                if name not in ("model", "messages") and re.search(rf"(?<!\w){name}(?!\w)", said):
                    positive = re.search(r"positive|greater than|> ?0|at least", said, re.I)
                    if name == "temperature" and not body[name] and positive:
                        self.values[name] = LEAST_TEMPERATURE
                    else:
                        logger.info("judge: %s is not supported here (%s)", name, said[:300])
                        self.left_out.add(name)

    def answered(self, body: Mapping[str, Any]) -> None:
        """Remembers what the server takes."""
        self.proven |= _held(body)
        self.guessed = None

    def simplify(self, body: Mapping[str, Any]) -> None:
        """After a refusal without a cause: leave out the next thing that may be it. Once nothing is left to try, put everything back."""
        suspects = (_held(body) & {"response_format", "system", "seed", "temperature"}) - self.proven
        if suspects and self.guessed is None:
            self.guessed = self.formats, self.merged, set(self.left_out)
        if "response_format" in suspects:
            self._next_format("it does not say why", keyword=False)
        elif "system" in suspects:
            self.merged = True
        elif suspects:
            self.left_out |= suspects
        elif self.guessed is not None:
            self.formats, self.merged, self.left_out = self.guessed
            self.guessed, self.proven = None, {"response_format", "system", "seed", "temperature"}

    def shorten(self, said: str, body: Mapping[str, Any], request: Request) -> None:
        """Lower the limit on answers after a refusal for length.

        Args:
            said: the server's words; the numbers in them tell the limit, or else it is halved.
            body: what was refused.
            request: what it was made from. A limit that leaves too little room for its answer is not taken.
        """
        limit = self.limit(body)
        room, for_answers = room_told(said, limit, request.prompt_tokens)
        lowered = limit // 2 if room is None or room >= limit else room
        if lowered < max(1, request.expects):
            return
        logger.info("judge: %d tokens at most for an answer here (%s)", lowered, said[:300])
        if for_answers:
            self.most = min(self.most, lowered)
        else:
            self.total = min(self.total, request.prompt_tokens + lowered)

    def drop_grammar(self) -> None:
        """Stop asking for a response format: the server's grammar lets the model write white space without end."""
        logger.info("judge: response_format makes the model write white space; asked without it from now on")
        self.formats = self.formats[-1:]

    def _next_format(self, said: str, *, keyword: bool) -> None:
        tried, *left = self.formats
        if not keyword:  # the simpler schema is a schema, too
            left = [name for name in left if not name.startswith(tried.split(",")[0])]
        logger.info("judge: response_format %s is not supported here (%s)", tried, said[:300])
        self.formats = left

    def _fewer_logprobs(self, said: str, body: Mapping[str, Any]) -> None:
        now = body.get("top_logprobs", 0)
        told = map(int, re.findall(r"(?<![\w.-])\d{1,2}(?![\w-]|\.\d)", said))
        fewer = max(
            (n for n in told if 0 < n < now), default=FEWER_LOGPROBS if "top" in said and now > FEWER_LOGPROBS else 0
        )
        if fewer:
            self.values["top_logprobs"] = fewer
        else:
            self.left_out |= {"logprobs", "top_logprobs"}


def _held(body: Mapping[str, Any]) -> set[str]:
    """The names of what a body holds, the system's message among them."""
    return set(body) | {message["role"] for message in body["messages"]}


def _merged(messages: list[Message]) -> list[Message]:
    """The messages with what the system says put before the user's first words."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    first, *others = [message for message in messages if message["role"] != "system"]
    return [{**first, "content": f"{system}\n\n{first['content']}"}, *others] if system else messages


def _response_format(form: str, structure: Structure) -> dict[str, Any] | None:
    if form == "none":
        return None
    strict = {"strict": True, "schema": structure.schema}
    schema = strict if form == "json_schema" else {"schema": _simple(structure.schema)}
    kind = form.partition(",")[0]
    return {"type": kind} | ({"json_schema": {"name": structure.name} | schema} if kind == "json_schema" else {})


def _simple(schema: Any) -> Any:
    """A schema with no keywords but those that every server knows."""
    if isinstance(schema, dict):
        return {name: _simple(value) for name, value in schema.items() if name not in ("additionalProperties", "enum")}
    return schema
