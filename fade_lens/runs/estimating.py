"""What a run asks its judge at most: neither model nor SAE is needed to tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from fade_lens.baselines.null_descriptions import null_descriptions
from fade_lens.data.corpus import Corpus
from fade_lens.data.descriptions import Description, read_descriptions
from fade_lens.data.rules import STRONGEST
from fade_lens.explainers.base import explainer_of
from fade_lens.judge import Estimate, Judge
from fade_lens.judge.reliability import Reliability
from fade_lens.runs.settings import Settings
from fade_lens.scorers.base import Scorer

MANY = 2**31


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


def as_described(
    given: Sequence[Description], missing: Sequence[int], explainer: str | None, settings: Settings
) -> tuple[Description, ...]:
    """The descriptions of a run as if each missing one had as many rules as the explainer may give."""
    cap = 0 if explainer is None else explainer_of(explainer)(settings).rules
    rules = {i: tuple((f"rule {n} of feature {i}", STRONGEST) for n in range(cap)) for i in missing}
    made = (Description(i, f"what feature {i} is explained as", rules=rules[i]) for i in missing)
    return read_descriptions([*given, *made])
