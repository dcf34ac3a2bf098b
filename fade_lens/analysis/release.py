"""Whole releases: of each of many SAEs as many latents, drawn among those that fire, described, scored, and set side by side."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sae_lens import SAE

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError, suggest
from fade_lens._util.files import table_of, write_csv, write_text
from fade_lens._util.progress import Stages
from fade_lens._util.seeds import rng
from fade_lens._util.workers import Workers
from fade_lens.analysis.compare import Comparison, side_by_side
from fade_lens.analysis.opening import names_in, sources_of
from fade_lens.analysis.summary import check_reference
from fade_lens.baselines.kinds import DESCRIBED, check_baselines
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.data.rows import by_sae
from fade_lens.data.sampling import by_density, check_strata
from fade_lens.judge import Estimate, Judge
from fade_lens.neuronpedia import NeuronpediaError
from fade_lens.neuronpedia.errors import NotThereError
from fade_lens.runs.estimating import estimate
from fade_lens.runs.fade import Fade, check_judged
from fade_lens.runs.health import drawn
from fade_lens.runs.passes import one_pass
from fade_lens.runs.ray import Ray, workers_of
from fade_lens.runs.results import Results
from fade_lens.runs.settings import Settings, settings_of
from fade_lens.scorers.base import scorers_of
from fade_lens.subject.activations import OutlierRule, max_activations
from fade_lens.subject.features import Source, every_feature
from fade_lens.subject.hooks import Model

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

logger = logging.getLogger(__name__)
Told = Callable[[str, "Results | str"], None]

NEURONPEDIA = "neuronpedia"
AT_ONCE = 8
"""SAEs that are in memory together and share a pass over the corpus."""
SEEN_TEXTS = 300
"""Texts on which is seen which latents fire, and how often."""
FIRING = "latents that fire, format 2"
"""Under what a store keeps them."""


@dataclass(frozen=True)
class Drawn(Brief):
    """The latents drawn of an SAE.

    Attributes:
        indices: in ascending order.
        n_alive: latents that fire on the `n_tokens` tokens of some texts, of `n_features`; None for neurons, of which all may be drawn.
        n_described: how many of the drawn ones got a description.
        density: of each drawn latent, the share of these tokens on which it fires; empty for neurons.
        weights: of each, how many of those that could be drawn it stands for (1 / its probability): all alike unless drawn by strata.
    """

    indices: tuple[int, ...]
    n_features: int
    n_alive: int | None = None
    n_tokens: int = 0
    n_described: int = 0
    density: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Release:
    """Scored SAEs side by side.

    Attributes:
        results: of each SAE, by name.
        drawn: which latents were drawn.
        failed: the SAEs that could not be scored, and why.
        folder: holds a folder an SAE, as `Fade.evaluate` and `fade-lens evaluate` leave it.
        reference: the SAE that every other is compared with, or "best" (see `fade_lens.compare`).
    """

    results: Mapping[str, Results]
    drawn: Mapping[str, Drawn]
    failed: Mapping[str, str]
    folder: Path
    reference: str | None = None

    @cached_property
    def comparison(self) -> Comparison:
        """Means and differences over latents, by SAE (see `fade_lens.compare`)."""
        reference = None if self.reference in self.failed else self.reference
        return side_by_side(list(self.results.values()), list(self.results), reference=reference)

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row an SAE: what it is, its health, the latents drawn of it, the mean of each score with its 95 % interval over latents and the
        share that is undefined, the means of score minus baseline (`clarity_minus_random`), what it cost; or why it could not be scored (`failed`).
        Means and shares are of the latents that could be drawn, each drawn one weighed by how many it stands for."""
        return table_of([*map(self._row, self.results), *({"sae": name, "failed": why} for name, why in self.failed.items())])  # fmt: skip

    @cached_property
    def latents(self) -> "pd.DataFrame":
        """One row a latent that was drawn (a description, where it has several): `density`, `weight` (see `Drawn`), description and scores, if it has any."""
        rows = list[dict[str, Any]]()
        for name, results in self.results.items():
            found, scored = self.drawn[name], dict[int, list[dict[str, Any]]]()
            for one in results:
                row = {"description": one.description.text} | {
                    score: metric.value for score, metric in one.metrics.items()
                }
                scored.setdefault(one.description.index, []).append(row)
            density = found.density or (None,) * len(found.indices)
            for index, *numbers in zip(found.indices, density, found.weights, strict=True):
                about = {"sae": name, "index": index, **dict(zip(("density", "weight"), numbers, strict=True))}
                rows += [about | row for row in scored.get(index, [{}])]
        return table_of(rows)

    @staticmethod
    def place(name: str) -> str:
        """The folder of an SAE, in the release's."""
        return name.replace("/", "_").replace("\\", "_")

    def _row(self, name: str) -> dict[str, Any]:
        run, found = self.results[name].run, self.drawn[name]
        fact = self.comparison.runs[list(self.results).index(name)]
        means: Any = self.comparison.frame
        row: dict[str, Any] = {
            "sae": name,
            "hook": run.features.hook,
            "layer": fact.layer,
            "width": fact.width,
            "architecture": run.features.architecture,
            "l0": fact.l0,
            "variance_explained": None if run.health is None else run.health.value("variance_explained"),
            "recovered": fact.recovered,
            "warnings": "" if run.health is None else ", ".join(one.cause for one in run.health.warnings),
            "alive": None if found.n_alive is None else found.n_alive / found.n_features,
            "latents": len(found.indices),
            "described": found.n_described / max(len(found.indices), 1),
        }
        for one in means[(means["run"] == fact.run) & means["null"].isna()].to_dict("records"):
            minus = one["baseline"]
            score = one["metric"] if minus is None else f"{one['metric']}_minus_{minus}"
            row |= {score: one["mean"], f"{score}_low": one["low"], f"{score}_high": one["high"]}
            if minus is None:
                row[f"{score}_undefined"] = one["undefined"]
        usage = run.usage
        cost = {"judge_calls": usage and usage.calls, "judge_cost": usage and usage.cost, "seconds": run.seconds}
        return row | cost | {"failed": None}

    def to_csv(self, path: str | Path) -> Path:
        """Write `frame`, and `latents` beside it as NAME-latents.csv."""
        path = write_csv(self.frame, path)
        write_csv(self.latents, path.with_name(f"{path.stem}-latents{path.suffix or '.csv'}"))
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: the SAEs, their means against layer, width, L0, recovered loss and architecture, their differences."""
        from fade_lens.report.comparison import release_page

        return write_text(path, release_page(self))

    def plot(self, against: str = "run") -> "go.Figure":
        """Means with 95 % intervals, against "run", "layer", "width", "l0", "recovered" or "architecture"."""
        return self.comparison.plot(against)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"Release({len(self.results)} SAEs scored{failed}, in {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.comparison._repr_html_()  # pyright: ignore[reportPrivateUsage]


def release(
    saes: str | Mapping[str, Source],
    sae_ids: str | Sequence[str] = "*",
    *,
    corpus: Corpus | Sequence[str],
    folder: str | Path,
    judge: Judge | str | None = None,
    model: Model | str | None = None,
    latents: int = 100,
    strata: int = 0,
    descriptions: Any = None,
    explainer: str | None = None,
    scorers: Sequence[str] = ("fade",),
    baselines: Sequence[str] = (),
    reference: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    progress: bool = True,
    told: Told | None = None,
    ray: Ray = None,
    settings: Settings | None = None,
    **overrides: Any,
) -> Release:
    """Score as many latents of every SAE of a release, and set the SAEs side by side.

    The latents of an SAE are drawn by seed among those that fire on some hundred texts, uniformly or by `strata`. Each SAE's health is seen
    before it is scored. Some SAEs at a time share one pass over the corpus. An SAE that cannot be loaded or scored is told in the result, and the others go on; a judge
    that cannot be asked, or a budget that is used up, ends the run, which goes on where it stopped when called again.

    Args:
        saes: a release in SAELens' list, or SAEs and hook names (neurons) of one model by names of your own.
        sae_ids: which SAEs of the release: a pattern such as "blocks.*.hook_resid_pre", or several.
        corpus: natural texts.
        folder: receives a folder an SAE, and is where a run goes on.
        judge: as `Fade` takes it; its limits (`max_calls`, `max_cost`) hold for all SAEs together.
        model: of these SAEs; unless given, the one that the release names, loaded as its SAEs ask.
        latents: how many are drawn of each.
        strata: of how often latents fire: as many ranges, equally wide on a logarithmic scale, of each of which equally many latents are drawn, where
            there are as many (see `fade_lens.data.sampling.by_density`). So rare and dense latents, of which a uniform draw holds hardly one, are
            seen as well as others. Means, intervals and differences weigh each latent by how many it stands for: they are those of all latents
            that fire, and less sure than of a uniform draw. 0: uniformly.
        descriptions: "neuronpedia", of an SAE that has an id there; a table, or its file, with a column `sae` beside `index` and `description`; or a dict from an SAE's name to
            what `Fade.evaluate` takes. In the latter two, latents are drawn among those described, unless an explainer is given.
        explainer: who explains drawn latents that have no description.
        scorers, baselines: as in `Fade.evaluate`.
        reference: the SAE that every other is compared with, or "best", as in `fade_lens.compare`.
        device, dtype: of a model that is loaded here; None: the best device, and what the SAEs ask for, else float32.
        progress: show progress bars.
        told: called with an SAE's name and its `Results`, or why it has none, as soon as that is known.
        ray: as in `Fade.evaluate`; the same workers serve all SAEs.
        settings, overrides: as in `Fade`.

    Raises:
        InputError: an unknown release, a pattern that matches nothing, SAEs of different models, no descriptions and no explainer, or not one SAE that
            can be scored.
        JudgeError: the judge cannot be asked; what was done is in the folder.
        StoreError: a folder was made with other settings.
    """
    check_strata(latents, strata)
    if strata and not isinstance(saes, str) and (hooks := [n for n, source in saes.items() if isinstance(source, str)]):
        raise InputError(Argument("strata"), f" are of latents, by how often they fire, and {hooks[0]!r} has neurons, which always do: leave strata out")  # fmt: skip
    if descriptions is None and explainer is None:
        raise InputError("give ", Argument("descriptions"), " (such as 'neuronpedia'), or an ", Argument("explainer"), " that writes them")  # fmt: skip
    check_reference(reference, names_in(saes, sae_ids) if isinstance(saes, str) else saes)
    chosen = settings_of(settings, overrides, neurons=False)
    check_judged(chosen, scorers_of(scorers), explainer, judged=judge is not None)
    check_baselines(baselines, explainer)
    given = corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
    judged = Judge.parse(judge) if isinstance(judge, str) else judge
    texts = None if isinstance(descriptions, str) and descriptions == NEURONPEDIA else by_sae(descriptions)
    failed, results, found = dict[str, str](), dict[str, Results](), dict[str, Drawn]()

    def fails(name: str, why: object) -> None:
        failed[name] = str(why)
        if told is not None:
            told(name, str(why))

    opened, sources = sources_of(saes, sae_ids, model, device, dtype, fails)
    if texts is not None and (unknown := [name for name in texts if name not in sources and name not in failed]):
        raise InputError(Argument("descriptions"), f" are of {unknown[0]!r}, which is none of the SAEs{suggest(unknown[0], sources)}")  # fmt: skip
    made = Scored(
        opened, given, judged, chosen, Path(folder), latents, strata, texts, explainer, scorers, baselines, progress
    )
    with workers_of(ray) as workers:
        workers.start()  # before an SAE is drawn from, and never an SAE's fault
        for start in range(0, len(names := list(sources)), AT_ONCE):
            fades = dict[str, Fade]()
            for name in names[start : start + AT_ONCE]:
                try:
                    fades[name] = made.fade(sources[name]())
                    found[name] = made.draw(name, fades[name], workers)
                except (InputError, NeuronpediaError) as error:
                    fades.pop(name, None)
                    fails(name, error)
            if fades:
                made.observe(fades, found, workers)
            for name, fade in fades.items():
                try:
                    results[name], found[name] = made.score(name, fade, found[name], workers)
                except (InputError, NeuronpediaError) as error:
                    fails(name, error)
                    continue
                if told is not None:
                    told(name, results[name])
    if not results:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
        raise InputError(f"none of {len(failed)} SAEs could be scored; {reasons}")
    return Release(results, found, failed, Path(folder), reference)


def release_estimate(
    n_saes: int,
    corpus: Corpus,
    judge: Judge,
    *,
    latents: int = 100,
    explainer: str | None = None,
    scorers: Sequence[str] = ("fade",),
    baselines: Sequence[str] = (),
    settings: Settings | None = None,
    **overrides: Any,
) -> Estimate:
    """What the judge is asked at most for so many SAEs, as if all latents drawn were described; no weights are needed.

    Args:
        n_saes: how many.
        corpus, judge, latents, explainer, scorers, baselines, settings, overrides: as in `release`.
    """
    check_baselines(baselines, explainer)
    chosen, named = settings_of(settings, overrides, neurons=False), scorers_of(scorers)

    def of(explainer: str | None) -> Estimate:
        given = [] if explainer else [Description(i, f"what latent {i} is described as") for i in range(latents)]
        missing = range(latents) if explainer else ()
        return estimate(judge, chosen, corpus, given, missing, latents, scorers=named, explainer=explainer)

    return (
        sum((of(None if kind in DESCRIBED else explainer) for kind in dict.fromkeys(baselines)), of(explainer)) * n_saes
    )


@dataclass(frozen=True)
class Scored(Brief):
    """How each SAE is scored; `release` has the words."""

    model: Model
    corpus: Corpus
    judge: Judge | None
    settings: Settings
    folder: Path
    latents: int
    strata: int
    texts: Mapping[str, Any] | None
    explainer: str | None
    scorers: Sequence[str]
    baselines: Sequence[str]
    progress: bool
    read: dict[str, list[Description]] = field(default_factory=dict[str, list[Description]])
    """The descriptions of each SAE that are known, read once."""

    def fade(self, source: Source) -> Fade:
        """The evaluation of an SAE or hook."""
        return Fade(self.model, source, corpus=self.corpus, judge=self.judge, settings=self.settings)

    def place(self, name: str) -> Path:
        """The folder of an SAE."""
        return self.folder / Release.place(name)

    def draw(self, name: str, fade: Fade, workers: Workers) -> Drawn:
        """Which latents are scored: drawn among those that fire and, where only some are described and nobody explains, among these."""
        fires, n_tokens = firing(fade, self.place(name), self.progress, workers)
        there = np.array(range(fade.n_features) if fires is None else list(fires), dtype=np.int64)
        if self.texts is not None and self.explainer is None:
            there = there[np.isin(there, [d.index for d in self.described(name, fade)])]
        if not len(there):
            words = "no latent that fires has a description" if fires else f"no latent fires on {n_tokens:,} tokens"
            raise InputError(f"{words}; give other texts, or descriptions of latents that fire")
        random = rng(self.settings.seed, "release")
        if self.strata and fires is not None:
            sample = by_density(np.array([float(fires[i]) for i in there.tolist()]), self.latents, self.strata, random)
            chosen, weights = there[sample.indices].tolist(), sample.weights.tolist()
        else:
            chosen = sorted(random.permutation(there)[: self.latents].tolist())
            weights = [len(there) / len(chosen)] * len(chosen)
        if self.explainer is None and {*chosen}.isdisjoint(d.index for d in self.described(name, fade, chosen)):
            raise InputError(f"none of the {len(chosen)} latents drawn has a description; give an ", Argument("explainer"), " that writes them")  # fmt: skip
        density = () if fires is None else tuple(fires[index] / n_tokens for index in chosen)
        n_alive = None if fires is None else len(fires)
        return Drawn(tuple(chosen), fade.n_features, n_alive, n_tokens, density=density, weights=tuple(weights))

    def observe(self, fades: Mapping[str, Fade], found: Mapping[str, Drawn], workers: Workers) -> None:
        """One pass over the corpus for all of them."""
        places = [self.place(name) for name in fades]
        indices = [found[name].indices for name in fades]
        one_pass(list(fades.values()), indices, places, progress=self.progress, ray=workers)

    def described(self, name: str, fade: Fade, drawn: Sequence[int] = ()) -> list[Description]:
        """The descriptions that are known of an SAE: those that a table or dict holds, or Neuronpedia's of the latents drawn."""
        if name not in self.read:
            some: Any = () if self.texts is None else self.texts.get(name, ())
            if self.texts is None:
                from fade_lens.neuronpedia import descriptions

                try:
                    some = descriptions(fade.source, drawn)
                    some = some[some["description"].notna()]
                except (InputError, NotThereError) as error:
                    if self.explainer is None:
                        raise
                    logger.info("%s: %s; its latents are explained", name, error)
            self.read[name] = list(read_descriptions(some)) if len(some) else []
        return self.read[name]

    def score(self, name: str, fade: Fade, found: Drawn, workers: Workers) -> tuple[Results, Drawn]:
        """The results of one SAE, kept in its folder, and how many of its latents have a description."""
        known = [d for d in self.described(name, fade, found.indices) if d.index in {*found.indices}]
        missing = sorted({*found.indices} - {d.index for d in known}) if self.explainer else []
        store = self.place(name)
        results = fade.evaluate(
            [*known, *missing], scorers=self.scorers, baselines=self.baselines, explainer=self.explainer if missing else None, store=store, progress=self.progress, ray=workers
        )  # fmt: skip
        scored = {result.description.index for result in results}
        if len(set(found.weights)) > 1:
            pairs = zip(found.indices, found.weights, strict=True)
            results = replace(results, weights=tuple((index, weight) for index, weight in pairs if index in scored))
        results.to_folder(store)
        # Evidence stays in the file: a release has many times as much as one run.
        return Results.load(store), replace(found, n_described=len(scored))


