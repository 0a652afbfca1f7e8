"""The training step as a jitted program, and the shapes of its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from tlc_jax.core.mesh import Placement
from tlc_jax.models.network import Params
from tlc_jax.training.step import TrainState, TrainStep, init_state, step_key


def abstract_state(
    init: Callable[[], Params], optimizer: optax.GradientTransformation, place: Placement
) -> TrainState:
    """Shapes, types and shardings of a fresh training state; computes nothing."""
    params = jax.eval_shape(init)
    shardings = TrainState(place.shardings(params), place.optimizer_shardings(optimizer, params))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: init_state(init(), optimizer)),
        shardings,
    )


def jit_step(step: TrainStep, seed: int, state: TrainState, place: Placement) -> Any:
    """The jitted (state, batch, step number, fraction, notes) -> (state, metrics, notes).

    The state is donated and stays where it is; `notes` (of `agreement`) come out whole everywhere.

    Args:
      step: pure.
      seed: of all that is random.
      state: as `abstract_state` gives it, or placed arrays.
      place: where arrays live.
    """

    def keyed(
        state: TrainState, batch: Any, index: Any, fraction: Any, notes: Any
    ) -> tuple[TrainState, Any, Any]:
        return *step(state, batch, step_key(seed, index), fraction), notes

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        keyed, donate_argnums=0, out_shardings=(shardings, place.everywhere, place.everywhere)
    )
