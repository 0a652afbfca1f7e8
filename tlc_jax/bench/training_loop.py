"""Times the training loop itself (bench.task=loop), around a step that computes almost nothing."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tlc_jax.bench.pretraining import run_on_random_rows
from tlc_jax.config import Budget, Checkpoint, Config, Eval
from tlc_jax.core.mesh import Placement
from tlc_jax.core.text import table
from tlc_jax.runs.saved_model import initializer
from tlc_jax.training.loop import Trainer, train
from tlc_jax.training.step import Batch, StepMetrics, TrainState

_REST = "the rest"
_PARTS = {
    "budget_used_up": "budget",
    "next_batch": "waiting for batches",
    "dispatch": "dispatching steps",
    "read_results": "reading results",
    "act_on_results": "checks, log, agreement",
    "run_due_events": "events",
}


class _Round(NamedTuple):
    """Milliseconds per step of a bare round, and by part of the loop's round after it."""

    bare: float
    parts: dict[str, float]

    @property
    def loop(self) -> float:
        return sum(self.parts.values())


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Milliseconds per step of the loop, of its parts, and of a bare loop of the same program.

    State and batches are those of pretraining with this config. Medians over the rounds; `own` is
    the median difference between a round of the loop and the bare round before it.
    """
    del with_peers
    run = run_on_random_rows(config.with_microbatch(0), placement)
    task = run.task(initializer(run.network, config.seed, None))
    task = dataclasses.replace(task, step=_idle_step, evaluate=lambda params, final: {})
    # One more round, which is not counted: it compiles.
    length, never = 100 * config.bench.steps, 1e9
    steps = length * (config.bench.rounds + 1) + 1
    config = dataclasses.replace(
        run.config,
        budget=Budget(steps=steps, seconds=never),
        eval=Eval(every_seconds=never),
        checkpoint=Checkpoint(every_seconds=never),
    )
    rounds: list[_Round] = []
    with tempfile.TemporaryDirectory() as folder:
        timed = functools.partial(_TimedTrainer, rounds, length)
        train(task, config, Path(folder), placement, trainer=timed)
    own = [one.loop - one.bare for one in rounds[1:]]
    names = (*_PARTS.values(), _REST)
    found = {
        "steps": length,
        "arrays": len(jax.tree.leaves(task.init())),
        "bare": statistics.median(one.bare for one in rounds[1:]),
        "loop": statistics.median(one.loop for one in rounds[1:]),
        "own": statistics.median(own),
        "own_spread": [min(own), max(own)],
        "parts": {name: statistics.median(one.parts[name] for one in rounds[1:]) for name in names},
    }
    return {"loop": found}


def _idle_step(
    state: TrainState, batch: Batch, key: jax.Array, fraction: jax.Array
) -> tuple[TrainState, StepMetrics]:
    """Reads its arguments, because the compiler would drop one that is not used."""
    first = sum(array.ravel()[0] for array in batch.values()) + jax.random.key_data(key)[0]
    return state, StepMetrics(first.astype(fraction.dtype), fraction, fraction)


class _Stopwatch:
    """Seconds by part of the loop; a part inside another one counts for itself alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._part, self._since = _REST, time.perf_counter()

    def enter(self, part: str) -> str:
        """Counts for `part` from now on; returns the part before."""
        before, now = self._part, time.perf_counter()
        self._seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    def take(self) -> dict[str, float]:
        """The seconds of each part since the last call."""
        self.enter(self._part)
        taken, self._seconds = self._seconds, defaultdict(float)
        return taken


class _TimedTrainer(Trainer):
    """The loop, which times its parts, and a bare loop before each round of its own steps."""

    def __init__(self, rounds: list[_Round], length: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rounds, self.length, self.bare, self.watch = rounds, length, 0.0, _Stopwatch()
        for method, part in _PARTS.items():
            setattr(self, method, self.timed(part, getattr(self, method)))

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            outer = self.watch.enter(part)
            try:
                return method(*arguments, **named)
            finally:
                self.watch.enter(outer)

        return call

    def dispatch(self, batch: Batch) -> None:
        if self.step % self.length == 0:
            taken, scale = self.watch.take(), 1e3 / self.length
            if self.step:
                parts = {part: scale * seconds for part, seconds in taken.items()}
                self.rounds.append(_Round(self.bare, parts))
            self.bare = scale * self.bare_round(batch)
            self.watch.take()
        super().dispatch(batch)

    def bare_round(self, batch: Batch) -> float:
        """Seconds of as many steps in a `for` loop, on a batch that stays on the devices."""
        run_step = self.compiled_step(batch)
        batch = jax.device_put(batch, self.placement.by_rows)
        state, messages = jax.tree.map(lambda x: x + 0, self.state), self.agreement.outgoing()
        jax.block_until_ready(state)
        started = time.perf_counter()
        for index in range(self.length):
            number, fraction = np.int32(index), np.float32(0.5)
            state, metrics, _ = run_step(state, batch, self.seed, number, fraction, messages)
        jax.block_until_ready(metrics)
        return time.perf_counter() - started


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["loop"]
    least, most = found["own_spread"]
    rows = [["", "ms per step"]]
    rows += [["bare loop", f"{found['bare']:.4f}"], ["training loop", f"{found['loop']:.4f}"]]
    rows += [[f"  {name}", f"{value:.4f}"] for name, value in found["parts"].items()]
    return [
        f"loop              {found['own']:.3f} ms per step of its own ({least:.3f} to {most:.3f})",
        f"                  {found['steps']:,} steps per round, {found['arrays']} parameter arrays",
        table(rows),
    ]
