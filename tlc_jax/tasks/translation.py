"""Translation: objective, cost, batches, teacher-forced metrics, beam search with BLEU, and predictions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config, Decode
from tlc_jax.config.durations import Amounts
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import Placement
from tlc_jax.data.examples import Examples
from tlc_jax.data.length_buckets import (
    PairBatches,
    best_widths,
    evaluation_batch,
    sentence_batches,
)
from tlc_jax.data.pairs import Pairs, Split, encode_split, load_splits, prepare_pairs
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import BOS, PAD
from tlc_jax.decoding import bleu
from tlc_jax.decoding.beam_search import Hypotheses, beam_search
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import Predictor, TaskRun, require_data
from tlc_jax.training.loss import Batch, Objective, Sums, weighted_sums

_SAMPLES = 10


class TranslatorRun(TaskRun):
    """A translator with its sentence pairs.

    Attributes:
      translations: translations of the last final evaluation, by split.
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
        super().__init__(
            config, network, placement, session.model_meta("translator", config, tokenizer)
        )
        self.train, self.valid = train, valid
        batch_tokens = config.eval.batch_size or config.optimizer.batch_size
        self._evaluator = TranslationEvaluator(
            network, valid, batch_tokens, config.decode, config.data.buckets, tokenizer, placement
        )
        self.translations: dict[str, Translations] = {}

    @classmethod
    def of_saved(
        cls,
        config: Config,
        start: SavedModel,
        workdir: Path,
        placement: Placement,
        train: bool = False,
    ) -> TranslatorRun:
        require_data(config)
        tokenizer = start.tokenizer
        if config.data.valid and not train:
            training, valid = [], load_splits(config, tokenizer)
        else:
            path = dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
            cache = Path(config.data.cache or workdir / "data")
            data = prepare_pairs(dataclasses.replace(config, tokenizer=path), cache)
            training, valid = data.train, data.valid
        return cls(config, start.network(config.impl), tokenizer, training, valid, placement)

    def objective(self) -> Objective:
        return translation(self.network, self.config.objective.label_smoothing)

    def pair_batches(self, seed: int) -> PairBatches:
        """Batches of sentence pairs, by step."""
        config = self.config
        return PairBatches(
            self.train, config.optimizer.batch_size, seed, config.data.buckets, config.microbatches
        )

    def batches(self, seed: int) -> Callable[[int], Batch]:
        batches = self.pair_batches(seed)
        return lambda step: self.placement.put_batch(batches(step))

    @functools.cached_property
    def own_batches(self) -> PairBatches:
        """The batches of the config's seed."""
        return self.pair_batches(self.config.seed)

    @property
    def steps_per_epoch(self) -> float:
        return self.own_batches.steps_per_epoch

    def cost(self, batch: Batch) -> Amounts:
        rows, width = batch["target"].shape
        return Amounts(
            steps=1,
            examples=rows,
            tokens=rows * width,
            epochs=rows / self.own_batches.rows_per_epoch,
            flops=flops.translator_train_flops_per_step(
                self.config.model, self.network.vocab_size, rows, width, width
            ),
        )

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """Teacher-forced loss and accuracy; if `final`, also BLEU of every sentence."""
        if not final:
            return self._evaluator.loss(params, self.config.eval.examples)
        numbers, self.translations = self._evaluator(params)
        return numbers

    def loss(self, params: Params, final: bool) -> dict[str, Any]:
        """As `evaluate`, without decoding."""
        return self._evaluator.loss(params, 0 if final else self.config.eval.examples)

    def save_predictions(self, workdir: Path) -> None:
        """Writes predictions/SPLIT.txt, one translation a line in the order of the split."""
        if not processes.first():
            return
        for name, found in self.translations.items():
            path = workdir / "predictions" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            text = "".join(f"{single_line(text)}\n" for text in found.best)
            path.write_text(text, encoding="utf-8")

    def samples(self) -> list[dict[str, str]]:
        """Sentences of the first split, drawn by the seed, with references and translations."""
        split = self.valid[0]
        count = len(split.texts)
        rng = np.random.default_rng(self.config.seed)
        rows = rng.choice(count, min(_SAMPLES, count), replace=False)
        best = self.translations[split.name].best
        return [
            {
                "source": split.texts[row],
                "reference": split.references[row],
                "translation": best[row],
            }
            for row in sorted(rows)
        ]

    @classmethod
    def predictor(cls, config: Config, start: SavedModel, placement: Placement) -> Predictor:
        return TranslationPredictor(config, start, placement)


def single_line(text: str) -> str:
    """A translation with spaces for its line ends, so that a line of a file stays a sentence."""
    return " ".join(text.splitlines())


