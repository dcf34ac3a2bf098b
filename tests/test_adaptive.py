"""Rating in rounds: when it stops, that it stops for the right reasons, and that nothing else depends on the rounds."""

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pytest

from fade_lens import Fade, Settings, bootstrap
from fade_lens.errors import InputError, JudgeError
from fade_lens.evaluators.ratings import FIRST_ROUND, enough, round_ends
from fade_lens.judge import Rating
from fade_lens.judge.rounds import in_rounds
from fade_lens.metrics import Metric, average_precision, gini, purity, responsiveness
from fade_lens.sampling import design
from tests.benchmarks.coverage import corpus
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 240, "synthetic_texts": 20}
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(1200)


@pytest.fixture
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


@pytest.mark.parametrize("n", [0, 1, 59, 60, 74, 75, 200, 500, 10_000])
@pytest.mark.parametrize("batch", [1, 15, 70, 200])
def test_rounds_are_whole_requests_and_end_with_all_texts(n, batch):
    ends = round_ends(n, batch)
    assert ends[-1] == n and ends == sorted(set(ends))
    assert all(end % batch == 0 and end >= FIRST_ROUND for end in ends[:-1])
    assert all(after - before >= batch for before, after in itertools.pairwise(ends))


def metric(low: float, high: float) -> Metric:
    return Metric((low + high) / 2, None, (low, high))


@pytest.mark.parametrize(
    ("responsive", "pure", "settings", "words"),
    [
        (metric(0.7, 0.9), metric(0.5, 0.7), {}, "no wider than 0.3"),
        (metric(0.7, 0.9), metric(0.3, 0.7), {}, None),
        (metric(0.5, 0.9), metric(0.5, 0.7), {}, None),
        (metric(-0.3, 0.4), metric(0.1, 0.7), {}, "below the gate of 0.5"),
        (metric(-0.3, 0.6), metric(0.1, 0.7), {}, None),
        (metric(-0.3, 0.4), metric(0.1, 0.7), {"gate": None}, None),
        (metric(0.7, 0.9), metric(0.5, 0.7), {"interval_width": None}, None),
        (metric(-0.3, 0.4), metric(0.1, 0.7), {"interval_width": None}, None),
        (Metric(1.0), metric(0.5, 0.7), {}, None),
        (Metric(None, "no text is rated 2"), Metric(None, "no text is rated 2"), {}, None),
    ],
)
def test_when_it_is_enough(responsive, pure, settings, words):
    found = enough(responsive, pure, Settings(**settings))
    assert (found is None) if words is None else (found is not None and words in found)


def test_rounds_end_when_enough_is_said_and_never_ask_a_text_twice():
    rounds: list[list[str]] = []

    class Rater:
        async def rate(self, texts):
            rounds.append(list(texts))
            return [Rating(len(text) % 3) for text in texts]

    seen: list[int] = []

    def at_five(ratings):
        seen.append(len(ratings))
        return len(ratings) >= 5

    groups = [["a", "bb", "a"], ["bb", "ccc"], ["dddd"]]
    ratings = asyncio.run(in_rounds(Rater(), groups, at_five))
    assert rounds == [["a", "bb"], ["ccc"]]
    assert [r.value for r in ratings] == [1, 2, 1, 2, 0]
    assert seen == [3, 5]
    rounds.clear()
    assert len(asyncio.run(in_rounds(Rater(), groups, lambda _: False))) == 6
    assert rounds == [["a", "bb"], ["ccc"], ["dddd"]]


def test_an_error_while_looking_at_a_round_reaches_the_caller(server):
    def broken(ratings):
        raise ZeroDivisionError

    with judge_of(server) as judge, pytest.raises(ZeroDivisionError):
        judge.submit_rounds(TRUE[0], [["the cat"], ["the dog"]], broken).result(timeout=20)


def test_clear_descriptions_stop_early_with_fewer_requests_and_say_why(server):
    full = make(server, interval_width=None, gate=2.0).evaluate(TRUE, progress=False)
    asked = server.requests
    early = make(server, gate=2.0).evaluate(TRUE, progress=False)
    for result in full:
        assert len(result.rated_evidence.texts) == 240 and result.rated_evidence.stopped is None
    for result in early:
        evidence = result.rated_evidence
        assert len(evidence.texts) in round_ends(240, 15)[:-1]
        assert evidence.stopped is not None
    assert server.requests - asked < 0.75 * asked


def test_hopeless_descriptions_stop_and_undefined_ones_do_not(server):
    results = make(server, interval_width=0.01).evaluate(SHUFFLED | {3: "nothing that exists"}, progress=False)
    for index in SHUFFLED:
        evidence = results[index].rated_evidence
        assert evidence.stopped == "the interval of Responsiveness lies below the gate of 0.5"
        assert len(evidence.texts) < 240
    assert len(results[3].rated_evidence.texts) == 240 and results[3].rated_evidence.stopped is None


