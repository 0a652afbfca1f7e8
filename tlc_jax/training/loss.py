"""What is minimised: sums over a batch, so that a batch in parts adds up to the batch as a whole."""

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
