"""Meshes, placement rules, and equal results however arrays are placed."""

from __future__ import annotations

import contextlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tlc_jax import config as configs
from tlc_jax.core import mesh as meshes
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.core.params import describe_parameters, flatten
from tlc_jax.models.network import masked_language_model
from tlc_jax.tasks.masked_lm import masked_language
from tlc_jax.training import step as training_step
from tlc_jax.training.optimizer import adamw
from tlc_jax.training.step import init_state, make_train_step, step_key

VOCABULARY = 256


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("data=-1", {"data": 8, "fsdp": 1, "tensor": 1}),
        ("data=2,fsdp=4", {"data": 2, "fsdp": 4, "tensor": 1}),
        ("fsdp=-1, data=2", {"data": 2, "fsdp": 4, "tensor": 1}),
        ("tensor=2,fsdp=2,data=2", {"data": 2, "fsdp": 2, "tensor": 2}),
    ],
)
def test_mesh_sizes(text, sizes) -> None:
    assert meshes.parse_mesh(text, 8) == sizes


@pytest.mark.parametrize(
    "text", ["data=3", "data=-1,fsdp=-1", "model=8", "data", "data=0", "data=16", "data=4.5"]
)
def test_a_mesh_that_does_not_fit_is_refused(text) -> None:
    with pytest.raises(InputError, match="impl.mesh"):
        meshes.parse_mesh(text, 8)


def curve(mesh_text: str | None, steps: int = 3) -> tuple[list[float], dict, jax.Array, int]:
    """Trains a few steps on a mesh, or on one device (None).

    Returns:
      The losses, the final parameters, the placed token embedding, and the bytes of arguments and
      temporaries that the compiled step needs on each device.
    """
    model = configs.Model(layers=2, hidden=128, heads=4, max_length=16, dropout=0.0)
    network = masked_language_model(model, VOCABULARY, configs.Impl())
    objective = masked_language(network, configs.Objective())
    params = network.init(jax.random.key(0))
    optimizer = adamw(configs.Optimizer(learning_rate=1e-2), params, 128)
    step = make_train_step(objective, optimizer)
    state = init_state(params, optimizer)
    if mesh_text is None:
        place, shardings = jax.device_put, None
    else:
        placement = Placement.parse(mesh_text)
        shardings = type(state)(
            placement.shardings(params), placement.optimizer_shardings(optimizer, params)
        )
        state, place = jax.device_put(state, shardings), placement.put_batch
    compiled, losses = None, []
    for index in range(steps):
        tokens = np.random.default_rng(index).integers(5, VOCABULARY, (16, 16)).astype(np.int32)
        arguments = (state, place({"tokens": tokens}), step_key(0, index), jnp.float32(0.5))
        if compiled is None:
            with contextlib.nullcontext() if mesh_text is None else jax.set_mesh(placement.mesh):
                compiled = (
                    jax.jit(step, out_shardings=(shardings, None)).lower(*arguments).compile()
                )
        state, metrics = compiled(*arguments)
        losses.append(float(metrics.loss))
    memory = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return losses, jax.device_get(state.params), state.params["embedding"]["token"], needed


@pytest.fixture(scope="module")
def single():
    return curve(None)


