"""Public encoders and ours: which of their settings and tensors are which of ours. Pure tables, read either way.

Three families of `transformers` are known: BERT, RoBERTa (both post-norm) and RoBERTa-PreLayerNorm. Their linear layers
hold [outputs, inputs], our kernels [inputs, outputs]; their layers lie one by one, ours stacked on the first axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tlc_jax import config
from tlc_jax.core.errors import InputError

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""By their `hidden_act`."""

_EMBEDDINGS = {
    "embedding/token": "{base}embeddings.word_embeddings",
    "embedding/position": "{base}embeddings.position_embeddings",
    "embedding/token_type": "{base}embeddings.token_type_embeddings",
    "embedding/norm": "{base}embeddings.LayerNorm",
}
_LAYERS = {
    "blocks/attention/query": "{base}encoder.layer.{layer}.attention.self.query",
    "blocks/attention/key": "{base}encoder.layer.{layer}.attention.self.key",
    "blocks/attention/value": "{base}encoder.layer.{layer}.attention.self.value",
    "blocks/attention/output": "{base}encoder.layer.{layer}.attention.output.dense",
    "blocks/ffn/up": "{base}encoder.layer.{layer}.intermediate.dense",
    "blocks/ffn/down": "{base}encoder.layer.{layer}.output.dense",
}
_POST_NORMS = {
    "blocks/attention_norm": "{base}encoder.layer.{layer}.attention.output.LayerNorm",
    "blocks/ffn_norm": "{base}encoder.layer.{layer}.output.LayerNorm",
}
_PRE_NORMS = {
    "blocks/attention_norm": "{base}encoder.layer.{layer}.attention.LayerNorm",
    "blocks/ffn_norm": "{base}encoder.layer.{layer}.intermediate.LayerNorm",
    "final_norm": "{base}LayerNorm",
}
# BERT's pooled output, tanh of a linear map of the first hidden state, is how our classification head begins; but ours
# drops out inputs of that map too.
_BERT_HEADS = {
    "mlm_head": "cls.predictions",
    "mlm_head/dense": "cls.predictions.transform.dense",
    "mlm_head/norm": "cls.predictions.transform.LayerNorm",
    "classifier/dense": "{base}pooler.dense",
    "classifier/output": "classifier",
}
_ROBERTA_HEADS = {
    "mlm_head": "lm_head",
    "mlm_head/dense": "lm_head.dense",
    "mlm_head/norm": "lm_head.layer_norm",
    "classifier/dense": "classifier.dense",
    "classifier/output": "classifier.out_proj",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class Family:
    """One of their architectures.

    Attributes:
      model_type: its name in config.json.
      base: what the names of the encoder's tensors begin with in models that have a head; without one, nothing.
      norm: `model.norm`.
      modules: our path -> their name of every module and table, with {base} and {layer} left open.
      has_types: rows have token types. RoBERTa's have not: its one type is a part of every position.
      padded_positions: as in RoBERTa, positions count from the id of the padding plus 1, the rows before being unused.
      head_activation: of the masked-language head; empty: the layers' own.
      pooled: a model without a classification head has its first layer all the same, trained as BERT's pooler.
    """

    model_type: str
    base: str
    norm: str
    modules: Mapping[str, str]
    has_types: bool = False
    padded_positions: bool = True
    head_activation: str = "gelu"
    pooled: bool = False

    def first_position(self, padding: int) -> int:
        """The row of their table of positions that the first token has."""
        return padding + 1 if self.padded_positions else 0

    def name(self, path: str, base: str | None = None, layer: int | str = "") -> str:
        """Their name of the leaf at our path.

        Args:
          path: such as `blocks/ffn/up/kernel`.
          base: what their names begin with; None: `self.base`.
          layer: for what lies in blocks/.
        """
        if path in self.modules:  # a table
            pattern, leaf = self.modules[path], "weight"
        else:
            module, _, leaf = path.rpartition("/")
            pattern, leaf = self.modules[module], _LEAVES[leaf]
        return f"{pattern.format(base=self.base if base is None else base, layer=layer)}.{leaf}"


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "bert",
            "bert.",
            "post",
            {**_EMBEDDINGS, **_LAYERS, **_POST_NORMS, **_BERT_HEADS},
            has_types=True,
            padded_positions=False,
            head_activation="",
            pooled=True,
        ),
        Family(
            "roberta",
            "roberta.",
            "post",
            {**_EMBEDDINGS, **_LAYERS, **_POST_NORMS, **_ROBERTA_HEADS},
        ),
        Family(
            "roberta-prelayernorm",
            "roberta_prelayernorm.",
            "pre",
            {**_EMBEDDINGS, **_LAYERS, **_PRE_NORMS, **_ROBERTA_HEADS},
        ),
    )
}


