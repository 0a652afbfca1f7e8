"""Meshes, placement rules, and equal results however arrays are placed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlc_jax import config as configs
from tlc_jax.errors import InputError
from tlc_jax.models.network import masked_language_model
from tlc_jax.selectors import flatten
from tlc_jax.training import mesh as meshes
from tlc_jax.training.objectives import masked_language
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import init_state, make_train_step, step_key

VOCABULARY = 256


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("data=-1", {"data": 8, "fsdp": 1}),
        ("data=2,fsdp=4", {"data": 2, "fsdp": 4}),
        ("fsdp=-1, data=2", {"data": 2, "fsdp": 4}),
    ],
)
def test_mesh_sizes(text, sizes) -> None:
    assert meshes.parse_mesh(text, 8) == sizes


@pytest.mark.parametrize("text", ["data=3", "data=-1,fsdp=-1", "model=8", "data", "data=0", "data=16", "data=4.5"])
def test_a_mesh_that_does_not_fit_is_refused(text) -> None:
    with pytest.raises(InputError, match="impl.mesh"):
        meshes.parse_mesh(text, 8)


def curve(mesh_text: str | None, steps: int = 3) -> tuple[list[float], dict, jax.Array]:
    """Losses of a few steps, final parameters, and the placed token embedding, on a mesh or on one device (None)."""
    model = configs.Model(layers=2, hidden=64, max_length=16, dropout=0.0)
    network = masked_language_model(model, VOCABULARY, configs.Impl())
    objective = masked_language(network, configs.Objective())
    params = network.init(jax.random.key(0))
    optimizer = adamw(configs.Optimizer(learning_rate=1e-2), params, 64)
    step = make_train_step(objective, optimizer)
    if mesh_text is None:
        place = jax.device_put
        state = init_state(params, optimizer)
        run = jax.jit(step)
    else:
        mesh = meshes.make_mesh(mesh_text)
        shardings = meshes.parameter_shardings(params, mesh)
        moments = meshes.optimizer_shardings(optimizer, params, shardings, mesh)
        state = jax.jit(
            lambda p: init_state(p, optimizer), out_shardings=type(init_state(params, optimizer))(shardings, moments)
        )(jax.device_put(params, shardings))
        run = jax.jit(step)
        place = lambda batch: meshes.put_batch(batch, mesh)  # noqa: E731
    losses = []
    for index in range(steps):
        tokens = np.random.default_rng(index).integers(5, VOCABULARY, (16, 16)).astype(np.int32)
        state, metrics = run(state, place({"tokens": tokens}), step_key(0, index), jnp.float32(0.5))
        losses.append(float(metrics.loss))
    return losses, jax.device_get(state.params), state.params["embedding"]["token"]


@pytest.fixture(scope="module")
def single():
    return curve(None)


@pytest.mark.parametrize("mesh_text", ["data=-1", "fsdp=-1", "data=2,fsdp=4"])
def test_every_mesh_gives_the_curve_of_one_device(single, mesh_text) -> None:
    losses, params, token = curve(mesh_text)
    np.testing.assert_allclose(losses, single[0], rtol=2e-5)
    for path, leaf in flatten(params).items():
        np.testing.assert_allclose(leaf, flatten(single[1])[path], atol=3e-4, err_msg=path)
    if mesh_text == "fsdp=-1":
        assert token.addressable_shards[0].data.shape == (VOCABULARY // 8, 64)


def test_a_dimension_that_does_not_divide_is_refused_with_its_path() -> None:
    params = {"embedding": {"token": jnp.zeros((30, 64))}}
    with pytest.raises(InputError, match="embedding/token has a dimension of 30, which fsdp=8 does not divide"):
        meshes.parameter_shardings(params, meshes.make_mesh("fsdp=-1"))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="batch of 12 rows does not divide among 8 devices"):
        meshes.put_batch({"tokens": np.zeros((12, 4), np.int32)}, meshes.make_mesh("data=-1"))


def test_the_table_names_every_parameter_and_its_place() -> None:
    params = {"embedding": {"token": jnp.zeros((64, 8))}, "final_norm": {"scale": jnp.zeros(8)}}
    places = meshes.specs(meshes.parameter_shardings(params, meshes.make_mesh("fsdp=-1")))
    table = meshes.describe_parameters(params, sharding=places, decay={"embedding/token": "yes"})
    assert "embedding/token" in table
    assert "64x8" in table
    assert "yes" in table
    assert "'fsdp'" in table
    assert len(table.splitlines()) == 3
