"""`patchscopes`: an instruction-tuned subject describes its own directions, and texts decide which of its answers holds.

A feature's direction is put in for a placeholder at many strengths (see `fade_lens.generation.patchscopes`). Answers that owe less to it than a
random direction of the same norm gives are left out; which of the others tells where the feature fires is tried on windows of the role *select*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens.evidence.windows import Draw, Evidence
from fade_lens.explainers.base import REASONS, Explainer, ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.trying import Answers, Node, best, held_windows
from fade_lens.judge import Estimate, Judge, holding
from fade_lens.judge.asking import Questions
from fade_lens.subject.settings import SubjectSettings

if TYPE_CHECKING:
    from fade_lens.generation.patchscopes import Answer
    from fade_lens.subject.hooks import Model


@dataclass(frozen=True)
class PatchscopesSettings(ExplainerSettings):
    """How the model is asked about a direction."""

    patch_scales: tuple[float, ...] = option((0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), "Norms of a direction that is put in for a word, in units of the residual stream's.")  # fmt: skip
    patch_layer: int | None = option(None, "In front of which block it is put in.", least=0, none="the third")
    patch_tokens: int = option(12, "Tokens of the model's answer at most.", least=1)
    patch_texts: int = option(24, "Windows on which the answer is chosen, half of them with the feature firing.", least=8)  # fmt: skip


@explainer("patchscopes")
class Patchscopes(Explainer):
    """Asks the subject itself what its direction means, and the judge which answer holds: one call a feature, none where there is one answer."""

    Settings: ClassVar[type[ExplainerSettings]] = PatchscopesSettings

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.patch = PatchscopesSettings.of(settings)

    def check(self, model: "Model") -> None:
        from fade_lens.generation.patchscopes import question

        question(model, layer=self.patch.patch_layer)

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        own = PatchscopesSettings.of(settings)
        return holding.estimate(judge, len(own.patch_scales), own.patch_texts, own.window_tokens) * n_features

    def draws(self) -> tuple[Draw, ...]:
        return ()

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        from fade_lens.generation.patchscopes import answers, question
        from fade_lens.subject.lens import in_residual_stream

        found = super().gather(evidence, indices)
        if not found:
            return found
        subject, own = evidence.subject, self.patch
        rows = in_residual_stream(subject.model, subject.features.select(list(found)))
        if isinstance(rows, Reason):
            return found
        about = question(subject.model, layer=own.patch_layer)
        said = answers(subject.model, about, rows, own.patch_scales, new_tokens=own.patch_tokens, seed=own.seed)
        held = held_windows(evidence, list(found), "select", own.patch_texts, "patchscopes")
        return {
            index: replace(one, likelier=kept(mine, null), held={"select": held[index]})
            for (index, one), (mine, null) in zip(found.items(), said, strict=True)
        }

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        nodes = [Node(((text, 5),), text) for text in evidence.likelier]
        if not nodes:
            return Explanation.of(evidence, reason=Reason("nothing_common", REASONS["nothing_common"]))
        known = Answers(questions, evidence, self.settings.seed)
        if len(nodes) == 1 or not known.both_kinds("select"):
            return replace(Explanation.of(evidence, nodes[0].name), search={"candidates": float(len(nodes))})
        await known.learn([node.name for node in nodes], "select")
        await known.score(nodes, "select")
        chosen = best(nodes, "select", 1)[0]
        search = {"candidates": float(len(nodes)), "select": chosen.scores["select"]}
        return replace(Explanation.of(evidence, chosen.name), search=search)


def kept(own: "Sequence[Answer]", null: "Sequence[Answer]") -> tuple[str, ...]:
    """The different answers that owe more to the direction than those of a random one do, those of the most relevance first."""
    pairs = [mine for mine, other in zip(own, null, strict=True) if mine.says_more_than(other)]
    ordered = sorted(pairs, key=lambda answer: -answer.relevancy)
    return tuple(dict.fromkeys(answer.text for answer in ordered))
