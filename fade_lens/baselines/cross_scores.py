"""Every description of a run against every feature of it, without asking the judge anything.

All features are encoded in one pass, so the texts written for description g also give the Clarity of every other feature to g, and
the texts rated for g, weighted by 1 / inclusion, give every other feature's Responsiveness and Purity: the weights make them stand
for the corpus, hence they are right whichever feature chose the texts (less certain for the others than for the one that chose).

Matrices are `[feature, description]`, signed and weighted whatever the run's arithmetic, NaN where undefined. `fade_lens.baselines.permutation` reads them.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens.scorers.evidence import RatedEvidence
from fade_lens.scorers.fade import FadeScorer

SPECS = FadeScorer.specs[:3]
NAMES = tuple(spec.name for spec in SPECS)
"""Those of FADE's scores that rest on texts: steered texts are one feature's own."""

Matrix = Float[np.ndarray, "feature description"]


@dataclass(frozen=True, eq=False)
class CrossScores(Brief):
    """Clarity, Responsiveness and Purity of every feature of a run (rows) for every description (columns).

    Attributes:
        features: the feature index of each row.
        owners: the feature index that each column's description was given to, in the order of the run's descriptions.
        clarity: Gini coefficient in [−1, 1], float32, NaN where undefined; so is `responsiveness`.
        purity: average precision in [0, 1].
    """

    features: tuple[int, ...]
    owners: tuple[int, ...]
    clarity: Matrix
    responsiveness: Matrix
    purity: Matrix

    def __post_init__(self) -> None:
        shape = len(self.features), len(self.owners)
        for name in NAMES:
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}; {shape[0]} features and {shape[1]} descriptions"
                )

    @property
    def own_rows(self) -> Int[np.ndarray, "description"]:
        """The row of each description's own feature."""
        row = {feature: place for place, feature in enumerate(self.features)}
        return np.array([row[owner] for owner in self.owners], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """A compact JSON-able dict (base64 of float32); `from_dict` reads it back."""
        matrices = {
            name: base64.b64encode(np.ascontiguousarray(getattr(self, name), dtype="<f4").tobytes()).decode()
            for name in NAMES
        }
        return {"features": list(self.features), "owners": list(self.owners), **matrices}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CrossScores":
        """The matrices that `to_dict` wrote.

        Raises:
            ValueError: bytes that do not make matrices of the sizes given.
        """
        features, owners = (tuple(int(i) for i in record[name]) for name in ("features", "owners"))
        matrices = {
            name: np.frombuffer(base64.b64decode(record[name], validate=True), dtype="<f4")
            .reshape(len(features), len(owners))
            .astype(np.float32)
            for name in NAMES
        }
        return cls(features, owners, **matrices)


@dataclass(frozen=True)
class RatedMass:
    """The texts rated 2 or 0 for each description, padded with texts of no mass.

    `numbers` are their places in the corpus; `yes` and `no` the weights (1 / inclusion) of texts rated 2 and of texts rated 0.
    """

    numbers: Int[np.ndarray, "description rated"]
    yes: Float[np.ndarray, "description rated"]
    no: Float[np.ndarray, "description rated"]

    @classmethod
    def of(cls, evidence: Sequence[RatedEvidence]) -> "RatedMass":
        """From what the judge rated for each description; partial ratings and unrated texts are left out."""
        kept = [[t for t in e.texts if t.rating in (0, 2)] for e in evidence]
        shape = len(kept), max((len(texts) for texts in kept), default=0)
        numbers, yes, no = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
        for row, texts in enumerate(kept):
            for place, text in enumerate(texts):
                numbers[row, place] = text.number
                (yes if text.rating == 2 else no)[row, place] = 1 / text.inclusion
        return cls(numbers, yes, no)


def clarity_matrix(
    natural: Float[np.ndarray, "text feature"],
    synthetic: Float[np.ndarray, "written feature"],
    owner: Int[np.ndarray, "written"],
    n_descriptions: int,
) -> Matrix:
    """Clarity of every feature for every description, 2 · AUROC − 1 as in `fade_lens.metrics.fade.clarity`.

    Each feature's natural activations are sorted once; a written text's share of the AUROC is its mid-rank among them.

    Shapes: largest activations a text, natural and written; `owner` says which description a text was written for. NaN (no counted
    position) is left out. Memory beyond the result: a few arrays of one feature's texts.
    """
    found = np.full((natural.shape[1], n_descriptions), np.nan, dtype=np.float32)
    for feature in range(natural.shape[1]):
        below = natural[:, feature]
        below = np.sort(below[~np.isnan(below)])
        above = synthetic[:, feature]
        usable = ~np.isnan(above)
        counts = np.bincount(owner[usable], minlength=n_descriptions)
        if not len(below) or not counts.any():
            continue
        ranks = np.searchsorted(below, above[usable], "left") + np.searchsorted(below, above[usable], "right")
        sums = np.bincount(owner[usable], ranks / len(below), minlength=n_descriptions)
        np.divide(sums, counts, out=found[feature], where=counts > 0, casting="same_kind")
        found[feature] -= 1
    return found


def rated_matrices(natural: Float[np.ndarray, "text feature"], rated: RatedMass) -> tuple[Matrix, Matrix]:
    """Responsiveness and Purity of every feature for every description, weighted as in `metrics`, from each description's own texts.

    Memory beyond the results: some arrays `[description, rated]`.
    """
    shape = natural.shape[1], len(rated.numbers)
    responsiveness, purity = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
    if not rated.numbers.size:
        return responsiveness, purity
    for feature in range(shape[0]):
        values = natural[:, feature][rated.numbers].astype(np.float64)
        usable = ~np.isnan(values)
        values[~usable] = 0.0
        area, precision = ranked_rows(values, rated.yes * usable, rated.no * usable)
        responsiveness[feature] = 2 * area - 1
        purity[feature] = precision
    return responsiveness, purity


def ranked_rows(
    values: Float[np.ndarray, "row text"], yes: Float[np.ndarray, "row text"], no: Float[np.ndarray, "row text"]
) -> tuple[Float[np.ndarray, "row"], Float[np.ndarray, "row"]]:
    """AUROC (ties one half) and average precision (ties one threshold) of each row; NaN where either side has no mass."""
    order = np.argsort(-values, axis=1, kind="stable")  # quick where most are equal
    ranked, up, down = (np.take_along_axis(array, order, axis=1) for array in (values, yes, no))
    ends = np.ones(values.shape, dtype=bool)
    ends[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    hits, before = _at_ends(np.cumsum(up, axis=1), ends)
    alarms, _ = _at_ends(np.cumsum(down, axis=1), ends)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits > 0)
        total_up, total_down = up.sum(axis=1), down.sum(axis=1)
        defined = (total_up > 0) & (total_down > 0)
        area = (down * (hits + before)).sum(axis=1) / (2 * total_up * total_down)
        average = (up * precision).sum(axis=1) / total_up
    return np.where(defined, area, np.nan), np.where(defined, average, np.nan)


def _at_ends(
    mass: Float[np.ndarray, "row text"], ends: Any
) -> tuple[Float[np.ndarray, "row text"], Float[np.ndarray, "row text"]]:
    """Cumulated mass at the end of each text's group of equal values, and at the end of the group before it."""
    after = np.where(ends, mass, np.inf)[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]
    before = np.zeros_like(mass)
    before[:, 1:] = np.maximum.accumulate(np.where(ends, mass, 0.0), axis=1)[:, :-1]
    return after, before


def cross_scores(
    natural: Float[np.ndarray, "text feature"],
    synthetic: Float[np.ndarray, "written feature"],
    written: Sequence[Int[np.ndarray, "_"]],
    rated: Sequence[RatedEvidence],
    features: Sequence[int],
    owners: Sequence[int],
) -> CrossScores:
    """All three matrices of some features and descriptions.

    Args:
        natural: largest activation of each text of the corpus, one column for each of `features`; `synthetic` of each written text.
        written: for each description the rows of `synthetic` that were written for it.
        rated: for each description what the judge rated.
        features: the features' indices; `owners` the feature that each description was given to.
    """
    owner = np.repeat(np.arange(len(written)), [len(rows) for rows in written])
    rows = np.concatenate(written) if len(written) else np.zeros(0, dtype=np.int64)
    clarity = clarity_matrix(natural, synthetic[rows], owner, len(written))
    responsiveness, purity = rated_matrices(natural, RatedMass.of(rated))
    return CrossScores(tuple(features), tuple(owners), clarity, responsiveness, purity)
