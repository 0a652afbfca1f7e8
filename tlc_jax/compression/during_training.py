"""What compression does to a model while it is trained: zeros held, weights pruned bit by bit, weights seen rounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tlc_jax.compression.prune import (
    apply_masks,
    clear_moments,
    join_masks,
    magnitude_masks,
    mask_updates,
)
from tlc_jax.compression.quantize import round_weights
from tlc_jax.compression.recipe import Prune, Quantize
from tlc_jax.compression.scope import prunable
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.models.network import Params

# Zhu & Gupta leave open when gradual pruning starts, how often it prunes and when it is done. Twenty times, evenly over
# the first three quarters of the budget: the last quarter recovers at full sparsity.
GRADUAL_STAGES = 20
GRADUAL_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class Held:
    """How training treats weights.

    Attributes:
      masks: weights that stay zero.
      gradual: pruning that happens on the way, on the schedule of `sparsity_at`.
      rounded: quantisation that the forward pass sees, and that gradients pass straight through.
    """

    masks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gradual: tuple[Prune, ...] = ()
    rounded: tuple[Quantize, ...] = ()

    def seen(self, params: Params) -> Params:
        """The weights that the forward pass and evaluations compute with."""
        return round_weights(params, self.rounded) if self.rounded else params

    def transform(self, params: Params) -> optax.GradientTransformation | None:
        """What keeps pruned weights at zero, as the last transform of the optimizer; `params` may be shapes."""
        masks = self.masks
        for prune in self.gradual:
            scope = prunable(params, prune.embeddings, prune.only)
            whole = {
                path: jnp.ones(leaf.shape, bool)
                for path, leaf in flatten(params).items()
                if scope[path]
            }
            masks = join_masks(masks, unflatten(whole))
        return mask_updates(masks) if masks else None

    def freeze(self, gradient: Params, optimizer_state: Any) -> Params:
        """The gradient without what belongs to pruned weights."""
        if not (self.masks or self.gradual):
            return gradient
        return apply_masks(gradient, optax.tree.get(optimizer_state, "masks"))

    def stage(self, fraction: float) -> int:
        """How often gradual pruning has pruned when this fraction of the budget is used; 0 without any."""
        return (
            min(GRADUAL_STAGES, int(GRADUAL_STAGES * fraction / GRADUAL_SHARE))
            if self.gradual
            else 0
        )

    def advance(self, params: Params, optimizer_state: Any, stage: int) -> tuple[Params, Any]:
        """Parameters and optimizer state pruned to a stage; doing so twice changes nothing more."""
        masks = optax.tree.get(optimizer_state, "masks")
        for prune in self.gradual:
            masks = join_masks(
                masks, magnitude_masks(params, prune, sparsity_at(prune.sparsity, stage))
            )
        new = apply_masks(params, masks), clear_moments(optimizer_state, masks)
        return jax.tree.map(
            lambda leaf, old: jax.device_put(leaf, old.sharding), new, (params, optimizer_state)
        )


NOTHING = Held()


def sparsity_at(target: float, stage: int) -> float:
    """Zhu & Gupta (2017): s_f + (s_i - s_f) (1 - t)^3 from s_i = 0 on; fast while much is redundant, slow later."""
    return target * (1 - (1 - stage / GRADUAL_STAGES) ** 3)
