"""The translator against a reference written out here, and the limits of what settings change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tlc_jax.config import Impl, Model
from tlc_jax.core.params import flatten
from tlc_jax.models import flops
from tlc_jax.models.network import translator

V, S, T, B = 40, 7, 6, 3
MODEL = Model(layers=2, hidden=128, max_length=8, dropout=0.0, init="fan_in")
RNG = np.random.default_rng(0)
SOURCE = RNG.integers(5, V, (B, S)).astype(np.int32)
INPUTS = RNG.integers(5, V, (B, T)).astype(np.int32)
MASK = np.arange(S) < np.array([[7], [4], [5]])


@pytest.fixture(scope="module")
def params():
    fresh = translator(MODEL, V, Impl()).init(jax.random.key(1))
    # Biases and scales start at 0 and 1, where a mistake in their use would not show.
    noise = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + jnp.asarray(noise.normal(0, 0.05, x.shape), jnp.float32), fresh
    )


def reference(params) -> np.ndarray:
    """A pre-norm encoder-decoder in float64."""
    p = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}

    def norm(x, name, layer=...):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * p[f"{name}/scale"][layer] + p[
            f"{name}/bias"
        ][layer]

    def dense(x, name, layer):
        return x @ p[f"{name}/kernel"][layer] + p[f"{name}/bias"][layer]

    def heads(x):
        return x.reshape(*x.shape[:2], 2, 64).transpose(0, 2, 1, 3)

    def attend(x, memory, name, layer, allowed):
        q = heads(dense(x, f"{name}/query", layer))
        k, v = (heads(dense(memory, f"{name}/{part}", layer)) for part in ("key", "value"))
        scores = np.where(allowed, q @ k.transpose(0, 1, 3, 2) / 8.0, -np.inf)
        mixed = (scipy.special.softmax(scores, -1) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        return dense(mixed, f"{name}/output", layer)

    def feed_forward(x, name, layer):
        y = dense(x, f"{name}/up", layer)
        return dense(y * scipy.special.ndtr(y), f"{name}/down", layer)

    def embed(tokens):
        return norm(
            p["embedding/token"][tokens] + p["embedding/position"][: tokens.shape[1]],
            "embedding/norm",
        )

    seen = MASK[:, None, None, :]
    x = embed(SOURCE)
    for layer in range(2):
        y = norm(x, "encoder/blocks/attention_norm", layer)
        x = x + attend(y, y, "encoder/blocks/attention", layer, seen)
        x = x + feed_forward(norm(x, "encoder/blocks/ffn_norm", layer), "encoder/blocks/ffn", layer)
    memory = norm(x, "encoder_norm")
    x = embed(INPUTS)
    for layer in range(2):
        y = norm(x, "decoder/blocks/attention_norm", layer)
        x = x + attend(y, y, "decoder/blocks/attention", layer, np.tril(np.ones((T, T), bool)))
        x = x + attend(
            norm(x, "decoder/blocks/cross_norm", layer), memory, "decoder/blocks/cross", layer, seen
        )
        x = x + feed_forward(norm(x, "decoder/blocks/ffn_norm", layer), "decoder/blocks/ffn", layer)
    return norm(x, "decoder_norm") @ p["embedding/token"].T + p["output_bias"]


def logits_of(params, source=SOURCE, mask=MASK, inputs=INPUTS, **impl) -> np.ndarray:
    apply = jax.jit(translator(MODEL, V, Impl(**impl)).apply)
    return np.asarray(apply(params, source, mask, inputs))


def gradients(params, **impl):
    network = translator(MODEL, V, Impl(**impl))

    def loss(params):
        logits = network.apply(params, SOURCE, MASK, INPUTS)
        return jnp.mean(jax.nn.logsumexp(logits, -1) ** 2)

    return flatten(jax.jit(jax.grad(loss))(params))


@pytest.fixture(scope="module")
def plain(params):
    return logits_of(params)


@pytest.fixture(scope="module")
def plain_gradients(params):
    return gradients(params)


def test_logits_agree_with_the_reference(params, plain) -> None:
    np.testing.assert_allclose(plain, reference(params), atol=3e-4)


@pytest.mark.parametrize(
    ("impl", "tolerance"),
    [
        ({"layer_loop": "unrolled"}, 1e-5),
        ({"remat": True}, 1e-5),
        ({"matmul": "mix"}, 0.03),
        ({"matmul": "bfloat16"}, 0.06),
    ],
)
def test_implementation_settings_change_nothing_beyond_rounding(
    params, plain, plain_gradients, impl, tolerance
) -> None:
    np.testing.assert_allclose(
        logits_of(params, **impl), plain, atol=tolerance * np.abs(plain).max()
    )
    largest = max(float(np.abs(gradient).max()) for gradient in plain_gradients.values())
    for path, gradient in gradients(params, **impl).items():
        assert gradient.dtype == jnp.float32, path
        # That of a key bias is rounding alone, so it is measured against the others.
        size = max(float(np.abs(plain_gradients[path]).max()), 0.01 * largest)
        np.testing.assert_allclose(
            gradient, plain_gradients[path], atol=tolerance * size, err_msg=path
        )


def test_later_targets_and_padded_sources_are_never_seen(params, plain) -> None:
    later = INPUTS.copy()
    later[:, 3:] = 5
    changed = logits_of(params, inputs=later)
    np.testing.assert_allclose(changed[:, :3], plain[:, :3], atol=1e-5)
    assert np.abs(changed[:, 3:] - plain[:, 3:]).max() > 0.1
    np.testing.assert_allclose(
        logits_of(params, source=np.where(MASK, SOURCE, 11)), plain, atol=1e-5
    )
    assert np.abs(logits_of(params, source=np.where(MASK, 11, SOURCE)) - plain).max() > 0.1


def test_dropout_acts_with_a_key_alone_and_follows_it(params, plain) -> None:
    network = translator(
        Model(layers=2, hidden=128, max_length=8, dropout=0.5, init="fan_in"), V, Impl()
    )
    keys = [jax.random.wrap_key_data(jnp.full(4, n, jnp.uint32), impl="rbg") for n in (1, 1, 2)]
    apply = jax.jit(network.apply)
    first, again, other = (np.asarray(apply(params, SOURCE, MASK, INPUTS, key=key)) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(apply(params, SOURCE, MASK, INPUTS), plain, atol=1e-6)


@pytest.mark.parametrize("share", ["none", "attention", "all"])
def test_the_count_of_parameters_is_that_of_the_model(share) -> None:
    model = Model(layers=3, hidden=64, max_length=8, share=share)
    network = translator(model, V, Impl())
    leaves = flatten(network.abstract())
    total, nonembedding = network.parameter_counts()
    assert total == sum(leaf.size for leaf in leaves.values())
    assert total - nonembedding == (V + 8) * 64
    assert leaves["decoder/blocks/cross/key/kernel"].shape[0] == (3 if share == "none" else 1)


def test_the_formula_of_operations_agrees_with_the_compiler() -> None:
    model = Model(layers=2, hidden=128, max_length=32, dropout=0.0)
    network = translator(model, 512, Impl(layer_loop="unrolled"))

    def loss(params, source, mask, inputs):
        return jax.nn.logsumexp(network.apply(params, source, mask, inputs), axis=-1).sum()

    tokens = [jax.ShapeDtypeStruct((8, length), jnp.int32) for length in (24, 16)]
    mask = jax.ShapeDtypeStruct((8, 24), jnp.bool_)
    lowered = jax.jit(jax.grad(loss)).lower(network.abstract(), tokens[0], mask, tokens[1])
    measured = lowered.compile().cost_analysis()["flops"]
    formula = flops.translator_train_flops(model, 512, 8, 24, 16)
    assert formula == pytest.approx(measured, rel=0.05)
