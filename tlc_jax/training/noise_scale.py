"""The gradient noise scale (McCandlish et al., 2018: An Empirical Model of Large-Batch Training).

The noise scale tr(Sigma) / |G|^2, with G the gradient over all data and Sigma the covariance of the
gradient of one unit of the batch, is about the batch size from which on larger batches pay less. A
batch of B units has a mean gradient g with E|g|^2 = |G|^2 + tr(Sigma) / B, so mean gradients of the
batch and of the small batches in it give both, without bias (their appendix A.1). Small batches are
the microbatches of each device.

Small batches weigh differently where rows do, such as rows of text with padding. With W_i the
weight of small batch i, g_i its mean gradient, n their number, and W and g those of the batch,

    v = (sum_i W_i |g_i|^2 / W - |g|^2) / (n - 1)

has the expectation tr(Sigma) / B for any weights, if gradients of units of weight are independent;
with equal weights it is the formula of the paper. |g|^2 - v has the expectation |G|^2. So the noise
scale is B v / (|g|^2 - v), in the unit in which B is given: that of optimizer.batch_size, which is
sequences, examples, or target tokens with their padding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

DECAY = 0.99
"""Decay of the averages per step: they are of about the last hundred steps."""


class SmallBatches(NamedTuple):
    """Sums over small batches: W_i |g_i|^2, and the number of those that weigh anything."""

    squares: jax.Array
    number: jax.Array

    @staticmethod
    def none() -> SmallBatches:
        """Those of no small batch."""
        return SmallBatches(jnp.zeros(()), jnp.zeros(()))

    @staticmethod
    def of(gradient: Any, weight: jax.Array) -> SmallBatches:
        """Those of one small batch: the gradient of its summed loss, and its weight."""
        square = optax.tree.norm(gradient, squared=True)
        return SmallBatches(square / jnp.maximum(weight, 1e-9), (weight > 0).astype(jnp.float32))

    def variance(self, weight: jax.Array, norm: jax.Array) -> jax.Array:
        """v above: the variance of the batch's mean gradient, summed over all parameters.

        Args:
          weight: weight of the batch.
          norm: norm of its mean gradient.
        """
        return (self.squares / weight - norm**2) / jnp.maximum(self.number - 1, 1.0)


class NoiseScale:
    """The noise scale of a run: a ratio of two exponential moving averages over steps.

    The averages are taken apart, because a ratio of two noisy estimates is biased. Both start at
    zero, which cancels in their ratio.

    Args:
      batch_size: B, in any unit.
      variance: average of v.
      square: average of |g|^2 - v.
    """

    def __init__(self, batch_size: int, variance: float = 0.0, square: float = 0.0) -> None:
        self._batch_size, self._variance, self._square = batch_size, variance, square

    def add(self, norm: Any, variance: Any) -> None:
        """Adds a step: the norm of its mean gradient, and `SmallBatches.variance`."""
        self._variance += (1 - DECAY) * (float(variance) - self._variance)
        self._square += (1 - DECAY) * (float(norm) ** 2 - float(variance) - self._square)

    @property
    def value(self) -> float | None:
        """The noise scale in the unit of the batch size; None while the averages give none."""
        if self._square <= 0 or self._variance < 0:
            return None
        return self._batch_size * self._variance / self._square

    def save(self) -> dict[str, float]:
        """The averages, as arguments of the constructor."""
        return {"variance": self._variance, "square": self._square}
