"""An encoder of ours as Hugging Face transformers reads it: config.json and the tensors of model.safetensors.

Written without transformers or PyTorch. Weights are float32: of a compressed model the values that its artifact stands
for, zeros where it is pruned. Layers that share parameters each get their own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlc_jax import config as configs
from tlc_jax.data.vocabulary import BOS, EOS, PAD
from tlc_jax.models.blocks import NORM_EPSILON, Shape
from tlc_jax.models.network import Network, Params
from tlc_jax.selectors import flatten

_ROOT = "roberta_prelayernorm"
_POSITIONS_BEFORE = PAD + 1
"""Rows of RoBERTa's position table before that of the first token: positions count from the padding's id."""

_MODULES = {
    "embedding/token": f"{_ROOT}.embeddings.word_embeddings",
    "embedding/position": f"{_ROOT}.embeddings.position_embeddings",
    "embedding/norm": f"{_ROOT}.embeddings.LayerNorm",
    "final_norm": f"{_ROOT}.LayerNorm",
    "mlm_head": "lm_head",
    "mlm_head/dense": "lm_head.dense",
    "mlm_head/norm": "lm_head.layer_norm",
    "classifier/dense": "classifier.dense",
    "classifier/output": "classifier.out_proj",
}
_LAYER_MODULES = {
    "attention_norm": "attention.LayerNorm",
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "ffn_norm": "intermediate.LayerNorm",
    "ffn/up": "intermediate.dense",
    "ffn/down": "output.dense",
}


def architecture(network: Network) -> str:
    """The class of transformers that computes what `network` does."""
    heads = {"mlm": "ForMaskedLM", "classifier": "ForSequenceClassification"}
    return f"RobertaPreLayerNorm{heads[network.kind]}"


def config_json(network: Network, labels: tuple[str, ...]) -> dict[str, Any]:
    """The content of config.json."""
    shape = Shape.of(network.model, configs.Impl())
    content: dict[str, Any] = {
        "architectures": [architecture(network)],
        "model_type": "roberta-prelayernorm",
        "vocab_size": network.vocab_size,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "hidden_act": "gelu",
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": shape.max_length + _POSITIONS_BEFORE,
        "type_vocab_size": 1,
        "layer_norm_eps": NORM_EPSILON,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
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
    """The parameters by transformers' names and in its layout, float32."""
    found: dict[str, np.ndarray] = {}
    for path, leaf in flatten(params).items():
        values = np.asarray(leaf, np.float32)
        if path.startswith("blocks/"):
            for layer in range(network.model.layers):
                name = _name(path.removeprefix("blocks/"), _LAYER_MODULES)
                # A stack of one layer is shared by all.
                found[f"{_ROOT}.encoder.layer.{layer}.{name}"] = _laid_out(path, values[layer % len(values)])
        else:
            found[_name(path, _MODULES)] = _laid_out(path, values)
    position = f"{_MODULES['embedding/position']}.weight"
    found[position] = np.pad(found[position], ((_POSITIONS_BEFORE, 0), (0, 0)))
    found[f"{_ROOT}.embeddings.token_type_embeddings.weight"] = np.zeros((1, network.model.hidden), np.float32)
    return found


def _name(path: str, modules: Mapping[str, str]) -> str:
    if path in modules:  # an embedding table is a leaf by itself
        return f"{modules[path]}.weight"
    module, _, leaf = path.rpartition("/")
    return f"{modules[module]}.{'bias' if leaf == 'bias' else 'weight'}"


def _laid_out(path: str, values: np.ndarray) -> np.ndarray:
    """Kernels as [outputs, inputs]."""
    return np.ascontiguousarray(values.T) if path.endswith("/kernel") else values
