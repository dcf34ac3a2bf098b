"""What the scorers share that test a description on windows of texts: which are tested, how the judge decides on them, and what is kept.

A description with rules is asked about rule by rule, each rule's text alone and on the same windows, so that a revision of one rule pays for that
one only. The composed decision is yes where any rule says yes; the composed grade is the largest over the rules of strength / 5 times the rule's.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Int

from fade_lens._util.brief import Brief
from fade_lens._util.options import option
from fade_lens._util.reasons import Flag, Reason
from fade_lens._util.seeds import stream
from fade_lens.data.descriptions import Description
from fade_lens.data.rules import STRONGEST
from fade_lens.evidence.windows import EvidenceSettings, Place
from fade_lens.judge import Estimate, Judge, forecast
from fade_lens.judge.asking import Questions
from fade_lens.judge.prompts import Prompts
from fade_lens.judge.rating import BatchedRating, Rating, SingleRating
from fade_lens.metrics.clustered import design_effect, placements
from fade_lens.metrics.intervals import Rows
from fade_lens.metrics.metric import Metric, around
from fade_lens.metrics.ranking import auroc
from fade_lens.scorers.base import Decision, RuleScores, Scored, Scorer, Scoring
from fade_lens.subject.settings import SubjectSettings

UNANSWERED_SHARE = 0.02
"""Texts without a decision are told where they are more than this share."""
NO_SILENT = "the feature is silent on {n} of the texts kept for {role}, fewer than {least}"


@dataclass(frozen=True)
class WindowSettings(EvidenceSettings):
    """What the scorers need to know that test a description on windows."""

    decisions_per_request: int = option(10, "Texts that one request of detection or fuzzing asks about, where the judge rates several.", least=1, most=200)  # fmt: skip
    tested_texts_least: int = option(4, "Texts on which a feature must fire, and on which it must be silent, to be scored on windows.", least=1)  # fmt: skip


@dataclass(frozen=True)
class JudgedWindow(Brief):
    """A window on which a description was tested.

    Attributes:
        number: of its text in the corpus.
        text: as the judge read it, with the marks if it had any.
        kind: "active", or that of a negative (see `fade_lens.evidence.negatives.KINDS`); for marks see `fade_lens.scorers.fuzzing`.
        positive: what is right.
        inclusion: the probability with which it was drawn, among those of its kind.
        stratum: of the activation, counted from the strongest.
        decided: what the judge decided, or None with the `reason`.
        score: graded, where the judge or the method gives one; that of a description with rules is composed, between 0 and 1.
        rules: what each rule alone was decided on, in the order of `WindowScores.rules`.
    """

    number: int
    text: str
    kind: str
    positive: bool
    inclusion: float = 1.0
    stratum: int = 0
    decided: bool | None = None
    score: float | None = None
    reason: str | None = None
    rules: tuple[bool | None, ...] = ()

    @classmethod
    def of(cls, place: Place, text: str, *, kind: str | None = None, positive: bool) -> "JudgedWindow":
        """A window that is to be tested."""
        return cls(place.text, text, kind or place.kind, positive, place.inclusion, place.stratum)

    @property
    def outcome(self) -> bool | None:
        """Whether the decision is right; None without one."""
        return None if self.decided is None else self.decided == self.positive


@dataclass(frozen=True)
class WindowScores(Scored):
    """What a score on windows rests on: every window with what came of it."""

    metrics: Mapping[str, Metric]
    texts: tuple[JudgedWindow, ...] = ()
    rules: tuple[RuleScores, ...] = ()

    def columns(self) -> dict[str, Any]:
        """The details of each score, and how many texts have no decision."""
        found = {f"{name}_{key}": math.nan if value is None else value for name, m in self.metrics.items() for key, value in m.details.items()}  # fmt: skip
        return found | {f"{name}_unanswered": m.counts["unanswered"] for name, m in self.metrics.items() if "unanswered" in m.counts}  # fmt: skip

    @property
    def signs(self) -> tuple[str, str] | None:
        """What stands around what is marked in the texts; None where nothing is."""
        return None

    def decisions(self) -> list[Decision]:
        """One a window; where nothing was decided, a positive's score is off by what it lacks, a negative's by what it has."""

        def said(t: JudgedWindow) -> str:
            found = "; ".join(rule.text for rule, yes in zip(self.rules, t.rules, strict=False) if yes)
            return "" if t.decided is None else f"yes: {found}" if found else ("no", "yes")[t.decided]

        return [
            Decision(
                t.kind, (t.text,), signs=self.signs, right=t.outcome, said=said(t),
                score=t.score, reason=t.reason, off=(-1 if t.positive else 1) * (t.score or 0.0),
            )
            for t in self.texts
        ]  # fmt: skip

    @property
    def flags(self) -> tuple[Flag, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Texts without a decision, where these are many."""
        return tuple(
            Flag("undecided", f"{n} of {len(self.texts)} texts of {name} got no decision")
            for name, metric in self.metrics.items()
            if (n := metric.counts.get("unanswered", 0)) > max(1, UNANSWERED_SHARE * len(self.texts))
        )


