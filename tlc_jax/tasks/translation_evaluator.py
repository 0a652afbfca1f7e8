"""Translating sentences and measuring a translator: every sentence of a set once, in its order."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Decode
from tlc_jax.core.mesh import Placement
from tlc_jax.data.length_buckets import best_widths, evaluation_batch, sentence_batches
from tlc_jax.data.pairs import Split
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import PAD
from tlc_jax.decoding import bleu
from tlc_jax.decoding.beam_search import Hypotheses, beam_search
from tlc_jax.models.network import Network, Params
from tlc_jax.training.loss import translation


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
