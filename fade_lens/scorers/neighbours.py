"""`neighbours`: does the description tell the feature from the latents nearest to it, and does it fit one of them better?

The judge decides on windows in which the feature fires and on windows in which one of its nearest latents (by decoder cosine, or by the texts on which both fire) fires and the feature
is silent. Balanced accuracy is 0.5 by chance; the feature's rank is by the share of windows that a description is found in. A description that
detects well and tells no neighbours apart is too broad. Neurons have no directions that could be near. Each window is decided on by itself, as in
detection, so that a description with rules is found in a window where any of its rules is (see `fade_lens.scorers.deciding`).

Six calls a description, or a rule of it, at ten texts a request: ten windows of the feature, and ten of each of five latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.evidence.negatives import neighbourhood
from fade_lens.evidence.windows import ACTIVE, Draw, Evidence
from fade_lens.judge import Estimate, Judge
from fade_lens.metrics.decisions import balanced
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.base import ScoreSpec, scorer
from fade_lens.scorers.deciding import (
    Documents,
    JudgedWindow,
    Part,
    Task,
    WindowScorer,
    WindowSettings,
    effect_of,
    graded,
)
from fade_lens.scorers.detection import task
from fade_lens.subject.settings import SubjectSettings

NEAR = "neighbour "
"""Begins the kind of a window of a neighbour; its index follows."""


@dataclass(frozen=True)
class NeighboursSettings(WindowSettings):
    """How many windows of how many latents a description is tested on."""

    neighbour_texts: int = option(10, "Texts of the feature, and of each of its nearest latents, that tell them apart.", least=4)  # fmt: skip
    neighbour_latents: int = option(5, "Nearest latents that a description should be told apart from.", least=1, most=50)  # fmt: skip


@scorer("neighbours")
class Neighbours(WindowScorer):
    """Balanced accuracy of the judge's decisions on windows of the feature and of its nearest latents, 0.5 by chance."""

    specs: ClassVar[tuple[ScoreSpec, ...]] = (
        ScoreSpec(
            "neighbours", "Neighbours", "Does the description tell the feature from the latents nearest to it?", chance=0.5
        ),
    )  # fmt: skip
    Settings: ClassVar[type[SubjectSettings]] = NeighboursSettings
    settings: NeighboursSettings

    @classmethod
    def estimate_one(cls, judge: Judge, own: NeighboursSettings, n_texts: int) -> Estimate:
        n = min(own.neighbour_texts, n_texts) * (1 + own.neighbour_latents)
        return task(judge).estimate(judge, n, own.window_tokens, own.decisions_per_request)

    def parts(self, indices: Sequence[int]) -> Mapping[int, Sequence[Part] | Reason]:
        from fade_lens.subject.tokens import decode

        evidence, role, own = self.scoring.evidence, self.scoring.role, self.settings
        tokens, tokenizer = evidence.subject.tokens, evidence.subject.model.tokenizer
        found = neighbourhood(evidence, own.neighbour_latents)
        if found is None:
            return dict.fromkeys(indices, Reason("no_neighbours", "neurons have no nearest latents"))
        near, of = found
        theirs = Evidence(near, evidence.settings)
        parts: dict[int, Sequence[Part] | Reason] = {}
        for index in indices:
            places = evidence.drawn(index, role, Draw(own.neighbour_texts, purpose="neighbours"))
            quiet = set(evidence.silent(index, role).tolist())
            for other in of[index]:
                some = [p for p in theirs.drawn(other, role, Draw(10**6)) if p.text in quiet]
                order = rng(own.seed, "neighbours", index, other).permutation(len(some))[: own.neighbour_texts]
                places += [some[at]._replace(kind=f"{NEAR}{other}") for at in order.tolist()]
            words = [decode(tokenizer, tokens[p.text][p.first : p.last].tolist()) for p in places]
            part = tuple(JudgedWindow.of(p, text, positive=p.kind == ACTIVE) for p, text in zip(places, words, strict=True))  # fmt: skip
            alone = all(text.positive for text in part)
            parts[index] = Reason("no_neighbours", "its nearest latents fire on no text on which it is silent") if alone else [part]  # fmt: skip
        return parts

    def task(self) -> Task:
        return task(self.scoring.judge)

    def metric(self, texts: Sequence[JudgedWindow], seed: int) -> Metric:
        return neighbours_of(texts, seed, self.documents)


def neighbours_of(texts: Sequence[JudgedWindow], seed: int = 0, documents: Documents = None) -> Metric:
    """Balanced accuracy on windows of the feature and of its neighbours.

    Its details also have the feature's `rank` among them by the share of windows that the description is found in (1 is best; ties count half),
    of how many (`among`), and the neighbour that fits better than the feature, if one does (`better`).

    Args:
        texts: with decisions.
        seed: of the interval of AUROC.
        documents: of the corpus' texts.
    """
    own, others = ([t for t in texts if t.positive is side] for side in (True, False))
    metric = balanced([t.outcome for t in own], [t.outcome for t in others], effect=effect_of((own, others), documents))
    if metric.value is None:
        return metric
    shares: dict[str, float] = {}
    for kind in dict.fromkeys(t.kind for t in texts):
        if known := [t.decided for t in texts if t.kind == kind and t.decided is not None]:
            shares[kind] = sum(known) / len(known)
    mine = shares.pop(ACTIVE)
    rank = 1 + sum(share > mine for share in shares.values()) + sum(share == mine for share in shares.values()) / 2
    best = max(shares, key=lambda kind: shares[kind])
    better = float(best.removeprefix(NEAR)) if shares[best] > mine else None
    more = graded("auroc", texts, seed, documents) | {"rank": rank, "among": float(1 + len(shares)), "better": better}
    return replace(metric, details={**metric.details, **more})
