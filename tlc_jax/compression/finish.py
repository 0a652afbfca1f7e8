"""The end of every compression: quantise, pack, read back, evaluate what was read back, and measure its size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.compression.apply import Compressed, compress_params
from tlc_jax.compression.artifact import load_artifact, save_artifact
from tlc_jax.compression.prune import sparsity
from tlc_jax.compression.recipe import FLOAT_BITS, Recipe
from tlc_jax.compression.size import directory_bytes, measure
from tlc_jax.core import distributed as processes
from tlc_jax.core.mesh import describe_parameters
from tlc_jax.core.params import flatten
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Params
from tlc_jax.runs.saved_model import ARTIFACT
from tlc_jax.training.checkpoint import save_params


def finish(
    params: Params,
    recipe: Recipe,
    masks: Mapping[str, Any],
    meta: dict[str, Any],
    tokenizer: Tokenizer,
    workdir: Path,
    evaluate: Callable[[Params, bool], dict[str, Any]],
) -> dict[str, Any]:
    """Writes artifact/ and compressed/ into the workdir.

    Args:
      params: trained, and pruned already where `masks` say so. The tree is emptied, so that it can be freed.
      recipe: what is left to do, without training.
      masks: what is pruned.
      meta: what checkpoints say about the model, with the whole recipe.
      tokenizer: packed beside the model.
      workdir: the run's.
      evaluate: (parameters, whether training is over) -> numbers.

    Returns:
      the numbers of the model as the artifact holds it, its sparsity, bits and sizes.
    """
    path = workdir / ARTIFACT
    numbers = _pack(
        compress_params(params, recipe, masks, consume=True), path, meta, tokenizer, workdir
    )
    packed = jax.tree.map(jnp.asarray, load_artifact(path).params)
    saved = save_params(workdir / "compressed", 0, packed, meta)
    return {**numbers, "bytes_checkpoint": directory_bytes(saved), **evaluate(packed, True)}


def _pack(
    model: Compressed, path: Path, meta: dict[str, Any], tokenizer: Tokenizer, workdir: Path
) -> dict[str, Any]:
    """Writes the artifact, with its tokenizer and a table; returns numbers of the model."""
    if processes.first():
        path.parent.mkdir(exist_ok=True)
        save_artifact(path, model, meta)
        for folder in (
            path.parent,
            workdir,
        ):  # an artifact is to be moved, a checkpoint to be read where it lies
            tokenizer.save(folder / tokenizer.file_name)
        (workdir / "compressed.txt").write_text(_table(model), encoding="utf-8")
    processes.barrier()
    zeros = sparsity(model.params, model.masks)
    return {
        "recipe": meta["recipe"],
        "bits": _bits(model),
        "sparsity": zeros.over_scope,
        "sparsity_all": zeros.over_all,
        **dataclasses.asdict(measure(model, artifact=path)),
    }


def _bits(model: Compressed) -> float:
    """Bits of a quantised weight, on average where they differ; 32 where none is quantised."""
    sizes = [(tensor.codes.size, tensor.bits) for tensor in model.quantized.values()]
    if not sizes:
        return FLOAT_BITS
    mean = sum(size * bits for size, bits in sizes) / sum(size for size, _ in sizes)
    return round(mean, 3) if mean % 1 else int(mean)


def _table(model: Compressed) -> str:
    """What compression did to each parameter."""
    masks = flatten(model.masks)
    bits = {path: tensor.bits for path, tensor in model.quantized.items()}
    return describe_parameters(
        model.params,
        pruned={path: f"{1 - np.asarray(mask).mean():.1%}" for path, mask in masks.items()},
        bits={path: bits.get(path, FLOAT_BITS) for path in flatten(model.params)},
    )
