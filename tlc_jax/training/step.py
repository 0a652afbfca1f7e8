"""One training step as a pure function of (state, batch, key, fraction): it can be jitted, sharded and mapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tlc_jax.models.network import Params
from tlc_jax.training.loss import Batch, Objective, Sums


class TrainState(NamedTuple):
    """All that a step changes."""

    params: Params
    optimizer: Any


class StepMetrics(NamedTuple):
    """Scalars of one step: mean loss (nats), accuracy, and the norm of the raw mean gradient."""

    loss: jax.Array
    accuracy: jax.Array
    gradient_norm: jax.Array


TrainStep = Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, StepMetrics]]


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(params, optimizer.init(params))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    parts: int = 1,
    dropout_keys: str = "rbg",
    freeze_gradient: Callable[[Params, Any], Params] = lambda gradient, optimizer_state: gradient,
    seen: Callable[[Params], Params] = lambda params: params,
) -> TrainStep:
    """The step for an objective.

    Args:
      objective: what to minimise.
      optimizer: an Optax transform whose update takes `fraction=`.
      parts: microbatches that a batch is worked through in. Accumulated gradients are those of the whole batch up to
        rounding (sums are added up and divided once); only dropout draws differ.
      dropout_keys: random generator for dropout.
      freeze_gradient: (mean gradient, optimizer state) -> the gradient whose norm is taken and that the optimizer gets,
        e.g. without what belongs to pruned weights.
      seen: parameters -> those that the forward pass computes with, e.g. rounded ones.

    The key handed to a step decides everything random in it. Masking uses it as it is (threefry: the same draws on
    any mesh); dropout uses a key of the cheaper generator derived from it.
    """

    def sums_of(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
        sums, _ = objective.sums(seen(params), batch, key)
        return sums.loss, sums

    gradient_of = jax.grad(sums_of, has_aux=True)

    def accumulate(params: Params, batch: Batch, key: jax.Array) -> tuple[Params, Sums]:
        if parts == 1:
            return gradient_of(params, batch, key)
        # Every part takes each `parts`-th row, so that on a sharded batch it stays spread over all devices.
        batches = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

        def add_part(
            total: tuple[Params, Sums], part: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Params, Sums], None]:
            part_batch, index = part
            gradient_and_sums = gradient_of(params, part_batch, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, gradient_and_sums), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(gradient_of, params, _first(batches), key),
        )
        return jax.lax.scan(add_part, zeros, (batches, jnp.arange(parts)))[0]

    def step(
        state: TrainState, batch: Batch, key: jax.Array, fraction: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        key_corrupt, key_dropout = jax.random.split(key)
        gradient, sums = accumulate(
            state.params, objective.corrupt(key_corrupt, batch), _as(key_dropout, dropout_keys)
        )
        weight = jnp.maximum(sums.weight, 1e-9)
        gradient = freeze_gradient(jax.tree.map(lambda g: g / weight, gradient), state.optimizer)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer, state.params, fraction=fraction
        )
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(sums.loss / weight, sums.correct / weight, optax.tree.norm(gradient))
        return TrainState(params, optimizer_state), metrics

    return step


def step_key(seed: int, step: int | jax.Array) -> jax.Array:
    """The key of a training step: a function of (seed, step) alone."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def _as(key: jax.Array, impl: str) -> jax.Array:
    """A key of another generator, drawn from `key`."""
    if impl == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl=impl)


def _first(batches: Batch) -> Batch:
    return jax.tree.map(lambda x: x[0], batches)
