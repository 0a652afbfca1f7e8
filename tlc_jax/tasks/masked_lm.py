"""Masked-language modeling, which pretrains encoders: corruption, objective, evaluation, cost.

A fixed number of positions of every row is corrupted, so that all shapes are static; logits are
computed at these positions alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.config import Config
from tlc_jax.config import Objective as MaskingSettings
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import RowBatches, evaluation_batches
from tlc_jax.data.packing import Packed, prepare
from tlc_jax.data.tokenizer import OURS, SpecialIds
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import TaskRun, loss_numbers, test_numbers, with_splits
from tlc_jax.training.step import Batch, Objective, Sums, weighted_sums

_PARTS = 50
_MASKS_SEED = 20200211
"""Every model, whatever its seed, is evaluated on the same tokens at the same positions."""

_COUNTED_ROWS = 200_000


@dataclasses.dataclass(eq=False, kw_only=True)
class MaskedLanguageRun(TaskRun):
    """A masked-language model with packed rows of text.

    Attributes:
      train_text: rows of each training source.
      valid_text: rows to evaluate on, by name.
      test_text: rows to test on, by name.
      special: special ids of the tokenizer.
    """

    goal = "valid_masked_accuracy"
    unit = "sequences"
    arrays: ClassVar = {"tokens": 2}

    train_text: Sequence[Packed] = ()
    valid_text: Mapping[str, Packed] = dataclasses.field(default_factory=dict)
    test_text: Mapping[str, Packed] = dataclasses.field(default_factory=dict)
    special: SpecialIds = OURS

    @classmethod
    def of_saved(
        cls, config: Config, start: SavedModel, cache: Path, placement: Placement, train: bool
    ) -> MaskedLanguageRun:
        require_head(start)
        # Validation text of its own is packed alone; a held-out part needs the text it came from.
        source = config.data.train if train else config.data.valid or config.data.train
        settings = dataclasses.replace(config, data=dataclasses.replace(config.data, train=source))
        text = prepare(settings, cache, tokenizer=start.tokenizer)
        network, special = start.network(config.impl), start.tokenizer.special
        run = cls(config, network, placement, start.meta, special=special)
        run.train_text, run.valid_text, run.test_text = text.train, text.valid, text.test
        return run

    def objective(self) -> Objective:
        return masked_language(self.network, self.config.objective, self.special)

    def train_flops(self, rows: int, width: int) -> float:
        config, outputs = self.config, self.network.vocab_size
        predicted = predicted_positions(width, config.objective.mask_rate)
        return flops.encoder_train_flops(config.model, outputs, rows, width, predicted)

    def host_batches(self, seed: int) -> RowBatches:
        return RowBatches(self.train_text, self.config.optimizer.batch_size, seed)

    def batches(self, seed: int) -> Callable[[int], Batch]:
        batches, rows = self.host_batches(seed), self.config.optimizer.batch_size
        # Each process reads the rows of its own devices only: text may lie on slow shared storage.
        own_rows = self.placement.own_rows(rows)
        return lambda step: self.placement.for_step(batches(step, own_rows), rows)

    def evaluate(self, params: Params, final: bool) -> dict[str, Any]:
        """`valid_loss` (nats per predicted token), `valid_perplexity` and `valid_masked_accuracy`.

        All sets count together; with several sets there are also the numbers of each, as
        `..._NAME`.
        """
        limit = 0 if final else self.config.eval.examples
        sums = self._sums(params, self.valid_text, limit)
        return self._numbers(sums) | ({"valid_loss_parts": _loss_parts(sums)} if final else {})

    def evaluate_test(self, params: Params) -> dict[str, Any]:
        if not self.test_text:
            return {}
        return test_numbers(self._numbers(self._sums(params, self.test_text)))

    def _numbers(self, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
        sets = {name: loss_numbers(each.sum(0), self.goal) for name, each in sums.items()}
        overall = loss_numbers(np.concatenate([*sums.values()]).sum(0), self.goal)
        return with_splits(sets, overall)

    def _sums(
        self, params: Params, texts: Mapping[str, Packed], limit: int = 0
    ) -> dict[str, np.ndarray]:
        """Sums of each batch of each set, [batches, 3]; see `_set_sums`."""
        params = self.placement.put_params(params)
        return {name: self._set_sums(params, text, limit) for name, text in texts.items()}

    def _set_sums(self, params: Params, text: Packed, limit: int) -> np.ndarray:
        """(loss, weight, correct) summed over each batch of at most `limit` rows; 0: all rows."""
        batch_size = self.config.eval.batch_size or self.config.optimizer.batch_size
        results = []
        for batch in evaluation_batches(text, batch_size, limit):
            results.append(self._batch_sums(params, self.placement.put_batch(batch)))
        # Read after the loop, because reading one result would wait for it. In float64, so that a
        # long evaluation keeps its digits.
        return np.array([[float(x) for x in sums] for sums in results], np.float64)

    @functools.cached_property
    def _batch_sums(self) -> Callable[..., Sums]:
        """(params, batch) -> sums over the batch. Compiles once for all evaluations."""
        objective = self.objective()

        def corrupt(tokens_L: jax.Array, weight: jax.Array, row: jax.Array) -> Batch:
            # By the row's place in its split, so that neither eval.batch_size nor eval.examples
            # changes what is masked in it.
            key = jax.random.fold_in(jax.random.key(_MASKS_SEED, impl="threefry2x32"), row)
            batch = {"tokens": tokens_L[None], "weights": weight[None]}
            return jax.tree.map(lambda leaf_1: leaf_1[0], objective.corrupt(key, batch))

        @self.placement.jit
        def sums(params: Params, batch: dict[str, jax.Array]) -> Sums:
            corrupted = jax.vmap(corrupt)(batch["tokens"], batch["weights"], batch["index"])
            return objective.sums(params, corrupted, None)[0]

        return sums

    @classmethod
    def forward_inputs(cls, config: Config, tokens_BxL: np.ndarray) -> tuple[np.ndarray, ...]:
        rows, length = tokens_BxL.shape
        # Logits are computed at predicted positions alone, so as many of them are timed.
        count = predicted_positions(length, config.objective.mask_rate)
        positions_K = np.sort(np.random.default_rng(0).permutation(length)[:count])
        return tokens_BxL, np.tile(positions_K.astype(np.int32), (rows, 1))


def _loss_parts(sums: Mapping[str, np.ndarray]) -> list[list[float]]:
    """Mean loss (nats) and number of predicted tokens of up to 50 parts of the validation text.

    A part is several batches, thus whole stretches of text, because losses of tokens of one
    document go together. Runs of a study share the parts, and their masks.
    """
    batches = np.concatenate([*sums.values()])
    parts = (part.sum(0) for part in np.array_split(batches, min(len(batches), _PARTS)))
    return [[float(loss / weight), float(weight)] for loss, weight, _ in parts]


def require_head(start: SavedModel) -> None:
    """Refuses an imported encoder that has no head to predict with.

    Raises:
      InputError: it has neither a masked-language nor a classification head.
    """
    if start.kind == "encoder":
        raise InputError(
            f"{start.path} is an encoder without a masked-language or classification head: "
            "finetune it, or compress it with compress.when=before"
        )


def masked_language(
    network: Network, settings: MaskingSettings, special: SpecialIds = OURS
) -> Objective:
    """Predict the corrupted tokens of `batch["tokens"]`.

    Evaluation batches also have `batch["weights"]`, 0 for rows that only fill up the batch.
    """

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        masked = mask_tokens(key, batch["tokens"], settings, network.vocab_size, special)
        weights_BxK = masked.weights_BxK
        if "weights" in batch:
            weights_BxK = weights_BxK * batch["weights"][:, None]
        return {
            "inputs": masked.inputs_BxL,
            "positions": masked.positions_BxK,
            "targets": masked.targets_BxK,
            "weights": weights_BxK,
        }

    def sums(params: Params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
        logits_BxKxV = network.apply(params, batch["inputs"], batch["positions"], key=key)
        return weighted_sums(logits_BxKxV, batch["targets"], batch["weights"]), logits_BxKxV

    return Objective(corrupt, sums)


class Masked(NamedTuple):
    """A corrupted batch: B rows of L tokens with K positions to predict in each."""

    inputs_BxL: jax.Array
    positions_BxK: jax.Array
    targets_BxK: jax.Array
    weights_BxK: jax.Array


def predicted_positions(length: int, mask_rate: float) -> int:
    """K: the positions selected in a row of `length` tokens."""
    return max(1, math.ceil(mask_rate * length - 1e-9))


def mask_tokens(
    key: jax.Array,
    tokens_BxL: jax.Array,
    objective: MaskingSettings,
    vocab_size: int,
    special: SpecialIds = OURS,
) -> Masked:
    """Selects K positions of each row without replacement and corrupts them.

    Of the selected, `objective.mask_token` become <mask>, `objective.random_token` a random
    ordinary token, and the rest stay as they are.

    Args:
      key: decides all draws.
      tokens_BxL: int32 [B, L] rows of text.
      objective: mask_rate and the shares of the three fates.
      vocab_size: number of tokens, special ones included.
      special: ids that are never selected; where a row has too few others, the weight is 0.
    """
    B, L = tokens_BxL.shape
    K = predicted_positions(L, objective.mask_rate)
    key_choice, key_action, key_token = jax.random.split(key, 3)
    draws_BxL = jax.random.uniform(key_choice, (B, L))
    priority_BxL = jnp.where(_ordinary(tokens_BxL, special), draws_BxL, -1.0)
    # Special tokens come last: they are selected only where a row has too little text.
    _, positions_BxK = jax.lax.top_k(priority_BxL, K)
    targets_BxK = jnp.take_along_axis(tokens_BxL, positions_BxK, axis=1)
    # K is rounded up, so the last position has the weight of the fraction that is left: the
    # expected weight is exactly mask_rate of the row.
    last = min(1.0, objective.mask_rate * L - (K - 1))
    weights_K = jnp.where(jnp.arange(K) < K - 1, 1.0, last)
    weights_BxK = weights_K * _ordinary(targets_BxK, special)

    action_BxK = jax.random.uniform(key_action, (B, K))
    ordinary = vocab_size - len(special.all)
    random_BxK = jax.random.randint(key_token, (B, K), 0, ordinary, tokens_BxL.dtype)
    for id in special.all:  # ascending, so that each moves the rest up by one
        random_BxK += random_BxK >= id
    changed = objective.mask_token + objective.random_token
    mask = jnp.asarray(special.mask, tokens_BxL.dtype)
    other_BxK = jnp.where(action_BxK < changed, random_BxK, targets_BxK)
    corrupted_BxK = jnp.where(action_BxK < objective.mask_token, mask, other_BxK)
    corrupted_BxK = jnp.where(weights_BxK > 0, corrupted_BxK, targets_BxK)
    write = jax.vmap(lambda row, where, what: row.at[where].set(what))
    inputs_BxL = write(tokens_BxL, positions_BxK, corrupted_BxK)
    return Masked(inputs_BxL, positions_BxK, targets_BxK, weights_BxK)


def _ordinary(tokens: jax.Array, special: SpecialIds) -> jax.Array:
    """A mask that is true at tokens of text and false at special tokens."""
    return functools.reduce(operator.and_, [tokens != id for id in special.all])


def unigram_loss(
    train: Iterable[Packed], valid: Iterable[Packed], vocab_size: int, special: SpecialIds = OURS
) -> float:
    """Nats per token of a model that knows only how often each token occurs in training.

    A masked-language model starts on a plateau near this value, and leaves it once it uses context.
    Frequencies are those of at most 200,000 rows of each source, with one added to each; special
    tokens are left out, as in masking.
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
