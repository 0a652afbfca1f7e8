"""Affine maps, norms, GELU and dropout in every precision against plain arithmetic."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlc_jax.core.mesh import Placement
from tlc_jax.models.dropout import OwnWidthKey, _philox_bits, dropout, random_bits
from tlc_jax.models.numerics import affine, gelu, layer_norm

TOLERANCE = {"float32": 1e-5, "mix": 0.03, "bfloat16": 0.03}
# Rows, inputs, outputs. Wide and narrow, a single row, three classes, sizes that no vector register
# divides: XLA compiles each differently on CPUs, which lack some bfloat16 products.
SHAPES = [(80, 64, 500), (80, 256, 64), (1, 64, 3), (5, 3, 1), (7, 33, 65)]


def problem(rows: int, inputs: int, outputs: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    shapes = [(rows, inputs), (inputs, outputs), (outputs,), (rows, outputs)]
    return tuple(random.normal(size=shape).astype(np.float32) for shape in shapes)


def with_gradients(precision: str, stored_as_OxI: bool):
    def loss(x, kernel, bias, weights):
        y = affine(x, kernel, bias, precision, stored_as_OxI)
        return jnp.sum(y.astype(jnp.float32) * weights), y

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)


def close(actual, expected, precision: str) -> None:
    expected = np.asarray(expected, np.float32)
    atol = TOLERANCE[precision] * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(np.asarray(actual, np.float32), expected, atol=atol)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("stored_as_OxI", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_affine_map_and_its_gradients(shape, stored_as_OxI, precision) -> None:
    x, kernel, bias, weights = problem(*shape)
    stored = np.ascontiguousarray(kernel.T) if stored_as_OxI else kernel
    (_, y), gradients = jax.jit(with_gradients(precision, stored_as_OxI))(x, stored, bias, weights)
    assert y.dtype == (jnp.bfloat16 if precision == "bfloat16" else jnp.float32)
    close(y, x @ kernel + bias, precision)
    kernel_gradient = weights.T @ x if stored_as_OxI else x.T @ weights
    for actual, expected in zip(
        gradients, (weights @ kernel.T, kernel_gradient, weights.sum(0)), strict=True
    ):
        assert actual.dtype == jnp.float32
        close(actual, expected, precision)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_affine_maps_can_be_mapped_over_seeds(precision) -> None:
    problems = [problem(20, 64, 48, seed) for seed in (0, 1)]
    stacked = [np.stack(arrays) for arrays in zip(*problems, strict=True)]
    (_, y), gradients = jax.jit(jax.vmap(with_gradients(precision, False)))(*stacked)
    assert y.shape == (2, 20, 48)
    assert [gradient.shape for gradient in gradients] == [(2, 20, 64), (2, 64, 48), (2, 48)]
    for index, (x, kernel, bias, weights) in enumerate(problems):
        close(y[index], x @ kernel + bias, precision)
        for actual, expected in zip(
            gradients, (weights @ kernel.T, x.T @ weights, weights.sum(0)), strict=True
        ):
            close(actual[index], expected, precision)


def test_leading_axes_are_kept() -> None:
    x, kernel, bias, _ = problem(12, 8, 5)
    y = affine(x.reshape(2, 3, 2, 8), kernel, bias, "float32")
    np.testing.assert_allclose(y, (x @ kernel + bias).reshape(2, 3, 2, 5), rtol=1e-5)


@pytest.mark.parametrize("generator", ["rbg", "threefry2x32"])
def test_dropout_keeps_the_expectation(generator) -> None:
    x = jnp.full((301, 333), 3.0)  # an odd number of elements
    key = jax.random.key(0, impl=generator)
    dropped = np.asarray(jax.jit(lambda key, x: dropout(key, x, 0.1))(key, x))
    assert set(np.unique(dropped)) == {np.float32(0.0), np.float32(3.0) / np.float32(0.9)}
    assert np.mean(dropped == 0) == pytest.approx(0.1, abs=0.005)
    # Neighbors, which share a draw of 32 bits, are dropped independently.
    both = (dropped[:, :-1] == 0) & (dropped[:, 1:] == 0)
    assert np.mean(both) == pytest.approx(0.01, abs=0.002)
    np.testing.assert_array_equal(dropped, dropout(key, x, 0.1))
    assert np.any(dropped != dropout(jax.random.key(1, impl=generator), x, 0.1))


def test_dropout_without_a_key_or_a_rate_is_the_identity() -> None:
    x = jnp.arange(6.0)
    assert dropout(None, x, 0.5) is x
    assert dropout(jax.random.key(0), x, 0.0) is x


@pytest.mark.parametrize("mesh", ["data=8", "data=2,fsdp=2,tensor=2"])
def test_each_device_draws_the_random_bits_of_its_own_rows(mesh) -> None:
    """The compiler does not divide rbg: left alone, every device would draw all rows' bits."""
    placement = Placement.parse(mesh)
    x = placement.put_batch({"x": np.ones((64, 32, 32), np.float32)})["x"]
    with jax.set_mesh(placement.mesh):
        compiled = (
            jax.jit(lambda key, x: dropout(key, x, 0.1))
            .lower(jax.random.key(3, impl="rbg"), x)
            .compile()
        )
        dropped = np.asarray(compiled(jax.random.key(3, impl="rbg"), x)) == 0
    # The generator makes four words at a time, which is eight elements.
    assert f"u32[{64 * 32 * 32 // 8}]" not in compiled.as_text()
    assert f"u32[{64 * 32 * 32 // 8 // placement.batch_shards}]" in compiled.as_text()
    assert dropped.mean() == pytest.approx(0.1, abs=0.01)
    parts = np.split(dropped, placement.batch_shards)
    # Each device has a key of its own.
    assert not any(np.array_equal(parts[0], part) for part in parts[1:])


