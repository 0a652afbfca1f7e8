from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.compression import trees
from tlc_jax.compression.compress import compress_params
from tlc_jax.compression.quantization import dequantize, dequantize_leaf, quantize, quantize_leaf
from tlc_jax.compression.recipe import Quantize, parse_recipe
from tlc_jax.selectors import flatten

ALL_BITS = range(2, 9)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_aqt_agrees_with_a_plain_reference(bits: int, axes: tuple[int, ...]) -> None:
    w = weights(2, 16, 8)
    q = quantize_leaf(w, bits, axes, "aqt")
    bound = np.float32(2 ** (bits - 1) - 0.5)  # AQT puts the largest value on the outer edge of the last bucket
    np.testing.assert_allclose(q.scale, np.abs(w).max(axes, keepdims=True) / bound, rtol=1e-6)
    highest = 2 ** (bits - 1) - 1
    codes = np.clip(np.rint(w * (np.float32(1) / q.scale)), -highest, highest)
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(dequantize_leaf(q), codes.astype(np.float32) * q.scale)
    assert np.abs(dequantize_leaf(q) - w).max() <= q.scale.max() / 2 * (1 + 1e-5)
    assert q.zero is None


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_minmax_is_the_papers_formula(bits: int, axes: tuple[int, ...]) -> None:
    w = weights(2, 16, 8)
    q = quantize_leaf(w, bits, axes, "minmax")
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
    q = quantize_leaf(np.where(kept, w, 0), bits, (0,), scheme, kept)
    values = dequantize_leaf(q)
    assert np.isfinite(values).all() and np.isfinite(q.scale).all()
    assert not values[~kept].any() and not np.signbit(values[~kept]).any()
    assert values[kept].all()
    np.testing.assert_allclose(values[kept[:, 4], 4], 0.25, rtol=0.5 if scheme == "aqt" else 0)


def test_minmax_spans_the_kept_weights_only() -> None:
    w, kept = np.float32([[3], [0], [5]]), np.array([[True], [False], [True]])
    q = quantize_leaf(w, 2, (0,), "minmax", kept)
    np.testing.assert_array_equal(dequantize_leaf(q), w)
    assert q.zero is not None and q.zero.item() == 3


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
@pytest.mark.parametrize(
    ("per", "shapes"),
    [
        ("tensor", {"blocks/ffn/up/kernel": (2, 1, 1), "embedding/token": (1, 1), "classifier/output/kernel": (1, 1)}),
        (
            "channel",
            {"blocks/ffn/up/kernel": (2, 1, 32), "embedding/token": (32, 1), "classifier/dense/kernel": (1, 8)},
        ),
    ],
)
def test_scales_have_the_promised_granularity(scheme: str, per: str, shapes: dict[str, tuple[int, ...]]) -> None:
    quantized, remaining = quantize(trees.classifier(), Quantize(4, per, scheme))
    for path, shape in shapes.items():
        assert quantized[path].scale.shape == shape
    assert set(remaining) == {path for path in flatten(trees.classifier()) if path.endswith(("bias", "scale"))}


def test_embeddings_can_stay_out() -> None:
    quantized, remaining = quantize(trees.classifier(), Quantize(4, embeddings=False))
    assert {"embedding/token", "embedding/position"} <= remaining.keys() and "blocks/ffn/up/kernel" in quantized


@pytest.mark.parametrize("scheme", ["aqt", "minmax"])
def test_error_shrinks_with_bits(scheme: str) -> None:
    params = trees.few_leaves()
    errors = []
    for bits in ALL_BITS:
        values = dequantize(*quantize(params, Quantize(bits, scheme=scheme)))
        assert jax.tree.structure(values) == jax.tree.structure(params)
        errors.append(float(np.abs(values["embedding"]["token"] - params["embedding"]["token"]).mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 30


def test_combined_recipe_prunes_then_quantizes() -> None:
    params = trees.classifier()
    model = compress_params(params, parse_recipe("prune:0.5,embeddings=false+quantize:3,scheme=minmax"))
    masks = flatten(model.masks)
    assert "embedding/token" not in masks and "embedding/token" in model.quantized
    for path, leaf in flatten(model.params).items():
        if path in masks:
            assert not leaf[~masks[path]].any()
            np.testing.assert_allclose(leaf, np.where(masks[path], flatten(params)[path], 0), atol=0.03)
        if path not in model.quantized:
            np.testing.assert_array_equal(leaf, flatten(params)[path])


def test_given_masks_take_the_place_of_pruning() -> None:
    params = trees.classifier()
    masks = {"embedding": {"token": np.arange(32 * 8).reshape(32, 8) % 2 == 0}}
    model = compress_params(params, parse_recipe("prune:0.9+quantize:8"), masks)
    assert flatten(model.masks).keys() == {"embedding/token"}
    values, expected = model.params["embedding"]["token"], params["embedding"]["token"] * masks["embedding"]["token"]
    np.testing.assert_allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize("recipe", ["dense", "quantize:32", "prune:0"])
def test_nothing_to_do_changes_nothing(recipe: str) -> None:
    params = trees.classifier()
    model = compress_params(params, parse_recipe(recipe))
    assert not model.masks and not model.quantized
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
