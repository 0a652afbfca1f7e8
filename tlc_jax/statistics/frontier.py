"""Which models are worth having: means over seeds, the Pareto frontier, and the best model under a budget.

Cost (megabytes, parameters) is better smaller, value (accuracy, BLEU) better larger.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1; 0 where n is 1) of a metric over seeds."""

    mean: float
    std: float
    n: int

    def written(self, form: str, scale: float = 1.0) -> str:
        """71.2 ± 0.4; without a spread where there is one seed."""
        text = f"{scale * self.mean:{form}}"
        return f"{text} ± {scale * self.std:{form}}" if self.n > 1 else text


def summarise(values: Iterable[float]) -> Summary:
    """Mean and spread of at least one value."""
    numbers = list(values)
    mean = math.fsum(numbers) / len(numbers)
    if len(numbers) == 1:
        return Summary(mean, 0.0, 1)
    squares = math.fsum((number - mean) ** 2 for number in numbers)
    return Summary(mean, math.sqrt(squares / (len(numbers) - 1)), len(numbers))


def group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, keys in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices of the frontier by rising cost: points to which no other is at most as costly and at least as good.

    Ties: of equal costs the highest value stays, of equal values the lowest cost, of equal points the first one.
    """
    frontier: list[int] = []
    best = -math.inf
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i)):
        if values[index] > best:
            frontier.append(index)
            best = values[index]
    return frontier


def best_under(budget: float, costs: Sequence[float], values: Sequence[float]) -> int | None:
    """The index of the highest value that costs at most `budget`; ties go to the cheaper, then to the first.

    None where nothing fits.
    """
    fitting = [index for index, cost in enumerate(costs) if cost <= budget]
    return min(fitting, key=lambda i: (-values[i], costs[i], i), default=None)


def round_budgets(costs: Sequence[float], count: int = 3) -> tuple[float, ...]:
    """At most `count` round numbers spread evenly, on a log scale, over the range of the costs; each admits a model."""
    low, high = min(costs), max(costs)
    wanted = [low * (high / low) ** ((place + 0.5) / count) for place in range(count)]
    picked: set[float] = set()
    for mantissas in (
        (1, 2, 5),
        (1, 1.5, 2, 3, 4, 5, 6, 8),
        tuple(tenth / 10 for tenth in range(10, 100)),
    ):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        series = [
            float(f"{mantissa * 10.0**power:.2g}") for power in powers for mantissa in mantissas
        ]
        inside = [number for number in series if low <= number <= high]
        picked = {_nearest(inside, goal) for goal in wanted if inside}
        if len(picked) == count:
            break
    return tuple(sorted(picked)) or (high,)


def _nearest(numbers: Sequence[float], goal: float) -> float:
    return min(numbers, key=lambda number: abs(math.log(number / goal)))
