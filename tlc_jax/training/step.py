"""One training step: a pure function of (state, batch, key, fraction), and its jitted form.

Losses are sums over a batch, so that the sums of microbatches add up to those of the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tlc_jax.config.durations import Amounts
from tlc_jax.core.mesh import Placement, sum_over_data
from tlc_jax.models.network import Params

if TYPE_CHECKING:
    from tlc_jax.training.noise_scale import SmallBatches

Batch = Mapping[str, jax.Array]


class Sums(NamedTuple):
    """Totals over examples or predicted positions; their quotients are the metrics."""

    loss: jax.Array
    weight: jax.Array
    correct: jax.Array


class Objective(NamedTuple):
    """A loss in two parts.

    Attributes:
      corrupt: (key, batch) -> batch with the task's random draws, made for a whole batch at once.
      sums: (params, corrupted batch, dropout key or None) -> (`Sums`, logits); `Sums.loss` is
        differentiable.
    """

    corrupt: Callable[[jax.Array, Batch], Batch]
    sums: Callable[[Params, Batch, jax.Array | None], tuple[Sums, jax.Array]]


def weighted_sums(
    logits_xC: jax.Array, targets_x: jax.Array, weights_x: jax.Array, smoothing: float = 0.0
) -> Sums:
    """Cross-entropy in nats and accuracy, summed under weights; logits in float32.

    Label smoothing spreads the share `smoothing` of a target's weight over all C classes. A target
    counts as predicted where no logit exceeds its own; `argmax` is slow over a large vocabulary.
    """
    loss_x, correct_x = cross_entropy(logits_xC, targets_x, smoothing)
    return Sums(jnp.sum(loss_x * weights_x), jnp.sum(weights_x), jnp.sum(correct_x * weights_x))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def cross_entropy(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats, and 1 where the target's logit is the largest, without gradient."""
    return _cross_entropy_forward(logits_xC, targets_x, smoothing)[0]


Residuals = tuple[jax.Array, jax.Array, jax.Array]


