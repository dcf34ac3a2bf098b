"""Rating one text a request by the log-odds of Yes against No: the way of asking that small judges can answer.

Worked examples and a question that follows the text are what make a small model look for the concept; without either it
mostly says how it likes the text. The examples are the same for every concept and text, so that a server with a prompt cache
reads them once. What is left of a concept's own zero point is calibrated on `BACKGROUND`: fixed texts of several kinds, of
which few can express it. `tests/benchmarks/judge_quality.py` measures all of this.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PARAMETERS: dict[str, object] = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
"""Request parameters: one greedy token with its alternatives."""

BACKGROUND: tuple[str, ...] = (
    "<h2>Product Description</h2>\n\n* Material: 100% cotton\n* Size: 40 x 60 cm\n* Colour: navy blue\n\nThis soft towel dries quickly and can be washed at 60 degrees. Order today and get free shipping!",
    "import os\nimport json\n\ndef load(folder):\n    rows = []\n    for name in os.listdir(folder):\n        with open(os.path.join(folder, name)) as file:\n            rows.append(json.load(file))\n    return rows",
    "I've had this laptop for about a month now and the battery is already dying before lunch. I bought a different charger and turned off everything in the background. Has anyone else had this problem? What did you do?",
    "La mairie annonce l'ouverture d'un nouveau jardin au bord de la rivière. Les habitants pourront y cultiver des légumes et des fleurs à partir du printemps, et des ateliers seront proposés aux enfants des écoles.",
)
"""Texts of four kinds, of the length and the untidiness of a web corpus: their scores show where a concept's zero point lies.

With eight more beside them 0.7 % of 4,757 ratings of 85 concepts came out otherwise, each for four calls in place of twelve a concept.
"""


def score(top_logprobs: Sequence[tuple[str, float]]) -> float | None:
    """logP(Yes) − logP(No) over the first token's alternatives, summed over spellings; None where neither is among them.

    Where only one is listed, the other counts with the most it can have: no more than the least likely token listed, and
    no more than the probability that the list leaves over.
    """
    listed = [(token, math.exp(p)) for token, p in top_logprobs if p > -100]
    yes, no = (sum(p for token, p in listed if _TRIM.sub("", token).lower() == answer) for answer in ("yes", "no"))
    if not (yes or no):
        return None
    left = max(1 - sum(p for _, p in listed), 1e-9)
    most = min(left, *(p for _, p in listed), 1.0)
    return math.log(yes or most) - math.log(no or most)


_TRIM = re.compile(r"^[\W_ĠĊ]+|[\W_ĠĊ]+$")
"""Around a word: white space and its marks in vocabularies, quotes, stars, full stops."""
LEAST_SHARE = 0.01
"""Probability that Yes and No have together where they are the answer: beside a token such as "<think>" theirs are noise."""


def chance(graded: float) -> float:
    """A graded score as a number from 0 to 1: 0.5 from where on a text expresses the concept clearly.

    >>> chance(Calibration.CLEARLY), round(chance(9.0), 3), round(chance(-1e6), 3)
    (0.5, 0.999, 0.0)
    """
    return 1 / (1 + math.exp(min(Calibration.CLEARLY - graded, 700.0)))


def read(top_logprobs: Sequence[tuple[str, float]] | None) -> float | None:
    """`score` of an answer; None where it is neither Yes nor No."""
    listed = [(token, p) for token, p in top_logprobs or () if _TRIM.sub("", token).lower() in ("yes", "no")]
    return score(top_logprobs or ()) if sum(math.exp(min(p, 0.0)) for _, p in listed) >= LEAST_SHARE else None


@dataclass(frozen=True)
class Calibration:
    """The zero point of one concept's log-odds, learned from its scores on `BACKGROUND`."""

    zero: float
    """What is subtracted from the concept's scores: a part of the background's median."""

    # Chosen on 162 labelled texts of 21 concepts (tests/benchmarks/judge_quality.py), with two of the examples other than now;
    # for the present ones, on 203 texts, thresholds chosen on the other concepts do no better.
    # The whole median would be too much: the background of a concept that a model is unsure of scores high, and so do its
    # texts, but by less.
    SHARE = 0.25
    PARTLY = 1.0
    """Graded score from which a text may express the concept (rating 1)."""
    CLEARLY = 1.5
    """Graded score from which a text expresses it clearly (rating 2): 3 of 129 labelled texts without it get there, 63 of 74 with it."""

    @classmethod
    def fit(cls, background_scores: Sequence[float]) -> "Calibration":
        """The calibration of a concept whose background texts scored `background_scores`; without any, zero is 0."""
        return cls(zero=cls.SHARE * median(background_scores) if background_scores else 0.0)

    def graded(self, score: float) -> float:
        """`score` relative to the concept's own zero point, in nats."""
        return score - self.zero

    def rating(self, score: float) -> int:
        """2 (clearly expressed), 1 (partly, or undecided) or 0 (not)."""
        graded = self.graded(score)
        return 2 if graded >= self.CLEARLY else 1 if graded >= self.PARTLY else 0
