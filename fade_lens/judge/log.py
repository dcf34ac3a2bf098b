"""Transcripts read again: what the judge was asked, what it answered, and what came of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fade_lens.judge import prompts
from fade_lens.judge.parsing import parse_ratings, parse_texts
from fade_lens.llm.chat import Answer
from fade_lens.llm.thoughts import without_thoughts

KINDS = ("rate", "rate one", "write", "batch")
"""Those of the judge itself; explainers and scorers name theirs."""
CUT = ("length", "content_filter")


@dataclass(frozen=True)
class Entry:
    """One question that was answered.

    Attributes:
        request: what was asked, as transcripts keep it.
        answer: what was answered, as transcripts keep it.
    """

    request: Mapping[str, Any]
    answer: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """ "rate" (several texts), "rate one", "write", "batch" (a note on where a request went), or that of a free question."""
        return str(self.request.get("kind", ""))

    @property
    def concept(self) -> str:
        """The description that the question is about."""
        return str(self.request.get("concept", ""))

    @property
    def content(self) -> str:
        """The answer as it came."""
        return str(self.answer.get("content", ""))

    @property
    def texts(self) -> list[tuple[str, str]]:
        """What came of it: (rating, text) of every text that was asked about, or ("", text) of every text that was written.

        A text of a "rate one" question has its score in place of a rating; "–" stands where there is none.
        """
        messages = [dict(message) for message in self.request.get("messages", [])]
        if (asked := prompts.read_rating(messages)) is not None:
            found = {} if self.answer.get("refusal") else parse_ratings(self.content, asked[1])
            return [(str(found.get(name, "–")), text) for name, text in asked[1].items()]
        if self.kind == "rate one" and messages:
            from fade_lens.judge import single

            score = single.read(Answer.from_record(self.answer).top_logprobs)
            return [("–" if score is None else f"{score:+.1f}", messages[-1]["content"])]
        return [("", text) for text in parse_texts(self.content).texts] if self.kind == "write" else []

    @property
    def failure(self) -> str:
        """Why the answer gave less than was asked for; empty where it gave all."""
        if self.kind == "batch":
            return ""
        if refusal := self.answer.get("refusal"):
            return f"refused: {refusal}"
        if self.kind not in KINDS:
            answer = Answer.from_record(self.answer)
            whole = without_thoughts(self.content).strip() and answer.finish_reason not in CUT
            return "" if whole else f"the answer {answer.whereabouts}"
        found = self.texts
        missing = sum("–" in rating for rating, _ in found)
        cut = " (the answer was cut)" if self.answer.get("finish_reason") in CUT else ""
        if self.kind == "write":
            whole = parse_texts(self.content).complete
            return "" if found and whole else f"{'not all texts' if found else 'no texts'} could be read{cut}"
        return f"{missing} of {len(found)} texts got no rating{cut}" if missing else ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record: what was kept, and what came of it."""
        return {**self.request, "answer": dict(self.answer), "texts": self.texts, "failure": self.failure}
