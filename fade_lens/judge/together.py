"""Texts rated for several descriptions in one request: the texts are most of a prompt, and are read once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from fade_lens.judge import prompts
from fade_lens.judge.asking import Rating, all_of
from fade_lens.judge.parsing import parse_together
from fade_lens.judge.request import Call, Request
from fade_lens.judge.transport import Transport
from fade_lens.judge.wire import Unanswered
from fade_lens.tables import clean

Pair = tuple[str, str]
"""Concept and text."""


@dataclass(frozen=True)
class JointRating:
    """Asks about batches of texts once for all of a few concepts. What an answer lacks is not asked again here: `BatchedRating` does that."""

    transport: Transport
    call: Call
    seed: int
    size: int
    temperature: float

    async def rate(self, concepts: Sequence[str], texts: Sequence[str]) -> dict[Pair, Rating]:
        """The ratings that the answers give, by concept and text; two to `len(prompts.LETTERS)` concepts."""
        chosen = sorted(set(concepts))
        order = self._chance("order", chosen).sample(texts, len(texts))
        batches = [order[at : at + self.size] for at in range(0, len(order), self.size)]
        parts = await all_of(self._batch(chosen, batch, at) for at, batch in enumerate(batches))
        return {pair: rating for part in parts for pair, rating in part.items()}

    async def _batch(self, concepts: list[str], texts: list[str], number: int) -> dict[Pair, Rating]:
        chance = self._chance(f"ids|{number}", concepts)
        named = dict(zip(prompts.LETTERS, chance.sample(concepts, len(concepts)), strict=False))
        # Three digits: see `BatchedRating`.
        tags = chance.sample(range(100, 1000), len(named) + len(texts))
        samples = dict(zip(map(str, tags[len(named) :]), texts, strict=True))
        first, *others = named.values()
        request = Request(
            kind="rate together",
            concept=first,
            beside=tuple(others),
            messages=prompts.together_messages(named, samples, tags=tags[: len(named)]),
            parameters={
                "temperature": self.temperature,
                "max_tokens": 100 + (25 + 15 * len(named)) * len(texts),
            },
            expects=completion_tokens(len(named)) * len(texts),
            structure=f"ratings_{len(named)}",
            note={"seed": self.seed},
        )
        try:
            answer = await self.transport.ask(request, self.call)
        except Unanswered:
            return {}
        found = {} if answer.refusal else parse_together(answer.content, samples, named)
        return {(named[letter], samples[name]): Rating(value) for (name, letter), value in found.items()}

    def _chance(self, purpose: str, concepts: Sequence[str]) -> random.Random:
        return random.Random(clean(f"together|{purpose}|{self.seed}|{'|'.join(concepts)}"))


def completion_tokens(n_concepts: int) -> int:
    """What the ratings of one text for so many concepts take, about."""
    return 9 + 5 * n_concepts
