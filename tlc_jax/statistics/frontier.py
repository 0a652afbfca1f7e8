"""Means over seeds, the Pareto frontier, and the best model under a budget.

A cost (megabytes, parameters) is better smaller, a value (accuracy, BLEU) better larger.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1; 0 for a single value) of a metric over seeds."""

    mean: float
    std: float
    n: int

    def written(self, form: str, scale: float = 1.0) -> str:
        """Text such as "71.2 ± 0.4"; the mean alone for a single seed."""
        text = f"{scale * self.mean:{form}}"
        return f"{text} ± {scale * self.std:{form}}" if self.n > 1 else text


def summarize(values: Iterable[float]) -> Summary:
    """Mean and spread of at least one value."""
    numbers = [float(value) for value in values]
    std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return Summary(statistics.fmean(numbers), std, len(numbers))


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Groups items by key, keys in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices of the frontier by rising cost: no other point costs at most as much and is as good.

    Ties: of equal costs the highest value stays, of equal values the lowest cost, of equal points
    the first one.
    """
    frontier: list[int] = []
    best = -math.inf
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i)):
        if values[index] > best:
            frontier.append(index)
            best = values[index]
    return frontier


def best_under(budget: float, costs: Sequence[float], values: Sequence[float]) -> int | None:
    """Index of the highest value that costs at most `budget`; None where nothing fits.

    Ties go to the cheaper point, then to the first.
    """
    fitting = [index for index, cost in enumerate(costs) if cost <= budget]
    return min(fitting, key=lambda i: (-values[i], costs[i], i), default=None)


def round_budgets(costs: Sequence[float], count: int = 3) -> tuple[float, ...]:
    """At most `count` round numbers, evenly on a log scale inside the range of the costs."""
    low, high = min(costs), max(costs)
    wanted = [low * (high / low) ** ((place + 0.5) / count) for place in range(count)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    picked: set[float] = set()
    # Rounder numbers first; finer ones only where the range is too narrow for `count` of those.
    tenths = tuple(tenth / 10 for tenth in range(10, 100))
    for mantissas in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tenths):
        series = [
            float(f"{mantissa * 10.0**power:.2g}") for power in powers for mantissa in mantissas
        ]
        inside = [number for number in series if low <= number <= high]
        if inside:
            picked = {min(inside, key=lambda x: abs(math.log(x / goal))) for goal in wanted}
        if len(picked) == count:
            break
    return tuple(sorted(picked)) or (high,)
