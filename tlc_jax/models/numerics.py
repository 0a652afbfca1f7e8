"""Affine maps and dropout: the arithmetic whose precision and cost `impl` may choose.

Dropout draws its bits as they come, or as one of several seeds that train together would draw them
alone.

Shapes in names: T rows, I inputs, O outputs; B rows of a batch, L positions, D width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from tlc_jax.core.mesh import draw_by_rows, fold_in_by_rows, split_rows

LANES = 8
"""Widths of layers must be multiples of this where dropout has an `OwnWidthKey`."""

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


def random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16. With a key of rbg each device draws those of its own rows."""
    # The compiler divides threefry among devices by itself, and any mesh gets the same bits.
    if _is_threefry(key):
        return _bits(key, shape)
    return draw_by_rows(_bits, key, shape)


def _is_threefry(key: Array) -> bool:
    return jax.random.key_impl(key) == "threefry2x32"


def _bits(key: Array, shape: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        key,
        cpu=functools.partial(_bits_on_cpu, shape=shape),
        default=functools.partial(jax.random.bits, shape=shape, dtype=jnp.uint16),
    )


def _bits_on_cpu(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16, as halves of uint32: on CPUs XLA draws them nine times as fast."""
    size = math.prod(shape)
    pairs = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    return lax.bitcast_convert_type(pairs, jnp.uint16).reshape(-1)[:size].reshape(shape)


class OwnWidthKey(NamedTuple):
    """A key for a batch that is padded beyond its own width, to be mapped over seeds.

    Elements get the bits that `random_bits` draws for them in the batch of its own width.

    Attributes:
      key: key of rbg or threefry2x32.
      width_B: uint32, the batch's own width, the same for all rows.
    """

    key: Array
    width_B: Array

    def bits(self, shape: tuple[int, ...]) -> Array:
        """Random uint16 of shape [B, D] or [B, L, D]; those beyond the own width mean nothing."""
        B, *L, D = shape
        # Generators count: which bits an element gets depends on its place in the flat array.
        row_BxL = jnp.arange(B, dtype=jnp.uint32).reshape(B, *([1] * len(L)))
        if _is_threefry(self.key):
            flat_TxD = _bits(self.key, (math.prod(shape[:-1]), D))
            return flat_TxD[self._place(row_BxL, L)]
        # JAX maps rbg over keys by drawing from the first one alone, so its generator (Philox
        # 4x32-10 on CPUs and GPUs) is computed here.
        key_Bx4, row_B = fold_in_by_rows(self.key, B)
        row_BxL = self._place(row_B.reshape(row_BxL.shape), L)
        key_BxLx4 = jax.random.key_data(key_Bx4).reshape(*row_BxL.shape[:1], *([1] * len(L)), 4)
        bits = lax.platform_dependent(
            key_BxLx4,
            row_BxL,
            cpu=functools.partial(_philox_bits, width=D, halves=2),
            default=functools.partial(_philox_bits, width=D, halves=1),
        )
        return split_rows(bits)

    def _place(self, row_BxL: Array, L: list[int]) -> Array:
        """The place of each vector among those of the batch of its own width, uint32."""
        if not L:
            return row_BxL
        return row_BxL * self.width_B[:, None] + jnp.arange(L[0], dtype=jnp.uint32)


def _philox_bits(key: Array, row: Array, width: int, halves: int) -> Array:
    """The uint16 [..., width] that rbg draws for rows of an array [rows, width].

    Args:
      key: bits of keys of rbg, uint32 [..., 4] or broadcast to it.
      row: uint32 [...].
      width: a multiple of `LANES`.
      halves: 2 if both halves of a word are used, as `_bits_on_cpu` does; 1 if only the lower one.
    """
    blocks = width // (4 * halves)
    block = row[..., None] * jnp.uint32(blocks) + jnp.arange(blocks, dtype=jnp.uint32)
    words = jnp.stack(_philox(key[..., None, :], block), axis=-1)
    if halves == 1:
        return words.astype(jnp.uint16).reshape(*row.shape, width)
    return lax.bitcast_convert_type(words, jnp.uint16).reshape(*row.shape, width)


def _philox(key: Array, block: Array) -> tuple[Array, ...]:
    """Four words of Philox 4x32-10 (Salmon et al. 2011) as XLA's RngBitGenerator draws them.

    The state of 128 bits counts from (key[2], key[3], key[0], key[1]) on, lowest word first; the
    generator's own key is (key[0], key[1]).
    """
    k0, k1, low, high = (key[..., index] for index in range(4))
    zero = jnp.zeros((), jnp.uint32)
    x0 = low + block
    carry = (x0 < block).astype(jnp.uint32)
    x1 = high + carry
    carry = jnp.where((x1 == 0) & (carry == 1), jnp.uint32(1), zero)
    x2 = k0 + carry
    x3 = k1 + jnp.where((x2 == 0) & (carry == 1), jnp.uint32(1), zero)
    for _ in range(10):
        high0, low0 = _multiply(x0, 0xD2511F53)
        high1, low1 = _multiply(x2, 0xCD9E8D57)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + jnp.uint32(0x9E3779B9), k1 + jnp.uint32(0xBB67AE85)
    return x0, x1, x2, x3


def _multiply(x: Array, constant: int) -> tuple[Array, Array]:
    """The upper and the lower word of a product of uint32."""
    # By halves: JAX has no 64 bits here, and XLA cannot split `lax.mulhi` over devices.
    low, high = jnp.uint32(constant & 0xFFFF), jnp.uint32(constant >> 16)
    x_low, x_high = x & jnp.uint32(0xFFFF), x >> 16
    cross, crossed = x_low * high, x_high * low
    middle = (x_low * low >> 16) + (cross & jnp.uint32(0xFFFF)) + (crossed & jnp.uint32(0xFFFF))
    upper = x_high * high + (cross >> 16) + (crossed >> 16) + (middle >> 16)
    return upper, x * jnp.uint32(constant)


Key = Array | OwnWidthKey
"""A random key of dropout."""


def dropout(key: Key | None, x: Array, rate: float) -> Array:
    """Zeroes elements with probability `rate` and rescales the rest; the identity without a key.

    With a key of the generator rbg each device draws the bits of its own rows, so which elements
    are dropped depends on how rows are split over devices.
    """
    if key is None or rate == 0.0:
        return x
    bits = key.bits(x.shape) if isinstance(key, OwnWidthKey) else random_bits(key, x.shape)
    # Sixteen random bits are enough: they meet the probability to within 1/131072.
    kept = bits >= jnp.uint16(round(rate * 65536))
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


def split_key(key: Key | None, count: int) -> Sequence[Any]:
    """Splits a random key; without a key, `count` times None."""
    keys = stacked_keys(key, count)
    return [jax.tree.map(lambda leaf: leaf[index], keys) for index in range(count)]  # noqa: B023


def stacked_keys(key: Key | None, count: int) -> Any:
    """The keys of `split_key` on a first axis."""
    if isinstance(key, OwnWidthKey):
        width = jnp.broadcast_to(key.width_B, (count, *key.width_B.shape))
        return OwnWidthKey(jax.random.split(key.key, count), width)
    return None if key is None else jax.random.split(key, count)
