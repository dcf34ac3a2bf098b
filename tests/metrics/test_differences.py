"""Permutation tests against all permutations and against chance, intervals that agree with them, and how many features settle a difference."""

from itertools import combinations, product

import numpy as np
import pytest

from fade_lens.data.sampling import by_density
from fade_lens.metrics import differences as differences_module
from fade_lens.metrics.differences import (
    deviation,
    difference_interval,
    further_to_settle,
    label_test,
    mean_interval,
    sign_flip_test,
)


def test_sign_flips_are_gone_through_where_they_are_few():
    values = np.array([0.3, -0.1, 0.4, 0.0, 0.2, 0.25])
    flipped = [abs(np.dot(signs, values)) for signs in product((1, -1), repeat=len(values))]
    assert sign_flip_test(values, 0) == np.mean([one >= values.sum() - 1e-12 for one in flipped])


def test_labels_are_dealt_in_all_ways_where_they_are_few():
    a, b = np.array([0.5, 0.6, 0.9, 0.7, 0.4]), np.array([0.1, 0.5, 0.2, 0.3, 0.45, 0.6])
    pool, seen = np.concatenate([a, b]), abs(a.mean() - b.mean())
    dealt = []
    for some in combinations(range(len(pool)), len(a)):
        rest = [i for i in range(len(pool)) if i not in some]
        dealt.append(abs(pool[list(some)].mean() - pool[rest].mean()) >= seen - 1e-12)
    assert label_test(a, b, 0) == label_test(b, a, 0) == np.mean(dealt)


def test_permutations_that_are_drawn_give_nearly_what_all_give(monkeypatch):
    random = np.random.default_rng(0)
    a, b = random.normal(0.3, 1, 9), random.normal(0, 1, 5)
    exact = sign_flip_test(a, 0), label_test(a, b, 0)
    monkeypatch.setattr(differences_module, "PERMUTATIONS", 500)
    assert sign_flip_test(a, 1) == sign_flip_test(a, 1) == pytest.approx(exact[0], abs=0.06)
    assert label_test(a, b, 1) == label_test(a, b, 1) == pytest.approx(exact[1], abs=0.06)
    assert label_test(a, b, 1) != label_test(a, b, 2)


def test_p_values_are_uniform_where_nothing_differs_and_small_where_much_does(monkeypatch):
    monkeypatch.setattr(differences_module, "PERMUTATIONS", 200)
    random = np.random.default_rng(0)
    flips = [sign_flip_test(random.standard_t(4, 30), seed) for seed in range(300)]
    labels = [label_test(random.exponential(1, 12), random.exponential(1, 25), seed) for seed in range(300)]
    for found in (flips, labels):
        assert abs(np.mean(np.array(found) <= 0.05) - 0.05) < 0.04 and abs(np.mean(found) - 0.5) < 0.06
    assert label_test(np.arange(30.0), np.arange(30.0) + 30, 0) == 1 / 201, "what was seen is one of the permutations"


def test_a_constant_shift_is_certain_and_no_difference_is_none():
    assert sign_flip_test(np.full(40, 0.1), 0) < 0.001 and sign_flip_test(np.zeros(9), 0) == 1.0
    assert label_test(np.ones(6), np.ones(7), 0) == 1.0 and label_test(np.full(8, 1e-7), np.zeros(9), 0) < 0.001
    assert sign_flip_test(np.ones(4), 0) is None and label_test(np.ones(4), np.ones(9), 0) is None


def test_interval_and_test_agree():
    """Both are of the mean: where one tells a difference from 0, the other nearly always does."""
    random, agree = np.random.default_rng(1), []
    for seed in range(60):
        a, b = random.beta(2, 2, 20) + 0.15, random.beta(2, 2, 30)
        low, high = difference_interval(a, b, seed)
        agree.append((low > 0 or high < 0) == (label_test(a, b, seed) <= 0.05))
        low, high = mean_interval(list(enumerate(a[:20] - b[:20])), seed)
        agree.append((low > 0 or high < 0) == (sign_flip_test(a[:20] - b[:20], seed) <= 0.05))
    assert np.mean(agree) > 0.93


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says():
    random, held = np.random.default_rng(2), []
    for seed in range(200):
        low, high = difference_interval(random.normal(1, 1, 12), random.normal(0, 3, 25), seed)
        held.append(low <= 1 <= high)
    assert 0.9 < np.mean(held) < 0.99
    assert difference_interval(np.ones(4), np.ones(9), 0) == (None, None)


