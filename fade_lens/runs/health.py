"""`health`: does an SAE do in this model, on these texts, what an SAE should? No judge is asked."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from sae_lens import SAE

from fade_lens._util.brief import Brief
from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of, write_csv, write_text
from fade_lens._util.progress import Advance, Stages
from fade_lens._util.reasons import Reason
from fade_lens._util.record import from_plain, to_plain
from fade_lens._util.seeds import rng, stream
from fade_lens.data.corpus import Corpus
from fade_lens.generation.arms import losses
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.reconstruction import LOSSES, NEARNESS, over_documents
from fade_lens.neuronpedia.resolving import names_of, noted_names
from fade_lens.runs.answers import asked_of, said
from fade_lens.runs.diagnosis import Signs, diagnosed, unsteady
from fade_lens.runs.fires import Source, by_name
from fade_lens.runs.record import L0_IN_NAME
from fade_lens.runs.store import RunStore
from fade_lens.subject.health import HealthWarning, SaeHealth, l0_histogram, of_latents
from fade_lens.subject.hooks import Model, dtype_of, model_name
from fade_lens.subject.reconstruction import Reconstruction, Statistics, statistics, weight_cosines
from fade_lens.subject.settings import HealthSettings, SubjectSettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import TokenizedTexts

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

logger = logging.getLogger(__name__)

CROSS_LAYER = re.compile(r"(?<![a-z])clt(?![a-z])", re.IGNORECASE)
STORED = "health, format 1"
"""Under what a store keeps it."""
LOSS_TOKENS = 16
"""Of a text so many tokens tell nearly as much of its loss as all: texts differ more than the tokens of one do."""
LOSS_SHARE = 4
"""Of so many texts the predictions of one are compared where a run looks before it scores."""
LEAST_TEXTS, CORPUS_SHARE = 50, 10
"""A run looks at the SAE's health on at most one in so many texts of its corpus, and only where that is as many."""


