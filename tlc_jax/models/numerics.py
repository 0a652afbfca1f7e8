"""Affine maps and dropout: the arithmetic whose precision and cost `impl` may choose.

Shapes in names: T rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from tlc_jax.core.mesh import draw_by_rows

_TYPES = {
    "float32": (jnp.float32, jnp.float32),
    "mix": (jnp.bfloat16, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
}
"""Types of the sides of a matrix product and of its result, by `impl.matmul`."""


def affine(
    x: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool = False
) -> Array:
    """Computes `x_...xI @ kernel_IxO + bias_O`, with gradients of kernel and bias in float32.

    Args:
      x: any leading axes, then I.
      kernel: [I, O], or [O, I] if `kernel_is_OxI`, float32.
      bias_O: float32.
      precision: types of the products, forward and backward: "float32", everything as it is;
        "mix", both sides rounded to bfloat16, the result in float32; "bfloat16", the result in
        bfloat16 as well.
      kernel_is_OxI: the kernel is stored transposed, as an embedding table is.
    """
    y_TxO = _affine(x.reshape(-1, x.shape[-1]), kernel, bias_O, precision, kernel_is_OxI)
    return y_TxO.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _affine(
    x_TxI: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool
) -> Array:
    return _affine_forward(x_TxI, kernel, bias_O, precision, kernel_is_OxI)[0]


Residuals = tuple[Array, Array, Array]


def _affine_forward(
    x_TxI: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool
) -> tuple[Array, Residuals]:
    # On CPUs with bfloat16 instructions "mix" doubles the rate; bfloat16 results undo the gain.
    inputs, result = _TYPES[precision]
    like_x = jnp.zeros((), x_TxI.dtype)
    x_TxI, kernel = x_TxI.astype(inputs), kernel.astype(inputs)
    y_TxO = _dot(x_TxI, kernel, 1 if kernel_is_OxI else 0, result)
    return y_TxO + bias_O.astype(result), (x_TxI, kernel, like_x)


def _affine_backward(
    precision: str, kernel_is_OxI: bool, residuals: Residuals, g_TxO: Array
) -> tuple[Array, Array, Array]:
    # JAX's own rule would leave the cotangent in float32, and with it both products.
    x_TxI, kernel, like_x = residuals
    g_TxO = g_TxO.astype(x_TxI.dtype)
    gradient_TxI = _dot(g_TxO, kernel, 0 if kernel_is_OxI else 1, like_x.dtype)
    gradient_IxO, gradient_O = lax.platform_dependent(
        x_TxI, g_TxO, cpu=_parameter_gradients_on_cpu, default=_parameter_gradients
    )
    return gradient_TxI, gradient_IxO.T if kernel_is_OxI else gradient_IxO, gradient_O


_affine.defvjp(_affine_forward, _affine_backward)


def _parameter_gradients(x_TxI: Array, g_TxO: Array) -> tuple[Array, Array]:
    gradient_IxO = lax.dot_general(
        x_TxI, g_TxO, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return gradient_IxO, jnp.sum(g_TxO, axis=0, dtype=jnp.float32)


def _parameter_gradients_on_cpu(x_TxI: Array, g_TxO: Array) -> tuple[Array, Array]:
    """The same for XLA's CPU backend, 1.1 (float32) to 3.4 times (bfloat16) as fast."""
    # That backend multiplies a matrix transposed on the left at half speed, and bfloat16 ones in
    # float32 or not at all. So the narrower side is transposed first, and barriers keep XLA from
    # moving that back into the product.
    if x_TxI.shape[1] <= g_TxO.shape[1]:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(x_TxI), g_TxO, 0, jnp.float32))
    else:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(g_TxO), x_TxI, 0, jnp.float32)).T
    # It also sums over rows slowly. A product with ones is quicker; XLA would turn one with a
    # single row of ones into a sum, so there are two rows.
    ones_2xT = jnp.ones((2, g_TxO.shape[0]), g_TxO.dtype)
    return gradient_IxO, _dot(ones_2xT, g_TxO, 0, jnp.float32)[0]


def _transposed(x: Array) -> Array:
    """The transpose, copied in memory: reshaping to a flat array forces the copy."""
    return lax.optimization_barrier(x.T.reshape(-1)).reshape(x.shape[1], x.shape[0])


def _dot(x: Array, y: Array, contract_y: int, result: jax.typing.DTypeLike) -> Array:
    """The product of two matrices over the second axis of x and axis `contract_y` of y."""
    return lax.dot_general(x, y, (((1,), (contract_y,)), ((), ())), preferred_element_type=result)


def dropout(key: Array | None, x: Array, rate: float) -> Array:
    """Zeroes elements with probability `rate` and rescales the rest; the identity without a key.

    With a key of the generator rbg each device draws the bits of its own rows, so which elements
    are dropped depends on how rows are split over devices.
    """
    if key is None or rate == 0.0:
        return x
    # The compiler divides threefry among devices by itself, and any mesh gets the same bits.
    if jax.random.key_impl(key) == "threefry2x32":
        bits = _random_bits(key, x.shape)
    else:
        bits = draw_by_rows(_random_bits, key, x.shape)
    # Sixteen random bits are enough: they meet the probability to within 1/131072.
    kept = bits >= jnp.uint16(round(rate * 65536))
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


def split_key(key: Array | None, count: int) -> Sequence[Array | None]:
    """Splits a random key; without a key, `count` times None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def _random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16."""
    return lax.platform_dependent(
        key,
        cpu=functools.partial(_random_bits_on_cpu, shape=shape),
        default=functools.partial(jax.random.bits, shape=shape, dtype=jnp.uint16),
    )


def _random_bits_on_cpu(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16, as halves of uint32: on CPUs XLA draws them nine times as fast."""
    size = math.prod(shape)
    pairs = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    return lax.bitcast_convert_type(pairs, jnp.uint16).reshape(-1)[:size].reshape(shape)
