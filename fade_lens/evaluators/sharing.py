"""Several descriptions of one feature are rated on the same texts, so that one request may ask about several."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from fade_lens.descriptions import Description
from fade_lens.judge import Estimate, Judge, Rating, forecast
from fade_lens.judge.rounds import Question, parts
from fade_lens.judge.trial import TEXTS, Trial, pairs
from fade_lens.settings import Settings, stream


def by_feature(descriptions: Iterable[Description]) -> dict[int, list[Description]]:
    """The descriptions of each feature, in an order that does not depend on the one in which they were given."""
    found: dict[int, list[Description]] = {}
    for d in dict.fromkeys(descriptions):
        found.setdefault(d.index, []).append(d)
    return {index: sorted(group, key=lambda d: d.text) for index, group in found.items()}


def trial_of(judge: Judge, descriptions: Iterable[Description], settings: Settings, n_texts: int) -> Trial | None:
    """What decides whether these descriptions share requests, `n_texts` being in the corpus; None where the judge is not to be asked so.

    Features are tried in an order drawn from the seed, the same in every run with these descriptions; those come first whose requests
    are about most descriptions, so that nothing harder is asked later.
    """
    at_once = judge.descriptions_per_request
    if at_once == 1:
        return None
    groups = by_feature(descriptions)
    several = sorted(
        (i for i in groups if len(groups[i]) > 1),
        key=lambda i: (-max(map(len, parts(groups[i], at_once))), stream(settings.seed, "together", i)),
    )
    rated = min(n_texts, settings.rated_texts)
    return Trial({i: pairs(len(groups[i]), rated, at_once) for i in several}, at_once, judge.texts_per_request)


def trial_estimate(judge: Judge, descriptions: Iterable[Description], settings: Settings, n_texts: int) -> Estimate:
    """What the trial may ask besides what is asked anyway."""
    groups = by_feature(descriptions)
    trial = trial_of(judge, descriptions, settings, n_texts)
    rated = min(n_texts, settings.rated_texts, TEXTS)
    sharing = [
        len(group)
        for step in (trial.steps if trial is not None else ())
        for index in step.features
        for group in parts(groups[index], judge.descriptions_per_request)
    ]
    return sum((forecast.together(judge, n, rated, 100.0) for n in sharing if n > 1), forecast.NOTHING)


def submit(
    judge: Judge,
    questions: Mapping[Description, Question],
    trial: Trial | None,
    seed: Callable[[int], int],
    *,
    measured: bool,
) -> dict[Description, "Future[list[Rating]]"]:
    """Begin to have descriptions rated in rounds, those of one feature together where `trial` lets them.

    `seed` gives a feature's seed for what is asked together; `measured` says that `trial` measures on these.
    """
    groups = [[d] for d in questions] if trial is None else by_feature(questions).values()
    answers: dict[Description, Future[list[Rating]]] = {}
    for group in groups:
        asked = [questions[d] for d in group]
        if trial is None or len(group) == 1:
            answers |= {
                d: judge.submit_rounds(q.concept, q.following, seed=q.seed) for d, q in zip(group, asked, strict=True)
            }
            continue
        index = group[0].index
        found = judge.submit_together(asked, trial, seed=seed(index), feature=index if measured else None)
        answers |= zip(group, found, strict=True)
    return answers
