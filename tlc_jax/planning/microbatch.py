"""impl.microbatch=auto: the largest part of a batch that fits, chosen once the devices are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.length_buckets import PairBatches
from tlc_jax.data.pairs import Pairs
from tlc_jax.models.network import Network
from tlc_jax.planning import programs
from tlc_jax.planning.memory_fit import Fit, largest, room_at_hand
from tlc_jax.planning.programs import Work
from tlc_jax.runs import session
from tlc_jax.tasks.base import TaskRun
from tlc_jax.tasks.translation import TranslatorRun
from tlc_jax.training.compilation import Compiler

COMPILATIONS = "compilations"
"""The folder of a workdir that remembers what programs need."""


def state_copies(config: Config) -> int:
    """Copies of the training state beside the step's own: the benchmark clock times its steps on one."""
    return int(config.budget.converts_seconds)


def agreed(fit: Fit) -> int:
    """What all processes can work with: the smallest that any of them found; 0: nothing fits."""
    return int(processes.gather(np.array(fit.microbatch or 0)).min())


def used(config: Config) -> int:
    """The microbatch in numbers, for results."""
    return config.microbatch


def of_run(run: TaskRun, workdir: Path) -> Config:
    """The config of a finetuned model's further training with impl.microbatch a number.

    Raises:
      InputError: auto, and nothing fits.
    """
    config, network, place = run.config, run.network, run.placement
    if isinstance(run, TranslatorRun):
        return of_translation(config, network.vocab_size, run.train, place, workdir)
    return of_finetuning(config, network, place, workdir)


def of_pretraining(config: Config, vocab_size: int, place: Placement, workdir: Path) -> Config:
    """The config of a pretraining run with impl.microbatch a number; the same if it is one.

    Raises:
      InputError: auto, and nothing fits.
    """
    if config.impl.microbatch != "auto":
        return config
    return _settled(config, programs.pretraining(config, vocab_size, place), place, workdir)


def of_finetuning(config: Config, network: Network, place: Placement, workdir: Path) -> Config:
    """As `of_pretraining`, of a classifier."""
    if config.impl.microbatch != "auto":
        return config
    return _settled(config, programs.finetuning(config, network, place), place, workdir)


def of_translation(
    config: Config, vocab_size: int, pairs: Sequence[Pairs], place: Placement, workdir: Path
) -> Config:
    """As `of_pretraining`, of a translator; its batches have the widths that `pairs` ask for."""
    if config.impl.microbatch != "auto":
        return config
    shapes = PairBatches(
        pairs, config.optimizer.batch_size, config.seed, config.data.buckets
    ).shapes
    return _settled(config, programs.translating(config, vocab_size, shapes, place), place, workdir)


def _settled(config: Config, work: Work, place: Placement, workdir: Path) -> Config:
    compiler = Compiler(place, workdir / COMPILATIONS)
    room = room_at_hand(state_copies(config))
    fit = largest(work.microbatches, lambda size: compiler.footprint(work.program(size)), room)
    if not (chosen := agreed(fit)):
        smallest = work.microbatches[0]
        need = room.need(fit.footprints[smallest]) / 2**30 if smallest in fit.footprints else 0.0
        raise InputError(
            f"impl.microbatch=auto: not even {smallest} of {work.batch_size} {work.unit} fit ({need:.2f} GiB on each "
            "device): split the parameters with impl.mesh=fsdp=-1, set impl.remat=True, or take a smaller model"
        )
    session.say(f"impl.microbatch=auto: {chosen} of {work.batch_size} {work.unit}")
    return config.with_microbatch(chosen)