@dataclass(frozen=True)
class Task:
    """A decision that the judge is asked for.

    Attributes:
        kind: what its requests go by.
        prompts: its words, for several texts a request and for one.
    """

    kind: str
    prompts: Prompts

    def submit(self, judge: Judge, concept: str, texts: Sequence[str], *, size: int, seed: int) -> "Future[list[Rating]]":  # fmt: skip
        """Decisions on texts in the background, by strict ids; what is missing is asked for again in smaller requests (see `Judge.submit_rate`)."""

        def work(asked: Questions) -> Any:
            about: dict[str, Any] = {"asked": replace(asked, prompts=self.prompts), "concept": concept, "repeat": 0}
            if judge.rating == "single":
                return SingleRating(**about).rate(texts)
            cold = 0.0 if judge.temperature is None else float(judge.temperature)
            rater = BatchedRating(**about, seed=seed, size=size, temperature=cold, kind=self.kind, grades=(0, 1))
            return rater.rate(texts)

        return judge.submit(work)

    def estimate(self, judge: Judge, n_texts: int, text_tokens: float, size: int) -> Estimate:
        """What deciding on so many texts asks at most, retries not counted."""
        return forecast.rating(judge, n_texts, text_tokens, prompts=self.prompts, size=size)


Documents = Int[np.ndarray, " text"] | None
"""The document of each text of the corpus; None where each text is one of its own."""
Part = tuple[JudgedWindow, ...]
"""Windows that are asked about together: none of another part shares a request with them."""
Asked = tuple[Part, list["Future[list[Rating]]"]]
"""A part, and what the judge decides on it about each claim of a description."""


class WindowScorer(Scorer):
    """What scorers share that ask the judge to decide on windows; each says which, and what score its decisions make."""

    Settings: ClassVar[type[SubjectSettings]] = WindowSettings
    Evidence: ClassVar[type[WindowScores]] = WindowScores  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, scoring: Scoring) -> None:
        super().__init__(scoring)
        self.settings = cast("type[WindowSettings]", self.Settings).of(scoring.settings)

    @property
    def name(self) -> str:
        """Of its score."""
        return self.specs[0].name

    @classmethod
    def estimate(cls, judge: Judge, settings: SubjectSettings, descriptions: Sequence[Description], n_texts: int) -> Estimate:  # fmt: skip
        return cls.estimate_one(judge, cls.Settings.of(settings), n_texts) * sum(len(d.claims) for d in descriptions)

    @classmethod
    @abstractmethod
    def estimate_one(cls, judge: Judge, own: Any, n_texts: int) -> Estimate:
        """What one description, or one rule of it, asks at most; `own` are the scorer's settings, `n_texts` is how many natural texts there are at most."""

    @abstractmethod
    def parts(self, indices: Sequence[int]) -> "Mapping[int, Sequence[Part] | Reason]":
        """The windows of some features that a description is tested on, or why it cannot be."""

    @property
    def documents(self) -> Documents:
        """That the texts of the corpus are of; intervals are wider where some of one are tested."""
        return self.scoring.evidence.subject.tokens.documents

    @abstractmethod
    def task(self) -> Task:
        """What the judge is asked; once `parts` are known."""

    @abstractmethod
    def metric(self, texts: Sequence[JudgedWindow], seed: int) -> Metric:
        """The score of windows with decisions; `seed` is for its interval."""

    def ask(self, descriptions: Sequence[Description]) -> dict[Description, Reason | list[Asked]]:
        judge, seed = self.scoring.judge, self.settings.seed
        reasons = untestable(self.scoring, descriptions, self.settings.tested_texts_least)
        parts = self.parts([index for index, reason in reasons.items() if reason is None])
        task, size = self.task(), self.settings.decisions_per_request

        def begun(d: Description) -> Reason | list[Asked]:
            if isinstance(own := reasons[d.index] or parts[d.index], Reason):
                return own
            seeds = [stream(seed, self.name, d.index, at) for at in range(len(own))]
            return [
                (part, [task.submit(judge, claim, [t.text for t in part], size=size, seed=s) for claim, _ in d.claims])
                for part, s in zip(own, seeds, strict=True)
                if part
            ]

        return {d: begun(d) for d in descriptions}

    def measure(self, asked: Mapping[Description, Reason | list[Asked]]) -> dict[Description, WindowScores]:
        parts = [part for found in asked.values() if not isinstance(found, Reason) for part in found]
        self.scoring.wait(f"judge: {self.name}", [future for _, futures in parts for future in futures])
        scores: dict[Description, WindowScores] = {}
        for d, found in asked.items():
            if isinstance(found, Reason):
                scores[d] = self.Evidence({self.name: Metric(None, found)})
            else:
                scores[d] = self.scored(d, found)
        return scores

    def scored(self, d: Description, found: Sequence[Asked]) -> WindowScores:
        """The score of a description and of each of its rules, from the judge's answers."""
        seed = stream(self.settings.seed, self.name, "interval", d.index)
        texts = tuple(text for part, _ in found for text in part)
        each = [
            tuple(t for part, futures in found for t in decided(self.scoring.judge, part, futures[at].result()))
            for at in range(len(d.claims))
        ]
        if not d.rules:
            return self.Evidence({self.name: self.metric(each[0], seed)}, each[0])
        rules = tuple(RuleScores(*rule, {self.name: self.metric(t, seed)}) for rule, t in zip(d.claims, each, strict=True))  # fmt: skip
        whole = composed(texts, [strength for _, strength in d.claims], each)
        return self.Evidence({self.name: self.metric(whole, seed)}, whole, rules)


