"""When enough is rated: texts and continuations are rated in rounds, until the intervals are narrow enough."""

from dataclasses import dataclass

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.options import option
from fade_lens.metrics.metric import GATE, Metric
from fade_lens.subject.settings import SubjectSettings

GROWTH = 2.0
"""No round brings the texts to more than this many times those before: a width of few texts promises little."""
SHORT = 0.9
"""Share of the missing texts, as they are reckoned, that a round asks for: a text too many costs more than another round."""


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
    """How many more than `n` are worth asking for at once, so that an interval gets no wider than `wanted`."""
    growth = GROWTH if width is None else min((width / wanted) ** 2, GROWTH)
    return SHORT * n * (growth - 1)


def widest(*metrics: Metric) -> float | None:
    """The width of the widest interval; None where one has none."""
    widths = [metric.interval[1] - metric.interval[0] for metric in metrics if metric.interval is not None]
    return max(widths) if len(widths) == len(metrics) else None