@pytest.mark.parametrize(
    ("mesh_text", "shard", "memory"),
    [
        ("data=-1", (VOCABULARY, 128), 0.75),
        ("fsdp=-1", (VOCABULARY // 8, 128), 0.3),
        ("data=2,fsdp=4", (VOCABULARY // 4, 128), 0.33),
        ("data=4,tensor=2", (VOCABULARY // 2, 128), 0.55),
        ("fsdp=4,tensor=2", (VOCABULARY // 8, 128), 0.28),
    ],
)
def test_every_mesh_gives_the_curve_of_one_device_in_less_memory(
    single, mesh_text, shard, memory
) -> None:
    losses, params, token, needed = curve(mesh_text)
    np.testing.assert_allclose(losses, single[0], rtol=2e-5)
    for path, leaf in flatten(params).items():
        np.testing.assert_allclose(leaf, flatten(single[1])[path], atol=3e-4, err_msg=path)
    assert token.addressable_shards[0].data.shape == shard
    assert needed < memory * single[3]


def accumulated(mesh_text: str, dropout_keys: str, rows: int = 32) -> tuple[dict, int]:
    """Parameters after a step in two microbatches, and how many sums over devices its loop has."""
    model = configs.Model(layers=1, hidden=32, heads=2, max_length=16, dropout=0.1)
    network = masked_language_model(model, VOCABULARY, configs.Impl(layer_loop="unrolled"))
    params = network.init(jax.random.key(0))
    optimizer = adamw(configs.Optimizer(), params, 64)
    step = make_train_step(
        masked_language(network, configs.Objective()), optimizer, 2, dropout_keys
    )
    place = Placement.parse(mesh_text)
    state = init_state(place.put_params(params), optimizer)
    tokens = np.random.default_rng(0).integers(5, VOCABULARY, (rows, 16)).astype(np.int32)
    arguments = (state, place.put_batch({"tokens": tokens}), step_key(0, 0), jnp.float32(0.5))
    with jax.set_mesh(place.mesh):
        compiled = jax.jit(step).lower(*arguments).compile()
    loop = compiled.as_text().partition("\nENTRY")[0]
    inside = len(re.findall(r"all-reduce(-start)?\(", loop))
    return flatten(jax.device_get(compiled(*arguments)[0].params)), inside


@pytest.mark.parametrize(
    ("mesh_text", "dropout_keys"),
    [
        ("data=4,tensor=2", "threefry2x32"),
        ("data=2,fsdp=4", "rbg"),
        pytest.param("data=-1", "rbg", marks=pytest.mark.slow),
    ],
)
def test_gradients_travel_over_data_once_a_step(mesh_text, dropout_keys, monkeypatch) -> None:
    params, inside = accumulated(mesh_text, dropout_keys)
    plain = lambda sums, params, batch, key, *_: sums(params, batch, key)  # noqa: E731
    monkeypatch.setattr(training_step, "sum_over_data", plain)
    expected, plain_inside = accumulated(mesh_text, dropout_keys)
    for path, leaf in params.items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-6, err_msg=path)
    # What is left inside the loop are sums over the other axes.
    assert plain_inside > 0
    assert (inside == 0) == (mesh_text == "data=-1")


def test_microbatches_that_leave_rows_over_on_a_device_are_summed_all_the_same() -> None:
    params, _ = accumulated("data=-1", "rbg", rows=24)  # three rows on each of eight devices
    assert all(np.isfinite(leaf).all() for leaf in params.values())


def test_a_dimension_that_does_not_divide_is_refused_with_its_path() -> None:
    params = {"embedding": {"token": jnp.zeros((30, 64))}}
    with pytest.raises(
        InputError, match="embedding/token has a dimension of 30, which fsdp=8 does not divide"
    ):
        Placement.parse("fsdp=-1").shardings(params)
    with pytest.raises(
        InputError, match="dimension of 30, which tensor=2 x fsdp=4 does not divide"
    ):
        Placement.parse("fsdp=4,tensor=2").shardings(params)


PARAMS = {"embedding": {"token": jnp.zeros((64, 24))}, "final_norm": {"scale": jnp.zeros(8)}}


def test_own_rules_come_first() -> None:
    placement = Placement.parse("fsdp=4,tensor=2", ["embedding/.*=-,fsdp+tensor"])
    places = placement.columns(PARAMS)["sharding"]
    assert places == {"embedding/token": P(None, ("fsdp", "tensor")), "final_norm/scale": P()}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("embedding/token", "is not a rule; write PATTERN=AXES"),
        ("embedding/token=-,model", "is not a rule"),
        ("embedding/token=fsdp,fsdp", "each axis once"),
        ("embedding/(=fsdp", "is not a regular expression"),
        ("embeddings/token=fsdp", "matches no parameter"),
        ("embedding/token=-,-,fsdp", "embedding/token has 2 dimensions and its rule names 3"),
        ("final_norm/scale=fsdp+tensor+data", ""),
        ("embedding/token=-,data+fsdp+tensor", ""),
        (".*=fsdp+data,-", "final_norm/scale has 1 dimensions"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(rule, message) -> None:
    if not message:
        Placement.parse("fsdp=4,tensor=2", [rule]).shardings(PARAMS)
        return
    with pytest.raises(InputError, match=message):
        Placement.parse("fsdp=4,tensor=2", [rule]).shardings(PARAMS)


def test_a_batch_is_split_over_its_axes_alone() -> None:
    for method in (Placement.put_batch, Placement.for_step):
        with pytest.raises(InputError, match="batch of 12 rows does not divide among 8 devices"):
            method(Placement.parse("data=-1"), {"tokens": np.zeros((12, 4), np.int32)})
    placed = Placement.parse("data=2,tensor=4").put_batch({"tokens": np.zeros((12, 4), np.int32)})
    assert {shard.data.shape for shard in placed["tokens"].addressable_shards} == {(6, 4)}


@pytest.mark.parametrize(("platform", "placed"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_batches_for_accelerators_are_placed_before_the_step(platform, placed, monkeypatch) -> None:
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(devices=np.array([device]), shape=dict.fromkeys(meshes.AXES, 1))
    monkeypatch.setattr(Placement, "put_batch", lambda self, batch, rows: "placed")
    batch = {"tokens": np.zeros((8, 4), np.int32)}
    found = Placement(mesh).for_step(batch)  # type: ignore[arg-type]
    assert found == "placed" if placed else found is batch


def test_the_table_names_every_parameter_its_place_and_bytes() -> None:
    columns = Placement.parse("fsdp=-1").columns(PARAMS)
    assert columns["bytes_per_device"] == {
        "embedding/token": 64 * 24 * 4 // 8,
        "final_norm/scale": 32,
    }
    table = describe_parameters(PARAMS, **columns, decay={"embedding/token": "yes"})
    assert "embedding/token" in table
    assert "64x24" in table
    assert "yes" in table
    assert "'fsdp'" in table
    assert len(table.splitlines()) == 3
