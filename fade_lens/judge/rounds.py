"""Rating in rounds: one group of texts after the other, until what is known is enough."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from fade_lens.judge.checks import check_texts
from fade_lens.judge.rating import Rating

Following = Callable[[list[Rating]], Sequence[str]]
"""From the ratings of all texts so far, in order, to the texts to be rated next; none ends the rounds."""


@runtime_checkable
class Rater(Protocol):
    """Rates texts for one concept, in their order."""

    async def rate(self, texts: Sequence[str]) -> list[Rating]: ...


async def in_rounds(rater: Rater, following: Following) -> list[Rating]:
    """The ratings of the texts that `following` gave, round by round, in order; a text that comes again is not asked again."""
    asked: list[str] = []
    known: dict[str, Rating] = {}
    # Not in the loop's own thread: an interval takes long enough to hold up the answers of other concepts.
    while group := check_texts(await asyncio.to_thread(following, [known[text] for text in asked])):
        asked += group
        if new := [text for text in dict.fromkeys(group) if text not in known]:
            known |= zip(new, await rater.rate(new), strict=True)
    return [known[text] for text in asked]


def whole(n: int, batch: int, most: int) -> int:
    """`n` texts, rounded up to whole requests of `batch` texts; all `most` of them if less than a request would be left over.

    >>> whole(50, 15, 200), whole(190, 15, 200)
    (60, 200)
    """
    filled = -(-n // batch) * batch
    return most if filled + batch > most else filled