@dataclass(frozen=True)
class Health(Brief):
    """The health of SAEs, in the order given: a card each in a notebook, `frame`, `to_html`.

    Attributes:
        items: one an SAE.
        model: the model's name.
        corpus: where the texts come from.
        answers: a row for each prompt and arm, where prompts were given (see `prompts`).
        densities: by the name of the SAE, the share of the tokens at which each latent is not zero.
    """

    items: tuple[SaeHealth, ...]
    model: str
    corpus: str
    answers: tuple[Mapping[str, Any], ...] = ()
    densities: Mapping[str, Float[np.ndarray, " latent"]] = field(default_factory=dict[str, Any], compare=False)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[SaeHealth]:
        return iter(self.items)

    def __getitem__(self, name: str) -> SaeHealth:
        """One SAE, by the name in the frame. Raises `InputError` for one that is not there."""
        if (found := next((one for one in self.items if one.name == name), None)) is None:
            raise InputError(f"{name!r} is none of these SAEs: {', '.join(one.name for one in self.items)}")
        return found

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row an SAE: its figures with 95 % intervals (`_low`, `_high`), why any is undefined, how its latents fire, warnings.

        `recovered_saelens` is what SAELens 6.54 prints as `ce_loss_score`: there zero ablation destroys BOS as well, so that what is recovered is
        a share of something else. `dead` is the share of latents silent on `tokens` tokens; the density of each of them is below `silent_bound`.
        """
        return table_of(row_of(one) for one in self.items)

    @property
    def prompts(self) -> "pd.DataFrame":
        """One row a prompt, SAE and arm (clean, sae, zero, mean): the rank of the answer's first token, from 1, and its probability."""
        return table_of(self.answers)

    def to_csv(self, path: str | Path) -> Path:
        """Write `frame`, and `prompts` beside it as NAME-prompts.csv where there are any."""
        path = write_csv(self.frame, path)
        if self.answers:
            write_csv(self.prompts, path.with_name(f"{path.stem}-prompts{path.suffix or '.csv'}"))
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: a card for every SAE."""
        from fade_lens.report.health import health_page

        return write_text(path, health_page(self))

    def plot(self) -> "go.Figure":
        """How many tokens have how many latents that are not zero, and how many latents have which density, a line an SAE."""
        from fade_lens.report.health import health_figure

        return health_figure(self)

    def _repr_html_(self) -> str:
        from fade_lens.report.health import health_cards

        return health_cards(self)


def health(
    model: Model,
    saes: Source | Sequence[Source] | Mapping[str, Source],
    corpus: Corpus | Sequence[str],
    *,
    texts: int = 200,
    loss_texts: int = 64,
    loss_tokens: int | None = LOSS_TOKENS,
    prompts: Mapping[str, str] | None = None,
    context: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Health:
    """How well SAEs stand for a model's activations, what the model loses by them, how their latents fire; and, where one is sick, the likely cause.

    All is measured on tokens that are not special (BOS, EOS, padding, turn markers), and these keep their activations when the SAE's
    reconstruction, or an ablation, is put in the place of the others. The arms are the model as it is, with the SAE, with the SAE and what
    it missed (which must be clean), with zero and with the mean in its place.

    A warning is given where less than 0.7 of the loss is recovered, less than 0.2 of the variance explained, L0 differs by more than two times from what
    the release states, or SAE + error is not clean. What is likely is then tried on a few texts: with or without BOS, centred activations
    (`model_from_pretrained_kwargs`), other layers, other scales of activations; what mends it is named. There is no `ray`: a few hundred texts
    are read, and what the model loses is known only once the mean over all of them is.

    Args:
        model: a `HookedSAETransformer`, `HookedTransformer` or TransformerLens bridge.
        saes: an SAE or transcoder of this model; or several, at any hooks, in a list, or in a dict by names of your own.
        corpus: natural texts: a `Corpus`, or a list of strings.
        texts: how many of them, drawn at random.
        loss_texts: of how many of these the model's predictions are compared, which costs six passes through the whole model.
        loss_tokens: tokens of each of these at which they are compared, drawn at random; None: all.
        prompts: texts with what should follow, `{"When John and Mary went to the shops, John gave the bag to": " Mary"}`: can the model still say it?
        context: tokens of a text that count; by default what the SAE was trained on, at most 128.
        seed: of the texts that are drawn, and of the intervals.
        progress: show progress bars.

    Raises:
        InputError: no SAE, a hook in place of one, an SAE that does not fit the model, a corpus without a token that has a next one, a prompt
            or an answer without a token.
    """
    for name, given in (("texts", texts), ("loss_texts", loss_texts), ("loss_tokens", loss_tokens)):
        if given is not None and given < 1:
            raise InputError(Argument(name), f" is {given}; give at least 1")
    named = by_name(saes)
    for source in named.values():
        if not isinstance(source, SAE):
            raise InputError(Argument("saes"), f" holds {source!r:.80}; only SAEs have health, neurons reconstruct nothing")  # fmt: skip
    given = corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
    made = {name: Reconstruction(model, source) for name, source in named.items() if isinstance(source, SAE)}
    some, stages, settings = some_of(given, texts, seed), Stages(progress), SubjectSettings(context=context, seed=seed)
    read = {name: read_by(one, some, settings, texts) for name, one in made.items()}
    asked = {name: list(asked_of(one, prompts or {})) for name, one in made.items()}
    items, answers, densities = list[SaeHealth](), list[Mapping[str, Any]](), dict[str, Any]()
    with stages.showing():
        for name, one in made.items():
            tokens, length = read[name]
            advance = stages.stage(f"health: {name}", steps(len(tokens), loss_texts))
            known = statistics(one, tokens, progress=advance)
            items.append(measured(name, one, known, tokens, length, loss_texts, seed, advance, loss_tokens=loss_tokens))
            densities[name] = known.density
            for row in asked[name]:
                answers += said(name, one, known.mean, row, replaced=items[-1].loss_tokens > 0)
    return Health(tuple(items), model_name(model), given.source, tuple(answers), densities)


def before_scoring(
    subject: Subject, settings: HealthSettings, store: RunStore | None, stages: Stages
) -> SaeHealth | None:
    """The health of a run's SAE on some texts of its corpus, or what the store has of it; warnings are logged. None for neurons, and where few texts are there."""  # fmt: skip
    n = texts_before(settings, len(subject.tokens))
    if not isinstance(subject.source, SAE) or not n:
        return None
    kept = None if store is None else store.get_meta(STORED)
    if kept is not None and kept["texts"] == n:
        found = from_plain(SaeHealth, kept["found"])
    else:
        try:
            found = of_subject(subject, subject.source, n, settings.seed, stages)
        except Exception as error:  # what is only looked at ends no run
            logger.warning("The SAE's health could not be seen, and the run goes on without: %s", error)
            logger.debug("where it happened", exc_info=True)
            return None
        if store is not None:
            store.set_meta(STORED, {"texts": n, "found": to_plain(found)})
    for warning in found.warnings:
        logger.warning("%s: %s", found.name, warning.words)
    return found


