"""Writes a model as ONNX files whose quantized weights stay integers: an encoder as one file, a
translator as an encoder and a decoder with its cache.

Each weight is an initializer: float32, or the artifact's codes and scales with a DequantizeLinear
behind them, which gives the artifact's values to the bit. Weights are values of the graph, named by
their paths, those of a layer `blocks/LAYER/...`.

The graph is a second description of `models`; tests compare it with the first. A converter
would save it, but jax2onnx, the one converter of JAX programs that is maintained, cannot be
installed beside our Orbax (0.17 needs one below 0.11.37). Written by hand, the graph is also small:
an operation that runtimes know is one node. Shapes in names are explained in `models.layers`.
"""

from __future__ import annotations

import collections
import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tlc_jax.compression.artifact import QuantizedTensor
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.models.layers import SHARED_BY, Shape
from tlc_jax.models.network import Network, Params

OPSET = 21  # the first with 4-bit integers
# The lowest version that has 4-bit integers, for runtimes that are not the newest.
_IR_VERSION = 10
# A file's format ends at 2 GiB: beyond this many bytes, weights go to a second file beside it.
_LARGEST_FILE = 2**31 - 2**24
# The score of padding: its share of attention is 0, and adding another score does not overflow.
_LOWEST = 0.7 * float(np.finfo(np.float32).min)
_ROWS = ("batch", "length")
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


def layer_path(path: str, layer: int) -> str:
    """`blocks/...` with the layer's number in it."""
    return path.replace("blocks/", f"blocks/{layer}/", 1)


def require_packages() -> None:
    """Raises `InputError` unless the library is installed, without importing it."""
    if importlib.util.find_spec("onnx") is None:
        raise InputError("export.format=onnx needs the package onnx: pip install 'tlc_jax[onnx]'")


def stays_integer(q: QuantizedTensor) -> bool:
    """Whether ONNX can express how a tensor is quantized.

    On a grid from minimum to maximum it cannot express pruned weights, which are not on the grid,
    nor groups, whose zero points are floats that are added after DequantizeLinear.
    """
    return q.zero is None or (q.kept is None and q.grouped is None)


def write(
    path: Path,
    network: Network,
    params: Params,
    quantized: Mapping[str, QuantizedTensor],
    metadata: Mapping[str, Any],
) -> dict[str, int]:
    """Writes an encoder.

    Its inputs are `tokens` and `mask` (1 at real tokens), int64 [batch, length]. Its output is
    `logits`, float32 [batch, classes] of a classifier and [batch, length, vocabulary] of a
    masked-language model.

    Args:
      path: the file; weights of more than 2 GiB go to another file beside it.
      network: an encoder with a head.
      params: parameters, float32.
      quantized: path -> codes and scales of the leaves that have them; they stay integers where
        `stays_integer`.
      metadata: values that JSON can represent, stored with the model.

    Returns:
      the number of weights stored as each type; the matrices of a stack count one by one.
    """
    graph = _Graph(network.shape)
    graph.inputs |= {"tokens": _ROWS, "mask": _ROWS}
    x_BxLxD = graph.encode("tokens", "mask")
    if network.kind == "mlm":
        graph.masked_language_head(x_BxLxD)
        graph.outputs["logits"] = (*_ROWS, network.vocab_size)
    else:
        graph.classification_head(x_BxLxD)
        graph.outputs["logits"] = ("batch", network.classes)
    return dict(graph.save(path, params, quantized, metadata))


def write_translator(
    folder: Path,
    network: Network,
    params: Params,
    quantized: Mapping[str, QuantizedTensor],
    metadata: Mapping[str, Any],
) -> dict[str, int]:
    """Writes encoder.onnx and decoder.onnx; arguments and result are those of `write`.

    The encoder turns `tokens` and `mask`, int64 [batch, source], into the keys and values that
    layer N of the decoder attends to, `memory.N.key` and `memory.N.value`, float32 [batch, heads,
    source, head size]. The decoder takes these and `mask`, one token of each row, int64 [batch, 1],
    and the keys and values of the tokens before it, `past.N.key` and `past.N.value`, float32
    [batch, heads, past, head size]; past is 0 at the first token, <s>. It gives `logits` of the
    next token, float32 [batch, vocabulary], and `present.N.key` and `present.N.value`, the past of
    the next call. Rows have no padding between their target tokens.
    """
    shape = network.shape
    encoder, decoder = _Graph(shape), _Graph(shape)
    encoder.inputs |= {"tokens": _ROWS, "mask": _ROWS}
    memory_BxSxD = encoder.encode("tokens", "mask", "encoder/", "encoder_norm")
    decoder.inputs |= {"tokens": ("batch", 1), "mask": _ROWS}
    for layer, name in itertools.product(range(shape.layers), ("key", "value")):
        path, own = encoder.path(f"decoder/blocks/cross/{name}", layer), f"{layer}.{name}"
        encoder.heads(path, memory_BxSxD, output=f"memory.{own}")
        for values, kind, length in (
            (encoder.outputs, "memory", "length"),
            (decoder.inputs, "memory", "length"),
            (decoder.inputs, "past", "past"),
            (decoder.outputs, "present", "present"),
        ):
            values[f"{kind}.{own}"] = ("batch", shape.heads, length, shape.head_size)
    decoder.decode("tokens", "mask")
    decoder.outputs["logits"] = ("batch", network.vocab_size)
    parts = {"encoder": encoder, "decoder": decoder}
    types: collections.Counter[str] = collections.Counter()
    for name, graph in parts.items():
        types += graph.save(folder / f"{name}.onnx", params, quantized, metadata)
    return dict(types)


