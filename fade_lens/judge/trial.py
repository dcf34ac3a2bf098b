"""May this judge rate texts for several descriptions in one request? Both ways of asking are compared first, on a run's first features."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fade_lens.errors import FadeLensError, JudgeError
from fade_lens.judge.agreement import Agreement
from fade_lens.judge.asking import Rating, all_of
from fade_lens.judge.rounds import JointRater, Rounds, parts, rounds_together

logger = logging.getLogger(__name__)

ENOUGH = 0.8
"""Weighted kappa from which texts are rated together: "almost perfect" by a common reading (Landis and Koch 1977)."""
PAIRS = 150
"""Ratings to compare at first, each of a text for a description; twice as many where they tell too little, and so on up to `MOST_PAIRS`."""
MOST_PAIRS = 1200
CLEAR = 20
"""Of these at least so many must be 2: kappa says little about a judge that has hardly anything to find."""
CLEAR_OF_RARER = 10
"""And so many without each request's description that has most: a judge that heeds only that one agrees well enough in all."""
TEXTS = 60
"""Texts of a feature that are rated both ways, at most."""
LEFT_OUT = 0.1
"""Share of ratings that joint answers may lack; what they lack is asked about once more, which is what sharing was to save."""


Pairs = list[tuple[int | None, int | None]]
"""One description's ratings: alone, and jointly."""


@dataclass(frozen=True)
class Outcome:
    """Whether texts are rated together, and why or why not."""

    used: bool
    why: str


