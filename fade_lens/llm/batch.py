"""OpenAI's Batch API: requests gathered into a file, answered within a day at half the price, and collected, also by a later run.

What a batch holds is written down before the server is told to begin: the file's id beside every request's key. A run that is
killed therefore finds its batch again, by its own id or as the one that was made from the file, and pays for nothing twice.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fade_lens._util.errors import Argument, JudgeError
from fade_lens.llm.chat import Provider, Transient, Unanswered
from fade_lens.llm.endpoint import redact
from fade_lens.llm.queue import Retries
from fade_lens.llm.transcripts import Transcripts, key_of
from fade_lens.llm.wire import Refused, Rejected, translated

T = TypeVar("T")
logger = logging.getLogger(__name__)

GATHER_SECONDS = 3.0
"""A batch is sent off once no request has joined it for so long."""
POLL_SECONDS = 20.0
TRANSFER_SECONDS = 600.0
MOST_REQUESTS = 50_000
MOST_BYTES = 150 * 2**20
"""The servers' limits are 50,000 lines and 200 MB a file."""
LOOKED_BACK = 500
"""The most recent batches of an account among which one of ours is looked for."""
ENDED = ("completed", "expired", "cancelled", "failed")
KIND = "batch"
"""Of the records, among the transcripts, that say where a request went."""


@dataclass
class Gathering:
    """Requests that will make one file: lines by key."""

    transcripts: Transcripts
    lines: dict[str, str] = field(default_factory=dict[str, str])
    size: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    sent: "asyncio.Task[Ended] | None" = None

    def add(self, key: str, line: str) -> None:
        """One more request."""
        self.lines[key] = line
        self.size += len(line) + 1
        self.grown.set()

    @property
    def full(self) -> bool:
        """Whether no further request may join."""
        return len(self.lines) >= MOST_REQUESTS or self.size >= MOST_BYTES

    async def settled(self) -> None:
        """Waits until it is full or has not grown for a while."""
        while not self.full:
            self.grown.clear()
            try:
                await asyncio.wait_for(self.grown.wait(), GATHER_SECONDS)
            except TimeoutError:
                return


@dataclass(frozen=True)
class Ended:
    """A batch that has ended: a chat completion for every request that was answered, by its key."""

    status: str
    completions: dict[str, dict[str, Any]]
    reason: str = ""


