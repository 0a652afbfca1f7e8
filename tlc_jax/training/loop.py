"""The training loop: one for every stage that trains.

It keeps one step in flight: while the device works on a step, the host prepares the next and reads the result of the
one before. A step's training seconds run from its start, or from the result before it where that came later, to its
result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from tlc_jax import config
from tlc_jax.data.batches import load_ahead
from tlc_jax.durations import Amounts, due
from tlc_jax.errors import StoppedEarly, TrainingFailed
from tlc_jax.models.network import Params
from tlc_jax.training import mesh as meshes
from tlc_jax.training.budget import (
    BENCHMARK_STEPS,
    Budget,
    Clock,
    Ledger,
    benchmark_step,
    keep_benchmark,
    known_benchmark,
)
from tlc_jax.training.checkpoint import Checkpointer
from tlc_jax.training.metrics import MetricsWriter, ProgressLine
from tlc_jax.training.optimizer import schedule
from tlc_jax.training.signals import StopRequest
from tlc_jax.training.step import StepMetrics, TrainState, TrainStep, init_state, step_key

HostBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
      init: () -> fresh or restored parameters to start from.
      optimizer: its `init` makes the optimizer state.
      step: the pure training step.
      batch: step number -> host batch.
      cost: host batch -> what training on it spends (all but seconds).
      evaluate: (parameters, whether training is over) -> metrics.
      meta: what every checkpoint says about the model.
      enough: metrics of an evaluation -> whether to stop there, whatever is left of the budget.
      peak_flops: of all devices together, FLOP/s; None where unknown.
    """

    init: Callable[[], Params]
    optimizer: optax.GradientTransformation
    step: TrainStep
    batch: Callable[[int], HostBatch]
    cost: Callable[[HostBatch], Amounts]
    evaluate: Callable[[Params, bool], dict[str, Any]]
    meta: dict[str, Any]
    enough: Callable[[dict[str, Any]], bool] = lambda metrics: False
    peak_flops: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run: its parameters, and the numbers that every training stage reports."""

    params: Params
    steps: int
    numbers: dict[str, Any]


@dataclasses.dataclass
class _Flight:
    """A step that was dispatched and whose result has not been read."""

    step: int
    cost: Amounts
    metrics: StepMetrics
    started: float


def train(task: Task, settings: config.Config, workdir: Path, mesh: Mesh, clock: Clock = time.monotonic) -> Outcome:
    """Trains until the budget is used up, resuming from the newest checkpoint in `workdir` if there is one.

    Raises:
      StoppedEarly: SIGINT or SIGTERM came, and everything is saved.
      TrainingFailed: the loss or the gradient is no number.
      InputError: a checkpoint, the mesh or the batch size do not fit.
    """
    with contextlib.closing(Checkpointer(workdir, settings.checkpoint)) as checkpointer:
        run = _Run(task, settings, workdir, mesh, clock, checkpointer)
        with contextlib.closing(run.metrics), contextlib.closing(run.progress):
            return run.to_the_end()


class _Run:
    def __init__(
        self,
        task: Task,
        settings: config.Config,
        workdir: Path,
        mesh: Mesh,
        clock: Clock,
        checkpointer: Checkpointer,
    ):
        self.task, self.settings, self.mesh, self.clock, self.checkpointer = task, settings, mesh, clock, checkpointer
        self.workdir = workdir
        self.ledger = Ledger(clock)
        self.stopped_by = ""
        self.step, self.state = self._start()
        self.budget = Budget.of(settings.budget)
        self.seconds_per_step: float | None = None
        self.flights: deque[_Flight] = deque()
        self.last_result = -math.inf
        self.last_step_seconds = 0.0
        self.attended = self.ledger.spent
        self.recent: list[StepMetrics] = []
        self.logged_seconds, self.logged_tokens = self.ledger.seconds["train"], self.ledger.spent.tokens
        self.saved_step = self.step if self.step else -1
        self.compiled: dict[tuple[Any, ...], Callable[..., tuple[TrainState, StepMetrics]]] = {}
        self.learning_rate = schedule(settings.optimizer, settings.model.hidden)
        self.metrics = MetricsWriter(workdir, self.step, settings.impl.tensorboard)
        self.progress = ProgressLine()

    def _start(self) -> tuple[int, TrainState]:
        """The newest checkpoint, or a fresh state, placed on the mesh."""
        abstract_params = jax.eval_shape(self.task.init)
        params_shardings = meshes.parameter_shardings(abstract_params, self.mesh)
        self.shardings = TrainState(
            params_shardings,
            meshes.optimizer_shardings(self.task.optimizer, abstract_params, params_shardings, self.mesh),
        )
        abstract = jax.eval_shape(lambda: init_state(self.task.init(), self.task.optimizer))
        abstract = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract, self.shardings
        )
        restored = self.checkpointer.restore(abstract)
        if restored is not None:
            step, state, meta = restored
            self.ledger = Ledger(self.clock, meta["progress"])
            self.stopped_by = meta["progress"]["stopped_by"]
            return step, state
        params = jax.device_put(self.task.init(), params_shardings)
        state = jax.jit(lambda p: init_state(p, self.task.optimizer), out_shardings=self.shardings)(params)
        return 0, state

    def to_the_end(self) -> Outcome:
        """Trains, saves, and sums up."""
        with StopRequest() as stop, contextlib.closing(self._batches()) as batches:
            if self.settings.budget.clock == "benchmark":
                self.seconds_per_step = self._benchmarked_step()
                self.budget = self.budget.in_steps(max(1, round(self.settings.budget.seconds / self.seconds_per_step)))
            while not (stop.received or self._finished()):
                batch = self._next(batches)
                self._dispatch(batch)
                self._collect(leave=1)
                self._attend()
            self._collect(leave=0)
            self._log()
            self._save()
            self.checkpointer.wait()
        if stop.received and not self.stopped_by:
            self._row("stop", stopped_by="preemption")
            raise StoppedEarly(
                f"{stop.received} at step {self.step}; all is saved in {self.workdir}: run the same command again"
            )
        with self.ledger.booked("eval"):
            final = self.task.evaluate(self.state.params, True)
        numbers = {**self._numbers(), **final}
        self._row("stop", stopped_by=self.stopped_by, **final)
        return Outcome(self.state.params, self.step, numbers)

    # One step -------------------------------------------------------------------------------------------------------

    def _batches(self) -> Generator[HostBatch, None, None]:
        return load_ahead(self.task.batch, self.step, self.settings.impl.prefetch)

    def _next(self, batches: Iterator[HostBatch]) -> HostBatch:
        """The next batch. Seconds in which the device had to wait for it are input, not training."""
        started = self.clock()
        batch = next(batches)
        waited = self.clock() - started
        if self.flights and cast(Any, self.flights[-1].metrics.loss).is_ready():
            self._collect(leave=0, idle_at_most=waited)
        elif not self.flights:
            self.ledger.seconds["input"] += waited
        return batch

    def _dispatch(self, batch: HostBatch) -> None:
        run_step = self._compiled(batch)
        fraction = np.float32(min(1.0, self.budget.used(self.ledger, self._in_flight())[0]))
        started = self.clock()
        self.state, metrics = run_step(self.state, meshes.put_batch(batch, self.mesh), np.int32(self.step), fraction)
        self.step += 1
        self.flights.append(_Flight(self.step, self.task.cost(batch), metrics, started))

    def _compiled(self, batch: HostBatch) -> Callable[..., tuple[TrainState, StepMetrics]]:
        shapes = tuple((name, value.shape) for name, value in batch.items())
        if shapes not in self.compiled:
            self._collect(leave=0)
            seed, step = self.settings.seed, self.task.step

            def keyed(state: TrainState, batch: Any, index: Any, fraction: Any) -> tuple[TrainState, StepMetrics]:
                return step(state, batch, step_key(seed, index), fraction)

            with self.ledger.booked("compile"):
                jitted = jax.jit(keyed, donate_argnums=0, out_shardings=(self.shardings, None))
                arguments = (self.state, meshes.put_batch(batch, self.mesh), np.int32(0), np.float32(0))
                self.compiled[shapes] = jitted.lower(*arguments).compile()
            self._row("compile")
        return self.compiled[shapes]

    def _collect(self, leave: int, idle_at_most: float = 0.0) -> None:
        """Reads results until `leave` steps are in flight, and books their seconds.

        A step that ended unseen while the host waited `idle_at_most` seconds for input is booked at the pace of the
        step before it.
        """
        while len(self.flights) > leave:
            flight = self.flights.popleft()
            metrics = jax.device_get(flight.metrics)
            now = self.clock()
            seconds = now - max(flight.started, self.last_result)
            idle = min(idle_at_most, max(0.0, seconds - self.last_step_seconds))
            self.ledger.seconds["input"] += idle
            self.ledger.finish_steps(flight.cost, seconds - idle, self.seconds_per_step)
            self.last_result, self.last_step_seconds = now, seconds - idle
            if not (math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)):
                self._fail(flight.step, metrics)
            self.recent.append(metrics)

    def _fail(self, step: int, metrics: StepMetrics) -> None:
        self.checkpointer.wait()
        self._row("stop", stopped_by="not finite", loss=float(metrics.loss))
        kept = f"the checkpoint of step {self.saved_step} is kept" if self.saved_step >= 0 else "nothing was saved yet"
        raise TrainingFailed(
            f"step {step}: loss {metrics.loss}, gradient norm {metrics.gradient_norm}; {kept}. "
            "Lower optimizer.learning_rate or set optimizer.clip_norm"
        )

    # The budget -----------------------------------------------------------------------------------------------------

    def _in_flight(self) -> Amounts:
        amounts = Amounts()
        for flight in self.flights:
            amounts += dataclasses.replace(flight.cost, seconds=self.seconds_per_step or self.last_step_seconds)
        return amounts

    def _finished(self) -> bool:
        """Whether a limit is used up. Near the end of a time limit it waits for steps in flight to be sure."""
        if not self.stopped_by and self.budget.used(self.ledger, self._in_flight())[0] >= 1.0:
            self._collect(leave=0)
            fraction, unit = self.budget.used(self.ledger)
            self.stopped_by = unit if fraction >= 1.0 else ""
        return bool(self.stopped_by)

    def _benchmarked_step(self) -> float:
        """Seconds that a step is charged on the benchmark clock, measured on a copy of the state and kept."""
        path = self.workdir / "benchmark.json"
        seconds = self.settings.budget.seconds
        if (known := known_benchmark(path)) is None:
            # Batches of several shapes cost differently: they are timed in the mixture that training will see.
            steps = []
            placed: dict[Any, Any] = {}
            for index in range(BENCHMARK_STEPS):
                batch = self.task.batch(index)
                run_step = self._compiled(batch)
                if run_step not in placed:
                    placed[run_step] = meshes.put_batch(batch, self.mesh)
                steps.append(run_step)
            state = [jax.tree.map(lambda x: x + 0, self.state)]
            endless = itertools.cycle(steps)

            def one_step() -> None:
                run_step = next(endless)
                state[0], metrics = run_step(state[0], placed[run_step], np.int32(0), np.float32(0))
                jax.block_until_ready(metrics)

            known = benchmark_step(one_step, seconds, self.clock)
            keep_benchmark(path, known)
        return known

    # Between steps --------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Logs, evaluates and saves where that is due."""
        now = self.ledger.spent + dataclasses.replace(self._in_flight(), seconds=0.0)
        before, self.attended = self.attended, now
        if self.ledger.seconds["train"] - self.logged_seconds >= self.settings.impl.log_seconds:
            self._log()
        evals, checkpoints = self.settings.eval, self.settings.checkpoint
        if due(Amounts(seconds=evals.every_seconds, steps=evals.every_steps), before, now):
            self._collect(leave=0)
            with self.ledger.booked("eval"):
                values = self.task.evaluate(self.state.params, False)
            self._row("eval", **values)
            if self.task.enough(values):
                self.stopped_by = "target"
        if due(Amounts(seconds=checkpoints.every_seconds, steps=checkpoints.every_steps), before, now):
            self._collect(leave=0)
            self._save()

    def _save(self) -> None:
        if self.saved_step == self.step:
            return
        with self.ledger.booked("checkpoint"):
            progress = {**self.ledger.save(), "stopped_by": self.stopped_by}
            self.checkpointer.save(self.step, self.state, {**self.task.meta, "progress": progress})
        self.saved_step = self.step
        self._row("checkpoint")

    def _log(self) -> None:
        if not self.recent:
            return
        spent, trained = self.ledger.spent, self.ledger.seconds["train"]
        seconds, tokens = trained - self.logged_seconds, spent.tokens - self.logged_tokens
        pace = tokens / seconds if seconds > 0 else math.nan
        fraction, unit = self.budget.used(self.ledger)
        values = {
            "loss": float(np.mean([m.loss for m in self.recent])),
            "accuracy": float(np.mean([m.accuracy for m in self.recent])),
            "gradient_norm": float(self.recent[-1].gradient_norm),
            "learning_rate": float(self.learning_rate(jnp.float32(min(1.0, fraction)))),
            "tokens_per_second": pace,
            "mfu": self._mfu(),
        }
        self._row("train", **values)
        left = trained * (1 - fraction) / fraction if fraction > 0 else math.nan
        mfu = f" | mfu {values['mfu']:.1%}" if values["mfu"] is not None else ""
        self.progress.show(
            f"step {self.step:,} | {min(1.0, fraction):.0%} of {unit} | {left:.0f} s left | loss {values['loss']:.3f}"
            f" | {pace:,.0f} tokens/s{mfu}",
            self.clock(),
        )
        self.recent = []
        self.logged_seconds, self.logged_tokens = trained, spent.tokens

    def _row(self, event: str, **values: Any) -> None:
        self.metrics.write(
            event,
            self.step,
            train_seconds=self.ledger.spent.seconds,
            total_seconds=self.ledger.total,
            tokens=self.ledger.spent.tokens,
            **values,
        )

    def _mfu(self) -> float | None:
        seconds = self.ledger.seconds["train"]
        if self.task.peak_flops is None or seconds == 0:
            return None
        return self.ledger.spent.flops / seconds / self.task.peak_flops

    def _numbers(self) -> dict[str, Any]:
        spent, seconds = self.ledger.spent, self.ledger.save()["seconds"]
        return {
            "steps": spent.steps,
            "examples": spent.examples,
            "tokens": spent.tokens,
            "epochs": spent.epochs,
            "flops": spent.flops,
            "train_seconds": spent.seconds,
            "seconds": seconds,
            "tokens_per_second": spent.tokens / seconds["train"] if seconds["train"] else None,
            "mfu": self._mfu(),
            "stopped_by": self.stopped_by,
        }
