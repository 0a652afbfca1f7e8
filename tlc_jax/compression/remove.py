"""Structured pruning: takes heads, neurons and layers out of a model, which becomes a smaller one
of the same kind.

The heads and neurons of least magnitude are removed. The weights on both sides of one decide its
effect on the residual stream, so its score is the product of two norms: for a head, of its value
columns and its output rows; for a neuron, of its column in the first matrix and its row in the
second.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.compression.recipe import Remove
from tlc_jax.config import Model
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten

# The blocks that have heads or neurons, and the dense layers of a block: those that compute the
# features of its units, then the one that reads them. The last two are scored.
_UNITS = {
    "heads": (
        r"(.*blocks/(?:attention|cross)/)output/kernel",
        ("query", "key", "value", "output"),
    ),
    "neurons": (r"(.*blocks/ffn/)down/kernel", ("up", "down")),
}


def remove_structures(
    params: Mapping[str, Any], model: Model, removes: Sequence[Remove]
) -> tuple[dict[str, Any], Model]:
    """The smaller model and its parameters.

    Args:
      params: parameter tree, layers stacked on the first axis.
      model: dimensions of the model.
      removes: the operations, in their order. Every layer loses the same number of heads or
        neurons, its own least ones.

    Raises:
      InputError: a share is too small to remove anything.
    """
    flat = flatten(params)
    for remove in removes:
        filled = model.filled()
        counts = {"layers": model.layers, "heads": filled.heads, "neurons": filled.ffn}
        count = counts[remove.of]
        keep = max(1, round(count * (1 - remove.share)))
        if keep == count:
            raise InputError(
                f"recipe: remove:{remove.share},of={remove.of} takes none of {count}: "
                "set a larger share"
            )
        if remove.of == "layers":
            chosen_K = np.arange(keep)
            if remove.which == "spread":  # the first and the last stay
                chosen_K = np.round(np.linspace(0, count - 1, keep)).astype(int)
            for path, leaf in flat.items():
                # Layers that share parameters are a stack of one: they lose only repetitions.
                if re.match(r"(.*/)?blocks/", path) and len(leaf) == count:
                    flat[path] = jnp.asarray(leaf)[chosen_K]
            model = dataclasses.replace(model, layers=keep)
            continue
        pattern, names = _UNITS[remove.of]
        for block in [found[1] for path in flat if (found := re.fullmatch(pattern, path))]:
            flat |= _without_units(flat, [block + name for name in names], count, keep)
        if remove.of == "heads":
            # Without its own entry, the size of a head would follow from their number.
            model = dataclasses.replace(model, heads=keep, head_size=filled.head_size)
        else:
            model = dataclasses.replace(model, ffn=keep)
    return unflatten(flat), model


def _without_units(
    flat: Mapping[str, Any], names: Sequence[str], units: int, keep: int
) -> dict[str, jax.Array]:
    """The changed leaves of one stack of blocks that lose heads or neurons.

    Args:
      flat: path -> leaf of the whole model.
      names: paths of the dense layers of a block, in the order of `_UNITS`.
      units: number of heads or neurons, each a run of consecutive features.
      keep: the number that stays.
    """
    *writers, reader = names
    axes = {f"{reader}/kernel": 1}
    for name in writers:
        axes |= {f"{name}/kernel": 2, f"{name}/bias": 1}
    split = {}
    for path, axis in axes.items():
        leaf = jnp.asarray(flat[path])
        split[path] = leaf.reshape(*leaf.shape[:axis], units, -1, *leaf.shape[axis + 1 :])
    written_NxU = _norm(split[f"{writers[-1]}/kernel"], (1, 3))
    score_NxU = written_NxU * _norm(split[f"{reader}/kernel"], (2, 3))
    # Of equal scores the first stay, and all stay in their old order.
    chosen_NxK = np.sort(np.argsort(-score_NxU, axis=1, kind="stable")[:, :keep], axis=1)
    changed = {}
    for path, axis in axes.items():
        shape = [1] * split[path].ndim
        shape[0], shape[axis] = chosen_NxK.shape
        left = jnp.take_along_axis(split[path], jnp.asarray(chosen_NxK).reshape(shape), axis)
        old = flat[path].shape
        changed[path] = left.reshape(*old[:axis], -1, *old[axis + 1 :])
    return changed


def _norm(x: jax.Array, axes: tuple[int, ...]) -> np.ndarray:
    """Frobenius norms over `axes`, in float64 on the host, so that every sharding ranks them
    alike.
    """
    inner = tuple(axis - 1 for axis in axes)
    # Layer by layer, because float64 squares of a whole stack would take several times its memory.
    layers = [np.sum(np.square(layer, dtype=np.float64), inner) for layer in np.asarray(x)]
    return np.sqrt(np.stack(layers))
