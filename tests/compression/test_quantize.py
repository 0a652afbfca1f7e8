from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import trees
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import dequantize_leaf
from tlc_jax.compression.quantize import quantize_leaf, round_weights
from tlc_jax.compression.recipe import Quantize, Recipe, parse_recipe
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten

ALL_BITS = range(2, 9)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize(("per", "axes"), [("channel", (1,)), ("tensor", (1, 2))])
def test_aqt_agrees_with_a_plain_reference(bits: int, per: str, axes: tuple[int, ...]) -> None:
    w = weights(2, 16, 8)
    q = quantize_leaf("x/kernel", w, Quantize(bits, per))
    bound = np.float32(
        2 ** (bits - 1) - 0.5
    )  # AQT puts the largest value on the outer edge of the last bucket
    np.testing.assert_allclose(q.scale, np.abs(w).max(axes, keepdims=True) / bound, rtol=1e-6)
    highest = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(w * (np.float32(1) / q.scale)), -highest, highest)
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(dequantize_leaf(q), codes.astype(np.float32) * q.scale)
    assert np.abs(dequantize_leaf(q) - w).max() <= q.scale.max() / 2 * (1 + 1e-5)
    assert q.zero is None


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize(("per", "axes"), [("channel", (1,)), ("tensor", (1, 2))])
def test_minmax_is_the_papers_formula(bits: int, per: str, axes: tuple[int, ...]) -> None:
    w = weights(2, 16, 8)
    q = quantize_leaf("x/kernel", w, Quantize(bits, per, scheme="minmax"))
    low, high = w.min(axes, keepdims=True), w.max(axes, keepdims=True)
    delta = (high - low) / np.float32(2**bits - 1)
    codes = np.rint((np.clip(w, low, high) - low) / delta)
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(dequantize_leaf(q), delta * codes.astype(np.float32) + low)
    assert (q.codes.min(), q.codes.max()) == (0, 2**bits - 1)


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_pruned_weights_stay_zero_and_empty_channels_finite(scheme: str, bits: int) -> None:
    w = np.abs(weights(8, 6)) + 1  # one-sided: the range does not even hold zero
    kept = np.random.default_rng(1).random(w.shape) < 0.5
    kept[:, 2] = False
    kept[0, 3:] = True
    w[:, 4] = 0.25
    q = quantize_leaf("x/kernel", np.where(kept, w, 0), Quantize(bits, scheme=scheme), kept)
    values = dequantize_leaf(q)
    assert np.isfinite(values).all() and np.isfinite(q.scale).all()
    assert not values[~kept].any() and not np.signbit(values[~kept]).any()
    assert values[kept].all()
    np.testing.assert_allclose(values[kept[:, 4], 4], 0.25, rtol=0.5 if scheme == "aqt" else 0)


