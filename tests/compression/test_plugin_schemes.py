"""Schemes of plug-ins: what they give is stored to the bit, or refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.helpers import trees
from tests.helpers.plugins import isolated
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import QuantizedTensor, load_artifact, save_artifact
from tlc_jax.compression.quantize import quantize_leaf
from tlc_jax.compression.recipe import Quantize, parse_recipe
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten


def symmetric(path: str, weights: Any, how: Quantize, kept: Any) -> QuantizedTensor:
    """One scale for each output, as a view that is not in the order of its bytes."""
    w, highest = np.asarray(weights), 2 ** (how.bits - 1) - 1
    columns = np.abs(w).max(-2, keepdims=True)
    scale = np.where(columns > 0, columns / highest, 1).astype(np.float32)
    codes = np.rint(w / scale).astype(np.int8)
    return QuantizedTensor(np.asfortranarray(codes), np.asfortranarray(scale), None, how.bits)


def shifted(path: str, weights: Any, how: Quantize, kept: Any) -> QuantizedTensor:
    """With a zero point for each matrix."""
    w, highest = np.asarray(weights), 2**how.bits - 1
    low, high = w.min((-2, -1), keepdims=True), w.max((-2, -1), keepdims=True)
    scale = (high - low) / np.float32(highest)
    return QuantizedTensor(np.rint((w - low) / scale).astype(np.uint8), scale, low, how.bits)


@pytest.fixture(autouse=True)
def schemes():
    with isolated():
        plugins.register("scheme", "symmetric", symmetric)
        plugins.register("scheme", "shifted", shifted)
        yield


@pytest.mark.parametrize("scheme", ["symmetric", "shifted"])
@pytest.mark.parametrize(
    "recipe", ["prune:0.6+quantize:3,{}", "quantize:8,{}", "quantize:5,{}+prune:0.6"]
)
def test_the_artifact_holds_what_is_evaluated(scheme: str, recipe: str, tmp_path) -> None:
    model = compress_params(trees.classifier(), parse_recipe(recipe.format(f"scheme={scheme}")))
    assert model.quantized
    path = tmp_path / "model.safetensors"
    save_artifact(path, model, {})
    loaded = flatten(load_artifact(path).params)
    for name, leaf in flatten(model.params).items():
        np.testing.assert_array_equal(loaded[name].view(np.uint32), leaf.view(np.uint32), name)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bits": 5}, "5 bits, and the recipe says 4"),
        ({"codes": np.zeros((4, 3), np.uint8)}, "codes must be a NumPy array of int8"),
        ({"codes": np.zeros((3, 4), np.int8)}, r"and of shape \(4, 3\)"),
        ({"codes": np.full((4, 3), 8, np.int8)}, "codes beyond -7 to 7"),
        ({"codes": np.full((4, 3), 16, np.uint8), "zero": np.zeros((1, 3), np.float32)}, "0 to 15"),
        ({"scale": np.ones((1, 3))}, "must be NumPy arrays of float32"),
        ({"scale": np.ones((4, 1, 3), np.float32)}, "do not fit the codes"),
        ({"scale": np.full((1, 3), np.nan, np.float32)}, "infinite or NaN"),
        (None, "not a QuantizedTensor, but NoneType"),
    ],
)
def test_what_an_artifact_cannot_hold_is_refused(changes: Any, says: str) -> None:
    def wrong(*arguments: Any) -> Any:
        good = symmetric(*arguments)
        return None if changes is None else dataclasses.replace(good, **changes)

    plugins.register("scheme", "wrong", wrong)
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    with pytest.raises(InputError, match=f"scheme=wrong: x/kernel: .*{says}"):
        quantize_leaf("x/kernel", w, Quantize(4, scheme="wrong"))