@dataclass(frozen=True)
class Step:
    """Features that are measured at the same time."""

    features: tuple[int, ...]
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Trial:
    """Compares ratings for several descriptions a request with those for one, and decides for the rest of a run, which waits for it.

    `features` with several descriptions, in the order in which they are tried, each with the number of its ratings to compare (see
    `pairs`). The ratings that a run uses are, for those measured, the ones for one description a request. Lives in a judge's event loop.
    """

    def __init__(self, features: Mapping[int, int], at_once: int, batch: int) -> None:
        self.at_once, self.batch = at_once, batch
        self.steps = [Step(group) for group in steps(features)]
        self.outcome: Outcome | None = None
        if sum(len(step.features) for step in self.steps[:1]) == len(features):
            self.steps = []
            why = f"features with several descriptions: {len(features)}, too few to compare both ways of asking first"
            self.outcome = Outcome(False, why)
        self._error: FadeLensError | None = None
        self._compared: dict[int, list[list[Pairs]]] = {}

    async def rate(self, members: Sequence[Rounds], jointly: JointRater, feature: int | None) -> None:
        """Takes a feature's descriptions through their rounds, both ways if it is measured; `feature` None never is."""
        outcome = await self._before(feature)
        if outcome is None:
            assert feature is not None, "what is no feature waits for the outcome"
            await self._both_ways(members, jointly, feature)
        elif outcome.used:
            await rounds_together(members, jointly, self.at_once, self.batch)
        else:
            await all_of(member.alone() for member in members)

    def report(self) -> dict[str, Any]:
        """For `Results.run`: the agreement of both ways, and what came of it."""
        outcome = self.outcome or Outcome(False, "it was not found out")
        agreed, clear = self._agreement()
        rarer, _ = self._agreement(rarer=True)
        counts = {"descriptions_per_request": self.at_once, "features": sorted(self._compared), "clear": clear}
        return {**counts, **asdict(agreed), "weighted_of_rarer": rarer.weighted, **asdict(outcome)}

    async def _before(self, feature: int | None) -> Outcome | None:
        """What came of the steps before the one of `feature`; None if they left it open."""
        for step in self.steps:
            if self.outcome is None and feature in step.features:
                return None
            await step.over.wait()
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self.outcome is not None:
                break
        return self.outcome

    async def _both_ways(self, members: Sequence[Rounds], jointly: JointRater, feature: int) -> None:
        try:
            going = await self._first_round(members, jointly, feature)
        except BaseException as error:  # the others would wait for ever
            self._error = (
                error if isinstance(error, FadeLensError) else JudgeError(f"the judge was not tried out: {error!r}")
            )
            for step in self.steps:
                step.over.set()
            raise
        await all_of(member.alone() for member in going)

    async def _first_round(self, members: Sequence[Rounds], jointly: JointRater, feature: int) -> list[Rounds]:
        """Rates and compares; those who want a second round."""
        wanted = await all_of(member.next() for member in members)
        common = [text for text in wanted[0] if all(text in other for other in wanted[1:])][:TEXTS]
        groups = [group for group in parts(members, self.at_once) if len(group) > 1]
        joint: dict[tuple[str, str], Rating] = {}

        async def together(group: Sequence[Rounds]) -> None:
            joint.update(await jointly.rate([member.concept for member in group], common))

        alone = [member.rate(new) for member, new in zip(members, wanted, strict=True)]
        await all_of([*map(together, groups), *alone])
        self._compared[feature] = [
            [
                [(member.known[text].value, joint.get((member.concept, text), Rating(None)).value) for text in common]
                for member in group
            ]
            for group in groups
        ]
        self._look()
        return [member for member, new in zip(members, wanted, strict=True) if new]

    def _look(self) -> None:
        """Ends the present step if all of it is there."""
        step = next((step for step in self.steps if not step.over.is_set()), None)
        if step is None or not set(step.features) <= set(self._compared):
            return
        self.outcome = self._decided(last=step is self.steps[-1])
        if self.outcome is not None:
            logger.log(
                logging.INFO if self.outcome.used else logging.WARNING,
                "judge: texts are %srated for up to %d descriptions a request: %s",
                "" if self.outcome.used else "not ",
                self.at_once,
                self.outcome.why,
            )
        step.over.set()

    def _decided(self, *, last: bool) -> Outcome | None:
        (agreed, clear), (rarer, clear_of_rarer) = self._agreement(), self._agreement(rarer=True)
        asked = agreed.n + agreed.unrated
        lacking = sum(joint is None for _, joint in self._ratings())
        if lacking > LEFT_OUT * asked:
            return Outcome(False, f"{lacking} of {asked} ratings were missing from the joint answers")
        if agreed.weighted is None or agreed.n < PAIRS or clear < CLEAR:
            few = f"{clear} of {agreed.n} ratings were 2, too few to compare: {CLEAR} of {PAIRS} are wanted"
            return Outcome(False, few) if last else None
        words = f"weighted kappa {agreed.weighted:.2f} with one description a request, on {agreed.n} ratings"
        if agreed.weighted < ENOUGH:
            return Outcome(False, f"{words}, is below {ENOUGH:g}")
        if rarer.weighted is None or clear_of_rarer < CLEAR_OF_RARER:
            few = f"{clear_of_rarer} ratings of the rarer descriptions were 2, too few to compare: {CLEAR_OF_RARER} are wanted"
            return Outcome(False, few) if last else None
        words += f", {rarer.weighted:.2f} without the most frequent description of each request"
        return (
            Outcome(True, words) if rarer.weighted >= ENOUGH else Outcome(False, f"{words}, which is below {ENOUGH:g}")
        )

    def _agreement(self, *, rarer: bool = False) -> tuple[Agreement, int]:
        """Of the ratings so far (see `_ratings`), and how many are 2 for one description a request."""
        alone, jointly = zip(*found, strict=True) if (found := self._ratings(rarer=rarer)) else ((), ())
        agreed = Agreement.of(f"up to {self.at_once} descriptions a request", alone, jointly)
        return agreed, sum(agreed.table[2])

    def _ratings(self, *, rarer: bool = False) -> Pairs:
        """All ratings so far; `rarer` leaves out each request's description with most 2s."""
        found: Pairs = []
        for feature in sorted(self._compared):
            for group in self._compared[feature]:
                most = max(range(len(group)), key=lambda at: sum(a == 2 for a, _ in group[at]))
                found += [pair for at, pairs in enumerate(group) if not (rarer and at == most) for pair in pairs]
        return found


def pairs(n_descriptions: int, n_texts: int, at_once: int) -> int:
    """How many ratings of a feature are compared: those of the first texts, for every description that shares a request.

    >>> pairs(3, 200, 5), pairs(3, 200, 2)
    (180, 120)
    """
    sharing = sum(len(group) for group in parts(range(n_descriptions), at_once) if len(group) > 1)
    return sharing * min(n_texts, TEXTS)


def steps(features: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Features, with the number of their ratings, in groups that bring the ratings to `PAIRS`, twice that and so on.

    >>> steps(dict.fromkeys(range(9), 100))
    [(0, 1), (2, 3), (4, 5, 6, 7), (8,)]
    """
    found: list[list[int]] = [[]]
    total, wanted = 0, PAIRS
    for feature, n in features.items():
        if total >= MOST_PAIRS:
            break
        found[-1].append(feature)
        total += n
        if total >= wanted:
            found.append([])
            wanted = 2 * total
    return [tuple(group) for group in found if group]