def texts_before(settings: HealthSettings, n_texts: int) -> int:
    """On how many texts of so many a run looks at its SAE before it scores."""
    n = min(settings.health_texts, n_texts // CORPUS_SHARE)
    return n if n >= LEAST_TEXTS else 0


def of_subject(subject: Subject, sae: SAE[Any], n: int, seed: int, stages: Stages) -> SaeHealth:
    """The health of a subject's SAE on so many of its texts."""
    tokens, made = drawn(subject.tokens, n, seed), Reconstruction(subject.model, sae)
    advance = stages.stage("model: health of the SAE", steps(n, n // LOSS_SHARE))
    known = statistics(made, tokens, progress=advance)
    name = noted_names(sae).get("sae_id") or made.features.read_hook
    return measured(name, made, known, tokens, subject.context, n // LOSS_SHARE, seed, advance)


def steps(n: int, loss_texts: int) -> int:
    """Texts that run, those whose predictions are compared once more."""
    return n + min(n, loss_texts)


def some_of(corpus: Corpus, n: int, seed: int) -> Corpus:
    """So many texts of a corpus at random, in its order, empty ones left out."""
    kind = next(k for k in ("texts", "tokens", "conversations") if getattr(corpus, k) is not None)
    every = getattr(corpus, kind)
    there = [i for i, one in enumerate(every) if (one.strip() if isinstance(one, str) else one)]
    chosen = sorted(rng(seed, "health").permutation(there)[:n].tolist())
    return replace(corpus, **{kind: tuple(every[i] for i in chosen)})


def read_by(made: Reconstruction, corpus: Corpus, settings: SubjectSettings, n: int) -> tuple[TokenizedTexts, int]:
    """Texts as an SAE's model reads them, at most `n`, and the context.

    Raises:
        InputError: no token that counts has a next one.
    """
    subject = Subject(made.model, made.sae, corpus, [0], settings)
    tokens = drawn(subject.tokens, n, settings.seed)
    if not any(followed(tokens, text) for text in range(len(tokens))):
        raise InputError(f"none of the {len(tokens)} texts drawn of {corpus.source} holds two tokens of which the first is not special; give longer texts")  # fmt: skip
    return tokens, subject.context


def drawn(tokens: TokenizedTexts, n: int, seed: int) -> TokenizedTexts:
    """At most `n` texts that hold a token that counts, at random, in their order; those with a next token first."""
    counts = [2 * followed(tokens, text) + (not tokens.special_of(text).all()) for text in range(len(tokens))]
    order = rng(seed, "health texts").permutation(np.flatnonzero(counts))
    order = order[np.argsort(-np.array(counts)[order] // 2, kind="stable")] if n < len(order) else order
    return tokens.select(sorted(order[:n].tolist()))


def followed(tokens: TokenizedTexts, text: int) -> bool:
    """Whether a token that counts has a next one."""
    return bool((~tokens.special_of(text)[:-1]).any())


def measured(
    name: str,
    made: Reconstruction,
    found: Statistics,
    tokens: TokenizedTexts,
    context: int,
    loss_texts: int,
    seed: int,
    progress: Advance | None = None,
    *,
    loss_tokens: int | None = LOSS_TOKENS,
) -> SaeHealth:
    """The health of one SAE over texts that are tokens already.

    Args:
        name: what the SAE is called.
        made: the SAE in its model.
        found: its statistics over the texts.
        tokens: the texts; each holds tokens that count.
        context: their length at most.
        loss_texts: of how many of them the model's predictions are compared.
        seed: of the intervals.
        progress: called with the number of texts that have run.
        loss_tokens: of each text at most.
    """
    features = made.features
    some = drawn(tokens, loss_texts, stream(seed, "loss texts"))
    why = not_finite(made, found.n_lost) or across_layers(made)
    lost = {} if why else losses(made, found.mean, some, most=loss_tokens, seed=seed, progress=progress)
    near = over_documents(NEARNESS, found.sums, tokens.documents, stream(seed, "health"), found.total)
    loss = over_documents(LOSSES, lost, some.documents, stream(seed, "loss")) if lost else {n: Metric(None, why) for n in LOSSES}  # fmt: skip
    if found.n_lost:
        near = {n: Metric(None, why) for n in NEARNESS}
    l0 = stated_l0(made.sae)
    health = SaeHealth(
        name=name,
        hook=features.read_hook,
        hook_out=features.write_hook,
        width=features.n_features,
        prepend_bos=features.prepend_bos,
        context=context,
        texts=len(tokens),
        tokens=found.n + found.n_lost,
        loss_texts=len(some) if lost else 0,
        loss_tokens=int(lost["n_ce"].sum()) if lost else 0,
        metrics=near | loss,
        latents={} if found.n_lost else of_latents(found),
        weights=weight_cosines(made),
        special_share=found.special_share,
        l0_tokens=l0_histogram(found.l0),
        l0_release=l0,
    )
    lost_all = HealthWarning("overflow", f"{why}.") if why and found.n_lost else None
    told = (
        lost_all,
        unsteady(made, health.value("kl_sae_error")),
        diagnosed(made, tokens, context, Signs.of(health.metrics), l0),
    )
    return replace(health, warnings=tuple(one for one in told if one is not None))


def not_finite(made: Reconstruction, n: int) -> Reason | None:
    """Why nothing is known of an SAE that makes no finite numbers at `n` tokens."""
    dtype = str(dtype_of(made.model)).removeprefix("torch.")
    words = f"activations, or what the SAE makes of them, are not finite at {n} tokens in {dtype}: load model and SAE in bfloat16 or float32, or look for weights that are not finite"  # fmt: skip
    return Reason("overflow", words) if n else None


def across_layers(made: Reconstruction) -> Reason | None:
    """Why the model's loss says nothing of one layer of a cross-layer transcoder."""
    known = made.sae.cfg.metadata
    names = " ".join(str(known[key]) for key in ("release", "sae_id", "neuronpedia_id") if known[key])
    if made.maps_back or not CROSS_LAYER.search(names):
        return None
    return Reason("cross_layer", "a cross-layer transcoder writes to many layers, and SAELens has its decoders to all of them added up: put at one layer it means nothing")  # fmt: skip


def stated_l0(sae: SAE[Any]) -> float | None:
    """The L0 that SAELens lists for an SAE, or that its name tells."""
    names = names_of(sae)
    named = {float(found[1]) for key in ("sae_id", "neuronpedia_id") if (found := L0_IN_NAME.search(str(names.get(key, ""))))}  # fmt: skip
    return names.get("l0") or (named.pop() if len(named) == 1 else None)


def row_of(one: SaeHealth) -> dict[str, Any]:
    """One row of `Health.frame`."""
    row: dict[str, Any] = {
        "sae": one.name,
        "hook": one.hook,
        "width": one.width,
        "tokens": one.tokens,
        "texts": one.texts,
    }
    for name, metric in one.metrics.items():
        low, high = metric.interval or (None, None)
        row |= {name: metric.value, f"{name}_low": low, f"{name}_high": high}
    row |= {"l0_release": one.l0_release, **one.latents, "silent_bound": one.silent_bound, **one.weights}
    row |= {"special_variance": one.special_share, "loss_tokens": one.loss_tokens, "loss_texts": one.loss_texts}
    row |= {"prepend_bos": one.prepend_bos, "context": one.context, "causes": ", ".join(w.cause for w in one.warnings)}
    reasons = {str(metric.reason) for metric in one.metrics.values() if metric.reason}
    return row | {"warnings": " ".join(w.words for w in one.warnings), "reasons": "; ".join(sorted(reasons))}