def firing(fade: Fade, folder: Path, progress: bool, workers: Workers) -> tuple[dict[int, int] | None, int]:
    """The latents that fire on some texts, with the number of tokens, and the tokens of all, from the store where it has them; None for neurons."""
    if not isinstance(fade.source, SAE):
        return None, 0
    stages = Stages(progress)
    with fade.opened((0,), folder, None, (), workers=workers) as (subject, _, kept), stages.showing():
        assert kept is not None, "a folder was given"
        known: Any = kept.get_meta(FIRING)
        if known is None or known["texts"] != SEEN_TEXTS:
            tokens = drawn(subject.tokens, SEEN_TEXTS, fade.settings.seed)
            every, advance = every_feature(fade.model, fade.source), stages.stage("model: which latents fire", len(tokens))  # fmt: skip
            seen = max_activations(fade.model, every, tokens, OutlierRule(float("inf")), progress=advance, workers=workers)  # fmt: skip
            alive = np.flatnonzero(seen.active)
            known = {
                "texts": SEEN_TEXTS,
                "tokens": int(seen.counted.sum()),
                "alive": alive.tolist(),
                "fires": seen.active[alive].tolist(),
            }
            kept.set_meta(FIRING, known)
        return dict(zip(known["alive"], known["fires"], strict=True)), int(known["tokens"])