@pytest.mark.parametrize("generator", ["rbg", "threefry2x32"])
@pytest.mark.parametrize("mesh", ["data=1", "data=8"])
def test_a_mapped_seed_draws_the_bits_that_it_draws_alone(generator, mesh) -> None:
    devices = jax.devices()[: 1 if mesh == "data=1" else 8]
    placement = Placement.parse(mesh, devices=devices)
    rows, width, hidden = 16, 6, 16
    keys = jax.random.split(jax.random.key(1, impl=generator), 3)
    widths = np.array([4, 6, 2])

    def together(keys, widths):
        of_rows = jnp.broadcast_to(widths[:, None], (3, rows)).astype(jnp.uint32)
        draw = lambda key, own: OwnWidthKey(key, own).bits((rows, width, hidden))  # noqa: E731
        flat = lambda key, own: OwnWidthKey(key, own).bits((rows, hidden))  # noqa: E731
        return jax.vmap(draw)(keys, of_rows), jax.vmap(flat)(keys, of_rows)

    padded, flat = placement.jit(together)(keys, widths)
    for seed, own in enumerate(widths):
        alone = placement.jit(lambda key, own=own: random_bits(key, (rows, int(own), hidden)))
        np.testing.assert_array_equal(padded[seed, :, :own], alone(keys[seed]))
        alone = placement.jit(lambda key: random_bits(key, (rows, hidden)))
        np.testing.assert_array_equal(flat[seed], alone(keys[seed]))


def test_counters_of_rbg_carry_like_those_of_xla() -> None:
    for last in ([0xFFFFFFFF, 7], [0xFFFFFFF0, 0xFFFFFFFF]):
        data = jnp.array([0xFFFFFFFF, 1, *last], jnp.uint32)
        drawn = random_bits(jax.random.wrap_key_data(data, impl="rbg"), (40, 64))
        computed = _philox_bits(data, jnp.arange(40, dtype=jnp.uint32), 64)
        np.testing.assert_array_equal(computed, drawn)


def test_draws_of_threefry_are_the_same_on_any_mesh() -> None:
    key, x = jax.random.key(3, impl="threefry2x32"), np.ones((64, 32, 32), np.float32)
    placement = Placement.parse("data=4,fsdp=2")
    with jax.set_mesh(placement.mesh):
        split = jax.jit(lambda x: dropout(key, x, 0.1))(placement.put_batch({"x": x})["x"])
    np.testing.assert_array_equal(split, jax.jit(lambda x: dropout(key, x, 0.1))(x))


def test_gelu_and_its_gradient_are_exact() -> None:
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    expected = np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    np.testing.assert_allclose(jax.jit(gelu)(x), expected, atol=5e-7)
    gradient = jax.vmap(jax.grad(gelu))(x)
    theirs = jax.vmap(jax.grad(lambda v: jax.nn.gelu(v, approximate=False)))(x)
    np.testing.assert_allclose(gradient, theirs, atol=5e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm_and_its_gradients_are_those_of_plain_arithmetic(dtype) -> None:
    generator = np.random.default_rng(0)
    x, g = generator.normal(3, 2, (4, 6, 32)), generator.normal(size=(4, 6, 32))
    scale, bias = generator.normal(1, 0.1, 32), generator.normal(0, 0.1, 32)
    x, g = jnp.asarray(x, dtype), jnp.asarray(g, dtype)
    scale, bias = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)

    def plain(x, scale, bias):
        x = x.astype(jnp.float32)
        centered = x - x.mean(-1, keepdims=True)
        deviation = jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
        return (centered / deviation * scale + bias).astype(dtype)

    ours = lambda x, scale, bias: layer_norm(x, scale, bias, 1e-5, dtype)  # noqa: E731
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for found, expected in zip(
        jax.tree.leaves(jax.vjp(ours, x, scale, bias)[1](g)),
        jax.tree.leaves(jax.vjp(plain, x, scale, bias)[1](g)),
        strict=True,
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(
            found.astype(jnp.float32), expected.astype(jnp.float32), rtol=tolerance, atol=tolerance
        )
    np.testing.assert_allclose(
        ours(x, scale, bias).astype(jnp.float32),
        plain(x, scale, bias).astype(jnp.float32),
        rtol=tolerance,
        atol=tolerance,
    )
