"""Samplers: exact size, stated inclusion probabilities, mass at zero, determinism, unbiased weighted estimates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fade_lens._util.errors import InputError
from fade_lens.data.sampling import Sample, by_density, design, uniform
from fade_lens.metrics.fade import purity
from fade_lens.metrics.ranking import average_precision
from tests.samples import stratified


def silent_feature(n: int, rng: np.random.Generator, firing: float = 0.02) -> np.ndarray:
    return np.where(rng.random(n) < firing, rng.gamma(2.0, size=n), 0.0)


@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.0, np.nan]) | st.floats(-9, 9), max_size=120),
    n=st.integers(0, 130),
    seed=st.integers(0, 2**32 - 1),
    top=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    power=st.sampled_from([0.0, 0.6, 1.0]),
    edges=st.sampled_from([(0, 50, 75, 95, 100), (0, 100), (0, 1, 99, 100)]),
)
@settings(deadline=None, max_examples=400)
def test_stratified_returns_exactly_n_distinct_defined_texts(values, n, seed, top, power, edges):
    array = np.array(values, dtype=np.float64)
    sample = stratified(array, n, np.random.default_rng(seed), top=top, power=power, edges=edges)
    defined = ~np.isnan(array)
    assert len(sample) == min(n, defined.sum())
    assert (np.diff(sample.indices) > 0).all()
    assert defined[sample.indices].all()
    assert ((sample.inclusion > 0) & (sample.inclusion <= 1)).all()
    if len(sample) and top < 1:  # with the whole budget at the top, nothing else can be chosen
        assert sample.weights.sum() == pytest.approx(defined.sum())


@pytest.mark.parametrize("n", [50, 333])
def test_stratified_inclusion_is_the_frequency_of_being_chosen(n):
    rng = np.random.default_rng(0)
    values = np.append(silent_feature(900, rng, 0.1), -rng.random(100))
    chosen, stated, runs = np.zeros(1000), np.zeros(1000), 4000
    for _ in range(runs):
        sample = stratified(values, n, rng)
        chosen[sample.indices] += 1
        stated[sample.indices] = sample.inclusion
    frequency = chosen / runs
    assert (chosen > 0).all()
    error = np.abs(frequency - stated) / np.sqrt(np.maximum(stated * (1 - stated), 1e-12) / runs)
    assert error.max() < 4.5
    assert (frequency[stated == 1] == 1).all()


def test_stratified_takes_the_very_top_and_firing_texts_beyond_their_share():
    values = silent_feature(10_000, np.random.default_rng(1), 0.01)
    sample = stratified(values, 500, np.random.default_rng(1))
    firing = np.flatnonzero(values)
    assert np.isin(np.argsort(values)[-50:], sample.indices).all()
    assert len(sample) == 500
    below_the_top = np.isin(firing, sample.indices).sum() - 50
    assert below_the_top / (len(firing) - 50) > 3 * 450 / 9_950  # the share of a uniform sample
    assert sample.inclusion[values[sample.indices] == 0].max() < 0.05  # one stratum of silent texts


def test_strata_share_the_budget_by_their_sizes_to_a_power():
    values = np.append(np.zeros(9_000), np.arange(1.0, 1_001))

    def taken(power: float) -> np.ndarray:
        sample = stratified(values, 300, np.random.default_rng(0), top=0.0, power=power, edges=(0, 90, 100))
        return np.histogram(values[sample.indices], [0, 0.5, 900.5, 2_000])[0]

    assert taken(0.0).tolist() == [100, 100, 100]
    assert taken(1.0).tolist() == [270, 27, 3]
    sizes = np.array([9_000, 900, 100]) ** 0.5
    assert np.abs(taken(0.5) - 300 * sizes / sizes.sum()).max() < 1


def test_what_a_small_stratum_cannot_use_goes_to_the_others():
    values = np.append(np.zeros(990), np.arange(1.0, 11))
    sample = stratified(values, 500, np.random.default_rng(0), top=0.0, power=0.0, edges=(0, 50, 100))
    assert (values[sample.indices] > 0).sum() == 10
    assert len(sample) == 500


def test_stratified_without_silent_texts_gives_their_share_away():
    values = np.random.default_rng(2).normal(size=5000)
    sample = stratified(values, 400, np.random.default_rng(2))
    assert len(sample) == 400
    assert set(np.argsort(values)[-40:]) <= set(sample.indices)


def test_stratified_draws_tied_activations_by_chance_not_by_place():
    values = np.append(np.ones(500), np.zeros(500))
    counts = np.zeros(1000)
    for seed in range(300):
        counts[stratified(values, 100, np.random.default_rng(seed)).indices] += 1
    assert counts[:250].sum() == pytest.approx(counts[250:500].sum(), rel=0.1)


def test_stratified_is_deterministic_in_its_generator():
    values = silent_feature(3000, np.random.default_rng(3))
    first, again, other = (stratified(values, 200, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first.indices == again.indices).all()
    assert (first.inclusion == again.inclusion).all()
    assert not np.array_equal(first.indices, other.indices)


def test_weighted_purity_is_unbiased_where_the_unweighted_is_not():
    rng = np.random.default_rng(4)
    expressing = rng.random(20_000) < 0.01
    values = np.maximum(rng.normal(size=20_000) + 2 * expressing, 0)
    truth = average_precision(values, expressing)
    weighted, unweighted = [], []
    for _ in range(60):
        sample = stratified(values, 1000, rng)
        metric = purity(values[sample.indices], np.where(expressing[sample.indices], 2, 0), sample.weights)
        weighted.append(metric.value)
        unweighted.append(metric.details["unweighted"])
    assert np.mean(weighted) == pytest.approx(truth, abs=0.03)
    assert np.mean(unweighted) > truth + 0.15


def test_uniform():
    sample = uniform(100, 30, np.random.default_rng(0))
    assert len(np.unique(sample.indices)) == 30
    assert (sample.inclusion == 0.3).all()
    everything = uniform(10, 30, np.random.default_rng(0))
    assert everything.indices.tolist() == list(range(10))
    assert (everything.weights == 1).all()
    assert len(uniform(0, 5, np.random.default_rng(0))) == 0
    assert isinstance(sample, Sample)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": -1}, "n is -1"),
        ({"top": 1.5}, "top is 1.5"),
        ({"power": -0.6}, "power is -0.6"),
        ({"likely": 2}, "likely is 2"),
        ({"edges": (0, 50)}, r"edges is \(0, 50\)"),
        ({"edges": (0, 60, 50, 100)}, "rise from 0 to 100"),
    ],
)
def test_bad_designs_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        stratified(np.zeros(9), **{"n": 3, "rng": np.random.default_rng(0), **options})


@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.0, np.nan]) | st.floats(-9, 9), max_size=120),
    n=st.integers(0, 130),
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(0, 50),
    likely=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(deadline=None, max_examples=400)
def test_every_beginning_of_a_design_is_a_sample_of_all_strata(values, n, seed, levels, likely):
    array = np.array(values, dtype=np.float64)
    likeness = np.random.default_rng(seed).integers(0, levels, len(array)).astype(float) if levels else None
    chosen = design(array, n, np.random.default_rng(seed), likeness=likeness, likely=likely)
    defined = int((~np.isnan(array)).sum())
    assert len(chosen) == min(n, defined) == len(np.unique(chosen.order))
    for k in range(min(len(chosen.sizes), len(chosen)), len(chosen) + 1):
        sample = chosen.first(k)
        assert sample.indices.tolist() == sorted(chosen.order[:k].tolist())
        assert ((sample.inclusion > 0) & (sample.inclusion <= 1)).all()
        if k:
            assert sample.weights.sum() == pytest.approx(defined)


def test_the_inclusion_of_a_beginning_is_the_frequency_of_being_in_it():
    rng = np.random.default_rng(0)
    values = np.append(silent_feature(900, rng, 0.1), -rng.random(100))
    chosen, stated, runs = np.zeros(1000), np.zeros(1000), 4000
    for _ in range(runs):
        sample = design(values, 150, rng).first(60)
        chosen[sample.indices] += 1
        stated[sample.indices] = sample.inclusion
    error = np.abs(chosen / runs - stated) / np.sqrt(np.maximum(stated * (1 - stated), 1e-12) / runs)
    assert error.max() < 4.5


def test_a_beginning_keeps_the_shares_of_the_whole():
    chosen = design(silent_feature(10_000, np.random.default_rng(1)), 200, np.random.default_rng(1))
    whole = np.bincount(chosen.stratum)
    for k in (60, 90, 135):
        assert np.abs(np.bincount(chosen.stratum[:k]) - whole * k / 200).max() <= len(whole)


def test_a_beginning_without_a_stratum_is_refused():
    chosen = design(silent_feature(1000, np.random.default_rng(1), 0.5), 50, np.random.default_rng(1))
    with pytest.raises(InputError, match="from 6 to 50"):
        chosen.first(5)
    with pytest.raises(InputError, match="n is 51"):
        chosen.first(51)


# --- Texts that are like the description --------------------------------------------------------------------------------------


def alike_and_values(rng: np.random.Generator, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Values of which most are 0, and a likeness that goes with them."""
    values = np.append(silent_feature(n - 100, rng, 0.1), -rng.random(100))
    return values, rng.normal(size=n) + (values > 0)


