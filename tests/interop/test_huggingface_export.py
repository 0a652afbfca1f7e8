"""A Hugging Face folder holds our parameters, and transformers computes our logits with it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.interop.networks import (
    LABELS,
    SEPARATOR,
    V,
    logits_of,
    padded_rows,
    random_params,
    real,
    small_network,
)
from tlc_jax.config import Model
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.data.tokenizer import OURS
from tlc_jax.interop import huggingface_export as huggingface
from tlc_jax.interop import huggingface_import as importing

FORMS = {
    "own": ({}, "RobertaPreLayerNorm"),
    "own, shared": ({"share": "attention"}, "RobertaPreLayerNorm"),
    "own, narrow ffn": (
        {"ffn": 40, "token_types": 2, "separator": SEPARATOR},
        "RobertaPreLayerNorm",
    ),
    "RoBERTa": ({"norm": "post", "padding": 1, "norm_epsilon": 1e-3}, "Roberta"),
    "BERT": (
        {"norm": "post", "token_types": 2, "separator": SEPARATOR, "norm_epsilon": 1e-12},
        "Bert",
    ),
    "post-norm, ReLU": ({"norm": "post", "activation": "relu"}, "Bert"),
    "post-norm, tanh": (
        {"norm": "post", "activation": "gelu_tanh", "token_types": 2, "separator": SEPARATOR},
        "Bert",
    ),
}


def test_the_folder_contains_the_parameters(tmp_path) -> None:
    network = small_network("classifier")
    params = random_params(network)
    save_file(huggingface.tensors(network, params), tmp_path / "model.safetensors")
    found, ours = load_file(tmp_path / "model.safetensors"), flatten(params)
    root = "roberta_prelayernorm"
    np.testing.assert_array_equal(
        found[f"{root}.embeddings.word_embeddings.weight"], ours["embedding/token"]
    )
    position = found[f"{root}.embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(position[1:], ours["embedding/position"])
    np.testing.assert_array_equal(position[0], 0)
    for layer in range(2):
        weight = found[f"{root}.encoder.layer.{layer}.intermediate.dense.weight"]
        np.testing.assert_array_equal(weight.T, ours["blocks/ffn/up/kernel"][layer])
        scale = found[f"{root}.encoder.layer.{layer}.attention.LayerNorm.weight"]
        np.testing.assert_array_equal(scale, ours["blocks/attention_norm/scale"][layer])
    np.testing.assert_array_equal(found["classifier.out_proj.bias"], ours["classifier/output/bias"])
    values = sum(leaf.size for leaf in ours.values())
    assert (
        sum(tensor.size for tensor in found.values()) == values + 2 * 64
    )  # no position, and one kind of segment
    assert {tensor.dtype.name for tensor in found.values()} == {"float32"}


def test_shared_layers_are_written_out() -> None:
    network = small_network("mlm", share="all", layers=3)
    found = huggingface.tensors(network, random_params(network))
    layers = [
        found[f"roberta_prelayernorm.encoder.layer.{layer}.output.dense.weight"]
        for layer in range(3)
    ]
    np.testing.assert_array_equal(layers[0], layers[2])


def test_the_config_describes_the_model() -> None:
    content = huggingface.config_json(small_network("classifier", ffn=100), LABELS, OURS)
    assert content["architectures"] == ["RobertaPreLayerNormForSequenceClassification"]
    assert content["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert content["label2id"] == {"no": 0, "perhaps": 1, "yes": 2}
    assert content["max_position_embeddings"] == 25
    assert (content["intermediate_size"], content["vocab_size"], content["layer_norm_eps"]) == (
        100,
        V,
        1e-5,
    )
    assert "id2label" not in huggingface.config_json(small_network("mlm"), (), OURS)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"heads": 3, "head_size": 16}, "3 heads of 16 in a width of 64"),
        ({"activation": "relu"}, "model.activation=relu"),
    ],
)
def test_encoders_that_transformers_lacks_are_refused(model, says) -> None:
    with pytest.raises(InputError, match=f"{says}.*set --config.export.format=onnx"):
        huggingface.family_of(small_network("mlm", **model))


@pytest.mark.parametrize("kind", ["mlm", "classifier"])
@pytest.mark.parametrize(
    "form",
    [
        {"norm_epsilon": 1e-6, "padding": 1},
        {"norm": "post", "padding": 1, "ffn": 48},
        {"norm": "post", "token_types": 2, "separator": 2, "activation": "gelu_tanh"},
    ],
    ids=["roberta-prelayernorm", "roberta", "bert"],
)
def test_export_then_import_gives_the_same_model(tmp_path, kind, form) -> None:
    network = small_network(kind, **form)
    params = random_params(network)
    pieces = ["[CLS]", "[UNK]", "[SEP]", "[MASK]"]
    pieces.insert(network.model.padding, "[PAD]")
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*pieces, *(f"w{n}" for n in range(V - 5))]) + "\n"
    )
    save_file(huggingface.tensors(network, params), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps(huggingface.config_json(network, LABELS, OURS))
    )
    loaded = importing.load(importing.find(f"hf:{tmp_path}"))
    assert (loaded.meta["kind"], tuple(loaded.meta["labels"])) == (
        kind,
        LABELS if kind == "classifier" else (),
    )
    assert loaded.unused == ()
    separator = loaded.tokenizer.special.end if network.model.token_types else 0
    expected = dataclasses.replace(network.model.filled(), head_size=0, separator=separator)
    assert Model(**loaded.meta["model"]) == expected
    found = flatten(loaded.params)
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["mlm", "classifier"])
@pytest.mark.parametrize(("model", "name"), FORMS.values(), ids=FORMS.keys())
def test_logits_are_the_same_in_transformers(tmp_path, kind, model, name) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    network = small_network(kind, **model)
    params = random_params(network)
    save_file(
        huggingface.tensors(network, params), tmp_path / "model.safetensors", {"format": "pt"}
    )
    (tmp_path / "config.json").write_text(
        json.dumps(huggingface.config_json(network, LABELS, OURS))
    )
    auto = {"mlm": "AutoModelForMaskedLM", "classifier": "AutoModelForSequenceClassification"}[kind]
    loaded, report = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), (
        report
    )
    assert type(loaded).__name__ == name + huggingface._HEADS[kind]

    tokens_BxL, mask_BxL = padded_rows()
    tokens_BxL = np.where(mask_BxL, tokens_BxL, network.model.padding)
    more = {}
    if network.model.token_types == 2:
        before_BxL = np.cumsum(tokens_BxL == SEPARATOR, axis=1) - (tokens_BxL == SEPARATOR)
        assert before_BxL[mask_BxL].max() == 1
        more["token_type_ids"] = torch.tensor(np.minimum(before_BxL, 1))
    with torch.no_grad():
        logits = loaded(
            torch.tensor(tokens_BxL), torch.tensor(mask_BxL.astype(np.int64)), **more
        ).logits.numpy()
    np.testing.assert_allclose(
        real(logits) if kind == "mlm" else logits, logits_of(network, params), atol=1e-4
    )
