"""Training and evaluating a classifier, as finetuning does it once and recovery from pruning many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from tlc_jax.compression.during_training import DENSE, DuringTraining
from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import LabelledBatches
from tlc_jax.data.labelled import Labelled, hold_out, load_labelled
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.predictions import Predictions
from tlc_jax.tasks.classification_evaluator import ClassificationEvaluator, summarise
from tlc_jax.training.loop import Task
from tlc_jax.training.loss import Batch, classification
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import TrainState, make_train_step


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """Training sources and the splits to evaluate on."""

    train: list[Labelled]
    valid: list[Labelled]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.train[0].label_names


def load_data(
    config: Config, tokenizer: Tokenizer, labels: tuple[str, ...] | None = None
) -> LabelledData:
    """Reads data.train and data.valid.

    Args:
      config: without data.valid, the share data.holdout of each training source is held out.
      tokenizer: of the model.
      labels: the classes of a model that is trained already; None: those of the training data.

    Raises:
      InputError: a source is wrong, or holds labels that `labels` does not.
    """
    train = load_labelled(
        config.data.train, config.data, tokenizer, labels, config.seed, config.impl.threads
    )
    if config.data.valid:
        return LabelledData(train, load_validation(config, tokenizer, train[0].label_names))
    train, held_out = hold_out(train, config.data.holdout)
    return LabelledData(train, held_out)


def load_validation(
    config: Config, tokenizer: Tokenizer, labels: tuple[str, ...]
) -> list[Labelled]:
    """The splits of data.valid, or what `load_data` holds out of data.train where that is empty."""
    spec = config.data.valid or config.data.train
    splits = load_labelled(spec, config.data, tokenizer, labels, config.seed, config.impl.threads)
    if config.data.valid:
        return splits
    return hold_out(splits, config.data.holdout)[1]


class ClassifierRun:
    """A network with its data: makes training tasks and evaluates parameters.

    Attributes:
      goal: the number that recovery from pruning is to bring back.
      predictions: per split, of the parameters that `final` evaluated last.
    """

    goal = "accuracy"

    def __init__(
        self,
        config: Config,
        network: Network,
        tokenizer: Tokenizer,
        data: LabelledData,
        placement: Placement,
    ):
        self.config, self.network, self.tokenizer, self.data, self.placement = (
            config,
            network,
            tokenizer,
            data,
            placement,
        )
        batch_size = config.eval.batch_size or config.optimizer.batch_size
        self._evaluator = ClassificationEvaluator(network, data.valid, batch_size, placement)
        self.predictions: dict[str, Predictions] = {}
        self.meta = session.model_meta("classifier", config, tokenizer, data.labels)
        self.steps_per_epoch = LabelledBatches(
            data.train, config.optimizer.batch_size, 0
        ).examples_per_epoch / (config.optimizer.batch_size)

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Numbers on the validation splits; all of each, with predictions kept, once training is over."""
        predictions = self._evaluator.predictions(params, 0 if final else self.config.eval.examples)
        if final:
            self.predictions = predictions
        return summarise(predictions)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.npz."""
        if not processes.first():
            return
        for name, predictions in self.predictions.items():
            predictions.save(workdir / "predictions" / f"{name}.npz")

    def task(
        self,
        init: Callable[[], Params],
        during_training: DuringTraining = DENSE,
        seed: int | None = None,
    ) -> Task:
        """The training task from `init()` on; `during_training` says what compression does meanwhile."""
        config = self.config
        abstract = self.network.abstract()
        optimizer = adamw(
            config.optimizer,
            abstract,
            config.model.hidden,
            during_training.mask_transform(abstract),
        )
        batches = LabelledBatches(
            self.data.train, config.optimizer.batch_size, config.seed if seed is None else seed
        )
        forward_params = (
            jax.jit(during_training.forward_params)
            if during_training.aware
            else during_training.forward_params
        )
        return Task(
            init=init,
            optimizer=optimizer,
            step=make_train_step(
                classification(self.network),
                optimizer,
                config.microbatches,
                config.impl.dropout_keys,
                during_training.mask_gradient,
                during_training.forward_params,
            ),
            batch=lambda step: self.placement.put_batch(batches(step)),
            cost=self._cost(batches.examples_per_epoch),
            evaluate=lambda params, final: self.evaluate(forward_params(params), final),
            meta=self.meta,
            stage=during_training.pruning_level,
            advance=lambda state, stage: TrainState(
                *during_training.prune_to(state.params, state.optimizer, stage)
            ),
            peak_flops=session.peak(config),
        )

    def _cost(self, examples_per_epoch: float) -> Callable[[Batch], Amounts]:
        def cost(batch: Batch) -> Amounts:
            rows, width = batch["tokens"].shape
            return Amounts(
                steps=1,
                examples=rows,
                tokens=rows * width,
                epochs=rows / examples_per_epoch,
                flops=flops.classifier_train_flops_per_step(
                    self.config.model, len(self.data.labels), rows, width
                ),
            )

        return cost
