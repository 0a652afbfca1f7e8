"""The gradient noise scale: known noise, devices and microbatches, unchanged bits, resumption."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tlc_jax import config as configs
from tlc_jax.core.mesh import Placement
from tlc_jax.core.params import flatten
from tlc_jax.models.network import masked_language_model
from tlc_jax.tasks.masked_lm import masked_language
from tlc_jax.training.noise_scale import NoiseScale
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import Objective, Sums, init_state, jit_step, make_train_step, seed_bits

SIZE, ROWS = 50, 64
STILL = optax.with_extra_args_support(optax.set_to_zero())


def weighted_rows(params, batch, key):
    """Half the squared distance to each row, whose gradient is params minus row."""
    distance_B = jnp.sum((params["w"] - batch["x"]) ** 2, axis=1) / 2
    loss = jnp.sum(distance_B * batch["weights"])
    return Sums(loss, jnp.sum(batch["weights"]), jnp.zeros(())), distance_B


QUADRATIC = Objective(lambda key, batch: batch, weighted_rows)


def metrics_of(place, parts, batches, freeze=lambda gradient, optimizer_state: gradient):
    """(norm, variance) of the gradient in each step of a quadratic that does not move."""
    step = make_train_step(QUADRATIC, STILL, parts, "rbg", freeze, noise_scale=True)
    state = init_state({"w": jnp.zeros(SIZE)}, STILL)
    with jax.set_mesh(place.mesh):
        jitted = jax.jit(step)
        for batch in batches:
            batch = place.put_batch(batch)
            metrics = jitted(state, batch, jax.random.key(0), jnp.float32(0))[1]
            yield float(metrics.gradient_norm), float(metrics.gradient_variance)


ONE = Placement.parse("data=1", devices=jax.devices()[:1])


@pytest.mark.parametrize("weights", ["equal", "unequal"])
def test_noise_scale_of_known_noise(weights) -> None:
    random = np.random.default_rng(0)
    mean = random.normal(size=SIZE)
    deviation = np.geomspace(1.0, 10.0, SIZE)
    # A row of weight w is the mean of w independent ones, as text with w predicted positions is.
    weight_B = np.tile([1.0] * 4 if weights == "equal" else [0.2, 0.6, 1.2, 4.0], ROWS // 4)
    weight_B *= ROWS / weight_B.sum()
    batches = (
        {
            "x": mean + random.normal(size=(ROWS, SIZE)) * deviation / np.sqrt(weight_B)[:, None],
            "weights": weight_B,
        }
        for _ in range(400)
    )
    noise = NoiseScale(ROWS)
    for norm, variance in metrics_of(ONE, 4, batches):
        noise.add(norm, variance)
    expected = np.sum(deviation**2) / np.sum(mean**2)
    assert noise.value == pytest.approx(expected, rel=0.1)


def test_devices_and_microbatches_of_the_same_rows_agree() -> None:
    random = np.random.default_rng(0)
    batch = {
        "x": random.normal(1.0, 1.0, (ROWS, SIZE)).astype(np.float32),
        "weights": random.uniform(0.5, 2.0, ROWS).astype(np.float32),
    }
    # A device takes rows that follow each other, and microbatches take turns.
    in_turn = {name: x.reshape(8, 8, -1).swapaxes(0, 1) for name, x in batch.items()}
    in_turn = {name: x.reshape(batch[name].shape) for name, x in in_turn.items()}
    eight = Placement.parse("data=-1")
    (expected,) = metrics_of(ONE, 8, [in_turn])
    for mesh, parts, rows in [("data=-1", 1, batch), ("data=2,fsdp=4", 4, None)]:
        if rows is None:  # two groups, each of which takes four microbatches in turn
            rows = {name: x.reshape(2, 4, 8, -1).swapaxes(1, 2) for name, x in batch.items()}
            rows = {name: x.reshape(batch[name].shape) for name, x in rows.items()}
        (found,) = metrics_of(Placement.parse(mesh), parts, [rows])
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Other small batches of the same rows give another estimate.
    (other,) = metrics_of(eight, 1, [in_turn])
    assert abs(other[1] / expected[1] - 1) > 1e-3


def test_entries_that_are_not_trained_do_not_count() -> None:
    random = np.random.default_rng(0)
    batch = {"x": random.normal(1.0, 1.0, (ROWS, SIZE)), "weights": np.ones(ROWS)}
    half = {**batch, "x": batch["x"] * (np.arange(SIZE) < SIZE // 2)}
    (expected,) = metrics_of(ONE, 4, [half])

    def freeze(gradient, optimizer_state):
        return jax.tree.map(lambda g: g * (jnp.arange(SIZE) < SIZE // 2), gradient)

    (found,) = metrics_of(ONE, 4, [batch], freeze)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def trained(mesh: str, parts: int, noise_scale: bool):
    """Parameters after two steps with dropout, and the metrics of the last one."""
    devices = None if mesh != "data=1" else jax.devices()[:1]
    place = Placement.parse(mesh, devices=devices)
    model = configs.Model(layers=1, hidden=32, heads=2, max_length=16, dropout=0.1)
    network = masked_language_model(model, 256, configs.Impl(layer_loop="unrolled"))
    params = network.init(jax.random.key(0))
    optimizer = adamw(configs.Optimizer(learning_rate=1e-2, clip_norm=0.1), params, 32)
    objective = masked_language(network, configs.Objective())
    step = make_train_step(objective, optimizer, parts, noise_scale=noise_scale)
    state = init_state(place.put_params(params), optimizer)
    shardings = type(state)(place.shardings(params), place.optimizer_shardings(optimizer, params))
    state = jax.device_put(state, shardings)
    with jax.set_mesh(place.mesh):
        jitted = jit_step(step, state, place)
        for index in range(2):
            tokens = np.random.default_rng(index).integers(5, 256, (32, 16)).astype(np.int32)
            batch, number = place.put_batch({"tokens": tokens}), np.int32(index)
            state, metrics, _ = jitted(state, batch, seed_bits(0), number, np.float32(0.5), None)
    return flatten(jax.device_get(state.params)), np.asarray(metrics)


@pytest.mark.parametrize(
    ("mesh", "parts"),
    [
        ("data=-1", 2),
        pytest.param("data=1", 4, marks=pytest.mark.slow),
        pytest.param("data=2,fsdp=4", 1, marks=pytest.mark.slow),
    ],
)
def test_measuring_changes_no_bit_of_training(mesh, parts, monkeypatch) -> None:
    # The bits are those of XLA's usual emitters, which conftest.py turns off.
    monkeypatch.setattr(Placement, "compiler_options", {"xla_backend_extra_options": ""})
    expected, plain = trained(mesh, parts, False)
    params, measured = trained(mesh, parts, True)
    # Without microbatches, devices add up their gradients in another order.
    tolerance = 0.0 if parts > 1 else 1e-6
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=tolerance, err_msg=path)
    np.testing.assert_allclose(measured[:3], plain, rtol=tolerance)
    assert 0 < measured[3] < 2 * measured[2] ** 2
