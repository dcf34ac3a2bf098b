"""Descriptions of features and what they score: the one object that a user needs."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_lens import SAE

from fade_lens._util.errors import Argument, InputError, JudgeError
from fade_lens._util.progress import Stages
from fade_lens._util.words import evenly
from fade_lens._util.workers import HERE, Workers
from fade_lens.baselines.features import check_source
from fade_lens.baselines.kinds import check_baselines
from fade_lens.baselines.null_descriptions import check_nulls, null_descriptions
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import read_descriptions, undescribed
from fade_lens.data.indices import WORDS, checked_indices, chosen_indices
from fade_lens.explainers.base import check_evidence, explainer_of
from fade_lens.explainers.table import Explanations, NothingDescribed, explained_by
from fade_lens.generation.steer import steer
from fade_lens.judge import Estimate, Judge, MemoryTranscripts
from fade_lens.judge.reliability import Reliability
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Request
from fade_lens.llm.transcripts import SharedTranscripts
from fade_lens.neuronpedia.resolving import tell_of_another
from fade_lens.runs.baselines import scored_beside
from fade_lens.runs.estimating import estimate_run
from fade_lens.runs.explaining import check_against, explain
from fade_lens.runs.fires import Fires, fires
from fade_lens.runs.health import Health, health
from fade_lens.runs.look import Look, look
from fade_lens.runs.passes import observe
from fade_lens.runs.pipeline import Pipeline
from fade_lens.runs.ray import Ray, workers_of
from fade_lens.runs.results import Results
from fade_lens.runs.settings import Settings, recorded, settings_of
from fade_lens.runs.store import FILE, RunStore, file_of, saved_activations
from fade_lens.scorers.base import Scorer, scorers_of
from fade_lens.subject.features import Source, features_of
from fade_lens.subject.given import Given
from fade_lens.subject.hooks import Model
from fade_lens.subject.look import LookSettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.summary import FeatureSummary, summaries

if TYPE_CHECKING:
    import pandas as pd

MOST_OTHERS = 100
"""Of the features that share a description, those that each is told from; evenly spread where there are more."""


class Nobody:
    """What stands for a judge where none was given."""

    name = "nobody"

    async def ask(self, request: Request) -> Answer:  # noqa: ARG002
        """Raises `JudgeError`: a scorer that says it needs no judge asks one."""
        raise JudgeError("no judge was given: make it with Fade(model, source, corpus=…, judge='openai:gpt-4o-mini')")


class Fade:
    """Does a description of a feature tell the truth? Clarity, Responsiveness, Purity and Faithfulness (FADE).

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        source: a `sae_lens` SAE or transcoder, or a hook name such as "blocks.20.mlp.hook_post" for neurons.
        corpus: natural texts: a `Corpus`, or a list of strings.
        judge: a `Judge`, or its spec such as "openai:gpt-4o-mini"; None for what asks none (`look`, `fires`, `steer`, `summaries`, some scorers and explainers).
        activations: the features' activations where they are known already, in place of a pass over the corpus: a function or a mapping from
            a feature's index to its largest activation on every text, special tokens left out; or the folder of an earlier run over the
            same texts. They are compared with the model on a few texts; what needs tokens runs the texts that it needs.
        settings: a `Settings`; any of its fields, and those of other registered scorers, can also be given by name, and so can
            `preset`: "paper" for the reference implementation's (see `fade_lens.runs.presets`).

    Raises:
        InputError: an SAE that does not fit the model, an unknown hook, an empty corpus, a setting that cannot be used.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        *,
        corpus: Corpus | Sequence[str],
        judge: Judge | str | None = None,
        activations: Given | str | Path | None = None,
        settings: Settings | None = None,
        **overrides: Any,
    ) -> None:
        self.activations = activations
        self.settings = settings_of(settings, overrides, neurons=not isinstance(source, SAE))
        self.model, self.source = model, source
        self.corpus = corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
        # A hook or an SAE that does not fit is told now, not when a run begins.
        self.n_features = features_of(model, source, [0]).n_features
        self.given_judge = Judge.parse(judge) if isinstance(judge, str) else judge
        self.judge = self.given_judge or Judge(Nobody())

    def evaluate(
        self,
        descriptions: Any,
        *,
        scorers: Sequence[str] = ("fade",),
        explainer: str | None = None,
        held_out: bool | None = None,
        store: str | Path | None = None,
        nulls: Sequence[str] = (),
        baselines: Sequence[str] = (),
        repeats: int = 0,
        second_judge: Judge | str | None = None,
        gold: Any = None,
        transcripts: str | Path | None = None,
        progress: bool = True,
        ray: Ray = None,
    ) -> Results:
        """Score every description.

        Args:
            descriptions: a dict `{index: text}`, Series, DataFrame, or CSV/JSON/JSONL file (see `read_descriptions`), or `Explanations`.
            scorers: what to score them by, each a name under which a scorer is registered (see `fade_lens.scorers.base`).
            explainer: who explains what has no description first, a name under which an explainer is registered; `descriptions` may
                then be indices of features, words such as "0:20,512" and "random:50", or have empty ones.
            held_out: score on the texts alone that no explainer is shown (30 % of the documents); unless given, where one of the
                descriptions was made by an explainer of this library.
            store: a folder that keeps every judge answer, activation and continuation: run again to go on where a run
                stopped, without asking anything twice.
            nulls: null descriptions to score beside them: "shuffled", "random", "generic" (see `fade_lens.baselines.null_descriptions.NULLS`).
            baselines: features to explain and score likewise beside an SAE's latents, as many as the run has: "random" (an SAE), "permuted",
                "neurons", "residual" (see `fade_lens.baselines.features`); `results.baselines` has them, and `results.summary()` the difference.
            repeats: how many times the judge rates some texts of each description again; Cohen's kappa tells how far it agrees
                with itself (`results.run.agreement`, and a flag where it is low).
            second_judge: another judge, or its spec, that rates the same texts.
            gold: texts whose rating is known, rated first to tell how often the judge errs (`results.run.gold`): a CSV file
                with columns concept, text and rating, or rows of these.
            transcripts: a file, or another run's folder, whose judge answers are shared: what is there is not asked again.
            progress: show progress bars.
            ray: run the model on Ray's workers: "auto", a cluster's address or `RayWorkers`. Texts, ratings and choices are those of one process.

        Raises:
            InputError: descriptions that cannot be used, or no judge for scorers that ask one, before anything is computed or asked.
            JudgeError: the judge cannot be asked; what was done is in the store.
            StoreError: the store was made with other settings.
            WorkerError: Ray's workers cannot go on; what was done is in the store.
        """
        named = scorers_of(scorers)
        self._check_judged(named, explainer, repeats=repeats, second_judge=second_judge, gold=gold)
        check_nulls(nulls)
        explanations = Explanations.read(descriptions)
        explaining = explainer or explained_by(descriptions if explanations is None else explanations)
        self._check_baselines(baselines, explaining)
        with workers_of(ray) as workers:
            with Reliability(self.judge, repeats=repeats, second=second_judge, gold=gold) as reliability:
                seen = None
                if explainer is not None:
                    given, missing = undescribed(self._named(descriptions))
                    beside = tuple(d.index for d in given)
                    explanations, seen = self._explain(
                        missing, explainer, store, transcripts, progress, workers, beside=beside
                    )
                    descriptions = [*given, *explanations]
                elif explanations is not None:
                    descriptions = list(explanations)
                if explanations is not None and not descriptions:
                    raise NothingDescribed(explanations)
                chosen = read_descriptions(descriptions)
                tell_of_another(chosen, self.source)
                check_evidence(chosen, self.corpus, self.settings.seed)
                if held_out is None:
                    held_out = any(d.provenance.kind == "explained" for d in chosen)
                made = null_descriptions(chosen, nulls, self.n_features, self.settings.seed)
                indices = tuple(dict.fromkeys(d.index for some in (chosen, *made.values()) for d in some))
                with self.opened(indices, store, transcripts, reliability.judges, seen, workers) as (
                    subject,
                    known,
                    kept,
                ):
                    about = {**known, "settings": recorded(self.settings, named.values())}
                    about |= {} if explanations is None else {"explained": explanations.record}
                    stages = Stages(progress)
                    parts = (subject, self.judge, self.settings, named, reliability, kept, stages)
                    found = Pipeline(*parts, held_out=held_out).run(chosen, made, about)
            found = found if explanations is None else replace(found, without=explanations.without)
            options: dict[str, Any] = {
                "scorers": scorers,
                "explainer": explaining,
                "held_out": held_out,
                "progress": progress,
            }
            options |= {"store": store, "transcripts": transcripts, "ray": workers}
            beside = {kind: scored_beside(self, kind, subject, chosen, **options) for kind in dict.fromkeys(baselines)}
            return replace(found, baselines=beside) if beside else found

    def explain(
        self,
        indices: Iterable[int] | int | str,
        *,
        explainer: str = "one-shot",
        against: Mapping[int, Sequence[int]] | None = None,
        store: str | Path | None = None,
        transcripts: str | Path | None = None,
        progress: bool = True,
        ray: Ray = None,
    ) -> Explanations:
        """Explain features that have no description; `evaluate` takes what this gives as it is.

        Args:
            indices: of the features, or words such as "0:20,512" and "random:50".
            explainer: who explains, a name under which an explainer is registered (see `fade_lens.explainers`).
            against: of each of these features others that it is to be told from: "contrastive" shows windows in which they fire and it is silent.
            store: as in `evaluate`; the same folder serves both, and features that were explained are not asked about again.
            transcripts, ray: as in `evaluate`.
            progress: show progress bars.

        Returns:
            A table with a row for every feature: its description, or the reason why it has none, which ends nothing.

        Raises:
            InputError: an index that the SAE or hook does not have, an unknown explainer.
            JudgeError: the judge cannot be asked; what was done is in the store.
            StoreError: the store was made with other settings.
        """
        self._check_judged({}, explainer)
        chosen = chosen_indices(indices, self.n_features, self.settings.seed)
        with workers_of(ray) as workers:
            return self._explain(tuple(chosen), explainer, store, transcripts, progress, workers, against=against)[0]

    def untangle(
        self,
        explanations: Any,
        *,
        near: float | None = None,
        explainer: str = "contrastive",
        store: str | Path | None = None,
        transcripts: str | Path | None = None,
        progress: bool = True,
        ray: Ray = None,
    ) -> Explanations:
        """Explain features anew that share a description, each against the others that have it; one call a feature with "contrastive".

        `estimate(explanations.collisions().indices, explainer="contrastive", scorers=())` tells the price.

        Args:
            explanations: `Explanations`, or descriptions as `evaluate` takes them, one a feature.
            near: cosine from which descriptions count as shared (see `Explanations.collisions`); without it a mere paraphrase counts as another.
            explainer: one that shows windows of other features.
            store, transcripts, ray: as in `evaluate`.
            progress: show progress bars.

        Returns:
            The explanations, new where one shares its description with fewer than before; `run["collisions"]` has the share before and after.

        Raises:
            InputError: descriptions that cannot be used, several of one feature, an explainer that shows no other features' windows.
            JudgeError: the judge cannot be asked; what was done is in the store.
            StoreError: the store was made with other settings.
        """
        found = Explanations.of(explanations)
        shared, _ = found.collisions(near), found.by_index  # what cannot be untangled is told before anything is asked
        against = {index: evenly(shared.others(index), MOST_OTHERS) for index in shared.indices}
        about: dict[str, Any] = {"store": store, "transcripts": transcripts, "progress": progress, "ray": ray}
        new = self.explain(list(against), explainer=explainer, against=against, **about) if against else replace(found, rows=())  # fmt: skip
        return found.untangled(new, near)

    def _named(self, descriptions: Any) -> Any:
        """Descriptions as they are, or the indices that words name."""
        words = isinstance(descriptions, str) and WORDS.fullmatch(descriptions)
        return chosen_indices(descriptions, self.n_features, self.settings.seed) if words else descriptions

    def _explain(
        self,
        indices: Sequence[int],
        explainer: str,
        store: str | Path | None,
        transcripts: str | Path | None,
        progress: bool,
        workers: Workers,
        beside: Sequence[int] = (),
        against: Mapping[int, Sequence[int]] | None = None,
    ) -> tuple[Explanations, Subject]:
        """Explanations, and the subject of these features and of those `beside`, which are observed in the same pass."""
        made, chosen = explainer_of(explainer), checked_indices(indices, self.n_features)
        if against is not None:
            check_against(made, chosen, against, self.n_features)
            beside = [*beside, *{other for some in against.values() for other in some}]
        asking, stages = made(self.settings) if against is None else made(self.settings, against), Stages(progress)
        asking.check(self.model)
        with self.opened((*chosen, *beside), store, transcripts, (self.judge,), workers=workers) as (
            subject,
            known,
            kept,
        ):
            identity = {**known, "settings": recorded(self.settings, (made,))}
            file = None if kept is None else kept.path
            return explain(
                subject, self.judge, asking, stages, lambda one: observe([one], [kept], stages), identity, chosen, file
            ), subject

    @contextmanager
    def opened(
        self,
        indices: Sequence[int],
        store: str | Path | None,
        transcripts: str | Path | None,
        judges: Iterable[Judge],
        seen: Subject | None = None,
        workers: Workers = HERE,
    ) -> Generator[tuple[Subject, dict[str, Any], RunStore | None]]:
        """The subject of some features, what decides a run's numbers, and the open store; what judges answer is kept in it.

        What was `seen` of another subject of the run is not computed again.
        """
        subject = self._subject(indices, workers)
        if seen is not None:
            subject.take(seen)
        known = {**subject.identity(), "judge": self.judge.identity}
        # A store is bound to FADE's settings, which decide what torch keeps in it; what another scorer asks is kept by the question.
        bound = {**known, "settings": recorded(self.settings, ())}
        with ExitStack() as stack:
            kept = None if store is None else stack.enter_context(RunStore(store, bound))
            answers = kept or MemoryTranscripts()
            if transcripts is not None:
                shared = file_of(Path(transcripts))
                if shared.name == FILE and not shared.exists():
                    raise InputError(
                        Argument("transcripts"),
                        f" is {str(transcripts)!r}, where no run has left answers; give another run's folder, "
                        "or a file to begin one, such as 'answers.sqlite'",
                    )
                answers = SharedTranscripts(answers, stack.enter_context(RunStore(shared)))
            for judge in judges:
                stack.enter_context(judge.session(answers))
            yield subject, known, kept

    def summaries(self, indices: Sequence[int], *, ray: Ray = None) -> dict[int, FeatureSummary]:
        """What the corpus tells of some features, their strongest texts token by token; no judge is asked.

        Args:
            ray: as in `evaluate`.

        Raises:
            InputError: an index that the SAE or hook does not have.
        """
        with workers_of(ray) as workers:
            return summaries(self._subject(indices, workers)) if indices else {}

    def _subject(self, indices: Sequence[int], workers: Workers = HERE) -> Subject:
        """Some features over the corpus, with the activations that were given; workers are ready to run them."""
        chosen, given = tuple(dict.fromkeys(indices)), self.activations
        if isinstance(given, str | Path):
            given = saved_activations(given, chosen)
        subject = Subject(self.model, self.source, self.corpus, chosen, self.settings, given)
        subject.workers = workers
        workers.start()
        return subject

    def look(
        self, indices: Sequence[int] | int | str, *, progress: bool = True, ray: Ray = None, **overrides: Any
    ) -> Look:
        """See features without a description: their texts, promoted tokens and neighbours (see `fade_lens.look`); no judge is asked.

        Args:
            indices: of the features, or words such as "0:20" and "random:50".
            progress: show a progress bar.
            ray: as in `evaluate`.
            overrides: fields of `LookSettings`; the others are those of this object's settings.
        """
        about: dict[str, Any] = {"settings": LookSettings.of(self.settings), "progress": progress, "ray": ray}
        return look(self.model, self.source, indices, self.corpus, **about, **overrides)

    def fires(self, text: str, k: int | None = 20) -> Fires:
        """Which features fire on a text, and at which tokens (see `fade_lens.fires`); no judge is asked."""
        return fires(self.model, self.source, text, k)

    def health(self, **options: Any) -> Health:
        """Whether the SAE does what it should in this model, on this corpus (see `fade_lens.health`); no judge is asked.

        Args:
            options: those of `fade_lens.health`; seed and context are those of this object's settings unless given.
        """
        known: dict[str, Any] = {"seed": self.settings.seed, "context": self.settings.context}
        return health(self.model, self.source, self.corpus, **known | options)

    def steer(
        self,
        index: int,
        prompts: Sequence[str] | str,
        factors: Sequence[float] | float = (0.5, 1.0, 1.5, 2.0),
        **options: Any,
    ) -> "pd.DataFrame":
        """Continue prompts while a feature is steered, and without (see `fade_lens.steer`); no judge is asked.

        Args:
            index: of the feature.
            prompts: what is continued.
            factors: strengths, in units of the feature's reference activation on the corpus.
            options: those of `fade_lens.steer`; the seed is that of this object's settings unless given.
        """
        known: dict[str, Any] = {"corpus": self._subject([index]), "seed": self.settings.seed}
        return steer(self.model, self.source, index, prompts, factors, **known | options)

    def _check_baselines(self, kinds: Sequence[str], explainer: str | None) -> None:
        """Raise `InputError` for baselines that this run cannot have."""
        check_baselines(kinds, explainer)
        if not kinds:
            return
        features = features_of(self.model, self.source, [0])
        for kind in kinds:
            check_source(kind, features)
        if "random" in kinds and self.activations is not None:
            raise InputError(Argument("baselines"), " holds 'random', whose latents fire on as many tokens as the run's, and ", Argument("activations"), " tell texts alone: leave them out")  # fmt: skip

    def _check_judged(self, scorers: Mapping[str, type[Scorer]], explainer: str | None, **about: Any) -> None:
        check_judged(self.settings, scorers, explainer, judged=self.given_judge is not None, **about)

    def estimate(
        self,
        descriptions: Any,
        *,
        scorers: Sequence[str] = ("fade",),
        explainer: str | None = None,
        nulls: Sequence[str] = (),
        baselines: Sequence[str] = (),
        repeats: int = 0,
        second_judge: Judge | str | None = None,
        gold: Any = None,
    ) -> Estimate:
        """Judge calls, tokens and price of a run, before anything is spent (upper bound: as if all passed the gate and no rating
        stopped early).

        With an explainer the price of explaining is in it, as if every feature got a description with as many rules as the explainer may
        give; `scorers=()` tells that price alone.
        """
        checks: dict[str, Any] = {"repeats": repeats, "second_judge": second_judge, "gold": gold}
        self._check_judged(scorers_of(scorers) if scorers or explainer is None else {}, explainer, **checks)
        given = descriptions if explainer is None else self._named(descriptions)
        self._check_baselines(baselines, explainer or explained_by(read_descriptions(given)))
        asked: dict[str, Any] = {"scorers": scorers, "explainer": explainer, "baselines": baselines, "nulls": nulls}
        return estimate_run(self.judge, self.settings, self.corpus, given, self.n_features, **asked, **checks)


def check_judged(
    settings: Settings, scorers: Mapping[str, type[Scorer]], explainer: str | None, *, judged: bool, **about: Any
) -> None:
    """Raise `InputError` where something asks a judge and there is none, and what a scorer raises that cannot be used with the settings."""
    for made in scorers.values():
        made.check(settings)
    asking = [f"scorer {name!r}" for name, made in scorers.items() if made.asks_a_judge(settings)]
    asking += [f"explainer {explainer!r}"] if explainer is not None and explainer_of(explainer).asks else []
    asking += [name for name, value in about.items() if value is not None and value != 0]
    if asking and not judged:
        raise InputError(
            f"{asking[0]} asks a judge, and none was given: make it with Fade(model, source, corpus=…, judge='openai:gpt-4o-mini')"
        )
