"""Say what fits, how fast, and what the budget buys, before anything is trained.

Compiles the real training step ahead of time for the devices at hand, or with --config.plan.topology=v5e:16x16 for a
slice of TPUs that need not be there (chips v4, v5e, v5p, v6e; extra `tpu`): of the encoder of `model`, or of each in
study.sizes and study.translators (translators on batches as wide as data.length). The largest microbatch that fits is
searched for by compiling, whatever impl.microbatch says. Reads no data: the vocabulary is tokenizer.vocab_size, and
epochs are known once `tlc prepare` has packed data.train into data.cache. Step times of devices at hand are measured
(plan.seconds); those of a slice are estimates by the compiler's own cost model, plus the time that collectives would
take if nothing hid them. What was compiled is remembered in compilations/ in the workdir.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from tlc_jax.config import Config, merge, parse_size, resolve, to_dict
from tlc_jax.config.durations import UNITS
from tlc_jax.core import distributed
from tlc_jax.core.devices import peak_flops
from tlc_jax.core.files import write_json
from tlc_jax.core.mesh import Placement
from tlc_jax.data.packing import rows_prepared
from tlc_jax.models import flops
from tlc_jax.models.network import Network
from tlc_jax.planning import plan_text
from tlc_jax.planning.compile import Compiler, Footprint, Program, program_of, versions
from tlc_jax.planning.fit import (
    COMPILATIONS,
    Fit,
    MemoryLimit,
    agreed,
    largest,
    memory_at_hand,
    state_copies,
)
from tlc_jax.planning.step_time import StepTime, estimate, measure
from tlc_jax.planning.tpu import CHIPS, Chip, devices_of, parse_topology, prepare_for, program_cost
from tlc_jax.runs import session
from tlc_jax.runs.workdir import data_cache
from tlc_jax.tasks.base import Workload, task_of


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Plans, prints the plan, and writes result.json again.

    Raises:
      InputError: no such slice, the TPU compiler is missing, or a batch or a mesh does not fit the devices.
    """
    del options
    sizes = _sizes(config)
    target = _Target.of(config)
    workdir.mkdir(parents=True, exist_ok=True)
    with _programs_kept(target, workdir):
        plans = [_plan(kind, one, target, workdir) for kind, one in sizes]
    result = {"stage": "plan", **target.facts(), "plans": plans}
    if distributed.first():
        write_json(workdir / "result.json", result)
        print(plan_text.describe(result))
    return result


def _sizes(config: Config) -> list[tuple[str, Config]]:
    """The kind of each model to plan for, and its config."""
    base, study = to_dict(config), config.study

    def sized(size: str, *partials: Mapping[str, Any]) -> Config:
        layers, hidden = parse_size(size)
        return resolve(merge(base, *partials, {"model": {"layers": layers, "hidden": hidden}}))

    encoders = [("mlm", sized(size)) for size in study.sizes]
    translators = [("translator", sized(size, study.translation)) for size in study.translators]
    return [*encoders, *translators] or [("mlm", config)]


@dataclasses.dataclass(frozen=True)
class _Target:
    """What is planned for.

    Attributes:
      place: its devices.
      limit: memory of each.
      chip: of a TPU slice that is not there; None: the devices at hand.
    """

    place: Placement
    limit: MemoryLimit
    chip: Chip | None

    @staticmethod
    def of(config: Config) -> _Target:
        topology, impl = config.plan.topology, config.impl
        if not topology:
            return _Target(session.open_devices(config), memory_at_hand(), None)
        prepare_for(topology)
        session.set_up(dataclasses.replace(config, impl=dataclasses.replace(impl, processes="one")))
        chip = CHIPS[parse_topology(topology)[0]]
        place = Placement.parse(impl.mesh, impl.sharding, devices_of(topology))
        return _Target(
            place, MemoryLimit(chip.memory, "what the TPU compiler gives to a program"), chip
        )

    @property
    def devices(self) -> int:
        return self.place.mesh.devices.size

    @property
    def kind(self) -> str:
        return str(self.place.mesh.devices.flat[0].device_kind)

    def facts(self) -> dict[str, Any]:
        """What result.json says of the devices."""
        here = session.provenance()
        return {
            **here,
            "device": self.kind,
            "devices": self.devices,
            "platform": self.place.mesh.devices.flat[0].platform,
            "at_hand": self.chip is None,
            "mesh": {axis: size for axis, size in self.place.mesh.shape.items() if size > 1},
            "memory": self.limit.bytes,
            "memory_source": self.limit.source,
            "versions": {**here["versions"], **versions()},
        }