def _cross_entropy_forward(
    logits_xC: jax.Array, targets_x: jax.Array, smoothing: float
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    largest_x = jnp.max(logits_xC, axis=-1)
    log_normalizer_x = largest_x + jnp.log(
        jnp.sum(jnp.exp(logits_xC - largest_x[..., None]), axis=-1)
    )
    target_logit_x = jnp.take_along_axis(logits_xC, targets_x[..., None], axis=-1)[..., 0]
    correct_x = (target_logit_x >= largest_x).astype(logits_xC.dtype)
    expected_x = target_logit_x
    if smoothing:
        expected_x = (1.0 - smoothing) * target_logit_x + smoothing * jnp.mean(logits_xC, axis=-1)
    return (log_normalizer_x - expected_x, correct_x), (logits_xC, targets_x, log_normalizer_x)


def _cross_entropy_backward(
    smoothing: float, residuals: Residuals, g: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
    # Written out because JAX's own rule reads and writes the logits, hundreds of megabytes, several
    # times more: it stores their exponentials in the forward pass and scatters the share of the
    # targets into an array of zeros in the backward pass.
    logits_xC, targets_x, log_normalizer_x = residuals
    classes_xC = jax.lax.broadcasted_iota(targets_x.dtype, logits_xC.shape, logits_xC.ndim - 1)
    probabilities_xC = jnp.exp(logits_xC - log_normalizer_x[..., None])
    expected_xC = (1.0 - smoothing) * (
        classes_xC == targets_x[..., None]
    ) + smoothing / logits_xC.shape[-1]
    return (probabilities_xC - expected_xC) * g[0][..., None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


class TrainState(NamedTuple):
    """Everything a step changes."""

    params: Params
    optimizer: Any


Accumulated = tuple[Params, Sums, "SmallBatches | None"]
"""Sums of gradients, of losses, and for the noise scale, over the rows of a batch."""


class StepMetrics(NamedTuple):
    """Scalars of one step: mean loss (nats), accuracy, and the norm of the raw mean gradient.

    With eval.noise_scale also the variance of that gradient, `SmallBatches.variance`. Of seeds that
    train together, each is an array [seeds].
    """

    loss: jax.Array
    accuracy: jax.Array
    gradient_norm: jax.Array
    gradient_variance: jax.Array | None = None


def first_not_finite(metrics: StepMetrics, seeds: Sequence[int]) -> tuple[str, StepMetrics]:
    """Of seeds that train together, the name and the metrics of the first that diverged."""
    if not seeds:
        return "", metrics
    first = int(np.argmin(np.isfinite([metrics.loss, metrics.gradient_norm]).all(axis=0)))
    return f"seed {seeds[first]}: ", StepMetrics(*(values[first] for values in metrics[:3]))


@dataclasses.dataclass
class StepInFlight:
    """A dispatched step, and its metrics and messages, whose values are not read yet.

    The metrics are one array, as `jit_step` returns them.
    """

    step: int
    cost: Amounts
    metrics: jax.Array
    messages: Any
    started: float


TrainStep = Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, StepMetrics]]
CompiledStep = Callable[..., tuple[TrainState, jax.Array, Any]]


def init_state(
    params: Params, optimizer: optax.GradientTransformation, over_seeds: bool = False
) -> TrainState:
    """A new training state; with `over_seeds`, all leaves have the axis of the seeds in front."""
    return TrainState(params, (jax.vmap(optimizer.init) if over_seeds else optimizer.init)(params))


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    parts: int = 1,
    dropout_keys: str = "rbg",
    freeze_gradient: Callable[[Params, Any], Params] = lambda gradient, optimizer_state: gradient,
    forward_params: Callable[[Params], Params] = lambda params: params,
    by_groups: bool = True,
    noise_scale: bool = False,
) -> TrainStep:
    """Returns the training step for an objective.

    The key given to a step decides everything random in it. Masking uses it as it is (threefry
    draws the same on any mesh); dropout uses a key of a cheaper generator derived from it.

    Args:
      objective: the loss to minimize.
      optimizer: an Optax transform whose update takes `fraction=`.
      parts: the number of microbatches that a batch is split into. The accumulated gradient is
        that of the whole batch up to rounding, because sums are added up and divided once; only
        dropout draws differ.
      dropout_keys: the random generator for dropout.
      freeze_gradient: (mean gradient, optimizer state) -> the gradient whose norm is taken and
        that the optimizer gets, for example without the entries of pruned weights.
      forward_params: parameters -> the parameters of the forward pass, for example rounded ones.
      by_groups: whether groups of devices may add up microbatches on their own (`sum_over_data`).
        With cuDNN's attention they may not: JAX cannot compile it for them.
      noise_scale: whether the metrics have the variance of the gradient, from the gradients of
        microbatches and of devices. There must be several of them. It takes the memory of one more
        gradient. Parameters are the same to the bit with microbatches, else up to rounding.
    """

    def sums_of(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
        sums, _ = objective.sums(forward_params(params), batch, key)
        return sums.loss, sums

    gradient_of = jax.grad(sums_of, has_aux=True)

    accumulate = _accumulation(gradient_of, parts, by_groups, freeze_gradient, noise_scale)

    def step(
        state: TrainState, batch: Batch, key: jax.Array, fraction: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        key_corrupt, key_dropout = jax.random.split(key)
        # The whole batch is corrupted at once, so the draws do not depend on `parts`.
        gradient, sums, small = accumulate(
            state, objective.corrupt(key_corrupt, batch), _as(key_dropout, dropout_keys)
        )
        weight = jnp.maximum(sums.weight, 1e-9)
        gradient = freeze_gradient(jax.tree.map(lambda g: g / weight, gradient), state.optimizer)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer, state.params, fraction=fraction
        )
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(gradient)
        variance = None
        if small is not None:
            # Behind a barrier, so that the norm is computed as it is without this.
            variance = small.variance(*jax.lax.optimization_barrier((weight, norm)))
        metrics = StepMetrics(sums.loss / weight, sums.correct / weight, norm, variance)
        return TrainState(params, optimizer_state), metrics

    return step


def _accumulation(
    gradient_of: Callable[..., Any],
    parts: int,
    by_groups: bool,
    freeze_gradient: Callable[[Params, Any], Params],
    noise_scale: bool,
) -> Callable[[TrainState, Batch, jax.Array], Accumulated]:
    """Returns (state, corrupted batch, key of dropout) -> sums over the rows of the batch.

    `gradient_of` gives them from parameters, microbatch and key. See `make_train_step`.
    """

    def accumulate(state: TrainState, batch: Batch, key: jax.Array) -> Accumulated:
        if not noise_scale:
            state = TrainState(state.params, ())
        if parts > 1 or noise_scale:
            return sum_over_data(accumulate_own, state, batch, key, parts, by_groups)
        return *gradient_of(state.params, batch, key), None

    def accumulate_own(state: TrainState, batch: Batch, key: jax.Array) -> Accumulated:
        if parts == 1:
            gradient, sums = gradient_of(state.params, batch, key)
            return gradient, sums, small_batch(state, gradient, sums.weight)
        # Each part takes every `parts`-th row, so a sharded batch stays spread over all devices.
        batches = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

        def add_part(sums: tuple[Any, ...], part: tuple[Batch, jax.Array]) -> Any:
            total, before, small = sums
            part_batch, index = part
            own = gradient_of(state.params, part_batch, jax.random.fold_in(key, index))
            if noise_scale:
                before, small = total, add_last(total, before, small)
            return (jax.tree.map(jnp.add, total, own), before, small), None

        def add_last(total: Any, before: Any, small: SmallBatches) -> SmallBatches:
            # By the difference of two totals: a second use of a part's own gradient would make
            # the compiler round it in another way, and measuring is to change no bit of training.
            gradient, sums = jax.tree.map(jnp.subtract, total, before)
            return jax.tree.map(jnp.add, small, small_batch(state, gradient, sums.weight))

        first_part = jax.tree.map(lambda x: x[0], batches)
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(gradient_of, state.params, first_part, key),
        )
        start = (zeros, zeros, small_batches().none()) if noise_scale else (zeros, None, None)
        # A scan, not a Python loop: only one microbatch's activations are alive at a time.
        sums, _ = jax.lax.scan(add_part, start, (batches, jnp.arange(parts)))
        return *sums[0], (add_last(*sums) if noise_scale else None)

    def small_batch(state: TrainState, gradient: Params, weight: jax.Array) -> SmallBatches:
        own = freeze_gradient(gradient, state.optimizer)
        return small_batches().of(own, weight)

    def small_batches() -> type[SmallBatches]:
        from tlc_jax.training.noise_scale import SmallBatches  # few runs measure it

        return SmallBatches

    return accumulate


