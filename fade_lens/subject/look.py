"""What there is to see of a feature without a description: texts of every strength, tokens that it promotes, features that are like it."""

from collections import Counter
from dataclasses import dataclass
from math import log2

import numpy as np
from jaxtyping import Float

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.subject.lens import Promoted, promoted_tokens
from fade_lens.subject.neighbours import Near, firing_together, nearest_directions
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import FeatureSummary, TopText, shown_texts, strongest_texts, summary_of

BINS = 40


@dataclass(frozen=True)
class LookSettings(SubjectSettings):
    """What is shown of a feature; how it is read is the subject's."""

    strata: int = option(
        5, "Strata of the texts on which the feature fires, by activation, with equal numbers of texts.", least=1
    )
    stratum_texts: int = option(3, "Texts of each stratum, drawn at random, beside the strongest ones.", least=0)
    promoted_tokens: int = option(
        10, "Tokens that the direction promotes most, and as many that it suppresses.", least=0
    )
    neighbours: int = option(10, "Nearest decoder directions, and latents that fire on the same texts.", least=0)


@dataclass(frozen=True)
class Stratum:
    """Some of the `n` texts whose activation lies from `low` to `high`."""

    low: float
    high: float
    n: int
    texts: tuple[TopText, ...]


@dataclass(frozen=True)
class FeatureLook:
    """All that is shown of a feature.

    Attributes:
        feature: how often it fires, and its strongest texts.
        histogram: edges of bins of equal width, and how many texts have their activation in each; texts on which it is silent are left out.
        strata: the texts on which it fires, the strongest first.
        promoted: tokens by their logits along its direction, or why there are none.
        nearest: features of the whole SAE with the nearest decoder directions, with the cosine; or why there are none.
        together: of the features that are looked at, those that fire on the same texts, with the share of texts.
    """

    index: int
    feature: FeatureSummary
    histogram: tuple[tuple[float, ...], tuple[int, ...]]
    strata: tuple[Stratum, ...]
    promoted: Promoted | Reason
    nearest: Near | Reason
    together: Near

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
    """Every feature of a subject; the texts that are shown of all are run once more, each once."""
    drawn = {index: in_strata(subject.natural(index), index, settings) for index in subject.features.indices}
    top = {index: strongest_texts(subject.natural(index), settings.top_texts) for index in drawn}
    chosen = {
        index: list(dict.fromkeys([*top[index], *(text for *_, texts in strata for text in texts)]))
        for index, strata in drawn.items()
    }
    shown = {index: {text.number: text for text in texts} for index, texts in shown_texts(subject, chosen).items()}
    lens = promoted_tokens(subject.model, subject.features, settings.promoted_tokens)
    nearest = nearest_directions(subject.features, settings.neighbours)
    together = firing_together(subject.features, subject.activations.values, settings.neighbours)
    return tuple(
        FeatureLook(
            index,
            summary_of(subject, index, [shown[index][number] for number in top[index]]),
            histogram(subject.natural(index)),
            tuple(
                Stratum(low, high, n, tuple(shown[index][number] for number in texts))
                for low, high, n, texts in drawn[index]
            ),
            lens if isinstance(lens, Reason) else lens[column],
            nearest if isinstance(nearest, Reason) else nearest[column],
            () if isinstance(nearest, Reason) else together[column],
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
