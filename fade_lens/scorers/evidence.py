"""What each number rests on: the texts, activations, ratings and continuations behind one description's metrics."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fade_lens._util.brief import Brief
from fade_lens.generation.continuations import Fluency
from fade_lens.metrics.detection import Detection, detection
from fade_lens.metrics.labelled import UNRATED, LabelledTexts
from fade_lens.metrics.metric import Metric


@dataclass(frozen=True)
class SyntheticText(Brief):
    """A text the judge wrote to express the concept; `activation` is None where no position of it counts."""

    text: str
    activation: float | None


@dataclass(frozen=True)
class RatedText(Brief):
    """A natural text that the judge was asked about.

    `number` is its place in the corpus, `inclusion` its probability of being chosen; `rating` is 0, 1, 2, or None with
    the `reason`; `score` is the judge's graded score where it gives one.
    """

    number: int
    text: str
    activation: float
    inclusion: float
    rating: int | None
    score: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Continuation(Brief):
    """What the model wrote after a natural beginning, steered at `factor` (0: unsteered), and the judge's rating of it."""

    factor: float
    prompt: str
    text: str
    rating: int | None
    score: float | None = None
    reason: str | None = None
    nll: float | None = None
    """Mean negative log-likelihood of its tokens, in nats, under the unsteered model."""


@dataclass(frozen=True)
class Control(Brief):
    """A control for steering, its continuations rated for the same description.

    `name` is "ablate" (the feature set to zero), "random_direction" (of equal length) or "other" (another feature's
    direction at equal length: that of feature `other`).
    """

    name: str
    faithfulness: Metric
    continuations: tuple[Continuation, ...] = ()
    other: int | None = None


@dataclass(frozen=True)
class ClarityEvidence(Brief):
    """Clarity and the texts written for it; `failures` says why requests gave no text."""

    clarity: Metric
    texts: tuple[SyntheticText, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class RatedEvidence(Brief):
    """Responsiveness and Purity, which rest on the same rated texts."""

    responsiveness: Metric
    purity: Metric
    texts: tuple[RatedText, ...] = ()
    stopped: str | None = None
    """Why fewer texts were rated than the settings allow; None where all were."""

    @cached_property
    def detection(self) -> Detection:
        """Best F1, IoU, correlation and balanced accuracy on the rated texts."""
        return detection(self.labelled)

    @cached_property
    def labelled(self) -> LabelledTexts:
        """The texts rated 2 or 0, each weighted by 1 / inclusion."""
        return LabelledTexts.of_ratings(
            np.array([t.activation for t in self.texts], dtype=np.float64),
            np.array([UNRATED if t.rating is None else t.rating for t in self.texts], dtype=np.int64),
            1 / np.array([t.inclusion for t in self.texts], dtype=np.float64),
        )


@dataclass(frozen=True)
class FaithfulnessEvidence(Brief):
    """Faithfulness and the continuations behind it (none where the gate was not passed).

    `fluency` has an entry for each steering factor; `controls` are the controls that were asked for.
    """

    faithfulness: Metric
    continuations: tuple[Continuation, ...] = ()
    fluency: tuple[Fluency, ...] = ()
    controls: tuple[Control, ...] = ()
