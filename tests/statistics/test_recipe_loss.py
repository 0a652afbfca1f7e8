"""What a recipe costs by size and tokens: known exponents, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import studies_of_budgets as made
from tlc_jax.statistics.recipe_loss import fit_recipe


def points_of(params, tokens):
    return 2 * (params / 1e6) ** -0.6 * (tokens / params / 100) ** 0.15


def simulated(rng, noise, **design):
    runs, _ = made.made_runs(rng, **design)
    points_N = points_of(runs.params_N, runs.tokens_N) + rng.normal(0, noise, len(runs))
    return runs.params_N, runs.tokens_N, points_N


def test_known_exponents_are_found():
    rng = np.random.default_rng(0)
    law = fit_recipe(*simulated(rng, 0.01), rng)
    assert law.theta_3[1:] == pytest.approx([-0.6, 0.15], abs=0.05)
    expected, low, high = law.points(2e7, 4e9)
    assert expected == pytest.approx(points_of(2e7, 4e9), abs=0.05)
    assert 0 <= low < high


def test_gains_by_luck_count_and_nothing_is_negative():
    rng = np.random.default_rng(1)
    params_N, tokens_N, points_N = simulated(rng, 0.5)
    points_N -= points_N.mean()
    expected, low, _ = fit_recipe(params_N, tokens_N, points_N, rng).points(3e7, 1e9)
    assert 0 <= low <= expected < 0.5


def test_intervals_hold_the_truth():
    rng, hits = np.random.default_rng(2), []
    for _ in range(12):
        law = fit_recipe(*simulated(rng, 0.3, seeds=3), rng, draws=60)
        _, low, high = law.points(1e7, 2e9)
        hits.append(low <= points_of(1e7, 2e9) <= high)
    assert sum(hits) >= 8


def test_one_budget_leaves_the_other_exponent_near_zero():
    rng = np.random.default_rng(3)
    runs, _ = made.made_runs(rng, budgets=(400,))
    tokens_N = 100 * runs.params_N
    points_N = points_of(runs.params_N, tokens_N)
    law = fit_recipe(runs.params_N, tokens_N, points_N, rng)
    assert law.theta_3[1] == pytest.approx(-0.6, abs=0.05)
    assert law.theta_3[2] == pytest.approx(0, abs=0.05)


def test_too_little():
    rng = np.random.default_rng(4)
    assert "three sizes" in fit_recipe(*simulated(rng, 0.1, sizes=made.SIZES[:2]), rng)
    few = simulated(rng, 0.1, sizes=made.SIZES[:3], budgets=(400,), seeds=1)
    assert "more than 3 runs" in fit_recipe(*few, rng)
