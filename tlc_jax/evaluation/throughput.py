"""Timing variants side by side: in turn, round after round, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Seconds = dict[str, list[float]]
Variant = Callable[[], None]
"""Does one unit of work and returns when it is done."""


def alternate(
    variants: Mapping[str, Variant], rounds: int, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Seconds:
    """Seconds per unit of work of every variant in every round.

    Each variant is called twice before the first round: to compile, and to compile again where what it keeps from call
    to call is placed otherwise than what it began with.
    """
    for run in variants.values():
        run()
        run()
    seconds: Seconds = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            started = clock()
            for _ in range(repeats):
                run()
            seconds[name].append((clock() - started) / repeats)
    return seconds


def summary(seconds: Seconds, work: float, reference: str) -> dict[str, dict[str, Any]]:
    """Per variant: median `per_second` (work / seconds), and its ratio to `reference`, median, least and most.

    Ratios are taken round by round, so that drift of the machine cancels.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, values in seconds.items():
        ratios = sorted(r / v for r, v in zip(seconds[reference], values, strict=True))
        rows[name] = {
            "per_second": work / statistics.median(values),
            "ratio": statistics.median(ratios),
            "ratio_least": ratios[0],
            "ratio_most": ratios[-1],
        }
    return rows
