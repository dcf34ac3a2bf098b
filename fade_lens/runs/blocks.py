"""A large run in blocks of features: what is asked and measured together, and the results as they come.

Of a run of several blocks nothing but the heads of results is gone through at the end (see `fade_lens.runs.kept`): a finished block's evidence lies in a file.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fade_lens._util.record import to_plain
from fade_lens.baselines import permutation
from fade_lens.baselines.cross_scores import CrossScores
from fade_lens.baselines.permutation import PermutationTest
from fade_lens.data.descriptions import Description
from fade_lens.runs.kept import Kept, KeptResults, ResultsFile, dumps, row_of
from fade_lens.runs.result import Result
from fade_lens.scorers.base import Scored
from fade_lens.scorers.evidence import RatedEvidence
from fade_lens.scorers.fade import FadeEvidence, FadeScorer

if TYPE_CHECKING:
    from fade_lens.subject.subject import Subject

BLOCK = 1000
"""Features whose results are in memory together: half a GB with default settings. Of the next as many the judge is asked meanwhile."""
Nulls = Mapping[str, tuple[Description, ...]]


@dataclass(frozen=True)
class Block:
    """What is asked and measured together.

    Attributes:
        part: the features that are compared with one another, all of a run of up to `fade_lens.baselines.permutation.MOST`.
        last: whether it is the last block of the part.
        places: of its descriptions in the run, those of a feature together.
        chosen: these.
        nulls: of each kind, those of these.
    """

    part: tuple[int, ...]
    last: bool
    places: tuple[int, ...]
    chosen: tuple[Description, ...]
    nulls: Nulls

    @property
    def every(self) -> tuple[Description, ...]:
        """All descriptions to score, null ones last."""
        return tuple(dict.fromkeys([*self.chosen, *(d for some in self.nulls.values() for d in some)]))


def blocks_of(chosen: Sequence[Description], nulls: Nulls) -> list[Block]:
    """A run in blocks, one of up to `BLOCK` features as it is."""
    places: dict[int, list[int]] = {}
    for place, d in enumerate(chosen):
        places.setdefault(d.index, []).append(place)
    features, found = tuple(places), list[Block]()
    for start in range(0, len(features), permutation.MOST):
        part = features[start : start + permutation.MOST]
        for first in range(0, len(part), BLOCK):
            of = sorted(place for index in part[first : first + BLOCK] for place in places[index])
            null = {kind: tuple(some[place] for place in of) for kind, some in nulls.items()}
            found.append(Block(part, first + BLOCK >= len(part), tuple(of), tuple(chosen[place] for place in of), null))
    return found


class Beside:
    """Each description beside the others of its part of the run, which are compared once all of them are measured."""

    def __init__(self, subject: "Subject", n: int) -> None:
        self.subject = subject
        self.cross: CrossScores | None = None
        """The matrices, where the run has one part."""
        self._tests: list[PermutationTest | None] = [None] * n
        self._parts = 0
        self._texts = list[Float[np.ndarray, "written feature"]]()
        self._found = list[tuple[int, Description, int, RatedEvidence]]()

    @property
    def tests(self) -> list[PermutationTest | None]:
        """By the descriptions' places in the run, the q-values those of all together; None without FADE."""
        known = [test for test in self._tests if test is not None]
        return list(permutation.with_q_values(known)) if len(known) == len(self._tests) else self._tests

    def add(self, block: Block, fade: FadeScorer, evidence: Mapping[Description, Mapping[str, Scored]]) -> None:
        """One block more, measured."""
        assert fade.activations is not None, "it is measured"
        columns = fade.activations.at([self.subject.column(index) for index in block.part])
        for place, d in zip(block.places, block.chosen, strict=True):
            rows = fade.activations.rows(fade.written[d].texts)
            found = next(one for one in evidence[d].values() if isinstance(one, FadeEvidence))
            self._texts.append(fade.activations.values[rows][:, columns])
            self._found.append((place, d, len(rows), found.rated_texts))
        if block.last:
            self._compare(block.part)

    def _compare(self, part: Sequence[int]) -> None:
        ends = np.cumsum([n for _, _, n, _ in self._found])
        order = sorted(range(len(self._found)), key=lambda at: self._found[at][0])
        places, descriptions, _, rated = zip(*(self._found[at] for at in order), strict=True)
        columns = [self.subject.column(index) for index in part]
        natural = self.subject.activations.values[:, columns]
        natural[:, [self.subject.activations.overflowed(column) > 0 for column in columns]] = (
            np.nan
        )  # what is known of these features is not known of the whole corpus
        written = [np.arange(ends[at] - self._found[at][2], ends[at]) for at in order]
        cross, tests = permutation.beside_the_others(descriptions, natural, np.concatenate(self._texts), written, rated)
        for place, test in zip(places, tests, strict=True):
            self._tests[place] = test
        self._parts += 1
        self.cross = cross if self._parts == 1 else None
        self._texts, self._found = [], []


class Coming:
    """Results as they come: in memory, or in a file without a name in a folder, which goes with the results."""

    def __init__(self, large: bool, folder: Path | None) -> None:
        where = Path(tempfile.gettempdir()) if folder is None else folder
        self.file = ResultsFile.passing(where) if large else None
        self._held: dict[str, dict[int, Result]] = {}

    def keep(self, part: str, number: int, result: Result) -> None:
        """One more, in any order."""
        if self.file is None:
            self._held.setdefault(part, {})[number] = result
        else:
            self.file.keep(part, number, result)

    def told(self, part: str, changes: Sequence[Mapping[str, Any]]) -> None:
        """Each result with some fields, of those that no evidence is needed for, known at last."""
        for number, result in self._numbered(part, len(changes)):
            if not isinstance(result, Kept):
                self._held[part][number] = replace(result, **changes[number])
                continue
            head = dumps({**result.head, **{name: to_plain(value) for name, value in changes[number].items()}})
            known = Kept.of(result.file, part, number, "", head)
            result.file.tell(part, number, known, row_of(known), head)

    def items(self, part: str, n: int, gate: float, scorers: Sequence[str]) -> Sequence[Result]:
        """All of a part."""
        if self.file is None:
            return tuple(result for _, result in self._numbered(part, n))
        return KeptResults(self.file, part, n, gate, scorers)

    def _numbered(self, part: str, n: int) -> Iterator[tuple[int, Result]]:
        if self.file is None:
            return ((number, self._held[part][number]) for number in range(n))
        return ((one.number, one) for one in KeptResults(self.file, part, n, 0.0, ()))
