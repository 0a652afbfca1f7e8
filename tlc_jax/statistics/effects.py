"""Effects with intervals.

The pretraining run is the unit of replication of a claim about sizes: finetunings of one pretrained
model share its luck, so they are averaged first and never counted as runs of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit  # quantiles of Student's t, without the cost of scipy.stats

_MOST_RUNS = 1000  # where even that many would not decide, the effect is too small to matter


@dataclasses.dataclass(frozen=True)
class Effect:
    """An estimated difference or trend.

    Attributes:
      estimate: in the unit of the values; positive where it favors the claim.
      error: standard error; NaN with one run per group.
      freedom: degrees of freedom of `error`; 0 with one run per group.
      runs: runs of the group with the fewest, among those that are compared.
      spread: standard deviation of a run's value, pooled over groups; NaN with one run per group.
      leverage: sum of the squared weights of the group means.
    """

    estimate: float
    error: float
    freedom: float
    runs: int
    spread: float
    leverage: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided confidence interval; infinite with one run per group."""
        if self.freedom == 0:
            return -math.inf, math.inf
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.estimate - half, self.estimate + half

    def runs_needed(self, beyond: float = 0.0) -> int | None:
        """Runs per group whose interval would exclude `beyond`, if this estimate were the truth.

        None where the spread is unknown or a thousand would not suffice.
        """
        distance = abs(self.estimate - beyond)
        if not self.freedom or self.runs < 2 or not distance:
            return None
        groups = self.freedom / (self.runs - 1)
        runs = np.arange(self.runs, _MOST_RUNS)
        half = stdtrit(groups * (runs - 1), 0.975) * self.spread
        enough = runs[half * np.sqrt(self.leverage / runs) < distance]
        return int(enough[0]) if enough.size else None


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


def contrast(
    groups: Sequence[Sequence[float]], weights: Sequence[float], other_error: float = 0.0
) -> Effect:
    """The weighted sum of group means, with the variance of runs pooled over groups.

    Args:
      groups: values of independent runs by group, such as `by_pretraining` of each size.
      weights: weight of each group's mean. A group that is not compared has weight 0: it adds to
        what is known about the variance.
      other_error: standard error that more runs would not reduce, such as that of a test set that
        all runs share. It enters by Satterthwaite's approximation of the degrees of freedom.
    """
    counts = np.array([len(group) for group in groups])
    means = np.array([np.mean(group) for group in groups])
    estimate, squared = float(np.dot(weights, means)), np.square(weights)
    freedom, fewest = int((counts - 1).sum()), int(counts[squared > 0].min())
    leverage = float(squared.sum())
    if not freedom:
        return Effect(estimate, math.nan, 0, fewest, math.nan, leverage)
    squares = sum(float(np.square(np.subtract(g, np.mean(g))).sum()) for g in groups)
    variance = squares / freedom
    of_runs = variance * float((squared / counts).sum())
    total = of_runs + other_error**2
    # The other error is taken as known, so only the variance of runs costs degrees of freedom.
    effective = freedom * (total / of_runs) ** 2 if of_runs > 0 else math.inf
    return Effect(estimate, math.sqrt(total), effective, fewest, math.sqrt(variance), leverage)


def difference(first: Sequence[float], second: Sequence[float], other_error: float = 0.0) -> Effect:
    """Mean of `second` minus mean of `first`; arguments as for `contrast`."""
    return contrast([first, second], [-1.0, 1.0], other_error)


def trend(
    sizes: Sequence[float], groups: Sequence[Sequence[float]], other_error: float = 0.0
) -> Effect:
    """The rise of a straight line from the smallest to the largest size, on a log scale.

    One number for any number of sizes, so a study of many sizes has no more chances to find a
    trend by luck than a study of two.

    Args:
      sizes: parameters of each group, at least two different ones.
      groups, other_error: as for `contrast`.
    """
    weights = slope(sizes) * math.log(max(sizes) / min(sizes))
    return contrast(groups, weights.tolist(), other_error)


def slope(sizes: Sequence[float]) -> np.ndarray:
    """Weights of the means at `sizes` that give the slope of the line fitted to them.

    Args:
      sizes: at least two different ones; the line is one over their logarithms.
    """
    centered = np.log(sizes) - np.log(sizes).mean()
    return np.asarray(centered / np.square(centered).sum())