@pytest.mark.parametrize(("n", "first"), [(50, 50), (150, 150), (150, 60)])
def test_with_a_likeness_too_the_inclusion_is_the_frequency_of_being_chosen(n, first):
    rng = np.random.default_rng(0)
    values, likeness = alike_and_values(rng)
    chosen, stated, runs = np.zeros(1000), np.zeros(1000), 2000
    for _ in range(runs):
        sample = design(values, n, rng, likeness=likeness).first(first)
        chosen[sample.indices] += 1
        stated[sample.indices] = sample.inclusion
    assert (chosen > 0).all()
    error = np.abs(chosen / runs - stated) / np.sqrt(np.maximum(stated * (1 - stated), 1e-12) / runs)
    assert error[stated < 1].max() < 4.5 and (chosen[stated == 1] == runs).all()


@pytest.mark.parametrize("levels", [2, 5, None])
def test_weighted_counts_of_a_concept_are_unbiased_however_alike_its_texts_are(levels):
    rng = np.random.default_rng(1)
    values, likeness = alike_and_values(rng)
    concept = rng.random(1000) < np.where(likeness > 1, 0.3, 0.03)
    values = values.round(1)  # some tie
    if levels:  # many are as alike as others
        likeness = np.digitize(likeness, np.quantile(likeness, np.linspace(0, 1, levels + 1)[1:-1])).astype(float)
    found = []
    for _ in range(800):
        sample = design(values, 100, rng, likeness=likeness).first(70)
        found.append([sample.weights[concept[sample.indices]].sum(), (sample.weights * values[sample.indices]).sum()])
    error = np.abs(np.mean(found, axis=0) - [concept.sum(), values.sum()])
    assert (error < 4 * np.std(found, axis=0) / np.sqrt(len(found))).all()


