"""The training loop: one for every stage that trains.

It keeps one step in flight: while the device works on a step, the host prepares the next and reads the result of the
one before. A step's training seconds run from its start, or from the result before it where that came later, to its
result.

In a run of several processes all go through the same loop, and decide by what `agreement` made known to all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tlc_jax import config
from tlc_jax.config.durations import Amounts, due
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import StoppedEarly, TrainingFailed
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import load_ahead
from tlc_jax.models.network import Params
from tlc_jax.training.agreement import Messenger, Note
from tlc_jax.training.budget import (
    BENCHMARK_STEPS,
    Budget,
    Clock,
    Ledger,
    benchmark_step,
    keep_benchmark,
    known_benchmark,
)
from tlc_jax.training.checkpoint import Checkpointer, StorageFailed
from tlc_jax.training.compilation import abstract_state, jit_step
from tlc_jax.training.journal import Journal
from tlc_jax.training.loss import Batch
from tlc_jax.training.optimizer import schedule
from tlc_jax.training.signals import Interrupted, StopRequest
from tlc_jax.training.step import StepMetrics, TrainState, TrainStep, init_state

CompiledStep = Callable[..., tuple[TrainState, StepMetrics, Any]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
      init: () -> fresh or restored parameters to start from.
      optimizer: its `init` makes the optimizer state.
      step: the pure training step.
      batch: step number -> batch, placed. Called by a thread that works ahead.
      cost: batch -> what training on it spends (all but seconds).
      evaluate: (parameters, whether training is over) -> metrics.
      meta: what every checkpoint says about the model.
      pruning_level: fraction of the budget used -> the pruning level reached there; 0 before the first.
      prune_to: (state, level) -> the pruned state. Idempotent: applied again after a restart.
      reached_target: metrics of an evaluation -> whether training stops there.
      peak_flops: of all devices together, FLOP/s; None where unknown.
    """

    init: Callable[[], Params]
    optimizer: optax.GradientTransformation
    step: TrainStep
    batch: Callable[[int], Batch]
    cost: Callable[[Batch], Amounts]
    evaluate: Callable[[Params, bool], dict[str, Any]]
    meta: dict[str, Any]
    pruning_level: Callable[[float], int] = lambda fraction: 0
    prune_to: Callable[[TrainState, int], TrainState] = lambda state, level: state
    reached_target: Callable[[dict[str, Any]], bool] = lambda metrics: False
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
    notes: Any
    started: float


def train(
    task: Task,
    settings: config.Config,
    workdir: Path,
    placement: Placement,
    clock: Clock = time.monotonic,
) -> Outcome:
    """Trains until the budget is used up, resuming from the newest checkpoint in `workdir` if there is one.

    Raises:
      StoppedEarly: SIGINT or SIGTERM came, and everything is saved.
      TrainingFailed: the loss or the gradient is not finite.
      InputError: a checkpoint, the mesh or the batch size do not fit.
    """
    with contextlib.closing(Checkpointer(workdir, settings.checkpoint)) as checkpointer:
        run = _Run(task, settings, workdir, placement, clock, checkpointer)
        with contextlib.closing(run.journal):
            return run.to_the_end()


