"""Branches of a run: shorter budgets that share its beginning (budget.branches).

With the schedule wsd the rate stays the same until a budget's last part, so a run of a shorter
budget begins with the same steps. The run saves its state where the rate of a branch would begin to
fall; the branch goes on from there as a run of its own, in `branches/SHARE` of the workdir.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlc_jax.config import Config
from tlc_jax.config.durations import UNITS, Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.files import read_json, write_json
from tlc_jax.training.checkpoint import Checkpointer, complete_steps
from tlc_jax.training.clock import Budget

if TYPE_CHECKING:
    from tlc_jax.training.loop import Trainer


def folder_of(workdir: Path, share: float) -> Path:
    """The workdir of a branch."""
    return workdir / "branches" / f"{share:g}"


def config_of(config: Config, share: float) -> Config:
    """The config of a branch: that of a run with this share of the budget alone.

    Its warm-up is as long as that of the run.
    """
    limits: dict[str, Any] = {}
    for unit in UNITS:
        limit = getattr(config.budget, unit)
        limits[unit] = round(share * limit) if isinstance(limit, int) else share * limit
    warmup = config.optimizer.warmup * min(config.budget.branches) / share
    return dataclasses.replace(
        config,
        budget=dataclasses.replace(config.budget, **limits, branches=()),
        optimizer=dataclasses.replace(config.optimizer, warmup=warmup),
    )


class Branches:
    """Saves the states that branches go on from.

    Args:
      trainer: the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._left: list[float] = []
        for share in sorted(trainer.settings.budget.branches):
            saved = complete_steps(folder_of(trainer.workdir, share) / "checkpoints")
            if processes.share(str(bool(saved))) == "False":
                self._left.append(share)

    def is_due(self, _: Amounts, now: Amounts) -> bool:
        """Whether the next step would be of a branch alone, alike on all processes."""
        return bool(self._left) and self._used(self._left[0]) >= 1.0 - self._cooldown

    @property
    def _cooldown(self) -> float:
        return self._trainer.settings.optimizer.cooldown

    def _used(self, share: float) -> float:
        """The fraction of a branch's budget that all steps begun have used."""
        trainer = self._trainer
        settings = config_of(trainer.settings, share).budget
        budget = Budget(settings.limits(), settings.charge)
        if trainer.seconds_per_step:
            budget = budget.in_steps(max(1, round(settings.seconds / trainer.seconds_per_step)))
        return trainer.used_by_agreement(budget)[0]

    def save(self) -> None:
        """Saves the state for each branch that is due."""
        trainer = self._trainer
        trainer.synchronize()
        while self._left and self._used(self._left[0]) >= 1.0 - self._cooldown:
            folder = folder_of(trainer.workdir, self._left[0])
            if processes.first():
                folder.mkdir(parents=True, exist_ok=True)
                if trainer.seconds_per_step:
                    from tlc_jax.training import benchmark

                    measured = read_json(trainer.workdir / benchmark.FILE)
                    write_json(folder / benchmark.FILE, measured)
            processes.barrier()
            with trainer.accounting.measure("checkpoint"):
                saver = Checkpointer(folder, trainer.settings.checkpoint)
                saver.save_and_wait(trainer.step, trainer.state, trainer.meta(), started=False)
                saver.close()
            self._left.pop(0)