def family_of(settings: Mapping[str, Any], where: str) -> Family:
    """The family that a config.json is of; `where` names it.

    Raises:
      InputError: it is none of those known, or has an option that our encoder has not.
    """
    model_type = settings.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type {model_type!r} is not known here; known are {', '.join(FAMILIES)}"
        )
    position_type = settings.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise InputError(
            f"{where}: position_embedding_type {position_type!r} is not known here, only 'absolute'"
        )
    if settings.get("hidden_act", "gelu") not in ACTIVATIONS:
        raise InputError(
            f"{where}: hidden_act {settings['hidden_act']!r} is none of {', '.join(ACTIVATIONS)}"
        )
    for name in ("is_decoder", "add_cross_attention"):
        if settings.get(name):
            raise InputError(f"{where}: {name} is set, and only encoders can be imported")
    return FAMILIES[model_type]


def model_of(
    family: Family, settings: Mapping[str, Any], separator: int, where: str
) -> config.Model:
    """Our settings of a model with their config.json.

    Args:
      family: see `family_of`.
      settings: the config.json.
      separator: the id after which BERT's token type 1 begins.
      where: names the config.json.

    Raises:
      InputError: a setting is missing, or is not what it should be.
    """

    def number(name: str, default: int | None = None) -> int:
        value = settings.get(name, default)
        if type(value) is not int or value < 0:
            raise InputError(f"{where}: {name} is {value!r}, not a number")
        return value

    hidden, heads, types = (
        number("hidden_size"),
        number("num_attention_heads"),
        number("type_vocab_size", 2),
    )
    padding = number("pad_token_id", 1 if family.padded_positions else 0)
    if heads < 1 or hidden % heads:
        raise InputError(
            f"{where}: hidden_size {hidden} is not divisible by num_attention_heads {heads}"
        )
    if family.has_types and types not in (1, 2):
        raise InputError(f"{where}: type_vocab_size {types} is not known here, only 1 and 2")
    return config.Model(
        layers=number("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        ffn=number("intermediate_size"),
        max_length=number("max_position_embeddings") - family.first_position(padding),
        norm=family.norm,
        norm_epsilon=float(settings.get("layer_norm_eps", 1e-12)),
        activation=ACTIVATIONS[settings.get("hidden_act", "gelu")],
        token_types=types if family.has_types else 0,
        separator=separator if family.has_types else 0,
        padding=padding,
    )


Read = Callable[[str, tuple[int, ...]], np.ndarray]


def imported(
    family: Family,
    model: config.Model,
    shapes: Mapping[str, tuple[int, ...]],
    base: str,
    types: int,
    read: Read,
) -> Iterator[tuple[str, np.ndarray]]:
    """Our path and float32 array of every leaf.

    Args:
      family: of their model.
      model: our settings.
      shapes: our path -> shape.
      base: what the names of their encoder's tensors begin with.
      types: rows of their table of token types.
      read: (their name, their shape) -> the tensor.
    """

    def one(path: str, shape: tuple[int, ...], layer: int | str = "") -> np.ndarray:
        transposed = path.endswith("/kernel")
        tensor = read(family.name(path, base, layer), shape[::-1] if transposed else shape)
        return np.asarray(tensor.T if transposed else tensor, np.float32)

    for path, shape in shapes.items():
        if path.startswith("blocks/"):
            yield path, np.stack([one(path, shape[1:], layer) for layer in range(shape[0])])
        elif path == "embedding/position":
            first = family.first_position(model.padding)
            table = one(path, (first + shape[0], shape[1]))[first:]
            if not family.has_types and types:
                table = table + one("embedding/token_type", (types, shape[1]))[0]
            yield path, table
        else:
            yield path, np.ascontiguousarray(one(path, shape))
