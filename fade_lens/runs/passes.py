"""The pass over a corpus: for one run, or for several runs of one model at once, each of which finds in its store what it would find alone."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fade_lens._util.errors import InputError
from fade_lens._util.progress import Stages
from fade_lens.runs.ray import Ray, workers_of
from fade_lens.runs.store import RunStore
from fade_lens.subject.activations import MaxActivations
from fade_lens.subject.subject import Subject

if TYPE_CHECKING:
    from fade_lens.runs.fade import Fade


def one_pass(
    fades: "Sequence[Fade]",
    indices: Sequence[Sequence[int]],
    stores: Sequence[str | Path | None] | None = None,
    *,
    progress: bool = True,
    ray: Ray = None,
) -> list[MaxActivations]:
    """Send a corpus through the model once for several SAEs and hooks, up to the deepest one.

    A `Fade` that is afterwards run with the same store and some of the same features takes its activations from there. Those whose SAEs ask
    for another context or BOS read other tokens, so that they share a pass of their own.

    Args:
        fades: of one model and one corpus, each with its SAE or hook.
        indices: of each, the features.
        stores: of each, the folder that keeps its run; None: nothing is kept.
        progress: show a progress bar.
        ray: as in `Fade.evaluate`.

    Returns:
        Of each the activations of its features, in the order of its indices.

    Raises:
        InputError: Fades of different models or corpora, an index that an SAE or hook does not have.
        StoreError: a store was made with other settings.
    """
    if any(fade.model is not fades[0].model or fade.corpus is not fades[0].corpus for fade in fades):
        raise InputError("the Fades of one pass must have the same model object and the same Corpus object; make it once, with Corpus.from_texts(…), and give it to each")  # fmt: skip
    folders, stages = stores or [None] * len(fades), Stages(progress)
    with workers_of(ray) as workers, ExitStack() as stack, stages.showing():
        opened = [
            stack.enter_context(fade.opened(some, folder, None, (), workers=workers))
            for fade, some, folder in zip(fades, indices, folders, strict=True)
        ]
        observe([subject for subject, *_ in opened], [kept for *_, kept in opened], stages)
        return [subject.activations for subject, *_ in opened]


def observe(subjects: Sequence[Subject], stores: Sequence[RunStore | None], stages: Stages) -> None:
    """The pass over the corpus, or what the stores have of it; what was computed is kept."""
    new: list[tuple[Subject, RunStore | None]] = []
    for subject, store in zip(subjects, stores, strict=True):
        if subject.is_observed:
            continue
        kept = None if store is None else store.activations(subject.features.indices)
        if kept is None:
            new.append((subject, store))
        else:
            subject.observe(kept)
            stages.stage("model: natural texts", len(subject.tokens))(len(subject.tokens))
    if not new:
        return
    n_texts = sum({id(subject.tokens): len(subject.tokens) for subject, _ in new}.values())
    Subject.observe_each([subject for subject, _ in new], stages.stage("model: natural texts", n_texts))
    for subject, store in new:
        if store is not None:
            store.keep_texts(subject.tokens)
            store.keep_activations(subject.features.indices, subject.activations)
