"""The largest microbatch that fits the memory of a device, found by compiling and not by crashing.

`tlc plan` prints it, and impl.microbatch=auto uses it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError
from tlc_jax.planning.compile import Compiler, Footprint, program_of
from tlc_jax.runs import session
from tlc_jax.tasks.base import TaskRun

_DEVICE_SHARE = 0.95
_HOST_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """The memory that a training step may use on each device.

    Attributes:
      bytes: how much; None where it is not known, and everything that compiles is taken to fit.
      source: where that number is from, for people.
      state_copies: copies of the state that the run keeps beside the step's own at times.
    """

    bytes: int | None
    source: str
    state_copies: int = 0

    def need(self, footprint: Footprint) -> int:
        """Bytes that a program with this footprint takes up."""
        return footprint.total + self.state_copies * footprint.arguments

    def holds(self, footprint: Footprint) -> bool:
        return not footprint.refusal and (self.bytes is None or self.need(footprint) <= self.bytes)


def memory_at_hand(state_copies: int = 0) -> MemoryLimit:
    """That of this process's devices: what they say themselves, or for CPUs an equal share of the host's memory."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    limits = [one["bytes_limit"] for one in stats if one and "bytes_limit" in one]
    if len(limits) == len(devices):
        return MemoryLimit(
            int(_DEVICE_SHARE * min(limits)),
            f"{_DEVICE_SHARE:.0%} of the device's memory",
            state_copies,
        )
    if devices[0].platform != "cpu":
        return MemoryLimit(None, "the device does not say how much memory it has", state_copies)
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    each = f" for each of {len(devices)} devices" if len(devices) > 1 else ""
    return MemoryLimit(
        int(_HOST_SHARE * host / len(devices)),
        f"{_HOST_SHARE:.0%} of the host's memory{each}",
        state_copies,
    )


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a search found.

    Attributes:
      microbatch: the largest that fits; None where not even the smallest does.
      footprints: of all that were compiled, by microbatch.
    """

    microbatch: int | None
    footprints: dict[int, Footprint]


def largest(
    candidates: Sequence[int], footprint: Callable[[int], Footprint], limit: MemoryLimit
) -> Fit:
    """Finds the largest of `candidates` (ascending) whose program fits, with few compilations.

    More microbatch needs more memory, though less than in proportion. So the whole batch is tried first; where it does
    not fit, what it needs says which candidate surely does; and from there the search climbs until one does not.
    """
    tried: dict[int, Footprint] = {}
    fits, too_large = (
        -1,
        len(candidates),
    )  # places: candidates[fits] is known to fit, candidates[too_large] not to
    place = too_large - 1
    while too_large - fits > 1:
        size = candidates[place]
        tried[size] = found = footprint(size)
        if limit.holds(found):
            fits, place = place, place + 1
            continue
        too_large = place
        need = limit.need(found)
        if limit.bytes and need > limit.bytes:
            likely = [
                i for i in range(fits + 1, too_large) if candidates[i] * need <= size * limit.bytes
            ]
            place = max(likely, default=fits + 1)
        else:  # refused without a number
            place = (fits + 1 + too_large) // 2
        place = max(fits + 1, min(place, too_large - 1))
    return Fit(candidates[fits] if fits >= 0 else None, tried)


COMPILATIONS = "compilations"
"""The folder of a workdir that remembers what programs need."""


def state_copies(config: Config) -> int:
    """Copies of the training state beside the step's own: the benchmark clock times its steps on one."""
    return int(config.budget.converts_seconds)


def agreed(fit: Fit) -> int:
    """What all processes can work with: the smallest that any of them found; 0: nothing fits."""
    return int(distributed.gather(np.array(fit.microbatch or 0)).min())


def of_run(run: TaskRun, workdir: Path) -> Config:
    """The config of a training run with impl.microbatch a number; the same config if it is one.

    Raises:
      InputError: auto, and nothing fits.
    """
    config, network = run.config, run.network
    if config.impl.microbatch != "auto":
        return config
    work = run.workload()
    compiler = Compiler(run.placement, workdir / COMPILATIONS)
    limit = memory_at_hand(state_copies(config))

    def footprint(size: int) -> Footprint:
        return compiler.footprint(program_of(config, network, work, size))

    fit = largest(work.microbatches, footprint, limit)
    batch = f"{config.optimizer.batch_size} {work.unit}"
    if not (chosen := agreed(fit)):
        smallest = work.microbatches[0]
        need = limit.need(fit.footprints[smallest]) / 2**30 if smallest in fit.footprints else 0.0
        raise InputError(
            f"impl.microbatch=auto: not even {smallest} of {batch} fit ({need:.2f} GiB on each "
            "device): split the parameters with impl.mesh=fsdp=-1, set impl.remat=True, or take a "
            "smaller model"
        )
    session.say(f"impl.microbatch=auto: {chosen} of {batch}")
    return config.with_microbatch(chosen)
