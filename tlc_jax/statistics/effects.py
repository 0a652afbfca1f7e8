"""Effects with intervals.

The pretraining run is the unit of replication of a claim about sizes: finetunings of one pretrained
model share its luck, so they are averaged first and never counted as runs of their own. The test
set is a sample too, which all runs share: its part of the error does not fall with more runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # quantiles of Student's t, without the cost of scipy.stats

_MOST_RUNS = 1000  # where even that many would not decide, the effect is too small to matter


@dataclasses.dataclass(frozen=True)
class Effect:
    """An estimated difference or trend.

    Attributes:
      estimate: in the unit of the values; positive where it favors the claim.
      spread: standard deviation of a run's value, pooled over groups; NaN with one run per group.
      run_freedom: degrees of freedom of `spread`; 0 with one run per group.
      runs: runs of the group with the fewest, among those that are compared.
      leverage: sum of the squared weights of the group means.
      share: the same with each squared weight divided by the runs of its group.
      test_error: standard error that more runs would not reduce, because all of them share the test
        set; NaN where it is unknown, and then left out of `error`.
    """

    estimate: float
    spread: float
    run_freedom: int
    runs: int
    leverage: float
    share: float
    test_error: float = math.nan

    @property
    def error(self) -> float:
        """Standard error; NaN with one run per group."""
        return math.hypot(self.spread * math.sqrt(self.share), self._known_test_error)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `error` (Satterthwaite); 0 with one run per group."""
        return float(self._freedom(self.run_freedom, self.share)) if self.run_freedom else 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided confidence interval; infinite with one run per group."""
        if self.run_freedom == 0:
            return -math.inf, math.inf
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.estimate - half, self.estimate + half

    def runs_needed(self, beyond: float = 0.0) -> int | None:
        """Runs per group whose interval would exclude `beyond`, if this estimate were the truth.

        None where the spread is unknown or a thousand would not suffice.
        """
        distance = abs(self.estimate - beyond)
        if not self.run_freedom or self.runs < 2:
            return None
        groups = self.run_freedom / (self.runs - 1)
        runs = np.arange(self.runs, _MOST_RUNS)
        error = np.hypot(self.spread * np.sqrt(self.leverage / runs), self._known_test_error)
        freedom = self._freedom(groups * (runs - 1), self.leverage / runs)
        enough = runs[stdtrit(freedom, 0.975) * error < distance]
        return int(enough[0]) if enough.size else None

    def limited_by_test_set(self, beyond: float = 0.0) -> bool:
        """Whether the test set alone moves the estimate as far as `beyond` in 5 % of draws."""
        return 1.96 * self._known_test_error > abs(self.estimate - beyond)

    @property
    def _known_test_error(self) -> float:
        return 0.0 if math.isnan(self.test_error) else self.test_error

    def _freedom(self, run_freedom: Any, share: Any) -> Any:
        """Satterthwaite's degrees of freedom; numbers or arrays."""
        if not self.spread:
            return np.full_like(share, np.inf)
        # The error of the test set is taken as known, because it is estimated from thousands of
        # instances: only the variance of runs costs degrees of freedom.
        return run_freedom * (1 + self._known_test_error**2 / (self.spread**2 * share)) ** 2


def pretraining_means(scores: Mapping[tuple[int, int], float]) -> dict[int, float]:
    """Means over finetuning seeds, by pretraining seed.

    Args:
      scores: by (pretraining seed, finetuning seed).
    """
    groups: dict[int, list[float]] = {}
    for (pretraining, _), score in scores.items():
        groups.setdefault(pretraining, []).append(score)
    return {pretraining: float(np.mean(group)) for pretraining, group in groups.items()}


def by_pretraining(scores: Mapping[tuple[int, int], float]) -> list[float]:
    """Values of independent runs: the `pretraining_means` alone."""
    return list(pretraining_means(scores).values())


