"""The plan of one model on the devices that are planned for: memory, step time, and budget."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.config.durations import UNITS, Amounts
from tlc_jax.core.devices import peak_flops
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.packing import rows_prepared
from tlc_jax.data.tokenizer import FIRST_ORDINARY
from tlc_jax.models.flops import mfu
from tlc_jax.models.network import Network
from tlc_jax.planning import fit
from tlc_jax.planning.compile import Compiler, compiler_versions
from tlc_jax.planning.gpu import GPUS, Gpu, memory_fraction, open_host
from tlc_jax.planning.tpu import CHIPS, Chip, open_slice
from tlc_jax.runs import auto, session
from tlc_jax.runs.workdir import data_cache
from tlc_jax.tasks.base import task_of
from tlc_jax.training.step import init_state, seed_bits

_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices that are planned for.

    Attributes:
      place: mesh of the devices, and shardings.
      limit: memory of each device.
      chip: what is known of devices that need not be there; None for devices at hand.
    """

    place: Placement
    limit: fit.MemoryLimit
    chip: Chip | Gpu | None = None

    @staticmethod
    def of(config: Config) -> Target:
        """The slice or the host that plan.topology names, or the devices at hand.

        Raises:
          InputError: the slice or host cannot be planned for, its compiler is missing, or the mesh
            does not fit.
        """
        topology, impl = config.plan.topology, config.impl
        if not topology:
            return Target(session.open_devices(config)[1], fit.memory_at_hand())
        name = topology.partition(":")[0]
        if name not in CHIPS and name not in GPUS:
            raise InputError(
                f"plan.topology={topology!r}: known chips are {', '.join([*CHIPS, *GPUS])}; "
                "write for example v5e:16x16 or h100:8"
            )
        # Planned by this process alone, even if it was launched as one of several.
        alone = dataclasses.replace(impl, processes="one")
        session.set_up(dataclasses.replace(config, impl=alone))
        chip: Chip | Gpu
        if name in CHIPS:
            chip, devices = open_slice(topology)
            limit = fit.MemoryLimit(chip.memory, "what the TPU compiler gives to a program")
        else:
            chip, devices = open_host(topology)
            share = memory_fraction()
            source = f"{fit.DEVICE_SHARE:.0%} of the {share:.0%} that JAX takes"
            limit = fit.MemoryLimit(int(fit.DEVICE_SHARE * share * chip.memory), source)
        return Target(Placement.parse(impl.mesh, impl.sharding, devices), limit, chip)

    @property
    def device(self) -> jax.Device:
        """The first device; all are of one kind."""
        return self.place.mesh.devices.flat[0]

    def peak_flops(self, config: Config) -> float | None:
        """FLOP/s that all devices together could reach; None if their kind is unknown."""
        one = peak_flops(self.device.device_kind, config.impl.matmul)
        return one and one * self.place.mesh.size

    def facts(self) -> dict[str, Any]:
        """The fields of result.json about the devices."""
        here = session.provenance()
        return here | {
            "device": self.device.device_kind,
            "devices": self.place.mesh.size,
            "platform": self.device.platform,
            "at_hand": self.chip is None,
            "mesh": {axis: size for axis, size in self.place.mesh.shape.items() if size > 1},
            "memory": self.limit.bytes,
            "memory_source": self.limit.source,
            "versions": here["versions"] | compiler_versions(),
        }


