"""Judge answers kept by a key of everything that determines them, so that nothing is asked twice."""

import hashlib
import json
from threading import Lock
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Transcripts(Protocol):
    """Where answers are kept: any object with these two methods, such as a `RunStore`.

    They are called from the judge's thread, so they must be thread-safe, and `put` must have written before it returns. `request` and `answer`
    are JSON-able; `request` names kind, concept, model, endpoint, messages and parameters, `answer` holds content, finish reason, token
    counts and log-probabilities. Neither ever holds a server's key.
    """

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under `key`, or None."""
        ...

    def put(self, key: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keeps `answer`."""
        ...


class MemoryTranscripts:
    """Answers kept for as long as the process lives."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._lock = Lock()

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under `key`, or None."""
        with self._lock:
            record = self._records.get(key)
        return None if record is None else record[1]

    def put(self, key: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keeps `answer`."""
        with self._lock:
            self._records[key] = (request, answer)

    def __len__(self) -> int:
        return len(self._records)

    def items(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """(key, request, answer) of all records, oldest first."""
        with self._lock:
            return [(key, request, answer) for key, (request, answer) in self._records.items()]


class Records(Transcripts, Protocol):
    """Transcripts that also give a request back."""

    def record(self, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The request and the answer kept under `key`, or None."""
        ...


class SharedTranscripts:
    """A run's own transcripts and others that several runs share: an answer in either is never asked for again.

    Args:
        own: the run's; what is found in the shared ones is copied here, so that the run is whole without them.
        shared: the shared ones.
    """

    def __init__(self, own: Transcripts, shared: Records) -> None:
        self.own, self.shared = own, shared

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under `key`, or None."""
        found = self.own.get(key)
        if found is None and (record := self.shared.record(key)) is not None:
            self.own.put(key, *record)
            found = record[1]
        return found

    def put(self, key: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keeps `answer` in both."""
        self.own.put(key, request, answer)
        self.shared.put(key, request, answer)


def key_of(**determinants: object) -> str:
    """A key that is equal exactly where all `determinants` (JSON-able) are."""
    canonical = json.dumps(determinants, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
