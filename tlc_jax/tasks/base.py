"""What all tasks share: how a network and its data become a training run, and the registry.

A task is one class in one file of this folder. It says what is learned (the objective), from which
batches, at which cost, how parameters are evaluated, and what `predict` writes. `register` makes it
known under the kind of model that it trains; nothing else branches on that kind.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from tlc_jax.compression.during_training import DENSE, DuringTraining
from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_text
from tlc_jax.core.mesh import Placement
from tlc_jax.core.params import describe_parameters
from tlc_jax.data.sources import Examples
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel, initializer
from tlc_jax.runs.workdir import data_cache
from tlc_jax.training.loop import Outcome, Task, train
from tlc_jax.training.loss import Batch, Objective
from tlc_jax.training.optimizer import adamw, treatment
from tlc_jax.training.step import TrainState, make_train_step


class Batches(Protocol):
    """Training batches on the host, as a pure function of the step number."""

    @property
    def rows_per_epoch(self) -> float: ...

    @property
    def steps_per_epoch(self) -> float: ...

    def __call__(self, step: int) -> dict[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Workload:
    """A training step before there is data, for compiling it ahead of time.

    Attributes:
      objective: the loss.
      unit: what optimizer.batch_size and impl.microbatch count, for people.
      batch: shape of each int32 array of the widest batch, rows first.
      microbatches: possible microbatches in `unit`, ascending.
      cost: what the step spends, without seconds and epochs.
    """

    objective: Objective
    unit: str
    batch: Mapping[str, tuple[int, ...]]
    microbatches: Sequence[int]
    cost: Amounts


class TaskRun(ABC):
    """A network with its data: evaluates parameters and makes training runs.

    Attributes:
      goal: name of the metric that decides: pruning recovers it, and studies compare it.
      counted: name of the array of a batch, [rows, width], whose tokens are counted.
      config: resolved config of the run.
      network: the model as pure functions.
      placement: mesh and sharding rules that arrays follow.
      meta: what checkpoints and artifacts say about the model.
    """

    goal: ClassVar[str]
    counted: ClassVar[str] = "tokens"

    def __init__(
        self, config: Config, network: Network, placement: Placement, meta: dict[str, Any]
    ):
        self.config, self.network, self.placement, self.meta = config, network, placement, meta

    @classmethod
    @abstractmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> TaskRun:
        """The task of a saved model, with the splits of data.valid.

        Args:
          config: resolved, with the model of `start`.
          start: the saved model.
          cache: folder for prepared data.
          placement: mesh and sharding rules.
          train: also read data.train, so that the model can be trained on.

        Raises:
          InputError: a source of data is wrong.
        """

    @abstractmethod
    def objective(self) -> Objective:
        """The loss that training minimizes."""

    @classmethod
    @abstractmethod
    def workload(cls, config: Config, network: Network, shards: int) -> Workload:
        """The training step of a config, without its data.

        Args:
          config: resolved.
          network: the model.
          shards: devices that the rows of a batch are split over.

        Raises:
          InputError: the batch does not divide among the devices.
        """

    def own_workload(self) -> Workload:
        """As `workload`, with the batches that this task's data makes."""
        return self.workload(self.config, self.network, self.placement.batch_shards)

    @classmethod
    @abstractmethod
    def train_flops(cls, config: Config, network: Network, rows: int, width: int) -> float:
        """Floating-point operations of a training step on [rows, width] tokens, by formula."""

    @abstractmethod
    def host_batches(self, seed: int) -> Batches:
        """The training batches in the order of a seed."""

    @functools.cached_property
    def own_batches(self) -> Batches:
        """The training batches in the order of the config's seed."""
        return self.host_batches(self.config.seed)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one pass over the training data."""
        return self.own_batches.steps_per_epoch

    def batches(self, seed: int) -> Callable[[int], Batch]:
        """The function from a step number to its batch, placed on the devices."""
        batches = self.host_batches(seed)
        return lambda step: self.placement.put_batch(batches(step))

    def cost(self, batch: Batch) -> Amounts:
        """What training on a batch spends: steps, examples, tokens, epochs and FLOPs."""
        rows, width = batch[self.counted].shape
        operations = self.train_flops(self.config, self.network, rows, width)
        return step_cost(rows, width, operations, self.own_batches.rows_per_epoch)

    @abstractmethod
    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Metrics of parameters on the validation splits.

        Args:
          params: parameters of `network`.
          final: use every example and keep the predictions; otherwise at most eval.examples.
        """

    def save_predictions(self, workdir: Path) -> None:
        """Writes the predictions of the last final evaluation to predictions/, if there are any."""
        del workdir

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        """What `tlc predict` writes for texts."""
        raise InputError(f"{start.path} is a pretrained encoder: predict needs a finetuned one")

    @classmethod
    def forward_inputs(cls, config: Config, tokens_BxL: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arguments of `network.apply` for full rows of tokens, which eval.latency times.

        Empty for a network whose forward pass says little about its use: it is not timed.
        """
        return ()

    def task(
        self,
        init: Callable[[], Params],
        during_training: DuringTraining = DENSE,
        seed: int | None = None,
    ) -> Task:
        """The training run for the loop.

        Args:
          init: () -> parameters to start from.
          during_training: what compression does while the model trains.
          seed: seed of the batches; None: the config's.
        """
        config, abstract = self.config, self.network.abstract()
        # The mask comes last in the chain: neither momentum nor weight decay revives a weight.
        mask = during_training.mask_transform(abstract)
        optimizer = adamw(config.optimizer, abstract, config.model.hidden, mask)
        forward_params = during_training.forward_params
        # Rounding is worth compiling; without it, jit would only copy the parameters.
        evaluated = jax.jit(forward_params) if during_training.aware else forward_params
        step = make_train_step(
            self.objective(),
            optimizer,
            config.microbatches,
            config.impl.dropout_keys,
            during_training.mask_gradient,
            forward_params,
        )

        def prune_to(state: TrainState, level: int) -> TrainState:
            return TrainState(*during_training.prune_to(state.params, state.optimizer, level))

        return Task(
            init=init,
            optimizer=optimizer,
            step=step,
            batch=self.batches(config.seed if seed is None else seed),
            cost=self.cost,
            evaluate=lambda params, final: self.evaluate(evaluated(params), final),
            meta=self.meta,
            pruning_level=during_training.pruning_level,
            prune_to=prune_to,
            peak_flops=session.peak(config),
        )

    def train(
        self,
        workdir: Path,
        start: SavedModel | None,
        during_training: DuringTraining = DENSE,
        evaluate: Callable[[Params, bool], dict[str, Any]] | None = None,
    ) -> Outcome:
        """Trains under the config's budget, as the command of a task does.

        Args:
          workdir: folder of the run, claimed by the caller.
          start: model whose parameters training starts from; None: random parameters.
          during_training: what compression does while the model trains.
          evaluate: replaces the task's own evaluation during training.

        Returns:
          The parameters, and the fields of result.json that all training commands share.
        """
        config, network = self.config, self.network
        if processes.first():
            abstract = network.abstract()
            columns = self.placement.columns(abstract) | treatment(config.optimizer, abstract)
            write_text(workdir / "parameters.txt", describe_parameters(abstract, **columns))
        size = session.size_numbers(network)
        name, params = f"{size['layers']}x{size['hidden']}", size["params"]
        session.say(f"{name}: {params:,} parameters, table in parameters.txt")
        task = self.task(initializer(network, config.seed, start), during_training)
        if evaluate:
            task = dataclasses.replace(task, evaluate=evaluate)
        outcome = train(task, config, workdir, self.placement)
        common = {"seed": config.seed, "microbatch": config.microbatch}
        origin = {"init": str(start.path) if start else "scratch"}
        return dataclasses.replace(outcome, numbers={**size, **common, **origin, **outcome.numbers})


class Predictor(ABC):
    """Predictions of a saved model for texts, block by block.

    Attributes:
      columns: names of the cells of a row.
      header: whether the file that `tlc predict` writes begins with these names.
      digits: decimals of the numbers in that file.
      cut: texts so far that were longer than data.length tokens and were cut.
    """

    columns: tuple[str, ...]
    header = False
    digits = 6
    cut = 0

    @abstractmethod
    def __call__(self, params: Params, block: Examples) -> Iterator[tuple[Any, ...]]:
        """Rows of cells for the examples of a block, in their order."""


def step_cost(
    rows: int, width: int, operations: float, rows_per_epoch: float = math.inf
) -> Amounts:
    """What a training step on [rows, width] tokens spends; without an epoch's rows, no epochs."""
    tokens, epochs = rows * width, rows / rows_per_epoch
    return Amounts(steps=1, examples=rows, tokens=tokens, epochs=epochs, flops=operations)


def divisors(rows: int, shards: int) -> list[int]:
    """Microbatches that a batch divides into and that divide among the devices, ascending.

    Args:
      rows: rows of the batch.
      shards: devices that the rows are split over.

    Raises:
      InputError: there are none.
    """
    found = [size for size in range(shards, rows + 1, shards) if rows % size == 0]
    if not found:
        raise InputError(
            f"a batch of {rows} rows does not divide among {shards} devices: change the batch size"
        )
    return found


def loss_numbers(sums: np.ndarray, accuracy: str) -> dict[str, float]:
    """`valid_loss` (nats), `valid_perplexity` and an accuracy from (loss, weight, correct) sums."""
    loss, weight, correct = sums
    # The largest float64 is about e to the 709: a diverged model has a finite perplexity.
    perplexity = math.exp(min(loss / weight, 700.0))
    return {"valid_loss": loss / weight, "valid_perplexity": perplexity, accuracy: correct / weight}


def with_splits(overall: dict[str, Any], splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The overall numbers; with several splits also the numbers of each, with `_SPLIT` appended."""
    result = dict(overall)
    for split, numbers in splits.items() if len(splits) > 1 else ():
        result |= {f"{name}_{split}": value for name, value in numbers.items()}
    return result


_TASKS: dict[str, str | type[TaskRun]] = {
    "mlm": "tlc_jax.tasks.masked_lm:MaskedLanguageRun",
    "encoder": "tlc_jax.tasks.masked_lm:MaskedLanguageRun",
    "classifier": "tlc_jax.tasks.classification:ClassifierRun",
    "translator": "tlc_jax.tasks.translation:TranslatorRun",
}


def register(kind: str, task: str | type[TaskRun]) -> None:
    """Makes a task known for a kind of model.

    Args:
      kind: the kind that checkpoints and artifacts of its models carry.
      task: the class, or "module:Class", which is imported when it is first needed.
    """
    _TASKS[kind] = task


def task_of(kind: str) -> type[TaskRun]:
    """The task of a kind of model.

    Raises:
      InputError: no task is registered for it.
    """
    found = _TASKS.get(kind)
    if found is None:
        raise InputError(
            f"no task is registered for models of kind {kind!r}; known are {', '.join(_TASKS)}"
        )
    if isinstance(found, str):
        # Imported late, so that a command loads only the task that it runs.
        module, _, name = found.partition(":")
        found = getattr(importlib.import_module(module), name)
    return found


def open_saved(
    config: Config, start: SavedModel, workdir: Path, placement: Placement, train: bool = False
) -> TaskRun:
    """The task of a saved model, with its data; see `TaskRun.of_saved`.

    Raises:
      InputError: the config names nothing to evaluate on, or a source of data is wrong.
    """
    if not (config.data.valid or config.data.train):
        raise InputError("data.valid is empty: name what to evaluate on")
    cache = data_cache(config, workdir)
    return task_of(start.kind).of_saved(config, start, cache, placement, train)
