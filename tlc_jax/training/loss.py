"""What is minimised: sums over a batch, so that a batch in parts adds up to the batch as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tlc_jax.config import Objective as MaskingSettings
from tlc_jax.data.vocabulary import BOS, OURS, PAD, SpecialIds
from tlc_jax.models.network import Network, Params
from tlc_jax.tasks.masking import mask_tokens

Batch = Mapping[str, jax.Array]


class Sums(NamedTuple):
    """Totals over examples or predicted positions; their quotients are the metrics."""

    loss: jax.Array
    weight: jax.Array
    correct: jax.Array


class Objective(NamedTuple):
    """A loss in two parts.

    Attributes:
      corrupt: (key, batch) -> batch; draws what is random about the task for a whole batch at once.
      sums: (params, corrupted batch, dropout key or None) -> (`Sums`, logits), differentiable in `Sums.loss`.
    """

    corrupt: Callable[[jax.Array, Batch], Batch]
    sums: Callable[[Params, Batch, jax.Array | None], tuple[Sums, jax.Array]]


def weighted_sums(
    logits_xC: jax.Array, targets_x: jax.Array, weights_x: jax.Array, smoothing: float = 0.0
) -> Sums:
    """Cross-entropy in nats and accuracy, summed under weights; logits in float32.

    With `smoothing` that share of a target's weight is spread over all C classes (label smoothing). A target counts as
    predicted where no logit exceeds its own. (`argmax` is slow over a large vocabulary.)
    """
    loss_x, correct_x = cross_entropy(logits_xC, targets_x, smoothing)
    return Sums(jnp.sum(loss_x * weights_x), jnp.sum(weights_x), jnp.sum(correct_x * weights_x))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def cross_entropy(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats, and whether the target's logit is the largest (1 or 0; has no gradient)."""
    return _cross_entropy_forward(logits_xC, targets_x, smoothing)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array]


def _cross_entropy_forward(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    largest_x = jnp.max(logits_xC, axis=-1)
    log_normaliser_x = largest_x + jnp.log(
        jnp.sum(jnp.exp(logits_xC - largest_x[..., None]), axis=-1)
    )
    target_logit_x = jnp.take_along_axis(logits_xC, targets_x[..., None], axis=-1)[..., 0]
    correct_x = (target_logit_x >= largest_x).astype(logits_xC.dtype)
    expected_x = target_logit_x
    if smoothing:
        expected_x = (1.0 - smoothing) * target_logit_x + smoothing * jnp.mean(logits_xC, axis=-1)
    return (log_normaliser_x - expected_x, correct_x), (logits_xC, targets_x, log_normaliser_x)


def _cross_entropy_backward(
    smoothing: float, residuals: Residuals, g: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
    # Written out, because JAX's own rule passes over the logits, hundreds of megabytes, several times more: it stores
    # their exponentials in the forward pass and scatters the targets' share into an array of zeros in the backward one.
    logits_xC, targets_x, log_normaliser_x = residuals
    classes_xC = jax.lax.broadcasted_iota(targets_x.dtype, logits_xC.shape, logits_xC.ndim - 1)
    probabilities_xC = jnp.exp(logits_xC - log_normaliser_x[..., None])
    expected_xC = (1.0 - smoothing) * (
        classes_xC == targets_x[..., None]
    ) + smoothing / logits_xC.shape[-1]
    return (probabilities_xC - expected_xC) * g[0][..., None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def masked_language(
    network: Network, settings: MaskingSettings, special: SpecialIds = OURS
) -> Objective:
    """Predict the corrupted tokens of `batch["tokens"]`; rows weigh `batch["weights"]` where that is given."""

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


def classification(network: Network) -> Objective:
    """Predict `batch["labels"]` of the padded rows `batch["tokens"]`."""

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        del key  # nothing is random but dropout
        return batch

    def sums(params: Params, batch: Batch, key: jax.Array | None) -> tuple[Sums, jax.Array]:
        logits_BxC = network.apply(
            params, batch["tokens"], batch["tokens"] != network.model.padding, key=key
        )
        labels_B = batch["labels"]
        weights_B: Any = batch.get("weights", jnp.ones(labels_B.shape, jnp.float32))
        return weighted_sums(
            logits_BxC, jnp.maximum(labels_B, 0), weights_B * (labels_B >= 0)
        ), logits_BxC

    return Objective(corrupt, sums)


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
