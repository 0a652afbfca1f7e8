"""Seconds of a training step: measured on devices at hand, or estimated for a slice of TPUs."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tlc_jax.data.tokenizer import FIRST_ORDINARY
from tlc_jax.planning.compile import Compiler
from tlc_jax.planning.tpu import Chip, ProgramCost
from tlc_jax.training.step import init_state

_STEPS = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a training step.

    Attributes:
      seconds: seconds of the step; None if they are unknown.
      how: where they are from, for people.
      parts: parts of an estimate in seconds: compute, collectives and uncounted instructions.
      least: seconds at the peak rate of the data sheets; None if that is unknown.
    """

    seconds: float | None
    how: str
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    least: float | None = None


def estimate(facts: Mapping[str, Any], chip: Chip, least: float | None) -> StepTime:
    """The time by the compiler's cycles, but at least what the peak rate allows.

    Args:
      facts: the fields of a `ProgramCost`, or {"unknown": why there are none}.
      chip: chip of the slice.
      least: seconds at the peak rate; None if that is unknown.
    """
    if "unknown" in facts:
        return StepTime(None, f"unknown: the program has {facts['unknown']}", {}, least)
    parts = ProgramCost(**facts).seconds(chip)
    # The sum takes nothing as hidden behind something else, so the estimate is on the slow side.
    total = sum(parts.values())
    if least and total < least:
        return StepTime(least, "peak rate, above which the compiler's cycles were", parts, least)
    return StepTime(total, "compiler cycles", parts, least)


def measure(compiler: Compiler, microbatch: int, vocab_size: int, seconds: float) -> StepTime:
    """The median of a few real steps on random tokens, after one that is not counted.

    Args:
      compiler: compiler of the step, for devices at hand.
      microbatch: the part of the batch to work on at once.
      vocab_size: exclusive upper bound of the random tokens.
      seconds: no step begins after these, except the first two; 0: nothing is run.
    """
    if not seconds:
        return StepTime(None, "unknown: plan.seconds=0")
    place, optimizer = compiler.place, compiler.optimizer
    shardings = jax.tree.map(lambda leaf: leaf.sharding, compiler.state)
    start = jax.jit(lambda params: init_state(params, optimizer), out_shardings=shardings)
    state = start(place.put_params(compiler.init()))
    random = np.random.default_rng(0)
    batch = place.put_batch(
        {
            name: random.integers(FIRST_ORDINARY, vocab_size, shape, np.int32)
            for name, shape in compiler.work.batch.items()
        }
    )
    # The program is the one that was planned, so it comes from the persistent cache.
    step = compiler.lower(microbatch).compile()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) <= _STEPS and (len(taken) < 2 or time.perf_counter() - begun < seconds):
        started = time.perf_counter()
        state, metrics, _ = step(state, batch, np.int32(0), np.float32(0.5), None)
        jax.block_until_ready((state, metrics))  # JAX dispatches asynchronously
        taken.append(time.perf_counter() - started)
    counted = taken[1:]  # the first step also allocates memory
    how = f"measured, {len(counted)} step{'s' if len(counted) > 1 else ''}"
    return StepTime(statistics.median(counted), how)
