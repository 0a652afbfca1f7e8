"""Attention's TPU kernels in Pallas's interpreter, against plain JAX. None has run on a TPU."""

from __future__ import annotations

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from tlc_jax import config
from tlc_jax.core.mesh import Placement, sum_over_data
from tlc_jax.models import tpu_attention
from tlc_jax.models.network import Network


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list[str]:
    """Kernels run in the interpreter; the names of those that were traced."""
    made, call = [], pl.pallas_call
    jax.clear_caches()

    def interpreted(kernel, **kwargs):
        made.append(kwargs["name"])
        return call(kernel, interpret=True, **kwargs)

    monkeypatch.setattr(pl, "pallas_call", interpreted)
    return made


def plain(q, k, v, lengths_B, causal):
    mask = None
    if lengths_B is not None:
        mask = (jnp.arange(k.shape[1]) < lengths_B[:, None])[:, None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


@functools.partial(jax.jit, static_argnums=(0, 1))
def with_gradients(attention, causal, q, k, v, lengths_B, g):
    y, gradients = jax.vjp(lambda q, k, v: attention(q, k, v, lengths_B, causal), q, k, v)
    return y, *gradients(g)


def arguments(shape, padded, dtype=jnp.float32, seeds=()):
    B, T, L, H, E = shape
    draw = np.random.default_rng(0).normal
    q, g = (jnp.asarray(draw(size=(*seeds, B, T, H, E)), dtype) for _ in range(2))
    k, v = (jnp.asarray(draw(size=(*seeds, B, L, H, E)), dtype) for _ in range(2))
    lengths = 1 + np.arange(np.prod((*seeds, B))).reshape(*seeds, B) * 7 % L
    return q, k, v, jnp.asarray(lengths, jnp.int32) if padded else None, g


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(np.asarray(other, np.float32)).max()
        np.testing.assert_allclose(
            np.asarray(one, np.float32), np.asarray(other, np.float32), atol=tolerance * scale
        )


SHAPES = [
    ((4, 128, 128, 2, 64), True, False),
    ((8, 24, 24, 4, 64), False, False),
    ((3, 20, 20, 3, 64), True, True),  # an odd number of heads, in one block
    ((2, 5, 37, 4, 32), True, False),  # attention to another sequence
    ((2, 40, 40, 1, 128), False, True),
]


@pytest.mark.parametrize(("shape", "padded", "causal"), SHAPES, ids=str)
def test_kernels_compute_what_plain_jax_computes(calls, shape, padded, causal) -> None:
    expected = with_gradients(plain, causal, *arguments(shape, padded))
    attention = tpu_attention.attention
    found = with_gradients(attention, causal, *arguments(shape, padded))
    assert calls == ["attention_forward", "attention_backward"]
    assert_close(found, expected, 1e-6)
    rounded = with_gradients(attention, causal, *arguments(shape, padded, jnp.bfloat16))
    assert {y.dtype for y in rounded} == {jnp.dtype(jnp.bfloat16)}
    assert_close(rounded, expected, 0.02)


def test_kernels_can_be_mapped_over_seeds() -> None:
    many = arguments((4, 16, 16, 2, 64), True, seeds=(3,))
    mapped = jax.vmap(functools.partial(with_gradients, tpu_attention.attention, False))(*many)
    for seed in range(3):
        own = [argument[seed] for argument in many]
        assert_close([y[seed] for y in mapped], with_gradients(plain, False, *own), 1e-6)


@pytest.mark.parametrize("mesh", ["data=8", "data=2,fsdp=2,tensor=2", "data=2,tensor=4"])
def test_each_device_computes_its_own_rows_and_heads(calls, monkeypatch, mesh) -> None:
    shape, placement = (8, 16, 16, 2, 64), Placement.parse(mesh)
    expected = with_gradients(plain, True, *arguments(shape, True))
    blocks, forward = [], tpu_attention._forward

    def counted(*refs, **kwargs):
        blocks.append(refs[1].shape)
        return forward(*refs, **kwargs)

    monkeypatch.setattr(tpu_attention, "_forward", counted)
    step = placement.jit(functools.partial(with_gradients, tpu_attention.attention, True))
    with jax.set_mesh(placement.mesh):
        assert_close(step(*arguments(shape, True)), expected, 1e-6)
    # Two heads do not divide among four devices.
    lanes = 64 if mesh.endswith("tensor=2") else 128
    assert blocks == [(8 // placement.batch_shards, 16, lanes)]


@pytest.mark.parametrize("mesh", ["data=8", "data=2,fsdp=2,tensor=2"])
def test_kernels_run_where_each_group_of_devices_adds_up_its_own_rows(mesh) -> None:
    batch, placement = arguments((8, 16, 16, 2, 64), True), Placement.parse(mesh)

    def sums(attention, params, batch, key):
        return [jnp.sum(y, axis=0) for y in with_gradients(attention, False, *batch)]

    add_up = functools.partial(sum_over_data, functools.partial(sums, tpu_attention.attention))
    with jax.set_mesh(placement.mesh):
        found = placement.jit(add_up)({}, batch, jax.random.key(0))
    assert_close(found, sums(plain, {}, batch, None), 1e-6)


def test_rows_that_do_not_divide_among_devices_are_computed_by_each() -> None:
    shape, placement = (3, 16, 16, 2, 64), Placement.parse("data=8")
    step = placement.jit(functools.partial(with_gradients, tpu_attention.attention, False))
    with jax.set_mesh(placement.mesh):
        found = step(*arguments(shape, True))
    assert_close(found, with_gradients(plain, False, *arguments(shape, True)), 1e-6)


def test_scores_that_are_too_large_are_left_to_xla(calls, monkeypatch) -> None:
    monkeypatch.setattr(tpu_attention, "_LARGEST", 2 * 16 * 16 - 1)
    one = arguments((4, 16, 16, 2, 64), True)
    found = with_gradients(tpu_attention.attention, False, *one)
    assert not calls
    assert_close(found, with_gradients(plain, False, *one), 1e-6)


def test_a_translator_computes_the_same_with_either_attention(calls) -> None:
    model = config.Model(layers=1, hidden=32, heads=2, max_length=16)
    tokens = jnp.asarray(np.random.default_rng(0).integers(5, 60, (4, 12)), jnp.int32)
    tokens = tokens.at[:, 9:].set(0).at[0, 4:].set(0)

    def loss(attention: str):
        impl = config.Impl(matmul="bfloat16", attention=attention)
        network = Network("translator", model, 64, 0, impl)

        def of(params):
            return jnp.mean(network.apply(params, tokens, tokens > 0, tokens) ** 2)

        value, gradients = jax.jit(jax.value_and_grad(of))(network.init(jax.random.key(0)))
        # One array of all gradients: that of keys' biases is nothing but rounding.
        return value, jax.flatten_util.ravel_pytree(gradients)[0]

    expected = loss("xla")
    assert not calls
    assert_close(loss("pallas"), expected, 0.02)
    # In its encoder, in its decoder, and from there to the source.
    assert calls.count("attention_forward") >= 3
