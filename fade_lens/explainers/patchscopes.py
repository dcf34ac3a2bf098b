"""`patchscopes`: an instruction-tuned subject describes its own directions, and texts decide which of its answers holds.

A feature's direction is put in for a placeholder at many strengths (see `fade_lens.generation.patchscopes`). Answers that say no more than those to
random directions of the same norms are left out; which of the others tells where the feature fires is tried on windows of the role *select*.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fade_lens._util.errors import renamed
from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens.evidence.windows import Draw, Evidence
from fade_lens.explainers.base import REASONS, Explainer, ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.trying import Answers, Node, best, held_windows
from fade_lens.judge import Estimate, Judge, holding
from fade_lens.judge.asking import Questions
from fade_lens.subject.settings import SubjectSettings

if TYPE_CHECKING:
    from fade_lens.generation.patchscopes import Answer, Question
    from fade_lens.subject.hooks import Model


@dataclass(frozen=True)
class PatchscopesSettings(ExplainerSettings):
    """How the model is asked about a direction."""

    patch_scales: tuple[float, ...] = option((0.5, 0.7, 1.0, 1.4, 2.0, 2.8), "Norms of a direction that is put in for a word, in units of the residual stream's.", above=0, most=1e6)  # fmt: skip
    patch_layer: int | None = option(None, "In front of which block it is put in.", least=0, none="the third")
    patch_ask: str | None = option(None, "What the model is asked, with {x} where the direction is put in.", none="a question of our own")  # fmt: skip
    patch_answer: str | None = option(None, "How its answer begins, with {x} likewise; a base model is only asked if this is given.", none="words that go with our question")  # fmt: skip
    patch_tokens: int = option(8, "Tokens of the model's answer at most.", least=1)
    patch_random: int = option(8, "Random directions that are asked about as well, to know what is said of any direction.", least=4)  # fmt: skip
    patch_texts: int = option(24, "Windows on which the answer is chosen, half of them with the feature firing.", least=8)  # fmt: skip


NAMES = {
    "ask": "patch_ask",
    "answer": "patch_answer",
    "layer": "patch_layer",
    "scales": "patch_scales",
    "new_tokens": "patch_tokens",
    "n_random": "patch_random",
}
"""What is called otherwise among a run's settings."""


@explainer("patchscopes")
class Patchscopes(Explainer):
    """Asks the subject itself what its direction means, and the judge which answer holds: one call a feature, none where there is one answer."""

    Settings: ClassVar[type[ExplainerSettings]] = PatchscopesSettings
    version: ClassVar[str] = "2"

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.patch = PatchscopesSettings.of(settings)

    def check_tokenizer(self, read: Callable[[], Any]) -> None:
        from fade_lens.generation.patchscopes import check_instructed

        with renamed(NAMES):
            check_instructed(read(), self.patch.patch_answer)

    def check(self, model: "Model") -> None:
        self.question(model)

    def question(self, model: "Model") -> "Question":
        """What the model is asked. Raises `InputError`, by the names of settings."""
        from fade_lens.generation.patchscopes import check_answers, question

        own = self.patch
        with renamed(NAMES):
            about = question(model, own.patch_ask, own.patch_answer, own.patch_layer)
            check_answers(model, about, own.patch_scales, own.patch_tokens)
        return about

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        own = PatchscopesSettings.of(settings)
        return holding.estimate(judge, len(own.patch_scales), own.patch_texts, own.window_tokens) * n_features

    def draws(self) -> tuple[Draw, ...]:
        return ()

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        from fade_lens.generation.patchscopes import answers, unusable
        from fade_lens.subject.lens import in_residual_stream

        found = super().gather(evidence, indices)
        if not found:
            return found
        subject, own = evidence.subject, self.patch
        rows = in_residual_stream(subject.model, subject.features.select(list(found)))
        bad = range(len(found)) if isinstance(rows, Reason) else unusable(rows)
        usable = [index for at, index in enumerate(found) if at not in bad]
        if isinstance(rows, Reason) or not usable:
            return found
        rows = rows[[at for at in range(len(rows)) if at not in bad]]
        how: dict[str, Any] = {"new_tokens": own.patch_tokens, "n_random": own.patch_random, "seed": own.seed}
        said, _ = answers(subject.model, self.question(subject.model), rows, own.patch_scales, **how)
        held = held_windows(evidence, usable, "select", own.patch_texts, "patchscopes")
        asked = {
            index: replace(found[index], likelier=kept(mine), held={"select": held[index]})
            for index, mine in zip(usable, said, strict=True)
        }
        return {**found, **asked}

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        nodes = [Node(((text, 5),), text) for text in evidence.likelier]
        if not nodes:
            code = "nothing_said" if evidence.held else "no_direction"
            return Explanation.of(evidence, reason=Reason(code, REASONS[code]))
        known = Answers(questions, evidence, self.settings.seed)
        if len(nodes) == 1 or not known.both_kinds("select"):
            return replace(Explanation.of(evidence, nodes[0].name), search={"candidates": float(len(nodes))})
        await known.learn([node.name for node in nodes], "select")
        await known.score(nodes, "select")
        chosen = best(nodes, "select", 1)[0]
        search = {"candidates": float(len(nodes)), "select": chosen.scores["select"]}
        return replace(Explanation.of(evidence, chosen.name), search=search)


def kept(own: "Sequence[Answer]") -> tuple[str, ...]:
    """The different answers that are kept, those of the largest score first."""
    found: dict[str, str] = {}
    for answer in sorted((one for one in own if one.kept), key=lambda one: -one.score):
        found.setdefault(answer.text.casefold(), answer.text)
    return tuple(found.values())
