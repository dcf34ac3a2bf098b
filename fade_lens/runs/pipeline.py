"""One call of `Fade.evaluate`: the order of its stages. The judge asks and answers while torch computes."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from fade_lens._util.errors import InputError
from fade_lens._util.progress import Stages
from fade_lens._util.seeds import stream
from fade_lens.data.collisions import collisions
from fade_lens.data.descriptions import Description
from fade_lens.evidence.roles import Role
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers.base import shown_windows
from fade_lens.generation.continuations import PartContinuations
from fade_lens.judge import Judge
from fade_lens.judge.reliability import Reliability
from fade_lens.metrics.metric import GATE
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.blocks import Beside, Block, Coming, Nulls, blocks_of
from fade_lens.runs.health import before_scoring
from fade_lens.runs.passes import observe
from fade_lens.runs.record import Overflowed, RunRecord
from fade_lens.runs.results import Result, Results
from fade_lens.runs.settings import Settings
from fade_lens.runs.store import RunStore, versions
from fade_lens.scorers.base import Scored, Scorer, Scoring
from fade_lens.scorers.fade import FadeScorer
from fade_lens.subject.hooks import model_name
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import summaries


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
        """Score descriptions and the null descriptions of each kind; `identity` is what the run is known by.

        A large run goes block by block: the judge is asked about the next one before this one is measured, so that it never idles.
        No number depends on the blocks.
        """
        started, before, blocks = time.monotonic(), self.judge.usage, blocks_of(chosen, nulls)
        every = tuple(dict.fromkeys([*chosen, *(d for some in nulls.values() for d in some)]))
        self.first = {d.text: d for d in reversed(every)}
        self.gate = RunRecord(identity["settings"]).gate
        self.coming = Coming(len(blocks) > 1, None if self.store is None else self.store.path.parent)
        beside, lost = Beside(self.subject, len(chosen)), set[str]()
        scorers = self._scorers(blocks[0])
        self._check_judge()
        with self.stages.showing():
            earlier = before.calls + before.cached
            self.stages.answers(
                lambda: self.judge.usage.calls + self.judge.usage.cached - earlier, self._expected(every)
            )
            health = before_scoring(self.whole, self.settings, self.store, self.stages)
            self.reliability.ask_gold(partial(stream, self.settings.seed), self.stages.wait)
            ahead = [self._asked(scorers, blocks[0])]
            self._observe()
            for block, later in zip_longest(blocks, blocks[1:]):
                if later is not None:
                    ahead.append(self._asked(self._scorers(later), later))
                scorers, asked = ahead.pop(0)
                evidence = self._measured(block, scorers, asked, alone=len(blocks) == 1)
                if (fade := next((one for one in scorers.values() if isinstance(one, FadeScorer)), None)) is not None:
                    beside.add(block, fade, evidence)
                    lost |= fade.lost
        shared, tests = collisions(chosen), beside.tests
        known = [
            {
                "permutation": tests[place],
                "usage": self.reliability.usage_of(d),
                "collides": flag.words if (flag := shared.flag(d.index)) else "",
            }
            for place, d in enumerate(chosen)
        ]
        self.coming.told("", known)
        usage, seconds = self.judge.usage - before + self.reliability.usage, round(time.monotonic() - started, 1)
        about: dict[str, Any] = {"usage": usage, "seconds": seconds, "health": health, **self.reliability.report()}
        items, of_nulls = (partial(self.coming.items, n=len(chosen), gate=gate, scorers=tuple(self.scorers)) for gate in (self.gate, GATE))  # fmt: skip
        kinds = {kind: of_nulls(f"nulls/{kind}") for kind in nulls}
        return Results(items(""), self._record(identity, len(lost), **about), beside.cross, kinds)

    def _scorers(self, block: Block) -> dict[str, Scorer]:
        """The scorers of a block."""
        store = self.store if self.store is None or not self.held_out else PartContinuations(self.store, "test")
        role: Role | None = "test" if self.held_out else None
        parts = self.subject, self.judge, self.settings, store, self.stages, self.evidence, role, self._observe
        scoring = Scoring(*parts, first=self.first, compared=block.part)
        return {name: scorer(scoring) for name, scorer in self.scorers.items()}

    def _asked(self, scorers: Mapping[str, Scorer], block: Block) -> tuple[Mapping[str, Scorer], dict[str, Any]]:
        """Begin to ask about a block."""
        return scorers, {name: scorer.ask(block.every) for name, scorer in scorers.items()}

    def _measured(
        self, block: Block, scorers: Mapping[str, Scorer], asked: Mapping[str, Any], *, alone: bool
    ) -> dict[Description, Mapping[str, Scored]]:
        """The results of a block, kept with what is known of them now; the evidence behind them."""
        whole = self.whole
        if not alone:
            whole = whole.of_features(list(dict.fromkeys(d.index for d in block.every)))
            whole.take(self.whole)
        about = summaries(whole)  # while the judge has enough to do
        scored = {name: scorer.measure(asked[name]) for name, scorer in scorers.items()}
        evidence: dict[Description, Mapping[str, Scored]] = {
            d: {name: found[d] for name, found in scored.items()} for d in block.every
        }
        again = self.reliability.ask({d: rated_of(evidence[d]) for d in block.chosen}, partial(stream, self.settings.seed))  # fmt: skip
        shown = shown_windows(self.evidence, block.chosen)
        if again:
            self.stages.wait("judge: rating texts again", again)
        for place, d in zip(block.places, block.chosen, strict=True):
            result = Result(d, about[d.index], evidence[d], agreement=self.reliability.of(d), shown=shown.get(d, ()), gate=self.gate)  # fmt: skip
            self.coming.keep("", place, result)
        for kind, some in block.nulls.items():
            for place, d in zip(block.places, some, strict=True):
                self.coming.keep(f"nulls/{kind}", place, Result(d, about[d.index], evidence[d]))
        return evidence

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

    def _record(self, identity: Mapping[str, Any], n_written: int, **known: Any) -> RunRecord:
        """What there is to know of a run: what decides its numbers, and what is known beside that."""
        activations, tokens, source = self.whole.activations, self.whole.tokens, self.subject.source
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