class _Graph:
    """Weights by name, and nodes for the operations of `models`.

    Attributes:
      inputs: name -> dimensions; int64 the tokens and the mask, float32 all others.
      outputs: name -> dimensions, float32.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inputs: dict[str, tuple[str | int, ...]] = {}
        self.outputs: dict[str, tuple[str | int, ...]] = {}

    def save(
        self,
        path: Path,
        params: Params,
        quantized: Mapping[str, QuantizedTensor],
        metadata: Mapping[str, Any],
    ) -> collections.Counter[str]:
        """Writes the graph with the weights that its nodes name; see `write`."""
        import onnx  # here, because the package is optional

        types = self._add_weights(params, quantized)
        proto, value = onnx.TensorProto, onnx.helper.make_tensor_value_info
        types_of = {"tokens": proto.INT64, "mask": proto.INT64}
        inputs, outputs = (
            [value(name, types_of.get(name, proto.FLOAT), shape) for name, shape in values.items()]
            for values in (self.inputs, self.outputs)
        )
        weights = list(self.initializers.values())
        model = onnx.helper.make_model(
            onnx.helper.make_graph(self.nodes, path.stem, inputs, outputs, weights),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="tlc",
        )
        onnx.helper.set_model_props(model, {"tlc_jax": json.dumps(dict(metadata), sort_keys=True)})
        large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_FILE
        onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data")
        # By its path: the checker of a model in memory cannot see weights in a second file.
        onnx.checker.check_model(str(path))
        return types

    def _add_weights(
        self, params: Params, quantized: Mapping[str, QuantizedTensor]
    ) -> collections.Counter[str]:
        """Adds the weights that nodes name, before these nodes; returns their number by type."""
        types: collections.Counter[str] = collections.Counter()
        nodes, self.nodes = self.nodes, []
        used = {name for node in nodes for name in node.input}
        for name, leaf in flatten(params).items():
            values, codes = np.asarray(leaf, np.float32), quantized.get(name)
            if codes is not None and not stays_integer(codes):
                codes = None
            indices: Any = range(len(values)) if "blocks/" in name else [...]
            for index in indices:
                part = name if index is ... else layer_path(name, index)
                if part not in used:
                    continue
                if codes is None:
                    self.initializer(values[index], part)
                    types["float32"] += 1
                else:
                    types[self.quantized(part, codes, index)] += 1
        self.nodes += nodes
        return types

    def initializer(self, values: np.ndarray, name: str) -> str:
        """Adds values unless the name is taken; returns the name."""
        import onnx

        if name not in self.initializers:
            self.initializers[name] = onnx.numpy_helper.from_array(values, name)
        return name

    def number(self, value: float, dtype: Any) -> str:
        """Adds a number."""
        return self.initializer(np.array(value, dtype), f"{np.dtype(dtype).name}:{value}")

    def vector(self, *values: int) -> str:
        """Adds an int64 vector, of axes or of a shape."""
        return self.initializer(np.array(values, np.int64), f"vector:{','.join(map(str, values))}")

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node with one output and returns its name, a new one unless it is given."""
        import onnx

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _cast(self, x: str, dtype: Any) -> str:
        import onnx

        return self.add("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def quantized(self, name: str, q: QuantizedTensor, index: Any) -> str:
        """Adds codes, scales and the nodes that compute the weight `name` from them.

        Args:
          name: name of the weight.
          q: codes and scales of the weight, or of the stack that it is a part of.
          index: index of the weight in a stack, or `...` for the whole.

        Returns:
          The type of the codes.
        """
        codes, scale, dtype = q.codes[index], q.scale[index], q.codes.dtype
        if q.bits <= 4:
            dtype = np.dtype(ml_dtypes.int4 if q.zero is None else ml_dtypes.uint4)
        along: dict[str, int] = {}
        if q.grouped is not None:
            # A layer has one axis less than its stack.
            axis = q.grouped - (q.codes.ndim - codes.ndim)
            along = {"axis": axis, "block_size": codes.shape[axis] // scale.shape[axis]}
            scale = scale.squeeze(axis + 1)
        elif scale.size == 1:  # per tensor: ONNX wants a scalar and no axis
            scale = scale.reshape(())
        else:
            along, scale = {"axis": int(np.argmax(scale.shape))}, scale.reshape(-1)
        inputs = [
            self.initializer(codes.astype(dtype), f"{name}:codes"),
            self.initializer(scale, f"{name}:scale"),
        ]
        if q.zero is None:
            self.add("DequantizeLinear", *inputs, output=name, **along)
        else:
            # DequantizeLinear takes integer zero points, and these are floats: a node adds them.
            steps = self.add("DequantizeLinear", *inputs, output=f"{name}:steps", **along)
            self.add("Add", steps, self.initializer(q.zero[index], f"{name}:zero"), output=name)
        return dtype.name

    def encode(
        self, tokens_BxL: str, mask_BxL: str, stack: str = "", norm: str = "final_norm"
    ) -> str:
        """Adds an encoder, whose blocks are those of `stack`."""
        bias_Bx1x1xL = self._bias(mask_BxL)
        length = self.add("Shape", tokens_BxL, start=1, end=2)
        x_BxLxD = self._embedding(tokens_BxL, self.vector(0), length)
        for layer in range(self.shape.layers):
            x_BxLxD = self._block(stack, layer, x_BxLxD, bias_Bx1x1xL)
        return self._norm(norm, x_BxLxD) if self.shape.norm == "pre" else x_BxLxD

    def decode(self, tokens_Bx1: str, mask_BxS: str) -> None:
        """Adds a decoder for one position of each row, from `past` and `memory` to `present`."""
        bias_Bx1x1xS = self._bias(mask_BxS)
        position = self.add("Shape", "past.0.key", start=2, end=3)
        after = self.add("Add", position, self.vector(1))
        x_Bx1xD = self._embedding(tokens_Bx1, position, after)
        for layer in range(self.shape.layers):
            x_Bx1xD = self._block("decoder/", layer, x_Bx1xD, bias_Bx1x1xS)
        x_BxD = self.add("Squeeze", self._norm("decoder_norm", x_Bx1xD), self.vector(1))
        self._logits(x_BxD, "output_bias")

    def _bias(self, mask_BxL: str) -> str:
        """What attention adds to its scores: 0, or at padding a number close to the least float."""
        real_Bx1x1xL = self.add("Unsqueeze", self._cast(mask_BxL, np.bool_), self.vector(1, 2))
        zero, lowest = (self.number(value, np.float32) for value in (0.0, _LOWEST))
        return self.add("Where", real_Bx1x1xL, zero, lowest)

    def _logits(self, x: str, bias: str) -> None:
        # The output matrix is the token embedding; quantized, it is stored once for both uses.
        token_DxV = self.add("Transpose", "embedding/token", perm=[1, 0])
        self.add("Add", self.add("MatMul", x, token_DxV), bias, output="logits")

    def masked_language_head(self, x_BxLxD: str) -> None:
        """Adds the head that predicts a token at each position."""
        x_BxLxD = self._activation(self._dense("mlm_head/dense", x_BxLxD))
        x_BxLxD = self._norm("mlm_head/norm", x_BxLxD)
        self._logits(x_BxLxD, "mlm_head/bias")

    def classification_head(self, x_BxLxD: str) -> None:
        """Adds the head that classifies rows."""
        # The first token's state stands for the whole row.
        x_BxD = self.add("Gather", x_BxLxD, self.number(0, np.int64), axis=1)
        x_BxD = self.add("Tanh", self._dense("classifier/dense", x_BxD))
        self._dense("classifier/output", x_BxD, output="logits")

    def _embedding(self, tokens_BxL: str, start: str, end: str) -> str:
        """Embeddings of tokens that stand at the positions from `start` to before `end`."""
        number, shape = self.number, self.shape
        position_LxD = self.add("Slice", "embedding/position", start, end, self.vector(0))
        x_BxLxD = self.add("Add", self.add("Gather", "embedding/token", tokens_BxL), position_LxD)
        if shape.token_types:
            # The type of a token is the number of separators before it, at most the last type.
            is_separator_BxL = self.add("Equal", tokens_BxL, number(shape.separator, np.int64))
            counted_BxL = self._cast(is_separator_BxL, np.int64)
            before_BxL = self.add("CumSum", counted_BxL, number(1, np.int64), exclusive=1)
            type_BxL = self.add("Min", before_BxL, number(shape.token_types - 1, np.int64))
            types_BxLxD = self.add("Gather", "embedding/token_type", type_BxL)
            x_BxLxD = self.add("Add", x_BxLxD, types_BxLxD)
        return self._norm("embedding/norm", x_BxLxD)

    def path(self, path: str, layer: int) -> str:
        """The path of a sublayer in one layer, which may be that of all layers."""
        _, _, name = path.partition("blocks/")
        shared = name.split("/")[0] in SHARED_BY[self.shape.share]
        return layer_path(path, 0 if shared else layer)

    def _block(self, stack: str, layer: int, x_BxLxD: str, bias_Bx1x1xL: str) -> str:
        """A layer. That of a decoder attends to the past and itself, then to the memory."""

        def at(name: str) -> str:
            return self.path(f"{stack}blocks/{name}", layer)

        def attention(y_BxLxD: str) -> str:
            k, v = (self.heads(f"{at('attention')}/{name}", y_BxLxD) for name in ("key", "value"))
            if stack != "decoder/":
                return self._attention(at("attention"), y_BxLxD, k, v, bias_Bx1x1xL)
            k, v = (
                self.add("Concat", f"past.{own}", new, output=f"present.{own}", axis=2)
                for own, new in ((f"{layer}.key", k), (f"{layer}.value", v))
            )
            return self._attention(at("attention"), y_BxLxD, k, v)

        def cross(y_BxLxD: str) -> str:
            k, v = f"memory.{layer}.key", f"memory.{layer}.value"
            return self._attention(at("cross"), y_BxLxD, k, v, bias_Bx1x1xL)

        def ffn(y_BxLxD: str) -> str:
            path = at("ffn")
            return self._dense(f"{path}/down", self._activation(self._dense(f"{path}/up", y_BxLxD)))

        x_BxLxD = self._with_residual(x_BxLxD, attention, at("attention_norm"))
        if stack == "decoder/":
            x_BxLxD = self._with_residual(x_BxLxD, cross, at("cross_norm"))
        return self._with_residual(x_BxLxD, ffn, at("ffn_norm"))

    def _with_residual(self, x_BxLxD: str, sublayer: Callable[[str], str], norm: str) -> str:
        if self.shape.norm == "pre":
            return self.add("Add", x_BxLxD, sublayer(self._norm(norm, x_BxLxD)))
        return self._norm(norm, self.add("Add", x_BxLxD, sublayer(x_BxLxD)))

    def _attention(self, path: str, x_BxTxD: str, k: str, v: str, bias_Bx1x1xL: str = "") -> str:
        """Attention to keys and values [B, H, L, E]."""
        q = self.heads(f"{path}/query", x_BxTxD)
        k_BxHxExL = self.add("Transpose", k, perm=[0, 1, 3, 2])
        scale = self.number(self.shape.head_size**-0.5, np.float32)
        score_BxHxTxL = self.add("Mul", self.add("MatMul", q, k_BxHxExL), scale)
        if bias_Bx1x1xL:
            score_BxHxTxL = self.add("Add", score_BxHxTxL, bias_Bx1x1xL)
        share_BxHxTxL = self.add("Softmax", score_BxHxTxL, axis=-1)
        y_BxTxHxE = self.add("Transpose", self.add("MatMul", share_BxHxTxL, v), perm=[0, 2, 1, 3])
        y_BxTxD = self.add("Reshape", y_BxTxHxE, self.vector(0, 0, -1))
        return self._dense(f"{path}/output", y_BxTxD)

    def heads(self, path: str, x_BxLxD: str, output: str = "") -> str:
        """An affine map, split into heads: [B, H, L, E]."""
        split = self.vector(0, 0, self.shape.heads, self.shape.head_size)
        x_BxLxHxE = self.add("Reshape", self._dense(path, x_BxLxD), split)
        return self.add("Transpose", x_BxLxHxE, output=output, perm=[0, 2, 1, 3])

    def _dense(self, path: str, x: str, output: str = "") -> str:
        product = self.add("MatMul", x, f"{path}/kernel")
        return self.add("Add", product, f"{path}/bias", output=output)

    def _norm(self, path: str, x: str) -> str:
        how: dict[str, Any] = {"axis": -1, "epsilon": self.shape.norm_epsilon}
        return self.add("LayerNormalization", x, f"{path}/scale", f"{path}/bias", **how)

    def _activation(self, x: str) -> str:
        kind, attributes = _ACTIVATIONS[self.shape.activation]
        return self.add(kind, x, **attributes)
