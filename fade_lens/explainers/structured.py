"""`structured`: a description made of rules, each with the strength of what it describes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Reason
from fade_lens.data.rules import MOST_RULES, Rule
from fade_lens.explainers import prompting
from fade_lens.explainers.base import ExplainerSettings, Explanation, FeatureEvidence, explainer
from fade_lens.explainers.one_shot import OneShot, OneShotSettings
from fade_lens.llm.chat import Answer


@dataclass(frozen=True)
class StructuredSettings(OneShotSettings):
    """How many rules there may be."""

    rule_cap: int = option(
        5,
        "Rules that a structured description has at most; further ones are dropped from the end.",
        least=1,
        most=MOST_RULES,
    )


@explainer("structured")
class Structured(OneShot):
    """Shows what `one-shot` shows and asks for rules with strengths from 0 to 5. One call a feature."""

    Settings: ClassVar[type[ExplainerSettings]] = StructuredSettings
    field = prompting.RULE_LIST
    tokens = 400

    @property
    def rules(self) -> int:
        return StructuredSettings.of(self.settings).rule_cap

    def read(self, shown: FeatureEvidence, answer: Answer) -> tuple[Rule, ...] | Reason | None:
        return prompting.read_rules(answer, (*shown.active, *shown.silent))

    def said(self, evidence: FeatureEvidence, found: Any) -> Explanation:
        kept = found[: self.rules]
        return Explanation.of(evidence, rules=kept, dropped=len(found) - len(kept))
