"""The training loop, one for all commands that train: budget, step, log, evaluate, save.

It keeps one step in flight: while the devices work on a step, the host prepares the next one and
reads the result of the one before. A step's training seconds run from its dispatch, or from the
result before it if that came later, to its own result.

Several processes run the same loop and decide by what `clock.Agreement` made known to all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import optax

from tlc_jax import config
from tlc_jax.config.durations import Amounts, IsDue, every
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import StoppedEarly, TrainingFailed
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import load_ahead
from tlc_jax.models.network import Params
from tlc_jax.training.checkpoint import Checkpointer, StorageFailed
from tlc_jax.training.clock import (
    Accounting,
    Agreement,
    Budget,
    Clock,
    Interrupted,
    Message,
    StopRequest,
)
from tlc_jax.training.metrics_log import MetricsLog
from tlc_jax.training.optimizer import phase, schedule
from tlc_jax.training.step import (
    Batch,
    CompiledStep,
    StepInFlight,
    StepMetrics,
    TrainState,
    TrainStep,
    abstract_state,
    first_not_finite,
    jit_step,
    new_state,
    seed_bits,
)


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
      init: () -> new or restored parameters to start from.
      optimizer: the Optax transform whose `init` makes the optimizer state.
      step: the pure training step.
      batch: step number -> batch, by `Placement.for_step`. A background thread calls it ahead.
      cost: batch -> the amounts that training on its shapes spends, without seconds.
      evaluate: (parameters, whether training is over) -> metrics.
      meta: the description of the model that every checkpoint carries.
      pruning_level: fraction of the budget used -> the pruning level reached there; 0 before the
        first.
      prune_to: (state, level) -> the pruned state. Idempotent: applied again after a restart.
      after_evaluation: called with the step after each evaluation while training.
      reached_target: metrics of an evaluation -> whether training stops there.
      peak_flops: peak of all devices together, FLOP/s; None where it is unknown.
      seeds: seeds that train together, on the first axis of parameters, batches and metrics; empty:
        the config's seed alone, without such an axis.
      programs: the compiled steps by the shapes of their batch. Runs that differ in their seed
        alone may share them.
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
    after_evaluation: Callable[[int], None] = lambda step: None
    reached_target: Callable[[dict[str, Any]], bool] = lambda metrics: False
    peak_flops: float | None = None
    seeds: tuple[int, ...] = ()
    programs: dict[tuple[Any, ...], CompiledStep] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished run: its parameters, its number of steps, and its entries of result.json."""

    params: Params
    steps: int
    numbers: dict[str, Any]


def train(
    task: Task,
    settings: config.Config,
    workdir: Path,
    placement: Placement,
    clock: Clock = time.monotonic,
    trainer: Callable[..., Trainer] | None = None,
) -> Outcome:
    """Trains until the budget is used up, from the newest checkpoint in `workdir` if there is one.

    `trainer` makes the loop; None: `Trainer`. `tlc bench` times one whose parts it measures.

    Raises:
      StoppedEarly: a signal or a notice came, and everything is saved.
      TrainingFailed: the loss or the gradient is not finite.
      InputError: the checkpoint, the mesh or the batch size do not fit.
    """
    with contextlib.ExitStack() as resources:
        return (trainer or Trainer)(task, settings, workdir, placement, clock, resources).run()


