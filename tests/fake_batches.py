"""The files and batches of a fake judge's server."""

import json
from collections import Counter
from typing import Any


class FakeBatches:
    """Files and batches of a `FakeJudge`; a batch ends at the `polls`-th look, its lines misbehaving by the judge's plan.

    `end` is the status in which batches end, `lose` a share of lines that it leaves unanswered, `hang_up` how many creations are
    done but not confirmed.
    """

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.files: dict[str, str] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.looks: Counter[str] = Counter()
        self.polls, self.end, self.lose, self.hang_up = 2, "completed", 0.0, 0

    @property
    def lines(self) -> int:
        """Lines of all batches, each of which would be paid for."""
        return sum(len(self.files[batch["input_file_id"]].splitlines()) for batch in self.made.values())

    def upload(self, content: str) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": 0,
            "filename": "f",
            "purpose": "batch",
        }

    def create(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """None: made, but the connection breaks."""
        assert body["endpoint"].endswith("/chat/completions") and body["input_file_id"] in self.files
        name = f"batch_{len(self.made)}"
        self.made[name] = {
            "id": name, "object": "batch", "endpoint": body["endpoint"], "completion_window": "24h", "created_at": 0,
            "input_file_id": body["input_file_id"], "status": "in_progress", "output_file_id": None, "error_file_id": None,
        }  # fmt: skip
        if self.hang_up:
            self.hang_up -= 1
            return None
        return self.made[name]

    def look(self, name: str) -> dict[str, Any]:
        batch = self.made[name]
        self.looks[name] += 1
        if batch["status"] == "in_progress" and self.looks[name] >= self.polls:
            batch["status"] = self.end
            if self.end == "failed":
                batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "Enqueued token limit reached"}]}
            else:
                done = [self._done(json.loads(line)) for line in self.files[batch["input_file_id"]].splitlines()]
                for kind in ("output", "error"):
                    batch[f"{kind}_file_id"] = f"{name}-{kind}"
                    some = [line for line in done if (line["error"] is None) == (kind == "output")]
                    self.files[f"{name}-{kind}"] = "\n".join(map(json.dumps, reversed(some)))
        return batch

    def _done(self, line: dict[str, Any]) -> dict[str, Any]:
        assert line["method"] == "POST" and len(line["custom_id"]) <= 64
        if self.fake.chance().random() < self.lose:
            error = {"code": "batch_expired", "message": "This request could not be executed in time."}
            return {"custom_id": line["custom_id"], "response": None, "error": error}
        status, body = self.fake.outcome(line["body"], self.fake.pick(line["body"]))
        response = {"status_code": status, "request_id": "r", "body": body}
        return {"custom_id": line["custom_id"], "response": response, "error": None if status == 200 else {"code": "x"}}
