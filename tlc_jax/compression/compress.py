"""A recipe applied to a model in one go, and what comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tlc_jax.compression.pruning import Masks, apply_masks, join_masks, magnitude_masks
from tlc_jax.compression.quantization import QuantizedTensor, dequantize_leaf, quantize
from tlc_jax.compression.recipe import Prune, Quantize, Recipe
from tlc_jax.compression.scope import Params
from tlc_jax.selectors import flatten, unflatten


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


def compress_params(params: Params, recipe: Recipe, masks: Masks | None = None) -> Compressed:
    """Applies a recipe's pruning and quantisation in one go, in their order, without any training.

    A matrix that is pruned after it was quantised keeps its grid. Later quantisations leave alone what is quantised.

    Args:
      params: parameter tree.
      recipe: what to do. Removing structures and finetuning are others' work and left out here.
      masks: what is pruned already.

    Raises:
      InputError: an operation selects nothing, or a matrix does not divide into its blocks or groups.
    """
    masks = dict(masks or {})
    quantized: dict[str, QuantizedTensor] = {}
    values: dict[str, Any] = flatten(apply_masks(params, masks))
    for operation in recipe.operations:
        if isinstance(operation, Prune):
            pruned = magnitude_masks(unflatten(values), operation)
            masks = join_masks(masks, pruned)
            values = flatten(apply_masks(unflatten(values), pruned))
            quantized = _with_masks(quantized, masks)
        elif isinstance(operation, Quantize):
            rest = {path: leaf for path, leaf in values.items() if path not in quantized}
            new, _ = quantize(unflatten(rest), operation, masks)
            values |= {path: dequantize_leaf(tensor) for path, tensor in new.items()}
            quantized |= new
    kept = {path: np.asarray(mask) for path, mask in flatten(masks).items()}
    kept = {path: mask for path, mask in kept.items() if not mask.all()}
    quantized = _with_masks(quantized, unflatten(kept))
    return Compressed(unflatten(jax.device_get(values)), quantized, unflatten(kept))


def _with_masks(quantized: Mapping[str, QuantizedTensor], masks: Masks) -> dict[str, QuantizedTensor]:
    kept = flatten(masks)
    return {
        path: dataclasses.replace(tensor, kept=None if path not in kept else np.asarray(kept[path]))
        for path, tensor in quantized.items()
    }
