"""An ONNX file holds the artifact's integers and computes what the encoder does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.interop.networks import (
    SEPARATOR,
    logits_of,
    padded_rows,
    random_params,
    real,
    small_network,
)
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.core.params import flatten
from tlc_jax.interop import onnx_export as onnx_file

onnx = pytest.importorskip("onnx")


def write(path, network, recipe="dense"):
    """Writes a compressed model; returns it, and what `write` returned."""
    model = compress_params(random_params(network), parse_recipe(recipe))
    return model, onnx_file.write(path, network, model.params, model.quantized, {"recipe": recipe})


def evaluated(path) -> dict[str, np.ndarray]:
    """Every weight of the file, made from what is stored by ONNX's own plain implementation."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" or node.name.startswith(
            ("embedding/", "blocks/", "classifier/")
        ):
            graph = onnx.helper.make_graph(
                [node],
                "weight",
                [],
                [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
                [onnx.numpy_helper.from_array(found[name], name) for name in node.input],
            )
            made = onnx.helper.make_model(graph, opset_imports=model.opset_import)
            (found[node.output[0]],) = ReferenceEvaluator(made).run(None, {})
    return found


@pytest.mark.parametrize(
    ("recipe", "type", "bits"),
    [
        ("dense", "float32", 32),
        ("quantize:8", "int8", 8),
        ("quantize:8,per=tensor,scheme=minmax", "uint8", 8),
        ("quantize:4", "int4", 4),
        ("quantize:4,group=16", "int4", 4),
        ("quantize:3,scheme=minmax", "uint4", 4),
        ("prune:0.6+quantize:4,per=tensor", "int4", 4),
    ],
)
def test_stored_integers_stand_for_the_artifacts_values_to_the_bit(
    tmp_path, recipe, type, bits
) -> None:
    path = tmp_path / "model.onnx"
    model, types = write(path, small_network("classifier"), recipe)
    assert types[type] == (42 if type == "float32" else 16)
    stored = evaluated(path)
    for name, leaf in flatten(model.params).items():
        layers = [leaf] if not name.startswith("blocks/") else leaf
        for number, values in enumerate(layers):
            own = stored[onnx_file.layer_path(name, number) if name.startswith("blocks/") else name]
            np.testing.assert_array_equal(own, values, err_msg=name)
    weights = sum(
        leaf.size
        for name, leaf in flatten(model.params).items()
        if name.endswith(("kernel", "token"))
    )
    assert path.stat().st_size < weights * bits / 8 + 60_000


def test_pruned_weights_beside_a_grid_without_zero_are_floats(tmp_path) -> None:
    model, types = write(
        tmp_path / "model.onnx", small_network("mlm"), "prune:0.5+quantize:8,scheme=minmax"
    )
    assert types == {"float32": 43}
    assert not any(onnx_file.stays_integer(q) for q in model.quantized.values())


def test_shared_layers_are_stored_once(tmp_path) -> None:
    _, types = write(tmp_path / "model.onnx", small_network("mlm", share="attention"), "quantize:8")
    assert types == {"int8": 2 + 1 + 4 + 2 * 2, "float32": 2 + 2 + 3 + 1 + 4 + 2 * 2 + 2 + 2 * 2}


def test_the_file_describes_itself(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    write(path, small_network("classifier"), "quantize:8")
    model = onnx.load(path)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [
        ("", onnx_file.OPSET)
    ]
    assert json.loads(model.metadata_props[0].value) == {"recipe": "quantize:8"}
    assert [value.name for value in model.graph.input] == ["tokens", "mask"]
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "length",
    ]


def test_large_weights_lie_beside_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(onnx_file, "_LARGEST_FILE", 100_000)
    path = tmp_path / "model.onnx"
    model, _ = write(path, small_network("mlm"))
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000 > path.stat().st_size
    np.testing.assert_array_equal(
        evaluated(path)["embedding/token"], model.params["embedding"]["token"]
    )


KINDS = {
    "own": {},
    "shared": {"share": "all"},
    "attention shared": {"share": "attention"},
    "post-norm": {"norm": "post", "norm_epsilon": 1e-3, "activation": "relu"},
    "token types": {
        "norm": "post",
        "token_types": 2,
        "separator": SEPARATOR,
        "activation": "gelu_tanh",
    },
    "few and narrow heads": {"heads": 3, "head_size": 8, "ffn": 48},
}


RECIPES = ["quantize:8", "prune:0.5+quantize:4", "quantize:3,group=16", "quantize:8,scheme=minmax"]


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["mlm", "classifier"])
@pytest.mark.parametrize(
    ("name", "recipe"),
    [*((name, "dense") for name in KINDS), *(("own", recipe) for recipe in RECIPES)],
)
def test_logits_are_the_same_in_onnxruntime(tmp_path, kind, name, recipe) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = small_network(kind, **KINDS[name])
    compressed, _ = write(tmp_path / "model.onnx", network, recipe)
    tokens_BxL, mask_BxL = (rows.astype(np.int64) for rows in padded_rows())
    options = onnxruntime.SessionOptions()
    # Left to itself, it rounds what is multiplied with integer weights to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    (logits,) = session.run(["logits"], {"tokens": tokens_BxL, "mask": mask_BxL})
    expected = logits_of(network, compressed.params)
    np.testing.assert_allclose(real(logits) if kind == "mlm" else logits, expected, atol=1e-4)
    (alone,) = session.run(["logits"], {"tokens": tokens_BxL[1:2, :9], "mask": mask_BxL[1:2, :9]})
    np.testing.assert_allclose(alone[0], logits[1, :9] if kind == "mlm" else logits[1], atol=1e-4)


@pytest.mark.peers
@pytest.mark.parametrize("recipe", ["quantize:8", "quantize:4"])
def test_onnxruntime_with_its_own_settings_comes_close(tmp_path, recipe) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = small_network("classifier")
    compressed, _ = write(tmp_path / "model.onnx", network, recipe)
    tokens_BxL, mask_BxL = (rows.astype(np.int64) for rows in padded_rows())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(["logits"], {"tokens": tokens_BxL, "mask": mask_BxL})
    np.testing.assert_allclose(logits, logits_of(network, compressed.params), atol=0.05)
