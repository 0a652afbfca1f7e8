"""The critical batch size from steps to a loss."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.batch_size import critical_batch_size


def steps_of(sizes, seeds, spread, rng):
    """Steps at a critical batch size of 64 and 500 steps at the least."""
    return {size: 500 * (1 + 64 / size) * np.exp(spread * rng.normal(size=seeds)) for size in sizes}


def fit(steps):
    steps = {size: list(runs) for size, runs in steps.items()}
    return critical_batch_size(steps, np.random.default_rng(1), 200)


def test_the_coefficients_of_a_known_law() -> None:
    found = fit(steps_of((8, 32, 128), 1, 0.0, np.random.default_rng(0)))
    assert found.critical == pytest.approx(64, rel=1e-3)
    assert found.steps == pytest.approx(500, rel=1e-3)
    assert found.units == pytest.approx(32_000, rel=1e-3)
    assert found.interval is None


def test_an_interval_over_seeds_holds_the_truth() -> None:
    inside = 0
    for draw in range(20):
        found = fit(steps_of((8, 16, 64, 256), 5, 0.05, np.random.default_rng(draw)))
        assert found.critical == pytest.approx(64, rel=0.25)
        inside += found.interval[0] <= 64 <= found.interval[1]
    assert inside >= 16


def test_a_run_that_went_wrong_moves_the_fit_little() -> None:
    steps = steps_of((8, 16, 64, 256), 3, 0.01, np.random.default_rng(0))
    steps[64][0] *= 5
    assert fit(steps).critical == pytest.approx(64, rel=0.1)


def test_a_critical_size_out_of_sight() -> None:
    assert fit({8: [100], 16: [100], 32: [100]}).critical == 0
    beyond = fit({8: [400], 16: [200], 32: [100]})
    assert beyond.critical == math.inf
    assert beyond.steps == 0
    assert beyond.units == pytest.approx(3200)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ({8: [10], 16: [5]}, "at least 3 batch sizes, and there are 2"),
        ({8: [10], 16: [5], 32: []}, "each batch size needs runs"),
        ({8: [10], 16: [5], 32: [0]}, "must be above 0"),
    ],
)
def test_runs_that_say_too_little_are_refused(steps, says) -> None:
    with pytest.raises(InputError, match=says):
        fit(steps)