def plan_model(kind: str, config: Config, target: Target, workdir: Path) -> dict[str, Any]:
    """The fields of result.json about one model.

    Args:
      kind: kind of the model, "mlm" or "translator".
      config: resolved config of its run.
      target: the devices to plan for.
      workdir: folder that keeps what was compiled.

    Raises:
      InputError: the batch does not divide among the devices.
    """
    config = auto.for_device(config, target.device)
    network = Network(kind, config.model, config.tokenizer.vocab_size, 0, config.impl)
    run, limit = task_of(kind)(config, network, target.place), target.limit.for_run(config)
    found = fit.search(run, workdir, limit, functools.partial(_facts, target.chip))
    config, network, batch_size = run.config, run.network, config.optimizer.batch_size
    compiler, microbatch, footprints = found.compiler, found.microbatch, found.footprints
    work, compiled = compiler.work, {}
    for size, needs in sorted(footprints.items()):
        compiled[str(size)] = dataclasses.asdict(needs)
        del compiled[str(size)]["facts"]  # the step's parts say the same in seconds
        compiled[str(size)] |= {"need": limit.need(needs), "fits": limit.holds(needs)}
    peak, cost = target.peak_flops(config), work.cost
    if microbatch is None:
        step = StepTime(None, "nothing fits")
    elif target.chip is None:
        step = measure_step(compiler, microbatch, network.vocab_size, config.plan.seconds)
    else:
        least = cost.flops / peak if peak else None
        step = estimate_step(footprints[microbatch].facts, target.chip, least)
    # Translators are planned before their pairs are read, so their epochs are not known.
    rows = rows_prepared(config, data_cache(config, workdir)) if kind == "mlm" else None
    per_step = dataclasses.replace(
        cost, seconds=step.seconds or 0.0, epochs=cost.examples / rows if rows else 0.0
    )
    return {
        "kind": "encoder" if kind == "mlm" else kind,
        **session.size_numbers(network),
        "vocab_size": network.vocab_size,
        "unit": work.unit,
        "batch_size": batch_size,
        "tokens_per_step": cost.tokens,
        "flops_per_step": cost.flops,
        "fits": microbatch is not None,
        "microbatch": microbatch,
        **auto.chosen(config),
        "compiled": compiled,
        "programs_compiled": compiler.compiled,
        "step": dataclasses.asdict(step),
        "tokens_per_second": cost.tokens / step.seconds if step.seconds else None,
        "mfu": mfu(cost.flops, step.seconds, peak) if step.seconds else None,
        "budget": _budget(config, per_step, target.place.mesh.size),
    }


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a training step.

    Attributes:
      seconds: seconds of the step; None if they are unknown.
      how: where they are from, for people.
      parts: parts of an estimate in seconds. For a TPU compute, collectives and uncounted
        instructions; for a GPU the kinds of kernels, before the slowdown.
      least: seconds at the peak rate of the data sheets; None if that is unknown.
      slowdown: factor between the sum of the parts and the estimate.
    """

    seconds: float | None
    how: str
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    least: float | None = None
    slowdown: float = 1.0


def estimate_step(facts: Mapping[str, Any], chip: Chip | Gpu, least: float | None) -> StepTime:
    """The time by the compiled program, but at least what the peak rate allows.

    Args:
      facts: what the chip's `describe` found, or {"unknown": why there are none}.
      chip: the devices that are planned for.
      least: seconds at the peak rate; None if that is unknown.
    """
    if "unknown" in facts:
        return StepTime(None, f"unknown: the program has {facts['unknown']}", {}, least)
    parts = chip.parts(facts)
    # The sum takes nothing as hidden behind something else, so the estimate is on the slow side.
    total = chip.slowdown * sum(parts.values())
    if least and total < least:
        how = f"peak rate, above which the estimate by {chip.method} was"
        return StepTime(least, how, parts, least, chip.slowdown)
    return StepTime(total, chip.method, parts, least, chip.slowdown)


def measure_step(compiler: Compiler, microbatch: int, vocab_size: int, seconds: float) -> StepTime:
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
    run_step = compiler.lower(microbatch).compile()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) <= _STEPS and (len(taken) < 2 or time.perf_counter() - begun < seconds):
        started = time.perf_counter()
        state, metrics, _ = run_step(state, batch, seed_bits(0), np.int32(0), np.float32(0.5), None)
        jax.block_until_ready((state, metrics))  # JAX dispatches asynchronously
        taken.append(time.perf_counter() - started)
    counted = taken[1:]  # the first step also allocates memory
    how = f"measured, {len(counted)} step{'s' if len(counted) > 1 else ''}"
    return StepTime(statistics.median(counted), how)


def _facts(chip: Chip | Gpu | None, text: str) -> dict[str, Any]:
    if chip is None:
        return {}
    try:
        return chip.describe(text)
    except ValueError as error:
        return {"unknown": str(error)}


def _budget(config: Config, per_step: Amounts, devices: int) -> dict[str, Any]:
    """What the budget buys.

    Args:
      config: the config with the budget.
      per_step: what a step spends; 0 where that is unknown.
      devices: number of devices.
    """
    limits = {unit: limit for unit in UNITS if (limit := getattr(config.budget, unit)) > 0}
    spent = dataclasses.asdict(per_step)
    known = {unit: limit / spent[unit] for unit, limit in limits.items() if spent[unit]}
    # The first limit that is used up stops the run.
    stopped_by = min(known, key=known.__getitem__, default=None)
    steps = known[stopped_by] if stopped_by else 0.0
    seconds, epochs = steps * per_step.seconds or None, steps * per_step.epochs or None
    return {
        "limits": limits,
        "unknown": sorted(set(limits) - set(known)),
        "stopped_by": stopped_by,
        "steps": int(steps) if steps else None,
        "epochs": epochs,
        "tokens": steps * per_step.tokens or None,
        "seconds": seconds,
        "chip_hours": seconds and seconds / 3600 * devices,
    }
