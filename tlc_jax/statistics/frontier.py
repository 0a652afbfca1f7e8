"""Means over seeds, the Pareto frontier, and the best model under a budget.

A cost (megabytes, parameters) is better smaller, a value (accuracy, BLEU) better larger.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import pandas as pd

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric over seeds.

    Attributes:
      mean: mean; NaN without values.
      std: sample standard deviation (n - 1); 0 below two values.
      n: number of values.
    """

    mean: float
    std: float
    n: int

    def written(self, form: str, scale: float = 1.0, *, spread: bool = True) -> str:
        """Writes "71.2 ± 0.4"; the mean alone for one seed, nothing without values."""
        text = f"{scale * self.mean:{form}}" if self.n else ""
        return f"{text} ± {scale * self.std:{form}}" if spread and self.n > 1 else text


def summarize(values: Iterable[float]) -> Summary:
    """Computes the mean and the spread of values."""
    numbers = [float(value) for value in values]
    mean = statistics.fmean(numbers) if numbers else math.nan
    # Not numpy: fmean and stdev sum exactly, so the order of seeds cannot change a digit.
    return Summary(mean, statistics.stdev(numbers) if len(numbers) > 1 else 0.0, len(numbers))


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Groups items by key, keys in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Returns the indices of the Pareto frontier by rising cost.

    No other point costs at most as much and is as good.

    Ties: of equal costs the highest value stays, of equal values the lowest cost, of equal points
    the first one.
    """
    # Of several columns pandas sorts stably, so the first of equal points comes first.
    points = pd.DataFrame({"cost": costs, "value": values})
    points = points.sort_values(["cost", "value"], ascending=[True, False])
    # Negated, because the first point has none before it, and NaN compares false.
    better = ~(points["value"] <= points["value"].cummax().shift())
    return list(points.index[better])


def best_under(budget: float, costs: Sequence[float], values: Sequence[float]) -> int | None:
    """Returns the index of the highest value that costs at most `budget`; None where nothing fits.

    Ties go to the cheaper point, then to the first.
    """
    fitting = [index for index, cost in enumerate(costs) if cost <= budget]
    return min(fitting, key=lambda i: (-values[i], costs[i], i), default=None)


def round_budgets(costs: Sequence[float], count: int = 3) -> tuple[float, ...]:
    """Picks up to `count` round numbers, evenly on a log scale inside the range of the costs."""
    low, high = min(costs), max(costs)
    wanted = [low * (high / low) ** ((place + 0.5) / count) for place in range(count)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    picked: set[float] = set()
    # Rounder numbers first; finer ones only where the range is too narrow for `count` of those.
    tenths = tuple(tenth / 10 for tenth in range(10, 100))
    for mantissas in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tenths):
        # Through text, because 3 * 0.1 is not 0.3.
        series = [float(f"{m * 10.0**power:.2g}") for power in powers for m in mantissas]
        inside = [number for number in series if low <= number <= high]
        if inside:
            picked = {min(inside, key=lambda x: abs(math.log(x / goal))) for goal in wanted}
        if len(picked) == count:
            break
    return tuple(sorted(picked)) or (high,)
