"""An encoder of ours as Hugging Face transformers reads it: config.json and the tensors of model.safetensors.

Written without transformers or PyTorch, by the tables that import goes by. Weights are float32: of a compressed model
the values that its artifact stands for, zeros where it is pruned. Layers that share parameters each get a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.data.vocabulary import SpecialIds
from tlc_jax.interop.huggingface_names import ACTIVATIONS, FAMILIES, Family
from tlc_jax.models.network import Network, Params

_CLASSES = {"bert": "Bert", "roberta": "Roberta", "roberta-prelayernorm": "RobertaPreLayerNorm"}
_HEADS = {"mlm": "ForMaskedLM", "classifier": "ForSequenceClassification"}
_ONNX_CAN = "set --config.export.format=onnx, which can say it"


def family_of(network: Network) -> Family:
    """The family of transformers that computes what `network` does.

    Raises:
      InputError: there is none.
    """
    model = network.model.filled()
    if model.heads * model.head_size != model.hidden:
        raise InputError(
            f"Hugging Face has no attention of {model.heads} heads of {model.head_size} in a width of {model.hidden}: "
            + _ONNX_CAN
        )
    if model.norm == "pre":
        family = FAMILIES["roberta-prelayernorm"]
    else:
        family = FAMILIES["bert" if model.token_types or model.activation != "gelu" else "roberta"]
    if network.kind == "mlm" and family.head_activation not in ("", model.activation):
        raise InputError(
            f"Hugging Face has no pre-norm masked-language model with model.activation={model.activation}: {_ONNX_CAN}"
        )
    return family


def config_json(network: Network, labels: tuple[str, ...], special: SpecialIds) -> dict[str, Any]:
    """The content of config.json.

    Args:
      network: an encoder with a head.
      labels: of a classifier.
      special: the tokenizer's.

    Raises:
      InputError: transformers has no such encoder.
    """
    family, model = family_of(network), network.model.filled()
    content: dict[str, Any] = {
        "architectures": [_CLASSES[family.model_type] + _HEADS[network.kind]],
        "model_type": family.model_type,
        "vocab_size": network.vocab_size,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.ffn,
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[model.activation],
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": family.first_position(model.padding) + model.max_length,
        "type_vocab_size": max(1, model.token_types),
        "layer_norm_eps": model.norm_epsilon,
        "pad_token_id": model.padding,
        "bos_token_id": special.start,
        "eos_token_id": special.end,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if network.kind == "classifier":
        content |= {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }
    return content


def tensors(network: Network, params: Params) -> dict[str, np.ndarray]:
    """The parameters by transformers' names and in its layout, float32.

    Raises:
      InputError: transformers has no such encoder.
    """
    family, model = family_of(network), network.model
    found: dict[str, np.ndarray] = {}
    for path, leaf in flatten(params).items():
        values = np.asarray(leaf, np.float32)
        if path.startswith("blocks/"):
            for layer in range(model.layers):
                # A stack of one layer is shared by all.
                found[family.name(path, layer=layer)] = _laid_out(path, values[layer % len(values)])
        else:
            found[family.name(path)] = _laid_out(path, values)
    position, token_type = (
        family.name(f"embedding/{table}") for table in ("position", "token_type")
    )
    found[position] = np.pad(found[position], ((family.first_position(model.padding), 0), (0, 0)))
    if not model.token_types:
        found[token_type] = np.zeros((1, model.hidden), np.float32)
    return found


def _laid_out(path: str, values: np.ndarray) -> np.ndarray:
    """Kernels as [outputs, inputs]."""
    return np.ascontiguousarray(values.T) if path.endswith("/kernel") else values
