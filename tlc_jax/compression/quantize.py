"""Uniform quantization of weights, leaf by leaf. The only module that calls AQT.

Codes are found on the device where the weights lie. Values are computed from codes in NumPy alone
(`artifact.dequantize_leaf`): an artifact must give back to the bit what was evaluated.

Kernels [L, in, out] have scales [L, 1, out] per channel or [L, 1, 1] per tensor, embeddings [rows,
width] have [rows, 1] or [1, 1]. With groups of g inputs the axis of inputs is split in two, [.., in
/ g, g, ..], and scales have length 1 along the second: [L, in / g, 1, out] and [rows, width / g,
1]. Biases and normalization stay float32.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from aqt.jax.v2 import aqt_quantizer, calibration

from tlc_jax.compression.artifact import QuantizedTensor, dequantize_leaf
from tlc_jax.compression.recipe import FLOAT_BITS, Quantize, compressible, input_axis
from tlc_jax.compression.thresholds import nonzero, value_of_rank
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.core.text import one_line

# Shares of the full range that `range=mse` tries, the whole first: of equal errors the wider range
# wins.
CLIPPING = tuple(round(1 - 0.04 * step, 2) for step in range(20))


def quantize_leaf(path: str, w: Any, how: Quantize, kept: Any = None) -> QuantizedTensor:
    """Quantizes one leaf.

    Args:
      path: path of the leaf; it says which axes are inputs and outputs.
      w: float32 weights [.., rows, columns], pruned ones zero.
      how: the operation, whose `embeddings` and `only` are ignored here.
      kept: bool mask of w's shape, False where pruned; None where nothing is.

    With "aqt" a pruned zero has code 0. With "minmax" zero is not on the grid: the range is that of
    the kept weights, and `kept` restores zeros. Channels without any spread stay finite in both.

    Raises:
      InputError: its inputs do not divide into groups, or the scheme of a plug-in gives codes that
        an artifact cannot hold.
    """
    if (scheme := plugins.find("scheme", how.scheme, "recipe: ")) is not None:
        return _checked(path, w.shape, how, kept, scheme(path, w, how, kept))
    # A sum of squares depends on how a leaf is split over devices; on one device it is always the
    # same.
    w = jax.device_get(w) if how.range == "mse" else w
    grid = _Grid.of(path, w.shape, how)
    split = jnp.reshape(w, grid.shape)
    where = jnp.ones_like(split, bool) if kept is None else jnp.reshape(kept, grid.shape)
    low, high = grid.bounds(split, where)
    zero = None
    if how.scheme == "aqt":
        codes, scale = grid.aqt(split, high)
    else:
        low, high = (np.asarray(bound) for bound in (low, high))
        # Divided in NumPy: XLA would multiply by an inexact reciprocal of the constant.
        scale, zero = (high - low) / np.float32(2**how.bits - 1), low
        codes = _minmax_codes(split, where, zero, scale, 2**how.bits - 1)
    codes = np.asarray(codes).reshape(w.shape)
    kept = None if kept is None else np.asarray(kept)
    return QuantizedTensor(codes, np.asarray(scale), zero, how.bits, kept, grid.grouped)


def _checked(
    path: str, shape: tuple[int, ...], how: Quantize, kept: Any, q: Any
) -> QuantizedTensor:
    """What a plug-in made of a leaf, if an artifact gives it back to the bit."""

    def need(holds: object, message: str) -> None:
        if not holds:
            raise InputError(f"scheme={how.scheme}: {path}: {message}")

    need(isinstance(q, QuantizedTensor), f"not a QuantizedTensor, but {type(q).__name__}")
    need(q.bits == how.bits, f"{q.bits} bits, and the recipe says {how.bits}")
    half, kind = 2 ** (q.bits - 1), np.dtype(np.int8 if q.zero is None else np.uint8)
    lowest, highest = (1 - half, half - 1) if q.zero is None else (0, 2 * half - 1)
    codes = q.codes
    stored = isinstance(codes, np.ndarray) and codes.dtype == kind and codes.shape == shape
    need(stored, f"codes must be a NumPy array of {kind} and of shape {shape}")
    need(lowest <= codes.min() and codes.max() <= highest, f"codes beyond {lowest} to {highest}")
    for part in (q.scale, q.scale if q.zero is None else q.zero):
        plain = isinstance(part, np.ndarray) and part.dtype == np.float32
        need(plain, "scale and zero must be NumPy arrays of float32")
    try:
        values = dequantize_leaf(q)
    except (ValueError, IndexError, AttributeError) as error:
        need(False, f"scale and zero do not fit the codes ({one_line(error)})")
    need(np.isfinite(values).all(), "values are infinite or NaN")
    # An artifact packs arrays in the order of their bytes.
    return dataclasses.replace(
        q,
        codes=np.ascontiguousarray(q.codes),
        scale=np.ascontiguousarray(q.scale),
        zero=None if q.zero is None else np.ascontiguousarray(q.zero),
        kept=None if kept is None else np.asarray(kept),
    )


def round_weights(params: Mapping[str, Any], operations: Sequence[Quantize]) -> dict[str, Any]:
    """Weights rounded as by `quantize_leaf` up to float rounding, for use inside a jitted step.

    Gradients pass straight through the rounding (Bengio et al., 2013). Weights that are zero stay
    zero.
    """
    flat = flatten(params)
    done: set[str] = set()
    for how in operations:
        scope = compressible(params, how.embeddings, how.only)
        for path, w in flat.items():
            if path in scope and path not in done and how.bits != FLOAT_BITS:
                grid = _Grid.of(path, w.shape, how)
                split = jnp.reshape(w, grid.shape)
                # Weights that are zero count as pruned: they widen no range and stay zero.
                rounded = grid.rounded(split, nonzero(split), *grid.bounds(split, nonzero(split)))
                # The value of the sum is the rounded weight, and its gradient is that of `w`.
                flat[path] = w + jax.lax.stop_gradient(jnp.reshape(rounded, w.shape) - w)
                done.add(path)
    return unflatten(flat)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """How a leaf is split to be quantized. Hashable, so that jitted methods can take it as static.

    Attributes:
      how: the operation.
      shape: shape of the leaf, its inputs split in groups where there are any.
      axes: axes along which weights share a scale.
      grouped: the axis that was split, or None.
    """

    how: Quantize
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    grouped: int | None = None

    @staticmethod
    def of(path: str, shape: tuple[int, ...], how: Quantize) -> _Grid:
        rank = len(shape)
        inputs = rank + input_axis(path)
        if how.per == "tensor":  # layers of a stack never share a scale
            return _Grid(how, shape, (rank - 2, rank - 1))
        if not how.group:
            return _Grid(how, shape, (inputs,))
        if shape[inputs] % how.group:
            raise InputError(
                f"recipe: {path} has {shape[inputs]} inputs, "
                f"which groups of {how.group} do not divide: "
                "choose another group=, or leave the matrix out with only="
            )
        split = (*shape[:inputs], shape[inputs] // how.group, how.group, *shape[inputs + 1 :])
        return _Grid(how, split, (inputs + 1,), inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def bounds(self, w: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The lowest and highest value of the grid (-bound and bound if symmetric); 0 and 0 where
        no weight is kept.
        """
        symmetric = self.how.scheme == "aqt"
        x = jnp.abs(w) if symmetric else w
        if self.how.percentile is None:
            low = jnp.min(x, self.axes, keepdims=True, where=where, initial=jnp.inf)
            high = jnp.max(x, self.axes, keepdims=True, where=where, initial=-jnp.inf)
        else:
            # The least range of magnitudes, or that with equal tails, that holds this share.
            share = self.how.percentile / 100
            shares = (share, share) if symmetric else ((1 - share) / 2, (1 + share) / 2)
            count = jnp.sum(where, self.axes, keepdims=True)
            ranks = [jnp.maximum(jnp.ceil(jnp.float32(one) * count), 1) for one in shares]
            low, high = (value_of_rank(x, rank, self.axes, where) for rank in ranks)
        low, high = (jnp.where(jnp.isfinite(bound), bound, 0) for bound in (low, high))
        low = -high if symmetric else low
        return self._least_squares(w, where, low, high) if self.how.range == "mse" else (low, high)

    def _least_squares(
        self, w: jax.Array, where: jax.Array, low: jax.Array, high: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The part of a range, about its middle, that leaves the least sum of squared errors."""
        middle, half = (low + high) / 2, (high - low) / 2

        def better(best: tuple[jax.Array, jax.Array], share: jax.Array) -> Any:
            error, chosen = best
            rounded = self.rounded(w, where, middle - share * half, middle + share * half)
            tried = jnp.sum(jnp.square(rounded - w), self.axes, keepdims=True, where=where)
            return (jnp.minimum(tried, error), jnp.where(tried < error, share, chosen)), None

        start = (jnp.full(low.shape, jnp.inf), jnp.ones(low.shape))
        (_, share), _ = jax.lax.scan(better, start, jnp.array(CLIPPING, jnp.float32))
        return middle - share * half, middle + share * half

    def rounded(self, w: jax.Array, kept: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        """The values of the grid that weights are rounded to."""
        if self.how.scheme == "aqt":
            codes, scale = self.aqt(w, high)
            return codes * scale
        highest = 2**self.how.bits - 1
        scale = (high - low) / highest
        return jnp.where(kept, _minmax_codes(w, kept, low, scale, highest) * scale + low, 0)

    @functools.partial(jax.jit, static_argnums=0)
    def aqt(self, w: jax.Array, bound: jax.Array) -> tuple[jax.Array, jax.Array]:
        """AQT's codes and scales with the outer edge of the last bucket at `bound`; larger weights
        are clipped.
        """
        quantizer = aqt_quantizer.quantizer_make(self.how.bits, initialize_calibration=False)
        # A bound of zero (an empty channel) would make the scale, and so every value, NaN.
        quantizer.calibration = functools.partial(
            calibration.ConstantCalibration, bound=jnp.where(bound == 0, 1, bound)
        )
        quantizer.init_calibration()
        quantized, _ = quantizer.quant(w, calibration_axes=self.axes)
        return quantized.qvalue.astype(jnp.int8), quantized.scale[0]


@jax.jit
def _minmax_codes(
    w: jax.Array, kept: jax.Array, low: jax.Array, scale: jax.Array, highest: int
) -> jax.Array:
    """Paper 1: round((W - q_0) / D), with W clamped to the range."""
    # Without the inner `where` a channel without spread would give NaN, whose value as an integer
    # is undefined.
    codes = jnp.round((w - low) / jnp.where(scale > 0, scale, 1))
    return jnp.where(kept, jnp.clip(codes, 0, highest).astype(jnp.uint8), 0)
