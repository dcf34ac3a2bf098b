"""`tfidf`: the words on which a feature fires that other texts lack; no language model. The floor of every table."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens.evidence.windows import Evidence, Window
from fade_lens.explainers.base import REASONS, Explainer, ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.asking import Questions
from fade_lens.subject.settings import SubjectSettings

WORD = re.compile(r"\w+|[^\w\s]+")
"""A word, or signs that stand together."""
SHARE = 0.2
"""A further word is named whose weight is at least this share of the first one's."""


@dataclass(frozen=True)
class TfidfSettings(ExplainerSettings):
    """How many words are named."""

    tfidf_words: int = option(5, "Words that a description by TF-IDF names at most.", least=1)


@explainer("tfidf")
class Tfidf(Explainer):
    """Names the words with the largest activation over the windows, weighted by how few texts have them. No calls."""

    Settings: ClassVar[type[ExplainerSettings]] = TfidfSettings
    asks = False

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:  # noqa: ARG003
        return Estimate(0, 0, 0, 0.0)

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        texts = evidence.subject.tokens.texts
        shown = evidence.texts("show").tolist()
        self.texts_with = Counter(word for i in shown for word in {m[0].casefold() for m in WORD.finditer(texts[i])})
        self.n_texts = len(shown)
        return super().gather(evidence, indices)

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:  # noqa: ARG002
        weights: defaultdict[str, float] = defaultdict(float)
        for window in evidence.active:
            for word, activation in words(window).items():
                rare = log((1 + self.n_texts) / (1 + min(self.texts_with[word], self.n_texts)))
                weights[word] += activation / evidence.scale * rare
        most = TfidfSettings.of(self.settings).tfidf_words
        ranked = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
        best = [(word, weight) for word, weight in ranked if weight > 0]
        named = [repr(word) for word, weight in best if weight >= SHARE * best[0][1]]
        if not named:
            return Explanation.of(evidence, reason=Reason("nothing_common", REASONS["nothing_common"]))
        return Explanation.of(evidence, f"the word{'s' * (len(named) > 1)} {', '.join(named)}")


def words(window: Window) -> dict[str, float]:
    """The words of a window in small letters, each with the largest activation of its tokens."""
    ends, found = list(ends_of(window)), dict[str, float]()
    for match in WORD.finditer(window.text):
        own = [a for start, end, a in ends if start < match.end() and end > match.start()]
        word = match[0].casefold()
        found[word] = max(found.get(word, 0.0), *own, 0.0)
    return found


def ends_of(window: Window) -> Iterator[tuple[int, int, float]]:
    """Where each token begins and ends in the window's text, and its activation."""
    at = 0
    for token, activation in zip(window.tokens, window.activations, strict=True):
        yield at, at + len(token), activation or 0.0
        at += len(token)
