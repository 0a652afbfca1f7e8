"""Where errors come from: bias, and the variance of each level of seeds (Zhong et al. 2021).

The loss of a run on an instance is (1 - v)^2, with v its correctness (0 or 1) or the probability of
the right class. Its expectation is bias squared plus one variance per level: pretraining seeds,
finetuning seeds within a pretrained model, and checkpoints within a finetuning where there are any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import linalg, optimize

from tlc_jax.core.errors import InputError

_CHUNK = 100_000  # instances at once: float64 copies of a million x 50 runs would need gigabytes


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """Unbiased estimates by instance; any of them may be negative.

    Attributes:
      loss: mean loss, float64 [N].
      bias_squared: loss minus all variances, float64 [N].
      variances: float64 [levels, N], from the outermost level (pretraining) inwards.
    """

    loss: np.ndarray
    bias_squared: np.ndarray
    variances: np.ndarray

    def means(self) -> dict[str, float]:
        """Averages over instances."""
        names = ("pretraining_variance", "finetuning_variance", "checkpoint_variance")
        named = zip(names, self.variances.mean(1).tolist(), strict=False)
        return {
            "loss": float(self.loss.mean()),
            "bias_squared": float(self.bias_squared.mean()),
            **dict(named),
        }


def decompose(values: np.ndarray) -> Decomposition:
    """Bias squared and the variance of every level, each without bias (Theorem 2, equations 57-70).

    At a level with n children per parent, the sample variance of the children's means exceeds the
    variance of their true means by the mean error variance of these means; that is subtracted. The
    error variance of a parent's mean is that sample variance over n. (Equation 63 is printed with
    n - 1 and a sum over another index; this is what the paper's proof and code do.)

    Args:
      values: [N, P, F] or [N, P, F, E]: correctness or the probability of the right class. NaN
        marks runs that do not exist, so trees need not be balanced.

    Raises:
      InputError: a level has fewer than two children everywhere.
    """
    values = np.asarray(values)
    if values.ndim < 3:
        raise InputError(f"variances need [instance, pretraining, finetuning], not {values.shape}")
    if min(values.shape[1:]) < 2:
        raise InputError(
            f"variances need at least two seeds of each level, not {values.shape[1:]}: "
            "train more pretraining or finetuning seeds"
        )
    parts = [
        _decompose(values[start : start + _CHUNK].astype(np.float64))
        for start in range(0, len(values), _CHUNK)
    ]
    loss_N = np.concatenate([part[0] for part in parts])
    variances_LxN = np.concatenate([part[1] for part in parts], axis=1)
    return Decomposition(loss_N, loss_N - variances_LxN.sum(0), variances_LxN)


def _decompose(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses [N] and variances [levels, N]."""
    ragged = bool(np.isnan(values).any())
    mean: Callable[..., np.ndarray] = np.nanmean if ragged else np.mean
    variance: Callable[..., np.ndarray] = np.nanvar if ragged else np.var
    # The mean of means weighs every seed alike, however many children it has.
    loss = (1.0 - values) ** 2
    while loss.ndim > 1:
        loss = mean(loss, axis=-1)
    means, error_variance = values, np.zeros_like(values)
    variances: list[np.ndarray] = []
    while means.ndim > 1:
        children = (~np.isnan(means)).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.where(children > 1, variance(means, axis=-1, ddof=1), np.nan)
            found = spread - mean(error_variance, axis=-1)
            means, error_variance = mean(means, axis=-1), spread / children
        while found.ndim > 1:
            found = np.nanmean(found, axis=-1) if ragged else found.mean(-1)
        variances.insert(0, found)
    return loss, np.stack(variances)


def disagreements(correct: np.ndarray) -> dict[str, float]:
    """How often two runs disagree, counted without any variance.

    Args:
      correct: bool [N, P, F].

    Returns:
      "within": between two finetunings of one pretrained model; "across": between finetunings of
      two pretrained models. Means over pairs and instances.
    """
    correct = np.asarray(correct)
    _, seeds, runs = correct.shape
    right = correct.sum(2, dtype=np.int64)
    wrong = runs - right
    within = (right * wrong).sum() / (right.size * runs * (runs - 1) / 2)
    pairs = right.sum(1) * wrong.sum(1) - (right * wrong).sum(1)
    across = pairs.sum() / (len(correct) * seeds * (seeds - 1) / 2 * runs**2)
    return {"within": float(within), "across": float(across)}


