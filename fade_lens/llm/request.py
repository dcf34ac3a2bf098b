"""What is asked of a language model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fade_lens._util.brief import Brief
from fade_lens.llm.budget import CHARS_PER_TOKEN

Message = dict[str, str]
"""`role` and `content`."""


def object_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object that has these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@dataclass(frozen=True)
class Structure:
    """The form of an answer.

    Attributes:
        name: of the form, as servers and transcripts have it.
        schema: a JSON schema.
    """

    name: str
    schema: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, **properties: Mapping[str, Any]) -> "Structure":
        """The form of an answer that is an object with these properties and no others.

        >>> Structure.of("answer", answer={"type": "string"}).schema["required"]
        ['answer']
        """
        return cls(name, object_of(**properties))

    def admits(self, value: object) -> bool:
        """Whether a parsed answer has the fields that the schema requires."""
        return isinstance(value, Mapping) and set(self.schema.get("required", ())) <= set(value)


@dataclass(frozen=True)
class Request(Brief):
    """One question to a model. Messages, parameters, structure, repeat and attempt determine the answer, under which it is stored.

    Example:
        >>> chat = [{"role": "user", "content": "What do 'cat' and 'dog' share?"}]
        >>> Request("explain", "latent 9", chat, {"temperature": 0, "max_tokens": 50}, expects=10).need
        17.5
    """

    kind: str
    """What is done, such as "rate", "rate one" or "write"."""
    concept: str
    """What is asked about."""
    messages: list[Message]
    parameters: dict[str, Any]
    """As OpenAI's chat API names them: temperature, max_tokens, seed, logprobs, top_logprobs."""
    expects: int
    """Tokens that the answer is expected to have, for limits and estimates."""
    structure: Structure | None = None
    """The form that the answer is to have; None is plain text."""
    repeat: int = 0
    """Numbers repetitions: the same question with another number is asked anew."""
    attempt: int = 0
    """Numbers attempts: counted up where an answer could not be read."""
    note: dict[str, Any] = field(default_factory=dict)
    """What is stored with the question and does not determine the answer."""
    parts: int = 1
    """Texts that it asks for or about: several can also be asked for in smaller requests."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The texts it is about by their ids, for models that answer by a rule; `messages` hold them too."""

    def again(self, attempt: int) -> "Request":
        """The question for another attempt: warmer where words are read, as at temperature 0 a server says what it said before.

        Where log-probabilities are read the temperature stays, which may change these.
        """
        own, changed = self.parameters, dict[str, Any]()
        if attempt and "temperature" in own and not own.get("logprobs"):
            changed["temperature"] = max(own["temperature"], min(0.4 * attempt, 0.8))
        if attempt and "seed" in own:
            changed["seed"] = own["seed"] + attempt
        return replace(self, attempt=attempt, parameters={**own, **changed})

    @property
    def prompt_tokens(self) -> float:
        """An estimate, from the number of characters."""
        return sum(len(message["content"]) for message in self.messages) / CHARS_PER_TOKEN

    @property
    def need(self) -> float:
        """The tokens that prompt and answer take at least, by the same estimate."""
        return self.prompt_tokens + self.expects

    @property
    def determinants(self) -> dict[str, Any]:
        """What determines the answer of a given model; JSON-able."""
        form = None if self.structure is None else {"name": self.structure.name, "schema": self.structure.schema}
        return {
            "messages": self.messages,
            "parameters": self.parameters,
            "structure": form,
            "repeat": self.repeat,
            "attempt": self.attempt,
        }

    @property
    def record(self) -> dict[str, Any]:
        """What is stored of it; JSON-able."""
        name = None if self.structure is None else self.structure.name
        return {"kind": self.kind, "concept": self.concept, **self.determinants, "structure": name, **self.note}