class _Run:
    def __init__(
        self,
        task: Task,
        settings: config.Config,
        workdir: Path,
        placement: Placement,
        clock: Clock,
        checkpointer: Checkpointer,
    ):
        self.task, self.settings, self.workdir = task, settings, workdir
        self.placement, self.clock, self.checkpointer = placement, clock, checkpointer
        self.ledger = Ledger(clock)
        self.attended = self.ledger.spent
        self.stopped_by = ""
        self.step, self.state = self._start()
        self.budget = Budget.of(settings.budget)
        self.seconds_per_step: float | None = None
        self.flights: deque[_Flight] = deque()
        self.results: deque[tuple[int, StepMetrics, Any]] = deque()
        self.costs: deque[tuple[int, Amounts]] = deque()
        self.last_result, self.last_step_seconds = -math.inf, 0.0
        self.saved_step = self.step if self.step else -1
        self.compiled: dict[tuple[Any, ...], CompiledStep] = {}
        self.pruning_level = 0
        self.stop = StopRequest()
        self.messenger = Messenger(placement)
        self.notes: list[Note] = [self._note()]
        rate = schedule(settings.optimizer, settings.model.hidden)
        self.journal = Journal(
            workdir,
            self.ledger,
            self.step,
            lambda fraction: float(rate(jnp.float32(fraction))),
            task.peak_flops,
            settings.impl.tensorboard,
        )

    def _start(self) -> tuple[int, TrainState]:
        """The newest checkpoint, or a fresh state, placed on the placement."""
        abstract = abstract_state(self.task.init, self.task.optimizer, self.placement)
        restored = self.checkpointer.restore(abstract)
        if restored is not None:
            step, state, meta = restored
            self.ledger = Ledger(self.clock, meta["progress"])
            self.attended = Amounts(**meta["progress"]["attended"])
            self.stopped_by = meta["progress"]["stopped_by"]
            return step, state
        params = self.placement.put_params(self.task.init())
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        fresh = jax.jit(lambda p: init_state(p, self.task.optimizer), out_shardings=shardings)
        return 0, fresh(params)

    def to_the_end(self) -> Outcome:
        """Trains, saves, and sums up."""
        ahead = load_ahead(self.task.batch, self.step, self.settings.impl.prefetch)
        with self.stop, contextlib.closing(ahead) as batches:
            if self.settings.budget.converts_seconds:
                self.seconds_per_step = self._benchmarked_step()
                steps = round(self.settings.budget.seconds / self.seconds_per_step)
                self.budget = self.budget.in_steps(max(1, steps))
            with contextlib.suppress(Interrupted):
                if self.attended.steps < self.ledger.spent.steps:
                    self._attend()  # the evaluation that an earlier session was stopped in
                while not (self._stopping() or self._finished()):
                    self._dispatch(self._next(batches))
                    self._collect(leave=1)
                    self._take_in()
                    self._attend()
            self._settle()
            self._log()
            self._save(for_good=True)
        if self._stopping() and not self.stopped_by:
            self.journal.row("stop", self.step, stopped_by="preemption")
            raise StoppedEarly(
                f"{self.stop.received or 'another process was told to stop'} at step {self.step}; "
                f"all is saved in {self.workdir}: run the same command again",
                by_all=True,
            )
        with self.ledger.booked("eval"):
            final = self.task.evaluate(self.state.params, True)
        stop = {"stopped_by": self.stopped_by}
        numbers = {**self.journal.numbers(), **stop, **self._waits(), **final}
        self.journal.row("stop", self.step, **stop, **final)
        return Outcome(self.state.params, self.step, numbers)

    # One step -------------------------------------------------------------------------------------------------------

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. Seconds in which the device had to wait for it are input, not training."""
        started = self.clock()
        batch = next(batches)
        waited = self.clock() - started
        if self.flights and cast(Any, self.flights[-1].metrics.loss).is_ready():
            self._collect(leave=0, idle_at_most=waited)
        elif not self.flights:
            self.ledger.seconds["input"] += waited
        return batch

    def _dispatch(self, batch: Batch) -> None:
        run_step = self._compiled(batch)
        fraction = np.float32(min(1.0, self.budget.used(self._agreed(), self._in_flight())[0]))
        self._prune(float(fraction))
        notes = self.messenger.send(self._note())
        started = self.clock()
        self.state, metrics, notes = run_step(
            self.state, batch, np.int32(self.step), fraction, notes
        )
        self.step += 1
        cost = self.task.cost(batch)
        self.flights.append(_Flight(self.step, cost, metrics, notes, started))
        self.costs.append((self.step, cost))

    def _prune(self, fraction: float) -> None:
        """Prunes between two steps where the next level is reached; its time is training time."""
        level = self.task.pruning_level(fraction)
        if level == self.pruning_level:
            return
        self._settle()
        started = self.clock()
        self.state = jax.block_until_ready(self.task.prune_to(self.state, level))
        self.ledger.finish_steps(Amounts(), self.clock() - started, self.seconds_per_step and 0.0)
        self.pruning_level = level

    def _compiled(self, batch: Batch) -> CompiledStep:
        shapes = tuple((name, value.shape) for name, value in batch.items())
        if shapes not in self.compiled:
            self._settle()
            with self.ledger.booked("compile"), jax.set_mesh(self.placement.mesh):
                jitted = jit_step(self.task.step, self.settings.seed, self.state, self.placement)
                notes = self.messenger.send(self._note())
                self.compiled[shapes] = jitted.lower(
                    self.state, batch, np.int32(0), np.float32(0), notes
                ).compile()
                processes.barrier()  # or waiting for a process that still compiles would count as training
            self.journal.row("compile", self.step)
        return self.compiled[shapes]

    def _collect(self, leave: int, idle_at_most: float = 0.0) -> None:
        """Reads results until `leave` steps are in flight, and books their seconds.

        A step that ended unseen while the host waited `idle_at_most` seconds for input is booked at the pace of the
        step before it.
        """
        while len(self.flights) > leave:
            flight = self.flights.popleft()
            metrics, notes = jax.device_get((flight.metrics, flight.notes))
            now = self.clock()
            seconds = now - max(flight.started, self.last_result)
            idle = min(idle_at_most, max(0.0, seconds - self.last_step_seconds))
            self.ledger.seconds["input"] += idle
            self.ledger.finish_steps(flight.cost, seconds - idle, self.seconds_per_step)
            self.last_result, self.last_step_seconds = now, seconds - idle
            self.results.append((flight.step, metrics, notes))

    def _take_in(self) -> None:
        """Looks at the results that were read, and at what all processes said with them.

        Called where every process has read the same ones, however early it did so.
        """
        while self.results:
            step, metrics, notes = self.results.popleft()
            if not (math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)):
                self._fail(step, metrics)
            self.journal.add(metrics)
            if notes is not None:
                self.notes = self.messenger.read(notes)

    def _settle(self) -> None:
        """Waits for all steps in flight, and for all processes to know what each of them knows."""
        self._collect(leave=0)
        self._take_in()
        if processes.several():
            self.notes = self.messenger.exchange(self._note())

    def _fail(self, step: int, metrics: StepMetrics) -> None:
        with contextlib.suppress(StorageFailed):
            self.checkpointer.wait()
        self.journal.row("stop", self.step, stopped_by="not finite", loss=float(metrics.loss))
        kept = "nothing was saved yet"
        if self.saved_step >= 0:
            kept = f"the checkpoint of step {self.saved_step} is kept"
        raise TrainingFailed(
            f"step {step}: loss {metrics.loss}, gradient norm {metrics.gradient_norm}; {kept}. "
            "Lower optimizer.learning_rate or set optimizer.clip_norm",
            by_all=True,
        )

    # What all processes know ----------------------------------------------------------------------------------------

    def _note(self) -> Note:
        ledger = self.ledger
        stop = self.stop.received is not None
        return Note(
            stop, ledger.seconds["input"], self.last_step_seconds, ledger.total, ledger.spent
        )

    def _agreed(self) -> Note:
        """What decisions are made by: process 0's word; in a run of one, the present."""
        return self.notes[0] if processes.several() else self._note()

    def _stopping(self) -> bool:
        if processes.several():
            return any(note.stop for note in self.notes)
        return self.stop.received is not None

    def _in_flight(self) -> Amounts:
        """The steps that were begun and are not in the agreed books yet."""
        agreed = self._agreed()
        while self.costs and self.costs[0][0] <= agreed.spent.steps:
            self.costs.popleft()
        amounts = Amounts()
        for _, cost in self.costs:
            amounts += dataclasses.replace(cost, seconds=self.seconds_per_step or agreed.pace)
        return amounts

    def _waits(self) -> dict[str, Any]:
        """Of a run of several processes: who kept the others waiting for its input most, and for how long."""
        if not processes.several():
            return {}
        waits = [note.waited for note in self.notes]
        slowest = int(np.argmax(waits))
        return {
            "straggler": {"process": slowest, "seconds_waited_for": waits[slowest] - min(waits)}
        }

    # The budget -----------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        """Whether a limit is used up. Near the end of a time limit it waits for steps in flight to be sure."""
        if not self.stopped_by and self.budget.used(self._agreed(), self._in_flight())[0] >= 1.0:
            self._settle()
            fraction, unit = self.budget.used(self._agreed())
            self.stopped_by = unit if fraction >= 1.0 else ""
        return bool(self.stopped_by)

    def _benchmarked_step(self) -> float:
        """Seconds that a step is charged on the benchmark clock, measured on a copy of the state and kept."""
        path = self.workdir / "benchmark.json"
        known = _of_first(known_benchmark(path) or 0.0)
        if not known:
            # Batches of several shapes cost differently: they are timed in the mixture that training will see.
            steps = []
            kept: dict[Any, Batch] = {}
            for index in range(BENCHMARK_STEPS):
                batch = self.task.batch(index)
                run_step = self._compiled(batch)
                kept.setdefault(run_step, batch)
                steps.append(run_step)
            state = [jax.tree.map(lambda x: x + 0, self.state)]
            endless = itertools.cycle(steps)
            notes = self.messenger.send(self._note())

            def timed_step() -> float:
                run_step = next(endless)
                started = self.clock()
                state[0], metrics, _ = run_step(
                    state[0], kept[run_step], np.int32(0), np.float32(0), notes
                )
                jax.block_until_ready(metrics)
                return _of_first(self.clock() - started)

            known = benchmark_step(timed_step, self.settings.budget.seconds)
            if processes.first():
                keep_benchmark(path, known)
        return known

    # Between steps --------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Logs, evaluates and saves where that is due."""
        now = self._agreed().spent + dataclasses.replace(self._in_flight(), seconds=0.0)
        before = self.attended
        if self.journal.unlogged_seconds >= self.settings.impl.log_seconds:
            self._log()
        evals, checkpoints = self.settings.eval, self.settings.checkpoint
        if due(Amounts(seconds=evals.every_seconds, steps=evals.every_steps), before, now):
            self._settle()
            values = self._evaluate()
            self.journal.row("eval", self.step, **values)
            if self.task.reached_target(values):
                self.stopped_by = "target"
        self.attended = now
        regular = Amounts(seconds=checkpoints.every_seconds, steps=checkpoints.every_steps)
        if due(regular, before, now) or due(
            Amounts(steps=checkpoints.keep_every_steps), before, now
        ):
            self._settle()
            self._save()

    def _evaluate(self) -> dict[str, Any]:
        """An evaluation, which a stop breaks off: it may take longer than the machine has left.

        Several processes finish theirs, since no one of them can leave the others alone in it.
        """
        with (
            self.ledger.booked("eval"),
            contextlib.nullcontext() if processes.several() else self.stop.interrupting(),
        ):
            return self.task.evaluate(self.state.params, False)

    def _save(self, for_good: bool = False) -> None:
        """Starts saving; `for_good`, it is on disk when this returns."""
        begun = self.saved_step == self.step
        if begun and not for_good:
            return
        attended = dataclasses.asdict(self.attended)
        progress = {**self.ledger.save(), "attended": attended, "stopped_by": self.stopped_by}
        meta = {**self.task.meta, "progress": progress}
        with self.ledger.booked("checkpoint"):
            if for_good:
                self.checkpointer.keep_for_good(self.step, self.state, meta, begun)
            elif not self.checkpointer.keep(self.step, self.state, meta):
                return
        self.saved_step = self.step
        if not begun:
            self.journal.row("checkpoint", self.step)

    def _log(self) -> None:
        self.journal.log(self.step, *self.budget.used(self.ledger))


def _of_first(value: float) -> float:
    """Process 0's value."""
    return float(processes.gather(np.array(value, np.float64))[0])
