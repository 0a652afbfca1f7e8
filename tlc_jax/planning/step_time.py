"""What a training step takes: measured on devices at hand, or estimated from a compiled TPU program."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tlc_jax.core.mesh import Placement
from tlc_jax.data.tokenizer import FIRST_ORDINARY
from tlc_jax.planning.compile import Program
from tlc_jax.planning.tpu import Chip, ProgramCost
from tlc_jax.training.step import abstract_state, init_state, jit_step

_STEPS = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a training step.

    Attributes:
      seconds: None where they are not known.
      how: where they are from, for people.
      parts: of an estimate: compute, collectives and uncounted instructions, in seconds.
      least: at the peak rate of the data sheets; None where that is unknown.
    """

    seconds: float | None
    how: str
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    least: float | None = None


def estimate(
    facts: Mapping[str, Any], chip: Chip, operations: float, peak: float | None, chips: int
) -> StepTime:
    """From the compiler's cycles, never below what the peak rate allows.

    Args:
      facts: the fields of a `ProgramCost`, or {"unknown": why there is none}.
      chip: of the slice.
      operations: of a step, on all chips.
      peak: FLOP/s of a chip; None where unknown.
      chips: of the slice.
    """
    least = operations / (peak * chips) if peak else None
    if "unknown" in facts:
        return StepTime(None, f"unknown: the program has {facts['unknown']}", {}, least)
    parts = ProgramCost(**facts).seconds(chip)
    total = sum(parts.values())
    if least and total < least:
        return StepTime(least, "peak rate, above which the compiler's cycles were", parts, least)
    return StepTime(total, "compiler cycles", parts, least)


def measure(program: Program, place: Placement, vocab_size: int, seconds: float) -> StepTime:
    """The median of a few real steps on random tokens, after one that is not counted.

    Args:
      program: what to run.
      place: devices at hand.
      vocab_size: tokens are drawn below it.
      seconds: after these no further step is begun; 0: nothing is run.
    """
    if not seconds:
        return StepTime(None, "unknown: plan.seconds=0")
    abstract = abstract_state(program.init, program.optimizer, place)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    start = jax.jit(lambda params: init_state(params, program.optimizer), out_shardings=shardings)
    state = start(place.put_params(program.init()))
    random = np.random.default_rng(0)
    batch = place.put_batch(
        {
            name: random.integers(
                FIRST_ORDINARY if len(shape) > 1 else 0, vocab_size, shape
            ).astype(np.int32)
            for name, shape in program.batch.items()
        }
    )
    index, fraction = np.int32(0), np.float32(0.5)
    with jax.set_mesh(place.mesh):
        step = (
            jit_step(program.step, program.seed, abstract, place)
            .lower(state, batch, index, fraction, None)
            .compile()
        )
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) <= _STEPS and (len(taken) < 2 or time.perf_counter() - begun < seconds):
        started = time.perf_counter()
        state, metrics, _ = step(state, batch, index, fraction, None)
        jax.block_until_ready((state, metrics))
        taken.append(time.perf_counter() - started)
    counted = taken[1:]
    return StepTime(
        statistics.median(counted),
        f"measured, {len(counted)} step{'s' if len(counted) > 1 else ''}",
    )
