"""Times variants in alternation, so that a machine that slows down slows all of them alike."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tlc_jax.core.text import table

Seconds = dict[str, list[float]]
Variant = Callable[[], object]
"""Does one unit of work and returns when it is done."""

_made: list[Variant] = []
"""The variant of this process, in a process that `in_own_process` started."""


@contextlib.contextmanager
def in_own_process(make: Callable[..., Variant], *arguments: Any) -> Iterator[Variant]:
    """A variant that is made and called in a process of its own.

    PyTorch's and CTranslate2's threads spin for a while after their work. In one process they would
    take half of the next variant's speed.

    Args:
      make: makes the variant at its first call.
      *arguments: arguments of `make`; all are pickled.

    Raises:
      RuntimeError: the process died during a call. What `make` or the variant raise is raised as it
        is.
    """
    # Not forked: a fork copies JAX's locks in the state that its threads left them in.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:

        def run() -> None:
            try:
                process.submit(_run, make, *arguments).result()
            except BrokenProcessPool as error:
                raise RuntimeError("the process of a variant died") from error

        yield run


def _run(make: Callable[..., Variant], *arguments: Any) -> None:
    # The variant stays here, because neither compiled programs nor models can be pickled.
    if not _made:
        _made.append(make(*arguments))
    _made[0]()


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Sets `seconds[name]` to the seconds that the with-block takes."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def alternate(
    variants: Mapping[str, Variant],
    rounds: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Seconds per unit of work of every variant in every round."""
    for run in variants.values():
        # The first call compiles. The second one compiles again if the state that the first one
        # returned has another sharding than the state that it began with.
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


def time_alone(variant: Variant, rounds: int, repeats: int) -> list[float]:
    """Seconds per unit of work of one variant in every round."""
    return alternate({"alone": variant}, rounds, repeats)["alone"]


def rate(seconds: Sequence[float], tokens: float) -> dict[str, Any]:
    """Tokens per second in the median round, and in the slowest and the fastest round."""
    return {
        "tokens_per_second": tokens / statistics.median(seconds),
        "tokens_per_second_spread": [tokens / max(seconds), tokens / min(seconds)],
    }


def summary(
    seconds: Seconds, work: float, references: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The speed of every variant, and how it compares with that of reference variants.

    Args:
      seconds: seconds per unit of work of every variant in every round.
      work: size of a unit of work, such as its tokens.
      references: suffix of the names of the ratios -> name of the variant to compare with.

    Returns:
      By variant, the median `per_second` (work / seconds), and the median, least and largest
      `ratio` to each reference.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, values in seconds.items():
        rows[name] = {"per_second": work / statistics.median(values)}
        for suffix, reference in references.items():
            # Ratios are taken round by round, so that drift of the machine cancels.
            ratios = [r / v for r, v in zip(seconds[reference], values, strict=True)]
            rows[name] |= {
                f"ratio{suffix}": statistics.median(ratios),
                f"ratio_least{suffix}": min(ratios),
                f"ratio_most{suffix}": max(ratios),
            }
    return rows


def summary_table(rows: Mapping[str, Mapping[str, float]], references: Mapping[str, str]) -> str:
    """The rows of `summary` as a table."""
    lines = [["", "tokens/s", *(f"times {name}" for name in references.values())]]
    for name, row in rows.items():
        ratios = [
            f"{row['ratio' + suffix]:.2f} "
            f"({row['ratio_least' + suffix]:.2f} to {row['ratio_most' + suffix]:.2f})"
            for suffix in references
        ]
        lines.append([name, f"{row['per_second']:,.0f}", *ratios])
    return table(lines)
