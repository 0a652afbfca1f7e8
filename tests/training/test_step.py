"""One training step: accumulation, decay, freezing, masks and the schedule."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlc_jax import config as configs
from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.prune import apply_masks, pruning_masks
from tlc_jax.compression.recipe import Prune
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.models.network import masked_language_model
from tlc_jax.tasks.masked_lm import masked_language
from tlc_jax.training.optimizer import adamw, schedule
from tlc_jax.training.step import cross_entropy, init_state, make_train_step, step_key

V, ROWS, LENGTH = 64, 16, 16
MODEL = configs.Model(layers=1, hidden=64, max_length=LENGTH, dropout=0.0)
NETWORK = masked_language_model(MODEL, V, configs.Impl())
OBJECTIVE = masked_language(NETWORK, configs.Objective())
TOKENS = np.random.default_rng(0).integers(5, V, (ROWS, LENGTH)).astype(np.int32)
TOKENS[3] = 2  # a row without text, so that parts of the batch weigh differently
BATCH = {"tokens": TOKENS}


@pytest.fixture(scope="module")
def params():
    return NETWORK.init(jax.random.key(0))


def run(params, optimizer_settings, parts=1, masks=None, steps=1, seed=0):
    during_training = DuringTraining(masks or {})
    optimizer = adamw(optimizer_settings, params, 64, during_training.mask_transform(params))
    step = jax.jit(
        make_train_step(OBJECTIVE, optimizer, parts, "rbg", during_training.mask_gradient)
    )
    state = init_state(params, optimizer)
    for index in range(steps):
        state, metrics = step(state, BATCH, step_key(seed, index), jnp.float32(0.5))
    return flatten(state.params), metrics


@pytest.fixture(scope="module")
def whole(params):
    return run(params, configs.Optimizer(learning_rate=1e-3))


@pytest.mark.parametrize("parts", [2, 4, ROWS])
def test_accumulation_equals_the_big_batch(params, whole, parts) -> None:
    accumulated, metrics = run(params, configs.Optimizer(learning_rate=1e-3), parts)
    expected, expected_metrics = whole
    np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.accuracy, expected_metrics.accuracy, rtol=1e-5)
    np.testing.assert_allclose(metrics.gradient_norm, expected_metrics.gradient_norm, rtol=1e-4)
    for path, leaf in accumulated.items():
        np.testing.assert_allclose(leaf, expected[path], atol=2e-5, err_msg=path)


def temporary_bytes(parts: int) -> int:
    model = dataclasses.replace(MODEL, hidden=128)
    network = masked_language_model(model, V, configs.Impl())
    optimizer = adamw(configs.Optimizer(), network.abstract(), 64)
    step = make_train_step(masked_language(network, configs.Objective()), optimizer, parts)
    state = jax.eval_shape(lambda: init_state(network.init(jax.random.key(0)), optimizer))
    batch = {"tokens": jax.ShapeDtypeStruct((256, LENGTH), jnp.int32)}
    key = jax.eval_shape(lambda: step_key(0, 0))
    compiled = (
        jax.jit(step).lower(state, batch, key, jax.ShapeDtypeStruct((), jnp.float32)).compile()
    )
    return int(compiled.memory_analysis().temp_size_in_bytes)


def test_accumulation_needs_the_memory_of_one_microbatch() -> None:
    assert temporary_bytes(16) < 0.35 * temporary_bytes(1)


def test_weight_decay_reaches_kernels_and_embeddings_alone(params) -> None:
    plain, _ = run(params, configs.Optimizer(learning_rate=1e-2, weight_decay=0.0))
    decayed, _ = run(params, configs.Optimizer(learning_rate=1e-2, weight_decay=0.5))
    before = flatten(params)
    for path, leaf in decayed.items():
        expected = plain[path]
        if path.endswith(("kernel", "token", "position")):
            rate = float(schedule(configs.Optimizer(learning_rate=1e-2), 64)(jnp.float32(0.5)))
            expected = expected - rate * 0.5 * before[path]
        np.testing.assert_allclose(leaf, expected, atol=1e-6, err_msg=path)


def test_frozen_parameters_stay(params) -> None:
    after, _ = run(params, configs.Optimizer(learning_rate=1e-2, freeze=("embedding/.*",)))
    for path, before in flatten(params).items():
        assert np.array_equal(after[path], before) == path.startswith("embedding/"), path


@pytest.mark.parametrize("field", ["decay", "freeze"])
def test_a_selector_that_matches_nothing_is_refused(params, field) -> None:
    with pytest.raises(InputError, match="matches no parameter"):
        adamw(
            dataclasses.replace(configs.Optimizer(), **{field: ("blocks/atention/.*",)}), params, 64
        )


def test_pruned_weights_stay_exactly_zero(params) -> None:
    masks = pruning_masks(params, Prune(0.5))
    after, _ = run(
        apply_masks(params, masks),
        configs.Optimizer(learning_rate=1e-2, weight_decay=0.1),
        masks=masks,
        steps=5,
    )
    for path, mask in flatten(masks).items():
        assert not np.any(np.asarray(after[path])[~np.asarray(mask)]), path
        assert np.any(
            np.asarray(after[path])[np.asarray(mask)]
            != np.asarray(flatten(params)[path])[np.asarray(mask)]
        )


@pytest.mark.parametrize(
    ("course", "values"),
    [
        ("linear", {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: 0.5, 1.0: 0.0}),
        ("cosine", {0.1: 1.0, 0.55: 0.5, 1.0: 0.0}),
        ("constant", {0.05: 0.5, 0.1: 1.0, 1.0: 1.0}),
        ("rsqrt", {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.4: 0.5, 0.9: 1 / 3}),
    ],
)
def test_the_schedule_runs_on_the_fraction_of_the_budget(course, values) -> None:
    rate = schedule(configs.Optimizer(learning_rate=2.0, warmup=0.1, schedule=course), 64)
    for fraction, share in values.items():
        assert float(rate(jnp.float32(fraction))) == pytest.approx(2.0 * share, abs=1e-5)


def test_the_learning_rate_falls_with_the_square_root_of_the_width() -> None:
    settings = configs.Optimizer(
        learning_rate=2.0, warmup=0.0, schedule="constant", reference_width=64
    )
    rates = [float(schedule(settings, hidden)(jnp.float32(0.5))) for hidden in (64, 256)]
    assert rates == [2.0, 1.0]


def test_a_step_can_be_mapped_over_seeds(params) -> None:
    optimizer = adamw(configs.Optimizer(learning_rate=1e-3), params, 64)
    step = make_train_step(OBJECTIVE, optimizer)
    states = jax.vmap(lambda key: init_state(NETWORK.init(key), optimizer))(
        jax.random.split(jax.random.key(0), 2)
    )
    keys = jnp.stack([step_key(seed, 0) for seed in (0, 1)])
    _, metrics = jax.jit(jax.vmap(step, in_axes=(0, None, 0, None)))(
        states, BATCH, keys, jnp.float32(0.5)
    )
    assert metrics.loss.shape == (2,)
    assert metrics.loss[0] != metrics.loss[1]


def test_keys_follow_seed_and_step() -> None:
    keys = [
        jax.random.key_data(step_key(*pair)).tolist() for pair in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert keys[0] == keys[3]
    assert len({tuple(key) for key in keys}) == 3


def test_cross_entropy_and_its_gradient_agree_with_jax() -> None:
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 5, (6, 9)), jnp.float32)
    targets = jnp.asarray([0, 8, 3, 3, 1, 5])
    loss, correct = cross_entropy(logits, targets)
    expected = -jax.nn.log_softmax(logits)[jnp.arange(6), targets]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(correct, jnp.argmax(logits, -1) == targets)
    weights = jnp.arange(6.0)
    ours = jax.grad(lambda x: jnp.sum(cross_entropy(x, targets)[0] * weights))(logits)
    theirs = jax.grad(lambda x: -jnp.sum(jax.nn.log_softmax(x)[jnp.arange(6), targets] * weights))(
        logits
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
