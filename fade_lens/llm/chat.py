"""The one question interface: `LLM`, what it is asked (`Request`) and what it answers (`Answer`)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import iscoroutinefunction
from typing import Any, Protocol, runtime_checkable

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError, JudgeError
from fade_lens.llm.budget import CHARS_PER_TOKEN, Number
from fade_lens.llm.endpoint import Endpoint
from fade_lens.llm.request import Request
from fade_lens.llm.thoughts import without_thoughts
from fade_lens.llm.transcripts import Transcripts

IN_PROCESS = "in this process"
"""What stands for the address of a model that has none."""


@dataclass(frozen=True)
class Answer(Brief):
    """What a model answered.

    A model of your own gives `content`, and `top_logprobs` where it is to rate one text a request; tokens that are not counted are estimated.
    """

    content: str
    finish_reason: str = "stop"
    refusal: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None
    """Alternatives of the first token."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thought_tokens: int = 0
    """Of these, what went into thoughts, as far as the server shows it."""
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

    @property
    def whereabouts(self) -> str:
        """How an answer begins in which nothing could be read, or why it is empty: for messages."""
        said = without_thoughts(self.content).strip()
        cut, thought = self.finish_reason == "length", self.thought_tokens or (self.content.strip() and not said)
        tokens = f"{self.completion_tokens:,} tokens"
        if thought and not said:
            seen = f"began {self.content[:80]!r}" if self.content.strip() else "is empty"
            mend = "switch the model's thinking off" + (", or let it answer longer" if cut else "")
            return f"{seen}: all of its {tokens} went into reasoning; {mend}"
        if cut and not said:
            return (
                f"was cut after {tokens} without a word: the server's context is full, or its limit on answers too low"
            )
        if not said:
            return "was empty"
        return f"began {said[:80]!r}" + (f" and was cut after {tokens}" if cut else "")


class Unanswered(Exception):
    """A request that gets no answer. Only what it asked for is lost, and the run goes on.

    Args:
        reason: for people.
        too_long: whether a shorter request may be answered.
        said: all of the server's words.
    """

    def __init__(self, reason: str, *, too_long: bool = False, said: str = "") -> None:
        super().__init__(reason)
        self.too_long, self.said = too_long, said


class Transient(Exception):
    """A failure that may pass: the same request is sent again.

    Args:
        reason: for people.
        retry_after: seconds that the server asks to wait; None waits as long as seems good.
        connected: whether the server was reached at all.
    """

    def __init__(self, reason: str, *, retry_after: Number | None = None, connected: bool = True) -> None:
        super().__init__(reason)
        self.retry_after, self.connected = retry_after, connected


@runtime_checkable
class LLM(Protocol):
    """Any language model, or a rule that stands for one: `Judge(llm)` asks it.

    `ask` is asynchronous because one thread keeps many requests in flight; work that blocks, such as a model's forward pass, belongs in
    `await asyncio.to_thread(...)`. Answers are stored under the model's attribute `name`, or the name of its class where it has none: change
    the name when the answers change.

    Example:
        >>> class Parrot:
        ...     async def ask(self, request: Request) -> Answer:
        ...         return Answer(request.messages[-1]["content"])
    """

    async def ask(self, request: Request) -> Answer:
        """The answer to one question.

        Raises:
            Unanswered: this request alone gets no answer.
            Transient: asking again may help.
            JudgeError: the model cannot answer at all. Everything else that is raised ends the run, too.
        """
        ...


class Provider:
    """A model as a `Queue` asks it: an `LLM` that also says what it is called and what it can do.

    Args:
        model: its name.
        endpoint: where it is.
        batches: whether requests may go through a Batch API.
    """

    def __init__(self, model: str, endpoint: Endpoint, *, batches: bool = False) -> None:
        self.model, self.endpoint, self.batches = model, endpoint, batches

    @property
    def named(self) -> str:
        """The model and where it is, for messages."""
        return f"judge {self.model!r} at {self.endpoint.label}"

    @property
    def reasoning(self) -> bool:
        """Whether the model thinks before it answers, in tokens that count."""
        return False

    async def ask(self, request: Request) -> Answer:
        """The answer to one question, asked once. Raises `Transient`, `Unanswered` or `JudgeError`."""
        raise NotImplementedError

    async def ask_batch(self, request: Request, key: str, transcripts: Transcripts) -> Answer | None:  # noqa: ARG002
        """The answer from a batch, of this run or of an earlier one; None where the request is to be asked by itself."""
        return None

    def fits(self, request: Request) -> bool:  # noqa: ARG002
        """Whether there is room for the request and its answer, as far as is known."""
        return True

    def gone(self, failure: Transient) -> JudgeError:
        """The error for a model that does not answer any more."""
        return JudgeError(f"judge {self.model!r} does not answer: {failure}; everything answered so far is kept")

    async def connected(self) -> None:
        """Make the model ready: connect, or start its server."""

    def drop(self) -> None:
        """Stop waiting for batches."""

    async def close(self) -> None:
        """Close connections."""


class InProcess(Provider):
    """A model of the user's own, asked by calling it.

    Args:
        llm: the model.
        timeout: seconds that one answer may take.

    Raises:
        InputError: the object has no asynchronous `ask`.
    """

    def __init__(self, llm: LLM, *, timeout: Number) -> None:
        kind = type(llm).__name__
        if not iscoroutinefunction(getattr(llm, "ask", None)):
            raise InputError(
                f"model is a {kind}, which cannot be asked: give a model's name, or an object with "
                "`async def ask(self, request)` that returns a fade_lens.Answer"
            )
        super().__init__(str(getattr(llm, "name", kind)), Endpoint("", name=IN_PROCESS))
        self.llm, self._timeout = llm, timeout

    async def ask(self, request: Request) -> Answer:
        """The model's answer; tokens that it does not count are estimated."""
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self.llm.ask(request)
        except TimeoutError:
            raise Transient(f"no answer within {self._timeout:g} s") from None
        if not isinstance(answer, Answer) or not isinstance(answer.content, str):
            kind = type(self.llm).__name__
            raise JudgeError(f"{kind}.ask gave {answer!r:.80}: return a fade_lens.Answer whose content is a text")
        return replace(
            answer,
            prompt_tokens=answer.prompt_tokens or round(request.prompt_tokens),
            completion_tokens=answer.completion_tokens or round(len(answer.content) / CHARS_PER_TOKEN),
        )
