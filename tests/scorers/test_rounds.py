"""Rating in rounds: when it stops, that it stops for the right reasons, and that nothing else depends on the rounds."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from fade_lens import Fade, Settings
from fade_lens._util.errors import InputError, JudgeError
from fade_lens._util.reasons import Reason
from fade_lens.judge import Rating
from fade_lens.judge.rounds import in_rounds
from fade_lens.metrics import intervals as bootstrap
from fade_lens.metrics.fade import responsiveness
from fade_lens.metrics.faithfulness import faithfulness
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import average_precision, gini
from fade_lens.runs.presets import PAPER
from fade_lens.scorers.faithfulness import longest_rounds
from fade_lens.scorers.ratings import FIRST_ROUND, enough, missing, next_end, widest
from fade_lens.scorers.stopping import FIRST_PROMPTS, filled
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.simulated import corpus, rated_in_rounds, steered, steered_in_rounds

SMALL = {"prompts": 12, "prompt_tokens": 4, "new_tokens": 6, "rated_texts": 240, "synthetic_texts": 20}
MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(1200)


@pytest.fixture
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **(SMALL | settings))


@pytest.mark.parametrize("most", [1, 59, 60, 74, 75, 200, 500, 2_000])
@pytest.mark.parametrize("batch", [1, 15, 70, 200])
@pytest.mark.parametrize("width", [None, 0.0, 0.31, 0.5, 2.0])
def test_rounds_are_whole_requests_and_end_with_all_texts(most, batch, width):
    ends = [next_end(0, most, None, batch, Settings())]
    while ends[-1] < most:
        ends.append(next_end(ends[-1], most, width, batch, Settings()))
        assert ends[-1] - ends[-2] >= min(batch, most - ends[-2])
        assert ends[-1] < 2 * ends[-2] + batch or ends[-1] == most
    assert all(end % batch == 0 and end >= FIRST_ROUND for end in ends[:-1]) and ends[-1] == most


def test_a_round_asks_for_what_the_width_says_is_missing():
    assert missing(100, 0.3, 0.3) == 0 and missing(100, 0.6, 0.3) == missing(100, None, 0.3) == missing(100, 2.0, 0.3)
    assert missing(100, 0.36, 0.3) == pytest.approx(0.9 * 44)
    assert next_end(300, 1000, 0.36, 15, Settings()) == 405
    assert next_end(0, 500, None, 15, Settings(interval_width=None)) == 500
    assert next_end(0, 500, None, 15, Settings(**PAPER)) == 500
    assert widest(metric(0.1, 0.4), metric(0.2, 0.9)) == pytest.approx(0.7)
    assert widest(metric(0.1, 0.4), Metric(1.0)) is None


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
        (
            Metric(None, Reason("undefined", "no text is rated 2")),
            Metric(None, Reason("undefined", "no text is rated 2")),
            {},
            None,
        ),
    ],
)
def test_when_it_is_enough(responsive, pure, settings, words):
    found = enough(responsive, pure, Settings(**settings))
    assert (found is None) if words is None else (found is not None and words in found)


def test_rounds_end_when_nothing_follows_and_never_ask_a_text_twice():
    rounds: list[list[str]] = []

    class Rater:
        async def rate(self, texts):
            rounds.append(list(texts))
            return [Rating(len(text) % 3) for text in texts]

    seen: list[int] = []
    groups = {0: ["a", "bb", "a"], 3: ["bb", "ccc"], 5: []}

    def following(ratings):
        seen.append(len(ratings))
        return groups[len(ratings)]

    ratings = asyncio.run(in_rounds(Rater(), following))
    assert rounds == [["a", "bb"], ["ccc"]]
    assert [r.value for r in ratings] == [1, 2, 1, 2, 0]
    assert seen == [0, 3, 5]


def test_an_error_while_looking_at_a_round_reaches_the_caller(server):
    def broken(ratings):
        if ratings:
            raise ZeroDivisionError
        return ["the cat"]

    with judge_of(server) as judge, pytest.raises(ZeroDivisionError):
        judge.submit_rounds(TRUE[0], broken).result(timeout=20)
    with judge_of(server) as judge, pytest.raises(InputError, match="one string"):
        judge.submit_rounds(TRUE[0], lambda _: "the cat").result(timeout=20)


def test_clear_descriptions_stop_early_with_fewer_requests_and_say_why(server):
    full = make(server, interval_width=None, gate=2.0).evaluate(TRUE, progress=False)
    asked = server.requests
    early = make(server, gate=2.0).evaluate(TRUE, progress=False)
    for result in full:
        assert len(result.rated_evidence.texts) == 240 and result.rated_evidence.stopped is None
    for result in early:
        evidence = result.rated_evidence
        assert 60 <= len(evidence.texts) < 240 and len(evidence.texts) % 15 == 0
        assert evidence.stopped is not None
    assert server.requests - asked < 0.75 * asked


def test_hopeless_descriptions_stop_and_undefined_ones_do_not(server):
    results = make(server, interval_width=0.01, rated_texts=600).evaluate(
        SHUFFLED | {3: "nothing that exists"}, progress=False
    )
    for index in SHUFFLED:
        evidence = results[index].rated_evidence
        assert evidence.stopped == "the interval of Responsiveness lies below the gate of 0.5"
        assert len(evidence.texts) < 600
    assert len(results[3].rated_evidence.texts) == 600 and results[3].rated_evidence.stopped is None


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


def test_as_many_texts_again_are_rated_where_too_few_express_the_description(server):
    sparse = {"interval_width": None, "rated_texts": 60, "factors": (), "sparse_rounds": 2}
    found = {
        below: len(
            make(server, **sparse, sparse_below=below).evaluate({0: TRUE[0]}, progress=False)[0].rated_evidence.texts
        )
        for below in (1, 1000)
    }
    assert found == {1: 60, 1000: 180}


def test_the_paper_preset_rates_all(server):
    result = make(server, preset="paper", factors=(0.0, 1.0)).evaluate({0: TRUE[0]}, progress=False)[0]
    evidence = result.faithfulness_evidence
    assert len(result.rated_evidence.texts) == 240
    assert {c.factor for c in evidence.continuations} == {0.0, 1.0} and not evidence.fluency


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
        assert other.requests <= whole.run.usage.calls + 2  # a check at the first start
    assert [r.rated_evidence for r in finished] == [r.rated_evidence for r in whole]


def test_a_run_killed_between_rounds_of_continuations_ends_with_the_same_numbers(server, tmp_path):
    more = {"prompts": 30, "interval_width": 0.02, "controls": ("ablate", "other")}
    undisturbed = make(server, **more).evaluate({0: TRUE[0]}, progress=False)
    calls = undisturbed.run.usage.calls
    with FakeJudge(rule=rule, writer=writer) as other:
        for few in (calls - 4, 2, 1):
            fade = make(other, **more)
            fade.judge = type(fade.judge)("planted", base_url=other.base_url, api_key="k", max_calls=few)
            with pytest.raises(JudgeError):
                fade.evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
        finished = make(other, **more).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    assert [r.faithfulness_evidence for r in finished] == [r.faithfulness_evidence for r in undisturbed]
    assert finished[0].faithfulness.counts["prompts"] == 30


def test_no_description_waits_for_the_rounds_of_another(server):
    """One description's first round is held up; the other goes through all of its rounds meanwhile."""
    import threading

    with judge_of(server) as judge:
        release = threading.Event()
        texts = [f"the cat {i}" for i in range(12)]

        def held_up(ratings):
            return [] if ratings and release.wait(20) else texts[:3]

        slow = judge.submit_rounds(TRUE[0], held_up)
        fast = judge.submit_rounds(TRUE[1], lambda ratings: texts[len(ratings) : len(ratings) + 3])
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
    """The case in which pseudo-texts divided one way cover 70 %; all of them: `python -m tests.benchmarks.coverage stopping`."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 300)
    rng = np.random.default_rng(3)
    held, looks = np.zeros(2), []
    for run in range(60):
        values, concept = corpus("sae", 0.1, rng)
        options = Settings(interval_width=0.35, rated_texts=200)
        n, metrics, _ = rated_in_rounds(values, np.where(concept, 2, 0), options, 15, rng, run)
        looks.append(n)
        truth = gini(values[concept], values[~concept]), average_precision(values, concept)
        held += [low <= true <= high for (low, high), true in zip((m.interval for m in metrics), truth, strict=True)]
    assert len(set(looks)) > 1, "nothing was stopped, so nothing is shown"
    assert (held / 60 >= 0.88).all(), held / 60


# --- Faithfulness ---------------------------------------------------------------------------------------------------------------


def test_prompts_of_a_round_fill_requests():
    assert filled(FIRST_PROMPTS, 5, 15) == 21 and filled(FIRST_PROMPTS, 5, 25) == 25
    for prompts in (1, 7.5, 30):
        for sets in (2, 3, 5, 9):
            for batch in (1, 15, 40):
                n = filled(prompts, sets, batch)
                assert n > prompts - 1 and (n * sets % batch == 0 or batch - n * sets % batch < sets)


def test_later_prompts_are_measured_at_the_factor_chosen_without_them(monkeypatch):
    """No effect at all, few prompts to choose on: without stopping there is no bias, and with it the interval holds 0."""
    monkeypatch.setattr("fade_lens.metrics.faithfulness.REPLICATES", 200)
    rng = np.random.default_rng(0)
    signed, held, maximum = [], 0, []
    for run in range(80):
        hits = dict(zip((0.0, 1.0, 2.0, 3.0, 4.0), steered(np.full(5, 0.2), 60, rng), strict=True))
        texts, found = steered_in_rounds(hits, 1e-9, 15, run)
        signed.append(found.details["signed"])
        maximum.append(found.details["maximum"])
        first = filled(FIRST_PROMPTS, 5, 15)
        assert texts[0] == 5 * first and sum(texts[1:]) == 2 * (60 - first)
        held += steered_in_rounds(hits, 0.2, 15, run)[1].interval[0] <= 0
    assert abs(np.mean(signed)) < 0.03 and np.mean(maximum) > 0.04
    assert held >= 0.93 * 80


@pytest.mark.parametrize("prompts", [7, 21, 30, 100])
@pytest.mark.parametrize("batch", [3, 15, 25])
def test_the_estimated_rounds_bound_those_that_are_made(prompts, batch):
    longest = longest_rounds(Settings(prompts=prompts), batch)
    for width in (1e-6, 0.1, 0.2):
        hits = dict(enumerate(np.random.default_rng(prompts).random((5, prompts)) < 0.3))
        rounds, _ = steered_in_rounds(hits, width, batch, 0)
        assert sum(rounds) <= sum(longest)
        assert sum(-(-texts // batch) for texts in rounds) <= sum(-(-texts // batch) for texts in longest)


def test_the_estimate_counts_each_set_of_continuations_once():
    assert longest_rounds(Settings(mode="clamp", factors=(0, 0.5, 1, 1.5, 2)), 15) == [105, 14, 4]
    assert longest_rounds(Settings(**PAPER), 15) == [350]
    assert longest_rounds(Settings(controls=("random_direction", "ablate")), 15) == [21 * (5 + 4 + 1), 4 * 7, 4 * 2]
    assert longest_rounds(Settings(factors=()), 15) == [0]


def test_steering_without_effect_takes_fewer_requests_than_all_continuations(server):
    more = {"interval_width": 0.4, "prompts": 30, "gate": None}
    wrong = {index: SHUFFLED[index] for index in list(SHUFFLED)[:1]}
    [result] = make(server, **more).evaluate(wrong, progress=False)
    counts = result.faithfulness.counts
    assert 21 <= counts["prompts"] < 30
    assert len(result.faithfulness_evidence.continuations) < 150
    assert result.faithfulness.interval[1] - result.faithfulness.interval[0] <= 0.4


def test_the_best_factor_alone_is_rated_at_later_prompts(server):
    more = {"interval_width": 0.05, "prompts": 30}
    result = next(iter(make(server, **more).evaluate({0: TRUE[0]}, progress=False)))
    by_factor: dict[float, int] = {}
    for c in result.faithfulness_evidence.continuations:
        by_factor[c.factor] = by_factor.get(c.factor, 0) + 1
        assert c.rating is not None
    best = result.faithfulness.details["factor"]
    assert by_factor.pop(0.0) == by_factor.pop(best) == 30 == result.faithfulness.counts["prompts"]
    assert set(by_factor.values()) == {21}
    whole = next(iter(make(server, **more | {"interval_width": None}).evaluate({0: TRUE[0]}, progress=False)))
    assert len(whole.faithfulness_evidence.continuations) == 150
    assert abs(whole.faithfulness.value - result.faithfulness.value) < 0.2
    again = {c.factor: [] for c in whole.faithfulness_evidence.continuations}
    for c in whole.faithfulness_evidence.continuations:
        again[c.factor].append((c.prompt, c.text))
    for c in result.faithfulness_evidence.continuations:
        assert (c.prompt, c.text) == again[c.factor].pop(0), "the same texts, in the same order"


def test_all_prompts_at_all_factors_is_what_it_was():
    """Rows of equal length: the estimate of before, with halves of all prompts."""
    rng = np.random.default_rng(4)
    rows = {f: np.where(rng.random(40) < p, 2, 0) for f, p in ((0.0, 0.1), (1.0, 0.2), (2.0, 0.6))}
    whole = faithfulness(rows)
    assert whole.counts["prompts"] == 40 and 0.3 < whole.value < 0.75
    with pytest.raises(InputError, match="best on the prompts of all"):
        faithfulness(rows | {2.0: rows[2.0][:20]})
    with pytest.raises(InputError, match="paper"):
        faithfulness(rows | {1.0: rows[1.0][:20]}, arithmetic="paper")
    ragged = faithfulness(rows | {1.0: rows[1.0][:20]})
    assert ragged.counts["rated_2_1"] + ragged.counts["rated_0_1"] == 20
    assert ragged.details["rate_factor"] == np.mean(rows[2.0] == 2)


# --- Intervals ------------------------------------------------------------------------------------------------------------------


def test_a_heavy_stratum_in_which_nothing_was_found_lowers_the_interval():
    """Two positives in strata of small weight, none in the one that stands for most texts: it may still hold some."""
    values = np.append(np.arange(1, 21) / 20, np.zeros(100))
    ratings = np.zeros(120, dtype=np.int64)
    ratings[14:20] = 2
    weights = np.append(np.ones(20), np.full(100, 80.0))
    low, high = responsiveness(values, ratings, weights).interval
    light = responsiveness(values, ratings, np.where(weights > 1, 1.1, 1.0)).interval
    assert low < 0.3 < light[0] and high == light[1] == responsiveness(values, ratings, weights).value
