"""All four metrics over a table of descriptions: the judge asks and answers while torch computes."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sae_lens import SAE

from fade_lens._util.errors import InputError
from fade_lens._util.progress import Stages
from fade_lens._util.seeds import stream
from fade_lens.baselines.null_descriptions import NOT_RATED, is_generic, null_arms, write_once
from fade_lens.baselines.permutation import beside_the_others
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.judge import Estimate, Judge, MemoryTranscripts
from fade_lens.judge.reliability import Reliability
from fade_lens.llm.transcripts import SharedTranscripts
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.results import Result, Results
from fade_lens.runs.settings import Settings
from fade_lens.runs.store import FILE, RunStore, file_of, versions
from fade_lens.scorers import ClarityEvaluator, FaithfulnessEvaluator, RatingEvaluator
from fade_lens.scorers.evidence import ClarityEvidence, FaithfulnessEvidence, FeatureSummary, RatedEvidence, TopText
from fade_lens.scorers.faithfulness import Asked as SteeredAsked
from fade_lens.scorers.faithfulness import longest_rounds
from fade_lens.scorers.ratings import Asked as RatingsAsked
from fade_lens.subject.activations import token_activations
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import Model, model_name
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import pieces

logger = logging.getLogger(__name__)

STEERED_AT_ONCE = 512
"""Continuations generated before they are kept and sent to the judge, so that both work at the same time."""


class Fade:
    """Does a description of a feature tell the truth? Clarity, Responsiveness, Purity and Faithfulness (FADE).

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name such as "blocks.20.mlp.hook_post" for neurons.
        corpus: natural texts: a `Corpus`, or a list of strings.
        judge: a `Judge`, or its spec such as "openai:gpt-4o-mini".
        settings: a `Settings`; any of its fields can also be given by name.

    Raises:
        InputError: an SAE that does not fit the model, an unknown hook, an empty corpus, a setting that cannot be used.
    """

    def __init__(
        self,
        model: Model,
        source: SAE[Any] | str,
        *,
        corpus: Corpus | Sequence[str],
        judge: Judge | str,
        settings: Settings | None = None,
        **overrides: Any,
    ) -> None:
        known = set(asdict(Settings()))
        if unknown := set(overrides) - known:
            raise InputError(f"unknown setting {min(unknown)!r}; the settings are {', '.join(sorted(known))}")
        self.settings = replace(settings or Settings(), **overrides)
        self.model, self.source = model, source
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
        # A hook or an SAE that does not fit is told now, not when a run begins.
        self._n_features = features_of(model, source, [0]).n_features
        self.judge = Judge.parse(judge) if isinstance(judge, str) else judge

    def evaluate(
        self,
        descriptions: Any,
        *,
        store: str | Path | None = None,
        nulls: Sequence[str] = (),
        repeats: int = 0,
        second_judge: Judge | str | None = None,
        gold: Any = None,
        transcripts: str | Path | None = None,
        progress: bool = True,
    ) -> Results:
        """Score every description.

        Args:
            descriptions: a dict `{index: text}`, Series, DataFrame, or CSV/JSON/JSONL file (see `read_descriptions`).
            store: a folder that keeps every judge answer, activation and continuation: run again to go on where a run
                stopped, without asking anything twice.
            nulls: null arms to score beside them: "shuffled", "random", "generic" (see `fade_lens.baselines.null_descriptions.ARMS`).
            repeats: how many times the judge rates some texts of each description again; Cohen's kappa tells how far it agrees
                with itself (`results.run["agreement"]`, and a flag where it is low).
            second_judge: another judge, or its spec, that rates the same texts.
            gold: texts whose rating is known, rated first to tell how often the judge errs (`results.run["gold"]`): a CSV file
                with columns concept, text and rating, or rows of these.
            transcripts: a file, or another run's folder, whose judge answers are shared: what is there is not asked again.
            progress: show progress bars.

        Raises:
            InputError: descriptions that cannot be used, before anything is computed or asked.
            JudgeError: the judge cannot be asked; what was done is in the store.
            StoreError: the store was made with other settings.
        """
        started = time.monotonic()
        chosen = read_descriptions(descriptions)
        arms = null_arms(chosen, nulls, self._n_features, self.settings.seed)
        indices = tuple(dict.fromkeys(d.index for some in (chosen, *arms.values()) for d in some))
        subject = Subject(self.model, self.source, self.corpus, indices, self.settings)
        evaluation = _Evaluation(self, subject, chosen, arms, Stages(progress))
        identity = {**subject.identity(), "judge": self.judge.identity, "settings": self.settings.to_dict()}
        with ExitStack() as stack:
            reliability = Reliability(self.judge, repeats=repeats, second=second_judge, gold=gold)
            stack.enter_context(reliability)
            kept = None if store is None else stack.enter_context(RunStore(store, identity))
            answers = kept or MemoryTranscripts()
            if transcripts is not None:
                shared = file_of(Path(transcripts))
                if shared.name == FILE and not shared.exists():
                    raise InputError(
                        f"transcripts is {str(transcripts)!r}, where no run has left answers; give another run's folder, "
                        "or a file to begin one, such as 'answers.sqlite'"
                    )
                answers = SharedTranscripts(answers, stack.enter_context(RunStore(shared)))
            for judge in reliability.judges:
                stack.enter_context(judge.session(answers))
            return evaluation.run(kept, started, reliability, identity)

    def summaries(self, indices: Sequence[int]) -> dict[int, FeatureSummary]:
        """What the corpus tells of some features, their strongest texts token by token; no judge is asked.

        Raises:
            InputError: an index that the SAE or hook does not have.
        """
        subject = Subject(self.model, self.source, self.corpus, tuple(dict.fromkeys(indices)), self.settings)
        return _Evaluation(self, subject, (), {}, Stages(False))._summaries() if indices else {}

    def estimate(
        self,
        descriptions: Any,
        *,
        nulls: Sequence[str] = (),
        repeats: int = 0,
        second_judge: Judge | str | None = None,
        gold: Any = None,
    ) -> Estimate:
        """Judge calls, tokens and price of a run, before anything is spent (upper bound: as if all passed the gate and no rating
        stopped early)."""
        chosen, settings = read_descriptions(descriptions), self.settings
        n, arms = len(chosen), null_arms(chosen, nulls, self._n_features, settings.seed)
        # How many windows there are is known once they are tokenized.
        rated = settings.rated_texts if self.corpus.windows else min(settings.rated_texts, len(self.corpus))
        continued = longest_rounds(settings, self.judge.texts_per_request)
        with Reliability(self.judge, repeats=repeats, second=second_judge, gold=gold) as reliability:
            again = reliability.estimate(n, rated)
        for arm in arms:  # see `null_arms.ARMS` for what each asks
            if arm == "generic":
                again += self.judge.estimate(settings.synthetic_texts, 0)
            else:
                again += self._estimate(0, rated, continued, n)
        return self._estimate(settings.synthetic_texts, rated, continued, n) + again

    def _estimate(self, written: int, rated: int, rounds: Sequence[int], n: int) -> Estimate:
        """For `n` concepts; natural texts and the continuations of each round are never rated in one request."""
        estimate = self.judge.estimate(written, rated, n_concepts=n)
        return sum((self.judge.estimate(0, continued, n_concepts=n) for continued in rounds), estimate)


class _Evaluation:
    """One call of `Fade.evaluate`: the order of the stages, and what waits for what."""

    def __init__(
        self,
        fade: Fade,
        subject: Subject,
        descriptions: tuple[Description, ...],
        arms: Mapping[str, tuple[Description, ...]],
        stages: Stages,
    ) -> None:
        self.fade, self.subject, self.stages = fade, subject, stages
        self.chosen, self.arms = descriptions, arms
        self.descriptions = tuple(dict.fromkeys([*descriptions, *(d for arm in arms.values() for d in arm)]))
        self.settings, self.judge = fade.settings, fade.judge

    def run(
        self, store: RunStore | None, started: float, reliability: Reliability, identity: Mapping[str, Any]
    ) -> Results:
        before = self.judge.usage
        clarity = ClarityEvaluator(self.subject, self.judge, self.settings)
        ratings = RatingEvaluator(self.subject, self.judge, self.settings)
        faithfulness = FaithfulnessEvaluator(self.subject, self.judge, self.settings, store)
        # A judge that has answered is there; a run that goes on may have nothing left to ask.
        if not before.calls and not (store is not None and store.answered):
            self.judge.check()
        seed = partial(stream, self.settings.seed)
        with self.stages.showing():
            reliability.ask_gold(seed, self._wait)
            written = write_once(clarity.ask, self.descriptions)
            self._observe(store)
            shown = [d for d in self.descriptions if not is_generic(d)]
            asked = {d: ratings.ask(d) for d in shown}
            self._wait("judge: writing texts", written.values())
            texts = {d: answer.result() for d, answer in written.items()}
            advance = self.stages.stage("model: written texts", sum(len(a.texts) for a in texts.values()))
            activations = clarity.activate(texts, advance)
            clear = clarity.measure(texts, activations)
            rated: dict[Description, RatedEvidence] = {}
            steered = self._steer(self._gated(ratings, asked, faithfulness, clear, rated), faithfulness)
            again = reliability.ask({d: rated[d] for d in self.chosen}, seed)
            summaries = self._summaries()
            faithful = self._measured(faithfulness, clear, rated, steered)
            if again:
                self._wait("judge: rating texts again", again)
        found = {d: Result(d, summaries[d.index], clear[d], rated[d], faithful[d]) for d in self.descriptions}
        rows = [activations.rows(texts[d].texts) for d in self.chosen]
        natural = self.subject.activations.values
        if lost := [c for c in range(natural.shape[1]) if self.subject.activations.overflowed(c)]:
            natural = natural.copy()
            natural[:, lost] = np.nan  # what is known of these features is not known of the whole corpus
        cross, beside = beside_the_others(
            self.chosen, natural, activations.values, rows, [rated[d] for d in self.chosen]
        )
        usage = asdict(self.judge.usage - before + reliability.usage)
        return Results(
            tuple(
                replace(found[d], null=null, usage=reliability.usage_of(d.text), agreement=reliability.of(d))
                for d, null in zip(self.chosen, beside, strict=True)
            ),
            {
                **identity,
                # What model and SAE are called decides no number, so it is no part of the identity that a store checks.
                "model": {"name": model_name(self.fade.model), **identity["model"]},
                "features": {**identity["features"], **names_of(self.fade.source)},
                "versions": versions(),
                "usage": usage,
                "seconds": round(time.monotonic() - started, 1),
                "n_outliers": self.subject.activations.n_outliers,
                "n_overflowed": {
                    "natural": self.subject.activations.n_overflowed,
                    "written": int(activations.overflowed.any(axis=1).sum()),
                },
                "n_truncated": self.subject.tokens.n_truncated,
                "text_lost": round(self.subject.tokens.lost, 4),
                **reliability.report(),
            },
            cross,
            {arm: tuple(found[d] for d in nulls) for arm, nulls in self.arms.items()},
        )

    def _observe(self, store: RunStore | None) -> None:
        """The pass over the corpus, or what the store has of it."""
        indices = self.subject.features.indices
        kept = None if store is None else store.activations(indices)
        advance = self.stages.stage("model: natural texts", len(self.subject.tokens))
        found = self.subject.observe(kept, advance)
        if kept is not None:
            advance(len(self.subject.tokens))
        elif store is not None:
            store.keep_texts(self.subject.tokens)
            store.keep_activations(indices, found)

    def _gated(
        self,
        ratings: RatingEvaluator,
        asked: Mapping[Description, RatingsAsked],
        evaluator: FaithfulnessEvaluator,
        clear: Mapping[Description, ClarityEvidence],
        rated: dict[Description, RatedEvidence],
    ) -> Iterator[Description]:
        """Those that pass the gate, in the order of the descriptions; `rated` is filled on the way."""
        advance = self.stages.stage("judge: rating natural texts", len(asked))
        for d in self.descriptions:
            rated[d] = ratings.measure(d, asked[d]) if d in asked else NOT_RATED
            advance(1 if d in asked else 0)
            if evaluator.gate(d, clear[d].clarity, rated[d].responsiveness) is None:
                yield d

    def _steer(
        self, passed: Iterable[Description], evaluator: FaithfulnessEvaluator
    ) -> dict[Description, SteeredAsked]:
        """Continuations of these descriptions, some at a time, sent to the judge: it rates a group while the next is generated.

        Which descriptions make a group depends on their order alone, never on how fast the judge answers.
        """
        a_feature = len(evaluator.prompts) * self.settings.steered_sets
        a_group = max(1, STEERED_AT_ONCE // max(a_feature, 1))
        n_features = len({d.index for d in self.descriptions})
        n_texts = n_features * a_feature + len(evaluator.prompts) if a_feature else 0
        advance = self.stages.stage("model: steered texts", n_texts)
        asked: dict[Description, SteeredAsked] = {}
        passed = iter(passed)
        while some := list(islice(passed, a_group)):
            evaluator.steer([d.index for d in some], advance)
            asked |= {d: evaluator.ask(d) for d in some}
        return asked

    def _measured(
        self,
        evaluator: FaithfulnessEvaluator,
        clear: Mapping[Description, ClarityEvidence],
        rated: Mapping[Description, RatedEvidence],
        asked: Mapping[Description, SteeredAsked],
    ) -> dict[Description, FaithfulnessEvidence]:
        """Faithfulness of every description, or why it is not measured."""
        self._wait("judge: rating steered texts", [a.answer for a in asked.values()])
        found = {d: evaluator.measure(d, a) for d, a in asked.items()}
        for d in self.descriptions:
            stopped = evaluator.gate(d, clear[d].clarity, rated[d].responsiveness)
            if stopped is not None:
                found[d] = FaithfulnessEvidence(stopped)
        return found

    def _summaries(self) -> dict[int, FeatureSummary]:
        """What the corpus tells about every feature, with its strongest texts token by token."""
        subject, activations = self.subject, self.subject.activations
        strongest = {
            index: strongest_texts(subject.natural(index), self.settings.top_texts)
            for index in subject.features.indices
        }
        columns: dict[int, list[int]] = {}
        for index, texts in strongest.items():
            for text in texts:
                columns.setdefault(text, []).append(subject.column(index))
        numbers = sorted(columns)
        rows = token_activations(
            subject.model,
            subject.features,
            subject.tokens.select(numbers),
            subject.outliers,
            columns=[columns[number] for number in numbers],
        )
        by_text = dict(zip(numbers, rows, strict=True))

        def top(index: int, number: int) -> TopText:
            values = by_text[number][:, columns[number].index(subject.column(index))]
            return TopText(
                number,
                float(subject.natural(index)[number]),
                pieces(subject.model.tokenizer, subject.tokens[number].tolist()),
                tuple(None if np.isnan(v) else float(v) for v in values),
            )

        return {
            index: summary(
                subject, index, float(activations.firing_rate[subject.column(index)]), [top(index, n) for n in texts]
            )
            for index, texts in strongest.items()
        }

    def _wait(self, name: str, futures: Iterable["Future[Any]"]) -> None:
        """Wait for the judge, the bar moving as answers come; the first error ends the run."""
        pending = set(futures)
        advance = self.stages.stage(name, len(pending))
        while pending:
            done, pending = wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                future.result()
            advance(len(done))


def strongest_texts(natural: Any, n: int) -> list[int]:
    """The texts of largest |activation|, strongest first, those on which the feature is silent left out."""
    magnitude = np.abs(np.nan_to_num(natural))
    order = np.argsort(-magnitude, kind="stable")[:n]
    return [int(i) for i in order if magnitude[i] > 0]


def summary(subject: Subject, index: int, firing_rate: float, top: Sequence[TopText]) -> FeatureSummary:
    """One feature's summary over the corpus."""
    natural = subject.natural(index)
    defined = natural[~np.isnan(natural)]
    reference = subject.reference(index)
    return FeatureSummary(
        firing_rate=firing_rate,
        firing_texts=int((defined != 0).sum()),
        n_texts=len(defined),
        largest=float(defined[np.abs(defined).argmax()]) if len(defined) else 0.0,
        reference=None if np.isnan(reference) else reference,
        quantiles=tuple(float(q) for q in np.quantile(defined, np.linspace(0, 1, 101))) if len(defined) else (),
        top=tuple(top),
    )
