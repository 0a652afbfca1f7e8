"""Durations in any unit, and what to do with them: how much is used, and when a periodic event is due.

A duration is a set of limits, 0 meaning "no such limit"; the first that is used up ends it. Progress is counted in
the same units, so one function answers for budgets, evaluation and checkpoint policies alike.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Amounts:
    """An amount of training in every unit that we count. Used both for what is spent and for what may be spent."""

    seconds: float = 0.0  # of training, or of everything: the caller decides what it charges
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    epochs: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in UNITS})


UNITS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Amounts))


def used(limits: Amounts, spent: Amounts) -> tuple[float, str]:
    """The fraction used of the limit that is nearest its end, and that limit's unit; (0.0, "") without any limit.

    The fraction may exceed 1 where the last step overshot.
    """
    fractions = [
        (getattr(spent, unit) / limit, unit)
        for unit in UNITS
        if (limit := getattr(limits, unit)) > 0
    ]
    return max(fractions, default=(0.0, ""), key=lambda pair: pair[0])


def due(every: Amounts, before: Amounts, now: Amounts) -> bool:
    """Whether a multiple of any set unit of `every` lies in the half-open interval (before, now].

    A function of progress alone: after a restart the events fall where they would have fallen without it.
    """
    return any(
        getattr(now, unit) // period > getattr(before, unit) // period
        for unit in UNITS
        if (period := getattr(every, unit)) > 0
    )
