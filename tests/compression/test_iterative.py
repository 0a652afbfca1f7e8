"""Iterative pruning on a task whose accuracy follows from the weights that are left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import trees
from tlc_jax.compression import iterative
from tlc_jax.compression.iterative import IterativePruning, schedule
from tlc_jax.compression.recipe import Prune
from tlc_jax.config import Compress, Config
from tlc_jax.core.params import content_hash, flatten


@dataclasses.dataclass
class Outcome:
    params: Any
    numbers: dict[str, Any]


class Run:
    """A task with the accuracy 1 - zeros / 2 before training, and 1 after it."""

    goal = "accuracy"
    steps_per_epoch = 8.0

    def __init__(self, config: Config):
        self.config, self.placement, self.network = config, self, self
        self.trained = 0

    def abstract(self) -> Any:
        return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, trees.few_leaves()))

    def gather(self, params: Any) -> Any:
        return params

    def evaluate(self, params: Any, final: bool) -> dict[str, Any]:
        weights = np.asarray(params["embedding"]["token"])
        return {"accuracy": 1 - np.mean(weights == 0) / 2}

    def task(self, init: Any, during_training: Any, seed: int) -> Any:
        return Task(init, during_training.masks)


@dataclasses.dataclass
class Task:
    init: Any
    masks: Any
    reached_target: Any = None


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run(Config(compress=Compress(step=0.3)))

    def train(task: Task, config: Config, workdir: Path, placement: Any) -> Outcome:
        run.trained += 1
        assert not task.reached_target({"accuracy": 0.99}) and task.reached_target(
            {"accuracy": 0.995}
        )
        numbers = {"accuracy": 1.0, "steps": 8, "stopped_by": "target", "seconds": {"train": 1.0}}
        return Outcome(task.init(), numbers)

    monkeypatch.setattr(iterative, "train", train)
    return run


def prune(run: Run, workdir: Path, sparsity: float) -> IterativePruning:
    pruning = IterativePruning(run, workdir, "origin", dense=1.0)
    params = jax.tree.map(jnp.asarray, trees.few_leaves())
    params, masks = pruning.prune(params, {}, Prune(sparsity))
    for path, mask in flatten(masks).items():
        assert not np.asarray(flatten(params)[path])[~np.asarray(mask)].any()
    return pruning


def test_each_round_prunes_and_trains_until_the_metric_is_back(run: Run, tmp_path: Path) -> None:
    history = prune(run, tmp_path, 0.75).history
    assert [row["sparsity"] for row in history] == [0.0, 0.3, 0.6, 0.75]
    assert all(row["accuracy_pruned"] < row["accuracy"] == 1.0 for row in history[1:])
    assert run.trained == 3


def test_rounds_are_shared_by_targets_and_not_repeated(run: Run, tmp_path: Path) -> None:
    prune(run, tmp_path, 0.6)
    assert run.trained == 2
    assert [row["steps"] for row in prune(run, tmp_path, 0.75).history] == [0, 8, 8, 8]
    assert run.trained == 3


def test_sparsities_that_are_almost_the_same_are_rounds_of_their_own(
    run: Run, tmp_path: Path
) -> None:
    first, second = (prune(run, tmp_path, sparsity).history[-1] for sparsity in (0.3, 0.3004))
    assert run.trained == 2 and second["sparsity"] == 0.3004
    assert first["accuracy_pruned"] >= second["accuracy_pruned"]


def test_a_hash_of_the_content_tells_models_apart() -> None:
    params = trees.few_leaves()
    other = jax.tree.map(np.array, params)
    assert content_hash(other) == content_hash(jax.tree.map(jnp.asarray, params))
    other["embedding"]["token"][0, 0] += 1e-6
    assert content_hash(other) != content_hash(params)
    assert content_hash({"a": np.zeros(4)}) != content_hash({"a": np.zeros((2, 2))})
    assert content_hash({"a": np.zeros(4)}) != content_hash({"b": np.zeros(4)})


def test_a_model_that_is_still_good_enough_is_not_trained(run: Run, tmp_path: Path) -> None:
    run.config = dataclasses.replace(run.config, compress=Compress(step=0.3, recover=0.5))
    history = prune(run, tmp_path, 0.3).history
    assert (history[1]["steps"], history[1]["stopped_by"], run.trained) == (0, "target", 0)


def test_schedule_follows_the_paper() -> None:
    assert schedule(0.9, 0.15) == (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
    assert schedule(0.4, 0.15) == (0.15, 0.3, 0.4)
    assert schedule(0.3, 1.0) == (0.3,)
    assert len(schedule(0.14, 0.02)) == 7  # although 0.14 / 0.02 is a little more than 7
    assert schedule(0.0, 0.15) == ()
