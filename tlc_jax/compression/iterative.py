"""Iterative magnitude pruning, the main algorithm of paper 1: prune a little, finetune, repeat.

    for each sparsity of 15 %, 30 %, ..., target:
        prune to that sparsity
        finetune until 99.5 % of the dense model's accuracy is reached, or for one epoch

Where the paper is silent: finetuning keeps the optimizer settings of the run, its schedule is
stretched over the epoch that a round may take, and weights that one round prunes stay pruned in the
next.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.prune import apply_masks, join_masks, pruning_masks
from tlc_jax.compression.recipe import Operation, Prune, Recipe, format_recipe
from tlc_jax.config import Budget, Config, to_dict
from tlc_jax.core import distributed
from tlc_jax.core.files import Lock, path_of, remove_folder
from tlc_jax.core.mesh import Placement
from tlc_jax.models.network import Network, Params
from tlc_jax.training.checkpoint import complete_steps, read_meta, read_params, save_params
from tlc_jax.training.loop import Task, train


class Trainable(Protocol):
    """The part of a task that pruning uses: a network with its data, training and evaluation.

    Attributes:
      config: settings of the run.
      network: network whose parameters are pruned.
      placement: placement of arrays on devices.
      goal: name of the headline metric among those of `evaluate`; higher is better.
    """

    config: Config
    network: Network
    placement: Placement
    goal: ClassVar[str]

    @property
    def steps_per_epoch(self) -> float:
        """Training steps that pass over the training data once."""

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Metrics of the parameters; `final` says that training is over."""

    def task(self, init: Callable[[], Params], during_training: DuringTraining, seed: int) -> Task:
        """The training task from `init()` on."""


class IterativePruning:
    """Prunes one model round by round, with training in between.

    The result of a round depends on the operations before it and not on the recipe's target, so
    recipes that prune one model to several sparsities share their rounds where compress.cache is
    set. Finished rounds are not repeated.

    Attributes:
      history: sparsity and metrics of each round, the dense model first.
    """

    def __init__(self, run: Trainable, workdir: Path, origin: str, dense: float):
        """Prepares to prune.

        Args:
          run: the model's task.
          workdir: directory of the run.
          origin: hash of the model before pruning; models of one origin share rounds.
          dense: headline metric of the dense model.
        """
        self.run, self.workdir, self.origin = run, workdir, origin
        self.settings = run.config.compress
        self.target = self.settings.recover * dense
        self.history: list[dict[str, Any]] = [{"sparsity": 0.0, run.goal: dense, "steps": 0}]
        self._done: list[Operation] = []

    def prune(
        self, params: Params, masks: dict[str, Any], prune: Prune
    ) -> tuple[Params, dict[str, Any]]:
        """Prunes and finetunes, round by round; returns parameters and the masks joined with those
        given.
        """
        block = prune.block
        rounds = (prune.sparsity,) if block else schedule(prune.sparsity, self.settings.step)
        # Rounds are shared by all targets, so their name leaves the target out.
        named = prune if block else dataclasses.replace(prune, sparsity=0.0)
        with self._directory([*self._done, named]) as directory:
            for sparsity in rounds:
                masks = join_masks(masks, pruning_masks(params, prune, sparsity))
                params, numbers = self._round(directory, sparsity, params, masks)
                self.history.append({"sparsity": sparsity, **numbers})
        self._done.append(prune)
        return params, masks

    def recover_from_removal(self, params: Params, removes: Sequence[Operation]) -> Params:
        """Finetunes a model whose structures have just been taken out."""
        self._done += removes
        with self._directory(self._done) as directory:
            params, numbers = self._round(directory, 0.0, params, {})
        self.history.append({"sparsity": 0.0, **numbers})
        return params

    def _round(
        self, directory: Path, sparsity: float, params: Params, masks: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        """One round, or its stored result."""
        # By all digits: two sparsities that are almost the same are two rounds.
        stored, unfinished = (directory / f"{sparsity!r}-{state}" for state in ("kept", "training"))
        if complete_steps(stored):
            params = read_params(stored, 0, self.run.network.abstract())
            return params, read_meta(stored, 0)["round"]
        number, params = round(1000 * sparsity), apply_masks(params, masks)
        params, numbers = self._finetune(unfinished, number, params, masks)
        save_params(stored, 0, params, {"round": numbers})
        if distributed.first():
            remove_folder(unfinished)
        return params, numbers

    def _finetune(
        self, workdir: Path, number: int, params: Params, masks: dict[str, Any]
    ) -> tuple[Params, dict[str, Any]]:
        """Trains until the target is reached again, or for compress.recover_epochs."""
        name, settings, config = self.run.goal, self.settings, self.run.config
        pruned = self.run.evaluate(params, False)[name]
        numbers = {f"{name}_pruned": pruned, name: pruned, "steps": 0, "stopped_by": "target"}
        if settings.recover == 0 or pruned >= self.target:
            return params, numbers
        every = max(1, round(self.run.steps_per_epoch / settings.recover_evals))
        # With a seed of its own, each round sees the examples in another order and drops out other
        # activations.
        config = dataclasses.replace(
            config,
            seed=config.seed + number,
            budget=Budget(epochs=settings.recover_epochs),
            eval=dataclasses.replace(config.eval, every_seconds=0.0, every_steps=every),
        )
        task = dataclasses.replace(
            self.run.task(lambda: params, DuringTraining(masks), config.seed),
            reached_target=lambda metrics: metrics[name] >= self.target,
        )
        workdir.mkdir(parents=True, exist_ok=True)
        outcome = train(task, config, workdir, self.run.placement)
        numbers |= {key: outcome.numbers[key] for key in (name, "steps", "stopped_by")}
        numbers["seconds"] = outcome.numbers["seconds"]["train"]
        return self.run.placement.gather(outcome.params), numbers

    @contextmanager
    def _directory(self, operations: Sequence[Operation]) -> Iterator[Path]:
        """The directory of a model's rounds, for this run alone until it is done with them.

        It lies in compress.cache, or else in the workdir. Its name is a hash of everything that
        decides the result of rounds.
        """
        settings = to_dict(self.run.config)
        # These are locations or extra measurements: they decide nothing.
        del settings["eval"]["latency"]
        for name in ("cache", "dir", "test"):
            del settings["data"][name]
        names = ("seed", "data", "optimizer", "objective", "compress", "eval", "model")
        decides = {name: settings[name] for name in names}
        text = format_recipe(Recipe(tuple(operations)))
        identity = json.dumps([self.origin, text, decides], sort_keys=True, default=list)
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        cache = self.settings.cache
        directory = (path_of(cache) if cache else self.workdir / "rounds") / name
        directory.mkdir(parents=True, exist_ok=True)
        # Process 0 waits for other runs on behalf of all processes of this one.
        with Lock(directory / ".lock") if distributed.first() else nullcontext():
            distributed.barrier()
            yield directory


def schedule(target: float, step: float) -> tuple[float, ...]:
    """The sparsity after each round of iterative pruning: step, 2 x step, ..., target (paper 1:
    0.15, 0.30, ...).
    """
    rounds = math.ceil(target / step - 1e-9)
    return (*(round(index * step, 10) for index in range(1, rounds)), target) if rounds else ()
