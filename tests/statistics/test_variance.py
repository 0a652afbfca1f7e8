"""The variance decomposition: identities, unbiasedness in simulations, and conditional curves."""

from __future__ import annotations

import numpy as np
import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.variance import decompose, disagreements, self_check, variance_given_bias


def nested(rng, instances, shape, *, pretraining, finetuning):
    """Correctness with known variances, and these: accuracies vary by seed in two steps.

    A pretrained model has the accuracy 0.7 plus or minus `pretraining`, each of its finetunings
    that plus or minus `finetuning`, and each run is right with the resulting probability.
    """
    seeds, runs, *checkpoints = shape
    of_seed = 0.7 + pretraining * rng.choice([-1, 1], (instances, seeds, 1))
    of_run = of_seed + finetuning * rng.choice([-1, 1], (instances, seeds, runs))
    if not checkpoints:
        return rng.random(of_run.shape) < of_run
    return rng.random((*of_run.shape, *checkpoints)) < of_run[..., None]


def test_decomposition_by_hand():
    # Two pretrained models of two finetunings: right in (1, 1) and (1, 0).
    # Sample variances within: 0 and 1/2, so the finetuning variance is 1/4. Means 1 and 1/2 have
    # the sample variance 1/8; their mean error variance is (0 + 1/4) / 2 = 1/8: none is left.
    found = decompose(np.array([[[1, 1], [1, 0]]]))
    np.testing.assert_allclose(found.variances[:, 0], [0.0, 0.25])
    np.testing.assert_allclose(found.loss, [0.25])
    np.testing.assert_allclose(found.bias_squared, [0.0])


@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (10, 5)])
def test_identities_are_exact(shape):
    rng = np.random.default_rng(0)
    correct = nested(rng, 500, shape, pretraining=0.2, finetuning=0.1)
    check = self_check(correct, decompose(correct))
    assert max(map(abs, check.values())) < 1e-12


def test_disagreements_are_those_of_all_pairs():
    correct = np.random.default_rng(1).random((7, 3, 4)) < 0.6
    within, across = [], []
    for i in range(7):
        for p in range(3):
            for q in range(3):
                for f in range(4):
                    for g in range(4):
                        differ = correct[i, p, f] != correct[i, q, g]
                        if p < q:
                            across.append(differ)
                        elif p == q and f < g:
                            within.append(differ)
    found = disagreements(correct)
    assert found == pytest.approx({"within": np.mean(within), "across": np.mean(across)})


@pytest.mark.parametrize(
    ("pretraining", "finetuning"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.2, 0.1), (0.1, 0.2)]
)
def test_estimates_are_unbiased(pretraining, finetuning):
    rng = np.random.default_rng(2)
    correct = nested(rng, 200_000, (3, 2), pretraining=pretraining, finetuning=finetuning)
    found = decompose(correct)
    # What single runs add to their accuracy belongs to the finetuning level.
    noise = 0.7 * 0.3 - pretraining**2 - finetuning**2
    truths = (pretraining**2, finetuning**2 + noise, 0.3**2)
    for estimate, truth in zip([*found.variances, found.bias_squared], truths, strict=True):
        error = 4 * estimate.std() / np.sqrt(len(estimate))
        assert estimate.mean() == pytest.approx(truth, abs=error)


def test_three_levels_are_unbiased():
    rng = np.random.default_rng(3)
    correct = nested(rng, 100_000, (3, 2, 4), pretraining=0.2, finetuning=0.1)
    found = decompose(correct)
    truths = (0.2**2, 0.1**2, 0.7 * 0.3 - 0.2**2 - 0.1**2, 0.3**2)
    for estimate, truth in zip([*found.variances, found.bias_squared], truths, strict=True):
        error = 4 * estimate.std() / np.sqrt(len(estimate))
        assert estimate.mean() == pytest.approx(truth, abs=error)


def test_naive_variance_of_means_would_be_biased():
    """Guards the subtraction: without it, single runs look like pretraining variance."""
    rng = np.random.default_rng(4)
    correct = nested(rng, 100_000, (4, 2), pretraining=0.0, finetuning=0.0)
    naive = correct.mean(2).var(1, ddof=1).mean()
    assert naive > 0.1
    assert decompose(correct).variances[0].mean() == pytest.approx(0.0, abs=0.002)


def test_missing_runs_change_no_expectation():
    rng = np.random.default_rng(5)
    correct = nested(rng, 200_000, (4, 4), pretraining=0.2, finetuning=0.1).astype(float)
    correct[:, 0, 2:] = np.nan
    correct[:, 3, 1:] = np.nan  # one finetuning left: no variance within, still a mean
    found = decompose(correct[:, :3])
    for estimate, truth in zip(found.variances, (0.04, 0.01 + 0.21 - 0.05), strict=True):
        error = 4 * estimate.std() / np.sqrt(len(estimate))
        assert estimate.mean() == pytest.approx(truth, abs=error)


def test_probabilities_decompose_as_squared_loss():
    values = np.random.default_rng(6).random((50, 3, 3))
    found = decompose(values)
    np.testing.assert_allclose(found.loss, ((1 - values) ** 2).mean((1, 2)))
    np.testing.assert_allclose(found.loss, found.bias_squared + found.variances.sum(0))


def test_one_seed_of_a_level_is_refused():
    with pytest.raises(InputError, match="at least two seeds of each level"):
        decompose(np.ones((4, 1, 5), bool))
    with pytest.raises(InputError, match="at least two seeds of each level"):
        decompose(np.ones((4, 5, 1), bool))


def test_curve_given_bias_follows_the_truth():
    rng = np.random.default_rng(7)
    accuracy_N = rng.random(30_000)
    correct = rng.random((30_000, 5, 5)) < accuracy_N[:, None, None]
    found = decompose(correct)
    grid = np.linspace(0.05, 0.95, 10)
    curve = variance_given_bias(found, 1, grid)
    # Without variance of accuracy, single runs have the variance a (1 - a) where bias is 1 - a.
    # Estimated bias squared has an error, which flattens the curve a little.
    truth = np.sqrt(grid) * (1 - np.sqrt(grid))
    assert np.abs(curve.mean - truth).max() < 0.06
    assert (curve.std < 0.03).all()
