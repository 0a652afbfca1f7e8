"""A recipe applied to a model in one go, and what comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tlc_jax.compression.pruning import Masks, apply_masks, magnitude_masks
from tlc_jax.compression.quantization import QuantizedTensor, dequantize, quantize
from tlc_jax.compression.recipe import FLOAT_BITS, Recipe
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
    """Prunes by `masks`, or else as the recipe says in one step, then quantises.

    Args:
      params: parameter tree.
      recipe: what to do.
      masks: masks that iterative pruning has arrived at; they take the place of the recipe's pruning.
    """
    if masks is None:
        masks = magnitude_masks(params, recipe.prune) if recipe.prune else {}
    masks = {path: np.asarray(mask) for path, mask in flatten(masks).items()}
    masks = unflatten({path: mask for path, mask in masks.items() if not mask.all()})
    params = apply_masks(params, masks)
    quantized: dict[str, QuantizedTensor] = {}
    remaining: Mapping[str, Any] = flatten(params)
    if recipe.quantize and recipe.quantize.bits != FLOAT_BITS:
        quantized, remaining = quantize(params, recipe.quantize, masks)
    return Compressed(dequantize(quantized, jax.device_get(dict(remaining))), quantized, masks)
