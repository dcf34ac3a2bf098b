"""`output`: describes a feature by what it makes the model write, and by no text in which it fires."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from fade_lens._util.reasons import Reason
from fade_lens.evidence.windows import Draw, Evidence
from fade_lens.explainers import prompting
from fade_lens.explainers.base import REASONS, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.one_shot import OneShot
from fade_lens.judge.asking import Questions
from fade_lens.llm.request import Message
from fade_lens.subject.settings import SubjectSettings

TOKENS = 20
"""Of each kind that are shown unless `shown_logits` and `shown_changes` say otherwise."""


@explainer("output")
class Output(OneShot):
    """Shows the tokens that a feature promotes and suppresses, by the logit lens and by steering, and asks what they share. One call a feature.

    After the output-centric explanations of Gur-Arieh et al. (2025). Features that never fire are described by the logit lens alone.
    `one-shot` with `shown_logits` and `shown_changes` shows both sides.
    """

    version: ClassVar[str] = "1"
    reads_texts: ClassVar[bool] = False

    def __init__(self, settings: SubjectSettings) -> None:
        super().__init__(settings)
        logits = TOKENS if self.asking.shown_logits is None else self.asking.shown_logits
        self.how = replace(self.how, draws=(), logits=logits)
        self.asking = replace(self.asking, shown_changes=self.asking.shown_changes or TOKENS)

    def draws(self) -> tuple[Draw, ...]:
        return ()

    def gather(self, evidence: Evidence, indices: Sequence[int]) -> Mapping[int, FeatureEvidence]:
        # Nothing of a feature's texts is shown, so that they all may test its description.
        return {i: replace(one, active=()) for i, one in super().gather(evidence, indices).items()}

    async def explain(self, evidence: FeatureEvidence, questions: Questions) -> Explanation:
        if not prompting.about_tokens(evidence):
            return Explanation.of(evidence, reason=Reason("no_tokens", REASONS["no_tokens"]))
        return await super().explain(evidence, questions)

    def messages(self, evidence: FeatureEvidence) -> list[Message]:
        words = prompting.WRITES.format(words=self.how.words)
        form = prompting.answer_in(self.field, self.asking.explainer_reasoning)
        shown = "\n".join(prompting.about_tokens(evidence))
        return [{"role": "system", "content": f"{words}\n{form}"}, {"role": "user", "content": shown}]
