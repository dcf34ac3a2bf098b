"""`contrastive`: windows in which a feature fires beside hard ones in which it is silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.words import evenly
from fade_lens.evidence.negatives import KINDS, Negatives, check_kinds, in_turn, negatives_of
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers.base import REASONS, ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.one_shot import OneShot, OneShotSettings
from fade_lens.judge.asking import Questions
from fade_lens.subject.settings import SubjectSettings

OTHERS = "neighbour"
"""The kind of windows in which another feature fires: of those that a feature is to be told from, as of latents near to it."""


@dataclass(frozen=True)
class ContrastiveSettings(OneShotSettings):
    """What a contrastive explainer shows beside."""

    contrast_windows: int = option(
        20, "Windows in which the feature is silent that a contrastive explainer is shown.", least=1
    )
    contrast_kinds: tuple[str, ...] = option(
        ("similar_silent", "token_silent", "neighbour"),
        "Kinds of these windows, taken in turn: alike in meaning, with the same token, of latents near to it, or random.",
        choices=tuple(kind for kind in KINDS if kind not in ("random", "similar")),
    )


@explainer("contrastive")
class Contrastive(OneShot):
    """`one-shot` with as many windows beside in which the feature is silent, of hard kinds in turn. One call a feature.

    A feature that is to be told from given others (`against`) is shown theirs alone: the strongest of each in turn. Where it fires on
    all of these texts too there is nothing to tell, and nothing is asked.
    """

    contrasts: ClassVar[bool] = True
    Settings: ClassVar[type[ExplainerSettings]] = ContrastiveSettings

    def __init__(self, settings: SubjectSettings, against: Mapping[int, Sequence[int]] | None = None) -> None:
        super().__init__(settings, against)
        self.contrast = ContrastiveSettings.of(settings)
        self.kinds = (OTHERS,) if against else self.contrast.contrast_kinds
        check_kinds(self.kinds)

    @property
    def n_silent(self) -> int:
        return self.contrast.contrast_windows

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        found = super().gather(evidence, indices)
        kinds, n = self.kinds, self.contrast.contrast_windows
        exemplars = {index: [window.place for window in one.active] for index, one in found.items()}
        # Of a large group as many as can be shown, from all over it.
        others = {index: evenly(some, n) for index, some in self.against.items()}
        negatives = (
            Negatives(evidence, neighbours=(evidence.subject, others)) if others else negatives_of(evidence, kinds)
        )
        drawn = negatives.draw("show", n, kinds, exemplars=exemplars, indices=list(found), purpose="contrast")
        places = {index: in_turn(some, n) for index, some in drawn.items()}
        read = evidence.read(places)
        return {index: replace(one, silent=read[index]) for index, one in found.items()}

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        if self.against and not evidence.silent:
            return Explanation.of(evidence, reason=Reason("inseparable", REASONS["inseparable"]))
        return await super().explain(evidence, questions)