def test_so_many_more_settle_it_four_times_of_five():
    n, difference, deviation = 20, 0.1, 0.3
    more = further_to_settle(difference, deviation, n)
    random = np.random.default_rng(3)
    means = random.normal(difference, deviation, (2000, n + more)).mean(axis=1)
    assert np.mean(means > 1.96 * deviation / np.sqrt(n + more)) == pytest.approx(0.8, abs=0.03)
    assert further_to_settle(1.0, 0.1, 20) == 0 and further_to_settle(0.0, 1.0, 20) is None
    assert further_to_settle(0.1, float("nan"), 20) is None and further_to_settle(1e-200, 0.3, 20) is None


def test_weights_give_the_mean_of_all_latents_and_an_interval_that_holds_it():
    random, n = np.random.default_rng(4), 40
    density = np.exp(random.normal(-7, 1.5, 2000))
    score = np.clip(0.6 + 0.08 * (np.log(density) + 7) + random.normal(0, 0.15, 2000), 0, 1)
    found = []
    for seed in range(100):
        sample = by_density(density, n, 4, np.random.default_rng(seed))
        values, weights = score[sample.indices], sample.weights
        low, high = mean_interval(list(enumerate(values)), seed, dict(enumerate(weights)))
        mean = np.average(values, weights=weights)
        found.append((low <= score.mean() <= high, mean, values.mean(), deviation(values, weights) / np.sqrt(n)))
    held, means, plain, deviations = np.array(found).T
    assert 0.88 < held.mean() < 0.99
    assert abs(means.mean() - score.mean()) < 0.012 < 0.03 < abs(plain.mean() - score.mean()), (
        "each latent counts once without"
    )
    assert deviations.mean() == pytest.approx(means.std(), rel=0.2)


def test_latents_of_one_stratum_are_resampled_among_themselves():
    values, weights = np.repeat([0.1, 0.9], 10), np.repeat([1.0, 30.0], 10)
    each = list(enumerate(values)), 0
    assert mean_interval(*each, dict(enumerate(weights))) == pytest.approx((0.9 - 0.8 / 31,) * 2)
    assert np.ptp(mean_interval(*each)) > 0.2
    assert difference_interval(values, values, 0, (weights, weights)) == pytest.approx((0, 0))
    alone = mean_interval(list(enumerate([*values, 0.0])), 0, dict(enumerate([*weights, 7.0])))
    assert alone[1] - alone[0] > 0.05, "what is alone in its stratum is resampled with those of the next"


def test_tests_of_a_difference_weigh_as_its_mean_does(monkeypatch):
    monkeypatch.setattr(differences_module, "PERMUTATIONS", 200)
    random, p_values = np.random.default_rng(5), []
    for seed in range(200):
        weights = [random.choice([1.0, 9.0], size) for size in (15, 25)]
        a, b = (random.normal(w / 9, 1) for w in weights)  # the heavy ones score more, in both
        p_values.append(label_test(a, b, seed, (weights[0], 100 * weights[1])))
    assert abs(np.mean(np.array(p_values) <= 0.05) - 0.05) < 0.045 and abs(np.mean(p_values) - 0.5) < 0.07
    heavy, light = np.repeat([9.0, 1.0], 15), np.ones(30)
    a, b = np.where(heavy > 1, 0.8, 0.0) + 1e-3 * random.normal(size=30), np.full(30, 0.4)
    assert label_test(a, b, 0) > 0.9 and label_test(a, b, 0, (heavy, light)) < 0.05, "their plain means are alike"
