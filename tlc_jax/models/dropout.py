"""Dropout: which elements are zeroed, from keys of one run or of several seeds that train together.

Random bits are drawn as they come, or as one of several seeds that train together would draw them
alone.

Shapes in names: B rows of a batch, L positions, D width, T rows of all positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from tlc_jax.core.mesh import draw_by_rows, fold_in_by_rows, row_range, split_rows

LANES = 8
"""Widths of layers must be multiples of this where dropout has an `OwnWidthKey`."""


def random_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16. With a key of rbg each device draws those of its own rows."""
    # The compiler divides threefry among devices by itself, and any mesh gets the same bits.
    if _is_threefry(key):
        first, rows = row_range(shape[0])
        bits = _bits(key, (rows, *shape[1:]))
        return bits if rows == shape[0] else lax.dynamic_slice_in_dim(bits, first, shape[0])
    return draw_by_rows(_bits, key, shape)


def _is_threefry(key: Array) -> bool:
    return jax.random.key_impl(key) == "threefry2x32"


def _bits(key: Array, shape: tuple[int, ...]) -> Array:
    return lax.platform_dependent(
        key,
        tpu=functools.partial(jax.random.bits, shape=shape, dtype=jnp.uint16),
        default=functools.partial(_halves, shape=shape),
    )


def _halves(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint16, as halves of uint32: XLA would draw a word for each and drop its upper half.

    On CPUs this is nine times as fast.
    """
    size = math.prod(shape)
    words = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    # Not a bitcast, which would keep XLA from comparing the bits in the kernel that makes them.
    halves = jnp.stack([words & jnp.uint32(0xFFFF), words >> 16], axis=-1).astype(jnp.uint16)
    return halves.reshape(-1)[:size].reshape(shape)


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
            first, rows = row_range(B)
            flat_TxD = _bits(self.key, (math.prod((rows, *L)), D))
            return flat_TxD[self._place(row_BxL + jnp.uint32(first), L)]
        # JAX maps rbg over keys by drawing from the first one alone, so its generator (Philox
        # 4x32-10 on CPUs and GPUs) is computed here.
        key_Bx4, row_B = fold_in_by_rows(self.key, B)
        row_BxL = self._place(row_B.reshape(row_BxL.shape), L)
        key_BxLx4 = jax.random.key_data(key_Bx4).reshape(*row_BxL.shape[:1], *([1] * len(L)), 4)
        return split_rows(_philox_bits(key_BxLx4, row_BxL, D))

    def _place(self, row_BxL: Array, L: list[int]) -> Array:
        """The place of each vector among those of the batch of its own width, uint32."""
        if not L:
            return row_BxL
        return row_BxL * self.width_B[:, None] + jnp.arange(L[0], dtype=jnp.uint32)


def _philox_bits(key: Array, row: Array, width: int) -> Array:
    """The uint16 [..., width] that rbg draws for rows of an array [rows, width].

    Args:
      key: bits of keys of rbg, uint32 [..., 4] or broadcast to it.
      row: uint32 [...].
      width: a multiple of `LANES`.
    """
    blocks = width // 8
    block = row[..., None] * jnp.uint32(blocks) + jnp.arange(blocks, dtype=jnp.uint32)
    words = jnp.stack(_philox(key[..., None, :], block), axis=-1)
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
