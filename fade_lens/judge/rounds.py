"""Rating in rounds: one group of texts after the other, until what is known is enough.

This is the one seam by which the judge calls back into the code above it. A scorer gives `Judge.submit_rounds` a function, the `Following`;
the judge calls it with all ratings so far and rates the texts that it returns, until it returns none. What a `Following` must keep to:

- It runs in a worker thread, one call at a time for one concept, while others run for other concepts: it changes nothing that is shared.
- It depends on the ratings alone. A run that is resumed calls it again with the same ratings, and must get the same texts, or texts
  are paid for twice.
- What it raises ends the work on its concept, and comes out of the future.

Everything else goes one way: work is submitted, and a future is waited for.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from fade_lens.judge.checks import check_texts
from fade_lens.judge.rating import Rating

Following = Callable[[list[Rating]], Sequence[str]]
"""From the ratings of all texts so far, in order, to the texts to be rated next; none ends the rounds. See this module's docstring."""


@runtime_checkable
class Rater(Protocol):
    """Rates texts for one concept, in their order."""

    async def rate(self, texts: Sequence[str]) -> list[Rating]: ...


async def in_rounds(rater: Rater, following: Following) -> list[Rating]:
    """Rate what `following` gives, round by round.

    Args:
        rater: rates the texts of one round.
        following: gives the texts of the next round from all ratings so far.

    Returns:
        The ratings of all texts that it gave, in order; a text that comes again is not asked about again.

    Raises:
        InputError: `following` gave something that is no list of texts.
    """
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
