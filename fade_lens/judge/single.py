"""Rating one text a request by the log-odds of Yes against No: the way of asking that small judges can answer.

Worked examples and a question that follows the text are what make a small model look for the concept; without either it
mostly says how it likes the text. The examples are the same for every concept and text, so that a server with a prompt cache
reads them once. What is left of a concept's own zero point is calibrated on `BACKGROUND`: fixed texts of many kinds, of
which few can express it. `tests/benchmarks/judge_quality.py` measures all of this.
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


_SYSTEM = "You check texts for a feature. If the text contains the feature, answer Yes; otherwise answer No."

# (text, concept, answer): words, syntax, topics and formats; near misses among those answered No.
_EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("She opened the window and looked at the rain.", 'the word "window"', "Yes"),
    ("He walked to the shop to buy some milk and a newspaper.", 'the word "window"', "No"),
    ("The orchestra will play two symphonies on Friday, and tickets cost $20.", "music and concerts", "Yes"),
    ("La biblioteca abre a las nueve de la mañana.", "the weather", "No"),
    ("def area(r):\n    return 3.14 * r * r", "SQL queries", "No"),
    ("The bridge was finished in 1994 and repaired in 2011.", "years in the 1990s", "Yes"),
    ("We left early so that we could see the sunrise over the lake.", 'the phrase "in order to"', "No"),
    ("Where did they go? Nobody knows.", "question marks", "Yes"),
    ("The museum opened in 1956 and has had a café since 2003.", "years in the 1990s", "No"),
    ("I really hope that the train is on time tomorrow.", "hoping or wishing for something", "Yes"),
    ("The company sold 4,000 tractors last year.", "family and relatives", "No"),
    ("for (int i = 0; i < n; i++) {\n    sum += a[i];\n}", "for loops in program code", "Yes"),
)


def messages(concept: str, text: str) -> list[dict[str, str]]:
    """The chat that asks whether `text` expresses `concept`, to be answered by one word."""
    chat = [{"role": "system", "content": _SYSTEM}]
    for sample, feature, answer in _EXAMPLES:
        chat += [{"role": "user", "content": _question(feature, sample)}, {"role": "assistant", "content": answer}]
    return [*chat, {"role": "user", "content": _question(concept, text)}]


def _question(concept: str, text: str) -> str:
    return f"Text: {text}\n\nDoes this text contain {concept}?"


def score(top_logprobs: Sequence[tuple[str, float]]) -> float | None:
    """logP(Yes) − logP(No) over the first token's alternatives, summed over spellings; None where neither is among them.

    Where only one is listed, the other counts with the most it can have: no more than the least likely token listed, and
    no more than the probability that the list leaves over.
    """
    listed = [(token.strip(_TRIM).lower(), math.exp(p)) for token, p in top_logprobs if p > -100]
    yes, no = (sum(p for token, p in listed if token == answer) for answer in ("yes", "no"))
    if not (yes or no):
        return None
    left = max(1 - sum(p for _, p in listed), 1e-9)
    most = min(left, *(p for _, p in listed), 1.0)
    return math.log(yes or most) - math.log(no or most)


_TRIM = " \t\n▁Ġ\"'*.,:"


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