def translation(network: Network, smoothing: float) -> Objective:
    """Predict `batch["target"]` token by token from `batch["source"]` and the target before it.

    `smoothing`: of labels. Evaluations leave it at 0, so that their loss is the negative log-likelihood.
    """

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        del key  # nothing is random but dropout
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
      scores: float32 [sentences, n best]: log-probability over the length penalty.
      tokens: tokens generated for the best translations, </s> included.
    """

    texts: list[list[str]]
    scores: np.ndarray
    tokens: int

    @property
    def best(self) -> list[str]:
        return [texts[0] for texts in self.texts]


class Decoder:
    """Beam search with one network; compiles once per width of sources, of which there are `buckets` at most."""

    def __init__(
        self,
        network: Network,
        settings: Decode,
        buckets: int,
        tokenizer: Tokenizer,
        placement: Placement,
    ):
        self._settings, self._buckets, self._tokenizer, self._placement = (
            settings,
            buckets,
            tokenizer,
            placement,
        )
        self._search = placement.jit(functools.partial(search, network, settings))

    def __call__(
        self, params: Params, split: Split, limit: int = 0, widths: Sequence[int] | None = None
    ) -> Translations:
        """Translates the sources of a split.

        Args:
          params: the translator's.
          split: its references are not looked at.
          limit: sentences at most, the first ones; 0: all.
          widths: of batches, ascending, the last holding the longest source; None: those that leave the least padding.
        """
        settings = self._settings
        params = self._placement.put_params(params)
        lengths = split.pairs.lengths[:, 0]
        count = min(limit, len(lengths)) if limit else len(lengths)
        texts: list[list[str]] = [[] for _ in range(count)]
        scores = np.zeros((count, settings.nbest), np.float32)
        tokens = 0
        widths = widths or best_widths(lengths, self._buckets)
        for width, rows in sentence_batches(lengths, widths, settings.batch_size, limit):
            batch = evaluation_batch(split.pairs, rows, width, settings.batch_size)
            source = self._placement.put_batch({"source": batch["source"]})["source"]
            found = jax.device_get(self._search(params, source))
            for place, row in enumerate(rows):
                texts[row] = [
                    self._tokenizer.decode(ids)
                    for ids in found.tokens_BxKxT[place, : settings.nbest]
                ]
                scores[row] = found.scores_BxK[place, : settings.nbest]
                tokens += int(found.lengths_BxK[place, 0])
        return Translations(texts, scores, tokens)


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


class TranslationEvaluator:
    """Teacher-forced loss and accuracy, and with beam search BLEU and chrF, over named splits."""

    def __init__(
        self,
        network: Network,
        splits: Iterable[Split],
        batch_tokens: int,
        decode: Decode,
        buckets: int,
        tokenizer: Tokenizer,
        placement: Placement,
    ):
        self.splits, self._placement = list(splits), placement
        self._batch_tokens, self._buckets = batch_tokens, buckets
        self._decoder = Decoder(
            network, dataclasses.replace(decode, nbest=1), buckets, tokenizer, placement
        )
        objective = translation(network, 0.0)

        @placement.jit
        def forced(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            sums, logits_BxTxV = objective.sums(params, batch, None)
            return jnp.stack(sums), jnp.argmax(logits_BxTxV, axis=-1)

        self._forced = forced

    def loss(self, params: Params, limit: int = 0) -> dict[str, Any]:
        """`valid_loss` (nats per target token, </s> included), `valid_perplexity`, `token_accuracy`, `approx_bleu`.

        All given the true target so far, of the first split; with several, also `..._NAME` of each.
        """
        params = self._placement.put_params(params)
        return _by_split({split.name: self._loss(params, split, limit) for split in self.splits})

    def __call__(self, params: Params) -> tuple[dict[str, Any], dict[str, Translations]]:
        """`loss`, and the scores of beam search over every sentence; the translations of each split."""
        numbers, found = {}, {}
        for split in self.splits:
            found[split.name] = self._decoder(params, split)
            numbers[split.name] = {
                **bleu.score(found[split.name].best, split.references),
                "sentences": len(split.texts),
                "cut": split.cut,
            }
        return {**self.loss(params), **_by_split(numbers)}, found

    def _loss(self, params: Params, split: Split, limit: int) -> dict[str, Any]:
        pairs = split.pairs
        longer = pairs.lengths.max(axis=1)
        widths = best_widths(longer, self._buckets)
        total = np.zeros(3)
        count = min(limit, len(pairs)) if limit else len(pairs)
        predicted: list[Any] = [()] * count
        parts = self._placement.batch_shards
        rows_of_batch = max(parts, self._batch_tokens // widths[-1] // parts * parts)
        for width, rows in sentence_batches(longer, widths, rows_of_batch, limit):
            batch = self._placement.put_batch(evaluation_batch(pairs, rows, width, rows_of_batch))
            sums, argmax_BxT = jax.device_get(self._forced(params, batch))
            total += sums.astype(np.float64)
            for place, row in enumerate(rows):
                predicted[row] = argmax_BxT[place, : pairs.lengths[row, 1] - 1]
        mean = total[0] / total[1]
        return {
            "valid_loss": mean,
            "valid_perplexity": math.exp(min(mean, 700.0)),
            "token_accuracy": total[2] / total[1],
            "approx_bleu": bleu.approx_bleu(
                predicted, [pairs.side(row, 1).tolist() for row in range(count)]
            ),
        }


def _by_split(numbers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The first split's numbers under their own names, and with several splits every split's under `..._NAME`."""
    result = dict(next(iter(numbers.values())))
    if len(numbers) > 1:
        for name, values in numbers.items():
            result |= {f"{key}_{name}": value for key, value in values.items()}
    return result


class TranslationPredictor(Predictor):
    """Writes one translation a line, or with decode.nbest above 1 a row for each translation."""

    def __init__(self, config: Config, start: SavedModel, placement: Placement):
        self._config, self._tokenizer = config, start.tokenizer
        network, buckets = start.network(config.impl), config.data.buckets
        self._decoder = Decoder(network, config.decode, buckets, start.tokenizer, placement)
        self._widths: tuple[int, ...] = ()

    def __call__(self, params: Params, block: Examples) -> Iterator[str]:
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
                yield single_line(texts[0])
                continue
            for rank, (text, score) in enumerate(zip(texts, scores, strict=True), start=1):
                yield f"{number + 1}\t{rank}\t{score:.4f}\t{single_line(text)}"
