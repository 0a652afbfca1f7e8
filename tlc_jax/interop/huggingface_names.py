"""Maps Hugging Face configs and tensor names to ours.

Three families of `transformers` are known: BERT, RoBERTa (both post-norm) and RoBERTa-PreLayerNorm.
Their linear layers store [outputs, inputs], our kernels [inputs, outputs]; they store layers one by
one, we stack them on the first axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
      is_bert: whether it is BERT. Its rows have token types, where RoBERTa has one type, which is
        added to every position. Its positions count from 0, where those of RoBERTa count from the
        id of the padding plus 1, and the rows before that are unused. Its masked-language head has
        the activation of the layers, where that of RoBERTa has GELU. Its models without a
        classification head have the first layer of one, trained as the pooler.
    """

    model_type: str
    class_name: str
    base: str
    norm: str
    modules: Mapping[str, str]
    is_bert: bool = False

    def first_position(self, padding: int) -> int:
        """The row of their table of positions that the first token has."""
        return 0 if self.is_bert else padding + 1

    def name(self, path: str, layer: int | str = "") -> str:
        """Their name of the leaf at our path.

        Args:
          path: path such as `blocks/ffn/up/kernel`.
          layer: number of the layer of a path in blocks/.
        """
        # A table is its own module. Normalization calls its scale a weight, as linear layers and
        # tables call theirs.
        module = path if path in self.modules else path.rpartition("/")[0]
        leaf = "bias" if path.endswith("/bias") else "weight"
        return f"{self.modules[module].format(base=self.base, layer=layer)}.{leaf}"


FAMILIES = {
    family.model_type: family
    for family in (
        Family("bert", "Bert", "bert.", "post", _COMMON | _POST_NORMS | _BERT_HEADS, is_bert=True),
        Family("roberta", "Roberta", "roberta.", "post", _COMMON | _POST_NORMS | _ROBERTA_HEADS),
        Family(
            "roberta-prelayernorm",
            "RobertaPreLayerNorm",
            "roberta_prelayernorm.",
            "pre",
            _COMMON | _PRE_NORMS | _ROBERTA_HEADS,
        ),
    )
}


# Our settings of a model by their names in config.json, whose order is that of the exported file.
WIDTHS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
}


def model_of(settings: Mapping[str, Any], where: str) -> tuple[Family, config.Model]:
    """The family of the model that a config.json describes, and our settings of it.

    Args:
      settings: content of the config.json.
      where: name of the config.json, for messages.

    Raises:
      InputError: the family is unknown, an option is set that our encoder lacks, or a setting is
        missing or impossible.
    """

    def number(name: str, default: int | None = None) -> int:
        value = settings.get(name, default)
        if type(value) is not int or value < 0:
            raise InputError(f"{where}: {name} is {value!r}, not a number")
        return value

    model_type = settings.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            f"{where}: model_type {model_type!r} is not known here; known are {', '.join(FAMILIES)}"
        )
    family = FAMILIES[model_type]
    position_type = settings.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise InputError(
            f"{where}: position_embedding_type {position_type!r} is not known here, only 'absolute'"
        )
    activation = settings.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(
            f"{where}: hidden_act {activation!r} is not one of {', '.join(ACTIVATIONS)}"
        )
    for name in ("is_decoder", "add_cross_attention"):
        if settings.get(name):
            raise InputError(f"{where}: {name} is set, and only encoders can be imported")
    widths: dict[str, Any] = {ours: number(theirs) for ours, theirs in WIDTHS.items()}
    hidden, heads, types = widths["hidden"], widths["heads"], number("type_vocab_size", 2)
    padding = number("pad_token_id", 0 if family.is_bert else 1)
    if heads < 1 or hidden % heads:
        raise InputError(
            f"{where}: hidden_size {hidden} is not divisible by num_attention_heads {heads}"
        )
    if family.is_bert and types not in (1, 2):
        raise InputError(f"{where}: type_vocab_size {types} is not known here, only 1 and 2")
    model = config.Model(
        **widths,
        max_length=number("max_position_embeddings") - family.first_position(padding),
        norm=family.norm,
        norm_epsilon=float(settings.get("layer_norm_eps", 1e-12)),
        activation=ACTIVATIONS[activation],
        token_types=types if family.is_bert else 0,
        padding=padding,
    )
    return family, model


def other_layout(path: str, values: np.ndarray) -> np.ndarray:
    """A leaf in the other layout, which differs in the kernels alone: those are transposed."""
    whole = values.T if path.endswith("/kernel") else values
    return np.ascontiguousarray(whole, np.float32)
