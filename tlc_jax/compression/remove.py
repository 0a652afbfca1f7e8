"""Structured pruning: heads, neurons and layers taken out of a model, which is then a smaller one of the same kind.

What goes is what contributes least by magnitude. A head or a neuron reaches the residual stream through what it reads
and what it writes, so its score is the product of the norms of both: of a head, its value columns and output rows; of a
neuron, its column of the first matrix and its row of the second.
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

ATTENTION = re.compile(r"(.*blocks/(?:attention|cross))/output/kernel")
FEED_FORWARD = re.compile(r"(.*blocks/ffn)/down/kernel")


def remove_structures(
    params: Mapping[str, Any], model: Model, remove: Remove
) -> tuple[dict[str, Any], Model]:
    """The smaller model and its parameters.

    Args:
      params: parameter tree, layers stacked on the first axis.
      model: its dimensions.
      remove: what to take out. Heads and neurons: as many from every layer, those of least magnitude in that layer.

    Raises:
      InputError: there is too little to take anything from.
    """
    flat = flatten(params)
    if remove.of == "layers":
        return _without_layers(flat, model, remove)
    if remove.of == "heads":
        widths = model.filled()
        keep = _stay(widths.heads, remove)
        for block in _blocks(ATTENTION, flat):
            flat |= _without_heads(flat, block, widths.heads, widths.head_size, keep)
        return unflatten(flat), dataclasses.replace(model, heads=keep, head_size=widths.head_size)
    keep = _stay(model.filled().ffn, remove)
    for block in _blocks(FEED_FORWARD, flat):
        flat |= _without_neurons(flat, block, keep)
    return unflatten(flat), dataclasses.replace(model, ffn=keep)


def remove_all(
    params: dict[str, Any], model: Model, removes: Sequence[Remove]
) -> tuple[dict[str, Any], Model]:
    """`remove_structures`, one after the other."""
    for remove in removes:
        params, model = remove_structures(params, model, remove)
    return params, model


def _stay(count: int, remove: Remove) -> int:
    keep = max(1, round(count * (1 - remove.share)))
    if keep == count:
        raise InputError(
            f"recipe: remove:{remove.share},of={remove.of} takes none of {count}: set a larger share"
        )
    return keep


def _blocks(pattern: re.Pattern[str], flat: Mapping[str, Any]) -> list[str]:
    return [found[1] for path in flat if (found := pattern.fullmatch(path))]


def _without_heads(
    flat: Mapping[str, Any], block: str, heads: int, size: int, keep: int
) -> dict[str, Any]:
    """The changed leaves of one stack of attention layers."""

    def by_head(leaf: Any, axis: int) -> jax.Array:
        leaf = jnp.asarray(leaf)
        axis %= leaf.ndim
        return leaf.reshape(*leaf.shape[:axis], heads, size, *leaf.shape[axis + 1 :])

    value_NxDxHxE = by_head(flat[f"{block}/value/kernel"], -1)
    output_NxHxExD = by_head(flat[f"{block}/output/kernel"], -2)
    score_NxH = _norm(value_NxDxHxE, (1, 3)) * _norm(output_NxHxExD, (2, 3))
    chosen_NxK = _largest(score_NxH, keep)

    def cut(leaf: Any, axis: int) -> jax.Array:
        whole = jnp.asarray(leaf)
        axis %= whole.ndim
        kept = _take(by_head(whole, axis), chosen_NxK, axis)
        return kept.reshape(*whole.shape[:axis], keep * size, *whole.shape[axis + 1 :])

    changed = {f"{block}/output/kernel": cut(flat[f"{block}/output/kernel"], -2)}
    for name in ("query", "key", "value"):
        changed |= {
            f"{block}/{name}/{leaf}": cut(flat[f"{block}/{name}/{leaf}"], -1)
            for leaf in ("kernel", "bias")
        }
    return changed


def _without_neurons(flat: Mapping[str, Any], block: str, keep: int) -> dict[str, Any]:
    up_NxDxF, down_NxFxD = (jnp.asarray(flat[f"{block}/{name}/kernel"]) for name in ("up", "down"))
    chosen_NxK = _largest(_norm(up_NxDxF, (1,)) * _norm(down_NxFxD, (2,)), keep)
    bias_NxF = jnp.asarray(flat[f"{block}/up/bias"])
    return {
        f"{block}/up/kernel": _take(up_NxDxF, chosen_NxK, 2),
        f"{block}/up/bias": _take(bias_NxF, chosen_NxK, 1),
        f"{block}/down/kernel": _take(down_NxFxD, chosen_NxK, 1),
    }


def _without_layers(
    flat: dict[str, Any], model: Model, remove: Remove
) -> tuple[dict[str, Any], Model]:
    """Layers that share their parameters lose nothing but repetitions."""
    keep = _stay(model.layers, remove)
    if remove.which == "top":
        chosen_K = np.arange(keep)
    else:  # the first and the last stay
        chosen_K = (
            np.round(np.linspace(0, model.layers - 1, keep)).astype(int)
            if keep > 1
            else np.zeros(1, int)
        )
    for path, leaf in flat.items():
        if re.match(r"(.*/)?blocks/", path) and len(leaf) == model.layers:
            flat[path] = jnp.asarray(leaf)[chosen_K]
    return unflatten(flat), dataclasses.replace(model, layers=keep)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> np.ndarray:
    """Frobenius norms over `axes`, in float64 on the host, so that every sharding ranks them alike."""
    host = np.asarray(x)
    return np.sqrt(
        np.stack(
            [
                np.sum(np.square(layer, dtype=np.float64), tuple(a - 1 for a in axes))
                for layer in host
            ]
        )
    )


def _largest(score_NxM: np.ndarray, keep: int) -> np.ndarray:
    """Indices of the `keep` highest scores of each row, in their old order; of equal ones the first stay."""
    return np.sort(np.argsort(-score_NxM, axis=1, kind="stable")[:, :keep], axis=1)


def _take(leaf: jax.Array, chosen_NxK: np.ndarray, axis: int) -> jax.Array:
    """Layer by layer, the chosen indices of an axis."""
    shape = [1] * leaf.ndim
    shape[0], shape[axis] = chosen_NxK.shape
    return jnp.take_along_axis(leaf, jnp.asarray(chosen_NxK).reshape(shape), axis)
