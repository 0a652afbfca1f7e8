"""A model without some structures computes the same as the whole model with these silenced."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from tlc_jax.compression.recipe import Remove
from tlc_jax.compression.remove import remove_structures
from tlc_jax.config import Impl, Model
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.models.network import Network

MODEL = Model(layers=4, hidden=16, heads=4, ffn=32, max_length=12)
TOKENS = np.arange(24).reshape(2, 12) % 20 + 1


def network(model: Model, kind: str = "classifier") -> Network:
    return Network(kind, model, 32, 3 if kind == "classifier" else 0, Impl())


def random_params(model: Model = MODEL, kind: str = "classifier") -> dict[str, Any]:
    """Normal values everywhere: biases count, too."""
    rng = np.random.default_rng(0)
    shapes = flatten(network(model, kind).abstract())
    return unflatten(
        {
            path: 0.3 * rng.standard_normal(leaf.shape).astype(np.float32)
            for path, leaf in shapes.items()
        }
    )


def logits(params: Any, model: Model) -> np.ndarray:
    return np.asarray(jax.jit(network(model).apply)(params, TOKENS, TOKENS > 0))


def silence(params: Any, path: str, axis: int, chosen: list[np.ndarray]) -> dict[str, Any]:
    """Sets rows of each layer's matrix to zero: what nobody reads might as well not be there."""
    flat = dict(flatten(params))
    flat[path] = flat[path].copy()
    for layer, rows in enumerate(chosen):
        np.moveaxis(flat[path][layer], axis, 0)[rows] = 0
    return unflatten(flat)


def weakest(score_NxM: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(score_NxM, axis=1)[:, :count]


def test_removing_heads_removes_the_weakest() -> None:
    params = random_params()
    small, model = remove_structures(params, MODEL, [Remove(0.5, "heads")])
    assert (model.heads, model.head_size, model.hidden) == (2, 4, 16)
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, network(model).abstract())
    attention = params["blocks"]["attention"]
    value = np.square(attention["value"]["kernel"].reshape(4, 16, 4, 4)).sum((1, 3))
    output = np.square(attention["output"]["kernel"].reshape(4, 4, 4, 16)).sum((2, 3))
    gone = [
        np.concatenate([np.arange(4) + 4 * head for head in heads])
        for heads in weakest(value * output, 2)
    ]
    silenced = silence(params, "blocks/attention/output/kernel", 0, gone)
    np.testing.assert_allclose(logits(small, model), logits(silenced, MODEL), atol=1e-5)
    assert np.abs(logits(small, model) - logits(params, MODEL)).max() > 0.01


def test_removing_neurons_removes_the_weakest() -> None:
    params = random_params()
    small, model = remove_structures(params, MODEL, [Remove(0.25, "neurons")])
    assert model.ffn == 24
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, network(model).abstract())
    ffn = params["blocks"]["ffn"]
    score = np.square(ffn["up"]["kernel"]).sum(1) * np.square(ffn["down"]["kernel"]).sum(2)
    silenced = silence(params, "blocks/ffn/down/kernel", 0, list(weakest(score, 8)))
    np.testing.assert_allclose(logits(small, model), logits(silenced, MODEL), atol=1e-5)


@pytest.mark.parametrize(("which", "stay"), [("top", [0, 1]), ("spread", [0, 3])])
def test_removing_layers_keeps_the_chosen_ones(which: str, stay: list[int]) -> None:
    params = random_params()
    small, model = remove_structures(params, MODEL, [Remove(0.5, "layers", which)])
    assert model == dataclasses.replace(MODEL, layers=2)
    for path, leaf in flatten(small).items():
        expected = flatten(params)[path]
        np.testing.assert_array_equal(
            leaf, expected[stay] if path.startswith("blocks/") else expected
        )


@pytest.mark.parametrize("of", ["heads", "neurons", "layers"])
@pytest.mark.parametrize(
    ("share", "kind"), [("attention", "classifier"), ("all", "classifier"), ("none", "translator")]
)
def test_every_kind_of_model_fits_its_new_shape(of: str, share: str, kind: str) -> None:
    whole = dataclasses.replace(MODEL, share=share)
    small, model = remove_structures(random_params(whole, kind), whole, [Remove(0.5, of)])
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, network(model, kind).abstract())


def test_several_removals_follow_each_other() -> None:
    removes = [Remove(0.5, "layers"), Remove(0.5, "heads"), Remove(0.5, "neurons")]
    small, model = remove_structures(random_params(), MODEL, removes)
    assert (model.layers, model.heads, model.ffn) == (2, 2, 16)
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, network(model).abstract())


def test_removing_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="takes none of 4"):
        remove_structures(random_params(), MODEL, [Remove(0.1, "heads")])
