"""The loss of a finished run as a law of its parameters and tokens, fitted with its uncertainty.

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al., 2022, approach 3). The fit minimizes the
Huber loss of log residuals in units of their own deviation. Few short runs leave directions open,
so each of the five numbers also has a weak prior, wide enough for every published law.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.stats import f as f_distribution

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.curves import LOSS_MARGIN

DRAWS = 400
LEVEL = 0.9  # of all intervals
_QUANTILES = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
SAME = 1.1  # ratio up to which two measured amounts are one
_APART = 1.5  # ratio of tokens from which on two runs of one size had two budgets
_HUBER = 1.345  # deviations from which on a residual counts linearly: 95 % efficient if all normal
_NUMBERS = 5
_NOTHING = -30.0  # log of a term that is left out
# Of log E and the logs of both terms, as shares of the lowest loss, and of the logs of both
# exponents: means and deviations. Two deviations of an exponent are 0.09 to 1.4.
_PRIOR = np.array([math.log(0.6), math.log(0.2), math.log(0.35), math.log(0.2), math.log(0.35)])
_PRIOR_DEVIATION = np.array([0.5, 1.5, 0.7, 1.5, 0.7])


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Finished training runs, whose learning rates have decayed.

    Attributes:
      params_N: parameters without embeddings.
      tokens_N: training tokens.
      losses_N: validation losses at the end, in nats.
    """

    params_N: np.ndarray
    tokens_N: np.ndarray
    losses_N: np.ndarray

    def __len__(self) -> int:
        return len(self.params_N)

    def take(self, chosen_N: np.ndarray) -> Runs:
        """The runs where a mask is true."""
        return Runs(self.params_N[chosen_N], self.tokens_N[chosen_N], self.losses_N[chosen_N])

    def most_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """The sizes in ascending order, and the most tokens that a run of each was trained on."""
        sizes_S = np.unique(self.params_N)
        return sizes_S, np.array([self.tokens_N[self.params_N == n].max() for n in sizes_S])

    def beyond(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """How many times larger budgets are than the largest ones that were measured.

        The largest budget of a size is its most tokens; between sizes it is interpolated, and
        beyond the largest size it falls as one over the parameters, at equal compute.
        """
        sizes_S, most_S = self.most_tokens()
        most = np.exp(np.interp(np.log(params), np.log(sizes_S), np.log(most_S)))
        return tokens / most * np.maximum(1.0, params / sizes_S[-1])

    def require(self) -> None:
        """Refuses runs that no law can be fitted to.

        Raises:
          InputError: fewer than three sizes, two budgets, or six runs.
        """
        sizes = len(np.unique(self.params_N))
        if sizes < 3:
            raise InputError(f"a forecast needs runs of three sizes; there are {sizes}")
        ratios = [
            self.tokens_N[self.params_N == size].max() / self.tokens_N[self.params_N == size].min()
            for size in np.unique(self.params_N)
        ]
        if max(ratios) < _APART:
            raise InputError(
                "a forecast needs runs of two budgets; each size has one: train the sizes with "
                "budget.branches, or again for a quarter of the budget (points along a curve are "
                "no substitute, because their learning rates have not decayed)"
            )
        if len(self) <= _NUMBERS:
            raise InputError(
                f"a forecast needs {_NUMBERS + 1} runs or more, because the law has {_NUMBERS} "
                f"numbers; there are {len(self)}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """A fitted law and draws of it, of which the first axis is the draw.

    Attributes:
      runs: the runs that it was fitted to.
      center: means of the logs of parameters and tokens.
      theta_5: logs of E, of the term of parameters at the center, of alpha, of the term of tokens
        at the center, and of beta.
      theta_Bx5: the same of each draw.
      noise: deviation of the log loss of a run around the law.
      luck_B: luck of one more run in each draw, a difference of log losses.
    """

    runs: Runs
    center: tuple[float, float]
    theta_5: np.ndarray
    theta_Bx5: np.ndarray
    noise: float
    luck_B: np.ndarray

    def loss(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Expected losses [N]."""
        return self._losses(self.theta_5[None], params, tokens)[0]

    def draws(self, params: np.ndarray, tokens: np.ndarray, *, run: bool = False) -> np.ndarray:
        """Losses [B, N] in each draw: expected ones, or with the luck of one run."""
        losses_BxN = self._losses(self.theta_Bx5, params, tokens)
        return losses_BxN * np.exp(self.luck_B)[:, None] if run else losses_BxN

    def _losses(self, theta: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        x_N, y_N = np.log(params) - self.center[0], np.log(tokens) - self.center[1]
        return _terms(theta, x_N, y_N).sum(0)

    @property
    def coefficients(self) -> dict[str, float]:
        """E, A, alpha, B and beta."""
        floor, first, alpha, second, beta = np.exp(self.theta_5).tolist()
        return {
            "E": floor,
            "A": first * math.exp(alpha * self.center[0]),
            "alpha": alpha,
            "B": second * math.exp(beta * self.center[1]),
            "beta": beta,
        }

    def degenerate(self) -> str:
        """Says why the runs show no curvature; empty where they do.

        Both terms of the law are needed: without one of them the residuals have to grow beyond the
        95 % quantile of the F distribution. And the term has to fall by 0.01 nats, from the
        smallest to the largest size or from the fewest to the most tokens.
        """
        runs, middle = self.runs, np.exp(np.array(self.center))
        sizes_2 = np.array([runs.params_N.min(), runs.params_N.max()])
        tokens_2 = np.array([runs.tokens_N.min(), runs.tokens_N.max()])
        least = f_distribution.ppf(0.95, 2, len(runs) - _NUMBERS)
        for name, term, params, tokens in (
            ("parameters", 1, sizes_2, np.full(2, middle[1])),
            ("tokens", 3, np.full(2, middle[0]), tokens_2),
        ):
            fall, growth = float(-np.diff(self.loss(params, tokens))[0]), self._growth_without(term)
            if fall < LOSS_MARGIN or growth < least:
                return (
                    f"no curvature: over the {name} measured the loss falls by {fall:.3f} nats "
                    f"(at least {LOSS_MARGIN} needed), and F of that term is {growth:.2g} (at "
                    f"least {least:.2g} needed): use sizes or budgets that lie further apart, or "
                    "more seeds"
                )
        return ""

    def _growth_without(self, term: int) -> float:
        """The F statistic of leaving out one term, by its place in `theta_5`."""
        logs_N = np.log(self.runs.losses_N)
        x_N = np.log(self.runs.params_N) - self.center[0]
        y_N = np.log(self.runs.tokens_N) - self.center[1]
        start_5, prior_5 = self.theta_5.copy(), _prior(logs_N)
        start_5[term] = prior_5[term] = _NOTHING
        without_1x5, _ = _minimize(start_5[None], x_N, y_N, logs_N[None], prior_5[None], self.noise)
        squares = [
            # Cut off, so that a run that failed counts equally in both.
            np.clip((np.log(_terms(theta, x_N, y_N).sum(0)) - logs_N) / self.noise, -30, 30) ** 2
            for theta in (without_1x5, self.theta_5[None])
        ]
        return max(0.0, float(squares[0].sum() - squares[1].sum()) / 2)


def _prior(logs_N: np.ndarray) -> np.ndarray:
    """Means of the priors [5], for log losses [N]."""
    return _PRIOR + np.array([1, 1, 0, 1, 0]) * logs_N.min()


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The interval of `LEVEL` of draws [B]."""
    low, high = np.quantile(draws, _QUANTILES)
    return float(low), float(high)


def fit(runs: Runs, rng: np.random.Generator, draws: int = DRAWS) -> Law:
    """Fits the law and draws from its uncertainty.

    A draw is a bootstrap over runs: it gives every run the residual of a random run, scaled for the
    five fitted numbers and for how uncertain a deviation from few runs is. It also moves each prior
    by its deviation, so that a direction that the runs leave open stays open.

    Raises:
      InputError: too few sizes, budgets or runs.
    """
    runs.require()
    x_N, y_N = np.log(runs.params_N), np.log(runs.tokens_N)
    center = float(x_N.mean()), float(y_N.mean())
    x_N, y_N, logs_N = x_N - center[0], y_N - center[1], np.log(runs.losses_N)
    prior_5 = _prior(logs_N)
    # Several starts: slow and fast falls with parameters and with tokens.
    grid = np.array(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])).reshape(2, -1)
    starts_Sx5 = np.tile(prior_5, (grid.shape[1], 1))
    starts_Sx5[:, [2, 4]] += grid.T * 0.7
    noise = 0.01  # of the loss, to begin with
    for _ in range(4):
        found_Sx5, cost_S = _minimize(starts_Sx5, x_N, y_N, logs_N[None], prior_5[None], noise)
        theta_5 = found_Sx5[np.argmin(cost_S)]
        residuals_N = logs_N - np.log(_terms(theta_5[None], x_N, y_N).sum(0))[0]
        noise = _deviation(residuals_N)
    freedom = len(runs) - _NUMBERS
    pool_N = residuals_N - residuals_N.mean()
    pool_N /= max(1e-12, math.sqrt(float(np.mean(pool_N**2))))
    scale_B = noise * np.sqrt(freedom / rng.chisquare(freedom, draws))
    logs_BxN = logs_N - residuals_N + scale_B[:, None] * rng.choice(pool_N, (draws, len(runs)))
    priors_Bx5 = prior_5 + _PRIOR_DEVIATION * rng.normal(size=(draws, _NUMBERS))
    theta_Bx5, _ = _minimize(np.tile(theta_5, (draws, 1)), x_N, y_N, logs_BxN, priors_Bx5, noise)
    return Law(runs, center, theta_5, theta_Bx5, noise, scale_B * rng.choice(pool_N, draws))


def _deviation(residuals_N: np.ndarray) -> float:
    """Deviation of residuals after five numbers were fitted, with outliers cut off."""
    count = len(residuals_N)
    scale = math.sqrt(count / (count - _NUMBERS))
    if count >= 2 * _NUMBERS:  # fewer have a median of residuals near zero
        most = 2.5 * 1.4826 * float(np.median(np.abs(residuals_N))) * scale
        residuals_N = np.clip(residuals_N, -most, most)
    # Never zero, which would divide: runs without luck exist in tests alone.
    return max(1e-5, scale * math.sqrt(float(np.mean(residuals_N**2))))


def _terms(theta: np.ndarray, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """The three terms of the law [3, B, N] for laws [B, 5] at centered logs [N]."""
    floor, first, alpha, second, beta = (theta[:, [place]] for place in range(_NUMBERS))
    logs = floor + 0 * x_N, first - np.exp(alpha) * x_N, second - np.exp(beta) * y_N
    return np.exp(np.stack(logs))


def _minimize(
    theta: np.ndarray,
    x_N: np.ndarray,
    y_N: np.ndarray,
    logs: np.ndarray,
    prior: np.ndarray,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimizes the Huber loss of many fits at once, by Levenberg and Marquardt's method.

    Args:
      theta: [B, 5] starts.
      x_N, y_N: centered logs of parameters and tokens.
      logs: [B or 1, N] log losses.
      prior: [B or 1, 5] means of the priors.
      noise: unit of residuals.

    Returns:
      The fits [B, 5] and their costs [B].
    """

    def model(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        terms = _terms(theta, x_N, y_N)
        errors = (np.log(terms.sum(0)) - logs) / noise
        size = np.abs(errors)
        huber = np.where(size < _HUBER, size**2 / 2, _HUBER * (size - _HUBER / 2))
        apart = (theta - prior) / _PRIOR_DEVIATION
        return terms, errors, huber.sum(1) + (apart**2).sum(1) / 2

    damping = np.full(len(theta), 1e-2)
    terms, errors, cost = model(theta)
    for _ in range(60):
        alpha, beta = np.exp(theta[:, [2]]), np.exp(theta[:, [4]])
        slopes = [
            terms[0], terms[1], -terms[1] * alpha * x_N, terms[2], -terms[2] * beta * y_N,
        ]  # fmt: skip
        jacobian = np.stack(slopes, -1) / (terms.sum(0) * noise)[..., None]
        weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(errors), 1e-12))
        weighted = jacobian * weight[..., None]
        gradient = np.einsum("bnk,bn->bk", weighted, errors)
        gradient += (theta - prior) / _PRIOR_DEVIATION**2
        hessian = np.einsum("bnk,bnl->bkl", weighted, jacobian) + np.diag(_PRIOR_DEVIATION**-2)
        eye = np.eye(_NUMBERS)
        diagonal = np.einsum("bkk->bk", hessian)[:, :, None] * eye
        step = np.linalg.solve(hessian + damping[:, None, None] * diagonal, -gradient[..., None])
        tried = theta + np.clip(step[..., 0], -1.0, 1.0)
        found = model(tried)
        better = found[2] < cost
        gain = np.where(better, cost - found[2], 0.0)
        theta = np.where(better[:, None], tried, theta)
        damping = np.clip(np.where(better, damping / 4, damping * 6), 1e-9, 1e9)
        terms, errors, cost = model(theta)
        if np.all((gain < 1e-7 * (1 + cost)) & (better | (damping > 1e6))):
            break
    return theta, cost
