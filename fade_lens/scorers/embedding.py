"""`embedding`: are texts on which the feature fires nearer in meaning to the description than texts on which it is silent?

AUROC of the cosine between the description's embedding and those of windows. No judge is asked: a sieve, and no headline, for it agrees little with
people (Spearman 0.32; Paulo et al. 2024). Every description of the run is also held against every feature's windows, so that each score stands
beside what the others get there.

A description with rules is as near to a text as the nearest of them is: each rule is embedded alone, and the largest cosine counts. Strengths do
not weigh here: a cosine is no probability, its zero point differs from text to text, and a share of it would rank a text that a weak rule fits
well below one that no rule fits. (They say how strongly the feature fires; whether it fires at all is what is asked.) Rules of strength 0 are
left out, and a description of nothing else is as near to every text.

Needs the extra `similarity`. No calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

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
from fade_lens.scorers.base import RuleScores, Scored, Scorer, ScoreSpec, Scoring, scorer
from fade_lens.scorers.deciding import Documents, JudgedWindow, WindowScores, WindowSettings, graded, untestable
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
    def estimate(cls, judge: Judge, settings: SubjectSettings, descriptions: Sequence[Description], n_texts: int) -> Estimate:  # noqa: ARG003  # fmt: skip
        return forecast.NOTHING

    def ask(self, descriptions: Sequence[Description]) -> Sequence[Description]:
        return descriptions

    def measure(self, asked: Sequence[Description]) -> dict[Description, WindowScores]:
        reasons = untestable(self.scoring, asked, self.settings.tested_texts_least)
        windows = self.windows([index for index, reason in reasons.items() if reason is None])
        claims = list(dict.fromkeys(tuple(text for text, _ in d.claims) for d in asked))
        column = {some: at for at, some in enumerate(claims)}
        words = {text: at for at, text in enumerate(dict.fromkeys(text for some in claims for text in some))}
        texts = list(dict.fromkeys(t.text for some in windows.values() for t in some))
        vectors = dict(zip(texts, embed(texts), strict=True))
        meant = embed(list(words))
        cosines = {i: np.stack([vectors[t.text] for t in some]) @ meant.T for i, some in windows.items()}
        # Of a description with rules the nearest one's; with no rule that claims anything all are alike.
        whole = {i: np.stack([near[:, [words[t] for t in some]].max(axis=1, initial=-1) for some in claims], axis=1) for i, near in cosines.items()}  # fmt: skip
        beside = {i: aurocs(found, np.array([t.positive for t in windows[i]])) for i, found in whole.items()}
        documents = self.scoring.evidence.subject.tokens.documents
        scores: dict[Description, WindowScores] = {}
        for d in asked:
            if (reason := reasons[d.index]) is not None:
                scores[d] = WindowScores({"embedding": Metric(None, reason)})
                continue
            own = column[tuple(text for text, _ in d.claims)]
            others = np.delete(beside[d.index], own)

            def scored(near: Float[np.ndarray, " window"], index: int = d.index, others: Any = others) -> WindowScores:
                seed = stream(self.settings.seed, "embedding", "interval", index)
                texts = tuple(replace(t, score=s) for t, s in zip(windows[index], near.tolist(), strict=True))
                return WindowScores({"embedding": embedding_of(texts, others, seed, documents)}, texts)

            alone = cosines[d.index].T
            rules = (RuleScores(*rule, scored(alone[words[rule[0]]]).metrics) for rule in d.claims if d.rules)
            scores[d] = replace(scored(whole[d.index][:, own]), rules=tuple(rules))
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


def embedding_of(texts: Sequence[JudgedWindow], others: Float[np.ndarray, " description"], seed: int = 0, documents: Documents = None) -> Metric:  # fmt: skip
    """AUROC of graded windows. Its details: what the run's other descriptions get on them in the mean (`others`), and the share of these below it.

    Args:
        texts: with scores.
        others: AUROC of the run's other descriptions on them.
        seed: of the interval.
        documents: of the corpus' texts.
    """
    found = graded("value", texts, seed, documents)
    value, *interval = (cast("float", found[key]) for key in ("value", "value_low", "value_high"))
    counts = {"positives": sum(t.positive for t in texts), "negatives": sum(not t.positive for t in texts)}
    more = {"others": float(others.mean()), "percentile": float((others < value).mean())} if len(others) else {}
    return Metric(value, None, (interval[0], interval[1]), counts, {"others": None, "percentile": None, **more})
