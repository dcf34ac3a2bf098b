"""FADE as one scorer of four scores, so that judge and torch work at the same time and the gate saves steering.

A description with rules gets the four as the sentence that its text is, and beside them Clarity and Responsiveness of each rule alone, with texts
written and rated for that rule: they tell which rule is true. Answers are those that a plain description of the rule's words would get.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from fade_lens._util.options import option
from fade_lens._util.reasons import Flag, Reason
from fade_lens.data.descriptions import Description
from fade_lens.evidence.likeness import check_likeness
from fade_lens.judge import Estimate, Judge, Written
from fade_lens.metrics.metric import Metric
from fade_lens.scorers.base import NOT_SCORED, Basis, RuleScores, Scored, Scorer, ScoreSpec, Scoring, scorer
from fade_lens.scorers.clarity import ClarityEvaluator, ClaritySettings, WrittenActivations
from fade_lens.scorers.evidence import ClarityEvidence, FaithfulnessEvidence, RatedEvidence
from fade_lens.scorers.faithfulness import Asked as SteeredAsked
from fade_lens.scorers.faithfulness import FaithfulnessEvaluator, FaithfulnessSettings, longest_rounds
from fade_lens.scorers.ratings import Asked as RatingsAsked
from fade_lens.scorers.ratings import RatingEvaluator, RatingSettings
from fade_lens.subject.settings import SubjectSettings

STEERED_AT_ONCE = 512
"""Continuations generated before they are kept and sent to the judge, so that both work at the same time."""
UNRATED_SHARE = 0.02
"""A single text without a rating is told where it is more than this share."""
DETECTION = ("f1", "iou", "correlation", "balanced_accuracy")
_WHY = Metric(None, Reason("not_rated", "not rated: every text expresses the generic description"))
NOT_RATED = RatedEvidence(_WHY, _WHY)
"""What stands for the ratings of a generic null description."""


@dataclass(frozen=True)
class FadeSettings(FaithfulnessSettings, RatingSettings, ClaritySettings):
    """Settings of all four scores."""

    score_rules: bool = option(
        True, "Clarity and Responsiveness of each rule alone, beside the four scores of a description that has rules."
    )


@dataclass(frozen=True)
class FadeEvidence(Scored):
    """What the four scores of one description rest on."""

    clarity: ClarityEvidence
    rated_texts: RatedEvidence
    faithfulness: FaithfulnessEvidence
    rules: tuple[RuleScores, ...] = ()

    @property
    def metrics(self) -> Mapping[str, Metric]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The four by name."""
        return {
            "clarity": self.clarity.clarity,
            "responsiveness": self.rated_texts.responsiveness,
            "purity": self.rated_texts.purity,
            "faithfulness": self.faithfulness.faithfulness,
        }

    @property
    def flags(self) -> tuple[Flag, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Texts that got no rating or were not written, and steering that breaks the model."""
        flags: list[Flag] = []
        steered = self.faithfulness.continuations
        for asked, kind in ((self.rated_texts.texts, "natural texts"), (steered, "continuations")):
            unrated = sum(a.rating is None for a in asked)
            if unrated > 1 or unrated > UNRATED_SHARE * len(asked):
                flags.append(Flag("unrated", f"{unrated} of {len(asked)} {kind} got no rating"))
        for fluency in self.faithfulness.fluency:
            if fluency.factor != self.faithfulness.faithfulness.details.get("factor"):
                continue
            known = not math.isnan(fluency.increase)
            if fluency.breaks:
                likely = f"{fluency.increase:+.1f} nats a token" if known else "of a likelihood that is not finite"
                words = f"factor {fluency.factor:g} breaks the model (texts {likely}, {fluency.repeated:.0%} repeated)"
                flags.append(Flag("steering", words))
            elif not known:
                words = f"how likely texts at factor {fluency.factor:g} are is not known, for no likelihood is finite"
                flags.append(Flag("steering", words))
        if failures := len(self.clarity.failures):
            flags.append(Flag("writing", f"{failures} request{'' if failures == 1 else 's'} gave no text"))
        return tuple(flags)

    def columns(self) -> dict[str, Any]:
        """Counts, the chosen factor, controls, detection-style scores."""
        purity, faithful = self.rated_texts.purity, self.faithfulness.faithfulness
        detected = self.rated_texts.detection
        found = {name: getattr(detected, name) for name in DETECTION}
        return {
            **{f"n_{key}": purity.counts.get(key, 0) for key in ("rated_0", "rated_1", "rated_2", "unrated")},
            "n_synthetic": len(self.clarity.texts),
            "n_continuations": len(self.faithfulness.continuations),
            "prevalence": purity.details.get("prevalence"),
            "best_factor": faithful.details.get("factor"),
            "dose_response_p": faithful.details.get("dose_response_p"),
            "nll_increase": faithful.details.get("nll_increase"),
            **{f"faithfulness_{control.name}": control.faithfulness.value for control in self.faithfulness.controls},
            **{name: math.nan if value is None else value for name, value in found.items()},
        }

    def basis(self, name: str) -> Basis | None:
        """Of Clarity the texts that were written, of Responsiveness those that were rated; None where none has an activation or a rating."""
        counts = self.metrics[name].counts if name in self.metrics else {}
        # Rating that stopped because intervals were narrow goes on only if narrower ones are asked for.
        more = "interval_width, rated_texts" if self.rated_texts.stopped else "rated_texts"
        kinds = {
            "clarity": Basis(counts.get("synthetic", 0), "written texts", "synthetic_texts"),
            "responsiveness": Basis(sum(counts.get(f"rated_{r}", 0) for r in (0, 1, 2)), "rated texts", more),
        }
        return kinds[name] if name in kinds and kinds[name].n else None

    def rated(self) -> list[tuple[str, int]]:
        """The rated natural texts."""
        return [(text.text, text.rating) for text in self.rated_texts.texts if text.rating is not None]


@dataclass(frozen=True)
class Asked:
    """What the judge writes and rates for each description, rules of descriptions among them as descriptions of their own."""

    descriptions: tuple[Description, ...]
    rules: Mapping[Description, tuple[Description, ...]]
    written: Mapping[Description, Future[Written]]
    rated: Mapping[Description, RatingsAsked]


@scorer("fade")
class FadeScorer(Scorer):
    """Clarity, Responsiveness, Purity and Faithfulness (Puri et al., Findings of ACL 2025)."""

    specs: ClassVar[tuple[ScoreSpec, ...]] = (
        ScoreSpec(
            "clarity",
            "Clarity",
            "Does text written to express the description activate the feature?",
            (-1.0, 1.0),
            decides=True,
        ),
        ScoreSpec(
            "responsiveness",
            "Responsiveness",
            "Do natural texts that express it activate the feature?",
            (-1.0, 1.0),
            decides=True,
        ),
        ScoreSpec("purity", "Purity", "Does the feature fire for nothing else?", chance="prevalence"),
        ScoreSpec(
            "faithfulness",
            "Faithfulness",
            "Does steering the feature make the model write it?",
            needs=("judge", "steering"),
            gated=True,
        ),
    )
    Settings: ClassVar[type[SubjectSettings]] = FadeSettings
    Evidence: ClassVar[type[Scored]] = FadeEvidence

    def __init__(self, scoring: Scoring) -> None:
        super().__init__(scoring)
        self.settings = FadeSettings.of(scoring.settings)
        subject, judge = scoring.subject, scoring.judge
        self.clarity = ClarityEvaluator(subject, judge, self.settings)
        self.ratings = RatingEvaluator(subject, judge, self.settings, scoring.evidence, scoring.role)
        self.faithfulness = FaithfulnessEvaluator(subject, judge, self.settings, scoring.store)
        self.written: dict[Description, Written] = {}
        """The texts written for each description, once they are measured."""
        self.activations: WrittenActivations | None = None
        """What they do to every feature that is compared, once they are measured."""
        self.lost = set[str]()
        """Those whose activations are not finite for some feature."""

    @classmethod
    def check(cls, settings: SubjectSettings) -> None:
        check_likeness(FadeSettings.of(settings).likely_texts)

    @classmethod
    def estimate(
        cls, judge: Judge, settings: SubjectSettings, descriptions: Sequence[Description], n_texts: int
    ) -> Estimate:
        """As if all descriptions passed the gate and no rating stopped early."""
        own = FadeSettings.of(settings)
        rated = sum(d.null != "generic" for d in descriptions)
        real = {d.words for d in descriptions if d.null is None}
        rules = len({rule.words for rule in chain(*ruled(descriptions, own).values())} - real)
        # Null descriptions take the texts that were written for the same words; the generic ones share one writing, and are not rated.
        written = sum(d.null is None for d in descriptions) + (rated < len(descriptions)) + rules
        # Natural texts and continuations are never rated in one request.
        found = judge.estimate(own.synthetic_texts, 0, n_concepts=written)
        found += judge.estimate(0, min(own.most_rated, n_texts), n_concepts=rated + rules)
        return sum(
            (judge.estimate(0, n, n_concepts=rated) for n in longest_rounds(own, judge.texts_per_request)), found
        )

    def ask(self, descriptions: Sequence[Description]) -> Asked:
        """Have texts written, and natural texts rated; a null description takes the texts written for the same words."""
        first = self.scoring.first or {d.text: d for d in reversed(descriptions)}
        source = {d: first[d.text] if d.null else d for d in descriptions}
        asked = {d: self.clarity.ask(d) for d in dict.fromkeys(source.values())}
        written = {d: asked[source[d]] for d in descriptions}
        rules = ruled(descriptions, self.settings)
        alone = tuple(dict.fromkeys(chain(*rules.values())))
        written |= {rule: self.clarity.ask(rule) for rule in alone}
        self.scoring.observe()
        # Rules last: steering waits for what the descriptions themselves score.
        rated = {d: self.ratings.ask(d) for d in (*descriptions, *alone) if d.null != "generic"}
        return Asked(tuple(descriptions), rules, written, rated)

    def measure(self, asked: Asked) -> dict[Description, FadeEvidence]:
        """Clarity; then the gate in the order of the descriptions, those that pass it steered while others are still rated."""
        stages = self.scoring.stages
        clear = self._clear(asked)

        rated: dict[Description, RatedEvidence] = {}
        stopped: dict[Description, Metric] = {}
        steered: dict[Description, SteeredAsked] = {}
        group: list[Description] = []
        n_texts = len(self.faithfulness.prompts) * self.settings.steered_sets
        at_once = max(1, STEERED_AT_ONCE // max(n_texts, 1))
        n_features = len({d.index for d in asked.descriptions})
        rounds = longest_rounds(self.settings, self.scoring.judge.texts_per_request)
        steered_calls = sum(self.scoring.judge.estimate(0, n).calls for n in rounds)
        advance = stages.stage("judge: rating natural texts", len(asked.rated))
        steering = stages.stage(
            "model: steered texts", n_features * n_texts + len(self.faithfulness.prompts) if n_texts else 0
        )
        # Which descriptions make a group depends on their order alone, never on how fast the judge answers.
        for d in asked.descriptions:
            rated[d] = self.ratings.measure(d, asked.rated[d]) if d in asked.rated else NOT_RATED
            advance(1 if d in asked.rated else 0)
            self.scoring.found(d, {"responsiveness": rated[d].responsiveness, "purity": rated[d].purity})
            reason = self.faithfulness.gate(d, clear[d].clarity, rated[d].responsiveness)
            if reason is not None:
                stopped[d] = reason
                stages.fewer(steered_calls if d.null != "generic" else 0)
                continue
            group.append(d)
            if len(group) == at_once:
                steered |= self._steered(group, steering)
                group = []
        steered |= self._steered(group, steering)

        advance, faithful = (
            stages.stage("judge: rating steered texts", len(steered)),
            dict[Description, FaithfulnessEvidence](),
        )
        for d, answer in steered.items():
            faithful[d] = self.faithfulness.measure(d, answer)
            self.scoring.found(d, {"faithfulness": faithful[d].faithfulness})
            advance(1)
        faithful |= {d: FaithfulnessEvidence(reason) for d, reason in stopped.items()}
        for rule in asked.rated.keys() - rated.keys():
            rated[rule] = self.ratings.measure(rule, asked.rated[rule])
            advance(1)

        def rules(d: Description) -> Iterator[RuleScores]:
            for (text, strength), rule in zip(d.claims, asked.rules[d], strict=False):
                found = {"clarity": clear[rule].clarity, "responsiveness": rated[rule].responsiveness}
                yield RuleScores(text, strength, found)

        return {d: FadeEvidence(clear[d], rated[d], faithful[d], tuple(rules(d))) for d in asked.descriptions}

    def _clear(self, asked: Asked) -> dict[Description, ClarityEvidence]:
        """Clarity, description by description: each is shown as soon as its texts are written, and depends on no other."""
        advance = self.scoring.stages.stage("judge and model: written texts", len(asked.written))
        clear: dict[Description, ClarityEvidence] = {}
        found: dict[Future[Written], WrittenActivations] = {}
        compared, subject = self.scoring.compared, self.scoring.subject
        own = dict.fromkeys([*(compared or ()), *(d.index for d in asked.written)])
        kept = None if compared is None or len(own) == len(subject.features.indices) else [*map(subject.column, own)]
        for d, answer in asked.written.items():
            self.written[d] = answer.result()
            if answer not in found:
                whole = self.clarity.activate({d: self.written[d]})
                self.lost |= {text for text, row in whole.place.items() if whole.overflowed[row].any()}
                found[answer] = whole if kept is None else whole.among(kept)
            clear |= self.clarity.measure({d: self.written[d]}, found[answer])
            if d in asked.rules:  # a description, not a rule of one
                self.scoring.found(d, {"clarity": clear[d].clarity})
            advance(1)
        self.activations = WrittenActivations.joined(list(found.values()))
        return clear

    def _steered(self, group: Sequence[Description], advance: Any) -> dict[Description, SteeredAsked]:
        """Continuations of these descriptions, sent to the judge: it rates them while the next are generated."""
        if group:
            self.faithfulness.steer([d.index for d in group], advance)
        return {d: self.faithfulness.ask(d) for d in group}


def ruled(descriptions: Sequence[Description], settings: FadeSettings) -> dict[Description, tuple[Description, ...]]:
    """The rules of each description that are scored alone, as descriptions of their own; none of null descriptions."""
    return {d: d.alone if settings.score_rules and d.null is None else () for d in descriptions}


METRICS = tuple(spec.name for spec in FadeScorer.specs)
"""FADE's four, for what is about FADE by nature: audit verdicts, planted truth, cross scores (all but the last)."""
NOTHING = FadeEvidence(
    ClarityEvidence(NOT_SCORED), RatedEvidence(NOT_SCORED, NOT_SCORED), FaithfulnessEvidence(NOT_SCORED)
)
"""What stands for FADE's evidence where a run has none."""
