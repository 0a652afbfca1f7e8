"""Two ONNX files translate as beam search with one beam does, token for token."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.interop.networks import greedy, padded_rows, random_params, small_network
from tests.interop.test_onnx import KINDS, RECIPES, evaluated
from tlc_jax.compression.apply import Compressed, compress_params
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config.schema import Decode
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.tokenizer import EOS, PAD
from tlc_jax.interop import onnx_export as onnx_file
from tlc_jax.models.network import Network, Params
from tlc_jax.tasks.translation import search

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("recipe", ["dense", "quantize:8", "prune:0.5+quantize:4"])
def test_weights_of_a_translator_are_the_artifacts_to_the_bit(tmp_path, recipe) -> None:
    network = small_network("translator")
    model = compress_params(random_params(network), parse_recipe(recipe))
    onnx_file.write_translator(tmp_path, network, model.params, model.quantized, {"a": 1})
    used = set()
    for part in ("encoder", "decoder"):
        stored = evaluated(tmp_path / f"{part}.onnx")
        for name, leaf in flatten(model.params).items():
            layers = leaf if "blocks/" in name else [leaf]
            for number, values in enumerate(layers):
                own = onnx_file.layer_path(name, number)
                if own in stored:
                    np.testing.assert_array_equal(stored[own], values, err_msg=own)
                    used.add(name)
        assert "embedding/token" in stored
        assert ("decoder/blocks/0/ffn/up/kernel" in stored) == (part == "decoder")
    assert used == set(flatten(model.params))


def translator_params(network: Network, recipe: str, end_bias: float) -> Compressed:
    """Weights so large that translations vary, and a bias that ends some before their limit."""
    params = flatten(random_params(network))
    params = {path: leaf * (3 if path.endswith("kernel") else 1) for path, leaf in params.items()}
    params["output_bias"][EOS] += end_bias
    return compress_params(unflatten(params), parse_recipe(recipe))


def expected_translations(network: Network, params: Params) -> list[list[int]]:
    """Greedy translations of `padded_rows` by beam search with one beam, </s> included."""
    tokens_BxL, mask_BxL = padded_rows()
    translate = jax.jit(functools.partial(search, network, Decode(beams=1, extra=6)))
    found = translate(params, np.where(mask_BxL, tokens_BxL, PAD))
    return [
        row[:length].tolist()
        for row, length in zip(found.tokens_BxKxT[:, 0], found.lengths_BxK[:, 0], strict=True)
    ]


class Reference:
    """ONNX's own plain implementation, called like a session of onnxruntime."""

    def __init__(self, path) -> None:
        from onnx.reference import ReferenceEvaluator

        self._model = ReferenceEvaluator(str(path))

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self._model.output_names]

    def run(self, names, inputs):
        return self._model.run(names, inputs)


def float32_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    # Left to itself, it rounds what is multiplied with integer weights to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(path, options)


CASES = [
    ("own", "dense", 3.5),
    ("shared", "dense", 3.5),
    *((name, "dense", 1.0) for name in ("attention shared", "few and narrow heads")),
    *(("own", recipe, 1.0) for recipe in RECIPES),
]


@pytest.mark.parametrize(
    ("open_session", "name", "recipe", "end_bias"),
    [
        (Reference, *CASES[0]),
        *(pytest.param(float32_session, *case, marks=pytest.mark.peers) for case in CASES),
    ],
)
def test_greedy_translations_are_those_of_beam_search(
    tmp_path, open_session, name, recipe, end_bias
) -> None:
    network = small_network("translator", **KINDS[name])
    model = translator_params(network, recipe, end_bias)
    onnx_file.write_translator(tmp_path, network, model.params, model.quantized, {})
    encoder, decoder = (open_session(tmp_path / f"{part}.onnx") for part in ("encoder", "decoder"))
    tokens_BxL, mask_BxL = (rows.astype(np.int64) for rows in padded_rows())
    # What stands at padding does not matter.
    found = greedy(encoder, decoder, np.where(mask_BxL, tokens_BxL, 9), mask_BxL, 6, 24)
    expected = expected_translations(network, model.params)
    assert found == expected
    assert len({len(row) for row in expected}) == 3
    assert max(len(set(row)) for row in expected) >= 7
    alone = greedy(encoder, decoder, tokens_BxL[1:2, :9], mask_BxL[1:2, :9], 6, 24)
    assert alone == expected[1:2]
