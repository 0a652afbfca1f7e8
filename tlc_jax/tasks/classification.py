"""Classification of texts and pairs of texts: data, objective, evaluation, cost and predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.files import atomic
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import LabelledBatches, evaluation_batches
from tlc_jax.data.labelled import Labelled, encode_examples, load_labelled
from tlc_jax.data.order import evaluated, hold_out, in_second_half
from tlc_jax.data.sources import Examples, Source
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models import flops
from tlc_jax.models.dropout import OwnWidthKey
from tlc_jax.models.encoder import Classifier
from tlc_jax.models.network import Build, Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import Predictor, TaskRun, test_numbers
from tlc_jax.training.step import Batch, Objective, Sums, weighted_sums


@dataclasses.dataclass(frozen=True)
class LabelledData:
    """Training sources, the splits to evaluate on, and those to test on."""

    train: list[Labelled]
    valid: list[Labelled]
    test: list[Labelled] = dataclasses.field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.train or self.valid)[0].label_names


def load_data(
    config: Config, tokenizer: Tokenizer, labels: tuple[str, ...] | None, train: bool = True
) -> LabelledData:
    """Reads data.train, data.valid and data.test.

    Args:
      config: without data.valid, the share data.holdout of each training source is held out.
      tokenizer: tokenizer of the model.
      labels: classes of a model that is trained already; None: those of the training data.
      train: read data.train also where data.valid is given.

    Raises:
      InputError: a source is wrong, or holds labels that `labels` does not.
    """

    def load(spec: str, names: tuple[str, ...] | None) -> list[Labelled]:
        return load_labelled(spec, config, tokenizer, names)

    # Labels are numbered by the model, or else by the training data: the order in which another
    # source mentions them must not decide.
    training = load(config.data.train, labels) if train or not config.data.valid else []
    names = training[0].label_names if training else labels
    if config.data.valid:
        valid = load(config.data.valid, names)
    else:
        training, valid = hold_out(training, config.data.holdout)
    return LabelledData(training, valid, load(config.data.test, names) if config.data.test else [])


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A classifier's answers on one split of N examples over C classes, in the split's own order.

    Attributes:
      ids: [N] ids of the examples in their source.
      labels: int32 [N], -1 where unlabelled.
      probabilities: float32 [N, C].
      loss: mean cross-entropy (nats) over labelled examples.
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of labelled examples whose most probable class is right."""
        return float(np.mean(self._correct))

    @property
    def counts(self) -> dict[str, Any]:
        """What an accuracy needs beside it to be judged: see docs/studies_and_reports.md."""
        known = self.labels >= 0
        second = in_second_half(self.ids[known])
        halves = [self._correct[half] for half in (~second, second)]
        return {
            "valid_examples": len(second),
            # None where a few examples all fall in one half.
            "accuracy_halves": [float(half.mean()) if half.size else None for half in halves],
            "accuracy_majority": float(np.bincount(self.labels[known]).max() / len(second)),
        }

    @property
    def _correct(self) -> np.ndarray:
        """Whether each labelled example is answered right."""
        known = self.labels >= 0
        return np.asarray(self.probabilities[known].argmax(-1) == self.labels[known])

    def save(self, folder: Path, split: str) -> None:
        """Writes `ids`, `labels` and `probabilities` to SPLIT.npz."""
        arrays = {name: getattr(self, name) for name in ("ids", "labels", "probabilities")}
        with atomic(folder / f"{split}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)


@dataclasses.dataclass(eq=False, kw_only=True)
class ClassifierRun(TaskRun):
    """A classifier with its labelled data.

    Attributes:
      module: of the task of a plug-in, (vocabulary size, number of labels, dimensions, generators)
        -> its module.
    """

    module: ClassVar[Build] = Classifier
    goal = "accuracy"
    unit = "examples"
    arrays: ClassVar = {"tokens": 2, "labels": 1}

    tokenizer: Tokenizer
    data: LabelledData = LabelledData([], [])

    @classmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> ClassifierRun:
        network, tokenizer = start.network(config.impl), start.tokenizer
        data = load_data(config, tokenizer, start.labels, train)
        meta = session.model_meta(network.kind, config, tokenizer, data.labels)
        return cls(config, network, placement, meta, tokenizer=tokenizer, data=data)

    def objective(self) -> Objective:
        return classification(self.network)

    def train_flops(self, rows: int, width: int) -> float:
        return flops.encoder_train_flops(self.config.model, self.network.classes, rows, width)

    def host_batches(self, seed: int) -> LabelledBatches:
        return LabelledBatches(self.data.train, self.config.optimizer.batch_size, seed)

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        limit = 0 if final else self.config.eval.examples
        found = {split.name: self.classify(params, split, limit) for split in self.data.valid}
        if final:
            self.predictions = found
        return summarize(found, final)

    def evaluate_test(self, params: Params) -> dict[str, Any]:
        found = {split.name: self.classify(params, split) for split in self.data.test}
        self.predictions = {**self.predictions, **found}
        return test_numbers(summarize(found)) if found else {}

    def classify(self, params: Params, split: Labelled, limit: int = 0) -> Predictions:
        """Predictions for one split, or for some of its examples, in its order.

        Args:
          params: parameters of the network.
          split: examples; they may be unlabelled.
          limit: largest number of examples; see `order.evaluated`. 0: all.
        """
        params = self.placement.put_params(params)
        log_p_NxC = self._of_rows(self._log_probabilities, (), params, split, limit)
        return _predictions(split, limit, log_p_NxC)

    def classify_together(
        self, params: Params, seeds: int, split: Labelled, limit: int = 0
    ) -> list[Predictions]:
        """Predictions of each seed; like `classify` for placed parameters with an axis of seeds."""
        log_p_SxNxC = self._of_rows(self._log_probabilities_SxBxC, (seeds,), params, split, limit)
        return [_predictions(split, limit, log_p_NxC) for log_p_NxC in log_p_SxNxC]

    def _of_rows(
        self,
        log_probabilities: Callable[..., jax.Array],
        leading: tuple[int, ...],
        params: Params,
        split: Labelled,
        limit: int,
    ) -> np.ndarray:
        """Log-probabilities, float32 [*leading, N, C], of the examples that `limit` leaves."""
        batch_size = self.config.eval.batch_size or self.config.optimizer.batch_size
        chosen_N = evaluated(len(split), limit, split.name)
        log_p = np.zeros((*leading, len(chosen_N), self.network.classes), np.float32)
        for batch in evaluation_batches(split, batch_size, limit):
            placed = self.placement.put_batch({"tokens": batch["tokens"]})
            rows = np.asarray(log_probabilities(params, placed["tokens"]))
            # The last batch is filled up with copies, which must not overwrite their originals.
            real = batch["weights"] > 0
            places = np.searchsorted(chosen_N, batch["index"][real])
            log_p[..., places, :] = rows[..., real, :]
        return log_p

    @functools.cached_property
    def _log_probabilities(self) -> Callable[..., jax.Array]:
        """(params, tokens_BxL) -> log-probabilities_BxC. Compiles once per width of batch."""
        return self.placement.jit(self._forward)

    @functools.cached_property
    def _log_probabilities_SxBxC(self) -> Callable[..., jax.Array]:
        """The same for parameters with an axis of seeds, which all read the same tokens."""
        return self.placement.jit(jax.vmap(self._forward, in_axes=(0, None)))

    def _forward(self, params: Params, tokens_BxL: jax.Array) -> jax.Array:
        mask_BxL = tokens_BxL != self.network.model.padding
        return jax.nn.log_softmax(self.network.apply(params, tokens_BxL, mask_BxL))

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        return LabelPredictor(config, start, placement)

    @classmethod
    def forward_inputs(cls, config: Config, tokens_BxL: np.ndarray) -> tuple[np.ndarray, ...]:
        return tokens_BxL, np.ones(tokens_BxL.shape, bool)


def _predictions(split: Labelled, limit: int, log_p_NxC: np.ndarray) -> Predictions:
    chosen_N = evaluated(len(split), limit, split.name)
    labels_N = np.asarray(split.labels[chosen_N])
    known = labels_N >= 0
    # In float64, so that a long split keeps its digits.
    losses = -log_p_NxC[known, labels_N[known]].astype(np.float64)
    loss = float(losses.mean()) if known.any() else float("nan")
    return Predictions(np.asarray(split.ids[chosen_N]), labels_N, np.exp(log_p_NxC), loss)


def classification(network: Network) -> Objective:
    """Predict `batch["labels"]` of the padded rows `batch["tokens"]`; labels of -1 do not count.

    Rows that are padded beyond the width that their batch has alone come with `batch["widths"]`.
    """

    def sums(params: Params, batch: Batch, key: Any) -> tuple[Sums, jax.Array]:
        tokens_BxL, labels_B = batch["tokens"], batch["labels"]
        if key is not None and "widths" in batch:
            key = OwnWidthKey(key, batch["widths"])
        mask_BxL = tokens_BxL != network.model.padding
        logits_BxC = network.apply(params, tokens_BxL, mask_BxL, key=key)
        weights_B = (labels_B >= 0).astype(jnp.float32)
        # Class 0 stands in for -1, which no gather could read; its weight is 0.
        return weighted_sums(logits_BxC, jnp.maximum(labels_B, 0), weights_B), logits_BxC

    # Only dropout is random, and it has a key of its own.
    return Objective(lambda key, batch: batch, sums)


def summarize(predictions: dict[str, Predictions], final: bool = True) -> dict[str, Any]:
    """Numbers of the first labelled split, and `accuracy_by_split` of all.

    Those of a final evaluation include `Predictions.counts`, which curves do not need.
    """
    # An average over splits of different kinds, such as MNLI matched and mismatched, means little.
    labelled = [name for name, found in predictions.items() if (found.labels >= 0).any()]
    first = predictions[labelled[0]] if labelled else None
    return {
        "accuracy": first and first.accuracy,
        "valid_loss": first and first.loss,
        **(first.counts if first and final else {}),
        "accuracy_by_split": {name: predictions[name].accuracy for name in labelled},
    }


class LabelPredictor(Predictor):
    """One row per example: its label and the probability of each class."""

    header = True

    def __init__(self, config: Config, start: SavedModel, placement: Placement):
        self._config, self._start = config, start
        network = start.network(config.impl)
        self._run = ClassifierRun(config, network, placement, tokenizer=start.tokenizer)
        self._source = Source("files", config.predict.input, "", "input", 0.0, config.predict.input)
        self.columns = ("label", *start.labels)

    def __call__(self, params: Params, block: Examples) -> Iterator[tuple[Any, ...]]:
        # The file may carry labels of its own, under any names: predicting does not read them.
        texts = dataclasses.replace(block, labels=None)
        labels, tokenizer = self._start.labels, self._start.tokenizer
        split = encode_examples(self._source, texts, self._config, tokenizer, labels)
        self.cut += split.truncated
        for row in self._run.classify(params, split).probabilities:
            yield labels[int(row.argmax())], *row.tolist()