def test_a_stopped_rating_is_the_beginning_of_the_full_one_with_its_own_weights(server):
    full = make(server, interval_width=None).evaluate({0: TRUE[0]}, progress=False)[0].rated_evidence
    early = make(server, interval_width=0.5).evaluate({0: TRUE[0]}, progress=False)[0].rated_evidence
    assert len(early.texts) < len(full.texts)
    of_full = {text.number: text for text in full.texts}
    for text in early.texts:
        assert text.number in of_full and text.rating == of_full[text.number].rating
        assert text.inclusion <= of_full[text.number].inclusion
    for evidence in (early, full):
        assert sum(1 / text.inclusion for text in evidence.texts) == pytest.approx(len(TEXTS))
        assert [text.number for text in evidence.texts] == sorted(text.number for text in evidence.texts)


def test_the_paper_preset_rates_all(server):
    result = make(server, preset="paper", mode="clamp", factors=(0.0, 1.0)).evaluate({0: TRUE[0]}, progress=False)[0]
    assert len(result.rated_evidence.texts) == 240


def test_company_changes_no_round(server):
    together = make(server).evaluate(TRUE, progress=False)
    alone = make(server).evaluate({1: TRUE[1]}, progress=False)
    assert alone[1].rated_evidence == together[1].rated_evidence


def test_a_run_that_breaks_off_between_rounds_goes_on_without_asking_twice(server, tmp_path):
    whole = make(server).evaluate(TRUE, progress=False)
    with FakeJudge(rule=rule, writer=writer) as other:
        for calls in (9, 11):
            judge = judge_of(other)
            judge.close()
            fade = make(other)
            fade.judge = type(judge)("planted", base_url=other.base_url, api_key="k", max_calls=calls, concurrency=1)
            with pytest.raises(JudgeError):
                fade.evaluate(TRUE, store=tmp_path, progress=False)
        finished = make(other).evaluate(TRUE, store=tmp_path, progress=False)
        assert other.requests <= whole.run["usage"]["calls"] + 3  # a check at each start
    assert [r.rated_evidence for r in finished] == [r.rated_evidence for r in whole]


def test_no_description_waits_for_the_rounds_of_another(server):
    """One description's first round is held up; the other goes through all of its rounds meanwhile."""
    import threading

    with judge_of(server) as judge:
        release = threading.Event()
        groups = [[f"the cat {i} {k}" for i in range(3)] for k in range(4)]
        slow = judge.submit_rounds(TRUE[0], groups, lambda _: release.wait(20))
        fast = judge.submit_rounds(TRUE[1], groups, lambda _: False)
        assert len(fast.result(timeout=20)) == 12
        assert not slow.done()
        release.set()
        assert len(slow.result(timeout=20)) == 3


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_cannot_be_used(width):
    with pytest.raises(InputError, match="interval_width"):
        replace(Settings(), interval_width=width)


def test_the_order_of_rating_depends_on_no_rating(server):
    """Under a judge of the opposite opinion the texts asked about are the same, in the same order."""
    seen: list[list[int]] = []
    for opinion in (rule, lambda concept, text: 2 - rule(concept, text)):
        with FakeJudge(rule=opinion, writer=writer) as other:
            result = make(other, interval_width=1e-6, gate=None).evaluate({0: TRUE[0]}, progress=False)[0]
            seen.append([text.number for text in result.rated_evidence.texts])
    assert np.array_equal(seen[0], seen[1])


def test_stopping_leaves_the_coverage_of_both_intervals(monkeypatch):
    """The case in which a single way of dividing the pseudo-texts covers 70 %; all of them: `tests/benchmarks/coverage.py stopping`."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 300)
    rng = np.random.default_rng(3)
    held, looks = np.zeros(2), []
    for run in range(60):
        values, concept = corpus("sae", 0.1, rng)
        chosen = design(values, 200, rng)
        for n in round_ends(200, 15):
            sample = chosen.first(n)
            rated = values[sample.indices], np.where(concept[sample.indices], 2, 0), sample.weights
            metrics = [score(*rated, seed=run) for score in (responsiveness, purity)]
            if enough(*metrics, Settings(interval_width=0.35)):
                break
        looks.append(n)
        truth = gini(values[concept], values[~concept]), average_precision(values, concept)
        held += [low <= true <= high for (low, high), true in zip((m.interval for m in metrics), truth, strict=True)]
    assert len(set(looks)) > 1, "nothing was stopped, so nothing is shown"
    assert (held / 60 >= 0.88).all(), held / 60


def test_a_heavy_stratum_in_which_nothing_was_found_lowers_the_interval():
    """Two positives in strata of small weight, none in the one that stands for most texts: it may still hold some."""
    values = np.append(np.arange(1, 21) / 20, np.zeros(100))
    ratings = np.zeros(120, dtype=np.int64)
    ratings[14:20] = 2
    weights = np.append(np.ones(20), np.full(100, 80.0))
    even = bootstrap.Rows.of_sample(values, ratings == 2, weights)
    uneven = bootstrap.Rows.of_sample(values, ratings == 2, weights, uneven=True)
    assert even.shape[-8:].sum() == pytest.approx(bootstrap.PSEUDO)
    assert uneven.shape[-4:].sum() == pytest.approx(bootstrap.HEAVIEST)
    low, high = responsiveness(values, ratings, weights).interval
    limits = [rows.interval(lambda ranked, _: 2 * ranked.auroc() - 1, 0) for rows in (even, uneven)]
    assert low == min(one for one, _ in limits) < limits[0][0]
    assert high >= max(other for _, other in limits)