@contextlib.contextmanager
def _programs_kept(target: _Target, workdir: Path) -> Iterator[None]:
    """Keeps compiled programs of devices at hand too, so that one that was planned need not be compiled to be timed."""
    if target.chip is not None or jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    jax.config.update("jax_compilation_cache_dir", str(workdir / COMPILATIONS / "programs"))
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def _plan(kind: str, config: Config, target: _Target, workdir: Path) -> dict[str, Any]:
    """The plan of one size."""
    network = Network(kind, config.model, config.tokenizer.vocab_size, 0, config.impl)
    work = task_of(kind)(config, network, target.place).workload()
    limit = dataclasses.replace(target.limit, state_copies=state_copies(config))
    compiler = Compiler(
        target.place, workdir / COMPILATIONS, _tpu_facts if target.chip else lambda text: {}
    )
    batch_size = config.optimizer.batch_size

    def program(size: int) -> Program:
        return program_of(config, network, work, size)

    def footprint(size: int) -> Footprint:
        session.say(
            f"{config.model.layers}x{config.model.hidden}: microbatch {size} of {batch_size} {work.unit}"
        )
        return compiler.footprint(program(size))

    fit = largest(work.microbatches, footprint, limit)
    if distributed.several() and (chosen := agreed(fit)):
        fit = Fit(chosen, {chosen: compiler.footprint(program(chosen)), **fit.footprints})
    plan = {
        "kind": "encoder" if kind == "mlm" else kind,
        **session.size_numbers(network),
        "vocab_size": network.vocab_size,
        "unit": work.unit,
        "batch_size": batch_size,
        "tokens_per_step": work.cost.tokens,
        "flops_per_step": work.cost.flops,
        "fits": fit.microbatch is not None,
        "microbatch": fit.microbatch,
        "compiled": {
            str(size): _memory(found, limit) for size, found in sorted(fit.footprints.items())
        },
        "programs_compiled": compiler.compiled,
    }
    if fit.microbatch is None:
        time = StepTime(None, "nothing fits")
    elif target.chip is None:
        seconds = config.plan.seconds
        time = measure(program(fit.microbatch), target.place, network.vocab_size, seconds)
    else:
        peak = peak_flops(target.kind, config.impl.matmul)
        facts = fit.footprints[fit.microbatch].facts
        time = estimate(facts, target.chip, work.cost.flops, peak, target.devices)
    # Translators are planned before their pairs are read, so their epochs are not known.
    cache = data_cache(config, workdir)
    rows_per_epoch = rows_prepared(config, cache) if kind == "mlm" else None
    speed = _speed(config, work, time, rows_per_epoch, target)
    return {**plan, "step": dataclasses.asdict(time), **speed}


def _tpu_facts(text: str) -> dict[str, Any]:
    try:
        return dataclasses.asdict(program_cost(text))
    except ValueError as error:
        return {"unknown": str(error)}


def _memory(found: Footprint, limit: MemoryLimit) -> dict[str, Any]:
    return {
        "arguments": found.arguments,
        "temporaries": found.temporaries,
        "outputs": found.outputs,
        "need": limit.need(found),
        "fits": limit.holds(found),
        "refusal": found.refusal,
        "compile_seconds": found.compile_seconds,
    }


def _speed(
    config: Config, work: Workload, time: StepTime, rows_per_epoch: float | None, target: _Target
) -> dict[str, Any]:
    """Tokens per second, MFU, and what the budget buys."""
    seconds, cost = time.seconds, work.cost
    per_step = {
        "seconds": seconds,
        "steps": 1.0,
        "examples": cost.examples,
        "tokens": cost.tokens,
        "epochs": cost.examples / rows_per_epoch if rows_per_epoch else None,
        "flops": cost.flops,
    }
    limits = {unit: limit for unit in UNITS if (limit := getattr(config.budget, unit)) > 0}
    known = {unit: limit / per_step[unit] for unit, limit in limits.items() if per_step[unit]}
    steps = min(known.values()) if known else None
    spent = steps * seconds if steps and seconds else None
    peak = peak_flops(target.kind, config.impl.matmul)
    return {
        "tokens_per_second": cost.tokens / seconds if seconds else None,
        "mfu": flops.mfu(cost.flops, seconds, peak, target.devices) if seconds else None,
        "budget": {
            "limits": limits,
            "unknown": sorted(set(limits) - set(known)),
            "stopped_by": min(known, key=lambda unit: known[unit]) if known else None,
            "steps": int(steps) if steps else None,
            "epochs": steps * per_step["epochs"] if steps and per_step["epochs"] else None,
            "tokens": steps * cost.tokens if steps else None,
            "seconds": spent,
            "chip_hours": spent / 3600 * target.devices if spent else None,
        },
    }
