"""One call of `Fade.evaluate`: the order of its stages. The judge asks and answers while torch computes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fade_lens._util.errors import InputError
from fade_lens._util.progress import Stages
from fade_lens._util.seeds import stream
from fade_lens.baselines.cross_scores import CrossScores
from fade_lens.baselines.permutation import PermutationTest, beside_the_others
from fade_lens.data.collisions import collisions
from fade_lens.data.descriptions import Description
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers.base import shown_windows
from fade_lens.generation.continuations import PartContinuations
from fade_lens.judge import Judge
from fade_lens.judge.reliability import Reliability
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.health import before_scoring
from fade_lens.runs.passes import observe
from fade_lens.runs.record import Overflowed, RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.runs.settings import Settings
from fade_lens.runs.store import RunStore, versions
from fade_lens.scorers.base import Scored, Scorer, Scoring
from fade_lens.scorers.fade import FadeEvidence, FadeScorer
from fade_lens.subject.hooks import model_name
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import summaries

Nulls = Mapping[str, tuple[Description, ...]]


class Pipeline:
    """Any scorers over descriptions of one subject; where they are `held_out`, over the texts that no explainer has seen."""

    def __init__(
        self,
        subject: Subject,
        judge: Judge,
        settings: Settings,
        scorers: Mapping[str, type[Scorer]],
        reliability: Reliability,
        store: RunStore | None,
        stages: Stages,
        *,
        held_out: bool = False,
    ) -> None:
        self.whole = subject
        """What the corpus alone tells of features is told of all of it."""
        self.evidence = Evidence(
            subject, observe=lambda one: observe([one], [store], stages), store=None if store is None else store.path
        )
        if held_out:
            texts = self.evidence.texts("test")
            if not len(texts):
                raise InputError(
                    f"held_out is True, and none of the {len(subject.tokens):,} texts of {subject.corpus.source} is kept for tests; give a larger corpus"
                )
            subject = subject.among(texts)
        self.held_out = held_out
        self.subject, self.judge, self.settings, self.scorers = subject, judge, settings, scorers
        self.reliability, self.store, self.stages = reliability, store, stages
        self._observed = False

    def run(self, chosen: tuple[Description, ...], nulls: Nulls, identity: Mapping[str, Any]) -> Results:
        """Score descriptions and the null descriptions of each kind; `identity` is what the run is known by."""
        started, before = time.monotonic(), self.judge.usage
        every = tuple(dict.fromkeys([*chosen, *(d for some in nulls.values() for d in some)]))
        store = self.store if self.store is None or not self.held_out else PartContinuations(self.store, "test")
        role: Role | None = "test" if self.held_out else None
        scoring = Scoring(
            self.subject, self.judge, self.settings, store, self.stages, self.evidence, role, self._observe
        )
        scorers = {name: scorer(scoring) for name, scorer in self.scorers.items()}
        self._check_judge()
        seed = partial(stream, self.settings.seed)
        with self.stages.showing():
            earlier = before.calls + before.cached
            self.stages.answers(
                lambda: self.judge.usage.calls + self.judge.usage.cached - earlier, self._expected(every)
            )
            health = before_scoring(self.whole, self.settings, self.store, self.stages)
            self.reliability.ask_gold(seed, scoring.wait)
            asked = {name: scorer.ask(every) for name, scorer in scorers.items()}
            self._observe()
            about = summaries(self.whole)  # while the judge has enough to do
            scored = {name: scorer.measure(asked[name]) for name, scorer in scorers.items()}
            evidence = {d: {name: found[d] for name, found in scored.items()} for d in every}
            again = self.reliability.ask({d: rated_of(evidence[d]) for d in chosen}, seed)
            shown = shown_windows(self.evidence, chosen)
            if again:
                scoring.wait("judge: rating texts again", again)
        found = {d: Result(d, about[d.index], evidence[d]) for d in every}
        fade = next((scorer for scorer in scorers.values() if isinstance(scorer, FadeScorer)), None)
        cross, beside = self._beside(chosen, fade, [found[d].fade for d in chosen])
        shared = collisions(chosen)
        items = (
            replace(
                found[d], permutation=test, usage=self.reliability.usage_of(d), agreement=self.reliability.of(d),
                shown=shown.get(d, ()), collides=flag.words if (flag := shared.flag(d.index)) else "",
            )
            for d, test in zip(chosen, beside, strict=True)
        )  # fmt: skip
        usage, seconds = self.judge.usage - before + self.reliability.usage, round(time.monotonic() - started, 1)
        record = self._record(identity, fade, usage=usage, seconds=seconds, health=health, **self.reliability.report())
        of_nulls = {kind: tuple(found[d] for d in some) for kind, some in nulls.items()}
        return Results(tuple(items), record, cross, of_nulls)

    def _check_judge(self) -> None:
        """A judge that has answered is there, and one at work tells itself; a run that is resumed may have nothing left to ask."""
        needed = any(scorer.asks_a_judge(self.settings) for scorer in self.scorers.values())
        known = self.judge.usage.calls or self.judge.busy or (self.store is not None and self.store.answered)
        if needed and not known:
            self.judge.check()

    def _expected(self, descriptions: Sequence[Description]) -> int:
        """How many questions the judge is asked at most, repetitions and gold set left out."""
        n_texts = len(self.subject.tokens)
        cost = (one.estimate(self.judge, self.settings, descriptions, n_texts) for one in self.scorers.values())
        return sum(one.calls for one in cost)

    def _observe(self) -> None:
        """The pass over the corpus, or what the store has of it; once."""
        if not self._observed:
            self._observed = True
            observe([self.whole], [self.store], self.stages)

    def _beside(
        self,
        chosen: Sequence[Description],
        fade: FadeScorer | None,
        evidence: Sequence[FadeEvidence],
    ) -> tuple[CrossScores | None, Sequence[PermutationTest | None]]:
        """FADE's scores of every feature for every description, and each description beside the others; nothing without FADE."""
        if fade is None or fade.activations is None:
            return None, [None] * len(chosen)
        rows = [fade.activations.rows(fade.written[d].texts) for d in chosen]
        natural = self.subject.activations.values
        if lost := [c for c in range(natural.shape[1]) if self.subject.activations.overflowed(c)]:
            natural = natural.copy()
            natural[:, lost] = np.nan  # what is known of these features is not known of the whole corpus
        return beside_the_others(chosen, natural, fade.activations.values, rows, [one.rated_texts for one in evidence])

    def _record(self, identity: Mapping[str, Any], fade: FadeScorer | None, **known: Any) -> RunRecord:
        """What there is to know of a run: what decides its numbers, and what is known beside that."""
        activations, tokens, source = self.whole.activations, self.whole.tokens, self.subject.source
        written = None if fade is None else fade.activations
        n_written = 0 if written is None else int(written.overflowed.any(axis=1).sum())
        return RunRecord.of(
            identity,
            # What model and SAE are called decides no number, so it is no part of the identity that a store checks.
            {"model": model_name(self.subject.model), "features": names_of(source)},
            held_out=len(self.subject.tokens) if self.held_out else None,
            versions={**versions(), **self.whole.workers.record},
            n_outliers=activations.n_outliers,
            n_overflowed=Overflowed(activations.n_overflowed, n_written),
            n_truncated=tokens.n_truncated,
            text_lost=round(tokens.lost, 4),
            **known,
        )


def rated_of(evidence: Mapping[str, Scored]) -> list[tuple[str, int]]:
    """The texts that the judge rated for a description, whatever scorer asked."""
    return [pair for found in evidence.values() for pair in found.rated()]
