"""Rating in rounds: one group of texts after the other, until what is known is enough."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from fade_lens.judge.asking import Rating


class Rater(Protocol):
    """Rates texts for one concept, in their order."""

    async def rate(self, texts: Sequence[str]) -> list[Rating]: ...


async def in_rounds(
    rater: Rater, groups: Sequence[Sequence[str]], enough: Callable[[list[Rating]], bool]
) -> list[Rating]:
    """The ratings of the groups asked for, in order; `enough` sees all of them so far after each group but the last."""
    known: dict[str, Rating] = {}
    asked: list[str] = []
    ratings: list[Rating] = []
    for number, group in enumerate(groups, 1):
        new = [text for text in dict.fromkeys(group) if text not in known]
        known |= zip(new, await rater.rate(new), strict=True) if new else ()
        asked += group
        ratings = [known[text] for text in asked]
        # Not in the loop's own thread: an interval takes long enough to hold up the answers of other concepts.
        if number < len(groups) and await asyncio.to_thread(enough, ratings):
            break
    return ratings
