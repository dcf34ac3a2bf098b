"""`one-shot`: one request shows a feature's windows and asks what they share."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.evidence.windows import Draw, Evidence
from fade_lens.explainers import prompting
from fade_lens.explainers.base import (
    Explainer,
    ExplainerSettings,
    Explanation,
    FeatureEvidence,
    concept_of,
    explainer,
)
from fade_lens.explainers.showing import SHOWINGS, Showing, marks, showing
from fade_lens.judge import Estimate, Judge, forecast
from fade_lens.judge.asking import Questions
from fade_lens.llm.request import Message, Request
from fade_lens.subject.settings import SubjectSettings

logger = logging.getLogger(__name__)

FEWEST = 4
"""Windows that are shown at least; a prompt that is too long is halved down to them."""


@dataclass(frozen=True)
class OneShotSettings(ExplainerSettings):
    """How one request shows a feature."""

    showing: str = option("default", "How windows are shown to an explainer: as this library does, or as ARENA, SAEBench, Delphi or Neuronpedia do.", choices=tuple(SHOWINGS))  # fmt: skip
    explainer_examples: int = option(2, "Made-up features with good descriptions that an explainer is shown first.", least=0, most=len(prompting.EXAMPLES))  # fmt: skip
    explainer_reasoning: bool = option(False, "An explainer is asked to reason before it describes.")
    explainer_temperature: float | None = option(None, "Temperature at which an explainer is asked; unless given, that of its way of showing.", least=0, most=2)  # fmt: skip
    shown_logits: int | None = option(None, "Tokens that a feature promotes most, and as many that it suppresses, that an explainer is shown; unless given, as its way of showing has it.", least=0)  # fmt: skip


@explainer("one-shot")
class OneShot(Explainer):
    """Shows windows drawn by strata of activation, with marks and values, and asks for one short description. One call a feature."""

    Settings: ClassVar[type[ExplainerSettings]] = OneShotSettings
    settings: OneShotSettings

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        self.how = how_of(self.settings)

    def draws(self) -> tuple[Draw, ...]:
        return self.how.draws

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        own = OneShotSettings.of(settings)
        how = how_of(own)
        windows = sum(draw.n * (draw.tokens or own.window_tokens) for draw in how.draws)
        listed = sum(draw.n for draw in how.draws) * (12 + 4 * how.values // 2)
        fixed = prompting.worked(own.explainer_examples, how, ("<<", ">>"))
        tokens = (
            1.3 * windows
            + listed
            + forecast.tokens([*fixed, {"role": "system", "content": prompting.task(how, ("<<", ">>"))}])
        )
        return forecast.reckoned(judge, 1, tokens, 30 + 120 * own.explainer_reasoning) * n_features

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        windows, n = evidence.active, len(evidence.active)
        while True:
            found = await questions.ask(self.request(replace(evidence, active=windows)), prompting.read_description)
            if not (isinstance(found, Reason) and found.code == "too_long" and n > FEWEST):
                break
            n = max(n // 2, FEWEST)
            windows = evidence.active[:: max(1, len(evidence.active) // n)][:n]  # of all strengths
        if isinstance(found, Reason):
            return Explanation.of(evidence, reason=found, shown=windows)
        return Explanation.of(evidence, found, shown=windows)

    def request(self, evidence: FeatureEvidence) -> Request:
        """The question about a feature."""
        reasoning = self.settings.explainer_reasoning
        temperature = self.settings.explainer_temperature
        return Request(
            kind="explain",
            concept=concept_of(evidence.index),
            messages=self.messages(evidence),
            parameters={
                "temperature": self.how.temperature if temperature is None else temperature,
                "max_tokens": 900 if reasoning else 150,
                "seed": stream(self.settings.seed, "explain", evidence.index) % 2**31,
            },
            expects=150 if reasoning else 30,
            structure=prompting.REASONED if reasoning else prompting.DESCRIPTION,
        )

    def messages(self, evidence: FeatureEvidence) -> list[Message]:
        """The chat: instructions, made-up units, then the feature."""
        signs = marks(evidence.active)
        parts = [prompting.excerpts(evidence, evidence.active, self.how)]
        parts += [prompting.about_peaks(evidence.active)] if self.how.peaks else []
        parts += [prompting.about_logits(evidence)] if evidence.promoted or evidence.suppressed else []
        rules = prompting.task(self.how, signs, reasoning=self.settings.explainer_reasoning)
        fixed = prompting.worked(
            0 if self.settings.explainer_reasoning else self.settings.explainer_examples, self.how, signs
        )
        return [{"role": "system", "content": rules}, *fixed, {"role": "user", "content": "\n\n".join(parts)}]

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        found = super().gather(evidence, indices)
        if not (self.how.logits and found):
            return found
        from fade_lens.subject.lens import promoted_tokens

        subject = evidence.subject
        tokens = promoted_tokens(subject.model, subject.features.select(list(found)), self.how.logits)
        if isinstance(tokens, Reason):
            logger.warning("promoted tokens are not shown: %s", tokens)
            return found

        def named(pairs: Sequence[tuple[str, float]]) -> tuple[str, ...]:
            return tuple(token for token, _ in pairs)

        return {
            index: replace(one, promoted=named(of.promoted), suppressed=named(of.suppressed))
            for (index, one), of in zip(found.items(), tokens, strict=True)
        }


def how_of(settings: OneShotSettings) -> Showing:
    """The way of showing that the settings ask for."""
    found = showing(settings.showing, settings.shown_windows)
    return found if settings.shown_logits is None else replace(found, logits=settings.shown_logits)
