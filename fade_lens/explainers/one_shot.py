"""`one-shot`: one request shows a feature's windows and asks what they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import stream
from fade_lens.evidence.marking import marks
from fade_lens.evidence.windows import Draw, Evidence, Place, Window
from fade_lens.explainers import prompting
from fade_lens.explainers.base import (
    Explainer,
    ExplainerSettings,
    Explanation,
    FeatureEvidence,
    concept_of,
    explainer,
)
from fade_lens.explainers.promoting import with_tokens
from fade_lens.explainers.showing import SHOWINGS, Showing, showing
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.asking import Questions
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Message, Request
from fade_lens.subject.settings import SubjectSettings

FEWEST = 4
"""Windows that are shown at least; a prompt that is too long is halved down to them."""


@dataclass(frozen=True)
class OneShotSettings(ExplainerSettings):
    """How one request shows a feature."""

    showing: str = option("default", "How windows are shown to an explainer: as this library does (default, or small for a small model), or as ARENA, SAEBench, Delphi or Neuronpedia do.", choices=tuple(SHOWINGS))  # fmt: skip
    explainer_examples: int = option(3, "Made-up features with good descriptions that an explainer is shown first.", least=0, most=len(prompting.EXAMPLES))  # fmt: skip
    explainer_reasoning: bool = option(False, "An explainer is asked to reason before it describes.")
    explainer_temperature: float | None = option(None, "Temperature at which an explainer is asked; unless given, that of its way of showing.", least=0, most=2)  # fmt: skip
    shown_changes: int = option(0, "Tokens that the model says more often where a feature is steered, and as many that it says less often, that an explainer is shown beside.", least=0)  # fmt: skip
    shown_logits: int | None = option(None, "Tokens that a feature promotes most, and as many that it suppresses, that an explainer is shown; unless given, as its way of showing has it.", least=0)  # fmt: skip


@explainer("one-shot")
class OneShot(Explainer):
    """Shows windows drawn by strata of activation, with marks and values, and asks for one short description. One call a feature."""

    version: ClassVar[str] = "2"
    Settings: ClassVar[type[ExplainerSettings]] = OneShotSettings
    field: ClassVar[prompting.Field] = prompting.DESCRIPTION
    """What an answer holds."""
    tokens: ClassVar[int] = 150
    """That an answer may have."""

    def __init__(self, settings: SubjectSettings, against: Mapping[int, Sequence[int]] | None = None) -> None:
        super().__init__(settings, against)
        self.asking = OneShotSettings.of(self.settings)
        self.how = how_of(self.asking)

    def draws(self) -> tuple[Draw, ...]:
        return self.how.draws

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, n_features: int) -> Estimate:
        asking = cls(settings)
        return judge.estimate_ask(asking.request(asking.usual()), n_features)

    def usual(self) -> FeatureEvidence:
        """Made-up evidence of the size that is shown, of which the price of a request is reckoned."""
        size = self.settings.window_tokens
        active = [made_up(draw.tokens or size) for draw in self.how.draws for _ in range(draw.n)]
        logits, changes = ("token",) * self.how.logits, ("token",) * self.asking.shown_changes
        return FeatureEvidence(0, tuple(active), (made_up(size),) * self.n_silent, promoted=logits, suppressed=logits, likelier=changes, unlikelier=changes)  # fmt: skip

    @property
    def n_silent(self) -> int:
        """How many windows are shown in which a feature is silent."""
        return 0

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        shown, found = await self.answered(evidence, questions, self.request)
        return Explanation.of(shown, reason=found) if isinstance(found, Reason) else self.said(shown, found)

    async def answered(
        self,
        evidence: FeatureEvidence,
        questions: Questions,
        request: Callable[[FeatureEvidence], Request],
        beside: Sequence[Window] = (),
    ) -> tuple[FeatureEvidence, Any | Reason]:
        """What was shown of a feature, and what is found in the answer or why nothing is; of a prompt that is too long half the windows are left out.

        Args:
            evidence: what is to be shown.
            questions: who is asked.
            request: the question, with what is shown.
            beside: further windows that it holds.
        """
        while True:
            held = replace(evidence, silent=(*evidence.silent, *beside))
            found = await questions.ask(request(evidence), partial(self.read, held))
            if not (isinstance(found, Reason) and found.code == "too_long" and len(evidence.active) > FEWEST):
                return evidence, found
            # Every second window: of all strengths.
            evidence = replace(evidence, active=evidence.active[::2], silent=evidence.silent[::2])

    def read(self, shown: FeatureEvidence, answer: Answer) -> Any | Reason | None:
        """What is found in an answer about what was shown, or why that is nothing; None where it cannot be read and is asked for again."""
        return prompting.read_description(answer, (*shown.active, *shown.silent))

    def said(self, evidence: FeatureEvidence, found: Any) -> Explanation:
        """The explanation of what `read` found."""
        return Explanation.of(evidence, found)

    def request(self, evidence: FeatureEvidence) -> Request:
        """The question about a feature."""
        reasoning = self.asking.explainer_reasoning
        temperature = self.asking.explainer_temperature
        return Request(
            kind="explain",
            concept=concept_of(evidence.index),
            messages=self.messages(evidence),
            parameters={
                "temperature": self.how.temperature if temperature is None else temperature,
                "max_tokens": self.tokens + 750 * reasoning,
                "seed": stream(self.settings.seed, "explain", evidence.index) % 2**31,
            },
            expects=self.tokens // 4 + 150 * reasoning,
            structure=prompting.form(self.field, reasoning),
        )

    def messages(self, evidence: FeatureEvidence) -> list[Message]:
        """The chat: instructions, made-up units, then the feature."""
        signs, reasoning = marks((*evidence.active, *evidence.silent)), self.asking.explainer_reasoning
        tag = prompting.tag_of(evidence.index)
        parts = [prompting.excerpts(evidence.active, evidence.scale, self.how, signs, tag)]
        if evidence.silent:
            parts += [prompting.SILENT, prompting.excerpts(evidence.silent, evidence.scale, self.how, signs, tag, "silent")]  # fmt: skip
        parts += [prompting.about_peaks(evidence.active, self.how)] if self.how.peaks else []
        parts += prompting.about_tokens(evidence)
        rules = prompting.task(
            self.how, signs, self.field, unlike=bool(evidence.silent), reasoning=reasoning, rules=self.rules
        )
        fixed = prompting.worked(0 if reasoning else self.asking.explainer_examples, self.how, signs, self.field)
        return [{"role": "system", "content": rules}, *fixed, {"role": "user", "content": "\n\n".join(parts)}]

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        return with_tokens(evidence, super().gather(evidence, indices), self.how.logits, self.asking.shown_changes)


def how_of(settings: OneShotSettings) -> Showing:
    """The way of showing that the settings ask for."""
    found = showing(settings.showing, settings.shown_windows)
    return found if settings.shown_logits is None else replace(found, logits=settings.shown_logits)


def made_up(tokens: int) -> Window:
    """A window of usual words, a tenth of them marked, of which the price of a request is reckoned."""
    activations = [1.0 if at % 10 == 5 else 0.0 for at in range(tokens)]
    return Window(Place(0, 0, tokens), (" word",) * tokens, (0,) * tokens, tuple(activations))
