"""Matrix products and dropout: the arithmetic whose precision and cost `impl` may choose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def matmul(x: jax.Array, kernel_IxO: jax.Array, precision: str) -> jax.Array:
    """`x_...xI @ kernel_IxO` in one of three ways.

    * `float32`: as the arrays are.
    * `mix`: both sides rounded to bfloat16, result in float32, in the backward pass too. On CPUs with bfloat16
      instructions this doubles the rate, where a bfloat16 *result* would undo the gain.
    * `bfloat16`: inputs, result and hence the activations between matrix products in bfloat16.
    """
    if precision == "float32":
        return x @ kernel_IxO
    if precision == "bfloat16":
        return x.astype(jnp.bfloat16) @ kernel_IxO.astype(jnp.bfloat16)
    return _mixed_matmul(x, kernel_IxO)


def _dot(x: jax.Array, y: jax.Array, contract_x: int, contract_y: int) -> jax.Array:
    return lax.dot_general(x, y, (((contract_x,), (contract_y,)), ((), ())), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _mixed_matmul(x: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
    return _mixed_forward(x, kernel_IxO)[0]


def _mixed_forward(x: jax.Array, kernel_IxO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # Flattened, because on CPUs bfloat16 products with a float32 result exist for plain matrices only.
    x_TxI = x.reshape(-1, x.shape[-1]).astype(jnp.bfloat16)
    kernel_IxO = kernel_IxO.astype(jnp.bfloat16)
    return _dot(x_TxI, kernel_IxO, 1, 0).reshape(*x.shape[:-1], -1), (x_TxI, kernel_IxO)


def _mixed_backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Without a rule of our own the cotangent would stay float32 and both backward products would run at float32 rate.
    x_TxI, kernel_IxO = residuals
    g_TxO = g.reshape(-1, g.shape[-1]).astype(jnp.bfloat16)
    return _dot(g_TxO, kernel_IxO, 1, 1).reshape(*g.shape[:-1], -1), _dot(x_TxI, g_TxO, 0, 0)


_mixed_matmul.defvjp(_mixed_forward, _mixed_backward)


def dropout(key: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Zeroes elements with probability `rate` and rescales the rest; the identity without a key.

    Sixteen random bits an element are enough (the probability is met to within 1/131072) and cost half of 32.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bits(key, x.shape, jnp.uint16) >= jnp.uint16(round(rate * 65536))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
