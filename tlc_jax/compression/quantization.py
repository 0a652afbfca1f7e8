"""Uniform quantisation of weights, leaf by leaf. The only module that calls AQT.

Codes are found on the device where the weights lie. Values are computed from codes in numpy alone, one rounding per
operation: XLA may fuse a product and a sum, and an artifact must give back to the bit what was evaluated.

Kernels [L, in, out] have scales [L, 1, out] per channel or [L, 1, 1] per tensor, embeddings [rows, width] have
[rows, 1] or [1, 1]. Biases and normalisation stay float32.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from aqt.jax.v2 import aqt_quantizer

from tlc_jax.compression.recipe import Quantize
from tlc_jax.compression.scope import Params, compressible, output_axis
from tlc_jax.selectors import flatten, unflatten


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """A weight matrix, or a stack of them, as small integers, on the host.

    Its values are scale x code (`zero` is None: AQT's symmetric scheme), or scale x code + zero (paper 1's scheme), and
    0.0 where `kept` is False.

    Attributes:
      codes: AQT: int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1]. Minimum to maximum: uint8 in [0, 2^bits - 1].
      scale: float32, broadcasts against codes.
      zero: float32, the shape of `scale`: the value of code 0; or None.
      bits: bits of a code.
      kept: bool, False where a weight was pruned; None where none was.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    bits: int
    kept: np.ndarray | None = None

    @property
    def lowest(self) -> int:
        """The least code there may be."""
        return lowest_code(self.bits, symmetric=self.zero is None)


def lowest_code(bits: int, symmetric: bool) -> int:
    return 1 - 2 ** (bits - 1) if symmetric else 0


def quantize_leaf(w: Any, bits: int, axes: tuple[int, ...], scheme: str, kept: Any = None) -> QuantizedTensor:
    """Quantises one leaf.

    Args:
      w: float32 weights of any shape, pruned ones zero.
      bits: 2 to 8.
      axes: axes along which weights share a scale.
      scheme: "aqt" or "minmax".
      kept: bool mask of w's shape, False where pruned; None: nothing is.

    With "aqt" a pruned zero has code 0. With "minmax" zero is not on the grid: the range is that of the kept weights,
    and `kept` restores zeros. Channels without any spread stay finite in both.
    """
    zero = None
    if scheme == "aqt":
        codes, scale = _aqt(w, bits, axes)
    else:
        scale, zero = _minmax_grid(w, bits, axes, kept)
        codes = _minmax_codes(w, zero, scale, 2**bits - 1, kept)
    return QuantizedTensor(np.asarray(codes), np.asarray(scale), zero, bits, None if kept is None else np.asarray(kept))


def dequantize_leaf(q: QuantizedTensor) -> np.ndarray:
    """The float32 values of a quantised leaf; zeros have no sign."""
    values = q.codes.astype(np.float32)
    values *= q.scale
    if q.zero is not None:
        values += q.zero
    if q.kept is not None:
        np.copyto(values, 0, where=~q.kept)
    return values


def quantize(
    params: Params, how: Quantize, masks: Mapping[str, Any] | None = None
) -> tuple[dict[str, QuantizedTensor], dict[str, Any]]:
    """Quantises the matrices in scope of a parameter tree.

    Returns:
      path -> quantised tensor, and path -> leaf for everything that stays float32.
    """
    kept = flatten(masks or {})
    scope = compressible(params, how.embeddings)
    quantized: dict[str, QuantizedTensor] = {}
    remaining: dict[str, Any] = {}
    for path, leaf in flatten(params).items():
        if scope[path]:
            axes = _shared_axes(path, leaf.ndim, how.per)
            quantized[path] = quantize_leaf(leaf, how.bits, axes, how.scheme, kept.get(path))
        else:
            remaining[path] = leaf
    return quantized, remaining


def dequantize(quantized: Mapping[str, QuantizedTensor], remaining: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter tree of what `quantize` returned: float32 arrays on the host."""
    values = {path: dequantize_leaf(tensor) for path, tensor in quantized.items()}
    values |= {path: np.asarray(leaf, np.float32) for path, leaf in remaining.items()}
    return unflatten(dict(sorted(values.items())))


def _shared_axes(path: str, rank: int, per: str) -> tuple[int, ...]:
    """The axes of one matrix along which weights share a scale; layers of a stack never do."""
    matrix = (rank - 2, rank - 1)
    return matrix if per == "tensor" else tuple(axis for axis in matrix if axis != rank + output_axis(path))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _aqt(w: jax.Array, bits: int, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    quantized, _ = aqt_quantizer.quantizer_make(bits).quant(w, calibration_axes=axes)
    return quantized.qvalue.astype(jnp.int8), quantized.scale[0]


def _minmax_grid(w: Any, bits: int, axes: tuple[int, ...], kept: Any) -> tuple[np.ndarray, np.ndarray]:
    """Paper 1's grid: D = (maximum - minimum) / (2^bits - 1), and q_0 the minimum.

    Divided in numpy: XLA would multiply by an inexact reciprocal of the constant.
    """
    low, high = (np.asarray(bound) for bound in _bounds(w, axes, kept))
    low, high = (np.where(np.isfinite(bound), bound, np.float32(0)) for bound in (low, high))  # nothing kept: 0, 0
    return (high - low) / np.float32(2**bits - 1), low


@functools.partial(jax.jit, static_argnums=1)
def _bounds(w: jax.Array, axes: tuple[int, ...], kept: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    low = jnp.min(w, axes, keepdims=True, where=kept, initial=jnp.inf)
    high = jnp.max(w, axes, keepdims=True, where=kept, initial=-jnp.inf)
    return low, high


@jax.jit
def _minmax_codes(w: jax.Array, low: jax.Array, scale: jax.Array, highest: int, kept: jax.Array | None) -> jax.Array:
    """Paper 1: round((W - q_0) / D). The range is never narrowed, so the paper's clamp of W itself changes nothing."""
    codes = jnp.round((w - low) / jnp.where(scale > 0, scale, 1))  # what becomes of NaN as an integer is undefined
    codes = jnp.clip(codes, 0, highest).astype(jnp.uint8)
    return codes if kept is None else jnp.where(kept, codes, 0)
