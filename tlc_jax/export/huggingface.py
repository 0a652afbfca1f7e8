"""An encoder of ours as Hugging Face transformers reads it: config.json and the tensors of model.safetensors.

Written without transformers or PyTorch. Weights are float32: of a compressed model the values that its artifact stands
for, zeros where it is pruned. Layers that share parameters each get their own copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlc_jax import config as configs
from tlc_jax.errors import InputError
from tlc_jax.models.network import Network, Params
from tlc_jax.selectors import flatten


@dataclasses.dataclass(frozen=True)
class Family:
    """Classes of transformers that compute what an encoder of ours does.

    Attributes:
      model_type: its name in config.json.
      prefix: of its classes' names.
      root: of its encoder's tensors.
      counts_from_padding: position p has row padding + 1 + p of the table, as in fairseq, and not row p.
      modules: our modules and theirs.
      layer_modules: those of a layer.
    """

    model_type: str
    prefix: str
    root: str
    counts_from_padding: bool
    modules: Mapping[str, str]
    layer_modules: Mapping[str, str]


def _modules(root: str, **heads: str) -> dict[str, str]:
    return {
        "embedding/token": f"{root}.embeddings.word_embeddings",
        "embedding/position": f"{root}.embeddings.position_embeddings",
        "embedding/token_type": f"{root}.embeddings.token_type_embeddings",
        "embedding/norm": f"{root}.embeddings.LayerNorm",
        "final_norm": f"{root}.LayerNorm",
        **{name.replace("__", "/"): module for name, module in heads.items()},
    }


_LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "ffn/up": "intermediate.dense",
    "ffn/down": "output.dense",
}
_PRE = {**_LAYER, "attention_norm": "attention.LayerNorm", "ffn_norm": "intermediate.LayerNorm"}
_POST = {**_LAYER, "attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}
_ROBERTA_HEADS = {
    "mlm_head": "lm_head",
    "mlm_head__dense": "lm_head.dense",
    "mlm_head__norm": "lm_head.layer_norm",
    "classifier__dense": "classifier.dense",
    "classifier__output": "classifier.out_proj",
}
_BERT_HEADS = {
    "mlm_head": "cls.predictions",
    "mlm_head__dense": "cls.predictions.transform.dense",
    "mlm_head__norm": "cls.predictions.transform.LayerNorm",
    "classifier__dense": "bert.pooler.dense",
    "classifier__output": "classifier",
}
PRE_NORM = Family(
    "roberta-prelayernorm",
    "RobertaPreLayerNorm",
    "roberta_prelayernorm",
    True,
    _modules("roberta_prelayernorm", **_ROBERTA_HEADS),
    _PRE,
)
ROBERTA = Family("roberta", "Roberta", "roberta", True, _modules("roberta", **_ROBERTA_HEADS), _POST)
BERT = Family("bert", "Bert", "bert", False, _modules("bert", **_BERT_HEADS), _POST)

_HEADS = {"mlm": "ForMaskedLM", "classifier": "ForSequenceClassification"}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def family(network: Network) -> Family:
    """The classes that compute what `network` does.

    Raises:
      InputError: there are none.
    """
    model = network.model.filled()
    if model.heads * model.head_size != model.hidden:
        raise InputError(
            f"attention of {model.heads} heads of {model.head_size} in a width of {model.hidden} cannot be said in "
            "Hugging Face's terms: set --config.export.format=onnx"
        )
    # The masked-language heads of both RoBERTas have a GELU, whatever the activation of the layers.
    gelu = model.activation == "gelu"
    if model.norm == "post":
        return ROBERTA if gelu and model.token_types <= 1 else BERT
    if network.kind == "mlm" and not gelu:
        raise InputError(
            f"a pre-norm masked-language model with model.activation={model.activation} cannot be said in Hugging "
            "Face's terms: set --config.export.format=onnx"
        )
    return PRE_NORM


def config_json(network: Network, labels: tuple[str, ...], special: Mapping[str, int]) -> dict[str, Any]:
    """The content of config.json.

    Args:
      network: an encoder.
      labels: of a classifier.
      special: ids of special tokens by the names that transformers' configs have, such as `bos_token_id`.

    Raises:
      InputError: transformers has no such encoder.
    """
    form, model = family(network), network.model.filled()
    content: dict[str, Any] = {
        "architectures": [form.prefix + _HEADS[network.kind]],
        "model_type": form.model_type,
        "vocab_size": network.vocab_size,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.ffn,
        "hidden_act": _ACTIVATIONS[model.activation],
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": model.max_length + _positions_before(form, model),
        "type_vocab_size": max(1, model.token_types),
        "layer_norm_eps": model.norm_epsilon,
        "pad_token_id": model.padding,
        **special,
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
    form, model = family(network), network.model
    found: dict[str, np.ndarray] = {}
    for path, leaf in flatten(params).items():
        values = np.asarray(leaf, np.float32)
        if path.startswith("blocks/"):
            name = _name(path.removeprefix("blocks/"), form.layer_modules)
            for layer in range(model.layers):
                # A stack of one layer is shared by all.
                found[f"{form.root}.encoder.layer.{layer}.{name}"] = _laid_out(path, values[layer % len(values)])
        else:
            found[_name(path, form.modules)] = _laid_out(path, values)
    position, token_type = (_name(f"embedding/{name}", form.modules) for name in ("position", "token_type"))
    found[position] = np.pad(found[position], ((_positions_before(form, model), 0), (0, 0)))
    if not model.token_types:
        found[token_type] = np.zeros((1, model.hidden), np.float32)
    return found


def _positions_before(form: Family, model: configs.Model) -> int:
    """Rows of the position table that belong to no position."""
    return model.padding + 1 if form.counts_from_padding else 0


def _name(path: str, modules: Mapping[str, str]) -> str:
    if path in modules:  # an embedding table is a leaf by itself
        return f"{modules[path]}.weight"
    module, _, leaf = path.rpartition("/")
    return f"{modules[module]}.{'bias' if leaf == 'bias' else 'weight'}"


def _laid_out(path: str, values: np.ndarray) -> np.ndarray:
    """Kernels as [outputs, inputs]."""
    return np.ascontiguousarray(values.T) if path.endswith("/kernel") else values
