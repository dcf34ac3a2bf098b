"""`meanings`: a rule for each kind of context in which a feature fires, as many as are told apart on windows that did not make them.

After PRISM (2025), which cuts the windows of every feature into five clusters. Here the number is chosen: windows of the role *show* are clustered by
their meaning, and clusters count where windows of the role *refine* are told apart by them (see `fade_lens.metrics.separability`). One
meaning is the rule of one cluster. A window is known by its words and, as much, by the word at its peak: by its words alone what surrounds a word
outweighs the word that the feature fires on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from fade_lens._util.options import option
from fade_lens._util.seeds import stream
from fade_lens._util.wording import same_words
from fade_lens._util.words import evenly
from fade_lens.data.embedding import check_embedding, embed
from fade_lens.data.rules import STRONGEST, Rule
from fade_lens.evidence.windows import Draw, Evidence, Window
from fade_lens.explainers.base import ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.one_shot import OneShot, OneShotSettings
from fade_lens.explainers.tfidf import WORD, ends_of
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.asking import Questions, all_of
from fade_lens.metrics.separability import Parts, parts_of
from fade_lens.subject.settings import SubjectSettings

if TYPE_CHECKING:
    from fade_lens.subject.hooks import Model

UNRELATED = 100
"""Windows of any texts that tell what having nothing in common means."""


@dataclass(frozen=True)
class MeaningsSettings(OneShotSettings):
    """How contexts are clustered."""

    meaning_cap: int = option(5, "Meanings of a feature at most, each of which is asked about in a request.", least=1, most=5)  # fmt: skip
    meaning_windows: int = option(60, "Windows that are clustered, and half as many that tell whether clusters hold.", least=12)  # fmt: skip


@explainer("meanings")
class Meanings(OneShot):
    """Clusters the windows in which a feature fires and asks about each cluster as `one-shot` does. At most 5 calls a feature."""

    version: ClassVar[str] = "1"
    Settings: ClassVar[type[ExplainerSettings]] = MeaningsSettings

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.own = MeaningsSettings.of(settings)
        self.parts: dict[int, Parts] = {}

    def check(self, model: "Model") -> None:  # noqa: ARG002
        check_embedding("Explaining by meanings")

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        return super().estimate(judge, settings, n_features) * MeaningsSettings.of(settings).meaning_cap

    @property
    def rules(self) -> int:
        return self.own.meaning_cap

    def draws(self) -> tuple[Draw, ...]:
        return (Draw(self.own.meaning_windows, purpose="meanings"),)

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        found = super().gather(evidence, indices)
        draw = Draw(self.own.meaning_windows // 2, purpose="meanings")
        held = evidence.read({i: evidence.drawn(i, "refine", draw) for i in found})
        unrelated = vectors(unrelated_windows(evidence))
        unrelated = unrelated[finite(unrelated)]
        for index, one in found.items():
            shown, tested = (vectors([(w.text, peak_word(w)) for w in some]) for some in (one.active, held[index]))
            known, labels = finite(shown), np.zeros(len(shown), dtype=np.int64)
            made = parts_of(shown[known], tested[finite(tested)], unrelated, self.own.meaning_cap, stream(self.own.seed, "meanings", index) % 2**31)  # fmt: skip
            labels[known] = made.labels
            self.parts[index] = replace(made, labels=labels)
        return found

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        parts, n = self.parts[evidence.index], sum(draw.n for draw in self.how.draws)
        windows = [[w for w, label in zip(evidence.active, parts.labels, strict=True) if label == part] for part in range(parts.k)]  # fmt: skip
        ask = super().explain
        said = await all_of(ask(replace(evidence, active=tuple(evenly(some, n))), questions) for some in windows)
        means = [float(np.mean([w.largest for w in some])) for some in windows]
        rules: dict[str, Rule] = {}
        for one, mean in zip(said, means, strict=True):  # the largest cluster's first; labels that say the same are one
            if one.description is not None:
                text, strength = one.description.text, max(1, round(STRONGEST * mean / max(means)))
                text, before = rules.get(same_words(text), (text, 0))
                rules[same_words(text)] = text, max(strength, before)
        places = {place for one in said for place in one.shown}
        seen = replace(evidence, active=tuple(w for w in evidence.active if tuple(w.place[:3]) in places))
        search = {"candidates": 1.0 + len(parts.separability), "meanings": float(parts.k), "unnamed": float(sum(one.description is None for one in said))}  # fmt: skip
        search |= {f"separability_{k}": value for k, value in parts.separability.items()}
        reason = None if rules else said[0].reason
        return replace(Explanation.of(seen, rules=tuple(rules.values()), reason=reason), search=search)


def vectors(windows: Sequence[tuple[str, str]]) -> Float[np.ndarray, "window d"]:
    """Windows, each its text and the word at its peak, as vectors of length 1: of one half from either."""

    def embedded(some: list[str]) -> Float[np.ndarray, "window d"]:
        place = {text: at for at, text in enumerate(dict.fromkeys(some))}  # words at peaks come again and again
        return embed(list(place))[[place[text] for text in some]]

    halves = [embedded([text for text, _ in windows]), embedded([word for _, word in windows])]
    return np.concatenate(halves, axis=1) / np.sqrt(2)


def finite(some: Float[np.ndarray, "window d"]) -> Bool[np.ndarray, " window"]:
    """Which windows could be embedded; one that could not goes with the largest cluster."""
    return np.isfinite(some.sum(axis=1))


def peak_word(window: Window) -> str:
    """The word that a window's peak is in, or a part of; the token where it is in none."""
    start, end, _ = list(ends_of(window))[window.peak]
    return next((m[0] for m in WORD.finditer(window.text) if m.start() < end and m.end() > start), window.tokens[window.peak])  # fmt: skip


def unrelated_windows(evidence: Evidence) -> list[tuple[str, str]]:
    """Windows in the middle of texts of *refine*, evenly spread over the corpus, each with the word in its own middle: the same for every feature."""
    from fade_lens.subject.tokens import decode

    tokens, found = evidence.subject.tokens, list[tuple[str, str]]()
    for text in evenly(evidence.texts("refine").tolist(), UNRELATED):
        first, last = evidence.span(text, int(tokens.lengths[text]) // 2, evidence.default)
        words = decode(evidence.subject.model.tokenizer, tokens[text][first:last].tolist())
        if own := WORD.findall(words):
            found.append((words, own[len(own) // 2]))
    return found