class Trainer:
    """A training run: its state, its accounting and its policies."""

    def __init__(
        self,
        task: Task,
        settings: config.Config,
        workdir: Path,
        placement: Placement,
        clock: Clock,
        resources: contextlib.ExitStack,
    ):
        self.task, self.settings, self.workdir = task, settings, workdir
        self.placement, self.clock = placement, clock
        self.checkpointer = Checkpointer(workdir, settings.checkpoint)
        resources.callback(self.checkpointer.close)
        self.accounting = Accounting(clock)
        self.last_check = self.accounting.spent  # events due up to here have run
        self.stopped_by = ""
        self.progress: dict[str, Any] = {}  # as the newest checkpoint has it
        self.step, self.state = self.restore_or_init()
        self.saved_step = self.step if self.step else -1
        self.budget = Budget(settings.budget.limits(), settings.budget.charge)
        self.seconds_per_step: float | None = None  # charged for each step on the benchmark clock
        seeds = [seed_bits(seed) for seed in task.seeds]
        self.seed = np.stack(seeds) if seeds else seed_bits(settings.seed)
        self.in_flight: deque[StepInFlight] = deque()
        self.results: deque[tuple[int, np.ndarray, Any]] = deque()  # read, but not acted on
        self.costs: deque[tuple[int, Amounts]] = deque()  # of steps not in the agreed accounting
        self.cost: dict[CompiledStep, Amounts] = {}  # of a step, by its program
        self.fraction = 0.0  # of the budget used by all steps begun
        self.last_result, self.last_step_seconds = -math.inf, 0.0
        self.pruning_level = 0
        self.stop = StopRequest(settings.impl.notices)
        self.agreement = Agreement(placement, self.stop, self.message, self.checkpointer)
        self.phase = phase(settings.optimizer, settings.budget)
        rate = schedule(settings.optimizer, settings.model.hidden)
        self.log = MetricsLog(
            workdir,
            self.accounting,
            self.step,
            lambda fraction: float(rate(self.phase(fraction), np)),
            task.peak_flops,
            settings,
            self.progress,
        )
        resources.callback(self.log.close)
        evals, saves = settings.eval, settings.checkpoint
        log_due = lambda *_: self.log.unlogged_seconds >= settings.impl.log_seconds  # noqa: E731
        regular, kept = Amounts(saves.every_seconds, saves.every_steps), saves.keep_every_steps
        # In this order: a checkpoint saved at a step holds that step's evaluation as done.
        self.events: list[tuple[IsDue, Callable[[], None]]] = [
            (log_due, self.write_log),
            (every(Amounts(evals.every_seconds, evals.every_steps)), self.evaluate),
            (every(regular, Amounts(steps=kept)), self.save),
        ]
        if settings.budget.branches:
            from tlc_jax.training.branches import Branches  # few runs have some

            branches = Branches(self)
            self.events.insert(2, (branches.is_due, branches.save))
        if settings.impl.profile:
            from tlc_jax.training.trace import Trace  # few runs are traced

            trace = Trace(settings.impl.profile, workdir, self.synchronize, self.accounting)
            self.events.append((trace.is_due, trace.begin_or_end))
            resources.callback(trace.close)

    def restore_or_init(self) -> tuple[int, TrainState]:
        """The step and state of the newest checkpoint, or those of a new run, on the mesh."""
        abstract = abstract_state(self.task.init, self.task.optimizer, self.placement)
        if (restored := self.checkpointer.restore(abstract)) is not None:
            step, state, meta = restored
            self.progress = progress = meta["progress"]
            self.accounting = Accounting(self.clock, progress)
            # Checkpoints of version 0.1.0 call it `attended`.
            self.last_check = Amounts(**progress.get("last_check", progress.get("attended")))
            self.stopped_by = progress["stopped_by"]
            return step, state
        return 0, new_state(self.task.init, self.task.optimizer, self.placement)

    def run(self) -> Outcome:
        """Trains, saves, and evaluates at the end."""
        ahead = load_ahead(self.task.batch, self.step, self.settings.impl.prefetch)
        with self.stop, contextlib.closing(ahead) as batches:
            if self.settings.budget.converts_seconds:
                from tlc_jax.training.benchmark import step_time  # the other clock does without

                measured = step_time(self)
                self.log.benchmark = measured
                self.seconds_per_step = float(measured["seconds_per_step"])
                steps = round(self.settings.budget.seconds / self.seconds_per_step)
                self.budget = self.budget.in_steps(max(1, steps))
            with contextlib.suppress(Interrupted):
                if self.last_check.steps < self.accounting.spent.steps:
                    self.run_due_events()  # the evaluation that stopped an earlier session
                while not (self.agreement.stopping(self.step) or self.budget_used_up()):
                    self.dispatch(self.next_batch(batches))
                    # The devices are busy with this step while the host reads the one before.
                    self.read_results(leave=1)
                    self.act_on_results()
                    self.run_due_events()
            self.synchronize()
            self.write_log()
            self.save(final=True)
        agreed = self.agreement.stopping(self.step)
        # A stop may also come after the last step, perhaps to one process alone.
        if agreed or self.stop.received:
            if not self.stopped_by:
                self.log.row("stop", self.step, stopped_by="preemption")
            raise StoppedEarly(
                f"{self.stop.received or 'another process was told to stop'} at step {self.step}; "
                f"all is saved in {self.workdir}: run the same command again",
                by_all=agreed,
            )
        evals, params, stop = self.settings.eval, self.state.params, {"stopped_by": self.stopped_by}
        with self.accounting.measure("eval"):
            final = self.task.evaluate(params, True)
            curve = evals.examples and (evals.every_seconds or evals.every_steps)
            if curve and self.log.evaluated < self.step:
                # The last point of the curve is of the same rows as the points before it.
                final = {**final, "curve_end": self.task.evaluate(params, False)}
        numbers = {**self.log.numbers(), **stop, **self.agreement.straggler(), **final}
        self.log.row("stop", self.step, **stop, **final)
        return Outcome(self.state.params, self.step, numbers)

    def budget_used_up(self) -> bool:
        """Whether a limit is used up. Close to a limit it waits for steps in flight to be sure."""
        self.fraction, _ = self.used_by_agreement()
        if not self.stopped_by and self.fraction >= 1.0:
            self.synchronize()
            self.fraction, unit = self.used_by_agreement()
            self.stopped_by = unit if self.fraction >= 1.0 else ""
        return bool(self.stopped_by)

    def used_by_agreement(self, budget: Budget | None = None) -> tuple[float, str]:
        """The fraction of a budget used by all steps begun, and its unit; alike everywhere."""
        agreed = self.agreement.agreed
        spent = self.begun_by_agreement(agreed)
        seconds = len(self.costs) * (self.seconds_per_step or agreed.step_seconds)
        budget = budget or self.budget
        return budget.used(spent + Amounts(seconds=seconds), agreed.total + seconds)

    def begun_by_agreement(self, agreed: Message) -> Amounts:
        """What is spent on all steps begun, without the seconds of those that `agreed` lacks."""
        while self.costs and self.costs[0][0] <= agreed.spent.steps:
            self.costs.popleft()
        return sum((cost for _, cost in self.costs), agreed.spent)

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. Seconds that the devices wait for it are input, not training."""
        started = self.clock()
        batch = next(batches)
        waited = self.clock() - started
        if self.in_flight and cast(Any, self.in_flight[-1].metrics).is_ready():
            self.read_results(leave=0, idle_at_most=waited)
        elif not self.in_flight:
            self.accounting.seconds["input"] += waited
        return batch

    def dispatch(self, batch: Batch) -> None:
        """Starts a training step."""
        run_step = self.compiled_step(batch)
        self.prune(float(np.float32(min(1.0, self.fraction))))
        phase = np.float32(self.phase(self.fraction))
        outgoing = self.agreement.outgoing()
        started = self.clock()
        # The step carries this process's message to all others and returns everyone's.
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step):
            self.state, metrics, messages = run_step(
                self.state, batch, self.seed, np.int32(self.step), phase, outgoing
            )
        self.step += 1
        cost = self.cost.get(run_step) or self.cost.setdefault(run_step, self.task.cost(batch))
        self.in_flight.append(StepInFlight(self.step, cost, metrics, messages, started))
        self.costs.append((self.step, cost))

    def compiled_step(self, batch: Batch) -> CompiledStep:
        """The step compiled for the shapes of a batch."""
        shapes, programs = tuple((n, v.shape) for n, v in batch.items()), self.task.programs
        if shapes not in programs:
            self.synchronize()
            with self.accounting.measure("compile"), jax.set_mesh(self.placement.mesh):
                jitted = jit_step(self.task.step, self.state, self.placement)
                numbers = self.seed, np.int32(0), np.float32(0), self.agreement.outgoing()
                programs[shapes] = jitted.lower(self.state, batch, *numbers).compile()
                # Without it, waiting for a process that still compiles would count as training.
                processes.barrier()
            self.log.row("compile", self.step)
        return programs[shapes]

    def prune(self, fraction: float) -> None:
        """Prunes between two steps when the next level is reached; charged as training time."""
        level = self.task.pruning_level(fraction)
        if level == self.pruning_level:
            return
        self.synchronize()
        started = self.clock()
        self.state = jax.block_until_ready(self.task.prune_to(self.state, level))
        # On the benchmark clock only steps are charged.
        charged = None if self.seconds_per_step is None else 0.0
        self.accounting.add_training(Amounts(), self.clock() - started, charged)
        self.pruning_level = level

    def read_results(self, leave: int, idle_at_most: float = 0.0) -> None:
        """Waits for results until `leave` steps are in flight, and accounts for their seconds.

        Args:
          leave: the number of steps to leave in flight.
          idle_at_most: seconds that the host just waited for input. A step that ended meanwhile
            is charged what the step before it took; the rest of its time is input.
        """
        while len(self.in_flight) > leave:
            oldest = self.in_flight.popleft()
            metrics, messages = np.asarray(oldest.metrics), oldest.messages
            if messages is not None:  # of several processes
                messages = np.asarray(messages)
            now = self.clock()
            seconds = now - max(oldest.started, self.last_result)
            idle = min(idle_at_most, max(0.0, seconds - self.last_step_seconds))
            self.accounting.seconds["input"] += idle
            self.accounting.add_training(oldest.cost, seconds - idle, self.seconds_per_step)
            self.last_result, self.last_step_seconds = now, seconds - idle
            self.results.append((oldest.step, metrics, messages))

    def act_on_results(self) -> None:
        """Checks and logs the results that were read, and takes in the messages they carried.

        Processes read results at different times, so they act on them only here, where all have
        read the same ones.
        """
        while self.results:
            step, metrics, messages = self.results.popleft()
            named = StepMetrics(*metrics)
            if not np.isfinite(metrics).all():
                self.fail(step, named)
            self.log.add(named)
            self.agreement.receive(messages)

    def synchronize(self) -> None:
        """Waits for all steps in flight, and for the newest message of every process."""
        self.read_results(leave=0)
        self.act_on_results()
        self.agreement.exchange()

    def message(self) -> Message:
        """The present state of this process, for the others."""
        stop, accounting = self.stop.received is not None, self.accounting
        waited = accounting.seconds["input"]
        return Message(stop, waited, self.last_step_seconds, accounting.total, accounting.spent)

    def fail(self, step: int, metrics: StepMetrics) -> None:
        with contextlib.suppress(StorageFailed):
            self.checkpointer.wait()  # an earlier checkpoint may still be on its way
        whose, metrics = first_not_finite(metrics, self.task.seeds)
        self.log.row("stop", self.step, stopped_by="not finite", loss=float(metrics.loss))
        saved = self.saved_step
        kept = f"the checkpoint of step {saved} is kept" if saved >= 0 else "nothing was saved yet"
        raise TrainingFailed(
            f"step {step}: {whose}loss {metrics.loss}, gradient norm {metrics.gradient_norm}; "
            f"{kept}. Lower optimizer.learning_rate or set optimizer.clip_norm",
            by_all=True,
        )

    def run_due_events(self) -> None:
        """Runs the events that became due since the last check."""
        before, now = self.last_check, self.begun_by_agreement(self.agreement.agreed)
        self.last_check = now
        try:
            for is_due, run in self.events:
                if is_due(before, now):
                    run()
        except Interrupted:
            self.last_check = before  # the next session evaluates instead
            raise

    def write_log(self) -> None:
        self.log.log(self.step, *self.budget.used(self.accounting.spent, self.accounting.total))

    def evaluate(self) -> None:
        """Evaluates. A stop interrupts it, since it may take longer than the machine has left.

        Several processes finish theirs, because none of them can leave the others alone in it.
        """
        self.synchronize()
        guard = contextlib.nullcontext() if processes.several() else self.stop.interrupting()
        with self.accounting.measure("eval"), guard:
            metrics = self.task.evaluate(self.state.params, False)
        self.log.row("eval", self.step, **metrics)
        self.task.after_evaluation(self.step)
        if self.task.reached_target(metrics):
            self.stopped_by = "target"

    def meta(self) -> dict[str, Any]:
        """The metadata of a checkpoint of this step."""
        own = {"last_check": dataclasses.asdict(self.last_check), "stopped_by": self.stopped_by}
        return {**self.task.meta, "progress": {**self.accounting.save(), **self.log.save(), **own}}

    def save(self, final: bool = False) -> None:
        """Starts saving this step; if `final`, the checkpoint is on disk when this returns."""
        self.synchronize()
        started = self.saved_step == self.step
        if started and not final:
            return
        meta = self.meta()
        with self.accounting.measure("checkpoint"):
            self.log.flush()
            if final:
                self.checkpointer.save_and_wait(self.step, self.state, meta, started)
            elif not self.checkpointer.try_to_save(self.step, self.state, meta):
                return
        self.saved_step = self.step
        if not started:
            self.log.row("checkpoint", self.step)
