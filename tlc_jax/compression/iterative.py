"""Pruning a trained model in rounds, with training in between until it is as accurate as before."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.prune import apply_masks, join_masks, magnitude_masks, schedule
from tlc_jax.compression.recipe import Operation, Prune, Recipe, format_recipe
from tlc_jax.config import Budget, Config, to_dict
from tlc_jax.core import distributed as processes
from tlc_jax.models.network import Params
from tlc_jax.runs import session
from tlc_jax.tasks.base import TaskRun
from tlc_jax.training.checkpoint import complete_steps, read_meta, read_params, save_params
from tlc_jax.training.loop import train

Work = TaskRun


class Recovery:
    """Iterative magnitude pruning with recovery (paper 1: 15 % a round, 99.5 % of the accuracy, one epoch at most).

    Where the paper is silent: recovery runs with finetuning's own optimizer settings, its schedule stretched over the
    epoch that a round may take; weights pruned in one round stay pruned in the next.

    What a round leaves depends on what was done before it and not on the recipe's target, so recipes that prune one
    model to several sparsities share their rounds where compress.cache is set. Finished rounds are not done again.

    Attributes:
      history: what each round did, the dense model first.
    """

    def __init__(self, work: Work, workdir: Path, origin: str, dense: float):
        """`origin` says what model this is, and `dense` is the accuracy to come back to."""
        self.work, self.workdir, self.origin = work, workdir, origin
        self.settings = work.config.compress
        self.goal = self.settings.recover * dense
        self.history: list[dict[str, Any]] = [{"sparsity": 0.0, work.goal: dense, "steps": 0}]
        self._done: list[Operation] = []

    def removed(self, params: Params, removes: Sequence[Operation]) -> Params:
        """Recovers from structures having been taken out."""
        self._done += removes
        with self._directory(self._done) as directory:
            params, numbers = self._round(directory, 0, params, {})
        self.history.append({"sparsity": 0.0, **numbers})
        return params

    def pruned(
        self, params: Params, masks: dict[str, Any], prune: Prune
    ) -> tuple[Params, dict[str, Any]]:
        """Prunes round by round: parameters and masks, which join those that were there."""
        any_target = dataclasses.replace(prune, sparsity=0.0, block=0) if not prune.block else prune
        with self._directory([*self._done, any_target]) as directory:
            rounds = (
                (prune.sparsity,) if prune.block else schedule(prune.sparsity, self.settings.step)
            )
            for sparsity in rounds:
                masks = join_masks(masks, magnitude_masks(params, prune, sparsity))
                params, numbers = self._round(directory, round(1000 * sparsity), params, masks)
                self.history.append({"sparsity": sparsity, **numbers})
        self._done.append(prune)
        return params, masks

    def _round(
        self, directory: Path, number: int, params: Params, masks: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        """One round, or what was kept of it."""
        kept = directory / "kept"
        if number in complete_steps(kept):
            return read_params(kept, number, self.work.network.abstract()), read_meta(kept, number)[
                "round"
            ]
        params, numbers = self._recover(
            directory / str(number), number, apply_masks(params, masks), masks
        )
        save_params(kept, number, params, {"round": numbers})
        session.discard(directory / str(number))
        return params, numbers

    def _recover(
        self, workdir: Path, number: int, params: Params, masks: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        name = self.work.goal
        reached = self.work.evaluate(params, False)[name]
        pruned = {f"{name}_pruned": reached, name: reached, "steps": 0, "stopped_by": "target"}
        if self.settings.recover == 0 or reached >= self.goal:
            return params, pruned
        config = self.work.config
        every = max(1, round(self.work.steps_per_epoch / self.settings.recover_evals))
        config = dataclasses.replace(
            config,
            seed=config.seed
            + number,  # other examples come first in each round, and others are dropped out
            budget=Budget(epochs=self.settings.recover_epochs),
            eval=dataclasses.replace(config.eval, every_seconds=0.0, every_steps=every),
        )
        task = dataclasses.replace(
            self.work.task(lambda: params, DuringTraining(masks), config.seed),
            enough=lambda metrics: metrics[name] >= self.goal,
        )
        workdir.mkdir(parents=True, exist_ok=True)
        outcome = train(task, config, workdir, self.work.placement)
        numbers = {key: outcome.numbers[key] for key in (name, "steps", "stopped_by")}
        numbers["seconds"] = outcome.numbers["seconds"]["train"]
        return self.work.placement.gather(outcome.params), {**pruned, **numbers}

    @contextmanager
    def _directory(self, operations: Sequence[Operation]) -> Iterator[Path]:
        """Where rounds are kept, for this run alone while it is at them: in compress.cache, or else in the workdir."""
        config = self.work.config
        text = format_recipe(Recipe(tuple(operations)))
        name = hashlib.sha256(_identity(config, self.origin, text).encode()).hexdigest()[:16]
        directory = (
            Path(config.compress.cache) if config.compress.cache else self.workdir / "rounds"
        ) / name
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as lock:
            if processes.first():
                fcntl.flock(lock, fcntl.LOCK_EX)
            processes.barrier()
            yield directory


def _identity(config: Config, origin: str, operations: str) -> str:
    """All that decides what rounds leave."""
    settings = to_dict(config)
    decides = {
        name: settings[name]
        for name in ("seed", "data", "optimizer", "objective", "compress", "eval", "model")
    }
    decides["eval"] = {name: value for name, value in decides["eval"].items() if name != "latency"}
    decides["data"] = {
        name: value for name, value in decides["data"].items() if name not in ("cache", "dir")
    }
    return json.dumps([origin, operations, decides], sort_keys=True, default=list)
