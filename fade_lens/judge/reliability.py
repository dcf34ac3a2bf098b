"""How far to trust the judge: does it agree with itself, with another judge, and with ratings that people gave?

Cohen's kappa (1960) is agreement beyond what two raters with these habits would reach by chance: 1 is perfect, 0 is chance. The
weighted one (1968) counts a 2 taken for a 0 four times as much as a 2 taken for a 1.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.reasons import Flag
from fade_lens.judge.rating import Rating
from fade_lens.llm.budget import Estimate, Usage
from fade_lens.metrics.intervals import share_interval

if TYPE_CHECKING:
    from fade_lens.data.descriptions import Description
    from fade_lens.judge.judge import Judge

RATED_AGAIN = 45
"""Texts a description that are rated again, drawn at random from those that were rated."""
TOO_LOW = 0.4
"""A weighted kappa below this is told: by a common reading (Landis and Koch 1977) agreement is then fair at best."""
FEW = 20
"""Pairs below which nothing is told."""
SCALE = (0, 1, 2)


def of_feature(index: int) -> str:
    """What questions about a feature's texts go by that no description enters: they are counted for each description of it."""
    return f"texts of feature {index}"


Table = Int[np.ndarray, "first second"]


@dataclass(frozen=True)
class Agreement(Brief):
    """How two ratings of the same texts agree: the run's own, and another.

    Attributes:
        by: whose the other is: "repeat 1", say, or another judge's name.
        n: texts that have both ratings.
        unrated: texts that lack one.
        same: the share of equal ratings among the `n`; None where `n` is 0.
        kappa: Cohen's kappa; None where all ratings are the same.
        weighted: kappa with quadratic weights; None where all ratings are the same.
        table: `table[i][j]` counts texts rated i in the run and j by the other.
    """

    by: str
    n: int
    unrated: int
    same: float | None
    kappa: float | None
    weighted: float | None
    table: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, by: str, first: Sequence[int | None], second: Sequence[int | None]) -> "Agreement":
        """Agreement of two lists of ratings, None where there is none."""
        table = counts(first, second)
        n = int(table.sum())
        return cls(
            by=by,
            n=n,
            unrated=len(first) - n,
            same=float(np.trace(table) / n) if n else None,
            kappa=cohen_kappa(table),
            weighted=cohen_kappa(table, weighted=True),
            table=tuple(tuple(row) for row in table.tolist()),
        )

    @property
    def flag(self) -> Flag | None:
        """What a reader should know, if the agreement is low."""
        if self.weighted is None or self.n < FEW or self.weighted >= TOO_LOW:
            return None
        return Flag("judge", f"little agreement with {self.by} (weighted kappa {self.weighted:.2f} on {self.n} texts)")


def counts(first: Sequence[int | None], second: Sequence[int | None]) -> Table:
    """How often a text was rated i first and j second, texts without both ratings left out."""
    table = np.zeros((len(SCALE), len(SCALE)), dtype=np.int64)
    for a, b in zip(first, second, strict=True):
        if a is not None and b is not None:
            table[a, b] += 1
    return table


def cohen_kappa(table: Table, *, weighted: bool = False) -> float | None:
    """Cohen's kappa of a table of counts: 1 − observed / expected disagreement; quadratic weights if `weighted`.

    None where no disagreement can be expected: no texts, or all with one rating by both.

    >>> cohen_kappa(np.array([[20, 5], [10, 15]]))
    0.4
    """
    n, size = table.sum(), len(table)
    if not n:
        return None
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    cost: Float[np.ndarray, "first second"] = (distance**2 if weighted else distance != 0).astype(np.float64)
    expected = np.outer(table.sum(1), table.sum(0)) / n
    disagreement = float((cost * expected).sum())
    return None if disagreement == 0 else round(1 - float((cost * table).sum()) / disagreement, 12)


@dataclass(frozen=True)
class GoldItem(Brief):
    """A text whose rating for a concept is known."""

    concept: str
    text: str
    rating: int


