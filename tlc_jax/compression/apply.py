"""Applies a recipe to a model in one go, packs the result, and evaluates the packed file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.compression import artifact
from tlc_jax.compression.artifact import Compressed, QuantizedTensor
from tlc_jax.compression.prune import Masks, join_masks, pruning_masks, zero_in_place
from tlc_jax.compression.quantize import quantize_leaf
from tlc_jax.compression.recipe import FLOAT_BITS, Prune, Quantize, Recipe, compressible
from tlc_jax.core import distributed
from tlc_jax.core.params import describe_parameters, drain, flatten, unflatten
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Params
from tlc_jax.training.checkpoint import save_params


def compress_params(
    params: dict[str, Any], recipe: Recipe, masks: Masks | None = None, consume: bool = False
) -> Compressed:
    """Applies a recipe's pruning and quantization in one go, in their order, without any training.

    A matrix that is pruned after it was quantized keeps its grid. Later quantizations skip matrices
    that are quantized already.

    Args:
      params: parameter tree.
      recipe: the operations. Removing structures and finetuning happen elsewhere and are skipped
        here.
      masks: masks of the leaves that are pruned already.
      consume: empty `params` on the way, so that a leaf is freed as soon as its replacement exists.

    Raises:
      InputError: an operation selects nothing, or a matrix does not divide into its blocks or
        groups.
    """
    masks = dict(masks or {})
    quantized: dict[str, QuantizedTensor] = {}
    values: dict[str, Any] = drain(params) if consume else flatten(params)
    zero_in_place(values, masks)
    for operation in recipe.operations:
        if isinstance(operation, Prune):
            pruned = pruning_masks(unflatten(values), operation)
            masks = join_masks(masks, pruned)
            zero_in_place(values, pruned)
        elif isinstance(operation, Quantize):
            flat_masks = flatten(masks)
            rest = dict.fromkeys(path for path in values if path not in quantized)
            for path in sorted(compressible(rest, operation.embeddings, operation.only)):
                if operation.bits == FLOAT_BITS:
                    continue
                # One leaf at a time: AQT holds several float32 copies of what it quantizes. Of a
                # leaf they fit beside the model, of a whole tree they would not.
                tensor = quantize_leaf(path, values[path], operation, flat_masks.get(path))
                quantized[path], values[path] = tensor, artifact.dequantize_leaf(tensor)
    # A mask that keeps everything would be stored, at one bit per weight, for nothing.
    hosted = {path: np.asarray(mask) for path, mask in flatten(masks).items()}
    kept = {path: mask for path, mask in hosted.items() if not mask.all()}
    # Weights may have been pruned after their matrix was quantized.
    for path, tensor in quantized.items():
        quantized[path] = dataclasses.replace(tensor, kept=kept.get(path))
    for path, leaf in values.items():
        values[path] = np.asarray(jax.device_get(leaf), np.float32)
    return Compressed(unflatten(values), quantized, unflatten(kept))


def write_compressed(
    params: Params,
    recipe: Recipe,
    masks: Mapping[str, Any],
    meta: dict[str, Any],
    tokenizer: Tokenizer,
    workdir: Path,
    measure: Callable[[Params], dict[str, Any]],
) -> dict[str, Any]:
    """Ends every compression: writes artifact/ and compressed/ into the workdir and evaluates the
    result.

    Args:
      params: trained parameters, pruned already where `masks` say so. The tree is emptied, so that
        it can be freed.
      recipe: the remaining operations, none of which trains.
      masks: masks of the leaves that are pruned already.
      meta: metadata of the model for checkpoints and artifacts, with the whole recipe.
      tokenizer: tokenizer, saved beside the model.
      workdir: directory of the run.
      measure: parameters -> metrics of the finished model.

    Returns:
      the metrics of the model as the artifact stores it, its sparsity, bits and sizes.
    """
    path = workdir / artifact.ARTIFACT
    model = compress_params(params, recipe, masks, consume=True)
    if distributed.first():
        artifact.save_artifact(path, model, meta)
        # Twice: an artifact is meant to be moved, and a checkpoint is read where it lies.
        for folder in (path.parent, workdir):
            tokenizer.save(folder / tokenizer.file_name)
        masks = flatten(model.masks)
        pruned = {path: f"{1 - mask.mean():.1%}" for path, mask in masks.items()}
        bits = {path: model.bits(path) for path in flatten(model.params)}
        table = describe_parameters(model.params, pruned=pruned, bits=bits)
        (workdir / "compressed.txt").write_text(table, encoding="utf-8")
    distributed.barrier()
    sizes = artifact.measure(model, path)
    del model  # before the same parameters are read once more
    # Evaluating the file itself makes sure that its numbers are true of it, to the bit.
    packed = jax.tree.map(jnp.asarray, artifact.load_artifact(path).params)
    saved = save_params(workdir / "compressed", 0, packed, meta)
    return {
        "recipe": meta["recipe"],
        **sizes,
        "bytes_checkpoint": artifact.directory_bytes(saved),
        **measure(packed),
    }
