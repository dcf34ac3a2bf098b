"""What the corpus alone tells about features: how often they fire, and their strongest texts token by token."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from fade_lens._util.brief import Brief
from fade_lens._util.reasons import Flag, Reason
from fade_lens.subject.settings import SummarySettings

if TYPE_CHECKING:
    from fade_lens.subject.subject import Subject

LENS = (
    "The final norm and the unembedding, applied to the direction alone. A layer norm subtracts the direction's mean first, folded into the "
    "weights or not; every norm divides by its size, so that values compare tokens, not features. Biases are left out, and the mean over the "
    "vocabulary is subtracted."
)
"""What is done, for the record and the reader."""
Near = tuple[tuple[int, float], ...]
"""Other features with their likeness, the most alike first."""


@dataclass(frozen=True)
class Promoted(Brief):
    """Tokens by their logits along one direction: the highest, the lowest, both from the end."""

    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class TopText(Brief):
    """A natural text token by token, as a rule one of those that activate a feature most.

    Attributes:
        number: of the text in the corpus.
        activation: the one of largest magnitude.
        tokens: what each token adds to the text.
        activations: the feature's activation at each token; None at a position that never counts.
        causes: what each token does to the activations behind it, in their units (`fade_lens.subject.causes`): above 0 it makes the feature
            fire, below 0 it holds it back. None at a special token, and as a whole where they were not asked for.
    """

    number: int
    activation: float
    tokens: tuple[str, ...]
    activations: tuple[float | None, ...]
    causes: tuple[float | None, ...] | None = None

    @property
    def strongest(self) -> int:
        """The position of the token with the largest |activation|."""
        return max(range(len(self.tokens)), key=lambda i: abs(self.activations[i] or 0.0), default=0)

    @property
    def peak(self) -> str:
        """The strongest token; a character of several tokens stands at the last of them."""
        return next((token for token in self.tokens[self.strongest :] if token), "")

    def window(self, tokens: int) -> slice:
        """The positions of so many tokens around the strongest one; two thirds stand before it, as a causal model has seen only these."""
        start = max(min(self.strongest - tokens * 2 // 3, len(self.tokens) - tokens), 0)
        return slice(start, start + tokens)

    def passage(self, tokens: int = 24) -> str:
        """So many tokens around the strongest one, which stands in «»; positions that never count are left out.

        >>> TopText(0, 2.0, ("<bos>", "a", " good", " day"), (None, 0.0, 2.0, 0.0)).passage()
        'a «good» day'
        """
        part, peak = self.window(tokens), self.peak
        at = next((i for i in range(self.strongest, len(self.tokens)) if self.tokens[i]), None)
        marked = (
            peak.replace(peak.strip(), f"«{peak.strip()}»") if peak.strip() else "«" + peak.replace("\n", "↵") + "»"
        )
        shown = (
            marked if i == at else token
            for i, token in enumerate(self.tokens)
            if part.start <= i < part.stop and (i == at or self.activations[i] is not None)
        )
        return ("… " if part.start else "") + "".join(shown).strip() + (" …" if part.stop < len(self.tokens) else "")


@dataclass(frozen=True)
class FeatureSummary(Brief):
    """What the corpus alone tells about a feature.

    Attributes:
        firing_rate: share of the counted tokens at which it is not zero.
        firing_texts: texts on which it fires.
        n_texts: texts with a token that counts.
        largest: the activation of largest magnitude, signed.
        reference: the unit of steering factors; None for a dead feature.
        quantiles: 101 evenly spaced quantiles of its largest activations on the texts, for plots.
        top: its strongest texts.
        logits: tokens by their logits along its direction, or why there are none; None where they were not asked for.
        nearest: features of the whole SAE with the nearest decoder directions, with the cosine; likewise.
        token_entropy: how evenly its activation on the strongest texts lies on different tokens of the vocabulary, in nats (see `token_entropy`).
    """

    firing_rate: float
    firing_texts: int
    n_texts: int
    largest: float
    reference: float | None
    quantiles: tuple[float, ...]
    top: tuple[TopText, ...] = field(default=())
    logits: Promoted | Reason | None = None
    nearest: Near | Reason | None = None
    token_entropy: float | None = None

    @property
    def effective_tokens(self) -> float | None:
        """On how many tokens it fires, as if on each alike: 1 where it is always the same one."""
        return None if self.token_entropy is None else exp(self.token_entropy)

    @property
    def dead(self) -> bool:
        """Whether the feature fires on no text of the corpus (see `fade_lens.subject.activations.fires`)."""
        return self.firing_texts == 0

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Whether it is dead, fires nearly always, or on too few texts to tell much."""
        flags: list[Flag] = []
        if self.dead:
            flags.append(Flag("dead", "never fires on the corpus"))
        elif self.firing_rate > 0.1:
            flags.append(Flag("dense", "fires on over 10 % of tokens"))
        if self.n_texts and 0 < self.firing_texts < 10:
            flags.append(Flag("rare", f"fires on {self.firing_texts} texts of the corpus"))
        return tuple(flags)


