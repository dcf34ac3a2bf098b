"""When enough is rated: texts and continuations are rated in rounds, until the intervals are narrow enough."""

import math
from dataclasses import dataclass

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import option
from fade_lens.metrics.metric import GATE, Metric
from fade_lens.subject.settings import SubjectSettings

GROWTH = 2.0
"""No round brings the texts to more than this many times those before: a width of few texts promises little."""
SHORT = 0.9
"""Share of the missing texts, as they are reckoned, that a round asks for: a text too many costs more than another round."""

FIRST_PROMPTS = 21
"""Prompts whose continuations are rated at every factor; the others are at the factor that is best there, and unsteered. With fewer the wrong
factor is chosen more often: with 18 intervals hold a weak effect in 90 % of simulated runs, with 21 in 92 % (`tests/benchmarks/coverage.py`)."""


@dataclass(frozen=True)
class StoppingSettings(SubjectSettings):
    """When rating stops, and which descriptions are worth the rating of steered texts."""

    interval_width: float | None = option(
        0.3,
        """Rating stops before all texts are rated once the 95 % intervals are no wider than this. Natural texts are rated in rounds until
        those of Responsiveness and Purity are both no wider, or that of Responsiveness lies below the gate; continuations at every factor
        for the first prompts, then at the best factor alone, until Faithfulness' is no wider either.""",
        above=0,
        none="everything is rated",
        off=0,
        mend="give a width above 0, or None to rate all texts",
    )
    gate: float | None = option(
        GATE, "Faithfulness is measured where Clarity and Responsiveness are both at least this.", none="always", off=-1
    )

    def check(self) -> None:
        """Raise `InputError` for a way of stopping that the arithmetic does not know."""
        super().check()
        if self.arithmetic == "paper" and self.interval_width is not None:
            raise InputError(
                Argument("interval_width", self.interval_width),
                " stops ratings early, but in ",
                Argument("arithmetic", "paper"),
                " every continuation must be rated at every factor; give ",
                Argument("interval_width"),
                " None",
            )


def missing(n: int, width: float | None, wanted: float) -> float:
    """How many texts beside the `n` rated ones are worth asking for at once, to bring an interval of `width` down to `wanted`."""
    growth = GROWTH if width is None else min((width / wanted) ** 2, GROWTH)
    return SHORT * n * (growth - 1)


def widest(*metrics: Metric) -> float | None:
    """The width of the widest interval; None where one has none."""
    widths = [metric.interval[1] - metric.interval[0] for metric in metrics if metric.interval is not None]
    return max(widths) if len(widths) == len(metrics) else None


def next_prompts(n: int, most: int, width: float | None, n_sets: int, batch: int, settings: StoppingSettings) -> int:
    """How many prompts' continuations are to be rated before the interval is looked at again.

    Args:
        n: prompts whose continuations are rated by now.
        most: prompts that there are.
        width: of the interval; None where there is none.
        n_sets: sets of continuations that are rated of the first prompts; of later ones two are, at the best factor and unsteered.
        batch: texts a request.

    Returns:
        A number of prompts from `n` to `most`; `n` if that is enough.

    >>> settings = StoppingSettings()
    >>> next_prompts(0, 50, None, 5, 15, settings), next_prompts(21, 50, 0.4, 5, 15, settings), next_prompts(21, 50, 0.3, 5, 15, settings)
    (21, 36, 21)
    """
    wanted = settings.interval_width
    if wanted is None:
        return most
    if not n:
        return min(filled(FIRST_PROMPTS, n_sets, batch), most)
    if width is not None and width <= wanted:
        return n
    return min(n + filled(missing(n, width, wanted), 2, batch), most)


def filled(prompts: float, n_sets: int, batch: int) -> int:
    """How many prompts fill the requests that `prompts` of them need, each prompt having `n_sets` texts and each request `batch`.

    >>> filled(18, 5, 15), filled(8.4, 2, 15)
    (18, 15)
    """
    return max(math.ceil(prompts * n_sets / batch) * batch // n_sets, 1)
