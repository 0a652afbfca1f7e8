"""Times variants in alternation, so that a machine that slows down slows all of them alike.

On an accelerator they follow each other: a variant fills its memory, and its speed hardly drifts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tlc_jax.core.text import one_line, table

_LONGEST_REASON = 200

Seconds = dict[str, list[float]]
Variant = Callable[[int], object]
"""Does so many units of work and returns when all are done."""

_made: list[Variant] = []
"""The variant of this process, in a process that `in_own_process` started."""


@contextlib.contextmanager
def in_own_process(make: Callable[[], Variant]) -> Iterator[Variant]:
    """A variant that is made and called in a process of its own.

    PyTorch's and CTranslate2's threads spin for a while after their work. In one process they would
    take half of the next variant's speed.

    Args:
      make: makes the variant at its first call; it is pickled.

    Raises:
      RuntimeError: in a call, `make` or the variant failed, or the process died.
    """
    # Not forked: a fork copies JAX's locks in the state that its threads left them in.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:

        def run(repeats: int) -> None:
            try:
                failure = process.submit(_run, repeats, make).result()
            except BrokenProcessPool as error:
                raise RuntimeError("the process of a variant died") from error
            if failure:
                raise RuntimeError(failure)

        yield run


def _run(repeats: int, make: Callable[[], Variant]) -> str:
    """Does units of work in this process; returns why that failed, or an empty text."""
    try:
        # The variant stays here, because neither compiled programs nor models can be pickled.
        if not _made:
            _made.append(make())
        _made[0](repeats)
    except Exception as error:
        traceback.print_exc()
        # Its first line only: compilers add their whole input. Not every error can be pickled.
        first = next(iter(str(error).strip().splitlines()), "")
        return f"{type(error).__name__}: {first[:_LONGEST_REASON]}"
    return ""


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
    failures: dict[str, str] | None = None,
) -> Seconds:
    """Seconds per unit of work of every variant in every round.

    Args:
      variants: the variants by name.
      rounds: number of rounds.
      repeats: units of work per round.
      clock: seconds now.
      failures: takes the reason, in one line, of each variant that fails. The result lacks such a
        variant. If None, the error is raised.
    """
    seconds: Seconds = {name: [] for name in variants}

    def run(name: str, repeats: int) -> None:
        if name not in seconds:
            return
        started = clock()
        try:
            variants[name](repeats)
        except Exception as error:
            if failures is None:
                raise
            failures[name] = one_line(error)
            del seconds[name]
        else:
            seconds[name].append((clock() - started) / repeats)

    for name in variants:
        # The first call compiles. The second one compiles again if the state that the first one
        # returned has another sharding than the state that it began with.
        run(name, 1)
        run(name, 1)
    for _ in range(rounds):
        for name in variants:
            run(name, repeats)
    return {name: values[2:] for name, values in seconds.items()}


def time_in_own_processes(
    makers: Mapping[str, Callable[[], Variant]], rounds: int, repeats: int, in_turn: bool
) -> tuple[Seconds, dict[str, str]]:
    """Seconds per unit of work of every variant in every round, and why the others failed.

    Args:
      makers: for each variant, the function that makes it in its process; it is pickled.
      rounds: number of rounds.
      repeats: units of work per round.
      in_turn: whether a process starts when the one before has ended, for devices whose memory does
        not hold several variants; otherwise they alternate.
    """
    seconds: Seconds = {}
    failures: dict[str, str] = {}
    groups = [{name: make} for name, make in makers.items()] if in_turn else [makers]
    for group in groups:
        with contextlib.ExitStack() as stack:
            variants = {
                name: stack.enter_context(in_own_process(make)) for name, make in group.items()
            }
            seconds |= alternate(variants, rounds, repeats, failures=failures)
    return seconds, failures


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
