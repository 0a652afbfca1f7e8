"""A recipe applied to a model in one go, and what comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tlc_jax.compression.prune import Masks, join_masks, magnitude_masks, zero_pruned
from tlc_jax.compression.quantize import QuantizedTensor, dequantize_leaf, quantize
from tlc_jax.compression.recipe import Prune, Quantize, Recipe
from tlc_jax.core.params import drain, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed model, dense ones included.

    Attributes:
      params: parameter tree, float32 on the host: the values that the compressed form stands for. Evaluate these.
      quantized: path -> quantised tensor, of the leaves that have one.
      masks: the leaves that lost weights, as bool arrays on the host, True where a weight is kept.
    """

    params: dict[str, Any]
    quantized: dict[str, QuantizedTensor]
    masks: dict[str, Any]


def compress_params(
    params: dict[str, Any], recipe: Recipe, masks: Masks | None = None, consume: bool = False
) -> Compressed:
    """Applies a recipe's pruning and quantisation in one go, in their order, without any training.

    A matrix that is pruned after it was quantised keeps its grid. Later quantisations leave alone what is quantised.

    Args:
      params: parameter tree.
      recipe: what to do. Removing structures and finetuning are others' work and left out here.
      masks: what is pruned already.
      consume: empty `params` on the way, so that a leaf is freed as soon as what replaces it is there.

    Raises:
      InputError: an operation selects nothing, or a matrix does not divide into its blocks or groups.
    """
    masks = dict(masks or {})
    quantized: dict[str, QuantizedTensor] = {}
    values: dict[str, Any] = drain(params) if consume else flatten(params)
    _zero(values, masks)
    for operation in recipe.operations:
        if isinstance(operation, Prune):
            pruned = magnitude_masks(unflatten(values), operation)
            masks = join_masks(masks, pruned)
            _zero(values, pruned)
            quantized = _with_masks(quantized, masks)
        elif isinstance(operation, Quantize):
            rest = {path: leaf for path, leaf in values.items() if path not in quantized}
            for path, tensor in quantize(rest, operation, masks):
                quantized[path] = tensor
                values[path] = dequantize_leaf(tensor)
    kept = {path: np.asarray(mask) for path, mask in flatten(masks).items()}
    kept = {path: mask for path, mask in kept.items() if not mask.all()}
    quantized = _with_masks(quantized, unflatten(kept))
    for path, leaf in values.items():
        values[path] = np.asarray(jax.device_get(leaf), np.float32)
    return Compressed(unflatten(values), quantized, unflatten(kept))


def _zero(values: dict[str, Any], masks: Masks) -> None:
    """Zeroes what masks prune, one leaf after the other."""
    for path, mask in flatten(masks).items():
        values[path] = zero_pruned(values[path], mask)


def _with_masks(
    quantized: Mapping[str, QuantizedTensor], masks: Masks
) -> dict[str, QuantizedTensor]:
    kept = flatten(masks)
    return {
        path: dataclasses.replace(tensor, kept=None if path not in kept else np.asarray(kept[path]))
        for path, tensor in quantized.items()
    }
