"""One description's result: its scores, how it stands, and the evidence behind them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fade_lens._util.brief import in_lines
from fade_lens._util.reasons import Flag, Reason
from fade_lens._util.record import from_plain
from fade_lens._util.words import clip
from fade_lens.baselines.cross_scores import NAMES
from fade_lens.baselines.permutation import PermutationTest
from fade_lens.data.descriptions import Description
from fade_lens.judge.prompts import MAX_CONCEPT_CHARS
from fade_lens.judge.reliability import Agreement
from fade_lens.llm.budget import Usage
from fade_lens.metrics.detection import Detection
from fade_lens.metrics.metric import GATE, Metric
from fade_lens.scorers.base import NOT_SCORED, RuleScores, Scored, ScoreSpec, scorer_of, specs_of
from fade_lens.scorers.evidence import ClarityEvidence, FaithfulnessEvidence, RatedEvidence
from fade_lens.scorers.fade import NOTHING, FadeEvidence
from fade_lens.scorers.standing import Standing, of_dead, said, standing_of
from fade_lens.subject.summary import FeatureSummary, Promoted, TopText

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from IPython.display import IFrame


@dataclass(frozen=True)
class Result:
    """One description of one feature: its scores and what they rest on, by the scorers of the run.

    FADE's four and their evidence have names of their own; where a run has no FADE they are undefined and empty.
    """

    description: Description
    feature: FeatureSummary
    evidence: Mapping[str, Scored]
    """By the name of the scorer."""
    permutation: PermutationTest | None = None
    neuronpedia: str = field(default="", compare=False)
    """The Neuronpedia source of the run's features, such as "gpt2-small/8-res-jb", where the run knows it."""
    usage: Usage | None = field(default=None, compare=False)
    """What the judge's answers cost that this rests on, in this run or before (descriptions with the same text share them)."""
    agreement: tuple[Agreement, ...] = ()
    """How far ratings of some of the same texts agree with it: the judge's own repeated, a second judge's."""
    shown: tuple[TopText, ...] = field(default=(), compare=False)
    """A few of the windows that its explainer was shown, where it was explained on this corpus."""
    collides: str = ""
    """With which other features of the run it shares its description, in words; "" with none (see `fade_lens.data.collisions`)."""
    gate: float = field(default=GATE, compare=False)
    """What the scores that decide are held against; in `Results` the run's."""

    @property
    def scorers(self) -> tuple[str, ...]:
        """The names of the run's scorers, in their order."""
        return tuple(self.evidence)

    @property
    def specs(self) -> tuple[ScoreSpec, ...]:
        """The scores that it has, in the order of the run's scorers."""
        return specs_of(self.scorers)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The scores by name."""
        return {name: metric for found in self.evidence.values() for name, metric in found.metrics.items()}

    def metric(self, name: str) -> Metric:
        """One score; undefined where the run did not ask for it."""
        return self.metrics.get(name, NOT_SCORED)

    @cached_property
    def standing(self) -> Standing:
        """How the description stands: "holds", "fails" or "open" by intervals against the gate (see `fade_lens.scorers.standing`), or "dead"."""
        if self.feature.dead:
            return of_dead([text.activation for text in self.clarity_evidence.texts])
        return standing_of(self.evidence, self.gate)

    @property
    def rules(self) -> tuple[RuleScores, ...]:
        """What each rule of the description scores alone, by all scorers that ask about rules one by one."""
        found = {rule: RuleScores(*rule, {}) for rule in self.description.rules}
        for one in (one for scored in self.evidence.values() for one in scored.rules):
            before = found[one.text, one.strength]
            found[one.text, one.strength] = replace(before, metrics={**before.metrics, **one.metrics})
        return tuple(found.values())

    @property
    def fade(self) -> FadeEvidence:
        """FADE's evidence, empty where the run has none."""
        return next((found for found in self.evidence.values() if isinstance(found, FadeEvidence)), NOTHING)

    @property
    def clarity_evidence(self) -> ClarityEvidence:
        """The texts written for the description."""
        return self.fade.clarity

    @property
    def rated_evidence(self) -> RatedEvidence:
        """The rated natural texts."""
        return self.fade.rated_texts

    @property
    def faithfulness_evidence(self) -> FaithfulnessEvidence:
        """The steered texts."""
        return self.fade.faithfulness

    @property
    def clarity(self) -> Metric:
        """Does text written to express the concept activate the feature?"""
        return self.clarity_evidence.clarity

    @property
    def responsiveness(self) -> Metric:
        """Do natural texts that express the concept activate it?"""
        return self.rated_evidence.responsiveness

    @property
    def purity(self) -> Metric:
        """Does it fire for that concept only?"""
        return self.rated_evidence.purity

    @property
    def faithfulness(self) -> Metric:
        """Does steering it make the model write the concept?"""
        return self.faithfulness_evidence.faithfulness

    @property
    def detection(self) -> Detection:
        """Best F1, IoU, correlation and balanced accuracy on the rated texts."""
        return self.rated_evidence.detection

    @property
    def logits(self) -> Promoted | Reason | None:
        """The tokens that the feature's direction promotes and suppresses most, by the logit lens, or why there are none; None if not asked for."""
        return self.feature.logits

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What a reader should know before trusting the numbers."""
        flags = list(self.feature_flags)
        if (n := len(self.description.text)) > MAX_CONCEPT_CHARS:
            read = f"of which the judge read the first and the last {MAX_CONCEPT_CHARS // 2:,}"
            flags.append(Flag("cut", f"has {n:,} characters, {read}"))
        flags += [Flag("collides", self.collides)] if self.collides else []
        flags += self.scorer_flags
        if self.permutation is not None and (better := self.permutation.better_feature) is not None:
            kind = "swapped" if better == self.permutation.suggested_feature else "mislabelled"
            kind, also = ("copied", " has the same description and") if self.permutation.copied else (kind, "")
            flags.append(Flag(kind, f"feature {better} of the run{also} fits the description better"))
        flags += [one.flag for one in self.agreement if one.flag]
        return tuple(flags)

    @property
    def feature_flags(self) -> tuple[Flag, ...]:
        """Those that the corpus alone tells."""
        return self.feature.flags

    @property
    def scorer_flags(self) -> tuple[Flag, ...]:
        """Those of the scorers."""
        return tuple(flag for found in self.evidence.values() for flag in found.flags)

    @property
    def scorer_columns(self) -> dict[str, Any]:
        """Further columns of the row, those of the scorers."""
        return {name: cell for found in self.evidence.values() for name, cell in found.columns().items()}

    @property
    def feature_columns(self) -> dict[str, Any]:
        """Columns of what the corpus alone tells."""
        feature = self.feature
        found = {"firing_rate": feature.firing_rate, "largest_activation": feature.largest}
        return found | {"token_entropy": feature.token_entropy, "effective_tokens": feature.effective_tokens}

    def plot(self) -> "go.Figure":
        """Activations of synthetic and natural texts, activation by rating, concept rate by steering factor, the radar."""
        from fade_lens.report.plots import result_figure

        return result_figure(self)

    def to_row(self) -> dict[str, Any]:
        """One row of `Results.frame`."""
        row: dict[str, Any] = {
            "index": self.description.index,
            "description": self.description.text,
            "standing": str(self.standing),
        }
        row |= {**score_columns(self.metrics), "standing_reason": self.standing.why}
        row |= {"rules": json.dumps(self.description.rules)} if self.description.rules else {}
        row |= self.scorer_columns
        if self.permutation is not None:
            row |= {f"{name}_null_percentile": getattr(self.permutation, f"{name}_percentile") for name in NAMES}
            row |= {
                name: getattr(self.permutation, name)
                for name in ("p_value", "q_value", "better_feature", "suggested_feature")
            }
            row["null_reason"] = self.permutation.reason
        row |= self.feature_columns
        row["judge_calls"] = None if self.usage is None else self.usage.calls
        row["judge_cost"] = None if self.usage is None else self.usage.cost
        row["origin"] = self.description.origin
        if (candidates := self.description.provenance.candidates) is not None:
            row["candidates"] = candidates
        row["flags"] = "; ".join(self.flags)
        return row

    def dashboard(self, source: Any = None, *, width: int | str = "100%", height: int = 600) -> "IFrame":
        """The feature's Neuronpedia page inside a notebook, as SAELens' `display_dashboard` shows it; needs a network.

        Args:
            source: the Neuronpedia id ("gpt2-small/8-res-jb") or the SAE; without it, where the description came from or the run's.
            width, height: of the frame, in pixels or as CSS.

        Raises:
            InputError: the id is not known.
        """
        from fade_lens.report.links import dashboard_frame

        return dashboard_frame(self, source, width=width, height=height)

    def __repr__(self) -> str:
        others = [said(spec.title, self.metric(spec.name)) for spec in self.specs if not spec.decides]
        head = f"{self.description.index} {clip(self.description.text, 60)!r}: {self.standing}"
        return in_lines("Result", [head, *self.standing.why.split("; "), *others, "; ".join(self.flags)])

    def _repr_html_(self) -> str:
        from fade_lens.report.notebook import result_card

        return result_card(self)


def score_columns(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Columns of some scores: values with their intervals, then why any is undefined."""
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        low, high = metric.interval or (None, None)
        found |= {name: metric.value, f"{name}_low": low, f"{name}_high": high}
    return found | {f"{name}_reason": metric.reason for name, metric in metrics.items()}


def result_of(record: Mapping[str, Any]) -> Result:
    """The result of a record; each scorer says of what class its evidence is.

    Raises:
        InputError: a scorer that is not registered.
    """
    evidence = {name: from_plain(scorer_of(name).Evidence, found) for name, found in record["evidence"].items()}
    return replace(from_plain(Result, {**record, "evidence": {}}), evidence=evidence)
