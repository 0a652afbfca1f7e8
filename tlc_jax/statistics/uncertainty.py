"""When a difference between sizes is more than the luck of a seed.

Every verdict of a report rests on two questions asked here: is one difference clear, and does a quantity change
clearly with size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy import stats

from tlc_jax.statistics.frontier import Summary, summarise
from tlc_jax.statistics.kinds import Kind, Size

LOSS_MARGIN = 0.01  # nats: about one percent of perplexity
# Half a percentage point of accuracy, half a point of BLEU. By an amount of that order BLEU depends on which three
# thousand sentences a test set such as newstest happens to hold; seeds do not show that, as all models translate the
# same ones.
SCORE_MARGIN = 0.005

def rule(kinds: Sequence[Kind]) -> str:
    """What counts as clear and as a trend, in words."""
    scores = " or ".join(kind.score for kind in kinds)
    return (
        f"A difference is called clear when it exceeds both a fixed margin ({LOSS_MARGIN} nats of loss, "
        f"{100 * SCORE_MARGIN} points of {scores}) and the half-width of its 95 % confidence interval, from Student's "
        "t with the seeds' variance pooled over all sizes. With one seed per size only the margin counts, and the "
        "spread is unknown. A trend with size holds when the largest size is clearly ahead of the smallest and, of all "
        "pairs of sizes, more are clearly ordered with the trend than against it."
    )


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Standard deviation over seeds, common to all groups, and its degrees of freedom (0: one seed each)."""

    std: float
    freedom: int


def pool(groups: Sequence[Sequence[float]]) -> Pooled:
    """The pooled standard deviation of groups of values."""
    freedom = sum(len(values) - 1 for values in groups)
    if freedom == 0:
        return Pooled(0.0, 0)
    squares = sum(summarise(values).std ** 2 * (len(values) - 1) for values in groups)
    return Pooled(math.sqrt(squares / freedom), freedom)


def half_width(spread: Pooled, first: int, second: int) -> float:
    """Half the 95 % confidence interval of a difference of two means over `first` and `second` seeds."""
    if spread.freedom == 0:
        return 0.0
    quantile = stats.t.ppf(0.975, spread.freedom)
    return float(quantile) * spread.std * math.sqrt(1 / first + 1 / second)


def clear(first: Sequence[float], second: Sequence[float], spread: Pooled, margin: float) -> int:
    """1 where the mean of `second` is clearly above that of `first`, -1 where it is clearly below, else 0."""
    difference = summarise(second).mean - summarise(first).mean
    if abs(difference) <= max(margin, half_width(spread, len(first), len(second))):
        return 0
    return 1 if difference > 0 else -1


@dataclasses.dataclass(frozen=True)
class Trend:
    """How a quantity that is better larger changes with size."""

    ends: int  # 1: the largest size is clearly better than the smallest; -1: clearly worse; 0: neither
    rising: int  # pairs of sizes of which the larger is clearly better
    falling: int  # pairs of sizes of which the larger is clearly worse
    pairs: int
    summaries: Mapping[Size, Summary]

    @property
    def holds(self) -> bool:
        return self.ends > 0 and self.rising > self.falling

    def __str__(self) -> str:
        return f"larger clearly better in {self.rising} of {self.pairs} pairs, clearly worse in {self.falling}"


def trend(values: Mapping[Size, Sequence[float]], margin: float) -> Trend:
    """The trend of `values` (one per seed; larger is better) over at least two sizes."""
    sizes = sorted(values)
    spread = pool([values[size] for size in sizes])
    outcomes = [
        clear(values[small], values[large], spread, margin)
        for place, small in enumerate(sizes)
        for large in sizes[place + 1 :]
    ]
    ends = clear(values[sizes[0]], values[sizes[-1]], spread, margin)
    summaries = {size: summarise(values[size]) for size in sizes}
    return Trend(ends, outcomes.count(1), outcomes.count(-1), len(outcomes), summaries)
