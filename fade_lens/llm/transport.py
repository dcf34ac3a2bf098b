"""One request to a judge: looked up, paced, sent, retried, committed. All network I/O with language models goes through here."""

import asyncio
import logging
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from time import time
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fade_lens._util.errors import FadeLensError, JudgeError
from fade_lens.judge.parsing import without_thoughts
from fade_lens.llm.batch import Batches
from fade_lens.llm.budget import Budget, Ledger, Number
from fade_lens.llm.capabilities import Capabilities
from fade_lens.llm.endpoint import Endpoint
from fade_lens.llm.request import Call, Pace, Request, Slots
from fade_lens.llm.transcripts import key_of
from fade_lens.llm.wire import (
    Answer,
    Refused,
    Rejected,
    Transient,
    Unanswered,
    open_client,
    post,
    sentence,
)

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF = 30.0
EXPECTED_THOUGHTS = 500
"""What a reasoning model's thoughts are reckoned with, in tokens."""
CHECK_ATTEMPTS = 3
"""Times that a question of the check is sent at most."""
SHOWN_WAIT = 5.0
"""Seconds from which it is told that the server asks to wait."""
SERVER_GONE = 5
"""Requests in a row given up before the server counts as gone."""


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
        timeout: Number,
        max_retries: int,
        requests_per_minute: Number | None = None,
        tokens_per_minute: Number | None = None,
        start: Callable[[], tuple[str, str]] | None = None,
        batch: bool = False,
    ) -> None:
        self.model, self.endpoint = model, endpoint
        self.takes = Capabilities.of(model, hosted=endpoint.is_openai or endpoint.key_header != "Authorization")
        self.calls: set[Call] = set()
        self._ledger, self._budget = ledger, budget
        self._timeout, self._max_retries = timeout, max_retries
        self._requests, self._tokens = Pace(requests_per_minute), Pace(tokens_per_minute)
        self._slots = Slots(concurrency)
        self._start = start
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._wire_model = model
        self._paused_until = 0.0
        self._given_up_in_a_row = 0
        self._ever_answered = False
        self._longest_answered = 0.0
        self._pending: dict[tuple[int, str], asyncio.Task[Answer]] = {}
        self._batches = Batches(self) if batch else None

    @property
    def reasoning(self) -> bool:
        """Whether the model thinks before it answers."""
        return self.takes.reasoning

    async def ask(self, request: Request, call: Call) -> Answer:
        """The answer to `request`, from `call`'s transcripts or from the server; the same request is in flight only once.

        Raises `Unanswered` where only this request is lost, `JudgeError` where the judge cannot be asked at all.
        """
        call.go_on()
        key = self.key(request)
        record = call.transcripts.get(key)
        if record is not None:
            self._ledger.add(cached=1)
            return self._used(request, call, key, Answer.from_record(record))
        if request.parts > 1 and not self.takes.fits(request):  # others like it were refused: no need to ask
            raise Unanswered("too long for the judge, as others like it", too_long=True)
        place = (id(call.transcripts), key)
        task = self._pending.get(place)
        if task is None:
            task = self._pending[place] = asyncio.create_task(self._persist(key, request, call))
            task.add_done_callback(lambda done: (self._pending.pop(place, None), done.cancelled() or done.exception()))
        # A caller that gives up does not throw away an answer on its way.
        answer = await asyncio.shield(task)
        call.answered.add(key)
        return self._used(request, call, key, answer)

    def _used(self, request: Request, call: Call, key: str, answer: Answer) -> Answer:
        if not call.check:
            tokens = answer.prompt_tokens, answer.completion_tokens
            self._ledger.use(request.concept, key, *tokens, batched=answer.batched)
        return answer

    def key(self, request: Request) -> str:
        """The transcript key: a hash of everything that determines the answer."""
        return key_of(
            model=self.endpoint.known(self.model),
            endpoint=self.endpoint.identity,
            messages=request.messages,
            parameters=request.parameters,
            structure=request.structure,
            repeat=request.repeat,
            attempt=request.attempt,
        )

    def stop(self, error: FadeLensError) -> None:
        """Lets no call that exists send anything more; what is in flight comes home."""
        for call in list(self.calls):
            call.stop(error)

    async def drain(self, seconds: Number) -> None:
        """Waits for what is in flight, at most `seconds`, then lets go of it; batches are not waited for."""
        if self._batches is not None:
            self._batches.drop()
        tasks = list(self._pending.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def close(self) -> None:
        """Lets go of what is in flight and closes the connections."""
        await self.drain(0)
        if self._client is not None:
            await self._client.close()

    async def _persist(self, key: str, request: Request, call: Call) -> Answer:
        """`request` sent until it is answered or given up."""
        failure: Transient
        try:
            answer = await self._from_batch(request, call, key)
            if answer is None:
                answer = await self.retrying(CHECK_ATTEMPTS if call.check else None)(self._attempt, request, call, key)
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
            gone = JudgeError(
                sentence(str(failure), model=self.model, endpoint=self.endpoint, connected=failure.connected)
            )
            self.stop(gone)
            raise gone
        raise Unanswered(f"failed: {failure}")

    def retrying(self, attempts: int | None = None) -> AsyncRetrying:
        """Tries again after transient failures, with backoff or as the server asks; at most `attempts` times in all."""
        attempts = min(attempts or self._max_retries + 1, self._max_retries + 1)
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

    async def _from_batch(self, request: Request, call: Call, key: str) -> Answer | None:
        """The answer from the server's Batch API, committed; None where the request is to be sent by itself."""
        # What is asked again is little, and is not made to wait a day.
        if self._batches is None or request.attempt or call.check:
            return None
        client = await self.connected()
        call.go_on()
        with self._reserved(request, batched=True):
            completion = await self._batches.ask(
                client, key, self.takes.body(request, self._wire_model), call.transcripts
            )
            if completion is None:
                return None
            try:
                answer = Answer.from_completion(completion, prompt_tokens=request.prompt_tokens, key=self.endpoint.key)
            except (ValueError, TypeError, LookupError, AttributeError):  # no chat completion after all
                return None
            return self._commit(request, call, key, replace(answer, batched=True))

    async def _attempt(self, request: Request, call: Call, key: str) -> Answer:
        """One request sent once (again where the server rejects what can be left out), and its answer committed."""
        client = await self.connected()
        async with self._slots.one(call.order):
            await self._turn(request)
            call.go_on()
            with self._reserved(request):
                answer = self._commit(request, call, key, await self._adapting(client, request))
        self._tokens.correct(answer.prompt_tokens + answer.completion_tokens - request.prompt_tokens - request.expects)
        return answer

    @contextmanager
    def _reserved(self, request: Request, *, batched: bool = False) -> Generator[None]:
        """Room in the budget for one call while it is in flight. Raises `BudgetReached` where there is none."""
        hidden = EXPECTED_THOUGHTS if self.reasoning else 0
        reckoned = self._ledger.cost(request.prompt_tokens, request.expects + hidden, batched=batched)
        self._budget.reserve(reckoned)
        try:
            yield
        finally:
            self._budget.release(reckoned)

    def _commit(self, request: Request, call: Call, key: str, answer: Answer) -> Answer:
        """Counts an answer and keeps it, before anything makes use of it."""
        self._ledger.spend(answer.prompt_tokens, answer.completion_tokens, batched=answer.batched)
        call.transcripts.put(key, self._record(request), {**asdict(answer), "time": round(time(), 3)})
        self._ever_answered = True
        return answer

    async def _turn(self, request: Request) -> None:
        """Waits for the pace that was set and for any pause that the server asked for."""
        await self._requests.wait(1)
        await self._tokens.wait(request.prompt_tokens + request.expects)
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:
            await asyncio.sleep(left)

    async def _adapting(self, client: Any, request: Request) -> Answer:
        """The answer, after leaving out what the server turns out not to take (remembered for later requests)."""
        while True:
            body = self.takes.body(request, self._wire_model)
            length = request.prompt_tokens + self.takes.limit(body)
            said = ""
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await post(
                        client, body, model=self.model, prompt_tokens=request.prompt_tokens, endpoint=self.endpoint
                    )
            except TimeoutError:
                failure: Exception = Transient(f"no answer within {self._timeout:g} s")
            except Transient as error:
                failure = error
                if error.retry_after is not None:
                    self._pause(error.retry_after, str(error))
            except Refused as error:
                return Answer("", finish_reason="content_filter", refusal=str(error) or "content filter")
            except Unanswered as error:
                failure, said = error, error.said
            except Rejected as error:
                failure, said = self._rejected(error, body, request, length), error.said
            else:
                self._longest_answered = max(self._longest_answered, length)
                self.takes.answered(body)
                if not self._came_to_nothing(answer, body, request):
                    return answer
                self._ledger.spend(answer.prompt_tokens, answer.completion_tokens)
                continue
            too_long = isinstance(failure, Unanswered) and failure.too_long
            if too_long and self.takes.body(request, self._wire_model) == body:
                self.takes.shorten(said, body, request)
            if not said or self.takes.body(request, self._wire_model) == body:
                if too_long and request.parts > 1:
                    self.takes.refused = min(self.takes.refused, request.need)
                raise failure

    def _rejected(self, error: Rejected, body: dict[str, Any], request: Request, length: float) -> Exception:
        """What a rejected request is given up with if nothing can be done about it; what can be done is remembered."""
        if self.takes.body(request, self._wire_model) == body:  # else another request's rejection has told already
            self.takes.learn(error.said, body)
        if self.takes.body(request, self._wire_model) == body:
            self.takes.simplify(body)
        # Words that name no cause: where it is longer than all that was answered, that may be it.
        if length > self._longest_answered and (self._ever_answered or request.parts > 1):
            return Unanswered(f"rejected by the judge, maybe for its length: {error}", too_long=True, said=error.said)
        return JudgeError(f"judge {self.model!r} at {self.endpoint.label} rejects the request: {error}")

    def _came_to_nothing(self, answer: Answer, body: dict[str, Any], request: Request) -> bool:
        """Whether an answer that was cut holds nothing for a reason that can be left out. Raises `Unanswered` where it had no room."""
        if request.structure is None or answer.finish_reason != "length":
            return False
        blank = len(answer.content) - len("".join(answer.content.split()))
        if (
            "response_format" in body
            and not answer.thought_tokens
            and (blank > max(16, len(answer.content) / 2) or (not answer.content and answer.completion_tokens > 16))
        ):
            self.takes.drop_grammar()
            return True
        if not answer.content or (answer.content.strip() and not without_thoughts(answer.content).strip()):
            if not answer.content and 0 < answer.completion_tokens <= 1:
                self._ledger.spend(answer.prompt_tokens, answer.completion_tokens)
                raise Unanswered(f"too long for the judge: {answer.whereabouts}", too_long=True)
            self.takes.reasoning = True
        return False

    def _pause(self, seconds: Number, why: str) -> None:
        """Sends nothing for so long: a limit that one request met holds for all. A long wait is told, once for all requests that met it."""
        until = asyncio.get_running_loop().time() + seconds
        level = logging.WARNING if seconds >= SHOWN_WAIT and until > self._paused_until + 1 else logging.INFO
        logger.log(level, "judge %r asks to wait %.3g s (%s)", self.model, seconds, why)
        self._paused_until = max(self._paused_until, until)

    def _record(self, request: Request) -> dict[str, Any]:
        record = {name: value for name, value in asdict(request).items() if name not in ("note", "expects", "parts")}
        return {**record, **request.note, "model": self.model, "endpoint": self.endpoint.label}

    async def connected(self) -> Any:
        """The client, made at the first request; a local server is started then."""
        async with self._connecting:
            if self._client is None:
                if self.endpoint.needs_key and self.endpoint.key is None:
                    raise JudgeError(
                        f"no key for the judge {self.model!r}: set {self.endpoint.needs_key} in the environment or in "
                        ".env, or pass api_key"
                    )
                base_url = self.endpoint.base_url
                if self._start is not None:
                    base_url, self._wire_model = await asyncio.to_thread(self._start)
                self._client = open_client(base_url, self.endpoint, self._timeout)
        return self._client