def test_the_most_alike_are_chosen_whatever_the_feature_does_and_the_most_active_stay():
    rng = np.random.default_rng(2)
    values = silent_feature(5000, rng, 0.05)
    likeness = rng.permutation(5000).astype(float)
    sample = stratified(values, 200, rng, likeness=likeness)
    assert set(np.argsort(values)[-20:]) <= set(sample.indices)
    others = np.setdiff1d(np.argsort(likeness)[::-1], np.argsort(values)[-20:], assume_unique=True)
    assert set(others[:20]) <= set(sample.indices) and len(sample) == 200


def test_texts_that_are_equally_alike_are_chosen_by_chance_not_by_place():
    values, likeness, counts = np.zeros(1000), np.repeat([0.0, 1.0], 500), np.zeros(1000)
    for seed in range(200):
        sample = stratified(values, 200, np.random.default_rng(seed), likeness=likeness)
        counts[sample.indices[sample.inclusion == 1]] += 1
        again = stratified(values, 200, np.random.default_rng(seed), likeness=likeness)
        assert np.array_equal(sample.indices, again.indices)
    assert counts.sum() == 200 * 20 and not counts[:500].any()
    assert counts[500:750].sum() == pytest.approx(counts[750:].sum(), rel=0.1)


def test_texts_that_are_as_little_alike_as_any_are_not_likely():
    values = silent_feature(500, np.random.default_rng(3))
    without, same = (design(values, 100, np.random.default_rng(0), likeness=some) for some in (None, np.full(500, 0.4)))
    assert np.array_equal(without.order, same.order) and np.array_equal(without.sizes, same.sizes)
    three = np.zeros(500)
    silent = np.flatnonzero(values == 0)[:3]
    three[silent] = 1, 2, 3
    sample = stratified(values, 100, np.random.default_rng(0), likeness=three)
    assert (sample.inclusion[np.isin(sample.indices, silent)] == 1).all() and np.isin(silent, sample.indices).all()
    assert len(sample) == 100 and sample.weights.sum() == pytest.approx(500)


def test_two_descriptions_of_a_feature_share_most_of_their_other_texts():
    rng = np.random.default_rng(4)
    values = silent_feature(5000, rng, 0.1)
    chosen = [
        set(design(values, 200, np.random.default_rng(0), likeness=rng.normal(size=5000)).order) for _ in range(2)
    ]
    assert len(chosen[0] & chosen[1]) > 150


def test_as_many_latents_of_every_range_of_density_where_there_are():
    density = np.repeat([2e-5, 3e-4, 3e-3, 0.2], [900, 80, 16, 4])  # a range of each, a decade or more apart
    sample = by_density(density, 44, 4, np.random.default_rng(0))
    drawn = {float(d): int(n) for d, n in zip(*np.unique(density[sample.indices], return_counts=True), strict=True)}
    assert drawn == {2e-5: 14, 3e-4: 13, 3e-3: 13, 0.2: 4}, (
        "the densest have no more, and the others share what they leave"
    )
    for value, n in drawn.items():
        assert sample.weights[density[sample.indices] == value] == pytest.approx((density == value).sum() / n)
    assert sample.weights.sum() == pytest.approx(1000)


@given(
    st.lists(st.integers(1, 10**5), min_size=1, max_size=80), st.integers(1, 90), st.integers(1, 6), st.integers(0, 99)
)
@settings(deadline=None, max_examples=200)
def test_a_larger_draw_by_density_holds_the_smaller_one(counts, n, strata, seed):
    density = np.array(counts) / 10**5
    small, large = (by_density(density, k, strata, np.random.default_rng(seed)) for k in (n, n + 7))
    assert len(small) == min(n, len(counts)) and (np.diff(small.indices) > 0).all()
    assert small.weights.sum() == pytest.approx(len(counts))
    assert n < strata or set(small.indices) <= set(large.indices)
