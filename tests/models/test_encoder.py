"""The encoder against a reference written out here, and the limits of what settings change."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tlc_jax.config import Impl, Model
from tlc_jax.core.params import flatten
from tlc_jax.models.network import classifier, masked_language_model

V, L, B = 40, 8, 3
MODEL = Model(layers=2, hidden=128, max_length=L, dropout=0.0, init="fan_in")
TOKENS = np.random.default_rng(0).integers(5, V, (B, L)).astype(np.int32)
POSITIONS = np.array([[0, 3], [7, 1], [2, 2]], np.int32)


@pytest.fixture(scope="module")
def params():
    return made(MODEL)


def made(model):
    fresh = masked_language_model(model, V, Impl()).init(jax.random.key(1))
    # Biases and scales start at 0 and 1, where a mistake in their use would not show.
    noise = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + jnp.asarray(noise.normal(0, 0.05, x.shape), jnp.float32), fresh
    )


ACTIVATIONS = {
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


def reference_hidden(params, tokens, mask=None, model=MODEL):
    """Transformer layers in float64."""
    activation, pre_norm = ACTIVATIONS[model.activation], model.norm == "pre"
    p = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}

    def norm(x, name, layer=...):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        x = (x - mean) / np.sqrt(variance + model.norm_epsilon)
        return x * p[f"{name}/scale"][layer] + p[f"{name}/bias"][layer]

    def dense(x, name, layer=...):
        return x @ p[f"{name}/kernel"][layer] + p[f"{name}/bias"][layer]

    def heads(x):
        return x.reshape(*x.shape[:2], model.heads or 2, model.head_size or 64).transpose(
            0, 2, 1, 3
        )

    def attend(x, layer):
        q, k, v = (
            heads(dense(x, f"blocks/attention/{name}", layer)) for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        if mask is not None:
            scores = np.where(mask[:, None, None, :], scores, -np.inf)
        mixed = (
            (scipy.special.softmax(scores, -1) @ v).transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        )
        return dense(mixed, "blocks/attention/output", layer)

    def feed_forward(x, layer):
        return dense(activation(dense(x, "blocks/ffn/up", layer)), "blocks/ffn/down", layer)

    x = p["embedding/token"][tokens] + p["embedding/position"][: tokens.shape[1]]
    if model.token_types:
        first = [
            list(row).index(model.separator) if model.separator in row else L for row in tokens
        ]
        x = (
            x
            + p["embedding/token_type"][
                (np.arange(tokens.shape[1]) > np.array(first)[:, None]).astype(int)
            ]
        )
    x = norm(x, "embedding/norm")
    for layer in range(2):
        for sublayer, name in (
            (attend, "blocks/attention_norm"),
            (feed_forward, "blocks/ffn_norm"),
        ):
            x = (
                x + sublayer(norm(x, name, layer), layer)
                if pre_norm
                else norm(x + sublayer(x, layer), name, layer)
            )
    return norm(x, "final_norm") if pre_norm else x, norm, dense, p


def reference_logits(params, tokens, positions, model=MODEL):
    x, norm, dense, p = reference_hidden(params, tokens, model=model)
    x = np.take_along_axis(x, positions[:, :, None], 1)
    y = ACTIVATIONS[model.activation](dense(x, "mlm_head/dense"))
    return norm(y, "mlm_head/norm") @ p["embedding/token"].T + p["mlm_head/bias"]


def logits_of(params, **impl) -> np.ndarray:
    apply = jax.jit(masked_language_model(MODEL, V, Impl(**impl)).apply)
    return np.asarray(apply(params, TOKENS, POSITIONS))


def test_logits_agree_with_the_reference_at_the_chosen_positions(params) -> None:
    np.testing.assert_allclose(
        logits_of(params), reference_logits(params, TOKENS, POSITIONS), atol=2e-4
    )


@pytest.mark.parametrize(
    "switches",
    [
        {"norm": "post", "norm_epsilon": 1e-2},
        {"activation": "gelu_tanh"},
        {"activation": "relu"},
        {"token_types": 2, "separator": 7},
        {"token_types": 1, "separator": 7},
        # Narrower inside than the residual stream, as where heads were removed.
        {"heads": 3, "head_size": 16},
        {
            "norm": "post",
            "activation": "relu",
            "token_types": 2,
            "separator": 7,
            "heads": 2,
            "head_size": 32,
        },
    ],
    ids=str,
)
def test_switches_of_the_architecture_agree_with_the_reference(switches) -> None:
    model = dataclasses.replace(MODEL, **switches)
    tokens = TOKENS.copy()
    tokens[0, [2, 5]] = tokens[1, 7] = 7  # a pair, a single text, and a row without a separator
    tokens[2] = np.where(tokens[2] == 7, 8, tokens[2])
    params = made(model)
    assert ("final_norm" in params) == (model.norm == "pre")
    apply = jax.jit(masked_language_model(model, V, Impl()).apply)
    logits = np.asarray(apply(params, tokens, POSITIONS))
    if model.token_types == 1:  # the one type is every token's
        params["embedding"]["position"] += params["embedding"].pop("token_type")
        model = dataclasses.replace(model, token_types=0)
    np.testing.assert_allclose(
        logits, reference_logits(params, tokens, POSITIONS, model), atol=2e-4
    )


def gradients(params, **impl):
    network = masked_language_model(MODEL, V, Impl(**impl))
    loss = jax.jit(
        jax.grad(lambda p: jnp.mean(jax.nn.logsumexp(network.apply(p, TOKENS, POSITIONS), -1) ** 2))
    )
    return flatten(loss(params))


@pytest.fixture(scope="module")
def plain(params):
    return logits_of(params), gradients(params)


@pytest.mark.parametrize(
    ("impl", "tolerance"),
    [
        ({"layer_loop": "unrolled"}, 1e-5),
        ({"remat": True}, 1e-5),
        ({"layer_loop": "unrolled", "remat": True}, 1e-5),
        ({"matmul": "mix"}, 0.03),
        ({"matmul": "bfloat16"}, 0.06),
    ],
)
def test_implementation_settings_change_nothing_beyond_rounding(
    params, plain, impl, tolerance
) -> None:
    logits, reference = plain
    scale = np.abs(logits).max()
    np.testing.assert_allclose(logits_of(params, **impl), logits, atol=tolerance * scale)
    largest = max(float(np.abs(gradient).max()) for gradient in reference.values())
    for path, gradient in gradients(params, **impl).items():
        assert gradient.dtype == jnp.float32, path
        # A key bias moves all scores of a query alike, so its gradient is rounding alone and is
        # measured against the other gradients.
        size = max(float(np.abs(reference[path]).max()), 0.01 * largest)
        np.testing.assert_allclose(gradient, reference[path], atol=tolerance * size, err_msg=path)


def test_dropout_acts_with_a_key_alone_and_follows_it(params) -> None:
    network = masked_language_model(dataclasses.replace(MODEL, dropout=0.5), V, Impl())
    keys = [jax.random.wrap_key_data(jnp.full(4, n, jnp.uint32), impl="rbg") for n in (1, 1, 2)]
    apply = jax.jit(network.apply)
    first, again, other = (np.asarray(apply(params, TOKENS, POSITIONS, key=key)) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(apply(params, TOKENS, POSITIONS), logits_of(params), atol=1e-6)


@pytest.mark.parametrize(
    ("share", "lengths"),
    [("none", {3}), ("attention", {1, 3}), ("all", {1})],
)
def test_shared_layers_have_one_set_of_parameters(share, lengths) -> None:
    model = Model(layers=3, hidden=64, max_length=L, share=share)
    network = masked_language_model(model, V, Impl())
    blocks = flatten(network.abstract()["blocks"])
    assert {leaf.shape[0] for leaf in blocks.values()} == lengths
    assert blocks["attention/query/kernel"].shape[0] == (3 if share == "none" else 1)
    assert blocks["ffn/up/kernel"].shape[0] == (1 if share == "all" else 3)
    shared = network.init(jax.random.key(0))
    # Sharing is the same as three equal copies.
    copies = masked_language_model(dataclasses.replace(model, share="none"), V, Impl())
    spread = {
        **shared,
        "blocks": jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape[1:])), shared["blocks"]),
    }
    if share == "all":
        np.testing.assert_allclose(
            jax.jit(network.apply)(shared, TOKENS, POSITIONS),
            jax.jit(copies.apply)(spread, TOKENS, POSITIONS),
            atol=1e-5,
        )


def test_padding_does_not_reach_real_positions() -> None:
    network = classifier(MODEL, V, 3, Impl())
    params = network.init(jax.random.key(0))
    short = TOKENS[:, :5]
    padded = np.zeros((B, L), np.int32)
    padded[:, :5] = short
    apply = jax.jit(network.apply)
    np.testing.assert_allclose(
        apply(params, padded, padded != 0), apply(params, short, short != 0), atol=1e-5
    )


def test_fresh_parameters_are_a_function_of_the_key() -> None:
    network = masked_language_model(MODEL, V, Impl())
    first, again, other = (flatten(network.init(jax.random.key(seed))) for seed in (0, 0, 1))
    for path, leaf in first.items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, again[path])
    assert np.any(first["embedding/token"] != other["embedding/token"])
    layers = first["blocks/ffn/up/kernel"]
    assert np.any(layers[0] != layers[1])
    assert float(jnp.std(layers)) == pytest.approx(128**-0.5, rel=0.1)
    normal = flatten(
        masked_language_model(dataclasses.replace(MODEL, init="normal"), V, Impl()).init(
            jax.random.key(0)
        )
    )
    assert float(jnp.std(normal["blocks/ffn/up/kernel"])) == pytest.approx(0.02, rel=0.15)
    assert float(jnp.std(normal["embedding/position"])) == pytest.approx(0.02, rel=0.15)
