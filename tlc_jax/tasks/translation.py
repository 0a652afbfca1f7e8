"""Translation: objective, batches, cost, teacher-forced metrics, beam search, and predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config, Decode
from tlc_jax.core.mesh import Placement
from tlc_jax.data.length_buckets import (
    PairBatches,
    best_widths,
    evaluation_batch,
    rows_of,
    sentence_batches,
)
from tlc_jax.data.order import evaluated
from tlc_jax.data.pairs import Pairs, Split, encode_split, load_splits, prepare_pairs
from tlc_jax.data.sources import Examples
from tlc_jax.data.tokenizer import BOS, PAD, Tokenizer
from tlc_jax.decoding import bleu
from tlc_jax.decoding.beam_search import Hypotheses, beam_search
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import Predictor, TaskRun, loss_numbers, test_numbers, with_splits
from tlc_jax.training.step import Batch, Objective, Sums, weighted_sums

_SAMPLES = 10


@dataclasses.dataclass(eq=False, kw_only=True)
class TranslatorRun(TaskRun):
    """A translator with its sentence pairs.

    Attributes:
      tokenizer: tokenizer of both languages; None: nothing is translated.
      train_pairs: pairs of each training source.
      valid: splits to evaluate on; the first one decides.
      test: splits to test on.
    """

    goal = "token_accuracy"
    unit = "target tokens"
    arrays: ClassVar = {"target": 2, "source": 2}

    tokenizer: Tokenizer | None = None
    train_pairs: Sequence[Pairs] = ()
    valid: Sequence[Split] = ()
    test: Sequence[Split] = ()

    @classmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> TranslatorRun:
        network, tokenizer = start.network(config.impl), start.tokenizer
        meta = session.model_meta(network.kind, config, tokenizer)
        run = cls(config, network, placement, meta, tokenizer=tokenizer)
        if config.data.valid and not train:
            run.valid = load_splits("valid", config, tokenizer)
            run.test = load_splits("test", config, tokenizer)
            return run
        path = dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
        data = prepare_pairs(dataclasses.replace(config, tokenizer=path), cache)
        run.train_pairs, run.valid, run.test = data.train, data.valid, data.test
        return run

    def objective(self) -> Objective:
        return translation(self.network, self.config.objective.label_smoothing)

    def train_flops(self, rows: int, width: int) -> float:
        vocab_size = self.network.vocab_size
        return flops.translator_train_flops(self.config.model, vocab_size, rows, width, width)

    def host_batches(self, seed: int, parts: int = 0) -> PairBatches:
        config = self.config
        tokens, buckets = config.optimizer.batch_size, config.data.buckets
        return PairBatches(self.train_pairs, tokens, seed, buckets, parts or config.microbatches)

    @functools.cached_property
    def own_batches(self) -> PairBatches:
        return self.host_batches(self.config.seed)

    def shapes(self) -> Sequence[tuple[int, int]]:
        if not self.train_pairs:
            length = self.config.data.length
            return [(rows_of(self.config.optimizer.batch_size, length), length)]
        # With one part a step, because impl.microbatch may still be auto.
        return self.host_batches(self.config.seed, parts=1).shapes

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Teacher-forced loss and accuracy; if `final`, also BLEU of every sentence."""
        return self._scored(params, self.valid) if final else self.loss(params, False)

    def evaluate_test(self, params: Params) -> dict[str, Any]:
        return test_numbers(self._scored(params, self.test)) if self.test else {}

    def _scored(self, params: Params, splits: Sequence[Split]) -> dict[str, Any]:
        """All metrics of every sentence of some splits; keeps the translations."""
        scores = {}
        for split in splits:
            self.predictions[split.name] = found = self.translate(params, split)
            score = bleu.score(found.best, split.references)
            scores[split.name] = {**score, "sentences": len(split.texts), "cut": split.cut}
        return self._losses(params, splits) | with_splits(scores)

    def loss(self, params: Params, final: bool) -> dict[str, Any]:
        """`valid_loss`, `valid_perplexity`, `token_accuracy` and `approx_bleu`, without decoding.

        Every token is predicted from the true ones before it. The loss is in nats per target token,
        </s> included.
        """
        return self._losses(params, self.valid, 0 if final else self.config.eval.examples)

    def _losses(self, params: Params, splits: Sequence[Split], limit: int = 0) -> dict[str, Any]:
        params = self.placement.put_params(params)
        return with_splits({split.name: self._loss(params, split, limit) for split in splits})

    def _loss(self, params: Params, split: Split, limit: int) -> dict[str, Any]:
        config, shards = self.config, self.placement.batch_shards
        widths = best_widths(split.pairs.lengths.max(axis=1), config.data.buckets)
        pairs = split.pairs.take_rows(evaluated(len(split.pairs), limit, split.name))
        longer = pairs.lengths.max(axis=1)
        total = np.zeros(3)
        predicted: list[Any] = [()] * len(pairs)
        tokens = config.eval.batch_size or config.optimizer.batch_size
        # Fewer rows than devices could not be split, whatever the batch holds in tokens.
        batch_size = max(shards, tokens // widths[-1] // shards * shards)
        for width, rows in sentence_batches(longer, widths, batch_size):
            batch = self.placement.put_batch(evaluation_batch(pairs, rows, width, batch_size))
            sums, argmax_BxT = jax.device_get(self._forced(params, batch))
            # In float64, so that a long evaluation keeps its digits.
            total += sums.astype(np.float64)
            for place, row in enumerate(rows):
                # Neither padding nor </s> counts in n-grams.
                predicted[row] = argmax_BxT[place, : pairs.lengths[row, 1] - 1]
        references = [pairs.side(row, 1).tolist() for row in range(len(pairs))]
        approx_bleu = bleu.approx_bleu(predicted, references)
        return {**loss_numbers(total, self.goal), "approx_bleu": approx_bleu}

    @functools.cached_property
    def _forced(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """(params, batch) -> (loss, weight, correct) sums and likeliest tokens_BxT."""
        # Without smoothing, so that the loss is the negative log-likelihood.
        objective = translation(self.network, 0.0)

        @self.placement.jit
        def forced(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            sums, logits_BxTxV = objective.sums(params, batch, None)
            return jnp.stack(sums), jnp.argmax(logits_BxTxV, axis=-1)

        return forced

    def translate(
        self, params: Params, split: Split, nbest: int = 1, widths: Sequence[int] = ()
    ) -> Translations:
        """Translates the sources of a split by beam search.

        Args:
          params: parameters of the translator.
          split: sentences; their references are not read.
          nbest: translations of each sentence to keep.
          widths: widths of batches, ascending, of which the last holds the longest source; empty:
            those that leave the least padding.
        """
        assert self.tokenizer is not None, "a run without a tokenizer serves for planning only"
        params, batch_size = self.placement.put_params(params), self.config.decode.batch_size
        lengths = split.pairs.lengths[:, 0]
        texts: list[list[str]] = [[] for _ in lengths]
        scores = np.zeros((len(lengths), nbest), np.float32)
        widths = widths or best_widths(lengths, self.config.data.buckets)
        for width, rows in sentence_batches(lengths, widths, batch_size):
            batch = evaluation_batch(split.pairs, rows, width, batch_size)
            source = self.placement.put_batch({"source": batch["source"]})["source"]
            found = jax.device_get(self._search(params, source))
            for place, row in enumerate(rows):
                best_KxT = found.tokens_BxKxT[place, :nbest]
                texts[row] = [self.tokenizer.decode(ids) for ids in best_KxT]
                scores[row] = found.scores_BxK[place, :nbest]
        return Translations(texts, scores)

    @functools.cached_property
    def _search(self) -> Callable[..., Hypotheses]:
        """(params, source_BxS) -> hypotheses. Compiles once per width of sources."""
        return self.placement.jit(functools.partial(search, self.network, self.config.decode))

    def samples(self) -> list[dict[str, str]]:
        """Sentences of the first split, drawn by the seed, with references and translations."""
        split = self.valid[0]
        count, best = len(split.texts), self.predictions[split.name].best
        rng = np.random.default_rng(self.config.seed)
        rows = sorted(rng.choice(count, min(_SAMPLES, count), replace=False))
        columns = {"source": split.texts, "reference": split.references, "translation": best}
        return [{name: texts[row] for name, texts in columns.items()} for row in rows]

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        return TranslationPredictor(config, start, placement)


def single_line(text: str) -> str:
    """A translation with spaces for its line ends, so that each line of a file is a sentence."""
    return " ".join(text.splitlines())


def translation(network: Network, smoothing: float) -> Objective:
    """Predict `batch["target"]` token by token from `batch["source"]` and the target before it.

    Args:
      network: the translator.
      smoothing: share of each target's weight that is spread over the vocabulary.
    """

    def sums(params: Params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
        source_BxS, target_BxT = batch["source"], batch["target"]
        inputs_BxT = jnp.pad(target_BxT[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
        logits_BxTxV = network.apply(params, source_BxS, source_BxS != PAD, inputs_BxT, key=key)
        weights_BxT = (target_BxT != PAD).astype(jnp.float32)
        return weighted_sums(logits_BxTxV, target_BxT, weights_BxT, smoothing), logits_BxTxV

    # Only dropout is random, and it has a key of its own.
    return Objective(lambda key, batch: batch, sums)


@dataclasses.dataclass(frozen=True)
class Translations:
    """Translations of each sentence of a set.

    Attributes:
      texts: [sentences][n best], best first.
      scores: float32 [sentences, n best] log-probability over the length penalty.
    """

    texts: list[list[str]]
    scores: np.ndarray

    @property
    def best(self) -> list[str]:
        return [texts[0] for texts in self.texts]

    def save(self, folder: Path, split: str) -> None:
        """Writes SPLIT.txt, one translation a line in the order of the split."""
        text = "".join(f"{single_line(text)}\n" for text in self.best)
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")


def search(network: Network, settings: Decode, params: Params, source_BxS: jax.Array) -> Hypotheses:
    """Beam search for the translations of padded sources."""
    length = min(source_BxS.shape[1] + settings.extra, network.model.max_length)
    mask_BxS = source_BxS != PAD
    # A translation much longer than its source comes from a model that repeats itself.
    limits_B = jnp.minimum(jnp.sum(mask_BxS, axis=1) + settings.extra, length)
    # Rounded once, outside the loop over positions.
    params = network.cast(params)
    step = network.apply(params, method="stepper")
    cache = network.apply(params, source_BxS, mask_BxS, settings.beams, length, method="start")
    return beam_search(step, cache, limits_B, settings.beams, length, settings.alpha)


class TranslationPredictor(Predictor):
    """One translation a row; with decode.nbest above 1 also its sentence, rank and score."""

    digits = 4
    reads_pairs = False

    def __init__(self, config: Config, start: SavedModel, placement: Placement):
        self._config, self._tokenizer = config, start.tokenizer
        network = start.network(config.impl)
        self._run = TranslatorRun(config, network, placement, tokenizer=start.tokenizer)
        several = ("sentence", "rank", "score") if config.decode.nbest > 1 else ()
        self.columns = (*several, "translation")
        self._widths: tuple[int, ...] = ()

    def __call__(self, params: Params, block: Examples) -> Iterator[tuple[Any, ...]]:
        config, references = self._config, [""] * len(block)
        split = encode_split("input", block.texts, references, config, self._tokenizer)
        self.cut += split.cut
        if not self._widths:
            # The widths of the first block stay: other widths would be compiled for again. The
            # last width holds any source.
            best = best_widths(split.pairs.lengths[:, 0], config.data.buckets)
            self._widths = tuple(sorted({*best, max(config.data.length, best[-1])}))
        nbest = config.decode.nbest
        found = self._run.translate(params, split, nbest, widths=self._widths)
        for number, texts, scores in zip(block.ids, found.texts, found.scores, strict=True):
            if nbest == 1:
                yield (single_line(texts[0]),)
                continue
            for rank, (text, score) in enumerate(zip(texts, scores, strict=True), start=1):
                yield number + 1, rank, float(score), single_line(text)