def read_gold(source: Any) -> tuple[GoldItem, ...]:
    """A gold set from a CSV file with columns `concept` (or `description`), `text`, `rating`, or from (concept, text, rating) rows.

    Raises:
        InputError: no such file or column, no rows, an empty concept, a rating that is not 0, 1 or 2.
    """
    if isinstance(source, str | Path):
        rows, where = _csv_rows(Path(source)), Path(source).name
    else:
        rows, where = list(cast(Iterable[Any], source)), "gold"
    items: list[GoldItem] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, GoldItem):
            items.append(row)
            continue
        try:
            concept, text, rating = row
        except (TypeError, ValueError):
            raise InputError(f"{where}, row {number}: give (concept, text, rating), not {row!r:.80}") from None
        if not isinstance(concept, str) or not concept.strip() or not isinstance(text, str):
            raise InputError(f"{where}, row {number}: concept and text must be texts, the concept not an empty one")
        if not re.fullmatch(r"\s*[012](\.0*)?\s*", str(rating)):  # "2.0" where a row was empty
            raise InputError(f"{where}, row {number}: the rating is {rating!r:.40}; it must be 0, 1 or 2")
        items.append(GoldItem(" ".join(concept.split()), text, int(float(rating))))
    if not items:
        raise InputError(f"{where} holds no row: give at least one text with its rating, or leave the gold set out")
    return tuple(items)


def _csv_rows(path: Path) -> list[tuple[Any, Any, Any]]:
    if not path.is_file():
        raise InputError(f"gold file {str(path)!r} does not exist")
    from fade_lens._util.files import read_table
    from fade_lens.data.rows import column_among

    try:
        table = read_table(path)
    except ValueError as error:  # those of pandas, of decoding and InputErrors
        raise InputError(f"gold file {path.name!r} is not a CSV table: {error}") from None
    columns = [
        column_among(table.columns, names, path.name) for names in (("concept", "description"), ("text",), ("rating",))
    ]
    return list(table[columns].itertuples(index=False, name=None))


@dataclass(frozen=True)
class GoldReport(Brief):
    """How the judge rates texts whose rating is known: agreement, and the two rates that the metrics rest on, with 95 % intervals.

    `sensitivity` is the share of texts known to be 2 that it rates 2, `specificity` that of texts known to be 0 that it rates 0;
    None where there is no such text.
    """

    agreement: Agreement
    sensitivity: float | None = None
    sensitivity_interval: tuple[float, float] | None = None
    specificity: float | None = None
    specificity_interval: tuple[float, float] | None = None


def gold_report(items: Sequence[GoldItem], ratings: Sequence[int | None]) -> GoldReport:
    """How the judge rated texts whose rating is known, in their order; None where it gave no rating."""
    found: dict[str, Any] = {}
    pairs = [(item.rating, rating) for item, rating in zip(items, ratings, strict=True) if rating is not None]
    for name, value in (("sensitivity", 2), ("specificity", 0)):
        hits = [rating == value for gold, rating in pairs if gold == value]
        if hits:
            found |= {name: sum(hits) / len(hits), f"{name}_interval": share_interval(sum(hits), len(hits))}
    return GoldReport(Agreement.of("gold", [item.rating for item in items], ratings), **found)


