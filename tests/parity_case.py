"""The case on which the four metrics are compared with the reference's: our side of it, and how far two sides are from each other."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sae_lens import SAE

from fade_lens import Fade, Judge
from fade_lens.data.descriptions import Description
from fade_lens.judge import Prompts
from fade_lens.runs.results import Result
from fade_lens.subject.hooks import Model
from tests.fake_judge import FakeJudge

GOLDEN = Path(__file__).parent / "assets" / "parity_golden.json"
METRICS = ("clarity", "responsiveness", "purity", "faithfulness")

Record = dict[str, Any]
"""A description's latent, concept and four scores, and what they came from: `natural` (an activation a text), `written` (text →
activation), `ratings` (one a natural text), `continuations` (factor → one a natural text; none where the gate was not passed)."""


class SharedJudge(FakeJudge):
    """Understands the reference's questions too, and answers them as it answers ours."""

    def completion(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        asked = body["messages"][-1]["content"].removesuffix("\n")
        if asked.startswith("<description"):
            return super().completion(body, kind)
        if rating := re.match(r"Concept: (.*)\n(?=Sequence ID \d+: ')", asked):
            parts = re.split(r"(?:^|\n)Sequence ID (\d+): ", asked[rating.end() :])[1:]
            samples = {name: text[1:-1] for name, text in zip(parts[::2], parts[1::2], strict=True)}
            ours = Prompts().rating_messages(rating[1], samples, tag=100)
            return super().completion({**body, "messages": ours}, "mapping")
        ours = Prompts().writing_messages(asked, 100, variation=1, tag=100, rng=random.Random(0))
        completion = super().completion({**body, "messages": ours}, kind)
        message = completion["choices"][0]["message"]
        message["content"] = json.dumps(json.loads(message["content"])["texts"])
        return completion


@contextmanager
def judge(case: Record) -> Iterator[str]:
    """The address of the judge that both packages ask."""
    with SharedJudge(writer=lambda concept, variation: case["written"].get(concept, ["The sun."])) as server:
        yield server.base_url


def ours(case: Record, model: Model, sae: SAE[Any], base_url: str) -> list[Record]:
    """What fade_lens finds for each description."""
    n, n_written = len(case["texts"]), len(next(iter(case["written"].values())))
    fade = Fade(
        model,
        sae,
        corpus=case["texts"],
        judge=Judge("rule", base_url=base_url, api_key="none", texts_per_set=n_written),
        preset="paper",
        synthetic_texts=n_written,
        rated_texts=n,
        factors=tuple(case["factors"]),
        prompts=n,
        new_tokens=case["new_tokens"],
    )
    descriptions = [Description(d["latent"], d["concept"]) for d in case["descriptions"]]
    return [record(result, case["texts"]) for result in fade.evaluate(descriptions, progress=False)]


def record(result: Result, texts: list[str]) -> Record:
    """As the reference's are kept: continuations in the order of the texts, which are the prompts."""
    continuations: dict[str, list[str]] = {}
    for one in sorted(result.faithfulness_evidence.continuations, key=lambda one: texts.index(one.prompt)):
        continuations.setdefault(f"{one.factor:g}", []).append(one.text)
    return {
        "latent": result.description.index,
        "concept": result.description.text,
        **{name: result.metrics[name].value for name in METRICS},
        "natural": [text.activation for text in result.rated_evidence.texts],
        "written": {text.text: text.activation for text in result.clarity_evidence.texts},
        "ratings": [text.rating for text in result.rated_evidence.texts],
        "continuations": continuations,
    }


@dataclass(frozen=True)
class Agreement:
    """How far one description's records are from each other."""

    scores: dict[str, float]
    """Difference of each metric; inf where only one of the two is defined."""
    activations: float
    """Largest difference of any text's activation, as a share of the latent's largest."""
    identical: int
    """Continuations that are the same, of `continuations`."""
    continuations: int

    @classmethod
    def of(cls, found: Record, expected: Record) -> "Agreement":
        """Compare two records; raises AssertionError where they are not about the same texts and ratings."""
        for key in ("latent", "concept", "ratings"):
            assert found[key] == expected[key], f"{key}: {found[key]} here, {expected[key]} in the reference"
        assert found["written"].keys() == expected["written"].keys(), "the written texts differ"
        assert found["continuations"].keys() == expected["continuations"].keys(), "the steering factors differ"
        activations = [
            np.array([*r["natural"], *(r["written"][text] for text in sorted(r["written"]))]) for r in (found, expected)
        ]
        pairs = [
            (a, b)
            for factor, texts in found["continuations"].items()
            for a, b in zip(texts, expected["continuations"][factor], strict=True)
            if "<start_of" not in b  # a special token, which is never written here
        ]
        return cls(
            {name: difference(found[name], expected[name]) for name in METRICS},
            float(np.abs(activations[0] - activations[1]).max() / np.abs(activations[1]).max()),
            sum(a == b for a, b in pairs),
            len(pairs),
        )


def difference(found: float | None, expected: float | None) -> float:
    """0 where both are undefined, inf where one is."""
    if found is None or expected is None:
        return 0.0 if found is expected else float("inf")
    return abs(found - expected)