def decided(judge: Judge, texts: Sequence[JudgedWindow], answers: Sequence[Rating]) -> tuple[JudgedWindow, ...]:
    """Texts with the judge's decisions. Of a judge that rates singly a clear Yes counts, as its thresholds were measured."""
    yes = 2 if judge.rating == "single" else 1
    return tuple(
        replace(text, decided=None if a.value is None else a.value >= yes, score=a.score, reason=a.reason)
        for text, a in zip(texts, answers, strict=True)
    )


def composed(texts: Part, strengths: Sequence[int], found: Sequence[Part]) -> Part:
    """Windows with what some rules say together: yes where any of them does, no where all say no, else nothing.

    The score is the largest of strength / 5 × the rule's, which is the chance that its graded score stands for, or its decision as 0 or 1;
    None where the largest could be that of a rule without an answer.

    Args:
        texts: without decisions.
        strengths: of the rules; without any, nothing is claimed, and all is no.
        found: the same windows with each rule's decisions.
    """
    from fade_lens.judge.single import chance

    def together(text: JudgedWindow, own: Sequence[JudgedWindow]) -> JudgedWindow:
        said, best, missing = tuple(one.decided for one in own), 0.0, 0.0
        for strength, one in zip(strengths, own, strict=True):
            weight = strength / STRONGEST
            if one.decided is None:
                missing = max(missing, weight)
            else:
                best = max(best, weight * (one.decided if one.score is None else chance(one.score)))
        decided = True if any(said) else None if None in said else False
        reason = next((one.reason for one in own if one.decided is None), None) if decided is None else None
        return replace(text, decided=decided, score=best if best >= missing else None, reason=reason, rules=said)

    return tuple(together(text, [some[at] for some in found]) for at, text in enumerate(texts))


def lacking(scoring: Scoring, index: int, least: int) -> Reason | None:
    """Why a feature cannot be tested on windows: it fires, or is silent, on too few texts."""
    evidence, role = scoring.evidence, scoring.role
    if (reason := evidence.lacking(index, role, least)) is not None:
        return reason
    n = len(evidence.silent(index, role))
    return None if n >= least else Reason("too_few_silent", NO_SILENT.format(n=n, role=role or "it", least=least))


def untestable(scoring: Scoring, descriptions: Sequence[Description], least: int) -> dict[int, Reason | None]:
    """The features of some descriptions, once the corpus was passed, each with the reason why it cannot be tested."""
    scoring.observe()
    return {index: lacking(scoring, index, least) for index in dict.fromkeys(d.index for d in descriptions)}


def effect_of(sides: Sequence[Sequence[JudgedWindow]], documents: Documents) -> float:
    """How many decisions on windows of two sides tell as much as one would alone."""
    if documents is None:
        return 1.0
    outcomes = [np.array([np.nan if t.outcome is None else t.outcome for t in some], dtype=np.float64) for some in sides]  # fmt: skip
    return design_effect(outcomes, [np.array([t.number for t in some], dtype=np.int64) for some in sides], documents)


def graded(name: str, texts: Sequence[JudgedWindow], seed: int, documents: Documents = None) -> dict[str, float | None]:
    """AUROC of graded scores with its interval, as details; nothing where a side has none."""
    groups = [[t for t in texts if t.score is not None and t.positive is side] for side in (True, False)]
    sides = [np.array([t.score for t in some], dtype=np.float64) for some in groups]
    if not all(map(len, sides)):
        return {}
    value = auroc(*sides)
    low, high = around(value, Rows.of_groups(*sides).interval(lambda ranked, _: ranked.auroc(), seed))
    numbers = [np.array([t.number for t in some], dtype=np.int64) for some in groups]
    if documents is not None and (effect := design_effect(placements(*sides), numbers, documents)) > 1:
        wider = math.sqrt(effect)
        low, high = max(value - wider * (value - low), 0.0), min(value + wider * (high - value), 1.0)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
