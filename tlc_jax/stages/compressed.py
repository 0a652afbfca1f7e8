"""The end of every compression: quantise, pack, read back, evaluate what was read back, and measure its size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax import processes
from tlc_jax.compression.artifact import load_artifact, save_artifact
from tlc_jax.compression.compress import Compressed, compress_params
from tlc_jax.compression.pruning import sparsity
from tlc_jax.compression.recipe import FLOAT_BITS, Recipe, format_recipe
from tlc_jax.compression.size import measure
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Params
from tlc_jax.selectors import flatten
from tlc_jax.stages.starting_point import ARTIFACT
from tlc_jax.training.checkpoint import save_params
from tlc_jax.training.mesh import describe_parameters


def finish(
    params: Params,
    recipe: Recipe,
    masks: Mapping[str, Any] | None,
    meta: dict[str, Any],
    tokenizer: Tokenizer,
    workdir: Path,
    evaluate: Callable[[Params, bool], dict[str, Any]],
) -> dict[str, Any]:
    """Writes artifact/ and compressed/ into the workdir.

    Args:
      params: trained, and pruned already where `masks` are given.
      recipe: its quantisation is applied here; so is its pruning, where there are no masks.
      masks: what is pruned.
      meta: what checkpoints say about the model.
      tokenizer: packed beside the model.
      workdir: the run's.
      evaluate: (parameters, whether training is over) -> numbers.

    Returns:
      the numbers of the model as the artifact holds it, its sparsity, bits and sizes.
    """
    meta = {**meta, "recipe": format_recipe(recipe)}
    compressed = compress_params(params, recipe, masks)
    path = workdir / ARTIFACT
    if processes.first():
        path.parent.mkdir(exist_ok=True)
        save_artifact(path, compressed, meta)
        for folder in (path.parent, workdir):  # an artifact is to be moved, a checkpoint to be read where it lies
            tokenizer.save(folder / tokenizer.file_name)
        (workdir / "compressed.txt").write_text(_table(compressed), encoding="utf-8")
    processes.barrier()
    packed = jax.tree.map(jnp.asarray, load_artifact(path).params)
    saved = save_params(workdir / "compressed", 0, packed, meta)
    zeros = sparsity(compressed.params, compressed.masks)
    return {
        "recipe": meta["recipe"],
        "bits": recipe.bits,
        "sparsity": zeros.over_scope,
        "sparsity_all": zeros.over_all,
        **dataclasses.asdict(measure(compressed, artifact=path, checkpoint=saved)),
        **evaluate(packed, True),
    }


def _table(model: Compressed) -> str:
    """What compression did to each parameter."""
    masks = flatten(model.masks)
    bits = {path: tensor.bits for path, tensor in model.quantized.items()}
    return describe_parameters(
        model.params,
        pruned={path: f"{1 - np.asarray(mask).mean():.1%}" for path, mask in masks.items()},
        bits={path: bits.get(path, FLOAT_BITS) for path in flatten(model.params)},
    )
