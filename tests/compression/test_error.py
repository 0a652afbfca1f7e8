"""Error of each matrix, by hand; one matrix compressed alone; the figures."""

from __future__ import annotations

import functools

import jax
import matplotlib
import numpy as np
import pytest

from tlc_jax.compression import error as compression_error
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config import Impl, Model
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.models.network import classifier, masked_language_model
from tlc_jax.report import compression_figures as figures
from tlc_jax.report import style

LAYERS = 3
MODEL = Model(layers=LAYERS, hidden=64, max_length=16)


@functools.cache
def parameters(model: Model = MODEL, kind: str = "classifier"):
    network = (
        classifier(model, 50, 3, Impl())
        if kind == "classifier"
        else masked_language_model(model, 50, Impl())
    )
    return jax.device_get(network.init(jax.random.key(0)))


def analyzed(recipe: str, model: Model = MODEL, kind: str = "classifier"):
    params = parameters(model, kind)
    compressed = compress_params(params, parse_recipe(recipe)).params
    return params, compressed, compression_error.matrices(params, compressed, model.layers)


def test_every_matrix_is_found_in_order_and_named() -> None:
    _, _, found = analyzed("quantize:4")
    assert [(m.kind, m.name) for m in found[:2]] == [
        ("embeddings", "token embedding"),
        ("embeddings", "position embedding"),
    ]
    inside = [(matrix.layer, matrix.name) for matrix in found[2:-2]]
    names = ["query", "key", "value", "attention out", "FFN in", "FFN out"]
    assert inside == [(layer, name) for layer in (1, 2, 3) for name in names]
    assert [(m.name, m.layer) for m in found[-2:]] == [
        ("classifier dense", None),
        ("classifier output", None),
    ]


def test_unchanged_matrices_are_not_listed() -> None:
    _, _, found = analyzed("prune:0.5,embeddings=false")
    assert {matrix.kind for matrix in found} == {
        "attention in",
        "attention out",
        "FFN in",
        "FFN out",
    }


def test_norms_are_of_columns_of_kernels_and_rows_of_embeddings() -> None:
    params = parameters()
    leaves = flatten(params)
    kernel = leaves["blocks/ffn/down/kernel"].copy()
    kernel[1, :, 5] += 3.0 * (np.arange(256) < 4)
    token = leaves["embedding/token"].copy()
    token[7] += 0.5
    changed = unflatten({**leaves, "blocks/ffn/down/kernel": kernel, "embedding/token": token})
    found = compression_error.matrices(params, changed, LAYERS)
    errors = compression_error.errors(found, params, changed)
    assert [error.matrix.path for error in errors] == [
        "embedding/token",
        *["blocks/ffn/down/kernel"] * 3,
    ]
    embedding, first, second, third = errors
    np.testing.assert_allclose(
        embedding.norms, np.where(np.arange(50) == 7, 0.5 * 8, 0.0), atol=1e-5
    )
    np.testing.assert_allclose(second.norms, np.where(np.arange(64) == 5, 6.0, 0.0), atol=1e-5)
    assert first.norms.max() == third.norms.max() == 0
    assert second.relative == pytest.approx(
        6.0 / np.linalg.norm(leaves["blocks/ffn/down/kernel"][1]), rel=1e-5
    )
    row = second.row()
    assert (row["layer"], row["outputs"], row["median"], row["greatest"]) == (
        2,
        64,
        0.0,
        pytest.approx(6.0),
    )


def test_one_matrix_alone_leaves_all_others_as_they_were() -> None:
    params, compressed, found = analyzed("prune:0.5,scope=tensor+quantize:4")
    before, after = flatten(params), flatten(compressed)
    matrix = next(m for m in found if m.name == "value" and m.layer == 2)
    leaf = compression_error.with_one(matrix, params, compressed)
    np.testing.assert_array_equal(leaf[1], after[matrix.path][1])
    np.testing.assert_array_equal(leaf[[0, 2]], before[matrix.path][[0, 2]])
    token = next(m for m in found if m.name == "token embedding")
    np.testing.assert_array_equal(
        compression_error.with_one(token, params, compressed), after["embedding/token"]
    )


def test_shared_matrices_have_no_layer() -> None:
    model = Model(layers=LAYERS, hidden=64, max_length=16, share="attention")
    _, _, found = analyzed("quantize:4", model)
    assert [m.layer for m in found if m.kind.startswith("attention")] == [None] * 4
    assert [m.layer for m in found if m.kind == "FFN in"] == [1, 2, 3]


def test_incomparable_models_are_refused() -> None:
    params = parameters()
    with pytest.raises(InputError, match="changes no matrix"):
        compression_error.matrices(params, params, LAYERS)
    smaller = unflatten({**flatten(params), "embedding/token": np.zeros((40, 64))})
    with pytest.raises(InputError, match="changes the shape of the model"):
        compression_error.matrices(params, smaller, LAYERS)


def test_figures_name_the_statistic_and_show_every_kind(tmp_path) -> None:
    params, compressed, found = analyzed("quantize:4", kind="mlm")
    errors = compression_error.errors(found, params, compressed)
    with matplotlib.rc_context(style.RC):
        boxes, depth = (
            draw(errors, "3x64, 4-bit")
            for draw in (figures.error_by_module, figures.error_by_depth)
        )
        values = [float(place) for place in range(len(found))]
        heat = figures.sensitivity(list(zip(found, values, strict=True)), "accuracy lost", "3x64")
        for place, figure in enumerate((boxes, depth, heat)):
            assert style.save(figure, tmp_path / f"{place}.png").stat().st_size > 0
    kinds = ["embeddings", "attention in", "attention out", "FFN in", "FFN out", "head"]
    assert [label.get_text() for label in boxes.axes[0].get_xticklabels()] == kinds
    assert "L2 norm of the difference\nof each output row" in boxes.axes[0].get_ylabel()
    assert "L2 norm of the difference\nof each output row" in depth.axes[0].get_ylabel()
    lines = {line.get_label(): line.get_ydata() for line in depth.axes[0].lines}
    assert list(lines) == kinds[1:5]
    second = next(
        error for error in errors if error.matrix.kind == "FFN out" and error.matrix.layer == 2
    )
    assert lines["FFN out"][1] == np.median(second.norms)
    inside, outside, _ = heat.axes
    cells = inside.images[0].get_array()
    assert cells.shape == (3, 6)
    ffn_out = next(place for place, m in enumerate(found) if m.name == "FFN out" and m.layer == 2)
    assert cells[1, [t.get_text() for t in inside.get_xticklabels()].index("FFN out")] == ffn_out
    assert outside.images[0].get_array().shape == (3, 1)


def test_convergence_shows_both_models_in_the_metrics_unit() -> None:
    rows = [{"step": step, "accuracy_dense": 0.5, "accuracy_compressed": 0.4} for step in (10, 20)]
    axes = figures.convergence(rows, "accuracy", "accuracy (%)", 100.0, "x").axes[0]
    assert [
        (line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    ] == [
        ("dense", [10, 20], [50.0, 50.0]),
        ("compressed", [10, 20], [40.0, 40.0]),
    ]
