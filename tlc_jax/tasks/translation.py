"""Training and evaluating a translator, as `translate` does it once and recovery from pruning many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.compression.during_training import DENSE, DuringTraining
from tlc_jax.config import Config
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.data.length_buckets import PairBatches
from tlc_jax.data.pairs import Pairs, Split
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.tasks.translation_evaluator import TranslationEvaluator, Translations
from tlc_jax.training.loop import Task
from tlc_jax.training.loss import Batch, translation
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import TrainState, make_train_step

_SAMPLES = 10


class TranslatorRun:
    """A network with its pairs: makes training tasks and evaluates parameters.

    Attributes:
      goal: the number that recovery from pruning is to bring back.
      translations: per split, of the parameters that were decoded last.
    """

    goal = "token_accuracy"

    def __init__(
        self,
        config: Config,
        network: Network,
        tokenizer: Tokenizer,
        train: list[Pairs],
        valid: list[Split],
        placement: Placement,
    ):
        self.config, self.network, self.tokenizer, self.placement = (
            config,
            network,
            tokenizer,
            placement,
        )
        self.train, self.valid = train, valid
        batch_tokens = config.eval.batch_size or config.optimizer.batch_size
        self._evaluator = TranslationEvaluator(
            network, valid, batch_tokens, config.decode, config.data.buckets, tokenizer, placement
        )
        self.translations: dict[str, Translations] = {}
        self.meta = session.model_meta("translator", config, tokenizer)
        self.batches = self._batches(config.seed)
        self.steps_per_epoch = self.batches.steps_per_epoch

    def _batches(self, seed: int) -> PairBatches:
        config = self.config
        return PairBatches(
            self.train, config.optimizer.batch_size, seed, config.data.buckets, config.microbatches
        )

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Loss and accuracy given the true target so far; once training is over also BLEU of every sentence."""
        if not final:
            return self._evaluator.loss(params, self.config.eval.examples)
        numbers, self.translations = self._evaluator(params)
        return numbers

    def loss(self, params: Params, final: bool) -> dict[str, Any]:
        """As `evaluate`, never decoding."""
        return self._evaluator.loss(params, 0 if final else self.config.eval.examples)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.txt."""
        save_translations(self.translations, workdir)

    def samples(self) -> list[dict[str, str]]:
        """Sentences of the first split, drawn by the seed, with their references and what was decoded last."""
        split = self.valid[0]
        count = len(split.texts)
        rows = np.random.default_rng(self.config.seed).choice(
            count, min(_SAMPLES, count), replace=False
        )
        translations = self.translations[split.name].best
        return [
            {
                "source": split.texts[row],
                "reference": split.references[row],
                "translation": translations[row],
            }
            for row in sorted(rows)
        ]

    def task(
        self,
        init: Callable[[], Params],
        during_training: DuringTraining = DENSE,
        seed: int | None = None,
    ) -> Task:
        """The training task from `init()` on; `during_training` says what compression does meanwhile."""
        config = self.config
        batches = self.batches if seed is None else self._batches(seed)
        abstract = self.network.abstract()
        optimizer = adamw(
            config.optimizer,
            abstract,
            config.model.hidden,
            during_training.mask_transform(abstract),
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
                translation(self.network, config.objective.label_smoothing),
                optimizer,
                config.microbatches,
                config.impl.dropout_keys,
                during_training.mask_gradient,
                during_training.forward_params,
            ),
            batch=lambda step: self.placement.put_batch(batches(step)),
            cost=self._cost,
            evaluate=lambda params, final: self.evaluate(forward_params(params), final),
            meta=self.meta,
            stage=during_training.pruning_level,
            advance=lambda state, stage: TrainState(
                *during_training.prune_to(state.params, state.optimizer, stage)
            ),
            peak_flops=session.peak(config),
        )

    def _cost(self, batch: Batch) -> Amounts:
        rows, width = batch["target"].shape
        return Amounts(
            steps=1,
            examples=rows,
            tokens=rows * width,
            epochs=rows / self.batches.rows_per_epoch,
            flops=flops.translator_train_flops_per_step(
                self.config.model, self.network.vocab_size, rows, width, width
            ),
        )


def save_translations(translations: Mapping[str, Translations], workdir: Path) -> None:
    """Writes predictions/SPLIT.txt, a translation a line in the order of the split."""
    if not processes.first():
        return
    for name, found in translations.items():
        path = workdir / "predictions" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{one_line(text)}\n" for text in found.best), encoding="utf-8")


def one_line(text: str) -> str:
    """A translation with line ends made spaces, so that a line of a file stays a sentence."""
    return " ".join(text.splitlines())
