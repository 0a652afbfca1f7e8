"""The encoder written down as an ONNX graph.

This is a second description of `models.encoder`; tests compare it with the first. A converter would
save it, but jax2onnx, the one converter of JAX programs that is maintained, cannot be installed
beside our Orbax (0.17 needs one below 0.11.37). Written by hand, the graph is also small: an
operation that runtimes know is one node.

Weights are values of the graph, named by their paths, those of a layer `blocks/LAYER/...`; the
caller adds them. Shapes in names are explained in `models.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tlc_jax.models.layers import SHARED_BY, Shape
from tlc_jax.models.network import Network

OPSET = 21  # the first with 4-bit integers
# The score of padding: its share of attention is 0, and adding another score does not overflow.
_LOWEST = 0.7 * float(np.finfo(np.float32).min)
_ACTIVATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


def layer_path(path: str, layer: int) -> str:
    """`blocks/...` with the layer's number in it."""
    return path.replace("blocks/", f"blocks/{layer}/", 1)


class Graph:
    """Nodes and initializers, added one by one."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}

    def initializer(self, values: np.ndarray, name: str) -> str:
        """Adds values unless the name is taken; returns the name."""
        import onnx  # here, because the package is optional

        if name not in self.initializers:
            self.initializers[name] = onnx.numpy_helper.from_array(values, name)
        return name

    def number(self, value: float, dtype: Any) -> str:
        """Adds a number."""
        return self.initializer(np.array(value, dtype), f"{np.dtype(dtype).name}:{value}")

    def vector(self, *values: int) -> str:
        """Adds an int64 vector, of axes or of a shape."""
        return self.initializer(np.array(values, np.int64), f"vector:{','.join(map(str, values))}")

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node with one output and returns its name, a new one unless it is given."""
        import onnx

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def encoder_graph(graph: Graph, network: Network) -> Any:
    """The ONNX message of an encoder with its head.

    Its inputs are `tokens` and `mask` (1 at real tokens), int64 [batch, length]. Its output is
    `logits`, float32 [batch, classes] of a classifier and [batch, length, vocabulary] of a
    masked-language model.

    Args:
      graph: graph that has the weights; the nodes of the encoder are added to it.
      network: an encoder with a head.
    """
    import onnx

    encoder = _Encoder(graph, Shape.of(network.model, network.impl))
    x_BxLxD = encoder.encode("tokens", "mask")
    rows: tuple[str | int, ...] = ("batch", "length")
    if network.kind == "mlm":
        encoder.masked_language_head(x_BxLxD)
        logits = (*rows, network.vocab_size)
    else:
        encoder.classification_head(x_BxLxD)
        logits = ("batch", network.classes)
    types, value = onnx.TensorProto, onnx.helper.make_tensor_value_info
    inputs = [value(name, types.INT64, rows) for name in ("tokens", "mask")]
    outputs = [value("logits", types.FLOAT, logits)]
    initializers = list(graph.initializers.values())
    return onnx.helper.make_graph(graph.nodes, "encoder", inputs, outputs, initializers)


