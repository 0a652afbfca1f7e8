"""Maps Hugging Face configs and tensor names to ours, in both directions.

Three families of `transformers` are known: BERT, RoBERTa (both post-norm) and RoBERTa-PreLayerNorm.
Their linear layers store [outputs, inputs], our kernels [inputs, outputs]; they store layers one by
one, we stack them on the first axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tlc_jax import config
from tlc_jax.core.errors import InputError

# "gelu" alone is the exact function; their other two are names of one approximation by tanh.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Our activations by their `hidden_act`."""

_LAYER = "{base}encoder.layer.{layer}."
_COMMON = {
    "embedding/token": "{base}embeddings.word_embeddings",
    "embedding/position": "{base}embeddings.position_embeddings",
    "embedding/token_type": "{base}embeddings.token_type_embeddings",
    "embedding/norm": "{base}embeddings.LayerNorm",
    "blocks/attention/query": _LAYER + "attention.self.query",
    "blocks/attention/key": _LAYER + "attention.self.key",
    "blocks/attention/value": _LAYER + "attention.self.value",
    "blocks/attention/output": _LAYER + "attention.output.dense",
    "blocks/ffn/up": _LAYER + "intermediate.dense",
    "blocks/ffn/down": _LAYER + "output.dense",
}
_POST_NORMS = {
    "blocks/attention_norm": _LAYER + "attention.output.LayerNorm",
    "blocks/ffn_norm": _LAYER + "output.LayerNorm",
}
_PRE_NORMS = {
    "blocks/attention_norm": _LAYER + "attention.LayerNorm",
    "blocks/ffn_norm": _LAYER + "intermediate.LayerNorm",
    "final_norm": "{base}LayerNorm",
}
# BERT's pooled output, tanh of a linear map of the first hidden state, is the first layer of our
# classification head, which applies dropout to the inputs of that map too.
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
# Their normalization calls its scale a weight, as do their linear layers and tables.
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class Family:
    """One of their architectures.

    Attributes:
      model_type: its name in config.json.
      class_name: prefix of its class names in transformers.
      base: prefix of the encoder's tensor names in models that have a head; without a head there is
        no prefix.
      norm: `model.norm`.
      modules: our path -> their name of every module and table, with {base} and {layer} left open.
      has_types: whether rows have token types. RoBERTa has one type, which is added to every
        position.
      padded_positions: whether positions count from the id of the padding plus 1, as in RoBERTa;
        the rows before that are unused.
      head_activation: activation of the masked-language head; empty for that of the layers.
      pooled: whether models without a classification head have its first layer all the same,
        trained as BERT's pooler.
    """

    model_type: str
    class_name: str
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
          path: path such as `blocks/ffn/up/kernel`.
          base: prefix of their names; None means `self.base`.
          layer: number of the layer of a path in blocks/.
        """
        if path in self.modules:  # a table
            pattern, leaf = self.modules[path], "weight"
        else:
            module, _, leaf = path.rpartition("/")
            pattern, leaf = self.modules[module], _LEAVES[leaf]
        return f"{pattern.format(base=self.base if base is None else base, layer=layer)}.{leaf}"


_BERT = Family(
    "bert",
    "Bert",
    "bert.",
    "post",
    {**_COMMON, **_POST_NORMS, **_BERT_HEADS},
    has_types=True,
    padded_positions=False,
    head_activation="",
    pooled=True,
)
_ROBERTA = Family(
    "roberta", "Roberta", "roberta.", "post", {**_COMMON, **_POST_NORMS, **_ROBERTA_HEADS}
)
_PRE_NORM = Family(
    "roberta-prelayernorm",
    "RobertaPreLayerNorm",
    "roberta_prelayernorm.",
    "pre",
    {**_COMMON, **_PRE_NORMS, **_ROBERTA_HEADS},
)
FAMILIES = {family.model_type: family for family in (_BERT, _ROBERTA, _PRE_NORM)}


def family_of(settings: Mapping[str, Any], where: str) -> Family:
    """The family of the model that a config.json describes; `where` names the file.

    Raises:
      InputError: the family is unknown, or an option is set that our encoder lacks.
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
            f"{where}: hidden_act {settings['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}"
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
      settings: content of the config.json.
      separator: token id after which BERT's token type 1 begins.
      where: name of the config.json, for messages.

    Raises:
      InputError: a setting is missing or impossible.
    """

    def number(name: str, default: int | None = None) -> int:
        value = settings.get(name, default)
        if type(value) is not int or value < 0:
            raise InputError(f"{where}: {name} is {value!r}, not a number")
        return value

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    types = number("type_vocab_size", 2)
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
) -> dict[str, np.ndarray]:
    """Our path -> float32 array of every leaf. `exported` is the way back.

    Args:
      family: family of their model.
      model: our settings of it.
      shapes: our path -> shape.
      base: prefix of the encoder's tensor names.
      types: number of rows of their table of token types.
      read: (their name, their shape) -> the tensor.
    """

    def one(path: str, shape: tuple[int, ...], layer: int | str = "") -> np.ndarray:
        shape = shape[::-1] if path.endswith("/kernel") else shape
        return _laid_out(path, read(family.name(path, base, layer), shape))

    leaves = {}
    for path, shape in shapes.items():
        if path.startswith("blocks/"):
            leaves[path] = np.stack([one(path, shape[1:], layer) for layer in range(shape[0])])
        elif path == "embedding/position":
            first = family.first_position(model.padding)
            table = one(path, (first + shape[0], shape[1]))[first:]
            # A type that every token has is a constant: added to the positions, it needs no table.
            if not family.has_types and types:
                table = table + one("embedding/token_type", (types, shape[1]))[0]
            leaves[path] = table
        else:
            leaves[path] = one(path, shape)
    return leaves


def exported(
    family: Family, model: config.Model, leaves: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Their name -> float32 tensor of every leaf; see `imported`.

    Layers that share parameters each get a copy.
    """
    tensors = {}
    for path, leaf in leaves.items():
        values = np.asarray(leaf, np.float32)
        if path.startswith("blocks/"):
            for layer in range(model.layers):
                # A stack of one layer is shared by all.
                shared = values[layer % len(values)]
                tensors[family.name(path, layer=layer)] = _laid_out(path, shared)
        else:
            tensors[family.name(path)] = _laid_out(path, values)
    position = family.name("embedding/position")
    unused = family.first_position(model.padding)
    tensors[position] = np.pad(tensors[position], ((unused, 0), (0, 0)))
    if not model.token_types:
        # Their encoders always add a token type: one row of zeros stands for none.
        types = family.name("embedding/token_type")
        tensors[types] = np.zeros((1, model.hidden), np.float32)
    return tensors


def _laid_out(path: str, values: np.ndarray) -> np.ndarray:
    """A leaf in the other layout, which differs in the kernels alone: those are transposed."""
    whole = values.T if path.endswith("/kernel") else values
    return np.ascontiguousarray(whole, np.float32)
