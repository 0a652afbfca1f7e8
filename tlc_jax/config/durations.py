"""Durations in any unit: the fraction used, and when a periodic event is due.

A duration is a set of limits, 0 meaning "no such limit"; the first that is used up ends it. One
function therefore answers for budgets, evaluation and checkpoint policies alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Amounts:
    """An amount of training in every unit: what is spent, or what may be spent."""

    # Of training alone or of everything: the caller decides what it charges.
    seconds: float = 0.0
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    epochs: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        # Written out, because every training step adds several.
        return Amounts(
            self.seconds + other.seconds,
            self.steps + other.steps,
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.epochs + other.epochs,
            self.flops + other.flops,
        )


UNITS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Amounts))
IsDue = Callable[[Amounts, Amounts], bool]  # (amounts at the last check, amounts now)


def used(limits: Amounts, spent: Amounts) -> tuple[float, str]:
    """The fraction used of the limit that ends first, and its unit; (0.0, "") without a limit.

    The fraction exceeds 1 where the last step overshot.
    """
    set_units = [unit for unit in UNITS if getattr(limits, unit) > 0]
    fractions = [(getattr(spent, unit) / getattr(limits, unit), unit) for unit in set_units]
    return max(fractions, default=(0.0, ""), key=lambda pair: pair[0])


def due(every: Amounts, before: Amounts, now: Amounts) -> bool:
    """Whether a multiple of any set unit of `every` lies in the interval (before, now]."""
    # A function of progress alone: after a restart, events fall where they would have without it.
    for unit in UNITS:
        period = getattr(every, unit)
        if period > 0 and getattr(now, unit) // period > getattr(before, unit) // period:
            return True
    return False


def every(*periods: Amounts) -> IsDue:
    """Whether an event is due that comes at the multiples of several periods."""
    return lambda before, now: any(due(period, before, now) for period in periods)
