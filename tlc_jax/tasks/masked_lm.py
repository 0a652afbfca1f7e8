"""Masked-language loss and perplexity of a held-out set: every row once, under masks that never change."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import evaluation_batches
from tlc_jax.data.packing import Packed
from tlc_jax.data.vocabulary import OURS, SpecialIds
from tlc_jax.models.network import Params
from tlc_jax.training.loss import Objective, Sums

_MASKS_SEED = 20200211
"""Every model, whatever its seed, predicts the same tokens at the same positions."""


class PerplexityEvaluator:
    """Evaluates parameters on named sets; compiles once, however often it is called."""

    def __init__(
        self, objective: Objective, sets: dict[str, Packed], batch_size: int, placement: Placement
    ):
        self._sets, self._batch_size, self._placement = sets, batch_size, placement

        @placement.jit
        def sums(params: Params, batch: dict[str, jax.Array], index: jax.Array) -> Sums:
            key = jax.random.fold_in(jax.random.key(_MASKS_SEED, impl="threefry2x32"), index)
            return objective.sums(params, objective.corrupt(key, batch), None)[0]

        self._sums: Callable[..., Sums] = sums

    def __call__(self, params: Params, limit: int = 0) -> dict[str, Any]:
        """`valid_loss` (nats per predicted token), `valid_perplexity` and `valid_masked_accuracy` over all sets.

        With several sets each also has its own loss and perplexity, `..._NAME`. `limit`: rows at most of each set.
        """
        params = self._placement.put_params(params)
        totals = {name: self._total(params, packed, limit) for name, packed in self._sets.items()}
        overall = functools.reduce(np.add, totals.values())
        numbers = _numbers(overall)
        if len(totals) > 1:
            for name, total in totals.items():
                numbers |= {f"{key}_{name}": value for key, value in _numbers(total).items()}
        return numbers

    def _total(self, params: Params, packed: Packed, limit: int) -> np.ndarray:
        batches = evaluation_batches(packed, self._batch_size, limit)
        results = [
            self._sums(
                params,
                self._placement.put_batch({name: batch[name] for name in ("tokens", "weights")}),
                np.int32(i),
            )
            for i, batch in enumerate(batches)
        ]
        # Added in float64 on the host: a long evaluation keeps its digits.
        return np.array([[float(x) for x in sums] for sums in results], np.float64).sum(axis=0)


_COUNTED_ROWS = 200_000


def unigram_loss(
    train: Iterable[Packed], valid: Iterable[Packed], vocab_size: int, special: SpecialIds = OURS
) -> float:
    """Nats per token of a model that knows how often each token occurs in training and nothing else.

    A masked-language model starts on a plateau near this value, and leaves it once it uses context. Frequencies are
    those of at most 200,000 training rows, with one added to each; special tokens are left out, as in masking.
    """
    counts = 1.0 + np.delete(_count(train, vocab_size), special.all)
    targets = np.delete(_count(valid, vocab_size), special.all)
    return float(-(targets @ np.log(counts / counts.sum())) / targets.sum())


def _count(sets: Iterable[Packed], vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size)
    for packed in sets:
        rows = np.linspace(0, len(packed) - 1, min(len(packed), _COUNTED_ROWS)).astype(np.int64)
        counts += np.bincount(packed.take(rows).reshape(-1), minlength=vocab_size)
    return counts


def _numbers(total: np.ndarray) -> dict[str, Any]:
    loss, weight, correct = total
    mean = loss / weight
    return {
        "valid_loss": mean,
        "valid_perplexity": math.exp(min(mean, 700.0)),
        "valid_masked_accuracy": correct / weight,
    }
