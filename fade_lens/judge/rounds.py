"""Rating in rounds: one group of texts after the other, until what is known is enough."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

from fade_lens.judge.asking import Rating, all_of
from fade_lens.judge.checks import check_texts

T = TypeVar("T")
Following = Callable[[list[Rating]], Sequence[str]]
"""From the ratings of all texts so far, in order, to the texts to be rated next; none ends the rounds."""


@runtime_checkable
class Rater(Protocol):
    """Rates texts for one concept, in their order."""

    async def rate(self, texts: Sequence[str]) -> list[Rating]: ...


@runtime_checkable
class JointRater(Protocol):
    """Rates texts for several concepts, as far as one answer goes: a rating by concept and text."""

    async def rate(self, concepts: Sequence[str], texts: Sequence[str]) -> dict[tuple[str, str], Rating]: ...


@dataclass(frozen=True)
class Question:
    """One description that is to be rated in rounds; `seed` shuffles the batches of texts that it is rated on by itself."""

    concept: str
    following: Following
    seed: int


class Rounds:
    """One description's way through its rounds; `finished` is told the ratings, in order, once it wants no more."""

    def __init__(
        self,
        rater: Rater,
        following: Following,
        concept: str = "",
        finished: Callable[[list[Rating]], object] = lambda _: None,
    ) -> None:
        self.concept = concept
        self.known: dict[str, Rating] = {}
        self._rater, self._following, self._finished = rater, following, finished
        self._asked: list[str] = []

    @property
    def ratings(self) -> list[Rating]:
        """Of all texts that were wanted so far, in order."""
        return [self.known[text] for text in self._asked]

    async def next(self) -> list[str]:
        """The texts that are to be rated now; none where it is enough. A text that comes again is not asked about again."""
        # Not in the loop's own thread: an interval takes long enough to hold up the answers of other concepts.
        while group := check_texts(await asyncio.to_thread(self._following, self.ratings)):
            self._asked += group
            if new := [text for text in dict.fromkeys(group) if text not in self.known]:
                return new
        self._finished(self.ratings)
        return []

    async def rate(self, texts: Sequence[str]) -> None:
        """Has these rated for this description alone."""
        self.known |= zip(texts, await self._rater.rate(texts), strict=True) if texts else ()

    async def alone(self) -> list[Rating]:
        """Goes on to the end by itself."""
        while new := await self.next():
            await self.rate(new)
        return self.ratings


async def in_rounds(rater: Rater, following: Following) -> list[Rating]:
    """The ratings of the texts that `following` gave, round by round, in order; a text that comes again is not asked again."""
    return await Rounds(rater, following).alone()


async def rounds_together(members: Sequence[Rounds], jointly: JointRater, at_once: int, batch: int) -> None:
    """Several descriptions through their rounds at the same time, `at_once` at most in a request of at most `batch` texts.

    A round is over for all of them at once, so that who shares a request with whom never depends on how fast answers come. What a
    joint answer lacks is asked about alone.
    """
    going = list(members)
    while going:
        found = await all_of(member.next() for member in going)
        wanted = [(member, new) for member, new in zip(going, found, strict=True) if new]
        going = [member for member, _ in wanted]
        joint, alone = divided([new for _, new in wanted], at_once, batch)
        await all_of(
            [
                *(_rate_jointly(jointly, [going[at] for at in places], texts) for places, texts in joint),
                *(member.rate(texts) for member, texts in zip(going, alone, strict=True)),
            ]
        )
        await all_of(member.rate([text for text in new if text not in member.known]) for member, new in wanted)


async def _rate_jointly(jointly: JointRater, members: Sequence[Rounds], texts: Sequence[str]) -> None:
    found = await jointly.rate([member.concept for member in members], texts)
    for member in members:
        given = {text: found.get((member.concept, text)) for text in texts}
        member.known |= {text: rating for text, rating in given.items() if rating is not None}


Joint = list[tuple[tuple[int, ...], list[str]]]
"""Texts, with the places of those who want them."""


def divided(wanted: Sequence[Sequence[str]], at_once: int, batch: int) -> tuple[Joint, list[list[str]]]:
    """Who asks about which texts together, and what each asks about alone; all alone where sharing saves no request.

    >>> divided([["a", "b"], ["b", "a"], ["c"]], 3, 2)
    ([((0, 1), ['a', 'b'])], [[], [], ['c']])
    """
    places: dict[str, list[int]] = {}
    for place, texts in enumerate(wanted):
        for text in texts:
            places.setdefault(text, []).append(place)
    shared: dict[tuple[int, ...], list[str]] = {}
    for text, those in places.items():
        for part in parts(those, at_once):
            shared.setdefault(tuple(part), []).append(text)
    joint = [(those, texts) for those, texts in shared.items() if len(those) > 1]
    alone = [shared.get((place,), []) for place in range(len(wanted))]

    def requests(groups: Sequence[Sequence[str]]) -> int:
        return sum(math.ceil(len(texts) / batch) for texts in groups)

    if requests([texts for _, texts in joint] + alone) >= requests(wanted):
        return [], [list(texts) for texts in wanted]
    return joint, alone


def parts(members: Sequence[T], at_once: int) -> list[Sequence[T]]:
    """`members` in as few groups of at most `at_once` as there can be, as equal in size as they can be.

    >>> parts([0, 1, 2, 3, 4], 3), parts([0, 1, 2, 3], 3)
    ([[0, 1, 2], [3, 4]], [[0, 1], [2, 3]])
    """
    n = math.ceil(len(members) / at_once)
    ends = [math.ceil(len(members) * at / n) for at in range(n + 1)]
    return [members[start:end] for start, end in pairwise(ends)]


def whole(n: int, batch: int, most: int) -> int:
    """`n` texts, rounded up to whole requests of `batch` texts; all `most` of them if less than a request would be left over.

    >>> whole(50, 15, 200), whole(190, 15, 200)
    (60, 200)
    """
    filled = -(-n // batch) * batch
    return most if filled + batch > most else filled
