"""Translation: objective, batches, cost, teacher-forced metrics, beam search, and predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config, Decode
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.length_buckets import (
    PairBatches,
    best_widths,
    evaluation_batch,
    rows_of,
    sentence_batches,
)
from tlc_jax.data.pairs import Pairs, Split, encode_split, load_splits, prepare_pairs
from tlc_jax.data.sources import Examples
from tlc_jax.data.tokenizer import BOS, PAD, Tokenizer
from tlc_jax.decoding import bleu
from tlc_jax.decoding.beam_search import Hypotheses, beam_search
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import Predictor, TaskRun, Workload, loss_numbers, step_cost, with_splits
from tlc_jax.training.loss import Batch, Objective, Sums, weighted_sums

_SAMPLES = 10


class TranslatorRun(TaskRun):
    """A translator with its sentence pairs.

    Attributes:
      train_pairs: pairs of each training source.
      valid: splits to evaluate on; the first one decides.
      translations: translations of the last final evaluation, by split.
    """

    goal = "token_accuracy"
    counted = "target"

    def __init__(
        self,
        config: Config,
        network: Network,
        tokenizer: Tokenizer,
        train: list[Pairs],
        valid: list[Split],
        placement: Placement,
    ):
        meta = session.model_meta(network.kind, config, tokenizer)
        super().__init__(config, network, placement, meta)
        self.train_pairs, self.valid = train, valid
        best_only = dataclasses.replace(config.decode, nbest=1)
        buckets = config.data.buckets
        self._decoder = Decoder(network, best_only, buckets, tokenizer, placement)
        # Without smoothing, so that the loss is the negative log-likelihood.
        objective = translation(network, 0.0)

        @placement.jit
        def forced(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            sums, logits_BxTxV = objective.sums(params, batch, None)
            return jnp.stack(sums), jnp.argmax(logits_BxTxV, axis=-1)

        self._forced = forced
        self.translations: dict[str, Translations] = {}

    @classmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> TranslatorRun:
        network, tokenizer = start.network(config.impl), start.tokenizer
        if config.data.valid and not train:
            return cls(config, network, tokenizer, [], load_splits(config, tokenizer), placement)
        path = dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
        data = prepare_pairs(dataclasses.replace(config, tokenizer=path), cache)
        return cls(config, network, tokenizer, data.train, data.valid, placement)

    def objective(self) -> Objective:
        return translation(self.network, self.config.objective.label_smoothing)

    @classmethod
    def workload(
        cls,
        config: Config,
        network: Network,
        shards: int,
        shapes: Sequence[tuple[int, int]] = (),
    ) -> Workload:
        """See `TaskRun.workload`.

        Args:
          config: resolved.
          network: the model.
          shards: devices that the rows of a batch are split over.
          shapes: (rows, width) of each kind of batch; empty: batches as wide as data.length.
        """
        tokens, length = config.optimizer.batch_size, config.data.length
        shapes = shapes or [(rows_of(tokens, length), length)]
        # A number of parts must suit every width that training compiles a step for.
        parts = [
            n
            for n in range(1, tokens + 1)
            if tokens % n == 0 and all(rows % (n * shards) == 0 for rows, _ in shapes)
        ]
        if not parts:
            counts = ", ".join(str(rows) for rows, _ in shapes)
            raise InputError(
                f"batches of {counts} pairs do not divide among {shards} devices: "
                "change the batch size"
            )
        rows, width = max(shapes, key=lambda shape: shape[1])
        batch = {"source": (rows, width), "target": (rows, width)}
        cost = step_cost(rows, width, cls.train_flops(config, network, rows, width))
        objective = translation(network, config.objective.label_smoothing)
        microbatches = sorted(tokens // n for n in parts)
        return Workload(objective, "target tokens", batch, microbatches, cost)

    def own_workload(self) -> Workload:
        config = self.config
        # With one part a step, because impl.microbatch may still be auto.
        tokens, buckets = config.optimizer.batch_size, config.data.buckets
        shapes = PairBatches(self.train_pairs, tokens, config.seed, buckets).shapes
        return self.workload(config, self.network, self.placement.batch_shards, shapes)

    @classmethod
    def train_flops(cls, config: Config, network: Network, rows: int, width: int) -> float:
        return flops.translator_train_flops(config.model, network.vocab_size, rows, width, width)

    def host_batches(self, seed: int) -> PairBatches:
        config = self.config
        tokens, buckets = config.optimizer.batch_size, config.data.buckets
        return PairBatches(self.train_pairs, tokens, seed, buckets, config.microbatches)

    @functools.cached_property
    def own_batches(self) -> PairBatches:
        return self.host_batches(self.config.seed)

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Teacher-forced loss and accuracy; if `final`, also BLEU of every sentence."""
        numbers = self.loss(params, final)
        if not final:
            return numbers
        scores = {}
        for split in self.valid:
            self.translations[split.name] = found = self._decoder(params, split)
            score = bleu.score(found.best, split.references)
            scores[split.name] = {**score, "sentences": len(split.texts), "cut": split.cut}
        return numbers | _of_first(scores)

    def loss(self, params: Params, final: bool) -> dict[str, Any]:
        """`valid_loss`, `valid_perplexity`, `token_accuracy` and `approx_bleu`, without decoding.

        All given the true target so far. The loss is in nats per target token, </s> included.
        """
        params = self.placement.put_params(params)
        limit = 0 if final else self.config.eval.examples
        return _of_first({split.name: self._loss(params, split, limit) for split in self.valid})

    def _loss(self, params: Params, split: Split, limit: int) -> dict[str, Any]:
        pairs, config, shards = split.pairs, self.config, self.placement.batch_shards
        longer = pairs.lengths.max(axis=1)
        widths = best_widths(longer, config.data.buckets)
        count = min(limit or len(pairs), len(pairs))
        total = np.zeros(3)
        predicted: list[Any] = [()] * count
        tokens = config.eval.batch_size or config.optimizer.batch_size
        batch_size = max(shards, tokens // widths[-1] // shards * shards)
        for width, rows in sentence_batches(longer, widths, batch_size, limit):
            batch = self.placement.put_batch(evaluation_batch(pairs, rows, width, batch_size))
            sums, argmax_BxT = jax.device_get(self._forced(params, batch))
            total += sums.astype(np.float64)
            for place, row in enumerate(rows):
                predicted[row] = argmax_BxT[place, : pairs.lengths[row, 1] - 1]
        references = [pairs.side(row, 1).tolist() for row in range(count)]
        approx_bleu = bleu.approx_bleu(predicted, references)
        return {**loss_numbers(total, "token_accuracy"), "approx_bleu": approx_bleu}

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.txt, one translation a line in the order of the split."""
        for name, found in self.translations.items() if processes.first() else ():
            path = workdir / "predictions" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            text = "".join(f"{single_line(text)}\n" for text in found.best)
            path.write_text(text, encoding="utf-8")

    def samples(self) -> list[dict[str, str]]:
        """Sentences of the first split, drawn by the seed, with references and translations."""
        split = self.valid[0]
        count, best = len(split.texts), self.translations[split.name].best
        rng = np.random.default_rng(self.config.seed)
        rows = sorted(rng.choice(count, min(_SAMPLES, count), replace=False))
        columns = {"source": split.texts, "reference": split.references, "translation": best}
        return [{name: texts[row] for name, texts in columns.items()} for row in rows]

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        return TranslationPredictor(config, start, placement)


def _of_first(splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the first split, which decides, and with several splits those of each."""
    return with_splits(next(iter(splits.values())), splits)


def single_line(text: str) -> str:
    """A translation with spaces for its line ends, so that a line of a file stays a sentence."""
    return " ".join(text.splitlines())


def translation(network: Network, smoothing: float) -> Objective:
    """Predict `batch["target"]` token by token from `batch["source"]` and the target before it.

    Args:
      network: the translator.
      smoothing: share of each target's weight that is spread over the vocabulary.
    """

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        del key  # only dropout is random, and it has a key of its own
        return batch

    def sums(params: Params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
        source_BxS, target_BxT = batch["source"], batch["target"]
        inputs_BxT = jnp.pad(target_BxT[:, :-1], ((0, 0), (1, 0)), constant_values=BOS)
        logits_BxTxV = network.apply(params, source_BxS, source_BxS != PAD, inputs_BxT, key=key)
        weights_BxT = (target_BxT != PAD).astype(jnp.float32)
        return weighted_sums(logits_BxTxV, target_BxT, weights_BxT, smoothing), logits_BxTxV

    return Objective(corrupt, sums)


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


class Decoder:
    """Beam search with one network; compiles once per width of sources, at most `buckets` times."""

    def __init__(
        self,
        network: Network,
        settings: Decode,
        buckets: int,
        tokenizer: Tokenizer,
        placement: Placement,
    ):
        self._settings, self._buckets = settings, buckets
        self._tokenizer, self._placement = tokenizer, placement
        self._search = placement.jit(functools.partial(search, network, settings))

    def __call__(
        self, params: Params, split: Split, widths: Sequence[int] | None = None
    ) -> Translations:
        """Translates the sources of a split.

        Args:
          params: parameters of the translator.
          split: sentences; their references are not read.
          widths: widths of batches, ascending, the last holding the longest source; None: those
            that leave the least padding.
        """
        nbest, batch_size = self._settings.nbest, self._settings.batch_size
        params = self._placement.put_params(params)
        lengths = split.pairs.lengths[:, 0]
        texts: list[list[str]] = [[] for _ in lengths]
        scores = np.zeros((len(lengths), nbest), np.float32)
        widths = widths or best_widths(lengths, self._buckets)
        for width, rows in sentence_batches(lengths, widths, batch_size):
            batch = evaluation_batch(split.pairs, rows, width, batch_size)
            source = self._placement.put_batch({"source": batch["source"]})["source"]
            found = jax.device_get(self._search(params, source))
            for place, row in enumerate(rows):
                best_KxT = found.tokens_BxKxT[place, :nbest]
                texts[row] = [self._tokenizer.decode(ids) for ids in best_KxT]
                scores[row] = found.scores_BxK[place, :nbest]
        return Translations(texts, scores)


def search(network: Network, settings: Decode, params: Params, source_BxS: jax.Array) -> Hypotheses:
    """Beam search for the translations of padded sources."""
    length = min(source_BxS.shape[1] + settings.extra, network.model.max_length)
    mask_BxS = source_BxS != PAD
    limits_B = jnp.minimum(jnp.sum(mask_BxS, axis=1) + settings.extra, length)
    params = network.cast(params)
    return beam_search(
        network.apply(params, method="stepper"),
        network.apply(params, source_BxS, mask_BxS, settings.beams, length, method="start"),
        limits_B,
        beams=settings.beams,
        length=length,
        vocab_size=network.vocab_size,
        alpha=settings.alpha,
    )


class TranslationPredictor(Predictor):
    """One translation a row; with decode.nbest above 1 also its sentence, rank and score."""

    digits = 4

    def __init__(self, config: Config, start: SavedModel, placement: Placement):
        self._config, self._tokenizer = config, start.tokenizer
        network, buckets = start.network(config.impl), config.data.buckets
        self._decoder = Decoder(network, config.decode, buckets, start.tokenizer, placement)
        several = ("sentence", "rank", "score") if config.decode.nbest > 1 else ()
        self.columns = (*several, "translation")
        self._widths: tuple[int, ...] = ()

    def __call__(self, params: Params, block: Examples) -> Iterator[tuple[Any, ...]]:
        length, threads = self._config.data.length, self._config.impl.threads
        references = [""] * len(block)
        split = encode_split("input", block.texts, references, length, self._tokenizer, threads)
        self.cut += split.cut
        if not self._widths:
            # The widths of the first block stay: other widths would be compiled for again. The
            # last width holds any source.
            found = best_widths(split.pairs.lengths[:, 0], self._config.data.buckets)
            self._widths = tuple(sorted({*found, max(length, found[-1])}))
        answers = self._decoder(params, split, widths=self._widths)
        for number, texts, scores in zip(block.ids, answers.texts, answers.scores, strict=True):
            if self._config.decode.nbest == 1:
                yield (single_line(texts[0]),)
                continue
            for rank, (text, score) in enumerate(zip(texts, scores, strict=True), start=1):
                yield number + 1, rank, float(score), single_line(text)
