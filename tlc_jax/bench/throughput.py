"""Timing variants side by side: in turn, round after round, so that a machine that slows down slows all of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

Seconds = dict[str, list[float]]
Variant = Callable[[], None]
"""Does one unit of work and returns when it is done."""


@contextlib.contextmanager
def in_own_process(make: Callable[..., Variant], *arguments: Any) -> Iterator[Variant]:
    """The variant that make(*arguments) returns, living in a process of its own.

    There threads that a library leaves spinning after its work are out of the others' way. `make` and its arguments
    are pickled.

    Raises:
      RuntimeError: in the variant's call, with the traceback of what went wrong in the process.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()

    def run() -> None:
        try:
            ours.send(None)
            problem = ours.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError("the process of a variant died") from error
        if problem:
            raise RuntimeError(problem)

    try:
        yield run
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, make: Callable[..., Variant], arguments: tuple[Any, ...]) -> None:
    run: Variant | None = None
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            run = run or make(*arguments)
            run()
        except Exception:
            pipe.send(traceback.format_exc())
        else:
            pipe.send(None)


def alternate(
    variants: Mapping[str, Variant],
    rounds: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
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
