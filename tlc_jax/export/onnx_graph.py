"""The encoder written down as an ONNX graph.

A second description of `models.encoder`, which tests hold to the first one. Converting the first would save it, but
jax2onnx, the one converter of JAX programs that is kept up, cannot be installed beside the Orbax that we use (0.17 wants
one below 0.11.37), and this way the graph is small: what runtimes know as one operation is one node.

Weights are values of the graph called by their paths, those of a layer `blocks/LAYER/...`; whoever makes the file says
what is in them. Shapes in names as in `models.blocks`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tlc_jax.models.blocks import NORM_EPSILON, SHARED_BY, Shape
from tlc_jax.models.network import Network

OPSET = 21
"""The first with 4-bit integers."""

_LOWEST = np.float32(0.7 * np.finfo(np.float32).min)
"""A score that no share of attention is left for, far enough from the least float to have another added."""


def layer_path(path: str, layer: int) -> str:
    """`blocks/...` with the layer's number in it."""
    return path.replace("blocks/", f"blocks/{layer}/", 1)


class Graph:
    """Nodes and initializers, added one by one."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def initializer(self, values: np.ndarray, name: str) -> str:
        """Adds values, if there are none of that name yet; returns the name."""
        import onnx

        if name not in self._initializers:
            self._initializers[name] = onnx.numpy_helper.from_array(values, name)
        return name

    def constant(self, *values: Any, dtype: Any = np.int64) -> str:
        """Adds a vector of numbers, or a single one."""
        name = f"{np.dtype(dtype).name}:{','.join(map(str, values))}"
        return self.initializer(np.array(values, dtype), name)

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node with one output, which gets a name of its own unless it is given; returns that."""
        import onnx

        output = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def input(self, name: str, dtype: Any, shape: tuple[str | int, ...]) -> str:
        """Declares an input."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: Any, shape: tuple[str | int, ...]) -> None:
        """Declares an output."""
        self._outputs.append(_value_info(name, dtype, shape))

    def proto(self) -> Any:
        """The graph as ONNX has it."""
        import onnx

        return onnx.helper.make_graph(
            self._nodes, "encoder", self._inputs, self._outputs, list(self._initializers.values())
        )


def _value_info(name: str, dtype: Any, shape: tuple[str | int, ...]) -> Any:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def encoder_graph(graph: Graph, network: Network) -> None:
    """Adds an encoder with its head: `tokens` and `mask` (1 at real tokens), int64 [batch, length], to `logits`,
    float32 [batch, classes] of a classifier and [batch, length, vocabulary] of a masked-language model.
    """
    shape = Shape.of(network.model, network.impl)
    tokens_BxL = graph.input("tokens", np.int64, ("batch", "length"))
    mask_BxL = graph.input("mask", np.int64, ("batch", "length"))
    bias_Bx1x1xL = _mask_bias(graph, mask_BxL)
    x_BxLxD = _embedding(graph, tokens_BxL)
    for layer in range(shape.layers):
        x_BxLxD = _block(graph, shape, layer, x_BxLxD, bias_Bx1x1xL)
    x_BxLxD = _norm(graph, "final_norm", x_BxLxD)
    if network.kind == "mlm":
        _masked_language_head(graph, x_BxLxD)
        graph.output("logits", np.float32, ("batch", "length", network.vocab_size))
    else:
        _classification_head(graph, x_BxLxD)
        graph.output("logits", np.float32, ("batch", network.classes))


def _mask_bias(graph: Graph, mask_BxL: str) -> str:
    """What is added to attention's scores: nothing, or at padding the least number."""
    real_BxL = graph.node("Cast", mask_BxL, to=_type(np.bool_))
    real_Bx1x1xL = graph.node("Unsqueeze", real_BxL, graph.constant(1, 2))
    zero, lowest = (graph.constant(value, dtype=np.float32) for value in (0.0, _LOWEST))
    return graph.node("Where", real_Bx1x1xL, zero, lowest)