def self_check(correct: np.ndarray, found: Decomposition) -> dict[str, float]:
    """Three identities that hold exactly; the differences of their two sides.

    Disagreement within a pretrained model is twice the finetuning variance; disagreement across
    pretrained models is twice the sum of both variances; accuracy is one minus bias squared and
    both variances.

    Args:
      correct: bool [N, P, F].
      found: its decomposition.
    """
    means, counted = found.means(), disagreements(correct)
    pretraining, finetuning = means["pretraining_variance"], means["finetuning_variance"]
    accuracy = float(np.mean(correct, dtype=np.float64))
    return {
        "within": counted["within"] - 2 * finetuning,
        "across": counted["across"] - 2 * (pretraining + finetuning),
        "accuracy": accuracy - (1 - means["bias_squared"] - pretraining - finetuning),
    }


@dataclasses.dataclass(frozen=True)
class Curve:
    """A function of bias squared with its standard deviation, on a grid.

    Attributes:
      bias_squared, mean, std: float64 [grid].
    """

    bias_squared: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def variance_given_bias(
    found: Decomposition, level: int, grid: np.ndarray, bins: int = 50
) -> Curve:
    """The expected variance of a level given bias squared, by Gaussian process regression.

    The paper fits a Gaussian process to at most 10,000 points with fixed settings and no noise
    term. Here instances are averaged in bins of bias squared first and the error of each mean is
    part of the noise of its point. Few runs make bias squared jump in steps, which bins show as a
    zigzag, so more noise is fitted. It, the length and the height of the squared-exponential
    kernel maximize the marginal likelihood.

    Args:
      found: the decomposition of many instances.
      level: 0 for pretraining, 1 for finetuning.
      grid: float [grid], where the curve is wanted.
      bins: number of bins over [0, 1]; bins of fewer than two instances are left out.

    Raises:
      InputError: fewer than three bins have instances.
    """
    bias_N, variance_N = np.clip(found.bias_squared, 0.0, 1.0), found.variances[level]
    bin_N = np.minimum((bias_N * bins).astype(int), bins - 1)
    count = np.bincount(bin_N, minlength=bins)
    used = count > 1
    if used.sum() < 3:
        raise InputError("a curve over bias squared needs instances in at least three of its bins")
    count = count[used]
    x = np.bincount(bin_N, bias_N, bins)[used] / count
    y = np.bincount(bin_N, variance_N, bins)[used] / count
    squares = np.bincount(bin_N, variance_N**2, bins)[used] / count
    noise = np.maximum(squares - y**2, 1e-10) / (count - 1) + 1e-8
    center = float(np.average(y, weights=count))

    def kernel(a: np.ndarray, b: np.ndarray, height: float, length: float) -> np.ndarray:
        return height**2 * np.exp(-0.5 * ((a[:, None] - b[None, :]) / length) ** 2)

    def covariance(logarithms: np.ndarray) -> np.ndarray:
        height, length, more_noise = np.exp(logarithms)
        return kernel(x, x, height, length) + np.diag(noise + more_noise**2)

    def minus_log_likelihood(logarithms: np.ndarray) -> float:
        factor = linalg.cholesky(covariance(logarithms), lower=True)
        whitened = linalg.solve_triangular(factor, y - center, lower=True)
        return float(0.5 * whitened @ whitened + np.log(np.diag(factor)).sum())

    start = np.log([max(float(np.std(y)), 1e-3), 0.2, 1e-2])
    limits = np.log([(1e-4, 1.0), (0.02, 2.0), (1e-5, 1.0)])
    fitted = optimize.minimize(minus_log_likelihood, start, bounds=limits).x
    factor = linalg.cho_factor(covariance(fitted), lower=True)
    cross = kernel(grid, x, *np.exp(fitted[:2]))
    mean = center + cross @ linalg.cho_solve(factor, y - center)
    explained = np.einsum("gb,bg->g", cross, linalg.cho_solve(factor, cross.T))
    std = np.sqrt(np.maximum(np.exp(2 * fitted[0]) - explained, 0.0))
    return Curve(np.asarray(grid, np.float64), mean, std)
