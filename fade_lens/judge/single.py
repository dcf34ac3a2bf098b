"""Rating one text a request by the log-odds of Yes against No: the way of asking that small judges can answer.

A small model's zero point moves from concept to concept, so each concept is calibrated on `BACKGROUND`: fixed texts of
many kinds, of which at most a few can express it. `messages` puts the concept before the text, so that a server with a
prompt cache reads only the text anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

PARAMETERS: dict[str, object] = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
"""Request parameters: one greedy token with its alternatives."""

BACKGROUND: tuple[str, ...] = (
    "The city council voted on Tuesday to close two swimming pools because repairs would cost more than planned.",
    "<h2>Our Services</h2>\n<ul>\n<li>Roof cleaning</li>\n<li>Gutter repair</li>\n</ul>\n<p>Call us for a quote!</p>",
    "function toggleMenu(event) {\n  const menu = document.getElementById('menu');\n  menu.hidden = !menu.hidden;\n}",
    "import os\n\ndef list_files(folder):\n    return [name for name in os.listdir(folder) if name.endswith('.txt')]",
    "#include <stdlib.h>\n\nint main(void) {\n    int *p = malloc(16 * sizeof(int));\n    free(p);\n    return 0;\n}",
    "lantern, n. A lamp with a transparent case that protects the flame from the wind and the rain.",
    "I've had this phone for about a month and the battery dies before lunch. Does anyone know how to fix this?",
    "Die Bibliothek ist wegen Umbauarbeiten bis Ende Oktober geschlossen; Bücher können im Rathaus abgegeben werden.",
    "Le chef recommande de laisser reposer la pâte une nuit avant de la cuire dans un four bien chaud.",
    "Летом мы часто ездили к бабушке в деревню, где купались в реке и собирали грибы.",
    "| Name | Height | Weight |\n|---|---|---|\n| Oak | 21 m | 3.1 t |\n| Birch | 15 m | 0.9 t |",
    "Women's Waterproof Hiking Jacket, Navy, Size M. Free shipping on orders over $50. Add to cart.",
    "She closed the door behind her, and for a long while neither of them said a word.",
    "Proteins that bind to the membrane were isolated from mouse liver and analysed by mass spectrometry.",
    "The striker scored twice in the second half as the visitors won 3-1 and moved up to fourth place.",
    "La empresa anunció que contratará a doscientos empleados para su nueva fábrica de Zaragoza.",
)
"""Texts of many kinds whose scores show where a concept's zero point lies."""


def messages(concept: str, text: str) -> list[dict[str, str]]:
    """The chat that asks whether `text` expresses `concept`, to be answered by one word."""
    return [
        {"role": "system", "content": "You decide whether a text matches a description. Answer Yes or No."},
        {"role": "user", "content": f"Description: {concept}\n\nText:\n{text}\n\nDoes the text match? Yes or No."},
    ]


def score(top_logprobs: Sequence[tuple[str, float]]) -> float | None:
    """logP(Yes) − logP(No) over the first token's alternatives, summed over spellings; None where neither is among them.

    Where only one of the two is listed, the other's probability is taken as that of the least likely token listed: a
    bound on the score, since it can be no more likely than that.
    """
    if not top_logprobs:
        return None
    spellings = {
        answer: [p for token, p in top_logprobs if token.strip(_TRIM).lower() == answer] for answer in ("yes", "no")
    }
    if not any(spellings.values()):
        return None
    floor = min(p for _, p in top_logprobs)
    yes, no = (_log_sum(spellings[answer]) if spellings[answer] else floor for answer in ("yes", "no"))
    return yes - no


_TRIM = " \t\n▁Ġ\"'*.,:"


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values)) if math.isfinite(top) else top


@dataclass(frozen=True)
class Calibration:
    """Where one concept's log-odds begin to mean something, learned from its scores on `BACKGROUND`."""

    zero: float
    """The score of a text that has nothing to do with the concept: the background's median."""

    PARTLY = 2.0
    """Graded score from which a text may express the concept (rating 1)."""
    CLEARLY = 4.0
    """Graded score from which a text expresses it clearly (rating 2)."""

    @classmethod
    def fit(cls, background_scores: Sequence[float]) -> "Calibration":
        """The calibration of a concept whose background texts scored `background_scores`; without any, zero is 0."""
        return cls(zero=median(background_scores) if background_scores else 0.0)

    def graded(self, score: float) -> float:
        """`score` relative to the concept's own zero point, in nats."""
        return score - self.zero

    def rating(self, score: float) -> int:
        """2 (clearly expressed), 1 (partly, or undecided) or 0 (not)."""
        graded = self.graded(score)
        return 2 if graded >= self.CLEARLY else 1 if graded >= self.PARTLY else 0
