"""Requests on their way to a model: looked up, paced, sent, tried again, counted and kept. Any model is asked through here."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from itertools import count
from time import time
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fade_lens._util.errors import FadeLensError, JudgeError
from fade_lens.llm.budget import EXPECTED_THOUGHTS, Budget, Ledger, Number
from fade_lens.llm.chat import Answer, Provider, Transient, Unanswered
from fade_lens.llm.request import Request
from fade_lens.llm.transcripts import Transcripts, key_of

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF = 30.0
CHECK_ATTEMPTS = 3
"""Times that a question of the check is sent at most."""
SHOWN_WAIT = 5.0
"""Seconds from which it is told that the server asks to wait."""
SERVER_GONE = 5
"""Requests in a row given up before the server counts as gone."""


@dataclass(eq=False)
class Call:
    """One piece of work that was submitted: where its answers are kept, and why it must send nothing more."""

    transcripts: Transcripts
    answered: set[Any] = field(
        default_factory=set[str]
    )  # of keys; a type that is checked would be read while others write
    """Keys of the answers that came in this run; all others in the transcripts came in an earlier one."""
    account: str = ""
    """What its answers are counted under; unless given, under what each is asked about."""
    check: bool = False
    """Whether it only tries if the judge can answer: with few attempts, and never through a batch."""
    stopped: FadeLensError | None = None
    """Why nothing more is sent; None while it goes on."""
    order: int = field(default_factory=count().__next__)
    """Work that was submitted earlier is served first."""

    def stop(self, error: FadeLensError) -> None:
        """Stop this work: nothing more is sent. The first reason counts."""
        self.stopped = self.stopped or error

    def go_on(self) -> None:
        """Raise the reason why this work was stopped, if it was."""
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)


class Slots:
    """Lets a limited number of requests be in flight; of those that wait, the ones of the earliest work go first.

    Work that is submitted in some order is thus done in about that order, and what needs its results can begin before all is done.

    Args:
        most: requests in flight at a time.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = count()

    @asynccontextmanager
    async def one(self, order: int) -> AsyncGenerator[None]:
        """One request's place, held within the block."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heappush(self._waiting, (order, next(self._ticket), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Gives a place to the next that waits."""
        while self._waiting:
            _, _, turn = heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Pace:
    """Spreads requests or tokens evenly over time.

    Args:
        per_minute: the most in any minute; None is no limit.
    """

    def __init__(self, per_minute: Number | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = 0.0

    async def wait(self, amount: Number) -> None:
        """Waits for this amount's turn."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)

    def correct(self, amount: Number) -> None:
        """Add the difference between what was used and what was estimated."""
        self._next += amount * self._seconds_each


class Retries:
    """How often and when a request that failed is sent again.

    Args:
        most: attempts after the first one.
        ledger: where they are counted.
    """

    def __init__(self, most: int, ledger: Ledger) -> None:
        self._most, self._ledger = most, ledger

    def __call__(self, attempts: int | None = None) -> AsyncRetrying:
        """Tries again after transient failures, with backoff or as the server asks; at most `attempts` times in all."""
        attempts = min(attempts or self._most + 1, self._most + 1)
        backoff = wait_random_exponential(multiplier=BACKOFF_SECONDS, max=LONGEST_BACKOFF)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, Transient) else None
            return backoff(state) if asked is None else asked * (1 + 0.1 * random.random())

        def note(state: RetryCallState) -> None:
            self._ledger.add(retries=1)
            error = state.outcome.exception() if state.outcome else None
            logger.info("judge: %s; attempt %d follows", error, state.attempt_number + 1)

        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_attempt(attempts),
            wait=wait,
            before_sleep=note,
            reraise=True,
        )


class Queue:
    """Asks one model, a limited number of requests at a time; lives in the judge's event loop.

    An answer that is stored is not asked for again, nothing is sent that would exceed a limit on calls or cost, and every answer is stored
    before it is used.

    Args:
        provider: the model.
        ledger: where calls, tokens and cost are counted.
        budget: the limits on them.
        retries: how failures are tried again.
        concurrency: requests in flight at a time.
        requests_per_minute: how many are sent in a minute at most; None is no limit.
        tokens_per_minute: how many tokens they have together at most; None is no limit.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        ledger: Ledger,
        budget: Budget,
        retries: Retries,
        concurrency: int,
        requests_per_minute: Number | None = None,
        tokens_per_minute: Number | None = None,
    ) -> None:
        self.provider = provider
        self.calls: set[Call] = set()
        self._ledger, self._budget, self._retries = ledger, budget, retries
        self._requests, self._tokens = Pace(requests_per_minute), Pace(tokens_per_minute)
        self._slots = Slots(concurrency)
        self._paused_until = 0.0
        self._given_up_in_a_row = 0
        self._ever_answered = False
        self._pending: dict[str, tuple[asyncio.Task[Answer], Transcripts]] = {}

    async def ask(self, request: Request, call: Call) -> Answer:
        """The answer to a request, stored or from the model; the same request is in flight only once.

        Args:
            request: the question.
            call: the work that it belongs to.

        Raises:
            Unanswered: only this request is lost.
            JudgeError: the judge cannot be asked at all, or the work was stopped.
            BudgetReached: a limit is reached.
        """
        call.go_on()
        key = self.key(request)
        record = call.transcripts.get(key)
        if record is not None:
            self._ledger.add(cached=1)
            return self._used(request, call, key, Answer.from_record(record))
        if request.parts > 1 and not self.provider.fits(request):  # others like it were refused: no need to ask
            raise Unanswered("too long for the judge, as others like it", too_long=True)
        if key not in self._pending:
            task = asyncio.create_task(self._persist(key, request, call))
            task.add_done_callback(lambda done: (self._pending.pop(key, None), done.cancelled() or done.exception()))
            self._pending[key] = task, call.transcripts
        task, kept = self._pending[key]
        # A caller that gives up does not throw away an answer on its way.
        answer = await asyncio.shield(task)
        if kept is not call.transcripts and call.transcripts.get(key) is None:  # others asked it, and keep it elsewhere
            call.transcripts.put(key, self._asked(request), asdict(answer))
        call.answered.add(key)
        return self._used(request, call, key, answer)

    def _used(self, request: Request, call: Call, key: str, answer: Answer) -> Answer:
        if not call.check:
            tokens = answer.prompt_tokens, answer.completion_tokens
            self._ledger.use(call.account or request.concept, key, *tokens, batched=answer.batched)
        return answer

    def key(self, request: Request) -> str:
        """The transcript key: a hash of everything that determines the answer."""
        model, endpoint = self.provider.model, self.provider.endpoint
        return key_of(model=endpoint.known(model), endpoint=endpoint.identity, **request.determinants)

    def stop(self, error: FadeLensError) -> None:
        """Stop all work that was submitted so far. Requests in flight are still answered and stored; nothing more is sent."""
        for call in list(self.calls):
            call.stop(error)

    async def drain(self, seconds: Number) -> None:
        """Wait at most `seconds` for requests in flight, then cancel them; batches are not waited for."""
        self.provider.drop()
        if tasks := [task for task, _ in self._pending.values()]:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Cancel requests in flight and close the connections."""
        await self.drain(0)
        await self.provider.close()

    async def _persist(self, key: str, request: Request, call: Call) -> Answer:
        """`request` sent until it is answered or given up."""
        failure: Transient
        try:
            answer = await self._from_batch(request, call, key)
            if answer is None:
                answer = await self._retries(CHECK_ATTEMPTS if call.check else None)(self._attempt, request, call, key)
        except Transient as error:
            failure = error
        except Unanswered:
            self._given_up_in_a_row = 0
            self._ledger.add(failed=1)
            raise
        except FadeLensError as error:
            self.stop(error)
            raise
        except Exception as error:  # such as transcripts that cannot be written: nothing more may be paid for
            self.stop(JudgeError(f"the judge's work was stopped by {type(error).__name__}: {error}"))
            raise
        else:
            self._given_up_in_a_row = 0
            return answer
        self._given_up_in_a_row += 1
        self._ledger.add(failed=1)
        logger.warning("judge: a request was given up: %s", failure)
        if call.check or self._given_up_in_a_row >= SERVER_GONE or not (failure.connected or self._ever_answered):
            gone = self.provider.gone(failure)
            self.stop(gone)
            raise gone
        raise Unanswered(f"failed: {failure}")

    async def _from_batch(self, request: Request, call: Call, key: str) -> Answer | None:
        """The answer from the server's Batch API, committed; None where the request is to be sent by itself."""
        # What is asked again is little, and is not made to wait a day.
        if not self.provider.batches or request.attempt or call.check:
            return None
        await self.provider.connected()
        call.go_on()
        with self._reserved(request, batched=True):
            answer = await self.provider.ask_batch(request, key, call.transcripts)
            return None if answer is None else self._commit(request, call, key, answer)

    async def _attempt(self, request: Request, call: Call, key: str) -> Answer:
        """One request sent once, and its answer committed."""
        await self.provider.connected()
        async with self._slots.one(call.order):
            await self._turn(request)
            call.go_on()
            with self._reserved(request):
                try:
                    answer = await self.provider.ask(request)
                except Transient as error:
                    if error.retry_after is not None:
                        self._pause(error.retry_after, str(error))
                    raise
                answer = self._commit(request, call, key, answer)
        self._tokens.correct(answer.prompt_tokens + answer.completion_tokens - request.prompt_tokens - request.expects)
        return answer

    @contextmanager
    def _reserved(self, request: Request, *, batched: bool = False) -> Generator[None]:
        """Room in the budget for one call while it is in flight. Raises `BudgetReached` where there is none."""
        hidden = EXPECTED_THOUGHTS if self.provider.reasoning else 0
        reckoned = self._ledger.cost(request.prompt_tokens, request.expects + hidden, batched=batched)
        self._budget.reserve(reckoned)
        try:
            yield
        finally:
            self._budget.release(reckoned)

    def _commit(self, request: Request, call: Call, key: str, answer: Answer) -> Answer:
        """Counts an answer and keeps it, before anything makes use of it. Where another process has kept one meanwhile, that one counts."""
        self._ledger.spend(answer.prompt_tokens, answer.completion_tokens, batched=answer.batched)
        self._ever_answered = True
        if (kept := call.transcripts.get(key)) is not None:
            return Answer.from_record(kept)
        call.transcripts.put(key, self._asked(request), {**asdict(answer), "time": round(time(), 3)})
        return answer

    def _asked(self, request: Request) -> dict[str, Any]:
        """A request as transcripts keep it."""
        return {**request.record, "model": self.provider.model, "endpoint": self.provider.endpoint.label}

    async def _turn(self, request: Request) -> None:
        """Waits for the pace that was set and for any pause that the server asked for."""
        await self._requests.wait(1)
        await self._tokens.wait(request.prompt_tokens + request.expects)
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:
            await asyncio.sleep(left)

    def _pause(self, seconds: Number, why: str) -> None:
        """Send nothing for some seconds: a limit that one request met holds for all of them. A long wait is logged once."""
        until = asyncio.get_running_loop().time() + seconds
        level = logging.WARNING if seconds >= SHOWN_WAIT and until > self._paused_until + 1 else logging.INFO
        logger.log(level, "judge %r asks to wait %.3g s (%s)", self.provider.model, seconds, why)
        self._paused_until = max(self._paused_until, until)
