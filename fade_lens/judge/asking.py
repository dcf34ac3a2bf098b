"""What all questions about one concept share: what counts as an attempt, and when asking again is no use."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from fade_lens._util.errors import Argument, InputError, JudgeError
from fade_lens._util.reasons import Reason
from fade_lens.judge.checks import check_concept, check_numbers
from fade_lens.judge.parsing import readable
from fade_lens.judge.prompts import Prompts
from fade_lens.llm.chat import Answer, Unanswered
from fade_lens.llm.queue import Call, Queue
from fade_lens.llm.request import Request
from fade_lens.llm.thoughts import without_thoughts

if TYPE_CHECKING:  # it rests on this module
    from fade_lens.judge.writing import Written

T = TypeVar("T")

HOPELESS = 8
"""Answers that give nothing, with none that gives something, after which a concept is not re-asked."""
ILLEGIBLE = 40
"""The same over all concepts, after which the judge counts as unable to answer in the form asked for."""
CHECKED = ("the word 'sun'", ["The sun rose over the hills.", "Prices fell again in March."])
"""Concept and texts that show whether a judge can answer."""


def as_it_is(answer: Answer) -> Answer:
    """The reader of questions of which any words are an answer."""
    return answer


def check_question(request: Request, attempts: int) -> None:
    """Raise `InputError` for a question that cannot be asked."""
    check_concept(request.concept)
    check_numbers(attempts=(attempts, 1, 100))
    if not request.messages:
        raise InputError(f"the {request.kind!r} question has no messages: give at least one with role and content")


@dataclass
class Legibility:
    """How many answers could be read, and how many could not."""

    readable: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Questions:
    """What is asked within one piece of work (see `Judge.submit`).

    Attributes:
        queue: the way to the model.
        prompts: the words of ratings and of writing.
        call: where answers are kept, and why no more must be sent.
        legible: how far answers could be read, by what they are read as; shared by all work of a judge.
        rating: how the judge rates: several texts a request ("batched"), or one ("single").
        writes: who writes: the judge, or its writer.
    """

    queue: Queue
    prompts: Prompts
    call: Call
    legible: defaultdict[str, Legibility]
    rating: str = "batched"
    writes: "Callable[[Questions, str, int, int], Coroutine[Any, Any, Written]] | None" = None

    async def send(self, request: Request) -> Answer:
        """The answer to one request. Raises `Unanswered` where only this request is lost, `JudgeError` where the judge cannot be asked."""
        return await self.queue.ask(request, self.call)

    async def ask(
        self, request: Request, read: Callable[[Answer], T | None] = as_it_is, *, attempts: int = 3
    ) -> T | Reason:
        """What `read` finds in an answer, or the reason why there is nothing; as `Judge.submit_ask`."""
        check_question(request, attempts)
        form = f"{request.kind!r} answers that can be read"
        question = Asking(asked=self, concept=request.concept, attempts=attempts, form=form)

        def found(answer: Answer) -> T | None:
            said = question.words(answer)
            return None if said is None else read(said)

        return await question.ask(request, found)

    async def write(self, concept: str, n_texts: int, *, seed: int) -> "Written":
        """Texts that express a concept; as `Judge.submit_write`."""
        check_concept(concept)
        assert self.writes is not None, "a check writes nothing"
        return await self.writes(self, concept, n_texts, seed)


@dataclass(kw_only=True)
class Asking:
    """What is asked about one concept, and how much of what came back could be read.

    An answer that an earlier run left and could not read is no attempt of this run: it is passed over, and asked for anew. It stays in
    the transcripts, and where a later attempt was read already, that one counts and nothing is asked.

    Attributes:
        asked: the work that it belongs to.
        concept: what is asked about.
        attempts: requests that give nothing, after which the question is given up.
        own: how far answers about this concept could be read.
        form: what an answer is read as.
        otherwise: what to do where a model gives nothing of the kind.
    """

    asked: Questions
    concept: str
    attempts: int
    own: Legibility = field(default_factory=Legibility)
    form: str = "answers that can be read"
    otherwise: tuple[str | Argument, ...] = ("Take a stronger model",)

    @property
    def overall(self) -> Legibility:
        """How far answers of this form could be read, over all concepts of the judge."""
        return self.asked.legible[self.form]

    async def ask(self, request: Request, read: Callable[[Answer], T | None]) -> T | Reason:
        """What `read` finds in an answer to `request`, which is asked again where that is nothing, or why there is none."""
        tried = 0
        for attempt in count():
            sent = request.again(attempt)
            try:
                answer = await self.asked.send(sent)
            except Unanswered as error:
                return Reason("too_long" if error.too_long else "failed", str(error))
            found = None if answer.refusal else read(answer)
            tried += self.counts(sent, answer, found is not None)
            if found is not None:
                return found
            if tried >= self.attempts or (self.hopeless and not answer.refusal):
                return self.unread(answer, attempt)
        raise AssertionError

    def counts(self, request: Request, answer: Answer, readable: bool) -> bool:
        """Count an answer.

        Args:
            request: what was asked.
            answer: what was answered.
            readable: whether it could be read.

        Returns:
            Whether it was an attempt of this run, and not one that an earlier run left unread.

        Raises:
            JudgeError: of many answers of this form, over all concepts, none could be read.
        """
        key, came = self.asked.queue.key(request), self.asked.call.answered
        if not (readable or answer.refusal or key in came):
            return False
        if readable:  # counts whenever it came: of hundred thousands only those that gave nothing need be remembered
            came.discard(key)
        self.own.readable += readable
        self.own.unreadable += not readable
        self.overall.readable += readable
        self.overall.unreadable += not (readable or answer.refusal)
        if not self.overall.readable and self.overall.unreadable >= ILLEGIBLE:
            shown = "(`fade-lens judge log RUN --failures` shows them)"
            error = self.unable(f"none of {ILLEGIBLE} answers could be read {shown}; the last one {_beginning(answer)}")
            self.asked.call.stop(error)
            raise error
        return True

    @property
    def hopeless(self) -> bool:
        """Whether further questions about this concept are of no use: many answers, and none could be read."""
        return not self.own.readable and self.own.unreadable >= HOPELESS

    def unable(self, reason: str) -> JudgeError:
        """The error for a judge that cannot answer in this form, with the reason and what to do."""
        return JudgeError(f"{self.asked.queue.provider.named} gives no {self.form}: {reason}. ", *self.otherwise)

    def said(self, answer: Answer) -> str:
        """The part of an answer that may be read (see `parsing.readable`)."""
        return readable(
            answer.content, cut=answer.finish_reason == "length", thinks=self.asked.queue.provider.reasoning
        )

    def unread(self, answer: Answer, attempt: int) -> Reason:
        """Why an answer gave nothing."""
        if answer.refusal:
            return Reason("refused", f"refused: {answer.refusal:.200}")
        words = f"nothing readable after {attempt + 1} requests; the last answer {_beginning(answer)}"
        return Reason("cut" if answer.finish_reason == "length" else "unreadable", words)

    def words(self, answer: Answer) -> Answer | None:
        """An answer whose content is what may be read of it, without the model's thoughts; None where that is nothing."""
        content = without_thoughts(self.said(answer)).strip()
        return replace(answer, content=content) if content else None


def _beginning(answer: Answer) -> str:
    """How an answer that cannot be read begins, or why it is empty."""
    if answer.top_logprobs:
        likely = sorted(answer.top_logprobs, key=lambda listed: -listed[1])[:3]
        return f"begins with {' or '.join(repr(token) for token, _ in likely)}"
    return answer.whereabouts


async def all_of(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run at the same time. At the first error the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