def summaries(subject: "Subject") -> dict[int, FeatureSummary]:
    """Every feature of a subject, by its index."""
    from fade_lens.subject.lens import promoted_tokens
    from fade_lens.subject.neighbours import nearest_directions

    settings, features = SummarySettings.of(subject.settings), subject.features
    strongest = {index: strongest_texts(subject.natural(index), settings.top_texts) for index in features.indices}
    caused = {index: texts[: settings.caused_texts] for index, texts in strongest.items()}
    shown = shown_texts(subject, strongest, caused)
    logits = promoted_tokens(subject.model, features, n) if (n := settings.promoted_tokens) else None
    nearest = nearest_directions(features, n) if (n := settings.neighbours) else None
    return {
        index: replace(
            summary_of(subject, index, shown[index]),
            logits=logits[column] if isinstance(logits, list) else logits,
            nearest=nearest[column] if isinstance(nearest, list) else nearest,
        )
        for column, index in enumerate(features.indices)
    }


def shown_texts(
    subject: "Subject", chosen: Mapping[int, Sequence[int]], caused: Mapping[int, Sequence[int]] | None = None
) -> dict[int, list[TopText]]:
    """Some texts of the corpus token by token, for each feature its own; the texts of all are run once more, each once.

    Those in `caused` have each token's cause.
    """
    from fade_lens.subject.activations import token_activations
    from fade_lens.subject.causes import causes_of
    from fade_lens.subject.tokens import pieces

    columns: dict[int, list[int]] = {}
    for index, texts in chosen.items():
        for text in texts:
            columns.setdefault(text, []).append(subject.column(index))
    numbers = sorted(columns)
    rows = token_activations(
        subject.model,
        subject.features,
        subject.tokens.select(numbers),
        subject.outliers,
        columns=[columns[number] for number in numbers],
        workers=subject.workers,
    )
    by_text = dict(zip(numbers, rows, strict=True))

    asked: dict[int, list[int]] = {}
    for index, texts in (caused or {}).items():
        for text in texts:
            asked.setdefault(text, []).append(subject.column(index))
    part, some = subject.tokens.select(list(asked)), list(asked.values())
    seen = [by_text[text][:, [columns[text].index(column) for column in those]] for text, those in asked.items()]
    causes = dict(zip(asked, causes_of(subject.model, subject.features, part, seen, some, workers=subject.workers), strict=True))  # fmt: skip

    def plain(values: Float[np.ndarray, " pos"]) -> tuple[float | None, ...]:
        return tuple(None if np.isnan(v) else float(v) for v in values)

    def shown(index: int, number: int) -> TopText:
        column = subject.column(index)
        values, those = by_text[number][:, columns[number].index(column)], asked.get(number, ())
        return TopText(
            number,
            float(subject.natural(index)[number]),
            pieces(subject.model.tokenizer, subject.tokens[number].tolist()),
            plain(values),
            plain(causes[number].causes[:, those.index(column)]) if column in those else None,
        )

    return {index: [shown(index, number) for number in texts] for index, texts in chosen.items()}


def strongest_texts(natural: Float[np.ndarray, "text"], n: int) -> list[int]:
    """The texts of largest |activation|, strongest first, those on which the feature is silent left out."""
    magnitude = np.abs(np.nan_to_num(natural))
    order = np.argsort(-magnitude, kind="stable")[:n]
    return [int(i) for i in order if magnitude[i] > 0]


def summary_of(subject: "Subject", index: int, top: Sequence[TopText]) -> FeatureSummary:
    """One feature's summary over the corpus."""
    from fade_lens.subject.activations import fires

    natural = subject.natural(index)
    defined = natural[~np.isnan(natural)]
    reference = subject.reference(index)
    return FeatureSummary(
        firing_rate=float(subject.activations.firing_rate[subject.column(index)]),
        firing_texts=int(fires(natural).sum()),
        n_texts=len(defined),
        largest=float(defined[np.abs(defined).argmax()]) if len(defined) else 0.0,
        reference=None if np.isnan(reference) else reference,
        quantiles=tuple(float(q) for q in np.quantile(defined, np.linspace(0, 1, 101))) if len(defined) else (),
        top=tuple(top),
        token_entropy=token_entropy((subject.tokens[text.number], text.activations) for text in top),
    )


def token_entropy(texts: Iterable[tuple[Int[np.ndarray, " _pos"], Sequence[float | None]]]) -> float | None:
    """Entropy of the token distribution, H = −Σ p_v ln p_v: p_v is the share of all activation that stands on token v of the vocabulary.

    Of what was tried on random and trained transformers it alone told them apart (Heap et al. 2025): it grows with depth where they are trained.

    Args:
        texts: token ids of each, and the activations at them, by magnitude; None where a position never counts.

    Returns:
        In nats; None where the feature fires at none.

    >>> token_entropy([(np.array([7, 8, 7]), [1.0, None, 1.0]), (np.array([9, 9]), [2.0, 0.0])])
    0.6931471805599453
    """
    share = defaultdict[int, float](float)
    for ids, activations in texts:
        for token, activation in zip(ids, activations, strict=True):
            share[int(token)] += abs(activation or 0.0)
    total = sum(share.values())
    return sum(a / total * log(total / a) for a in share.values() if a) if total else None
