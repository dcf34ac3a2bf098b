"""One call of `Fade.explain`: evidence of all features from one pass, then an explainer on each, all of them together."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.progress import Stages
from fade_lens.data.indices import checked_indices
from fade_lens.evidence.windows import Evidence
from fade_lens.explainers.base import Explainer, Explanation, completed, concept_of
from fade_lens.explainers.table import Explanations
from fade_lens.judge import Judge
from fade_lens.runs.store import versions
from fade_lens.subject.subject import Subject


def explain(
    subject: Subject,
    judge: Judge,
    explainer: Explainer,
    stages: Stages,
    observe: Callable[[Subject], None],
    identity: Mapping[str, Any],
    indices: Sequence[int],
    store: Path | None = None,
) -> Explanations:
    """Explain some features of a subject; one that cannot be explained has its reason, and the others go on.

    `store` is the file of the run's store (see `Evidence`).
    """
    started, before = time.monotonic(), judge.usage
    made = type(explainer)
    with stages.showing():
        observe(subject)
        evidence = Evidence(subject, observe=observe, store=store)
        least = explainer.settings.least_texts
        lacking = {i: evidence.lacking(i, "show", least) if made.reads_texts else None for i in indices}
        shown = explainer.gather(evidence, [i for i, reason in lacking.items() if reason is None])

        def begun(index: int) -> "Future[Explanation]":
            return judge.submit(lambda asked: explainer.explain(shown[index], asked), account=concept_of(index))

        asked = {index: begun(index) for index in shown}
        stages.wait(f"explainer: {made.name}", asked.values())

    def row(index: int) -> Explanation:
        reason, usage = lacking[index], judge.usage_of(concept_of(index))
        found = asked[index].result() if reason is None else Explanation(index, None, reason)
        return completed(found, made, judge.model, evidence.id, usage)

    rows = tuple(map(row, indices))
    about = {
        "explainer": {"name": made.name, "version": made.version},
        "versions": {**versions(), **subject.workers.record},
    }
    about |= {"usage": asdict(judge.usage - before), "seconds": round(time.monotonic() - started, 1)}
    return Explanations(rows, {**identity, **about})


def check_against(explainer: type[Explainer], indices: Sequence[int], against: Mapping[int, Sequence[int]], n_features: int) -> None:  # fmt: skip
    """Raise `InputError` where features cannot be explained against those that they are to be told from."""
    if not explainer.contrasts:
        raise InputError(f"explainer {explainer.name!r} shows no windows of other features; give ", Argument("explainer", "contrastive"), " with ", Argument("against"))  # fmt: skip
    known = set(indices)
    for index in (*indices, *against):
        if index not in against or index not in known or not against[index] or index in against[index]:
            raise InputError(Argument("against"), f" tells feature {index} from {against.get(index)!r:.80}; give, for each of the features that are explained and for no other, features other than itself")  # fmt: skip
        checked_indices(against[index], n_features)
