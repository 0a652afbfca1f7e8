"""The scaling law: known coefficients, honest intervals, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.helpers import studies_of_budgets as made
from tlc_jax.core.errors import InputError
from tlc_jax.statistics import scaling_law
from tlc_jax.statistics.best_size import Option, back_test, best_sizes, grid_of
from tlc_jax.statistics.scaling_law import Runs, fit, interval


def options():
    return [
        Option(f"{layers}x{hidden}", inner, total, made.speed_of(inner))
        for layers, hidden in made.SIZES
        for inner, total in [made.params_of(layers, hidden)]
    ]


@pytest.fixture(scope="module")
def law():
    rng = np.random.default_rng(0)
    return fit(made.made_runs(rng, seeds=3)[0], rng)


def test_known_coefficients_are_found():
    rng = np.random.default_rng(0)
    runs, _ = made.made_runs(rng, budgets=(50, 200, 800, 3200), noise=1e-5)
    found = fit(runs, rng, draws=20).coefficients
    assert found["E"] == pytest.approx(made.FLOOR, abs=0.02)
    assert found["alpha"] == pytest.approx(made.ALPHA, abs=0.01)
    assert found["beta"] == pytest.approx(made.BETA, abs=0.01)
    assert found["A"] == pytest.approx(made.FIRST * 1e6**made.ALPHA, rel=0.1)
    assert found["B"] == pytest.approx(made.SECOND * 1e8**made.BETA, rel=0.1)


def test_fit_is_the_minimum_that_another_optimizer_finds():
    rng = np.random.default_rng(1)
    runs, _ = made.made_runs(rng)
    x_N, y_N = np.log(runs.params_N / 1e6), np.log(runs.tokens_N / 1e8)
    logs_N, noise = np.log(runs.losses_N), 0.01
    prior_5 = scaling_law._prior(logs_N)

    def cost(theta_5):
        errors_N = (np.log(scaling_law._terms(theta_5[None], x_N, y_N).sum(0))[0] - logs_N) / noise
        size_N = np.abs(errors_N)
        huber_N = np.where(size_N < 1.345, size_N**2 / 2, 1.345 * (size_N - 1.345 / 2))
        apart_5 = (theta_5 - prior_5) / scaling_law._PRIOR_DEVIATION
        return huber_N.sum() + (apart_5**2).sum() / 2

    found = minimize(cost, prior_5, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-14})
    ours, costs = scaling_law._minimize(prior_5[None], x_N, y_N, logs_N[None], prior_5[None], noise)
    assert costs[0] == pytest.approx(cost(ours[0]))
    assert costs[0] <= found.fun + 1e-4


def test_one_failed_run_hardly_moves_the_fit():
    rng = np.random.default_rng(2)
    runs, _ = made.made_runs(rng)
    losses_N = runs.losses_N.copy()
    losses_N[5] += 2.0
    at = np.array([4e6]), np.array([2e8])
    losses = [
        fit(Runs(runs.params_N, runs.tokens_N, one), np.random.default_rng(0), 20).loss(*at)[0]
        for one in (runs.losses_N, losses_N)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=0.02)


def covered(studies, seed=0, **design):
    """Shares of studies whose intervals hold the loss, that of a run, and the best size."""
    rng, hits = np.random.default_rng(seed), []
    grid_G, tokens_G, total_G = grid_of(options(), 4000.0)
    truth_G = made.loss_of(grid_G, tokens_G)
    place = int(truth_G.argmin())
    at = grid_G[[place]], tokens_G[[place]]
    for _ in range(studies):
        law = fit(made.made_runs(rng, **design)[0], rng, 120)
        of_law, of_run = interval(law.draws(*at)[:, 0]), interval(law.draws(*at, run=True)[:, 0])
        bests = interval(total_G[law.draws(grid_G, tokens_G).argmin(1)])
        run = truth_G[place] * np.exp(rng.normal(0, design.get("noise", made.NOISE)))
        hits.append(
            [
                low <= value <= high
                for (low, high), value in (
                    (of_law, truth_G[place]), (of_run, run), (bests, total_G[place])
                )
            ]
        )  # fmt: skip
    return np.mean(hits, axis=0)


def test_intervals_hold_the_truth_as_often_as_they_say():
    # Ten times the largest budget. With 40 studies a share of 0.9 deviates by 0.05.
    assert covered(40).min() >= 0.77


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [
        {"sizes": made.SIZES[:3], "budgets": (100, 400), "seeds": 1},
        {"sizes": made.SIZES[:3], "budgets": (100, 400), "seeds": 2},
        {"seeds": 1},
        {"seeds": 2},
        {"seeds": 4},
        {"seeds": 2, "noise": 0.015},
    ],
    ids=str,
)
def test_calibration(design):
    found = covered(400, **design)
    print(design, found)
    assert found.min() >= 0.84


def test_best_size_and_how_flat_it_is(law):
    (found,) = best_sizes(law, options(), [4000.0])
    grid_G, tokens_G, total_G = grid_of(options(), 4000.0)
    truth_G = made.loss_of(grid_G, tokens_G)
    assert found.option.name == "4x256"
    assert found.tokens == pytest.approx(4000 * found.option.speed)
    assert found.loss == pytest.approx(made.loss_of(found.option.params, found.tokens), abs=0.05)
    assert found.run_high - found.run_low > found.high - found.low > 0
    flat_G = total_G[truth_G <= truth_G.min() + 0.01]
    assert found.flat_low == pytest.approx(flat_G[0], rel=0.3)
    assert found.flat_high == pytest.approx(flat_G[-1], rel=0.3)
    assert found.flat_low < found.best < found.flat_high
    assert found.beyond == pytest.approx(10, rel=0.01)
    assert not found.edge


def test_edge_of_the_sizes_is_named(law):
    small, large = options()[:1], options()[-2:]
    assert best_sizes(law, [*small, options()[1]], [4000.0])[0].edge == "largest"
    assert best_sizes(law, large, [100.0])[0].edge == "smallest"


def test_no_forecast_beyond_tenfold(law):
    (found,) = best_sizes(law, options(), [8000.0])
    assert found.option is None
    assert "20 times the largest budget" in found.refused
    far = Option("40x1280", made.params_of(40, 1280)[0], 1e9, 1e3)
    with pytest.raises(InputError, match="within tenfold"):
        best_sizes(law, [far], [400.0])
    # Larger than the measured ones: what counts is compute.
    size = 2 * law.runs.params_N.max()
    most = law.runs.most_tokens()[1][-1]
    assert law.runs.beyond(np.array([size]), np.array([most]))[0] == pytest.approx(2)


def test_no_forecast_where_the_interval_is_wider_than_what_was_measured():
    rng = np.random.default_rng(3)
    runs, _ = made.made_runs(rng, made.SIZES[:3], (200, 400), seeds=1, noise=0.1)
    found = best_sizes(fit(runs, rng), options()[:3], [4000.0])
    assert "wider than" in found[0].refused


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        (lambda params, tokens: 3 + (tokens / 1e8) ** -0.3, "over the parameters"),
        (lambda params, tokens: 3 + (params / 1e6) ** -0.3, "over the tokens"),
    ],
)
def test_no_curvature(loss, of):
    rng, found = np.random.default_rng(4), []
    for _ in range(12):
        found.append(fit(made.made_runs(rng, loss=loss)[0], rng, 10).degenerate())
    assert sum(of in text for text in found) >= 9


def test_curvature_of_a_law(law):
    assert law.degenerate() == ""


@pytest.mark.parametrize(
    ("design", "says"),
    [
        ({"sizes": made.SIZES[:2]}, "three sizes; there are 2"),
        ({"budgets": (400,)}, "two budgets; each size has one"),
    ],
)
def test_too_few_sizes_and_budgets(design, says):
    rng = np.random.default_rng(5)
    with pytest.raises(InputError, match=says):
        fit(made.made_runs(rng, **design)[0], rng)


def test_too_few_runs():
    rng = np.random.default_rng(5)
    runs = made.made_runs(rng, made.SIZES[:3], (100, 400), seeds=1)[0]
    with pytest.raises(InputError, match="6 runs or more"):
        fit(runs.take(np.arange(6) < 5), rng)


def test_back_test():
    rng = np.random.default_rng(6)
    runs, seconds_N = made.made_runs(rng)
    found = back_test(runs, seconds_N, 0.5, rng)
    assert (found.fitted, len(found.errors_N)) == (16, 8)
    assert np.abs(found.errors_N).max() < 0.1
    assert found.inside_N.sum() >= 6
    late_N = seconds_N == 400
    means = {p: runs.losses_N[late_N & (runs.params_N == p)].mean() for p in set(runs.params_N)}
    assert found.best == min(means, key=means.get)
    assert found.lost == pytest.approx(means[found.chosen] - means[found.best])


def test_largest_share_holds_the_largest_budget_out():
    rng = np.random.default_rng(6)
    runs, seconds_N = made.made_runs(rng, seeds=1)
    assert len(back_test(runs, seconds_N, 0.9, rng).errors_N) == len(made.SIZES)


def test_short_runs_of_a_size_that_has_no_long_ones_are_fitted():
    rng = np.random.default_rng(6)
    runs, seconds_N = made.made_runs(rng, seeds=1)
    smallest_N = runs.params_N == runs.params_N.min()
    kept_N = ~smallest_N | (seconds_N == 100)
    found = back_test(runs.take(kept_N), seconds_N[kept_N], 0.5, rng)
    assert found.fitted == np.sum(kept_N & (seconds_N <= 200))
    assert runs.params_N.min() not in found.held_out.params_N


def test_back_test_finds_that_a_law_broke():
    rng = np.random.default_rng(7)
    runs, seconds_N = made.made_runs(rng)
    broken = Runs(
        runs.params_N, runs.tokens_N, runs.losses_N + np.where(seconds_N == 400, 0.5, 0.0)
    )
    found = back_test(broken, seconds_N, 0.5, rng)
    assert found.errors_N.mean() == pytest.approx(-0.5, abs=0.1)
    assert not found.inside_N.any()


def test_back_test_needs_a_third_budget():
    rng = np.random.default_rng(8)
    runs, seconds_N = made.made_runs(rng, budgets=(100, 400))
    found = back_test(runs, seconds_N, 0.5, rng)
    assert "two budgets" in found.refused
    assert len(found.errors_N) == 0
