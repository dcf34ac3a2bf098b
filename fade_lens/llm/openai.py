"""A model behind an OpenAI-compatible server: each request made to suit the server, sent, and its answer read."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fade_lens._util.errors import JudgeError
from fade_lens.llm.batch import Batches
from fade_lens.llm.budget import Ledger, Number
from fade_lens.llm.capabilities import Capabilities
from fade_lens.llm.chat import Answer, Provider, Transient, Unanswered
from fade_lens.llm.endpoint import Endpoint
from fade_lens.llm.queue import Retries
from fade_lens.llm.request import Request
from fade_lens.llm.thoughts import without_thoughts
from fade_lens.llm.transcripts import Transcripts
from fade_lens.llm.wire import Refused, Rejected, open_client, post, read_completion, sentence

REJECTS_ALL = 40
"""Requests in a row about a text alone, rejected without a cause, after which the server counts as one that rejects all."""


class OpenAIClient(Provider):
    """One model at one OpenAI-compatible server.

    Args:
        model: its name.
        endpoint: the server.
        ledger: where answers that came to nothing are counted.
        retries: how failures of batches are tried again.
        timeout: seconds that one answer may take.
        start: starts a server at the first question, and gives its address and the model's name there; None where it runs already.
        batch: whether requests may go through the server's Batch API.
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        *,
        ledger: Ledger,
        retries: Retries,
        timeout: Number,
        start: Callable[[], tuple[str, str]] | None = None,
        batch: bool = False,
    ) -> None:
        super().__init__(model, endpoint, batches=batch)
        self.takes = Capabilities.of(model, hosted=endpoint.is_openai or endpoint.key_header != "Authorization")
        self._ledger, self._timeout, self._start = ledger, timeout, start
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._wire_model = model
        self._ever_answered = False
        self._longest_answered = 0.0
        self._rejected_alone = 0
        self._batches = Batches(self, retries) if batch else None

    @property
    def reasoning(self) -> bool:
        """Whether the model thinks before it answers."""
        return self.takes.reasoning

    def fits(self, request: Request) -> bool:
        """Whether there is room for the request and its answer, as far as is known."""
        return self.takes.fits(request)

    def gone(self, failure: Transient) -> JudgeError:
        """The error for a server that does not answer any more."""
        return JudgeError(sentence(str(failure), self, connected=failure.connected))

    async def ask(self, request: Request) -> Answer:
        """The answer, after leaving out what the server turns out not to take (remembered for later requests).

        Raises `Transient`, `Unanswered` or `JudgeError`.
        """
        await self.connected()
        while True:
            body = self.takes.body(request, self._wire_model)
            length = request.prompt_tokens + self.takes.limit(body)
            said = ""
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await post(self._client, body, request, self)
            except TimeoutError:
                failure: Exception = Transient(f"no answer within {self._timeout:g} s")
            except Transient as error:
                failure = error
            except Refused as error:
                failure = error
            except Unanswered as error:
                failure, said = error, error.said
            except Rejected as error:
                failure, said = self._rejected(error, body, request, length), error.said
            else:
                self._ever_answered, self._rejected_alone = True, 0
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
                if isinstance(failure, Refused):
                    return Answer("", finish_reason="content_filter", refusal=str(failure) or "content filter")
                raise failure

    async def ask_batch(self, request: Request, key: str, transcripts: Transcripts) -> Answer | None:
        """The answer from the server's Batch API; None where the request is to be sent by itself."""
        assert self._batches is not None
        body = self.takes.body(request, self._wire_model)
        completion = await self._batches.ask(self._client, key, body, transcripts)
        if completion is None:
            return None
        try:
            answer = read_completion(completion, request, key=self.endpoint.key)
        except (ValueError, TypeError, LookupError, AttributeError):  # no chat completion after all
            return None
        self._ever_answered = True
        return replace(answer, batched=True)

    def drop(self) -> None:
        """Stop waiting for batches."""
        if self._batches is not None:
            self._batches.drop()

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    async def connected(self) -> None:
        """Makes the client, at the first request; a local server is started then."""
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

    def _rejected(self, error: Rejected, body: dict[str, Any], request: Request, length: float) -> Exception:
        """The error for a rejected request, in case it cannot be sent in another form; such a form is remembered in `takes`."""
        if self.takes.body(request, self._wire_model) == body:  # else another request's rejection has told already
            self.takes.learn(error.said, body)
        if self.takes.body(request, self._wire_model) == body:
            self.takes.simplify(body)
        # Words that name no cause: where it is longer than all that was answered, that may be it.
        if length > self._longest_answered and (self._ever_answered or request.parts > 1):
            return Unanswered(f"rejected by the judge, maybe for its length: {error}", too_long=True, said=error.said)
        self._rejected_alone += request.parts == 1
        if self._ever_answered and self._rejected_alone < REJECTS_ALL:  # else, in a server that answers others, a text
            return Refused(str(error))
        return JudgeError(f"{self.named} rejects the request: {error}")

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
