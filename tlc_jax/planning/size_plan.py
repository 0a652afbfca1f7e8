"""The plan of one model: its microbatch, memory and step time, and what the budget buys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.config.durations import UNITS, Amounts
from tlc_jax.data.packing import rows_prepared
from tlc_jax.models.flops import mfu
from tlc_jax.models.network import Network
from tlc_jax.planning.compile import Compiler, Footprint
from tlc_jax.planning.fit import largest
from tlc_jax.planning.step_time import StepTime, estimate, measure
from tlc_jax.planning.target import Target
from tlc_jax.planning.tpu import program_cost
from tlc_jax.runs import session
from tlc_jax.runs.workdir import data_cache
from tlc_jax.tasks.base import task_of


def plan_size(kind: str, config: Config, target: Target, workdir: Path) -> dict[str, Any]:
    """The fields of result.json about one model.

    Args:
      kind: kind of the model, "mlm" or "translator".
      config: resolved config of its run.
      target: the devices to plan for.
      workdir: folder that keeps what was compiled.

    Raises:
      InputError: the batch does not divide among the devices.
    """
    network = Network(kind, config.model, config.tokenizer.vocab_size, 0, config.impl)
    run = task_of(kind)(config, network, target.place)
    compiler = Compiler(run, workdir, _tpu_facts if target.chip else lambda text: {})
    work, limit = compiler.work, target.limit.for_run(config)
    batch_size = config.optimizer.batch_size

    def footprint(size: int) -> Footprint:
        model = f"{config.model.layers}x{config.model.hidden}"
        session.say(f"{model}: microbatch {size} of {batch_size} {work.unit}")
        return compiler.footprint(size)

    microbatch, footprints = largest(work.microbatches, footprint, limit)
    compiled = {}
    for size, found in sorted(footprints.items()):
        compiled[str(size)] = dataclasses.asdict(found)
        del compiled[str(size)]["facts"]  # the step's parts say the same in seconds
        compiled[str(size)] |= {"need": limit.need(found), "fits": limit.holds(found)}
    peak, cost = target.peak_flops(config), work.cost
    if microbatch is None:
        time = StepTime(None, "nothing fits")
    elif target.chip is None:
        time = measure(compiler, microbatch, network.vocab_size, config.plan.seconds)
    else:
        least = cost.flops / peak if peak else None
        time = estimate(footprints[microbatch].facts, target.chip, least)
    # Translators are planned before their pairs are read, so their epochs are not known.
    rows = rows_prepared(config, data_cache(config, workdir)) if kind == "mlm" else None
    per_step = dataclasses.replace(
        cost, seconds=time.seconds or 0.0, epochs=cost.examples / rows if rows else 0.0
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
        "compiled": compiled,
        "programs_compiled": compiler.compiled,
        "step": dataclasses.asdict(time),
        "tokens_per_second": cost.tokens / time.seconds if time.seconds else None,
        "mfu": mfu(cost.flops, time.seconds, peak) if time.seconds else None,
        "budget": _budget(config, per_step, target.devices),
    }


def _tpu_facts(text: str) -> dict[str, Any]:
    try:
        return dataclasses.asdict(program_cost(text))
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
    known = {
        unit: limit / getattr(per_step, unit)
        for unit, limit in limits.items()
        if getattr(per_step, unit)
    }
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
