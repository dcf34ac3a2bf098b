"""What a run asks its judge at most: neither model nor SAE is needed to tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from fade_lens.baselines.kinds import DESCRIBED
from fade_lens.baselines.null_descriptions import null_descriptions
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, read_descriptions, undescribed
from fade_lens.data.indices import checked_indices
from fade_lens.data.rules import STRONGEST
from fade_lens.explainers.base import explainer_of
from fade_lens.explainers.table import explained_by
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.reliability import Reliability
from fade_lens.runs.settings import Settings
from fade_lens.scorers.base import Scorer, scorers_of

MANY = 2**31
"""Stands for a number that is not known yet."""


def estimate(
    judge: Judge,
    settings: Settings,
    corpus: Corpus,
    given: Sequence[Description],
    missing: Sequence[int],
    n_features: int,
    *,
    scorers: Mapping[str, type[Scorer]],
    explainer: str | None = None,
    nulls: Sequence[str] = (),
    repeats: int = 0,
    second_judge: Judge | str | None = None,
    gold: Any = None,
) -> Estimate:
    """Calls, tokens and price of a run at most (see `Fade.estimate`).

    Args:
        judge: who is asked.
        settings: of the run.
        corpus: natural texts.
        given: descriptions that are scored.
        missing: features that are explained first.
        n_features: how many the SAE or hook has.
        scorers: by name; none of them: what explaining costs.
        explainer: who explains; None only where none is missing.
        nulls, repeats, second_judge, gold: as in `Fade.evaluate`.
    """
    found = Estimate(0, 0, 0, 0.0)
    if explainer is not None:
        found += explainer_of(explainer).estimate(judge, settings, len(missing))
        if not scorers:
            return found
    chosen = as_described(given, missing, explainer, settings)
    beside = null_descriptions(chosen, nulls, n_features, settings.seed)
    # How many windows there are is known once they are tokenized.
    n_texts = MANY if corpus.windows else len(corpus)
    with Reliability(judge, repeats=repeats, second=second_judge, gold=gold) as reliability:
        found += reliability.estimate(len(chosen), min(settings.rated_texts, n_texts))
    scored = [*chosen, *(d for some in beside.values() for d in some)]
    return sum((scorer.estimate(judge, settings, scored, n_texts) for scorer in scorers.values()), found)


def estimate_run(
    judge: Judge,
    settings: Settings,
    corpus: Corpus,
    descriptions: Any,
    n_features: int,
    *,
    scorers: Sequence[str] = ("fade",),
    explainer: str | None = None,
    baselines: Sequence[str] = (),
    **checks: Any,
) -> Estimate:
    """What `Fade.estimate` gives, of descriptions and indices as it takes them.

    Args:
        judge, settings, corpus, n_features, explainer: as in `estimate`.
        descriptions, scorers, baselines: as in `Fade.estimate`.
        checks: nulls, repeats, second_judge and gold.

    Raises:
        InputError: descriptions or indices that cannot be used.
    """
    named = scorers_of(scorers) if scorers or explainer is None else {}
    given, missing = (read_descriptions(descriptions), ()) if explainer is None else undescribed(descriptions)
    if missing:
        checked_indices(missing, n_features)
    known: dict[str, Any] = {"scorers": named, "explainer": explainer}
    found = estimate(judge, settings, corpus, given, missing, n_features, **known, **checks)
    chosen, explaining = as_described(given, missing, explainer, settings), explainer or explained_by(given)
    for kind in dict.fromkeys(baselines if named else ()):  # as many features, whose indices change no price
        likewise = chosen if kind in DESCRIBED else sorted({d.index for d in chosen})
        who = None if kind in DESCRIBED else explaining
        found += estimate_run(judge, settings, corpus, likewise, n_features, scorers=scorers, explainer=who)
    return found


def as_described(
    given: Sequence[Description], missing: Sequence[int], explainer: str | None, settings: Settings
) -> tuple[Description, ...]:
    """The descriptions of a run as if each missing one had as many rules as the explainer may give."""
    cap = 0 if explainer is None else explainer_of(explainer)(settings).rules
    rules = {i: tuple((f"rule {n} of feature {i}", STRONGEST) for n in range(cap)) for i in missing}
    made = (Description(i, f"what feature {i} is explained as", rules=rules[i]) for i in missing)
    return read_descriptions([*given, *made])
