"""The accuracy that a recipe costs, by size and by training tokens per parameter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.optimize import least_squares

from tlc_jax.statistics.scaling_law import interval

DRAWS = 200
_NUMBERS = 3
# Deviation of the weak prior of both exponents around zero: what a single budget leaves open stays
# near zero instead of anywhere.
_PRIOR_DEVIATION = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class RecipeLoss:
    """Points of the score lost: exp(c + p log N + q log (D / N)), which is never negative.

    Attributes:
      runs: number of pretraining runs that it was fitted to.
      center: means of log N and of log (D / N).
      theta_3: c at the center, p and q.
      theta_Bx3: the same of each draw.
    """

    runs: int
    center: tuple[float, float]
    theta_3: np.ndarray
    theta_Bx3: np.ndarray

    def points(self, params: float, tokens: float) -> tuple[float, float, float]:
        """The expected points lost, and their interval."""
        at_3 = np.array(
            [1.0, math.log(params) - self.center[0], math.log(tokens / params) - self.center[1]]
        )
        return float(np.exp(self.theta_3 @ at_3)), *interval(np.exp(self.theta_Bx3 @ at_3))


def fit_recipe(
    params_N: np.ndarray,
    tokens_N: np.ndarray,
    points_N: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> RecipeLoss | str:
    """Fits what a recipe costs; a text says why that is not possible.

    The residuals are in points, so that a score that rose by luck counts too. Draws are a bootstrap
    over pretraining runs by their residuals.

    Args:
      params_N: parameters without embeddings of each pretraining run.
      tokens_N: its training tokens.
      points_N: points that its score lost, the mean over its finetunings.
      rng: random numbers of the bootstrap.
      draws: number of draws.
    """
    sizes, count = len(np.unique(params_N)), len(points_N)
    if sizes < 3:
        return f"three sizes with this recipe are needed; there are {sizes}"
    if count <= _NUMBERS:
        return f"more than {_NUMBERS} runs with this recipe are needed; there are {count}"
    x_N, y_N = np.log(params_N), np.log(tokens_N / params_N)
    center = float(x_N.mean()), float(y_N.mean())
    at_Nx3 = np.stack([np.ones(count), x_N - center[0], y_N - center[1]], axis=1)

    def minimize(start_3: np.ndarray, points_N: np.ndarray, noise: float) -> np.ndarray:
        def errors(theta_3: np.ndarray) -> np.ndarray:
            fitted_N = np.exp(np.clip(at_Nx3 @ theta_3, -20, 20))
            return np.append((fitted_N - points_N) / noise, theta_3[1:] / _PRIOR_DEVIATION)

        def slopes(theta_3: np.ndarray) -> np.ndarray:
            fitted_N = np.exp(np.clip(at_Nx3 @ theta_3, -20, 20))
            prior_2x3 = np.eye(_NUMBERS)[1:] / _PRIOR_DEVIATION
            return np.concatenate([at_Nx3 * fitted_N[:, None] / noise, prior_2x3])

        found: np.ndarray = least_squares(errors, start_3, slopes, loss="huber", f_scale=1.345).x
        return found

    theta_3 = np.array([math.log(max(0.05, float(np.median(points_N)))), 0.0, 0.0])
    noise = max(0.05, float(np.std(points_N)))
    for _ in range(3):
        theta_3 = minimize(theta_3, points_N, noise)
        fitted_N = np.exp(at_Nx3 @ theta_3)
        residuals_N = points_N - fitted_N
        noise = max(0.02, math.sqrt(float(np.sum(residuals_N**2)) / (count - _NUMBERS)))
    freedom = count - _NUMBERS
    pool_N = residuals_N - residuals_N.mean()
    pool_N /= max(1e-9, float(pool_N.std()))
    theta_Bx3 = [
        minimize(
            theta_3,
            fitted_N
            + noise * math.sqrt(freedom / rng.chisquare(freedom)) * rng.choice(pool_N, count),
            noise,
        )
        for _ in range(draws)
    ]
    return RecipeLoss(count, center, theta_3, np.array(theta_Bx3))
