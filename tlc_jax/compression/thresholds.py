"""Finds the smallest weights of matrices, or of their parts, exactly and by counting alone.

Non-negative floats are ordered like their bits read as integers, so bisection over 31-bit patterns
finds the k-th smallest magnitude of any group of matrices. Each round counts weights where they
lie: nothing is sorted or gathered, and since counts are integers, every sharding gives the same
answer. The same bisection over positions decides among weights that have exactly the magnitude of
the threshold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Leaves = Sequence[jax.Array]  # each [matrices, rows, columns]
PATTERN_BITS = 31  # of a float32 without its sign


def keep_largest(leaves_MxRxC: Leaves, share: float, groups_K: np.ndarray) -> list[jax.Array]:
    """Masks that are False for the round(share x n) smallest magnitudes of each group of n weights,
    and for zeros.

    Equal magnitudes go in the order of leaf, matrix and position.

    Args:
      leaves_MxRxC: float32 stacks of matrices, sharded in any way over one set of devices.
      share: share of a group to remove, in [0, 1).
      groups_K: the group of each of the K matrices of all leaves, numbered from 0.
    """
    sizes_K = np.concatenate([np.full(len(leaf), leaf[0].size) for leaf in leaves_MxRxC])
    quotas_G = np.rint(share * _sum_by(groups_K, sizes_K)).astype(np.int64)
    ends = np.cumsum([len(leaf) for leaf in leaves_MxRxC])[:-1]

    def split(*values: np.ndarray) -> list[list[np.ndarray]]:
        return [np.split(values_K.astype(np.uint32), ends) for values_K in values]

    def count(thresholds_K: np.ndarray, limits_K: np.ndarray) -> np.ndarray:
        counted = _count(leaves_MxRxC, *split(thresholds_K, limits_K))
        return np.concatenate(counted).astype(np.int64)

    def count_by_group(thresholds_G: np.ndarray) -> np.ndarray:
        return _sum_by(groups_K, count(thresholds_G[groups_K], sizes_K))

    # The threshold is the pattern of the last weight to go: whatever is below it goes, and of its
    # equals just enough.
    thresholds_K = _bisect(count_by_group, quotas_G, PATTERN_BITS)[groups_K]
    below_K = count(thresholds_K, np.zeros_like(sizes_K))
    ties_K = count(thresholds_K, sizes_K) - below_K
    take_K = _share_out(quotas_G - _sum_by(groups_K, below_K), ties_K, groups_K)
    limits_K = np.where(take_K == ties_K, sizes_K, 0)
    # The second bisection is skipped in the usual case, in which no matrix loses only some of its
    # ties. Zeros need no limit: they are masked in any case.
    if ((take_K > 0) & (take_K < ties_K) & (thresholds_K > 0)).any():
        bits = int(sizes_K.max()).bit_length()
        limits_K = _bisect(lambda x_K: count(thresholds_K, x_K), below_K + take_K, bits)
    return _keep(leaves_MxRxC, *split(thresholds_K, limits_K))


@functools.partial(jax.jit, static_argnums=(1, 2))
def keep_largest_along(weights: jax.Array, count: int, axis: int) -> jax.Array:
    """A mask that is False for the `count` smallest magnitudes along an axis, first ones first, and
    for zeros.
    """
    patterns = _patterns(weights)
    threshold = _pattern_of_rank(patterns, count, (axis,), True)
    ties = patterns == threshold
    below = jnp.sum(patterns < threshold, axis, keepdims=True)
    smallest = (patterns < threshold) | (ties & (jnp.cumsum(ties, axis) <= count - below))
    return ~smallest & nonzero(weights)


def value_of_rank(
    weights: jax.Array, rank: jax.Array, axes: tuple[int, ...], where: jax.Array | bool
) -> jax.Array:
    """The rank-th smallest (from 1) of the weights along `axes` where `where` holds; axes are kept,
    with length 1.
    """
    bits = jax.lax.bitcast_convert_type(weights.astype(jnp.float32), jnp.uint32)
    sign = np.uint32(1 << PATTERN_BITS)
    # Read as integers, negative floats decrease as their magnitude grows: with their bits flipped,
    # all are in order.
    found = _pattern_of_rank(jnp.where(bits >= sign, ~bits, bits | sign), rank, axes, where)
    return jax.lax.bitcast_convert_type(jnp.where(found >= sign, found ^ sign, ~found), jnp.float32)


def _pattern_of_rank(
    patterns: jax.Array, rank: jax.Array | int, axes: tuple[int, ...], where: jax.Array | bool
) -> jax.Array:
    """The smallest 32-bit pattern that at least `rank` of those along `axes` do not exceed, bit by
    bit from the top.
    """
    shape = jax.eval_shape(lambda x: jnp.sum(x, axes, keepdims=True), patterns).shape

    def fix_bit(index: jax.Array, lower: jax.Array) -> jax.Array:
        bit = jnp.uint32(1) << (31 - index).astype(jnp.uint32)
        at_most = jnp.sum((patterns <= (lower | (bit - 1))) & where, axes, keepdims=True)
        return jnp.where(at_most >= rank, lower, lower | bit)

    return jax.lax.fori_loop(0, 32, fix_bit, jnp.zeros(shape, jnp.uint32))


def nonzero(weights: jax.Array) -> jax.Array:
    """Where weights are not zero. Subnormal numbers count as zero: most devices flush them, but
    NumPy does not.
    """
    return jnp.abs(weights) >= np.finfo(np.float32).tiny


def _bisect(count: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray, bits: int) -> np.ndarray:
    """The smallest x in [0, 2^bits) with count(x) >= wanted, for each element; `count` is
    monotone.
    """
    low, high = np.zeros_like(wanted), np.full_like(wanted, 2**bits - 1)
    for _ in range(bits):
        middle = (low + high) // 2
        enough = count(middle) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return high


def _share_out(remaining_G: np.ndarray, ties_K: np.ndarray, groups_K: np.ndarray) -> np.ndarray:
    """How many ties each matrix gives up, the first ones first, until its group has given up what
    remains.
    """
    take_K = np.zeros_like(ties_K)
    remaining_G = remaining_G.copy()
    for index, group in enumerate(groups_K):
        take_K[index] = min(ties_K[index], remaining_G[group])
        remaining_G[group] -= take_K[index]
    return take_K


def _patterns(weights: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(jnp.abs(weights.astype(jnp.float32)), jnp.uint32)


def _falls(matrix_RxC: jax.Array, threshold: jax.Array, limit: jax.Array) -> jax.Array:
    """Whether magnitudes are below the threshold, or equal it at positions before the limit."""
    patterns_RxC = _patterns(matrix_RxC)
    rows_RxC, columns_RxC = (
        jax.lax.broadcasted_iota(jnp.uint32, matrix_RxC.shape, axis) for axis in (0, 1)
    )
    before_RxC = rows_RxC * np.uint32(matrix_RxC.shape[1]) + columns_RxC < limit
    return (patterns_RxC < threshold) | ((patterns_RxC == threshold) & before_RxC)


@jax.jit
def _count(leaves: Leaves, thresholds: list[jax.Array], limits: list[jax.Array]) -> list[jax.Array]:
    """The number of weights of each matrix that fall."""

    def count(arguments: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.sum(_falls(*arguments), dtype=jnp.uint32)

    # Matrix by matrix: on CPUs XLA is several times slower at one reduction over the last two axes.
    return [
        jax.lax.map(count, arguments) for arguments in zip(leaves, thresholds, limits, strict=True)
    ]


@jax.jit
def _keep(leaves: Leaves, thresholds: list[jax.Array], limits: list[jax.Array]) -> list[jax.Array]:
    keep = jax.vmap(lambda matrix, *rest: ~_falls(matrix, *rest) & nonzero(matrix))
    return [keep(*arguments) for arguments in zip(leaves, thresholds, limits, strict=True)]


def _sum_by(groups_K: np.ndarray, values_K: np.ndarray) -> np.ndarray:
    # bincount adds float64, which is exact for counts below 2^53.
    return np.bincount(groups_K, values_K).astype(np.int64)
