"""What fits a device's memory, found by compiling and not by crashing.

`tlc plan` prints the largest microbatch. impl.microbatch=auto uses it, and impl.remat=auto
recomputes activations where the step does not fit otherwise.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError
from tlc_jax.models.network import Params
from tlc_jax.planning.compile import Compiler, Describe, Footprint
from tlc_jax.runs import session
from tlc_jax.tasks.base import TaskRun
from tlc_jax.training.step import Batch

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


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for the largest microbatch.

    Attributes:
      compiler: compiler of the step.
      microbatch: the largest that fits; None if nothing does.
      footprints: what the step needs, by the microbatches that were tried.
    """

    compiler: Compiler
    microbatch: int | None
    footprints: dict[int, Footprint]


def search(
    run: TaskRun, workdir: Path, limit: MemoryLimit, describe: Describe = lambda text: {}
) -> Search:
    """Searches the largest microbatch of a training run.

    impl.remat=auto of the run is replaced: recomputing takes a third more time, so it is for runs
    of which nothing fits otherwise.

    Args:
      run: the training run; its data is not needed, nor are its devices.
      workdir: folder of the run, which keeps what was compiled.
      limit: the memory to fit into.
      describe: see `Compiler`.
    """
    config, chosen = run.config, run.config.impl.remat
    model, amount = f"{config.model.layers}x{config.model.hidden}", config.optimizer.batch_size
    for remat in (False, True) if chosen == "auto" else (chosen,):
        run.set_impl(dataclasses.replace(config.impl, remat=remat))
        compiler = Compiler(run, workdir, describe)

        def footprint(size: int, compiler: Compiler = compiler) -> Footprint:
            session.say(f"{model}: microbatch {size} of {amount} {run.unit}")
            return compiler.footprint(size)

        microbatch, tried = largest(compiler.work.microbatches, footprint, limit)
        if microbatch is not None:
            break
    return Search(compiler, microbatch, tried)


def of_run(run: TaskRun, workdir: Path) -> None:
    """Replaces impl.microbatch=auto and impl.remat=auto of a training run.

    Raises:
      InputError: nothing fits.
    """
    impl = run.config.impl
    if impl.microbatch == "auto":
        limit = memory_at_hand().for_run(run.config)
        found = search(run, workdir, limit)
        batch = f"{run.config.optimizer.batch_size} {run.unit}"
        if found.microbatch is None:
            smallest = found.compiler.work.microbatches[0]
            # Another process may be the one where it does not fit.
            need = limit.need(found.footprints.get(smallest, Footprint())) / 2**30
            remat = "" if run.config.impl.remat else "set impl.remat=True, "
            raise InputError(
                f"impl.microbatch=auto: not even {smallest} of {batch} fit ({need:.2f} GiB on each "
                f"device): split the parameters with impl.mesh=fsdp=-1, {remat}or take a smaller "
                "model"
            )
        session.say(f"impl.microbatch=auto: {found.microbatch} of {batch}")
        run.set_impl(dataclasses.replace(run.config.impl, microbatch=found.microbatch))
    elif impl.remat == "auto":
        run.set_impl(dataclasses.replace(impl, remat=_needs_remat(run, workdir)))


def _needs_remat(run: TaskRun, workdir: Path) -> bool:
    """Whether a step does not fit unless activations are recomputed."""
    limit = memory_at_hand().for_run(run.config)
    if limit.bytes is None:
        return False
    # Most steps are far from the limit, and compiling one only to learn that would cost a minute.
    # Parameters, gradients and Adam's two moments count as whole on each device.
    state = (5 + 3 * limit.state_copies) * 4 * run.network.parameter_counts()[0]
    fits = state + saved_bytes(run) <= limit.bytes / 2
    fits = fits or limit.holds(Compiler(run, workdir).footprint(run.config.microbatch))
    needs = "False" in distributed.gather_texts(str(fits))
    if needs:
        session.say("impl.remat=auto: activations are recomputed, because memory is too small")
    return needs


def saved_bytes(run: TaskRun) -> int:
    """Bytes that the forward pass of a microbatch saves on each device for the backward pass.

    By the program before it is compiled, with the parameters among them. The compiler fuses
    operations and needs less, but also some memory for the backward pass.
    """
    run, config = copy.copy(run), run.config
    # Layers in a loop save as much, and are traced in the time of one.
    run.set_impl(dataclasses.replace(config.impl, layer_loop="scan"))
    work = run.workload()
    parts = config.microbatches * run.placement.batch_shards
    batch = {
        name: jax.ShapeDtypeStruct((-(-rows // parts), *rest), np.int32)
        for name, (rows, *rest) in work.batch.items()
    }

    def save(params: Params, batch: Batch) -> Any:
        corrupted = work.objective.corrupt(jax.random.key(0), batch)
        key = jax.random.key(0, impl=config.impl.dropout_keys)
        return jax.vjp(lambda params: work.objective.sums(params, corrupted, key)[0].loss, params)

    _, backward = jax.eval_shape(save, run.network.abstract(), batch)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))
