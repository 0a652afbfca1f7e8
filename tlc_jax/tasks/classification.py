"""Classification of texts and pairs of texts: data, objective, evaluation, cost and predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import LabelledBatches, evaluation_batches
from tlc_jax.data.examples import Examples
from tlc_jax.data.labelled import Labelled, encode_examples, hold_out, load_labelled
from tlc_jax.data.sources import Source
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.predictions import Predictions
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import Predictor, TaskRun, require_data
from tlc_jax.training.loss import Batch, Objective, Sums, weighted_sums


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """Training sources and the splits to evaluate on."""

    train: list[Labelled]
    valid: list[Labelled]

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.train or self.valid)[0].label_names


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


class ClassifierRun(TaskRun):
    """A classifier with its labelled data.

    Attributes:
      predictions: predictions of the last final evaluation, by split.
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
        meta = session.model_meta("classifier", config, tokenizer, data.labels)
        super().__init__(config, network, placement, meta)
        self.tokenizer, self.data = tokenizer, data
        batch_size = config.eval.batch_size or config.optimizer.batch_size
        self._evaluator = ClassificationEvaluator(network, data.valid, batch_size, placement)
        self.predictions: dict[str, Predictions] = {}

    @classmethod
    def of_saved(
        cls,
        config: Config,
        start: SavedModel,
        workdir: Path,
        placement: Placement,
        train: bool = False,
    ) -> ClassifierRun:
        require_data(config)
        if train:
            data = load_data(config, start.tokenizer, start.labels)
        else:
            data = LabelledData([], load_validation(config, start.tokenizer, start.labels))
        return cls(config, start.network(config.impl), start.tokenizer, data, placement)

    def objective(self) -> Objective:
        return classification(self.network)

    def batches(self, seed: int) -> Callable[[int], Batch]:
        batches = LabelledBatches(self.data.train, self.config.optimizer.batch_size, seed)
        return lambda step: self.placement.put_batch(batches(step))

    @functools.cached_property
    def _examples_per_epoch(self) -> float:
        batch_size = self.config.optimizer.batch_size
        return LabelledBatches(self.data.train, batch_size, 0).examples_per_epoch

    @property
    def steps_per_epoch(self) -> float:
        return self._examples_per_epoch / self.config.optimizer.batch_size

    def cost(self, batch: Batch) -> Amounts:
        rows, width = batch["tokens"].shape
        classes = len(self.data.labels)
        return Amounts(
            steps=1,
            examples=rows,
            tokens=rows * width,
            epochs=rows / self._examples_per_epoch,
            flops=flops.classifier_train_flops_per_step(self.config.model, classes, rows, width),
        )

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        predictions = self._evaluator.predictions(params, 0 if final else self.config.eval.examples)
        if final:
            self.predictions = predictions
        return summarize(predictions)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.npz."""
        if not processes.first():
            return
        for name, predictions in self.predictions.items():
            predictions.save(workdir / "predictions" / f"{name}.npz")

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        return LabelPredictor(config, start, placement)


def classification(network: Network) -> Objective:
    """Predict `batch["labels"]` of the padded rows `batch["tokens"]`."""

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        del key  # nothing is random but dropout
        return batch

    def sums(params: Params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
        logits_BxC = network.apply(
            params, batch["tokens"], batch["tokens"] != network.model.padding, key=key
        )
        labels_B = batch["labels"]
        weights_B: Any = batch.get("weights", jnp.ones(labels_B.shape, jnp.float32))
        return weighted_sums(
            logits_BxC, jnp.maximum(labels_B, 0), weights_B * (labels_B >= 0)
        ), logits_BxC

    return Objective(corrupt, sums)


class ClassificationEvaluator:
    """Predicts named splits; compiles once per width of batch."""

    def __init__(
        self, network: Network, splits: Iterable[Labelled], batch_size: int, placement: Placement
    ):
        self._splits, self._batch_size, self._placement = list(splits), batch_size, placement

        @placement.jit
        def log_probabilities(params: Params, tokens_BxL: jax.Array) -> jax.Array:
            return jax.nn.log_softmax(
                network.apply(params, tokens_BxL, tokens_BxL != network.model.padding)
            )

        self._log_probabilities = log_probabilities

    def predict(self, params: Params, split: Labelled, limit: int = 0) -> Predictions:
        """The predictions of one split, in its order. `limit`: examples at most."""
        params = self._placement.put_params(params)
        count = min(limit, len(split)) if limit else len(split)
        log_p_NxC: np.ndarray | None = None
        for index, rows_BxC in self._rows(
            params, evaluation_batches(split, self._batch_size, limit)
        ):
            if log_p_NxC is None:
                log_p_NxC = np.zeros((count, rows_BxC.shape[-1]), np.float32)
            log_p_NxC[index] = rows_BxC
        assert log_p_NxC is not None, "an empty split is refused when it is read"
        labels_N = np.asarray(split.labels[:count])
        known = labels_N >= 0
        loss = (
            float(-np.mean(log_p_NxC[known, labels_N[known]], dtype=np.float64))
            if known.any()
            else float("nan")
        )
        return Predictions(np.asarray(split.ids[:count]), labels_N, np.exp(log_p_NxC), loss)

    def _rows(
        self, params: Params, batches: Iterator[dict[str, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in batches:
            rows = self._log_probabilities(
                params, self._placement.put_batch({"tokens": batch["tokens"]})["tokens"]
            )
            real = batch["weights"] > 0
            yield batch["index"][real], np.asarray(rows)[real]

    def predictions(self, params: Params, limit: int = 0) -> dict[str, Predictions]:
        """`predict` for every split, by name."""
        return {split.name: self.predict(params, split, limit) for split in self._splits}

    def __call__(self, params: Params, limit: int = 0) -> dict[str, Any]:
        """The numbers of `summarize` for every split."""
        return summarize(self.predictions(params, limit))


def summarize(predictions: dict[str, Predictions]) -> dict[str, Any]:
    """`accuracy` and `valid_loss` of the first labelled split, and of every split in `accuracy_by_split`.

    The first is the one that decides, e.g. MNLI matched; an average over splits of different kinds would mean little.
    """
    labelled = {name: p for name, p in predictions.items() if (p.labels >= 0).any()}
    if not labelled:
        return {"accuracy": None, "valid_loss": None, "accuracy_by_split": {}}
    first = next(iter(labelled.values()))
    return {
        "accuracy": first.accuracy,
        "valid_loss": first.loss,
        "accuracy_by_split": {name: p.accuracy for name, p in labelled.items()},
    }


class LabelPredictor(Predictor):
    """Writes one row per example: its label and the probability of each class."""

    def __init__(self, config: Config, start: SavedModel, placement: Placement):
        self._config, self._start = config, start
        network = start.network(config.impl)
        batch_size = config.eval.batch_size or config.optimizer.batch_size
        self._evaluator = ClassificationEvaluator(network, [], batch_size, placement)
        self._source = Source("files", config.predict.input, "", "input", 0.0, config.predict.input)
        self.header = "\t".join(["label", *start.labels]) + "\n"

    def __call__(self, params: Params, block: Examples) -> Iterator[str]:
        # The file may carry labels of its own, under any names: predicting does not read them.
        texts = dataclasses.replace(block, labels=None)
        labels, tokenizer = self._start.labels, self._start.tokenizer
        length, threads = self._config.data.length, self._config.impl.threads
        split = encode_examples(self._source, texts, length, tokenizer, labels, threads)
        self.cut += split.truncated
        for row in self._evaluator.predict(params, split).probabilities:
            probabilities = (f"{probability:.6f}" for probability in row)
            yield "\t".join([labels[int(row.argmax())], *probabilities])