def step_key(seed: int, step: int | jax.Array) -> jax.Array:
    """The key of a training step: a function of (seed, step) alone."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def seed_bits(seed: int) -> np.ndarray:
    """The key of a seed as an argument of the jitted step, uint32 [2]."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl="threefry2x32")))


def _as(key: jax.Array, impl: str) -> jax.Array:
    """A key of another generator, drawn from `key`."""
    if impl == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl=impl)


def abstract_state(
    init: Callable[[], Params], optimizer: optax.GradientTransformation, place: Placement
) -> TrainState:
    """Shapes, types and shardings of a new training state, without computing one."""
    params = jax.eval_shape(init)
    shardings = TrainState(place.shardings(params), place.optimizer_shardings(optimizer, params))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: init_state(init(), optimizer, place.over_seeds)),
        shardings,
    )


def new_state(
    init: Callable[[], Params], optimizer: optax.GradientTransformation, place: Placement
) -> TrainState:
    """The training state of a new run, on the mesh."""
    params = place.put_params(init())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(init, optimizer, place))

    def state_of(params: Params) -> TrainState:
        return init_state(params, optimizer, place.over_seeds)

    return cast(TrainState, jax.jit(state_of, out_shardings=shardings)(params))


def jit_step(step: TrainStep, state: TrainState, place: Placement) -> Any:
    """Jits (state, batch, seed, step number, fraction, messages) -> (state, metrics, messages).

    The state is donated and keeps its sharding. The batch may be on the host. The seed is given by
    its `seed_bits`, so that runs which differ in it alone share the program. The metrics are those
    of `StepMetrics` in one array, [3] or [4], because the host reads one faster than three. The
    messages of all processes (`clock.Agreement`) go in split over the devices and come out whole on
    each.

    Where `place` has an axis of seeds, state, batch, seed and metrics have it too: each seed trains
    as it would alone.

    Args:
      step: a pure training step of one seed.
      state: the training state, or its shapes from `abstract_state`.
      place: the mesh and the shardings.
    """

    def keyed(
        state: TrainState, batch: Any, seed: Any, index: Any, fraction: Any
    ) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), index)
        return step(state, batch, key, fraction)

    of_all = jax.vmap(keyed, in_axes=(0, 0, 0, None, None)) if place.over_seeds else keyed

    def with_messages(
        state: TrainState, batch: Any, seed: Any, index: Any, fraction: Any, messages: Any
    ) -> tuple[TrainState, Any, Any]:
        # The messages pass through unchanged. Gathering them is a collective that the step has
        # room for, where a separate one would make the hosts wait for each other.
        state, metrics = of_all(state, batch, seed, index, fraction)
        return state, jnp.stack(jax.tree.leaves(metrics)), messages

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        with_messages,
        donate_argnums=0,
        in_shardings=(shardings, place.by_rows, *[None] * 4),
        out_shardings=(shardings, place.everywhere, place.everywhere),
        compiler_options=place.compiler_options,
    )
