"""The base class of tasks, which makes training runs of a network and its data, and their registry.

A task is one class in one file of this folder. It defines the objective, the batches, their cost,
the evaluation, and the output of `predict`. A table at the end, or a plug-in, makes it known under
the kind of model that it trains; nothing else branches on that kind.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np

from tlc_jax.compression.during_training import DENSE, DuringTraining
from tlc_jax.config import Config, Impl
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_text
from tlc_jax.core.mesh import Placement, data_groups
from tlc_jax.core.params import describe_parameters
from tlc_jax.data.sources import Examples
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import auto, session
from tlc_jax.runs.saved_model import SavedModel, initializer
from tlc_jax.runs.workdir import data_cache
from tlc_jax.training.loop import Outcome, Task, train
from tlc_jax.training.optimizer import adamw, treatment
from tlc_jax.training.step import Batch, Objective, TrainState, make_train_step


class Batches(Protocol):
    """Training batches on the host, as a pure function of the step number."""

    @property
    def rows_per_epoch(self) -> float: ...

    @property
    def steps_per_epoch(self) -> float: ...

    def __call__(self, step: int) -> dict[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Workload:
    """The training step on the widest batch, for compiling it ahead of time.

    Attributes:
      objective: the loss.
      unit: name of what optimizer.batch_size and impl.microbatch count.
      batch: shape of each int32 array of the batch, rows first.
      microbatches: possible microbatches in `unit`, ascending.
      cost: what the step spends, without seconds and epochs.
    """

    objective: Objective
    unit: str
    batch: Mapping[str, tuple[int, ...]]
    microbatches: Sequence[int]
    cost: Amounts


@dataclasses.dataclass(eq=False)
class TaskRun(ABC):
    """A network with its data: evaluates parameters and makes training runs.

    The data are fields of each task, and may be left out where they are not read.

    Attributes:
      goal: name of the metric that decides: pruning recovers it, and studies compare it.
      unit: name of what optimizer.batch_size and impl.microbatch count.
      arrays: number of axes of each int32 array of a batch: rows, then positions of a row. The
        tokens of the first array are counted.
      config: resolved config of the run.
      network: the model as pure functions.
      placement: mesh and sharding rules of all arrays.
      meta: description of the model that checkpoints and artifacts carry.
      predictions: by split, those of the last final evaluation and of the test; each has
        `save(folder, split)`.
    """

    goal: ClassVar[str]
    unit: ClassVar[str]
    arrays: ClassVar[dict[str, int]]

    config: Config
    network: Network
    placement: Placement
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    predictions: dict[str, Any] = dataclasses.field(default_factory=dict, init=False)

    @classmethod
    @abstractmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> TaskRun:
        """The task of a saved model, with the splits of data.valid and data.test.

        Args:
          config: resolved config with the architecture of `start`.
          start: the saved model.
          cache: folder for prepared data.
          placement: mesh and sharding rules.
          train: also read data.train, so that the model can be trained further.

        Raises:
          InputError: a source of data is wrong.
        """

    @abstractmethod
    def objective(self) -> Objective:
        """The loss that training minimizes."""

    @abstractmethod
    def train_flops(self, rows: int, width: int) -> float:
        """Floating-point operations of a training step on [rows, width] tokens, by formula."""

    @abstractmethod
    def host_batches(self, seed: int) -> Batches:
        """The training batches in the order of a seed."""

    @functools.cached_property
    def own_batches(self) -> Batches:
        """The training batches in the order of the config's seed."""
        return self.host_batches(self.config.seed)

    def with_seed(self, seed: int) -> Self:
        """The same run with another seed; the two share their data and compiled evaluations."""
        other = copy.copy(self)
        other.config, other.predictions = dataclasses.replace(self.config, seed=seed), {}
        vars(other).pop("own_batches", None)
        return other

    def set_impl(self, impl: Impl) -> None:
        """Replaces settings of the implementation, before anything is computed."""
        self.config = dataclasses.replace(self.config, impl=impl)
        self.network = dataclasses.replace(self.network, impl=impl)

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one pass over the training data."""
        return self.own_batches.steps_per_epoch

    def batches(self, seed: int) -> Callable[[int], Batch]:
        """The function from a step number to its batch, as an argument of the jitted step."""
        batches = self.host_batches(seed)
        return lambda step: self.placement.for_step(batches(step))

    def shapes(self) -> Sequence[tuple[int, int]]:
        """Rows and width of each kind of training batch; without data, of the widest."""
        return [(self.config.optimizer.batch_size, self.config.data.length)]

    def workload(self) -> Workload:
        """The training step on the widest batch; it needs no data.

        Raises:
          InputError: the batch does not divide among the devices.
        """
        amount, shapes = self.config.optimizer.batch_size, self.shapes()
        sizes = microbatches(amount, [rows for rows, _ in shapes], self.placement.batch_shards)
        # Buckets hold about as many tokens each, and the widest one takes the most for attention.
        widest = rows, width = max(shapes, key=lambda shape: shape[1])
        batch = {name: widest[:axes] for name, axes in self.arrays.items()}
        return Workload(self.objective(), self.unit, batch, sizes, self._cost(rows, width))

    def cost(self, batch: Batch) -> Amounts:
        """The steps, examples, tokens, epochs and FLOPs of training on a batch."""
        # Of seeds that train together, the amounts are those of each.
        *_, rows, width = batch[next(iter(self.arrays))].shape
        # Not the rows of the data: batches of pairs are filled up with rows that repeat.
        epochs = rows / self.own_batches.rows_per_epoch
        return dataclasses.replace(self._cost(rows, width), epochs=epochs)

    def _cost(self, rows: int, width: int) -> Amounts:
        operations = self.train_flops(rows, width)
        return Amounts(steps=1, examples=rows, tokens=rows * width, flops=operations)

    @abstractmethod
    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Metrics of parameters on the validation splits.

        Args:
          params: parameters of `network`.
          final: use every example and keep the predictions; otherwise at most eval.examples.
        """

    def evaluate_test(self, params: Params) -> dict[str, Any]:
        """Metrics on the splits of data.test, named `test_...`; empty where there are none.

        Keeps the predictions. A task with a test split defines it.

        Raises:
          InputError: data.test is set, and the task has no test split.
        """
        if self.config.data.test:
            raise InputError("this task has no test split: leave data.test empty")
        return {}

    def measure(self, params: Params) -> dict[str, Any]:
        """The metrics of a finished model, on every example of data.valid and of data.test.

        Commands call it, or `evaluate_test`, once: nothing may be decided by a test split.
        """
        return {**self.evaluate(params, True), **self.evaluate_test(params)}

    def save_predictions(self, workdir: Path, step: int | None = None) -> None:
        """Writes the predictions of the last final evaluation and of the test, if there are any.

        With `step`, they are those of an evaluation while training, and go to a folder of the step.
        """
        # All processes hold the same predictions; two that write one file would break it.
        if self.predictions and processes.first():
            folder = workdir / "predictions" / ("" if step is None else f"step-{step}")
            folder.mkdir(parents=True, exist_ok=True)
            for split, found in self.predictions.items():
                found.save(folder, split)

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        """The predictor that `tlc predict` asks."""
        raise InputError(f"{start.path} is a pretrained encoder: predict needs a finetuned one")

    @classmethod
    def forward_inputs(cls, config: Config, tokens_BxL: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arguments of `network.apply` for full rows of tokens, which eval.latency times.

        Empty for a network that is not timed, because one forward pass says little about its use.
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
          during_training: how compression acts while the model trains.
          seed: seed of the batches; None: that of the config.
        """
        config, abstract = self.config, self.network.abstract()
        # The mask comes last in the chain: neither momentum nor weight decay revives a weight.
        mask = during_training.mask_transform(abstract)
        optimizer = adamw(config.optimizer, abstract, config.model.hidden, mask)
        forward_params = during_training.forward_params
        # Rounding is worth compiling; without it, jit would only copy the parameters.
        evaluated = jax.jit(forward_params) if during_training.aware else forward_params
        parts, keys = config.microbatches, config.impl.dropout_keys
        mask_gradient = during_training.mask_gradient
        groups, noise_scale = config.impl.attention != "cudnn", config.eval.noise_scale
        if noise_scale and parts * data_groups(self.placement.mesh, groups) == 1:
            # Not split without being asked: that would change rounding and the draws of dropout.
            half = config.optimizer.batch_size // 2
            raise InputError(
                "eval.noise_scale compares gradients of parts of a batch, and this run has one: "
                f"set impl.microbatch={half} or less, or train on several devices"
            )
        forms = mask_gradient, forward_params, groups, noise_scale
        step = make_train_step(self.objective(), optimizer, parts, keys, *forms)
        return Task(
            init=init,
            optimizer=optimizer,
            step=step,
            batch=self.batches(config.seed if seed is None else seed),
            cost=self.cost,
            evaluate=lambda params, final: self.evaluate(evaluated(params), final),
            meta=self.meta,
            pruning_level=during_training.pruning_level,
            prune_to=lambda state, level: TrainState(*during_training.prune_to(*state, level)),
            peak_flops=session.peak(config),
        )

    def train(
        self,
        workdir: Path,
        start: SavedModel | None,
        during_training: DuringTraining = DENSE,
        evaluate: Callable[[Params, bool], dict[str, Any]] | None = None,
        programs: dict[tuple[Any, ...], Any] | None = None,
    ) -> Outcome:
        """Trains under the config's budget, as the command of a task does.

        Args:
          workdir: folder of the run, claimed by the caller.
          start: model whose parameters training starts from; None: random parameters.
          during_training: how compression acts while the model trains.
          evaluate: replaces the task's own evaluation during training.
          programs: compiled steps of a run that differs in its seed alone; this one adds its own.

        Returns:
          The parameters, and the fields of result.json that all training commands share.
        """
        config, network = self.config, self.network
        self.write_parameters(workdir)
        # Checked before anything is compiled: a start of other shapes is refused here.
        task = self.task(initializer(network, config.seed, start), during_training)
        if evaluate:
            task = dataclasses.replace(task, evaluate=evaluate)
        if programs is not None:
            task = dataclasses.replace(task, programs=programs)
        if config.eval.keep_predictions:
            keep, as_set = functools.partial(self.save_predictions, workdir), task.evaluate
            # A final evaluation is the one that keeps predictions, those of every example.
            task = dataclasses.replace(
                task, evaluate=lambda params, _: as_set(params, True), after_evaluation=keep
            )
        outcome = train(task, config, workdir, self.placement)
        return dataclasses.replace(outcome, numbers={**self.numbers(start), **outcome.numbers})

    def write_parameters(self, workdir: Path) -> None:
        """Writes the table of parameters, parameters.txt, and says how many there are."""
        abstract, size = self.network.abstract(), session.size_numbers(self.network)
        if processes.first():
            columns = self.placement.columns(abstract) | treatment(self.config.optimizer, abstract)
            write_text(workdir / "parameters.txt", describe_parameters(abstract, **columns))
        name, params = f"{size['layers']}x{size['hidden']}", size["params"]
        session.say(f"{name}: {params:,} parameters, table in parameters.txt")

    def numbers(self, start: SavedModel | None) -> dict[str, Any]:
        """The fields of result.json that are known before training from `start`."""
        config = self.config
        common = {"seed": config.seed, "microbatch": config.microbatch}
        origin = {"init": str(start.path) if start else "scratch"}
        return {**session.size_numbers(self.network), **common, **auto.chosen(config), **origin}


class Predictor(ABC):
    """Predictions of a saved model for texts, block by block.

    Attributes:
      columns: names of the cells of a row.
      header: whether the file that `tlc predict` writes begins with these names.
      digits: decimals of the numbers in that file.
      cut: texts so far that were longer than data.length tokens and were cut.
      reads_pairs: whether it reads the second text of an example.
    """

    columns: tuple[str, ...]
    header = False
    digits = 6
    cut = 0
    reads_pairs = True

    @abstractmethod
    def __call__(self, params: Params, block: Examples) -> Iterator[tuple[Any, ...]]:
        """Rows of cells for the examples of a block, in their order."""


def microbatches(amount: int, rows: Sequence[int], shards: int) -> list[int]:
    """Microbatches whose number suits every kind of batch, ascending.

    Args:
      amount: optimizer.batch_size.
      rows: number of rows of each kind of batch.
      shards: devices that the rows are split over.

    Raises:
      InputError: a batch does not divide among the devices.
    """
    for count in rows:
        if count % shards:
            raise InputError(
                f"a batch of {count} rows does not divide among {shards} devices: "
                "change the batch size"
            )
    # Training compiles a step for each kind of batch, and all have the same number of parts.
    sizes = [size for size in range(1, amount + 1) if amount % size == 0]
    return [size for size in sizes if all(n % (amount // size * shards) == 0 for n in rows)]


def loss_numbers(sums: np.ndarray, accuracy: str) -> dict[str, float]:
    """`valid_loss` (nats), `valid_perplexity` and an accuracy from (loss, weight, correct) sums."""
    loss, weight, correct = sums
    # The largest float64 is about e to the 709: a diverged model has a finite perplexity.
    perplexity = math.exp(min(loss / weight, 700.0))
    return {"valid_loss": loss / weight, "valid_perplexity": perplexity, accuracy: correct / weight}


def with_splits(
    splits: dict[str, dict[str, Any]], overall: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Overall numbers; with several splits also those of each, with `_SPLIT` appended.

    Args:
      splits: numbers of each split.
      overall: the overall numbers; None: those of the first split, which decides.
    """
    result = dict(overall or next(iter(splits.values())))
    for split, numbers in splits.items() if len(splits) > 1 else ():
        result |= {f"{name}_{split}": value for name, value in numbers.items()}
    return result


def test_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of an evaluation as those of the test: `valid_loss` and `bleu` become `test_...`."""
    return {f"test_{name.removeprefix('valid_')}": value for name, value in numbers.items()}


_TASKS = {
    "mlm": "tlc_jax.tasks.masked_lm:MaskedLanguageRun",
    "encoder": "tlc_jax.tasks.masked_lm:MaskedLanguageRun",
    "classifier": "tlc_jax.tasks.classification:ClassifierRun",
    "translator": "tlc_jax.tasks.translation:TranslatorRun",
}


def task_of(kind: str) -> type[TaskRun]:
    """The task of a kind of model.

    Raises:
      InputError: there is none.
    """
    of_plugin: type[TaskRun] | None = plugins.find("task", kind, "")
    # Imported late, so that a command loads only the task that it runs.
    return of_plugin or pkgutil.resolve_name(_TASKS[kind])


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
