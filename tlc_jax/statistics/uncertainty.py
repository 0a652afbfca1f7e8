"""When a difference between sizes exceeds the spread of seeds, and the verdict on a claim.

A difference is clear when it exceeds a fixed margin and half of its 95 % confidence interval. The
interval is Student's, with the variance of the seeds pooled over all sizes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from scipy import stats

from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import Kind, Size

LOSS_MARGIN = 0.01  # nats: about one percent of perplexity
# Half a percentage point of accuracy, half a point of BLEU. BLEU changes by about as much with the
# choice of the three thousand sentences of a test set such as newstest. Seeds do not show that
# spread, because all models translate the same sentences.
SCORE_MARGIN = 0.005

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"


def rule(kinds: Sequence[Kind]) -> str:
    """Says in words what is clear and what is a trend."""
    scores = " or ".join(kind.score for kind in kinds)
    return (
        f"A difference is called clear when it exceeds both a fixed margin ({LOSS_MARGIN} nats of "
        f"loss, {100 * SCORE_MARGIN} points of {scores}) and the half-width of its 95 % confidence "
        "interval, from Student's t with the seeds' variance pooled over all sizes. With one seed "
        "per size only the margin counts, and the spread is unknown. A trend with size holds when "
        "the largest size is clearly ahead of the smallest and, of all pairs of sizes, more are "
        "clearly ordered with the trend than against it."
    )


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Standard deviation over seeds, common to all groups, and its degrees of freedom."""

    std: float
    freedom: int  # 0: every group has a single seed


def pool(groups: Sequence[Collection[float]]) -> Pooled:
    """Pools the standard deviations of groups of values."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum(summarize(values).std ** 2 * (len(values) - 1) for values in groups)
    return Pooled(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def half_width(spread: Pooled, first: int, second: int) -> float:
    """Returns half the 95 % interval of a difference of means over `first` and `second` seeds."""
    if spread.freedom == 0:
        return 0.0
    quantile = float(stats.t.ppf(0.975, spread.freedom))
    return quantile * spread.std * math.sqrt(1 / first + 1 / second)


def clear(
    first: Collection[float], second: Collection[float], spread: Pooled, margin: float
) -> int:
    """Returns 1 where `second` has a clearly larger mean than `first`, -1 where smaller, else 0."""
    difference = summarize(second).mean - summarize(first).mean
    if abs(difference) <= max(margin, half_width(spread, len(first), len(second))):
        return 0
    return 1 if difference > 0 else -1


@dataclasses.dataclass(frozen=True)
class Trend:
    """How a quantity changes with size; larger values are better.

    Attributes:
      holds: whether the largest size is clearly better than the smallest, and more pairs rise than
        fall.
      rising, falling: numbers of pairs in which the larger size is clearly better, clearly worse.
      pairs: number of pairs of sizes.
    """

    holds: bool
    rising: int
    falling: int
    pairs: int

    def __str__(self) -> str:
        return (
            f"larger clearly better in {self.rising} of {self.pairs} pairs, "
            f"clearly worse in {self.falling}"
        )


def trend(values: Mapping[Size, Sequence[float]], margin: float) -> Trend:
    """Returns the trend of `values` (one per seed; larger is better) over two or more sizes."""
    ordered = [values[size] for size in sorted(values)]
    spread = pool(ordered)
    outcomes = [clear(*pair, spread, margin) for pair in combinations(ordered, 2)]
    rising, falling = outcomes.count(1), outcomes.count(-1)
    ends = clear(ordered[0], ordered[-1], spread, margin)
    return Trend(ends > 0 and rising > falling, rising, falling, len(outcomes))


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper with its test and verdict.

    Attributes:
      number: its number in the paper's order; claims about translation end in -mt.
      text: the claim.
      criterion: the test, fixed before the numbers were known.
      verdict: HOLDS, FAILS or UNTESTED.
      evidence: findings with their numbers, or what a study needs for the test.
    """

    number: str
    text: str
    criterion: str
    verdict: str = UNTESTED
    evidence: tuple[str, ...] = ()
