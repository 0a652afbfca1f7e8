"""What a run has spent, by cause, and when its budget is used up. The rules stand in the README.

Time is read from an injectable clock, so tests never sleep.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tlc_jax import config
from tlc_jax.config.durations import Amounts, used
from tlc_jax.core.files import write_json

Clock = Callable[[], float]

CAUSES = ("train", "compile", "input", "eval", "checkpoint", "lost")
"""What wall-clock seconds are booked under.

The rest of `total` is start-up and bookkeeping. `lost` stands beside `total` and not in it: it was spent after the
checkpoint that a killed run went on from, on work that was then done again.
"""


class Ledger:
    """Seconds by cause and amounts of training, across all sessions of a run.

    `spent` counts steps whose results have been seen. Steps in flight are the loop's business.
    """

    def __init__(self, clock: Clock = time.monotonic, saved: dict[str, Any] | None = None):
        saved = saved or {"spent": {}, "seconds": {}}
        self.clock = clock
        self.spent = Amounts(**saved["spent"])
        self.seconds = {cause: float(saved["seconds"].get(cause, 0.0)) for cause in CAUSES}
        self._total_before = float(saved["seconds"].get("total", 0.0))
        self._started = clock()

    @property
    def total(self) -> float:
        """Wall-clock seconds of all sessions, this one included."""
        return self._total_before + self.clock() - self._started

    @contextmanager
    def booked(self, cause: str) -> Iterator[None]:
        """Books the seconds of a with-block under a cause."""
        started = self.clock()
        try:
            yield
        finally:
            self.seconds[cause] += self.clock() - started

    def finish_steps(self, amounts: Amounts, seconds: float, charged: float | None = None) -> None:
        """Books finished training: `seconds` on the clock, of which the budget is charged `charged` (None: all)."""
        self.seconds["train"] += seconds
        self.spent += dataclasses.replace(amounts, seconds=seconds if charged is None else charged)

    def goodput(self) -> dict[str, float]:
        """Shares of all wall-clock time by cause, `train` being the goodput, and what no cause has as `other`.

        `outside_compile_and_eval` is the share of training in the time that is neither.
        """
        whole = self.total + self.seconds["lost"]
        booked = sum(self.seconds.values())
        seconds = {**self.seconds, "other": max(0.0, whole - booked)}
        if whole <= 0:
            return dict.fromkeys([*seconds, "outside_compile_and_eval"], 0.0)
        rest = whole - self.seconds["compile"] - self.seconds["eval"]
        shares = {cause: value / whole for cause, value in seconds.items()}
        return {
            **shares,
            "outside_compile_and_eval": self.seconds["train"] / rest if rest > 0 else 0.0,
        }

    def save(self) -> dict[str, Any]:
        """What `saved` takes: goes into every checkpoint."""
        return {
            "spent": dataclasses.asdict(self.spent),
            "seconds": {**self.seconds, "total": self.total},
        }


class Books(Protocol):
    """What has been spent, and in how many seconds of wall-clock time."""

    @property
    def spent(self) -> Amounts: ...

    @property
    def total(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class Budget:
    """The limits of a run, as the training loop asks for them."""

    limits: Amounts
    charge: str = "training"

    @staticmethod
    def of(settings: config.Budget) -> Budget:
        return Budget(settings.limits(), settings.charge)

    def in_steps(self, steps: int) -> Budget:
        """The same budget with its seconds converted into steps, once and for all (paper 1's protocol)."""
        given = self.limits.steps
        return Budget(
            dataclasses.replace(
                self.limits, seconds=0.0, steps=min(steps, given) if given else steps
            )
        )

    def used(self, books: Books, in_flight: Amounts = Amounts()) -> tuple[float, str]:  # noqa: B008 (frozen)
        """Fraction used, steps in flight included, of the limit nearest its end, and the unit of that limit."""
        spent = books.spent + in_flight
        if self.charge == "total":
            spent = dataclasses.replace(spent, seconds=books.total + in_flight.seconds)
        return used(self.limits, spent)


STABLE_WITHIN = 0.1
WARM_STEPS = 50
AVERAGED_STEPS = 100
BENCHMARK_STEPS = WARM_STEPS + AVERAGED_STEPS
"""What a measurement takes at most."""


def benchmark_step(timed_step: Callable[[], float], seconds: float) -> float:
    """Seconds per step once they are stable, as paper 1 measures them: averaged over 100 steps.

    Args:
      timed_step: runs one step, waits for its result, and returns the seconds that it took.
      seconds: the budget that is to be converted. A tenth of it ends the measurement early, after 10 steps at least.

    Stable means that the medians of the last two groups of five steps agree within a tenth; after 50 steps the
    measurement starts in any case.
    """
    warm = [timed_step() for _ in range(10)]
    while len(warm) < WARM_STEPS and sum(warm) < seconds / 10:
        last, before = statistics.median(warm[-5:]), statistics.median(warm[-10:-5])
        if abs(last - before) <= STABLE_WITHIN * before:
            break
        warm.append(timed_step())
    measured: list[float] = []
    while len(measured) < AVERAGED_STEPS and (len(measured) < 10 or sum(measured) < seconds / 10):
        measured.append(timed_step())
    return statistics.fmean(measured)


def known_benchmark(path: Path) -> float | None:
    """Seconds per step that an earlier session of the run measured, or None."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds_per_step"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def keep_benchmark(path: Path, seconds_per_step: float) -> None:
    """Writes the measurement down, so that a restarted run converts its budget into the same steps."""
    write_json(path, {"seconds_per_step": seconds_per_step})
