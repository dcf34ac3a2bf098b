"""A hundred thousand requests through one judge and one run store: what grows, and whether every count is exact.

    python -m tests.benchmarks.soak                # 100,000 requests; fewer: python -m tests.benchmarks.soak 10000

A lean server in a process of its own rates by a rule. Every hundredth request meets an error that is sent again, every other hundredth an answer that
nothing can be read in. The table shows, after each tenth, what this process holds; the line below it whether what was asked, answered, kept and
billed is the same number.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fade_lens.judge import Judge
from fade_lens.judge.prompts import read_rating
from fade_lens.runs.store import RunStore

TENTHS, WAITING, QUESTIONS = 10, 64, 50
"""Rows of the table; questions in flight or waited for; questions about one concept."""
TEXTS = 3
"""Of one question."""
ERROR, GARBAGE = 100, 50
"""The request of every hundred that meets an error, and the one whose answer cannot be read."""


class Server:
    """Counts what it was asked and answers at once."""

    def __init__(self) -> None:
        self.counts = {"asked": 0, "errors": 0, "answered": 0, "garbage": 0, "prompt": 0, "completion": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.I)
                body = await reader.readexactly(int(length[1])) if length else b""
                status, said = (200, self.counts) if head.startswith(b"GET") else self.answer(json.loads(body))
                raw = json.dumps(said).encode()
                start = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
                writer.write(start.encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of the next answer."""
        counts = self.counts
        counts["asked"] += 1
        if counts["asked"] % ERROR == 0:
            counts["errors"] += 1
            return 500, {"error": {"message": "try again"}}
        found = read_rating(body["messages"])
        assert found is not None
        content = json.dumps({"ratings": [{"id": name, "rating": len(text) % 3} for name, text in found[1].items()]})
        if counts["asked"] % ERROR == GARBAGE:
            counts["garbage"] += 1
            content = "Let me think."
        usage = {"prompt_tokens": 300 + counts["asked"] % 7, "completion_tokens": 20 + counts["asked"] % 5}
        for name, n in {"answered": 1, "prompt": usage["prompt_tokens"], "completion": usage["completion_tokens"]}.items():  # fmt: skip
            counts[name] += n
        message = {"role": "assistant", "content": content}
        about = {"id": "0", "object": "chat.completion", "created": 0, "model": "soak"}
        return 200, {
            **about,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }


async def run_server() -> None:
    """Serve on a free port, which is printed, until the process is ended."""
    server = await asyncio.start_server(Server().serve, "127.0.0.1", 0, limit=2**22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def served() -> Generator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.soak", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def held() -> tuple[float, int, int]:
    """Megabytes of this process in memory, its open descriptors and its threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, descriptors, threading.active_count()


def soak(requests: int) -> bool:
    """Print the table; returns whether every count is exact."""
    print("| questions | MB in memory | descriptors | threads | answers a second |\n|--:|--:|--:|--:|--:|", flush=True)
    unrated = 0
    with served() as url, TemporaryDirectory() as folder, RunStore(folder, {}) as store:
        with Judge("soak", base_url=url, texts_per_request=TEXTS, price=(1.0, 1.0)) as judge, judge.session(store):
            waiting: deque[Any] = deque()
            for tenth in range(TENTHS):
                began, before = time.monotonic(), judge.usage.calls
                for at in range(tenth * requests // TENTHS, (tenth + 1) * requests // TENTHS):
                    texts = [f"Text {at}, line {line}: {'x' * (at % 200)}." for line in range(TEXTS)]
                    waiting.append(judge.submit_rate(f"the number {at // QUESTIONS}", texts))
                    if len(waiting) > WAITING:
                        unrated += sum(one.value is None for one in waiting.popleft().result())
                while waiting:
                    unrated += sum(one.value is None for one in waiting.popleft().result())
                rate = (judge.usage.calls - before) / (time.monotonic() - began)
                memory, descriptors, threads = held()
                print(f"| {at + 1:,} | {memory:.0f} | {descriptors} | {threads} | {rate:.0f} |", flush=True)
            used, by_concept = judge.usage, sum(judge.usage_of(f"the number {n}").calls for n in range(requests // QUESTIONS + 1))  # fmt: skip
        kept = sum(1 for _ in store.transcripts())
        with urllib.request.urlopen(url) as answer:
            counts = json.load(answer)
    memory, descriptors, threads = held()
    print(f"after `close`: {memory:.0f} MB, {descriptors} descriptors, {threads} threads")
    print(
        f"the server {counts}\nthe judge {used}; by concept {by_concept:,}; kept {kept:,}; texts without a rating {unrated}"
    )
    tokens = (counts["prompt"], counts["completion"]) == (used.prompt_tokens, used.completion_tokens)
    exact = counts["answered"] == used.calls == kept == by_concept and counts["errors"] == used.retries and tokens
    print("every count is exact" if exact and not unrated else "COUNTS DIFFER")
    return exact and not unrated


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", nargs="?", type=int, default=100_000)
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(run_server())
    else:
        sys.exit(not soak(given.requests))
