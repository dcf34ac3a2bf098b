"""What there is to see of a feature without a description: texts of every strength, tokens that it promotes, features that are like it."""

from collections import Counter
from dataclasses import dataclass
from math import log2

import numpy as np
from jaxtyping import Float

from fade_lens._util.brief import Brief
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.subject.neighbours import firing_together
from fade_lens.subject.settings import SummarySettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import FeatureSummary, Near, Promoted, TopText, shown_texts, strongest_texts, summaries

BINS = 40


@dataclass(frozen=True)
class LookSettings(SummarySettings):
    """What is shown of a feature; how it is read is the subject's."""

    strata: int = option(
        5, "Strata of the texts on which the feature fires, by activation, with equal numbers of texts.", least=1
    )
    stratum_texts: int = option(3, "Texts of each stratum, drawn at random, beside the strongest ones.", least=0)
    changed_tokens: int = option(
        0,
        "Tokens that the model says more often where the feature is steered at its reference activation, and as many that it says less often.",
        least=0,
    )


@dataclass(frozen=True)
class Stratum(Brief):
    """Some of the `n` texts whose activation lies from `low` to `high`."""

    low: float
    high: float
    n: int
    texts: tuple[TopText, ...]


@dataclass(frozen=True)
class FeatureLook(Brief):
    """All that is shown of a feature.

    Attributes:
        feature: how often it fires, its strongest texts, the tokens that it promotes, the nearest decoder directions.
        histogram: edges of bins of equal width, and how many texts have their activation in each; texts on which it is silent are left out.
        strata: the texts on which it fires, the strongest first.
        together: of the features that are looked at, those that fire on the same texts, with the share of texts.
        changed: tokens with the change of their log-probability by steering; None where they were not asked for.
    """

    index: int
    feature: FeatureSummary
    histogram: tuple[tuple[float, ...], tuple[int, ...]]
    strata: tuple[Stratum, ...]
    together: Near
    changed: Promoted | None = None

    @property
    def promoted(self) -> Promoted | Reason | None:
        """Tokens by their logits along its direction, or why there are none."""
        return self.feature.logits

    @property
    def nearest(self) -> Near | Reason | None:
        """Features of the whole SAE with the nearest decoder directions, or why there are none."""
        return self.feature.nearest

    @property
    def peaks(self) -> Counter[str]:
        """The tokens at which its strongest texts peak."""
        return Counter(text.peak for text in self.feature.top)

    @property
    def entropy(self) -> float | None:
        """Of those tokens, in bits: 0 where it is always the same one, the logarithm of their number where none comes twice. None if it never fires."""
        n = len(self.feature.top)
        return sum(m / n * log2(n / m) for m in self.peaks.values()) if n else None


def looks(subject: Subject, settings: LookSettings) -> tuple[FeatureLook, ...]:
    """Every feature of a subject."""
    about = summaries(subject)
    drawn = {index: in_strata(subject.natural(index), index, settings) for index in subject.features.indices}
    shown = shown_texts(subject, {index: [n for *_, some in strata for n in some] for index, strata in drawn.items()})
    texts = {index: {text.number: text for text in some} for index, some in shown.items()}
    together = firing_together(subject.features, subject.activations.values, settings.neighbours)
    return tuple(
        FeatureLook(
            index,
            about[index],
            histogram(subject.natural(index)),
            tuple(
                Stratum(low, high, n, tuple(texts[index][number] for number in some))
                for low, high, n, some in drawn[index]
            ),
            () if isinstance(about[index].nearest, Reason) else together[column],
        )
        for column, index in enumerate(subject.features.indices)
    )


def in_strata(
    natural: Float[np.ndarray, "text"], index: int, settings: LookSettings
) -> list[tuple[float, float, int, list[int]]]:
    """Strata of the texts on which a feature fires, the strongest first: lowest and highest activation, number of texts, texts drawn.

    The strongest texts, which are shown in any case, are drawn in none.
    """
    firing = np.array(strongest_texts(natural, len(natural)), dtype=np.int64)
    generator, found = rng(settings.seed, "look", index), list[tuple[float, float, int, list[int]]]()
    for part in np.array_split(firing, settings.strata):
        if len(part):
            free = np.setdiff1d(part, firing[: settings.top_texts])
            some = generator.choice(free, min(settings.stratum_texts, len(free)), replace=False)
            texts = sorted(some.tolist(), key=lambda text: -abs(float(natural[text])))
            found.append((float(natural[part[-1]]), float(natural[part[0]]), len(part), texts))
    return found


def histogram(natural: Float[np.ndarray, "text"]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Edges and counts of bins of equal width over the activations of the texts on which a feature fires."""
    firing = natural[np.isfinite(natural) & (natural != 0)].astype(np.float64)
    if not len(firing):
        return (), ()
    counts, edges = np.histogram(firing, BINS, (min(firing.min(), 0.0), max(firing.max(), 0.0)))
    return tuple(edges.tolist()), tuple(counts.tolist())
