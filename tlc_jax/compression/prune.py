"""Pruning: finds the weights that become zero and keeps them at zero during training.

Masks are a nested dict like the parameters with the pruned leaves alone: bool arrays, True where a
weight is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tlc_jax.compression.recipe import Prune, compressible, input_axis
from tlc_jax.compression.thresholds import keep_largest, keep_largest_along, nonzero
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten

Params = Mapping[str, Any]
Masks = Mapping[str, Any]


def prunable_leaves(params: Params, prune: Prune) -> dict[str, Any]:
    """The leaves that a pruning operation may prune, by path: never those of the classification
    head.

    The head is not pretrained, so its few weights have another scale than those they would be
    ranked among: at 90 % a global threshold takes all of it, and the rest of the model then always
    answers the same class.
    """
    scope = compressible(params, prune.embeddings, prune.only)
    leaves = flatten(params).items()
    return {path: x for path, x in leaves if path in scope and not path.startswith("classifier/")}


def pruning_masks(params: Params, prune: Prune, sparsity: float | None = None) -> dict[str, Any]:
    """Masks that remove the round(sparsity x n) weights of smallest magnitude, or other score, of
    each group of n, exactly.

    A group is what `prune.scope` says (a stacked kernel [L, in, out] is L matrices), or a block of
    N:M pruning. Equal scores go in order of path, layer and position. Weights that are zero
    already are masked in addition, so pruning in rounds never revives one.

    Args:
      params: parameter tree, sharded in any way over one set of devices; masks are sharded alike.
      prune: the operation.
      sparsity: the target of this round, in [0, 1); None means `prune.sparsity`.

    Raises:
      InputError: nothing is in scope, a matrix does not divide into blocks, or the score of a
        plug-in is none.
    """
    leaves = prunable_leaves(params, prune)
    weights = {path: _scores(path, leaf, prune.score) for path, leaf in leaves.items()}
    share = prune.sparsity if sparsity is None else sparsity
    if prune.block or prune.scope == "row":
        return unflatten(
            {path: _mask_along(path, leaf, prune.block, share) for path, leaf in weights.items()}
        )
    stacks_MxRxC = [leaf if leaf.ndim == 3 else leaf[None] for leaf in weights.values()]
    masks_MxRxC = keep_largest(stacks_MxRxC, share, _groups(weights, prune.scope))
    named = zip(weights.items(), masks_MxRxC, strict=True)
    return unflatten({path: mask if leaf.ndim == 3 else mask[0] for (path, leaf), mask in named})


def _scores(path: str, leaf: Any, name: str) -> Any:
    """What the weights of a leaf are ranked by: the larger, the longer a weight stays."""
    score = plugins.find("score", name, "recipe: ")
    if score is None:
        return leaf  # whose magnitudes count
    scores = jnp.asarray(score(path, leaf), jnp.float32)
    if scores.shape != leaf.shape:
        raise InputError(f"score={name}: {path} is {leaf.shape}, and its scores {scores.shape}")
    if not jnp.all((scores >= 0) & jnp.isfinite(scores)):
        raise InputError(f"score={name}: scores of {path} are negative, infinite or NaN")
    # Weights that are zero go first, as they do by magnitude, and others are never taken for them.
    ranked = jnp.where(nonzero(leaf), jnp.maximum(scores, np.finfo(np.float32).tiny), 0)
    return jax.device_put(ranked, leaf.sharding) if isinstance(leaf, jax.Array) else ranked


def _groups(weights: Mapping[str, Any], scope: str) -> np.ndarray:
    """The number, from 0, of the group that each matrix of `weights` belongs to."""
    groups = []
    for path, leaf in weights.items():
        stacked = leaf.ndim == 3
        # An encoder's layer 1 is not a decoder's layer 1, and a matrix outside of the layers is a
        # group of its own.
        stack = path.partition("blocks/")[0] if stacked else path
        for layer in range(len(leaf) if stacked else 1):
            names = {"global": "", "tensor": f"{path} {layer}", "layer": f"{stack} {layer}"}
            groups.append(names[scope])
    return np.unique(groups, return_inverse=True)[1]


def _mask_along(path: str, leaf: jax.Array, block: int, share: float) -> jax.Array:
    """Prunes each output by itself, or in blocks of consecutive inputs."""
    axis = leaf.ndim + input_axis(path)
    size = block or leaf.shape[axis]
    if leaf.shape[axis] % size:
        raise InputError(
            f"recipe: {path} has {leaf.shape[axis]} inputs, "
            f"which blocks of {block} do not divide: leave it out"
        )
    blocks = jnp.reshape(leaf, (*leaf.shape[:axis], -1, size, *leaf.shape[axis + 1 :]))
    mask = keep_largest_along(blocks, round(share * size), axis + 1).reshape(leaf.shape)
    return jax.device_put(mask, leaf.sharding) if isinstance(leaf, jax.Array) else mask


def masks_from_zeros(params: Params, prunes: Iterable[Prune]) -> dict[str, Any]:
    """The masks of a pruned checkpoint: every zero weight in scope counts as pruned.

    In a checkpoint that was quantized too, survivors that were rounded to zero count as pruned; an
    artifact stores the masks themselves.
    """
    masks: dict[str, Any] = {}
    for prune in prunes:
        masks |= {path: nonzero(leaf) for path, leaf in prunable_leaves(params, prune).items()}
    return unflatten(masks)


def join_masks(first: Masks, second: Masks) -> dict[str, Any]:
    """Masks that keep what both keep; a leaf without a mask is kept whole."""
    joined = flatten(first)
    for path, mask in flatten(second).items():
        joined[path] = joined[path] & mask if path in joined else mask
    return unflatten(dict(sorted(joined.items())))


def restrict_masks(masks: Masks, params: Params) -> dict[str, Any]:
    """The masks of those leaves that `params` has: a finetuned model lacks the pretraining head."""
    present = flatten(params)
    return unflatten({path: mask for path, mask in flatten(masks).items() if path in present})


def apply_masks(params: Params, masks: Masks) -> dict[str, Any]:
    """`params` with pruned weights set to zero (and -0.0 to 0.0 among the pruned leaves). Works on
    gradients as well.

    Raises:
      KeyError: a mask belongs to no parameter.
    """
    flat = flatten(params)
    zero_in_place(flat, masks)
    return unflatten(flat)


def zero_in_place(flat: dict[str, Any], masks: Masks) -> None:
    """As `apply_masks` on a flat dict, one leaf after the other, so that old ones can be freed."""
    for path, mask in flatten(masks).items():
        flat[path] = _zero_pruned(flat[path], mask)


@jax.jit
def _zero_pruned(leaf: jax.Array, mask: jax.Array) -> jax.Array:
    # Multiplying by the mask would leave -0.0 where a negative weight was, and an artifact stores
    # no sign of a zero: the values that are read back would differ from those evaluated.
    return jnp.where(mask & nonzero(leaf), leaf, jnp.zeros_like(leaf))


class MaskState(NamedTuple):
    """State of `mask_updates`. Masks kept there are inputs of a jitted step and are saved with the
    rest.
    """

    masks: Masks


def mask_updates(masks: Masks) -> optax.GradientTransformation:
    """Sets the updates of pruned weights to zero. As the last transform of a chain it keeps them
    exactly zero.

    Masking gradients instead does not: momentum and weight decay move a weight whose gradient is
    zero. Where gradients are clipped or their noise is measured, mask them before that as well
    (`apply_masks`).
    """

    def update(updates: Any, state: MaskState, params: Any = None) -> tuple[Any, MaskState]:
        return apply_masks(updates, state.masks), state

    return optax.GradientTransformation(lambda params: MaskState(masks), update)


def clear_moments(opt_state: Any, masks: Masks) -> Any:
    """An optimizer state for new masks: everything in it that mirrors a pruned leaf is zeroed where
    that is pruned.

    That covers Adam's moments, any momentum, and the masks of `mask_updates`: masks only ever lose
    weights, so the old mask zeroed under the new one is the new one.
    """
    flat = flatten(masks)

    def clear(key_path: tuple[Any, ...], leaf: Any) -> Any:
        # A moment lies at (transform, field, *path of its parameter), with any number of keys in
        # front: the first suffix of the path that has a mask names the parameter.
        names = [key.key for key in key_path if isinstance(key, jax.tree_util.DictKey)]
        suffixes = ("/".join(names[start:]) for start in range(len(names)))
        mask = next((flat[path] for path in suffixes if path in flat), None)
        if mask is None or jnp.shape(leaf) != mask.shape:
            return leaf
        return jnp.where(mask, leaf, jnp.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(clear, opt_state)
