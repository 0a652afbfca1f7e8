"""What all tasks share: a network with its data, how both become a training run, and the registry.

A task is one file of this folder. It says what is learned (the objective), from which batches, at
which cost, how parameters are evaluated, and what `predict` writes. `register` makes it known under
the kind of model that it trains; nothing else branches on that kind.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax

from tlc_jax.compression.during_training import DENSE, DuringTraining
from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.examples import Examples
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.training.loop import Task
from tlc_jax.training.loss import Batch, Objective
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import TrainState, make_train_step


class TaskRun(ABC):
    """A network with its data: evaluates parameters and makes training runs.

    Attributes:
      goal: name of the metric that decides: pruning recovers it, and studies compare it.
      config: resolved config of the run.
      network: the model as pure functions.
      placement: mesh and sharding rules that arrays follow.
      meta: what checkpoints and artifacts say about the model.
    """

    goal: ClassVar[str]

    def __init__(
        self, config: Config, network: Network, placement: Placement, meta: dict[str, Any]
    ):
        self.config, self.network, self.placement, self.meta = config, network, placement, meta

    @classmethod
    @abstractmethod
    def of_saved(
        cls,
        config: Config,
        start: SavedModel,
        workdir: Path,
        placement: Placement,
        train: bool = False,
    ) -> TaskRun:
        """The task of a saved model, with the splits of data.valid.

        Args:
          config: resolved, with the model of `start`.
          start: the saved model.
          workdir: where prepared data is cached if data.cache is empty.
          placement: mesh and sharding rules.
          train: also read data.train, so that the model can be trained on.

        Raises:
          InputError: a source of data is wrong.
        """

    @abstractmethod
    def objective(self) -> Objective:
        """The loss that training minimizes."""

    @abstractmethod
    def batches(self, seed: int) -> Callable[[int], Batch]:
        """The function from a step number to its batch, placed on the devices."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one pass over the training data."""

    @abstractmethod
    def cost(self, batch: Batch) -> Amounts:
        """What training on a batch spends: steps, examples, tokens, epochs and FLOPs."""

    @abstractmethod
    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Metrics of parameters on the validation splits.

        Args:
          params: parameters of `network`.
          final: use every example and keep the predictions; otherwise at most eval.examples.
        """

    def save_predictions(self, workdir: Path) -> None:
        """Writes the predictions of the last final evaluation to predictions/, if the task has any."""
        del workdir

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        """What `tlc predict` writes for texts."""
        raise InputError(f"{start.path} is a pretrained encoder: predict needs a finetuned one")

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
        return Task(
            init=init,
            optimizer=optimizer,
            step=make_train_step(
                self.objective(),
                optimizer,
                config.microbatches,
                config.impl.dropout_keys,
                during_training.mask_gradient,
                forward_params,
            ),
            batch=self.batches(config.seed if seed is None else seed),
            cost=self.cost,
            evaluate=lambda params, final: self.evaluate(evaluated(params), final),
            meta=self.meta,
            stage=during_training.pruning_level,
            advance=lambda state, level: TrainState(
                *during_training.prune_to(state.params, state.optimizer, level)
            ),
            peak_flops=session.peak(config),
        )


class Predictor(ABC):
    """Answers of a saved model for texts, block by block.

    Attributes:
      header: first line of the output, with its line end; empty for none.
      cut: texts so far that were longer than data.length tokens and were cut.
    """

    header = ""
    cut = 0

    @abstractmethod
    def __call__(self, params: Params, block: Examples) -> Iterator[str]:
        """Lines of the output for the examples of a block, in their order."""


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


def require_data(config: Config) -> None:
    """Refuses a config that names nothing to evaluate on.

    Raises:
      InputError: data.valid and data.train are both empty.
    """
    if not (config.data.valid or config.data.train):
        raise InputError("data.valid is empty: name what to evaluate on")
