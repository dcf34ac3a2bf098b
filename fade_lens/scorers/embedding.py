"""`embedding`: are texts on which the feature fires nearer in meaning to the description than texts on which it is silent?

AUROC of the cosine between the description's embedding and those of windows. No judge is asked: a sieve, and no headline, for it agrees little with
people (Spearman 0.32; Paulo et al. 2024). Every description of the run is also held against every feature's windows, so that each score stands
beside what the others get there. Descriptions with rules are embedded as the sentence made of them.

Needs the extra `similarity`. No calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np
from jaxtyping import Float

from fade_lens._util.options import option
from fade_lens._util.seeds import stream
from fade_lens.data.descriptions import Description
from fade_lens.data.embedding import check_embedding, embed
from fade_lens.evidence.negatives import negatives_of
from fade_lens.evidence.windows import ACTIVE, Draw
from fade_lens.judge import Estimate, Judge, forecast
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import aurocs
from fade_lens.scorers.base import Scored, Scorer, ScoreSpec, Scoring, scorer
from fade_lens.scorers.deciding import JudgedWindow, WindowScores, WindowSettings, graded, untestable
from fade_lens.subject.settings import SubjectSettings


@dataclass(frozen=True)
class EmbeddingSettings(WindowSettings):
    """How many texts are embedded."""

    embedding_texts: int = option(100, "Texts of each feature whose embeddings are compared with the description's, half of them with the feature firing.", least=8)  # fmt: skip


@scorer("embedding")
class Embedding(Scorer):
    """AUROC of the cosine between description and text, 0.5 by chance."""

    specs: ClassVar[tuple[ScoreSpec, ...]] = (
        ScoreSpec(
            "embedding",
            "Embedding",
            "Are texts on which the feature fires nearer in meaning to the description?",
            chance=0.5,
            needs=(),
        ),
    )
    Settings: ClassVar[type[SubjectSettings]] = EmbeddingSettings
    Evidence: ClassVar[type[Scored]] = WindowScores

    def __init__(self, scoring: Scoring) -> None:
        super().__init__(scoring)
        self.settings = EmbeddingSettings.of(scoring.settings)

    @classmethod
    def check(cls, settings: SubjectSettings) -> None:  # noqa: ARG003
        check_embedding("The scorer 'embedding'")

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_descriptions: int, n_texts: int, null: str | None = None) -> Estimate:  # noqa: ARG003  # fmt: skip
        return forecast.NOTHING

    def ask(self, descriptions: Sequence[Description]) -> Sequence[Description]:
        return descriptions

    def measure(self, asked: Sequence[Description]) -> dict[Description, WindowScores]:
        reasons = untestable(self.scoring, asked, self.settings.tested_texts_least)
        windows = self.windows([index for index, reason in reasons.items() if reason is None])
        words = list(dict.fromkeys(d.text for d in asked))
        column = {text: at for at, text in enumerate(words)}
        texts = list(dict.fromkeys(t.text for some in windows.values() for t in some))
        vectors = dict(zip(texts, embed(texts), strict=True))
        meant = embed(words)
        cosines = {i: np.stack([vectors[t.text] for t in some]) @ meant.T for i, some in windows.items()}
        beside = {i: aurocs(found, np.array([t.positive for t in windows[i]])) for i, found in cosines.items()}
        scores: dict[Description, WindowScores] = {}
        for d in asked:
            if (reason := reasons[d.index]) is not None:
                scores[d] = WindowScores({"embedding": Metric(None, reason)})
                continue
            own = cosines[d.index][:, column[d.text]].tolist()
            tested = tuple(replace(t, score=score) for t, score in zip(windows[d.index], own, strict=True))
            metric = embedding_of(tested, beside[d.index], column[d.text], stream(self.settings.seed, "embedding", "interval", d.index))  # fmt: skip
            scores[d] = WindowScores({"embedding": metric}, tested)
        return scores

    def windows(self, indices: Sequence[int]) -> Mapping[int, tuple[JudgedWindow, ...]]:
        """Windows of some features, half of them with the feature firing; no text is run."""
        from fade_lens.subject.tokens import decode

        evidence, role, n = self.scoring.evidence, self.scoring.role, self.settings.embedding_texts
        tokens, tokenizer = evidence.subject.tokens, evidence.subject.model.tokenizer
        draw, kinds = Draw(n - n // 2, purpose="embedding"), ("random_silent",)
        silent = negatives_of(evidence, kinds).draw(role, n // 2, kinds, indices=indices, purpose="embedding")
        places = {i: [*evidence.drawn(i, role, draw), *silent[i][kinds[0]]] for i in indices}
        return {
            i: tuple(
                JudgedWindow.of(p, decode(tokenizer, tokens[p.text][p.first : p.last].tolist()), positive=p.kind == ACTIVE)
                for p in some
            )
            for i, some in places.items()
        }  # fmt: skip


def embedding_of(
    texts: Sequence[JudgedWindow], beside: Float[np.ndarray, " description"], own: int, seed: int = 0
) -> Metric:
    """AUROC of graded windows. Its details: what the run's other descriptions get on them in the mean (`others`), and the share of these below it.

    Args:
        texts: with scores.
        beside: AUROC of every description of the run on them.
        own: which of these is this one's.
        seed: of the interval.
    """
    found = graded("value", texts, seed)
    value, *interval = (cast("float", found[key]) for key in ("value", "value_low", "value_high"))
    counts = {"positives": sum(t.positive for t in texts), "negatives": sum(not t.positive for t in texts)}
    others = np.delete(beside, own)
    more = {"others": float(others.mean()), "percentile": float((others < value).mean())} if len(others) else {}
    return Metric(value, None, (interval[0], interval[1]), counts, {"others": None, "percentile": None, **more})
