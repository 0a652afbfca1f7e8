"""Losses as sums over a batch, so that the sums of microbatches add up to those of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tlc_jax.models.network import Params

Batch = Mapping[str, jax.Array]


class Sums(NamedTuple):
    """Totals over examples or predicted positions; their quotients are the metrics."""

    loss: jax.Array
    weight: jax.Array
    correct: jax.Array


class Objective(NamedTuple):
    """A loss in two parts.

    Attributes:
      corrupt: (key, batch) -> batch with the task's random draws, made for a whole batch at once.
      sums: (params, corrupted batch, dropout key or None) -> (`Sums`, logits); `Sums.loss` is
        differentiable.
    """

    corrupt: Callable[[jax.Array, Batch], Batch]
    sums: Callable[[Params, Batch, jax.Array | None], tuple[Sums, jax.Array]]


def weighted_sums(
    logits_xC: jax.Array, targets_x: jax.Array, weights_x: jax.Array, smoothing: float = 0.0
) -> Sums:
    """Cross-entropy in nats and accuracy, summed under weights; logits in float32.

    Label smoothing spreads the share `smoothing` of a target's weight over all C classes. A target
    counts as predicted where no logit exceeds its own; `argmax` is slow over a large vocabulary.
    """
    loss_x, correct_x = cross_entropy(logits_xC, targets_x, smoothing)
    return Sums(jnp.sum(loss_x * weights_x), jnp.sum(weights_x), jnp.sum(correct_x * weights_x))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def cross_entropy(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats, and 1 where the target's logit is the largest, without gradient."""
    return _cross_entropy_forward(logits_xC, targets_x, smoothing)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array]


def _cross_entropy_forward(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    largest_x = jnp.max(logits_xC, axis=-1)
    log_normalizer_x = largest_x + jnp.log(
        jnp.sum(jnp.exp(logits_xC - largest_x[..., None]), axis=-1)
    )
    target_logit_x = jnp.take_along_axis(logits_xC, targets_x[..., None], axis=-1)[..., 0]
    correct_x = (target_logit_x >= largest_x).astype(logits_xC.dtype)
    expected_x = target_logit_x
    if smoothing:
        expected_x = (1.0 - smoothing) * target_logit_x + smoothing * jnp.mean(logits_xC, axis=-1)
    return (log_normalizer_x - expected_x, correct_x), (logits_xC, targets_x, log_normalizer_x)


def _cross_entropy_backward(
    smoothing: float, residuals: Residuals, g: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
    # Written out because JAX's own rule reads and writes the logits, hundreds of megabytes, several
    # times more: it stores their exponentials in the forward pass and scatters the share of the
    # targets into an array of zeros in the backward pass.
    logits_xC, targets_x, log_normalizer_x = residuals
    classes_xC = jax.lax.broadcasted_iota(targets_x.dtype, logits_xC.shape, logits_xC.ndim - 1)
    probabilities_xC = jnp.exp(logits_xC - log_normalizer_x[..., None])
    expected_xC = (1.0 - smoothing) * (
        classes_xC == targets_x[..., None]
    ) + smoothing / logits_xC.shape[-1]
    return (probabilities_xC - expected_xC) * g[0][..., None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
