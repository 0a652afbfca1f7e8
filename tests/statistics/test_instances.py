"""Instance-level estimators against hand-computed cases and simulations with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.instances import (
    decaying_bound,
    ensemble,
    fisher_bound,
    instance_difference,
    momentum,
    threshold_bias,
    threshold_curve,
)


def draw(rng, accuracy_N, seeds, finetunings=1):
    """Independent runs with these accuracies: bool [N, P, F]."""
    shape = (len(accuracy_N), seeds, finetunings)
    return rng.random(shape) < accuracy_N[:, None, None]


def test_difference_is_larger_minus_smaller():
    small = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 1]]], bool)
    large = np.array([[[1, 1], [1, 1]], [[0, 1], [1, 1]]], bool)
    np.testing.assert_array_equal(instance_difference(small, large), [0.75, -0.25])


def test_ensemble_averages_probabilities_and_not_votes():
    probabilities_1x1x3x2 = np.array([[[[0.6, 0.4], [0.6, 0.4], [0.0, 1.0]]]])
    np.testing.assert_array_equal(ensemble(probabilities_1x1x3x2), [[1]])


def test_bound_by_hand():
    # Differences of the two instances: -2 and 0 of two runs. Baseline, first seeds minus second
    # seeds: (1 + 0) - (1 + 0) = 0 and (1 + 1) - (1 + 1) = 0. At the threshold -1 (two of two runs)
    # half of the instances are discovered, and none of the baseline.
    small = np.array([[1, 1], [1, 1]], bool)
    large = np.array([[0, 0], [1, 1]], bool)
    bound = decaying_bound(small, large)
    assert (bound.fraction, bound.discovered, bound.baseline) == (0.5, 0.5, 0.0)
    assert bound.threshold == -1.0
    assert bound.independent
    assert decaying_bound(large, small).fraction == 0.0  # nothing improves


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10])
@pytest.mark.parametrize("decaying", [0.0, 0.05, 0.3])
def test_expected_bound_at_any_threshold_is_below_the_true_fraction(seeds, decaying):
    rng = np.random.default_rng(seeds)
    small_N = rng.beta(2, 1, 4000)
    sign_N = np.where(rng.random(4000) < decaying, -1, 1)
    large_N = np.clip(small_N + sign_N * rng.exponential(0.2, 4000), 0, 1)
    truth = np.mean(large_N < small_N)
    bounds = [
        decaying_bound(draw(rng, small_N, seeds), draw(rng, large_N, seeds)).fraction
        for _ in range(20)
    ]
    # The best threshold of 4,000 instances adds a little noise to the guarantee.
    assert np.mean(bounds) <= truth + 0.01
    if decaying == 0.3:
        assert np.mean(bounds) > (0.02 if seeds > 2 else 0.01)


def test_bound_finds_nothing_where_nothing_changes():
    rng = np.random.default_rng(0)
    accuracy_N = rng.beta(2, 1, 50_000)
    bound = decaying_bound(draw(rng, accuracy_N, 10), draw(rng, accuracy_N, 10))
    assert bound.fraction < 0.004
    assert bound.fraction < 4 * bound.standard_error


def test_bound_says_when_finetunings_share_pretrained_models():
    rng = np.random.default_rng(0)
    runs = draw(rng, np.full(50, 0.8), 4, finetunings=3)
    assert not decaying_bound(runs, runs).independent
    assert decaying_bound(runs[..., :1], runs[..., :1]).independent


def test_bound_refuses_unequal_families_and_single_seeds():
    runs = np.ones((5, 4, 2), bool)
    with pytest.raises(InputError, match="the same instances and seeds"):
        decaying_bound(runs, runs[:, :3])
    with pytest.raises(InputError, match="at least two pretraining seeds"):
        decaying_bound(runs[:, :1], runs[:, :1])


def test_threshold_bias_is_small_with_many_instances_and_larger_with_few():
    rng = np.random.default_rng(1)
    small_N = rng.beta(2, 1, 20_000)
    large_N = np.where(rng.random(20_000) < 0.1, small_N * 0.3, np.sqrt(small_N))
    small, large = draw(rng, small_N, 10, finetunings=5), draw(rng, large_N, 10, finetunings=5)
    many = threshold_bias(small, large, rng, draws=50)
    few = threshold_bias(small[:100], large[:100], rng, draws=50)
    assert 0 <= many < 0.1
    assert few > many


def test_fisher_bound_by_hand():
    # One of four instances: 6 of 6 right runs fall to 0 of 6; p = 1 / C(12, 6) = 1/924. The others
    # have p = 1. A quarter is rejected at every q, so the bound is 0.25 * 0.99.
    small = np.zeros((4, 6), bool)
    small[0] = True
    large = np.zeros((4, 6), bool)
    assert fisher_bound(small, large) == pytest.approx(0.25 * 0.99)
    # Counting up to the first failing rank takes in one instance too many.
    assert fisher_bound(small, large, first_crossing=True) == pytest.approx(0.5 * 0.99)


def test_fisher_bound_uses_the_last_passing_rank():
    rng = np.random.default_rng(3)
    small, large = draw(rng, np.full(300, 0.7), 8)[..., 0], draw(rng, np.full(300, 0.4), 8)[..., 0]
    p_N = np.sort(
        [
            stats.fisher_exact([[a, 8 - a], [b, 8 - b]], alternative="greater").pvalue
            for a, b in zip(small.sum(1), large.sum(1), strict=True)
        ]
    )
    shares = np.arange(1, 301) / 300
    expected = max(
        max(shares[p_N <= shares * q], default=0.0) * (1 - q) for q in np.arange(1, 100) / 100
    )
    assert fisher_bound(small, large) == pytest.approx(expected)


def test_two_seeds_cannot_reject_below_one_sixth():
    small, large = np.ones((10, 2), bool), np.zeros((10, 2), bool)
    assert fisher_bound(small, large) == pytest.approx(1 - 0.17)


def test_momentum_within_buckets_is_found_and_its_absence_is_not():
    rng = np.random.default_rng(4)
    middle_N = rng.uniform(0.2, 0.8, 20_000)
    first_N = rng.uniform(-0.2, 0.2, 20_000)
    other_N = rng.uniform(-0.2, 0.2, 20_000)
    runs = [draw(rng, middle_N - first_N, 200), draw(rng, middle_N, 200)]
    following = momentum(*runs, draw(rng, middle_N + first_N, 200))
    unrelated = momentum(*runs, draw(rng, middle_N + other_N, 200))
    inner = slice(3, 7)
    assert all(bucket.pearson > 0.5 for bucket in following[inner])
    assert all(bucket.spearman > 0.5 for bucket in following[inner])
    # The middle size's error enters both differences and lowers the correlation a little.
    assert all(-0.4 < bucket.pearson < 0.05 for bucket in unrelated[inner])


def test_momentum_leaves_out_instances_that_are_always_right():
    middle = np.ones((6, 10), bool)
    middle[:3, 7:] = False  # accuracy 0.7, on an edge
    found = momentum(middle, middle, middle)
    assert [bucket.count for bucket in found] == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0]
    assert np.isnan(found[7].pearson)


@pytest.mark.parametrize("paired", [False, True])
def test_threshold_bias_is_that_of_samples_drawn_one_by_one(paired):
    rng, draws = np.random.default_rng(5), 30
    small_N = rng.beta(2, 1, 500)
    large_N = np.where(rng.random(500) < 0.2, small_N * 0.3, small_N**0.7)
    runs = draw(rng, small_N, 3, 2), draw(rng, large_N, 3, 2)
    found = threshold_bias(*runs, np.random.default_rng(1), draws, paired)
    rng, gained = np.random.default_rng(1), []
    for _ in range(draws):
        curves = []
        for _ in range(2):
            ours, theirs = rng.integers(3, size=(2, 3))
            sample = runs[0][:, ours], runs[1][:, ours if paired else theirs]
            _, discovered, baseline = threshold_curve(*sample, paired)
            curves.append(np.round(500 * (discovered - baseline)))
        chosen = curves[1][np.argmax(curves[0])]
        gained.append((curves[1].max() - chosen, chosen))
    excess, mean = np.mean(gained, axis=0)
    assert found == pytest.approx(excess / mean)
