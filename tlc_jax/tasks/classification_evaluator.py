"""Accuracy and per-instance probabilities of a classifier: every example once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import evaluation_batches
from tlc_jax.data.labelled import Labelled
from tlc_jax.models.network import Network, Params
from tlc_jax.runs.predictions import Predictions


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
        """The numbers of `summarise` for every split."""
        return summarise(self.predictions(params, limit))


def summarise(predictions: dict[str, Predictions]) -> dict[str, Any]:
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