class _Encoder:
    """Adds what `models.encoder` and `models.layers` compute, layer by layer."""

    def __init__(self, graph: Graph, shape: Shape) -> None:
        self.graph, self.shape = graph, shape
        self.add = graph.node

    def encode(self, tokens_BxL: str, mask_BxL: str) -> str:
        bias_Bx1x1xL = self._mask_bias(mask_BxL)
        x_BxLxD = self._embedding(tokens_BxL)
        for layer in range(self.shape.layers):
            x_BxLxD = self._block(layer, x_BxLxD, bias_Bx1x1xL)
        return self._norm("final_norm", x_BxLxD) if self.shape.norm == "pre" else x_BxLxD

    def masked_language_head(self, x_BxLxD: str) -> None:
        x_BxLxD = self._activation(self._dense("mlm_head/dense", x_BxLxD))
        x_BxLxD = self._norm("mlm_head/norm", x_BxLxD)
        # The output matrix is the token embedding; quantized, it is stored once for both uses.
        token_DxV = self.add("Transpose", "embedding/token", perm=[1, 0])
        self.add("Add", self.add("MatMul", x_BxLxD, token_DxV), "mlm_head/bias", output="logits")

    def classification_head(self, x_BxLxD: str) -> None:
        # The first token's state stands for the whole row.
        x_BxD = self.add("Gather", x_BxLxD, self.graph.number(0, np.int64), axis=1)
        x_BxD = self.add("Tanh", self._dense("classifier/dense", x_BxD))
        self._dense("classifier/output", x_BxD, output="logits")

    def _mask_bias(self, mask_BxL: str) -> str:
        """The addend of attention's scores: zero, or at padding a number close to the least
        float.
        """
        real_BxL = self.add("Cast", mask_BxL, to=_type(np.bool_))
        real_Bx1x1xL = self.add("Unsqueeze", real_BxL, self.graph.vector(1, 2))
        zero, lowest = (self.graph.number(value, np.float32) for value in (0.0, _LOWEST))
        return self.add("Where", real_Bx1x1xL, zero, lowest)

    def _embedding(self, tokens_BxL: str) -> str:
        start, length = self.graph.vector(0), self.add("Shape", tokens_BxL, start=1, end=2)
        position_LxD = self.add("Slice", "embedding/position", start, length, self.graph.vector(0))
        x_BxLxD = self.add("Add", self.add("Gather", "embedding/token", tokens_BxL), position_LxD)
        if self.shape.token_types:
            types_BxLxD = self.add("Gather", "embedding/token_type", self._types(tokens_BxL))
            x_BxLxD = self.add("Add", x_BxLxD, types_BxLxD)
        return self._norm("embedding/norm", x_BxLxD)

    def _types(self, tokens_BxL: str) -> str:
        """Token types: the number of separators before each token, at most the last type."""
        number = self.graph.number
        is_separator_BxL = self.add("Equal", tokens_BxL, number(self.shape.separator, np.int64))
        counted_BxL = self.add("Cast", is_separator_BxL, to=_type(np.int64))
        before_BxL = self.add("CumSum", counted_BxL, number(1, np.int64), exclusive=1)
        return self.add("Min", before_BxL, number(self.shape.token_types - 1, np.int64))

    def _block(self, layer: int, x_BxLxD: str, bias_Bx1x1xL: str) -> str:
        def at(name: str) -> str:
            shared = name in SHARED_BY[self.shape.share]
            return layer_path(f"blocks/{name}", 0 if shared else layer)

        def attention(y_BxLxD: str) -> str:
            return self._attention(at("attention"), y_BxLxD, bias_Bx1x1xL)

        def ffn(y_BxLxD: str) -> str:
            path = at("ffn")
            return self._dense(f"{path}/down", self._activation(self._dense(f"{path}/up", y_BxLxD)))

        x_BxLxD = self._with_residual(x_BxLxD, attention, at("attention_norm"))
        return self._with_residual(x_BxLxD, ffn, at("ffn_norm"))

    def _with_residual(self, x_BxLxD: str, sublayer: Callable[[str], str], norm: str) -> str:
        if self.shape.norm == "pre":
            return self.add("Add", x_BxLxD, sublayer(self._norm(norm, x_BxLxD)))
        return self._norm(norm, self.add("Add", x_BxLxD, sublayer(x_BxLxD)))

    def _attention(self, path: str, x_BxLxD: str, bias_Bx1x1xL: str) -> str:
        q, k, v = (self._heads(f"{path}/{name}", x_BxLxD) for name in ("query", "key", "value"))
        k_BxHxExL = self.add("Transpose", k, perm=[0, 1, 3, 2])
        scale = self.graph.number(self.shape.head_size**-0.5, np.float32)
        score_BxHxLxL = self.add("Mul", self.add("MatMul", q, k_BxHxExL), scale)
        share_BxHxLxL = self.add("Softmax", self.add("Add", score_BxHxLxL, bias_Bx1x1xL), axis=-1)
        y_BxLxHxE = self.add("Transpose", self.add("MatMul", share_BxHxLxL, v), perm=[0, 2, 1, 3])
        y_BxLxD = self.add("Reshape", y_BxLxHxE, self.graph.vector(0, 0, -1))
        return self._dense(f"{path}/output", y_BxLxD)

    def _heads(self, path: str, x_BxLxD: str) -> str:
        """An affine map, split into heads: [B, H, L, E]."""
        split = self.graph.vector(0, 0, self.shape.heads, self.shape.head_size)
        x_BxLxHxE = self.add("Reshape", self._dense(path, x_BxLxD), split)
        return self.add("Transpose", x_BxLxHxE, perm=[0, 2, 1, 3])

    def _dense(self, path: str, x: str, output: str = "") -> str:
        product = self.add("MatMul", x, f"{path}/kernel")
        return self.add("Add", product, f"{path}/bias", output=output)

    def _norm(self, path: str, x: str) -> str:
        how: dict[str, Any] = {"axis": -1, "epsilon": self.shape.norm_epsilon}
        return self.add("LayerNormalization", x, f"{path}/scale", f"{path}/bias", **how)

    def _activation(self, x: str) -> str:
        kind, attributes = _ACTIVATIONS[self.shape.activation]
        return self.add(kind, x, **attributes)


def _type(dtype: Any) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
