"""Keeps pruned weights at zero while training, prunes gradually, rounds in the forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tlc_jax.compression.recipe import Prune, Quantize
from tlc_jax.core.params import unflatten
from tlc_jax.models.network import Params

# Zhu & Gupta leave open when gradual pruning starts, how often it prunes and when it ends. Here:
# twenty times, evenly over the first three quarters of the budget, so that the last quarter
# recovers at full sparsity.
GRADUAL_LEVELS = 20
GRADUAL_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class DuringTraining:
    """How training treats the weights of a model that is being compressed.

    Attributes:
      masks: masks of the leaves that are pruned already; these weights stay zero.
      gradual: pruning operations that happen during training, on the schedule of `sparsity_at`.
      aware: quantize operations that the forward pass applies; gradients pass straight through
        them.
    """

    masks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gradual: tuple[Prune, ...] = ()
    aware: tuple[Quantize, ...] = ()

    def forward_params(self, params: Params) -> Params:
        """The weights that the forward pass and evaluations compute with."""
        if not self.aware:
            return params
        # Here, because the import of AQT takes long and few recipes need it.
        from tlc_jax.compression.quantize import round_weights

        return round_weights(params, self.aware)

    def mask_transform(self, params: Params) -> optax.GradientTransformation | None:
        """The transform that keeps pruned weights at zero, or None where nothing is pruned.

        It must be the last one of the optimizer's chain: weight decay and momentum, if they came
        after it, would move weights whose gradient is zero. `params` may be abstract.
        """
        if not (self.masks or self.gradual):
            return None
        # Here as below, so that dense training loads nothing of pruning.
        from tlc_jax.compression.prune import join_masks, mask_updates, prunable_leaves

        masks = self.masks
        for prune in self.gradual:
            # Gradual pruning begins with masks that keep everything: the optimizer state has its
            # final structure from the first step on, so the compiled step and the checkpoints fit
            # every level.
            leaves = prunable_leaves(params, prune)
            whole = {path: jnp.ones(leaf.shape, bool) for path, leaf in leaves.items()}
            masks = join_masks(masks, unflatten(whole))
        return mask_updates(masks)

    def mask_gradient(self, gradient: Params, optimizer_state: Any) -> Params:
        """The gradient with zeros for pruned weights, so that clipping and the reported norm ignore
        them.
        """
        if not (self.masks or self.gradual):
            return gradient
        from tlc_jax.compression.prune import apply_masks

        return apply_masks(gradient, optax.tree.get(optimizer_state, "masks"))

    def pruning_level(self, fraction: float) -> int:
        """The pruning level reached at this fraction of the budget; 0 before the first."""
        if not self.gradual:
            return 0
        return min(GRADUAL_LEVELS, int(GRADUAL_LEVELS * fraction / GRADUAL_SHARE))

    def prune_to(self, params: Params, optimizer_state: Any, level: int) -> tuple[Params, Any]:
        """Parameters and optimizer state pruned to a level. Idempotent: it is applied again after a
        restart.
        """
        from tlc_jax.compression.prune import (
            apply_masks,
            clear_moments,
            join_masks,
            pruning_masks,
        )

        masks = optax.tree.get(optimizer_state, "masks")
        for prune in self.gradual:
            target = sparsity_at(prune.sparsity, level)
            masks = join_masks(masks, pruning_masks(params, prune, target))
        new = apply_masks(params, masks), clear_moments(optimizer_state, masks)
        # The compiled step was made for the old shardings.
        return jax.tree.map(
            lambda leaf, old: jax.device_put(leaf, old.sharding), new, (params, optimizer_state)
        )


DENSE = DuringTraining()
"""Training without any compression."""


def sparsity_at(target: float, level: int) -> float:
    """Zhu & Gupta (2017): s_f + (s_i - s_f) (1 - t)^3 from s_i = 0 on; fast while much is
    redundant, slow later.
    """
    return target * (1 - (1 - level / GRADUAL_LEVELS) ** 3)
