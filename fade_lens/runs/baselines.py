"""Baseline features scored beside those of a run, each kind in a folder of its own inside the run's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fade_lens.baselines.features import baseline
from fade_lens.baselines.kinds import DESCRIBED
from fade_lens.data.descriptions import Description
from fade_lens.explainers.table import NothingDescribed
from fade_lens.runs.results import Results
from fade_lens.runs.store import FILE, file_of
from fade_lens.subject.subject import Subject

if TYPE_CHECKING:
    from fade_lens.runs.fade import Fade


def scored_beside(
    fade: "Fade",
    kind: str,
    subject: Subject,
    descriptions: Sequence[Description],
    *,
    explainer: str | None,
    store: str | Path | None,
    transcripts: str | Path | None,
    **options: Any,
) -> Results:
    """The results of one kind of baseline features: as many as `descriptions` are of, explained and scored as these were.

    What the judge answered in the run is not asked again. Where no feature of the baseline can be described the results are empty.

    Args:
        fade: of the run.
        kind: one of `fade_lens.baselines.kinds.BASELINES`.
        subject: of the run, its corpus observed.
        descriptions: of the run.
        explainer: who explains the baseline's features.
        store: the run's folder; what the baseline keeps lies in `baselines/KIND` inside it.
        transcripts: as in `Fade.evaluate`.
        options: other arguments of `Fade.evaluate`.
    """
    own = subject.of_features(sorted({d.index for d in descriptions}))
    own.take(subject)
    made = baseline(kind, own)
    settings = replace(fade.settings, context=subject.context)  # the same tokens are read
    other = type(fade)(fade.model, made.source, corpus=fade.corpus, judge=fade.given_judge, settings=settings)
    if store is not None:
        transcripts, store = store, folder_of(Path(store), kind)
    described = kind in DESCRIBED
    options |= {"explainer": None if described else explainer, "store": store, "transcripts": transcripts}
    try:
        found = other.evaluate(list(descriptions) if described else list(made.indices), **options)
    except NothingDescribed as error:
        found = Results((), without=error.without)
    pairs = tuple(zip(made.indices, own.features.indices, strict=True)) if made.paired else ()
    return replace(found, beside=pairs)


def folder_of(store: Path, kind: str) -> Path:
    """Where a kind of baseline keeps its run, inside the run's folder or beside its file."""
    file = file_of(store)
    return file.parent / ("baselines" if file.name == FILE else f"{file.stem}-baselines") / kind
