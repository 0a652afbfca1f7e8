"""Affine maps and dropout: the arithmetic whose precision and cost `impl` may choose.

Shapes in names: T rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from tlc_jax.core.mesh import draw_by_rows

_TYPES = {
    "float32": (jnp.float32, jnp.float32),
    "mix": (jnp.bfloat16, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
}
"""What both sides of a matrix product are rounded to, and the type of its result."""


def affine(
    x: jax.Array, kernel: jax.Array, bias_O: jax.Array, precision: str, kernel_is_OxI: bool = False
) -> jax.Array:
    """`x_...xI @ kernel_IxO + bias_O` in one of three ways, in the backward pass too.

    * `float32`: as the arrays are.
    * `mix`: both sides of a product rounded to bfloat16, its result and all else in float32. On CPUs with bfloat16
      instructions this doubles the rate, where a bfloat16 *result* would undo the gain.
    * `bfloat16`: results, and hence the activations between matrix products, in bfloat16 as well.

    Gradients of kernel and bias come in float32 always.

    Args:
      kernel_is_OxI: the kernel is stored the other way round, as an embedding table is.
    """
    y_TxO = _affine(x.reshape(-1, x.shape[-1]), kernel, bias_O, precision, kernel_is_OxI)
    return y_TxO.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _affine(
    x_TxI: jax.Array, kernel: jax.Array, bias_O: jax.Array, precision: str, kernel_is_OxI: bool
) -> jax.Array:
    return _affine_forward(x_TxI, kernel, bias_O, precision, kernel_is_OxI)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array]


def _affine_forward(
    x_TxI: jax.Array, kernel: jax.Array, bias_O: jax.Array, precision: str, kernel_is_OxI: bool
) -> tuple[jax.Array, Residuals]:
    inputs, result = _TYPES[precision]
    like_x = jnp.zeros((), x_TxI.dtype)
    x_TxI, kernel = x_TxI.astype(inputs), kernel.astype(inputs)
    y_TxO = _dot(x_TxI, kernel, 1 if kernel_is_OxI else 0, result)
    return y_TxO + bias_O.astype(result), (x_TxI, kernel, like_x)


def _affine_backward(
    precision: str, kernel_is_OxI: bool, residuals: Residuals, g_TxO: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    # A rule of our own, because JAX's would leave the cotangent in float32, and with it both products.
    x_TxI, kernel, like_x = residuals
    g_TxO = g_TxO.astype(x_TxI.dtype)
    gradient_TxI = _dot(g_TxO, kernel, 0 if kernel_is_OxI else 1, like_x.dtype)
    gradient_IxO, gradient_O = lax.platform_dependent(
        x_TxI, g_TxO, cpu=_parameter_gradients_on_cpu, default=_parameter_gradients
    )
    return gradient_TxI, gradient_IxO.T if kernel_is_OxI else gradient_IxO, gradient_O


_affine.defvjp(_affine_forward, _affine_backward)


def _parameter_gradients(x_TxI: jax.Array, g_TxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    gradient_IxO = lax.dot_general(
        x_TxI, g_TxO, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return gradient_IxO, jnp.sum(g_TxO, axis=0, dtype=jnp.float32)


def _parameter_gradients_on_cpu(x_TxI: jax.Array, g_TxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same for XLA's CPU backend, 1.1 (float32) to 3.4 times (bfloat16) as fast.

    That backend multiplies a matrix transposed on the left at half speed, and bfloat16 ones in float32 or not at all.
    So the narrower side is transposed first, and barriers keep XLA from moving that back into the product. It also
    sums over rows slowly: a product with ones is quicker, and one with two rows of them is not turned into a sum.
    """
    if x_TxI.shape[1] <= g_TxO.shape[1]:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(x_TxI), g_TxO, 0, jnp.float32))
    else:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(g_TxO), x_TxI, 0, jnp.float32)).T
    ones_2xT = jnp.ones((2, g_TxO.shape[0]), g_TxO.dtype)
    return gradient_IxO, _dot(ones_2xT, g_TxO, 0, jnp.float32)[0]


def _transposed(x: jax.Array) -> jax.Array:
    """The transpose, laid out again in memory, which is why it takes the detour over a flat array."""
    return lax.optimization_barrier(x.T.reshape(-1)).reshape(x.shape[1], x.shape[0])


def _dot(x: jax.Array, y: jax.Array, contract_y: int, result: jax.typing.DTypeLike) -> jax.Array:
    """The product of two matrices over the second axis of x and axis `contract_y` of y."""
    return lax.dot_general(x, y, (((1,), (contract_y,)), ((), ())), preferred_element_type=result)


def dropout(key: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Zeroes elements with probability `rate` and rescales the rest; the identity without a key.

    Sixteen random bits an element are enough: the probability is met to within 1/131072. With a key of
    the generator rbg each device draws those of its own rows, so what is dropped depends on how rows are split.
    """
    if key is None or rate == 0.0:
        return x
    if (
        jax.random.key_impl(key) == "threefry2x32"
    ):  # the compiler divides it, and any mesh gets the same bits
        bits = _random_bits(key, x.shape)
    else:
        bits = draw_by_rows(_random_bits, key, x.shape)
    return jnp.where(
        bits >= jnp.uint16(round(rate * 65536)), x / (1.0 - rate), jnp.zeros((), x.dtype)
    )


def _random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint16."""
    return lax.platform_dependent(
        key,
        cpu=functools.partial(_random_bits_on_cpu, shape=shape),
        default=functools.partial(jax.random.bits, shape=shape, dtype=jnp.uint16),
    )


def _random_bits_on_cpu(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint16. XLA's CPU backend draws them nine times as fast as halves of uint32."""
    size = math.prod(shape)
    pairs = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    return lax.bitcast_convert_type(pairs, jnp.uint16).reshape(-1)[:size].reshape(shape)