def _embedding(graph: Graph, tokens_BxL: str) -> str:
    length = graph.node("Shape", tokens_BxL, start=1, end=2)
    position_LxD = graph.node("Slice", "embedding/position", graph.constant(0), length, graph.constant(0))
    x_BxLxD = graph.node("Gather", "embedding/token", tokens_BxL)
    return _norm(graph, "embedding/norm", graph.node("Add", x_BxLxD, position_LxD))


def _block(graph: Graph, shape: Shape, layer: int, x_BxLxD: str, bias_Bx1x1xL: str) -> str:
    def at(name: str) -> str:
        shared = name.partition("/")[0] in SHARED_BY[shape.share]
        return layer_path(f"blocks/{name}", 0 if shared else layer)

    y_BxLxD = _norm(graph, at("attention_norm"), x_BxLxD)
    q, k, v = (_heads(graph, shape, at(f"attention/{name}"), y_BxLxD) for name in ("query", "key", "value"))
    k_BxHxExL = graph.node("Transpose", k, perm=[0, 1, 3, 2])
    scale = graph.constant(np.float32(_head_size(shape) ** -0.5), dtype=np.float32)
    score_BxHxLxL = graph.node("Mul", graph.node("MatMul", q, k_BxHxExL), scale)
    share_BxHxLxL = graph.node("Softmax", graph.node("Add", score_BxHxLxL, bias_Bx1x1xL), axis=-1)
    y_BxLxHxE = graph.node("Transpose", graph.node("MatMul", share_BxHxLxL, v), perm=[0, 2, 1, 3])
    y_BxLxA = graph.node("Reshape", y_BxLxHxE, graph.constant(0, 0, -1))
    x_BxLxD = graph.node("Add", x_BxLxD, _dense(graph, at("attention/output"), y_BxLxA))

    y_BxLxF = _activation(graph, _dense(graph, at("ffn/up"), _norm(graph, at("ffn_norm"), x_BxLxD)))
    return graph.node("Add", x_BxLxD, _dense(graph, at("ffn/down"), y_BxLxF))


def _heads(graph: Graph, shape: Shape, path: str, x_BxLxD: str) -> str:
    """An affine map, split into heads: [B, H, L, E]."""
    y_BxLxHxE = graph.node("Reshape", _dense(graph, path, x_BxLxD), graph.constant(0, 0, shape.heads, -1))
    return graph.node("Transpose", y_BxLxHxE, perm=[0, 2, 1, 3])


def _masked_language_head(graph: Graph, x_BxLxD: str) -> None:
    x_BxLxD = _norm(graph, "mlm_head/norm", _activation(graph, _dense(graph, "mlm_head/dense", x_BxLxD)))
    token_DxV = graph.node("Transpose", "embedding/token", perm=[1, 0])
    graph.node("Add", graph.node("MatMul", x_BxLxD, token_DxV), "mlm_head/bias", output="logits")


def _classification_head(graph: Graph, x_BxLxD: str) -> None:
    x_BxD = graph.node("Gather", x_BxLxD, graph.initializer(np.array(0, np.int64), "first"), axis=1)
    x_BxD = graph.node("Tanh", _dense(graph, "classifier/dense", x_BxD))
    _dense(graph, "classifier/output", x_BxD, output="logits")


def _dense(graph: Graph, path: str, x: str, output: str = "") -> str:
    return graph.node("Add", graph.node("MatMul", x, f"{path}/kernel"), f"{path}/bias", output=output)


def _norm(graph: Graph, path: str, x: str) -> str:
    return graph.node("LayerNormalization", x, f"{path}/scale", f"{path}/bias", axis=-1, epsilon=NORM_EPSILON)


def _activation(graph: Graph, x: str) -> str:
    return graph.node("Gelu", x)


def _head_size(shape: Shape) -> int:
    return shape.hidden // shape.heads


def _type(dtype: Any) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
