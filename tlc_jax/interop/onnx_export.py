"""Writes an encoder as an ONNX file whose quantized weights stay integers.

The graph is that of `onnx_graph`. Each weight is an initializer: float32, or the artifact's codes
and scales with a DequantizeLinear behind them, which gives the artifact's values to the bit.
"""

from __future__ import annotations

import collections
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tlc_jax.compression.quantize import QuantizedTensor
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten
from tlc_jax.interop.onnx_graph import OPSET, Graph, encoder_graph, layer_path
from tlc_jax.models.network import Network, Params

# A file's format ends at 2 GiB: beyond this many bytes, weights go to a second file beside it.
_LARGEST_FILE = 2**31 - 2**24
# The lowest version that has 4-bit integers, for runtimes that are not the newest.
_IR_VERSION = 10


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
    """Writes the model.

    Args:
      path: the file; weights of more than 2 GiB go to another file beside it.
      network: an encoder.
      params: parameters, float32.
      quantized: path -> codes and scales of the leaves that have them; they stay integers where
        `stays_integer`.
      metadata: values that JSON can represent, stored with the model.

    Returns:
      the number of weights stored as each type; the matrices of a stack count one by one.
    """
    import onnx

    graph = Graph()
    types: collections.Counter[str] = collections.Counter()
    for name, leaf in flatten(params).items():
        values, codes = np.asarray(leaf, np.float32), quantized.get(name)
        if codes is not None and not stays_integer(codes):
            codes = None
        parts = [(name, values, codes)]
        if name.startswith("blocks/"):
            stack = range(len(values))
            layers = [None if codes is None else _layer_of(codes, layer) for layer in stack]
            parts = [(layer_path(name, layer), values[layer], layers[layer]) for layer in stack]
        for part, part_values, part_codes in parts:
            if part_codes is None:
                graph.initializer(part_values, part)
                types["float32"] += 1
            else:
                types[_add_quantized(graph, part, part_codes)] += 1
    model = onnx.helper.make_model(
        encoder_graph(graph, network),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tlc",
    )
    onnx.helper.set_model_props(model, {"tlc_jax": json.dumps(dict(metadata), sort_keys=True)})
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_FILE
    onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data")
    # By its path: the checker of a model in memory cannot see weights in a second file.
    onnx.checker.check_model(str(path))
    return dict(types)


def _layer_of(q: QuantizedTensor, layer: int) -> QuantizedTensor:
    zero = None if q.zero is None else q.zero[layer]
    grouped = None if q.grouped is None else q.grouped - 1
    return QuantizedTensor(q.codes[layer], q.scale[layer], zero, q.bits, grouped=grouped)


def _add_quantized(graph: Graph, name: str, q: QuantizedTensor) -> str:
    """Adds codes, scales and the nodes that compute `name` from them; returns the type of codes."""
    dtype = q.codes.dtype
    if q.bits <= 4:
        dtype = np.dtype(ml_dtypes.int4 if q.zero is None else ml_dtypes.uint4)
    codes = graph.initializer(q.codes.astype(dtype), f"{name}:codes")
    along: dict[str, int] = {}
    if q.grouped is not None:
        groups = q.scale.shape[q.grouped]
        along = {"axis": q.grouped, "block_size": q.codes.shape[q.grouped] // groups}
        scales = q.scale.squeeze(q.grouped + 1)
    elif q.scale.size == 1:  # per tensor: ONNX wants a scalar and no axis
        scales = q.scale.reshape(())
    else:
        along, scales = {"axis": int(np.argmax(q.scale.shape))}, q.scale.reshape(-1)
    scale = graph.initializer(scales, f"{name}:scale")
    if q.zero is None:
        graph.node("DequantizeLinear", codes, scale, output=name, **along)
    else:
        # DequantizeLinear takes integer zero points, and these are floats: they are added after it.
        steps = graph.node("DequantizeLinear", codes, scale, output=f"{name}:steps", **along)
        graph.node("Add", steps, graph.initializer(q.zero, f"{name}:zero"), output=name)
    return dtype.name
