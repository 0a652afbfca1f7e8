"""Effects with intervals, and the verdicts that follow from them.

The pretraining run is the unit of replication of a claim about sizes: finetunings of one pretrained
model share its luck, so they are averaged first and never counted as runs of their own. A verdict
needs two pretraining runs of a size; with one it is a suggestion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

HOLDS = "holds"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
SUGGESTED = "suggested"
UNTESTED = "not tested"

VERDICTS = {
    HOLDS: "the 95 % interval of every effect lies on the claim's side",
    CONTRADICTED: "the interval of an effect, widened for the number of effects, lies beyond it",
    UNDECIDED: "an interval reaches to both sides: more pretraining runs would decide",
    SUGGESTED: "the numbers point to it, but one pretraining run per model cannot show it",
    UNTESTED: "the study has no data for it",
}
"""What each verdict means."""

_MOST_RUNS = 1000  # where even that many would not decide, the effect is too small to matter


@dataclasses.dataclass(frozen=True)
class Effect:
    """An estimated difference or trend.

    Attributes:
      estimate: in the unit of the values; positive where it favors the claim.
      error: standard error; NaN with one run per group.
      freedom: degrees of freedom of `error`; 0 with one run per group.
      runs: pretraining runs of the group with the fewest.
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
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.estimate - half, self.estimate + half

    def runs_needed(self, beyond: float = 0.0) -> int | None:
        """Runs per group whose interval would exclude `beyond`, if this estimate were the truth.

        None where the spread is unknown or a thousand would not suffice.
        """
        distance = abs(self.estimate - beyond)
        if not self.freedom or not distance:
            return None
        groups = self.freedom / (self.runs - 1)
        for runs in range(max(2, self.runs), _MOST_RUNS):
            quantile = float(stats.t.ppf(0.975, groups * (runs - 1)))
            if quantile * self.spread * math.sqrt(self.leverage / runs) < distance:
                return runs
        return None


def by_pretraining(scores: Mapping[tuple[int, int], float]) -> list[float]:
    """Means over finetuning seeds, one per pretraining seed.

    Args:
      scores: by (pretraining seed, finetuning seed).
    """
    groups: dict[int, list[float]] = {}
    for (pretraining, _), score in scores.items():
        groups.setdefault(pretraining, []).append(score)
    return [float(np.mean(group)) for group in groups.values()]


def contrast(
    groups: Sequence[Sequence[float]], weights: Sequence[float], other_error: float = 0.0
) -> Effect:
    """The weighted sum of group means, with the variance of runs pooled over groups.

    Args:
      groups: values of independent runs by group, such as `by_pretraining` of each size.
      weights: weight of each group's mean.
      other_error: standard error that more runs would not reduce, such as that of a test set that
        all runs share. It enters by Satterthwaite's approximation of the degrees of freedom.
    """
    counts = np.array([len(group) for group in groups])
    means = np.array([np.mean(group) for group in groups])
    estimate, squared = float(np.dot(weights, means)), np.square(weights)
    freedom = int((counts - 1).sum())
    leverage = float(squared.sum())
    if not freedom:
        return Effect(estimate, math.nan, 0, int(counts.min()), math.nan, leverage)
    squares = sum(float(np.square(np.subtract(g, np.mean(g))).sum()) for g in groups)
    variance = squares / freedom
    of_runs = variance * float((squared / counts).sum())
    total = of_runs + other_error**2
    # The other error is taken as known, so only the variance of runs costs degrees of freedom.
    effective = freedom * (total / of_runs) ** 2 if of_runs > 0 else math.inf
    return Effect(
        estimate, math.sqrt(total), effective, int(counts.min()), math.sqrt(variance), leverage
    )


def difference(first: Sequence[float], second: Sequence[float], other_error: float = 0.0) -> Effect:
    """Mean of `second` minus mean of `first`; arguments as for `contrast`."""
    return contrast([first, second], [-1.0, 1.0], other_error)


def trend(groups: Mapping[float, Sequence[float]], other_error: float = 0.0) -> Effect:
    """The rise of a straight line from the smallest to the largest size, on a log scale.

    One number for any number of sizes, so a study of many sizes has no more chances to find a
    trend by luck than a study of two.

    Args:
      groups: values of independent runs by size (parameters), for at least two sizes.
      other_error: as for `contrast`.
    """
    sizes = sorted(groups)
    x = np.log(sizes)
    centered = x - x.mean()
    weights = centered / np.square(centered).sum() * (x[-1] - x[0])
    return contrast([groups[size] for size in sizes], weights.tolist(), other_error)


def verdict(
    effects: Iterable[Effect], low: float = 0.0, high: float = math.inf, level: float = 0.95
) -> str:
    """The verdict on the claim that every effect lies between `low` and `high`.

    low=0 tests a direction; low=-margin tests that an effect is not inferior by more than a margin;
    -margin and margin test equivalence. All effects must hold at once, which needs no correction
    for their number (an intersection-union test has the level of each). One that lies outside is
    enough to contradict, so that is tested at a level divided by their number.

    Args:
      effects: of all tasks, recipes or pairs that the claim is about.
      low, high: where the claim puts them.
      level: of the confidence intervals.
    """
    effects = list(effects)
    if not effects:
        return UNTESTED
    if any(effect.freedom == 0 or effect.runs < 2 for effect in effects):
        points = all(low < effect.estimate < high for effect in effects)
        return SUGGESTED if points else UNDECIDED
    widened = 1 - (1 - level) / len(effects)
    if all(
        low < effect.interval(level)[0] and effect.interval(level)[1] < high for effect in effects
    ):
        return HOLDS
    for effect in effects:
        lower, upper = effect.interval(widened)
        if upper < low or lower > high:
            return CONTRADICTED
    return UNDECIDED


def instance_error(accuracy: float, instances: int) -> float:
    """Standard error of a difference of two accuracies from the choice of test instances.

    Without the predictions the two models' errors are taken as independent, which is too wide:
    they are mostly wrong on the same instances. With predictions use the standard error of the
    instance differences instead.
    """
    return math.sqrt(2 * accuracy * (1 - accuracy) / instances)
