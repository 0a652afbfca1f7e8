"""Structured pruning: takes heads, neurons and layers out of a model, which becomes a smaller one
of the same kind.

The heads and neurons that contribute least by magnitude go. Each reaches the residual stream
through what it reads and what it writes, so its score is the product of both norms: for a head, of
its value columns and its output rows; for a neuron, of its column in the first matrix and its row
in the second.
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


def remove_all(
    params: dict[str, Any], model: Model, removes: Sequence[Remove]
) -> tuple[dict[str, Any], Model]:
    """`remove_structures`, one operation after the other."""
    for remove in removes:
        params, model = remove_structures(params, model, remove)
    return params, model


def remove_structures(
    params: Mapping[str, Any], model: Model, remove: Remove
) -> tuple[dict[str, Any], Model]:
    """The smaller model and its parameters.

    Args:
      params: parameter tree, layers stacked on the first axis.
      model: dimensions of the model.
      remove: the operation. Every layer loses the same number of heads or neurons, its own least
        ones.

    Raises:
      InputError: the share is too small to remove anything.
    """
    flat, filled = flatten(params), model.filled()
    if remove.of == "layers":
        return _without_layers(flat, model, remove)
    if remove.of == "heads":
        keep = _stay(filled.heads, remove)
        for block in _blocks(ATTENTION, flat):
            flat |= _without_heads(flat, block, filled.heads, filled.head_size, keep)
        return unflatten(flat), dataclasses.replace(model, heads=keep, head_size=filled.head_size)
    keep = _stay(filled.ffn, remove)
    for block in _blocks(FEED_FORWARD, flat):
        flat |= _without_neurons(flat, block, keep)
    return unflatten(flat), dataclasses.replace(model, ffn=keep)


def _stay(count: int, remove: Remove) -> int:
    keep = max(1, round(count * (1 - remove.share)))
    if keep == count:
        raise InputError(
            f"recipe: remove:{remove.share},of={remove.of} takes none of {count}: "
            "set a larger share"
        )
    return keep


def _blocks(pattern: re.Pattern[str], flat: Mapping[str, Any]) -> list[str]:
    return [found[1] for path in flat if (found := pattern.fullmatch(path))]


def _without_heads(
    flat: Mapping[str, Any], block: str, heads: int, size: int, keep: int
) -> dict[str, jax.Array]:
    """The changed leaves of one stack of attention layers."""

    def by_head(name: str, axis: int) -> jax.Array:
        """A leaf with its axis of features split into heads and features of a head."""
        leaf = jnp.asarray(flat[f"{block}/{name}"])
        axis %= leaf.ndim
        return leaf.reshape(*leaf.shape[:axis], heads, size, *leaf.shape[axis + 1 :])

    written_N = _norm(by_head("output/kernel", -2), (2, 3))
    chosen_NxK = _largest(_norm(by_head("value/kernel", -1), (1, 3)) * written_N, keep)

    def cut(name: str, axis: int) -> jax.Array:
        leaf = by_head(name, axis)
        axis %= leaf.ndim - 1
        shape = (*leaf.shape[:axis], keep * size, *leaf.shape[axis + 2 :])
        return _take(leaf, chosen_NxK, axis).reshape(shape)

    inputs = [f"{name}/{leaf}" for name in ("query", "key", "value") for leaf in ("kernel", "bias")]
    changed = {f"{block}/{name}": cut(name, -1) for name in inputs}
    return {**changed, f"{block}/output/kernel": cut("output/kernel", -2)}


def _without_neurons(flat: Mapping[str, Any], block: str, keep: int) -> dict[str, jax.Array]:
    """The changed leaves of one stack of feed-forward layers."""
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
    keep = _stay(model.layers, remove)
    chosen_K = np.arange(keep)
    if remove.which == "spread":  # the first and the last stay
        chosen_K = np.round(np.linspace(0, model.layers - 1, keep)).astype(int)
    for path, leaf in flat.items():
        # Layers that share their parameters are a stack of one: they lose nothing but repetitions.
        if re.match(r"(.*/)?blocks/", path) and len(leaf) == model.layers:
            flat[path] = jnp.asarray(leaf)[chosen_K]
    return unflatten(flat), dataclasses.replace(model, layers=keep)


def _norm(x: jax.Array, axes: tuple[int, ...]) -> np.ndarray:
    """Frobenius norms over `axes`, in float64 on the host, so that every sharding ranks them
    alike.
    """
    inner = tuple(axis - 1 for axis in axes)
    # Layer by layer, because float64 squares of a whole stack would take several times its memory.
    layers = [np.sum(np.square(layer, dtype=np.float64), inner) for layer in np.asarray(x)]
    return np.sqrt(np.stack(layers))


def _largest(score_NxM: np.ndarray, keep: int) -> np.ndarray:
    """Indices of the `keep` highest scores of each row, in their old order; of equal ones the first
    stay.
    """
    return np.sort(np.argsort(-score_NxM, axis=1, kind="stable")[:, :keep], axis=1)


def _take(leaf: jax.Array, chosen_NxK: np.ndarray, axis: int) -> jax.Array:
    """Layer by layer, the chosen indices of an axis."""
    shape = [1] * leaf.ndim
    shape[0], shape[axis] = chosen_NxK.shape
    return jnp.take_along_axis(leaf, jnp.asarray(chosen_NxK).reshape(shape), axis)