class Batches:
    """The batches of one judge; lives in its event loop."""

    def __init__(self, judge: Provider, retries: Retries) -> None:
        self._judge, self._retries = judge, retries
        self._gathering: dict[int, Gathering] = {}
        self._collecting: dict[str, asyncio.Task[Ended]] = {}

    async def ask(
        self, client: Any, key: str, body: Mapping[str, Any], transcripts: Transcripts
    ) -> dict[str, Any] | None:
        """The chat completion for one request, from a batch sent before or from a new one.

        Args:
            client: the server's.
            key: the request's, by which a later run finds it in the batch.
            body: of the request.
            transcripts: where it is noted which batch the request went into.

        Returns:
            The completion; None where the batch gave none for this request.

        Raises:
            JudgeError: the server has no Batch API, or refuses the batch as a whole.
        """
        client = client.with_options(base_url=self._base_url, timeout=TRANSFER_SECONDS)
        if (sent := transcripts.get(place_of(key))) is not None:
            before = await self._collected_before(client, str(sent["file"]), transcripts)
            if key in before.completions or before.status == "completed":
                return before.completions.get(key)
        gathering = self._gathering.get(id(transcripts))
        if gathering is None or gathering.sent is None or gathering.full:
            gathering = self._gathering[id(transcripts)] = Gathering(transcripts)
            gathering.sent = asyncio.create_task(self._send(client, gathering))
        line = {"custom_id": key, "method": "POST", "url": self._path, "body": dict(body)}
        gathering.add(key, json.dumps(line))
        return (await asyncio.shield(gathering.sent)).completions.get(key)

    def drop(self) -> None:
        """Stop waiting for batches. The server goes on with what was sent, and a later run collects it."""
        for task in [*(gathering.sent for gathering in self._gathering.values()), *self._collecting.values()]:
            if task is not None:
                task.cancel()
        self._gathering.clear()
        self._collecting.clear()

    @property
    def _azure(self) -> bool:
        return "/deployments/" in self._judge.endpoint.base_url

    @property
    def _path(self) -> str:
        return "/chat/completions" if self._azure else "/v1/chat/completions"

    @property
    def _base_url(self) -> str:
        """Where files and batches are: on Azure beside the deployments."""
        return self._judge.endpoint.base_url.split("/deployments/")[0]

    async def _send(self, client: Any, gathering: Gathering) -> Ended:
        """Upload the gathered requests as a file, note it beside every request, make it a batch, and wait for its end."""
        await gathering.settled()
        if self._gathering.get(id(gathering.transcripts)) is gathering:
            del self._gathering[id(gathering.transcripts)]
        content = ("\n".join(gathering.lines.values()) + "\n").encode()
        try:
            file = await self._call(lambda: client.files.create(file=("requests.jsonl", content), purpose="batch"))
        except JudgeError as error:
            if any(f"HTTP {status}" in str(error) for status in (404, 405, 501)):
                why = f"{self._judge.named} has no Batch API ({error}): leave "
                raise JudgeError(why, Argument("batch"), " out") from None
            raise
        for key in gathering.lines:
            gathering.transcripts.put(place_of(key), {"kind": KIND, "of": key}, {"file": file.id})
        logger.info("judge: %d requests go into a batch", len(gathering.lines))
        ended = await self._collected(client, file.id, gathering.transcripts)
        if ended.status == "failed":
            raise JudgeError(
                f"{self._judge.named} refused a batch of {len(gathering.lines)} requests: {ended.reason}; "
                "everything answered so far is kept"
            )
        return ended

    async def _collected_before(self, client: Any, file_id: str, transcripts: Transcripts) -> Ended:
        """How a batch of an earlier run ended; without an answer where the server no longer knows it."""
        try:
            return await self._collected(client, file_id, transcripts)
        except JudgeError as error:
            logger.warning("judge: an earlier batch cannot be collected and is sent again: %s", error)
            return Ended("failed", {})

    async def _collected(self, client: Any, file_id: str, transcripts: Transcripts) -> Ended:
        """The end of the batch made from a file; all who ask for it wait for the same."""
        task = self._collecting.get(file_id)
        if task is None:
            task = self._collecting[file_id] = asyncio.create_task(self._collect(client, file_id, transcripts))
        return await asyncio.shield(task)

    async def _collect(self, client: Any, file_id: str, transcripts: Transcripts) -> Ended:
        known = transcripts.get(place_of(file_id))
        if known is None:
            batch = await self._call(lambda: self._found_or_made(client, file_id))
            transcripts.put(place_of(file_id), {"kind": KIND, "of": file_id}, {"batch": batch.id})
        else:
            batch = await self._call(lambda: client.batches.retrieve(str(known["batch"])))
        batch_id = str(batch.id)
        while batch.status not in ENDED:
            await asyncio.sleep(POLL_SECONDS)
            batch = await self._call(lambda: client.batches.retrieve(batch_id))
        completions: dict[str, dict[str, Any]] = {}
        if batch.output_file_id:
            completions = read_lines(await self._call(lambda: _text(client, str(batch.output_file_id))))
        problems = "; ".join(str(error.message) for error in (batch.errors.data or [] if batch.errors else []))
        reason = redact(problems, self._judge.endpoint.key)[:300] or f"it is {batch.status}"
        logger.info("judge: batch %s is %s with %d answers", batch.id, batch.status, len(completions))
        return Ended(batch.status, completions, reason)

    async def _found_or_made(self, client: Any, file_id: str) -> Any:
        """The batch made from a file: by a run that was killed before it could note it, or now."""
        looked = 0
        async for batch in client.batches.list(limit=100):
            looked += 1
            if batch.input_file_id == file_id:
                return batch
            if looked >= LOOKED_BACK:
                break
        return await client.batches.create(input_file_id=file_id, endpoint=self._path, completion_window="24h")

    async def _call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """One request about files or batches, tried again where that may help. Raises `JudgeError`."""
        try:
            return await self._retries()(translated, ask, self._judge)
        except (Transient, Unanswered, Refused, Rejected) as error:
            why = f"{self._judge.named} does not do batches: {error}; what was sent is collected by a later run"
        raise JudgeError(why)


def place_of(name: str) -> str:
    """The key of the note that says which file a request (by its key), or which batch a file (by its id), became part of."""
    return key_of(batch=name)


def read_lines(text: str) -> dict[str, dict[str, Any]]:
    """The chat completions of an output file by custom id; lines that failed or cannot be read are left out."""
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
            response = record["response"]
            if response["status_code"] == 200 and isinstance(response["body"], dict):
                found[str(record["custom_id"])] = response["body"]
        except (ValueError, TypeError, LookupError):
            continue
    return found


async def _text(client: Any, file_id: str) -> str:
    return str((await client.files.content(file_id)).text)
