"""Evaluating any saved model on data.valid, whatever its kind: what compress and evaluate share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.packing import prepare
from tlc_jax.data.pairs import load_splits, prepare_pairs
from tlc_jax.models.network import Params
from tlc_jax.runs.predictions import Predictions
from tlc_jax.runs.saved_model import StartingPoint
from tlc_jax.tasks.classification import load_validation
from tlc_jax.tasks.classification_evaluator import ClassificationEvaluator, summarise
from tlc_jax.tasks.masked_lm import PerplexityEvaluator
from tlc_jax.tasks.translation import save_translations
from tlc_jax.tasks.translation_evaluator import TranslationEvaluator, Translations
from tlc_jax.training.loss import masked_language


def require_head(start: StartingPoint) -> None:
    """Refuses an imported encoder that predicts nothing yet."""
    if start.kind == "encoder":
        raise InputError(
            f"{start.path} is an encoder without a masked-language or classification head: "
            "finetune it, or compress it with compress.when=before"
        )


class Evaluation:
    """The splits of data.valid under a model's tokenizer.

    Attributes:
      predictions: per split, of the classifier that was evaluated last.
      translations: per split, of the translator that was evaluated last.
    """

    def __init__(self, config: Config, start: StartingPoint, workdir: Path, placement: Placement):
        self.predictions: dict[str, Predictions] = {}
        self.translations: dict[str, Translations] = {}
        self._classify: ClassificationEvaluator | None = None
        self._translate: TranslationEvaluator | None = None
        self._perplexity: PerplexityEvaluator | None = None
        self._limit = config.eval.examples
        if not (config.data.valid or config.data.train):
            raise InputError("data.valid is empty: name what to evaluate on")
        network = start.network(config.impl)
        batch_size = config.eval.batch_size or config.optimizer.batch_size
        if start.kind == "classifier":
            splits = load_validation(config, start.tokenizer, start.labels)
            self._classify = ClassificationEvaluator(network, splits, batch_size, placement)
            return
        cache = Path(config.data.cache or workdir / "data")
        if start.kind == "translator":
            settings = dataclasses.replace(
                config,
                tokenizer=dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path)),
            )
            pairs = (
                load_splits(config, start.tokenizer)
                if config.data.valid
                else prepare_pairs(settings, cache).valid
            )
            self._translate = TranslationEvaluator(
                network,
                pairs,
                batch_size,
                config.decode,
                config.data.buckets,
                start.tokenizer,
                placement,
            )
        else:
            # Validation text of its own is packed alone; a held-out part needs the text it was held out of.
            data_settings = dataclasses.replace(
                config.data, train=config.data.valid or config.data.train
            )
            data = prepare(
                dataclasses.replace(config, data=data_settings), cache, tokenizer=start.tokenizer
            )
            objective = masked_language(network, config.objective, start.tokenizer.special)
            self._perplexity = PerplexityEvaluator(objective, data.valid, batch_size, placement)

    def __call__(self, params: Params, final: bool = True) -> dict[str, Any]:
        """The numbers of `evaluate`: over every example if `final`, else of an encoder over `eval.examples` of them."""
        limit = 0 if final else self._limit
        if self._perplexity is not None:
            return self._perplexity(params, limit)
        if self._translate is not None:
            numbers, self.translations = self._translate(params)
            return numbers
        assert self._classify is not None
        self.predictions = self._classify.predictions(params, limit)
        return summarise(self.predictions)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.npz of a classifier, predictions/SPLIT.txt of a translator."""
        save_translations(self.translations, workdir)
        if not processes.first():
            return
        for name, predictions in self.predictions.items():
            predictions.save(workdir / "predictions" / f"{name}.npz")
