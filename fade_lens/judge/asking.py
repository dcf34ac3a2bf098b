"""What all questions about one concept share: what counts as an attempt, and when asking again is no use."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from fade_lens._util.errors import JudgeError
from fade_lens.judge.parsing import readable
from fade_lens.judge.prompts import Prompts
from fade_lens.llm.chat import Answer
from fade_lens.llm.queue import Call, Queue
from fade_lens.llm.request import Request

T = TypeVar("T")

HOPELESS = 8
"""Answers that give nothing, with none that gives something, after which a concept is not re-asked."""
ILLEGIBLE = 40
"""The same over all concepts, after which the judge counts as unable to answer in the form asked for."""
CHECKED = ("the word 'sun'", ["The sun rose over the hills.", "Prices fell again in March."])
"""Concept and texts that show whether a judge can answer."""


@dataclass
class Legibility:
    """Counts of answers that could and could not be read."""

    readable: int = 0
    unreadable: int = 0


@dataclass(kw_only=True)
class Asking:
    """What is asked about one concept, and how much of what came back could be read.

    An answer that an earlier run left and could not read is no attempt of this run: it is passed over, and asked for anew. It stays in
    the transcripts, and where a later attempt was read already, that one counts and nothing is asked.
    """

    queue: Queue
    prompts: Prompts
    call: Call
    concept: str
    overall: Legibility
    """Shared by all concepts of a judge."""
    own: Legibility = field(default_factory=Legibility)
    attempts: int

    FORM: ClassVar[str]
    """What an answer is read as."""
    OTHERWISE: ClassVar[str]
    """What to do where a model gives nothing of the kind."""

    def counts(self, request: Request, answer: Answer, readable: bool) -> bool:
        """Whether an answer was an attempt of this run. Raises `JudgeError` where the judge turns out to be unable to answer."""
        if not (readable or answer.refusal or self.queue.key(request) in self.call.answered):
            return False
        self.own.readable += readable
        self.own.unreadable += not readable
        self.overall.readable += readable
        self.overall.unreadable += not (readable or answer.refusal)
        if not self.overall.readable and self.overall.unreadable >= ILLEGIBLE:
            shown = "(`fade-lens judge log RUN --failures` shows them)"
            error = self.unable(f"none of {ILLEGIBLE} answers could be read {shown}; the last one {_beginning(answer)}")
            self.call.stop(error)
            raise error
        return True

    @property
    def hopeless(self) -> bool:
        """Whether asking again about this concept is no use."""
        return not self.own.readable and self.own.unreadable >= HOPELESS

    def unable(self, reason: str) -> JudgeError:
        """The error for a judge that cannot do it."""
        model = self.queue.provider
        return JudgeError(
            f"judge {model.model!r} at {model.endpoint.label} gives no {self.FORM}: {reason}. {self.OTHERWISE}"
        )

    def said(self, answer: Answer) -> str:
        """What of an answer may be read."""
        return readable(answer.content, cut=answer.finish_reason == "length", thinks=self.queue.provider.reasoning)


def why_unread(answer: Answer, attempt: int) -> str:
    """Why an answer gave nothing."""
    if answer.refusal:
        return f"refused: {answer.refusal:.200}"
    return f"nothing readable after {attempt + 1} requests; the last answer {_beginning(answer)}"


def _beginning(answer: Answer) -> str:
    """What an answer that cannot be read looks like."""
    if answer.top_logprobs:
        likely = sorted(answer.top_logprobs, key=lambda listed: -listed[1])[:3]
        return f"begins with {' or '.join(repr(token) for token, _ in likely)}"
    return answer.whereabouts


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines run together. At the first error the others are let go of."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