def test_minmax_spans_the_kept_weights_only() -> None:
    w, kept = np.float32([[3], [0], [5]]), np.array([[True], [False], [True]])
    q = quantize_leaf("x/kernel", w, Quantize(2, scheme="minmax"), kept)
    np.testing.assert_array_equal(dequantize_leaf(q), w)
    assert q.zero is not None and q.zero.item() == 3


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
@pytest.mark.parametrize(
    ("per", "shapes"),
    [
        (
            "tensor",
            {
                "blocks/ffn/up/kernel": (2, 1, 1),
                "embedding/token": (1, 1),
                "classifier/output/kernel": (1, 1),
            },
        ),
        (
            "channel",
            {
                "blocks/ffn/up/kernel": (2, 1, 32),
                "embedding/token": (32, 1),
                "classifier/dense/kernel": (1, 8),
            },
        ),
    ],
)
def test_scales_have_the_promised_granularity(
    scheme: str, per: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    recipe = Recipe((Quantize(4, per, scheme=scheme),))
    quantized = compress_params(trees.classifier(), recipe).quantized
    remaining = flatten(trees.classifier()).keys() - quantized.keys()
    for path, shape in shapes.items():
        assert quantized[path].scale.shape == shape
    assert set(remaining) == {
        path for path in flatten(trees.classifier()) if path.endswith(("bias", "scale"))
    }


def test_embeddings_can_stay_out() -> None:
    recipe = Recipe((Quantize(4, embeddings=False),))
    quantized = compress_params(trees.classifier(), recipe).quantized
    remaining = flatten(trees.classifier()).keys() - quantized.keys()
    assert {
        "embedding/token",
        "embedding/position",
    } <= remaining and "blocks/ffn/up/kernel" in quantized


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
def test_error_shrinks_with_bits(scheme: str) -> None:
    params = trees.few_leaves()
    errors = []
    for bits in ALL_BITS:
        values = compress_params(params, Recipe((Quantize(bits, scheme=scheme),))).params
        assert jax.tree.structure(values) == jax.tree.structure(params)
        errors.append(
            float(np.abs(values["embedding"]["token"] - params["embedding"]["token"]).mean())
        )
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 30


def test_combined_recipe_prunes_then_quantizes() -> None:
    params = trees.classifier()
    model = compress_params(
        params, parse_recipe("prune:0.5,embeddings=false+quantize:3,scheme=minmax")
    )
    masks = flatten(model.masks)
    assert "embedding/token" not in masks and "embedding/token" in model.quantized
    for path, leaf in flatten(model.params).items():
        if path in masks:
            assert not leaf[~masks[path]].any()
            np.testing.assert_allclose(
                leaf, np.where(masks[path], flatten(params)[path], 0), atol=0.03
            )
        if path not in model.quantized:
            np.testing.assert_array_equal(leaf, flatten(params)[path])


def test_pruned_weights_stay_pruned() -> None:
    params = trees.classifier()
    masks = {"embedding": {"token": np.arange(32 * 8).reshape(32, 8) % 2 == 0}}
    model = compress_params(params, parse_recipe("quantize:8"), masks)
    assert flatten(model.masks).keys() == {"embedding/token"}
    values, expected = (
        model.params["embedding"]["token"],
        params["embedding"]["token"] * masks["embedding"]["token"],
    )
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_pruning_after_quantizing_keeps_the_grid() -> None:
    params = trees.classifier()
    whole = compress_params(params, parse_recipe("quantize:4"))
    model = compress_params(params, parse_recipe("quantize:4+prune:0.5"))
    for path, mask in flatten(model.masks).items():
        np.testing.assert_array_equal(model.quantized[path].scale, whole.quantized[path].scale)
        expected = np.where(mask, flatten(whole.params)[path], 0)
        np.testing.assert_array_equal(flatten(model.params)[path], expected)
        np.testing.assert_array_equal(dequantize_leaf(model.quantized[path]), expected)


def test_a_matrix_is_quantized_by_the_first_that_selects_it() -> None:
    model = compress_params(
        trees.classifier(), parse_recipe("quantize:8,only=embedding/.*+quantize:4,group=4")
    )
    assert {model.quantized[path].bits for path in ("embedding/token", "embedding/position")} == {8}
    assert {tensor.bits for path, tensor in model.quantized.items() if "embedding" not in path} == {
        4
    }


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
@pytest.mark.parametrize("path", ["x/kernel", "embedding/token"])
def test_groups_are_quantized_as_if_they_were_matrices(scheme: str, path: str) -> None:
    w = weights(2, 16, 8) if path == "x/kernel" else weights(16, 8)
    q = quantize_leaf(path, w, Quantize(3, group=4, scheme=scheme))
    assert q.scale.shape == ((2, 4, 1, 8) if path == "x/kernel" else (16, 2, 1))
    parts = np.split(w, 4, axis=1) if path == "x/kernel" else np.split(w, 2, axis=1)
    apart = [
        dequantize_leaf(quantize_leaf(path, part, Quantize(3, scheme=scheme))) for part in parts
    ]
    np.testing.assert_array_equal(dequantize_leaf(q), np.concatenate(apart, axis=1))


def test_groups_that_do_not_divide_are_refused_with_the_path() -> None:
    with pytest.raises(InputError, match="x/kernel has 16 inputs, which groups of 5 do not divide"):
        quantize_leaf("x/kernel", weights(16, 8), Quantize(4, group=5))


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
def test_percentiles_leave_out_the_largest(scheme: str) -> None:
    w = weights(1000, 4)
    kept = np.random.default_rng(1).random(w.shape) < 0.6
    w = np.where(kept, w, 0)
    q = quantize_leaf("x/kernel", w, Quantize(4, scheme=scheme, range="95"), kept)
    for column in range(4):
        inside = (
            np.sort(np.abs(w[kept[:, column], column]))
            if scheme == "aqt"
            else np.sort(w[kept[:, column], column])
        )
        if scheme == "aqt":
            bound = inside[int(np.ceil(0.95 * len(inside))) - 1]
            np.testing.assert_allclose(q.scale[0, column], bound / 7.5, rtol=1e-6)
        else:
            assert q.zero is not None
            assert q.zero[0, column] == inside[int(np.ceil(np.float32(0.025) * len(inside))) - 1]


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
def test_least_squares_beats_the_extremes(scheme: str) -> None:
    w = weights(512, 16)
    w[0] *= 4  # an outlier in each channel

    def errors(range: str) -> np.ndarray:
        return np.square(
            dequantize_leaf(quantize_leaf("x/kernel", w, Quantize(3, scheme=scheme, range=range)))
            - w
        ).sum(0)

    assert (errors("mse") <= errors("extremes")).all()
    assert errors("mse").sum() < 0.6 * errors("extremes").sum()


@pytest.mark.parametrize(
    "text",
    [
        "quantize:4",
        "quantize:3,group=4,range=mse",
        "quantize:4,range=99",
        "quantize:4,scheme=minmax",
    ],
)
def test_eight_devices_give_the_same_bits(text: str) -> None:
    params, recipe = trees.classifier(), parse_recipe(text)
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf: np.ndarray) -> jax.Array:
        split = leaf.ndim > 1 and leaf.shape[-2] % 8 == 0
        spec = jax.sharding.PartitionSpec(*[None] * (leaf.ndim - 2), "fsdp" if split else None)
        return jax.device_put(leaf, jax.sharding.NamedSharding(mesh, spec))

    placed = jax.tree.map(place, params)
    assert sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(placed)) >= 8
    one, eight = (
        flatten(compress_params(params, recipe).params),
        flatten(compress_params(placed, recipe).params),
    )
    assert one.keys() == eight.keys()
    for path, values in one.items():
        assert values.tobytes() == eight[path].tobytes(), path


@pytest.mark.parametrize(
    "text", ["quantize:4", "quantize:8,only=embedding/.*+quantize:3,scheme=minmax,group=4"]
)
def test_weights_rounded_in_training_are_those_of_the_artifact(text: str) -> None:
    params = jax.tree.map(jnp.asarray, trees.classifier())
    recipe = parse_recipe(text)
    rounded = jax.jit(lambda p: round_weights(p, recipe.quantizes))(params)
    expected = compress_params(params, recipe).params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), rounded, expected
    )

    def loss(p: Any) -> Any:
        return sum(
            jnp.sum(jnp.square(leaf))
            for leaf in jax.tree.leaves(round_weights(p, recipe.quantizes))
        )

    gradient = jax.grad(loss)(params)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, 2 * w, rtol=1e-4, atol=1e-8), gradient, expected
    )


@pytest.mark.parametrize("recipe", ["dense", "quantize:32", "prune:0"])
def test_recipes_without_effect_change_nothing(recipe: str) -> None:
    params = trees.classifier()
    model = compress_params(params, parse_recipe(recipe))
    assert not model.masks and not model.quantized
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
