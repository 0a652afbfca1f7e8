"""The benchmark clock: the step time is measured once, and seconds become steps.

It is paper 1's protocol; docs/budget.md states the rules.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core.devices import machine
from tlc_jax.core.files import Lock, path_of, write_json
from tlc_jax.training.step import Batch, CompiledStep

if TYPE_CHECKING:
    from tlc_jax.training.loop import Trainer

FILE = "benchmark.json"
"""The step time of a run, in its workdir."""
STABLE_WITHIN = 0.1
WARM_STEPS = 50
AVERAGED_STEPS = 100
BENCHMARK_STEPS = WARM_STEPS + AVERAGED_STEPS
"""The most steps that `benchmark_step` runs."""


def benchmark_step(timed_step: Callable[[], float], seconds: float) -> float:
    """Seconds per step once they are stable, averaged over 100 steps as in paper 1.

    The paper does not say when a step time is stable. Here it is stable when the medians of the
    last two groups of five steps differ by at most a tenth, and at the latest after 50 steps.

    Args:
      timed_step: runs one step, waits for its result, and returns the seconds it took.
      seconds: the budget to be converted. The measurement ends early, but after at least 10 steps,
        when it has taken a tenth of the budget.
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


def shared_measurement(settings: Config, meta: Mapping[str, Any]) -> Path | None:
    """The file for the step time of one model on one kind of data and devices.

    Runs that differ in their seed or their share of the text alone have the same file, so they get
    the same number of steps.

    Args:
      settings: config of the run, with impl.microbatch settled.
      meta: description of the model that its checkpoints carry.

    Returns:
      A path in budget.benchmarks; None where that is empty.
    """
    if not settings.budget.benchmarks:
        return None
    data, optimizer, impl = settings.data, settings.optimizer, settings.impl
    device = jax.devices()[0]
    decides = [
        meta,
        dataclasses.asdict(settings.model),  # with the dropout of the run
        dataclasses.asdict(settings.objective),
        settings.recipe,
        [data.train, data.length, data.buckets, data.max_ratio],
        [optimizer.batch_size, optimizer.clip_norm, optimizer.freeze],
        [impl.mesh, impl.sharding, settings.microbatch, impl.layer_loop, impl.remat],
        [impl.matmul, impl.attention, impl.dropout_keys],
        [device.device_kind, jax.device_count(), processes.count()],
        machine() if device.platform == "cpu" else "",
    ]
    text = json.dumps(decides, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return path_of(settings.budget.benchmarks) / f"{name}.json"


def step_time(trainer: Trainer) -> dict[str, Any]:
    """The step time of a run on the benchmark clock; see `shared_measurement`, `measured_once`."""
    shared = shared_measurement(trainer.settings, trainer.task.meta)
    return measured_once(trainer.workdir / FILE, lambda: _measure(trainer), shared)


def _measure(trainer: Trainer) -> float:
    """Seconds per step, measured on a copy of the state."""
    # Batches of several shapes take different times, so the benchmark runs the mixture of
    # shapes that training will see, one batch of each.
    compiled, batches = list[CompiledStep](), dict[CompiledStep, Batch]()
    for index in range(BENCHMARK_STEPS):
        batch = trainer.task.batch(index)
        compiled.append(trainer.compiled_step(batch))
        batches.setdefault(compiled[-1], batch)
    endless = itertools.cycle(compiled)
    state = jax.tree.map(lambda x: x + 0, trainer.state)
    messages = trainer.agreement.outgoing()

    def timed_step() -> float:
        nonlocal state
        run_step = next(endless)
        started = trainer.clock()
        state, metrics, _ = run_step(
            state, batches[run_step], trainer.seed, np.int32(0), np.float32(0), messages
        )
        jax.block_until_ready(metrics)
        return processes.of_first(trainer.clock() - started)

    return benchmark_step(timed_step, trainer.settings.budget.seconds)


def measured_once(
    own: Path, measure: Callable[[], float], shared: Path | None = None
) -> dict[str, Any]:
    """The seconds per step of a run, measured where they are not known yet.

    A restarted run reads its own file, so it converts its budget into the same steps. All processes
    use process 0's files.

    Args:
      own: file of the run.
      measure: () -> seconds per step.
      shared: file of all runs with this model, data and devices. The first of them measures, and
        the others wait for it.

    Returns:
      `seconds_per_step`, and `measured_by`, the name of the folder of the run that measured.
    """
    if known := _measurement(own):
        return known
    with ExitStack() as locks:
        if shared and processes.first():
            notice = f"waiting for another run that measures its step time for {shared}"
            locks.enter_context(
                Lock(
                    shared.with_suffix(".lock"),
                    on_wait=lambda: print(notice, file=sys.stderr, flush=True),
                )
            )
        known = _measurement(shared) if shared else {}
        if not known:
            if shared and processes.first():
                # Two measurements at once on one machine would slow each other down.
                locks.enter_context(Lock(shared.with_name(f"{platform.node()}.lock")))
            known = {"seconds_per_step": measure(), "measured_by": own.absolute().parent.name}
            if shared and processes.first():
                write_json(shared, known)
    if processes.first():
        write_json(own, known)
    return known


def _measurement(path: Path) -> dict[str, Any]:
    """What process 0 finds in a file of `measured_once`; empty without a measurement."""
    text = ""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(processes.share(text))
        # Older versions wrote the seconds alone.
        return (
            {"measured_by": path.absolute().parent.name, **found}
            if found["seconds_per_step"]
            else {}
        )
    except (ValueError, KeyError, TypeError):
        return {}
