"""Random choices that come out the same under every Python version.

`random.Random` promises a stable sequence only for `random()`; everything here is made from that one method.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of random choices, fixed by an integer seed."""

    def __init__(self, seed: int) -> None:
        self.roll = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        return self.roll() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.roll() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list in random order (Fisher-Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = int(self.roll() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order


class Zipf:
    """Draws items with probability proportional to 1 / (rank + offset)^exponent, the first item most often."""

    def __init__(self, items: Sequence[str], exponent: float, offset: float) -> None:
        self.items = items
        weights = ((rank + offset) ** -exponent for rank in range(len(items)))
        self._cumulative = list(itertools.accumulate(weights))

    def pick(self, dice: Dice) -> str:
        where = bisect.bisect(self._cumulative, dice.roll() * self._cumulative[-1])
        return self.items[min(where, len(self.items) - 1)]