class ByInstance(NamedTuple):
    """Values of R runs on N instances of a test set: ids [N] and values [R, N]."""

    ids: np.ndarray
    values_RxN: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Independent runs of one model on one test set; or differences of two models of one run.

    Attributes:
      values: one value per run.
      by_instance: the same on every instance, where known; a run's mean over them is its value.
      test_variance: variance of the mean value over test sets, for a sample without `by_instance`;
        NaN where that is unknown too.
    """

    values: Sequence[float]
    by_instance: ByInstance | None = None
    test_variance: float = math.nan


def paired(samples: Sequence[Sample]) -> list[ByInstance] | None:
    """The values by instance of all samples; None unless all are of the same instances."""
    found = [sample.by_instance for sample in samples if sample.by_instance]
    if len(found) < len(samples):
        return None
    return found if all(np.array_equal(one.ids, found[0].ids) for one in found) else None


def weigh(samples: Sequence[Sample], weights: Sequence[float]) -> Effect:
    """The weighted sum of the means of samples, with both sources of error; see `contrast`."""
    error = instance_error(samples, weights)
    return contrast([sample.values for sample in samples], weights, error)


def instance_error(samples: Sequence[Sample], weights: Sequence[float]) -> float:
    """Standard error of a weighted sum of mean values, over test sets drawn like this one.

    Models that answer the same instances share the difficulty of these. So where all answers are
    known, the error is that of the weighted sum itself, instance by instance:

        error^2 = (Var_i[d_i] - sum_g w_g^2 mean_i[Var_r[c_gri]] / R_g) / N,
        d_i = sum_g w_g mean_r[c_gri]

    for value c_gri of run r of R_g on instance i of N. The second term is what the luck of single
    runs on single instances adds to the spread of d_i. It is subtracted (Theorem 2 of Zhong et al.,
    2021), because it also moves the means of runs and is in their variance already. With one run it
    cannot be told apart and stays. Runs and instances are crossed, as in the multi-bootstrap
    (Sellam et al., 2022).

    Where only variances of single means are known, the error is that of independent test sets,
    error^2 = sum_g w_g^2 variance_g. Right answers of two models go together, because hard
    instances are hard for both, so this is too large for a difference and never too small.

    Returns:
      The standard error; NaN where it is unknown for a sample of weight other than 0.
    """
    compared = [(one, weight) for one, weight in zip(samples, weights, strict=True) if weight]
    known = paired([one for one, _ in compared])
    if not known:
        return math.sqrt(sum(weight**2 * one.test_variance for one, weight in compared))
    effect_N, luck = np.zeros(len(known[0].ids)), 0.0
    for (_, values_RxN), (_, weight) in zip(known, compared, strict=True):
        effect_N += weight * values_RxN.mean(0)
        if len(values_RxN) > 1:
            luck += weight**2 * float(values_RxN.var(0, ddof=1).mean()) / len(values_RxN)
    if len(effect_N) < 2:
        return math.nan
    return math.sqrt(max(float(effect_N.var(ddof=1)) - luck, 0.0) / len(effect_N))


def contrast(
    groups: Sequence[Sequence[float]], weights: Sequence[float], test_error: float = math.nan
) -> Effect:
    """The weighted sum of group means, with the variance of runs pooled over groups.

    Args:
      groups: values of independent runs by group, such as `by_pretraining` of each size.
      weights: weight of each group's mean. A group that is not compared has weight 0: it adds to
        what is known about the variance.
      test_error: standard error over test sets, which more runs would not reduce; NaN: unknown.
        It enters by Satterthwaite's approximation of the degrees of freedom.
    """
    counts = np.array([len(group) for group in groups])
    means = np.array([np.mean(group) for group in groups])
    estimate, squared = float(np.dot(weights, means)), np.square(weights)
    freedom, fewest = int((counts - 1).sum()), int(counts[squared > 0].min())
    squares = sum(float(np.square(np.subtract(g, np.mean(g))).sum()) for g in groups)
    spread = math.sqrt(squares / freedom) if freedom else math.nan
    share = float((squared / counts).sum())
    return Effect(estimate, spread, freedom, fewest, float(squared.sum()), share, test_error)


def trend(sizes: Sequence[float], samples: Sequence[Sample]) -> Effect:
    """The rise of a straight line from the smallest to the largest size, on a log scale.

    One number for any number of sizes, so a study of many sizes has no more chances to find a
    trend by luck than a study of two.

    Args:
      sizes: parameters of each sample, at least two different ones.
      samples: as for `weigh`.
    """
    weights = slope(sizes) * math.log(max(sizes) / min(sizes))
    return weigh(samples, weights.tolist())


def slope(sizes: Sequence[float]) -> np.ndarray:
    """Weights of the means at `sizes` that give the slope of the line fitted to them.

    Args:
      sizes: at least two different ones; the line is one over their logarithms.
    """
    centered = np.log(sizes) - np.log(sizes).mean()
    return np.asarray(centered / np.square(centered).sum())
