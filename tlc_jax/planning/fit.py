"""The largest microbatch that fits a device's memory, found by compiling and not by crashing.

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
from tlc_jax.planning.compile import Compiler, Footprint
from tlc_jax.runs import session
from tlc_jax.tasks.base import TaskRun

# Shares of the memory that a step may use: the compiler's sizes leave out fragmentation and what
# the runtime needs itself, and on a host also the system and the data.
DEVICE_SHARE, HOST_SHARE = 0.95, 0.8


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """The memory that a training step may use on each device.

    Attributes:
      bytes: the limit; None if it is unknown, and then everything that compiles is taken to fit.
      source: where that number is from, for people.
      state_copies: copies of the training state that the run keeps beside the step's own.
    """

    bytes: int | None
    source: str
    state_copies: int = 0

    def for_run(self, config: Config) -> MemoryLimit:
        """This limit for the run of a config."""
        # The benchmark clock times its steps on a copy of the state.
        return dataclasses.replace(self, state_copies=int(config.budget.converts_seconds))

    def need(self, footprint: Footprint) -> int:
        """The bytes that a run of a program with this footprint takes."""
        arguments = (1 + self.state_copies) * footprint.arguments
        return arguments + footprint.temporaries + footprint.outputs

    def holds(self, footprint: Footprint) -> bool:
        return not footprint.refusal and (self.bytes is None or self.need(footprint) <= self.bytes)


def memory_at_hand() -> MemoryLimit:
    """The memory of this process's devices; of CPUs each has an equal share of the host's."""
    devices = jax.local_devices()
    stats = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in one for one in stats):
        least = min(one["bytes_limit"] for one in stats)
        source = f"{DEVICE_SHARE:.0%} of the device's memory"
        return MemoryLimit(int(DEVICE_SHARE * least), source)
    if devices[0].platform != "cpu":
        return MemoryLimit(None, "the device does not say how much memory it has")
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    each = f" for each of {len(devices)} devices" if len(devices) > 1 else ""
    source = f"{HOST_SHARE:.0%} of the host's memory{each}"
    return MemoryLimit(int(HOST_SHARE * host / len(devices)), source)


def largest(
    candidates: Sequence[int], footprint: Callable[[int], Footprint], limit: MemoryLimit
) -> tuple[int | None, dict[int, Footprint]]:
    """Finds the largest microbatch whose program fits, with few compilations.

    Of several processes all must call it, and all get the smallest that any of them found.

    Args:
      candidates: possible microbatches, ascending.
      footprint: microbatch -> what its program needs.
      limit: the memory to fit into.

    Returns:
      The microbatch, None if not even the smallest fits; and the footprints of all that were tried.
    """
    tried: dict[int, Footprint] = {}
    # Indices: candidates[fits] is known to fit, and candidates[too_large] not to.
    fits, too_large = -1, len(candidates)
    # More microbatch needs more memory, though less than in proportion. So the whole batch is tried
    # first. If it does not fit, its need says which candidate surely does, and from there the
    # search climbs until one does not fit.
    index = too_large - 1
    while too_large - fits > 1:
        size = candidates[index]
        tried[size] = found = footprint(size)
        if limit.holds(found):
            fits, index = index, index + 1
            continue
        too_large, need = index, limit.need(found)
        if limit.bytes and need > limit.bytes:
            between = range(fits + 1, too_large)
            likely = [i for i in between if candidates[i] * need <= size * limit.bytes]
            index = max(likely, default=fits + 1)
        else:  # refused without a number
            index = (fits + 1 + too_large) // 2
        index = max(fits + 1, min(index, too_large - 1))
    own = candidates[fits] if fits >= 0 else 0
    agreed = int(distributed.gather(np.array(own)).min())
    if agreed and agreed not in tried:
        tried[agreed] = footprint(agreed)
    return agreed or None, tried


def of_run(run: TaskRun, workdir: Path) -> Config:
    """The config of a training run with the largest microbatch that fits.

    Raises:
      InputError: nothing fits.
    """
    config, compiler = run.config, Compiler(run, workdir)
    limit, work = memory_at_hand().for_run(config), compiler.work
    chosen, footprints = largest(work.microbatches, compiler.footprint, limit)
    batch = f"{config.optimizer.batch_size} {work.unit}"
    if chosen is None:
        smallest = work.microbatches[0]
        # Another process may be the one where it does not fit.
        need = limit.need(footprints.get(smallest, Footprint())) / 2**30
        raise InputError(
            f"impl.microbatch=auto: not even {smallest} of {batch} fit ({need:.2f} GiB on each "
            "device): split the parameters with impl.mesh=fsdp=-1, set impl.remat=True, or take a "
            "smaller model"
        )
    session.say(f"impl.microbatch=auto: {chosen} of {batch}")
    return config.with_microbatch(chosen)