class Reliability:
    """The questions of a run that are about the judge itself: a gold set, ratings repeated, ratings by a second judge.

    Args:
        judge: the run's.
        repeats: how often some texts of each description are rated again.
        second: another judge that rates them too, or its spec (see `Judge.parse`).
        gold: texts whose ratings are known (see `read_gold`).

    Raises:
        InputError: an argument that cannot be used, or a second judge that is the first one.
    """

    def __init__(
        self, judge: "Judge", *, repeats: int = 0, second: "Judge | str | None" = None, gold: Any = None
    ) -> None:
        if repeats < 0:
            raise InputError(Argument("repeats"), f" is {repeats}; it must be 0 or more")
        self.judge, self.repeats = judge, repeats
        self._owns_second = isinstance(second, str)
        self.second = judge.beside(second) if isinstance(second, str) else second
        other = self.second
        if other is not None and (other.endpoint.base_url != judge.endpoint.base_url or not other.endpoint.base_url):
            who = [(one.endpoint.known(one.model), one.endpoint.identity) for one in (judge, other)]
            if who[0] == who[1]:
                raise InputError(
                    Argument("second_judge"),
                    f" is {other.model!r} at {other.endpoint.label}, which counts as the same judge as the first one at "
                    f"{judge.endpoint.label}: give the first one a ",
                    Argument("name"),
                    " if they differ, another second judge if they do not",
                )
        self.gold = read_gold(gold) if gold is not None else ()
        self._gold_texts: dict[str, list[str]] = defaultdict(list)
        for item in self.gold:
            self._gold_texts[item.concept].append(item.text)
        self._before = self.second.usage if self.second is not None else Usage()
        self._asked: dict[Description, tuple[list[int | None], list[tuple[str, Future[list[Rating]]]]]] = {}
        self._gold_report: GoldReport | None = None

    def __enter__(self) -> "Reliability":
        return self

    def __exit__(self, *_: object) -> None:
        if self.second is not None and self._owns_second:
            self.second.close()

    @property
    def judges(self) -> "tuple[Judge, ...]":
        """The run's judge, and the second one where there is one."""
        return (self.judge,) if self.second is None else (self.judge, self.second)

    @property
    def usage(self) -> Usage:
        """What the second judge was asked since this was made."""
        return Usage() if self.second is None else self.second.usage - self._before

    def usage_of(self, description: "Description") -> Usage:
        """What all answers about a description cost, those about its rules and its feature's texts included, both judges' together."""
        asked = dict.fromkeys(
            [description.text, of_feature(description.index), *(text for text, _ in description.claims)]
        )
        return sum((judge.usage_of(concept) for judge in self.judges for concept in asked), Usage())

    def estimate(self, n_descriptions: int, rated_texts: int) -> Estimate:
        """Calls, tokens and price of these questions."""
        again = min(rated_texts, RATED_AGAIN)
        found = self.judge.estimate(0, again, n_concepts=self.repeats * n_descriptions)
        if self.second is not None:
            found += self.second.estimate(0, again, n_concepts=n_descriptions)
        for texts in self._gold_texts.values():
            found += self.judge.estimate(0, len(texts))
        return found

    def ask_gold(self, seed: Callable[..., int], wait: Callable[[str, list["Future[Any]"]], None]) -> None:
        """Asks the second judge whether it is there, and has the gold set rated, before anything else is paid for."""
        if self.second is not None and not self.second.usage.calls:
            self.second.check(writes=False)
        if not self.gold:
            return
        gold = self._gold_texts
        asked = {
            concept: self.judge.submit_rate(concept, gold[concept], seed=seed("gold", concept)) for concept in gold
        }
        wait("judge: gold set", list(asked.values()))
        rated = {concept: dict(zip(gold[concept], asked[concept].result(), strict=True)) for concept in gold}
        self._gold_report = gold_report(self.gold, [rated[item.concept][item.text].value for item in self.gold])

    def ask(
        self, rated: "Mapping[Description, Sequence[tuple[str, int]]]", seed: Callable[..., int]
    ) -> "list[Future[Any]]":
        """Begin to have some texts of every description rated again, in another order; `rated` has each text with its rating."""
        for d, there in rated.items():
            random = np.random.default_rng(seed("rated again", d.words))
            chosen = [there[i] for i in sorted(random.permutation(len(there))[:RATED_AGAIN].tolist())]
            texts = [text for text, _ in chosen]
            futures = [
                (f"repeat {n}", self.judge.submit_rate(d.text, texts, seed=seed("repeat", n, d.words), repeat=n))
                for n in range(1, self.repeats + 1)
            ]
            if self.second is not None:
                answer = self.second.submit_rate(d.text, texts, seed=seed("second judge", d.words))
                futures.append((self.second.model, answer))
            self._asked[d] = [rating for _, rating in chosen], futures
        return [future for _, futures in self._asked.values() for _, future in futures]

    def of(self, description: "Description") -> tuple[Agreement, ...]:
        """How a description's ratings agree, once the judges have answered."""
        ratings, futures = self._asked.get(description, ([], []))
        return tuple(Agreement.of(by, ratings, [r.value for r in future.result()]) for by, future in futures)

    def report(self) -> dict[str, Any]:
        """What the record of a run tells of its judges (see `RunRecord`): gold set, agreement over all descriptions, second judge."""
        pooled: dict[str, tuple[list[int | None], list[int | None]]] = {}
        for ratings, futures in self._asked.values():
            for by, future in futures:
                first, second = pooled.setdefault(by, ([], []))
                first += ratings
                second += [rating.value for rating in future.result()]
        agreement = tuple(Agreement.of(by, *pair) for by, pair in pooled.items())
        return {
            "gold": self._gold_report,
            "agreement": agreement,
            "second_judge": {} if self.second is None else self.second.identity,
        }
