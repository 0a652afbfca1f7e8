"""Evaluating any saved model on data.valid, whatever its kind: what compress and evaluate share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from tlc_jax.config import Config
from tlc_jax.data.packing import prepare
from tlc_jax.errors import InputError
from tlc_jax.evaluation.classification import ClassificationEvaluator, summarise
from tlc_jax.evaluation.perplexity import PerplexityEvaluator
from tlc_jax.evaluation.predictions import Predictions
from tlc_jax.models.network import Params
from tlc_jax.stages.classifying import load_validation
from tlc_jax.stages.starting_point import StartingPoint
from tlc_jax.training.objectives import masked_language


class Evaluation:
    """The splits of data.valid under a model's tokenizer.

    Attributes:
      predictions: per split, of the classifier that was evaluated last.
    """

    def __init__(self, config: Config, start: StartingPoint, workdir: Path, mesh: Mesh):
        self.predictions: dict[str, Predictions] = {}
        if not (config.data.valid or config.data.train):
            raise InputError("data.valid is empty: name what to evaluate on")
        network = start.network(config.impl)
        batch_size = config.eval.batch_size or config.optimizer.batch_size
        if start.kind == "classifier":
            splits = load_validation(config, start.tokenizer, start.labels)
            self._classify = ClassificationEvaluator(network, splits, batch_size, mesh)
            self._perplexity = None
        else:
            # Validation text of its own is packed alone; a held-out part needs the text it was held out of.
            settings = dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, train=config.data.valid or config.data.train),
                tokenizer=dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path)),
            )
            data = prepare(settings, Path(config.data.cache or workdir / "data"))
            objective = masked_language(network, config.objective)
            self._perplexity = PerplexityEvaluator(objective, data.valid, batch_size, mesh)

    def __call__(self, params: Params, final: bool = True) -> dict[str, Any]:
        """The numbers of `evaluate`, over every example."""
        del final
        if self._perplexity is not None:
            return self._perplexity(params)
        self.predictions = self._classify.predictions(params)
        return summarise(self.predictions)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.npz of a classifier."""
        for name, predictions in self.predictions.items():
            predictions.save(workdir / "predictions" / f"{name}.npz")
