"""AdamW whose schedule runs on the fraction of the budget used; selectors decay and freeze."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tlc_jax import config
from tlc_jax.core.params import flatten, select, select_tree
from tlc_jax.models.network import Params


def phase(settings: config.Optimizer, budget: config.Budget) -> Callable[[float], float]:
    """Returns fraction of the budget used -> where the schedule is: the argument of `schedule`.

    That is the fraction itself, up to 1. For warm-up, stable and decay (wsd) it is 0 to 1 while the
    rate rises, 1 while it stays, and 1 to 2 while it falls. Warm-up is a share of the shortest
    branch, so that a run and its branches are one until the rate of a branch falls.
    """
    if settings.schedule != "wsd":
        return lambda fraction: min(1.0, fraction)
    rises, falls = settings.warmup * min(budget.branches, default=1.0), settings.cooldown

    def of_wsd(fraction: float) -> float:
        if (fallen := min(1.0, fraction) - (1.0 - falls)) > 0:
            return 1.0 + fallen / falls
        # Rounded, because a run and a branch compute it from other fractions.
        return min(1.0, round(fraction / rises, 9)) if rises > 0 else 1.0

    return of_wsd


def schedule(settings: config.Optimizer, hidden: int) -> Callable[..., Any]:
    """Returns `phase` -> learning rate: linear warm-up, then decay.

    The second argument is the module that computes it, `jax.numpy` unless it is given. With numpy
    the log need not wait for the devices.

    With `reference_width` the rate falls with the square root of the width, as in tensor2tensor.
    """
    peak = settings.learning_rate
    if settings.reference_width:
        peak *= math.sqrt(settings.reference_width / hidden)

    def learning_rate(fraction: Any, xp: Any = jnp) -> Any:
        if settings.schedule == "wsd":
            return peak * xp.minimum(fraction, 1.0) * (1.0 - xp.clip(fraction - 1.0, 0.0, 1.0))
        # A function of the fraction, so every size warms up and decays inside its own budget.
        warm = xp.minimum(1.0, fraction / settings.warmup) if settings.warmup > 0 else 1.0
        rest = xp.clip((fraction - settings.warmup) / max(1e-9, 1.0 - settings.warmup), 0.0, 1.0)
        course = {
            "linear": 1.0 - rest,
            "cosine": 0.5 * (1.0 + xp.cos(xp.pi * rest)),
            "constant": xp.ones(()),
            "rsqrt": xp.sqrt(settings.warmup / xp.maximum(fraction, max(settings.warmup, 1e-9))),
        }
        return peak * warm * course[settings.schedule]

    return learning_rate


def scale_by_schedule(
    learning_rate: Callable[[jax.Array], jax.Array],
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by minus the learning rate; `update` takes the budget's `fraction=`."""

    def update(
        updates: Params, state: Any, params: Params | None = None, *, fraction: jax.Array, **_: Any
    ) -> Any:
        del params
        rate = learning_rate(fraction)
        return jax.tree.map(lambda u: -rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def treatment(settings: config.Optimizer, params: Params) -> dict[str, dict[str, str]]:
    """Whether each parameter decays and is frozen: columns of the table of parameters, by path."""
    paths = flatten(params)
    decays = select([(pattern, "yes") for pattern in settings.decay], paths, default="no")
    frozen = select([(pattern, "yes") for pattern in settings.freeze], paths, default="no")
    return {"decay": decays, "frozen": frozen}


def adamw(
    settings: config.Optimizer,
    params: Params,
    hidden: int,
    mask_updates: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of every command that trains.

    Args:
      settings: hyper-parameters and selectors.
      params: parameters, or their shapes; only their paths matter here.
      hidden: the model's width, which the learning rate may depend on.
      mask_updates: a pruning mask as a transform of updates.

    Raises:
      InputError: a selector that matches no parameter.
    """
    steps = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm > 0 else []
    steps.append(optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon))
    if settings.weight_decay > 0:
        decays = select_tree([(pattern, True) for pattern in settings.decay], params, default=False)
        steps.append(optax.add_decayed_weights(settings.weight_decay, decays))
    steps.append(scale_by_schedule(schedule(settings, hidden)))
    if settings.freeze:
        frozen = select_tree(
            [(pattern, True) for pattern in settings.freeze], params, default=False
        )
        # After the schedule: weight decay must not move a frozen parameter either.
        steps.append(optax.masked(optax.set_to_zero(), frozen))
    if mask_updates is not None:
        # Last, so that neither momentum nor weight decay revives a pruned weight.
        steps.append(mask_updates)
    return optax.with_extra_args_support(optax.chain(*steps))
