"""Writes an encoder in the form that transformers reads: config.json and named tensors.

Works without transformers or PyTorch, from the same tables as the import. Weights are float32;
those of a compressed model are the values that its artifact stands for, with zeros where it is
pruned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.data.tokenizer import SpecialIds
from tlc_jax.interop.huggingface_names import ACTIVATIONS, FAMILIES, WIDTHS, Family, other_layout
from tlc_jax.models.network import Network, Params

_HEADS = {"mlm": "ForMaskedLM", "classifier": "ForSequenceClassification"}
_ONNX_CAN = "set --config.export.format=onnx, which can express it"


def family_of(network: Network) -> Family:
    """The family of transformers that computes the same as `network`.

    Raises:
      InputError: there is none.
    """
    model = network.model.filled()
    if model.heads * model.head_size != model.hidden:
        raise InputError(
            f"Hugging Face has no attention of {model.heads} heads of {model.head_size} "
            f"in a width of {model.hidden}: {_ONNX_CAN}"
        )
    # RoBERTa has no token types, and its masked-language head computes GELU in any case.
    name = "bert" if model.token_types or model.activation != "gelu" else "roberta"
    family = FAMILIES["roberta-prelayernorm" if model.norm == "pre" else name]
    if network.kind == "mlm" and not family.is_bert and model.activation != "gelu":
        raise InputError(
            "Hugging Face has no pre-norm masked-language model "
            f"with model.activation={model.activation}: {_ONNX_CAN}"
        )
    return family


def config_json(network: Network, labels: tuple[str, ...], special: SpecialIds) -> dict[str, Any]:
    """The content of config.json.

    Args:
      network: an encoder with a head.
      labels: class names of a classifier.
      special: special ids of the tokenizer.

    Raises:
      InputError: transformers has no such encoder.
    """
    family, model = family_of(network), network.model.filled()
    content: dict[str, Any] = {
        "architectures": [family.class_name + _HEADS[network.kind]],
        "model_type": family.model_type,
        "vocab_size": network.vocab_size,
        **{theirs: getattr(model, ours) for ours, theirs in WIDTHS.items()},
        "hidden_act": {ours: theirs for theirs, ours in ACTIVATIONS.items()}[model.activation],
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": family.first_position(model.padding) + model.max_length,
        # One row of zeros stands for no token types; see `tensors`.
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
    """The parameters under transformers' names and in its layout, float32.

    Layers that share parameters each get a copy.

    Raises:
      InputError: transformers has no such encoder.
    """
    family, model = family_of(network), network.model
    found = {}
    for path, leaf in flatten(params).items():
        values = np.asarray(leaf, np.float32)
        if path.startswith("blocks/"):
            for layer in range(model.layers):
                # A stack of one layer is shared by all.
                found[family.name(path, layer)] = other_layout(path, values[layer % len(values)])
        else:
            found[family.name(path)] = other_layout(path, values)
    position = family.name("embedding/position")
    unused = family.first_position(model.padding)
    found[position] = np.pad(found[position], ((unused, 0), (0, 0)))
    if not model.token_types:
        # Their encoders always add a token type: one row of zeros stands for none.
        types = family.name("embedding/token_type")
        found[types] = np.zeros((1, model.hidden), np.float32)
    return found
