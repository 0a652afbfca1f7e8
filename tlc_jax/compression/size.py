"""How large a model is, by several definitions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tlc_jax.compression.artifact import Compressed
from tlc_jax.compression.recipe import FLOAT_BITS
from tlc_jax.core.params import flatten


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one model.

    Attributes:
      params: number of parameters, pruned ones included.
      nonzero: number of parameters that pruning left. Survivors that quantization rounds to zero
        count: they are stored.
      bits: bits of a quantized weight, on average where they differ; 32 where none is quantized.
      sparsity: pruned share of the leaves that lost weights.
      sparsity_all: pruned share of all parameters.
      bytes_ideal: bytes of a format without any overhead: each nonzero parameter at its bits, one
        bit per position of each tensor that lost weights, scales and zero points at 32 bits.
      bytes_paper: bytes that paper 1 plots: each nonzero parameter at its bits, as if its position
        and scale were free.
      bytes_artifact: bytes of the artifact file; None where there is none.
    """

    params: int
    nonzero: int
    bits: float
    sparsity: float
    sparsity_all: float
    bytes_ideal: int
    bytes_paper: int
    bytes_artifact: int | None = None


def measure(model: Compressed, artifact: Path | None = None) -> Sizes:
    """The sizes of a model and of its artifact file."""
    masks = flatten(model.masks)
    params = nonzero = paper_bits = index_bits = 0
    for path, leaf in flatten(model.params).items():
        stored = int(np.count_nonzero(masks[path])) if path in masks else leaf.size
        params += leaf.size
        nonzero += stored
        paper_bits += stored * leaf_bits(model, path)
        index_bits += leaf.size if path in masks else 0
    tensors = model.quantized.values()
    grids = sum(t.scale.size + (0 if t.zero is None else t.zero.size) for t in tensors)
    quantized = sum(t.codes.size for t in tensors)
    mean = sum(t.codes.size * t.bits for t in tensors) / quantized if quantized else FLOAT_BITS
    return Sizes(
        params=params,
        nonzero=nonzero,
        bits=round(mean, 3) if mean % 1 else int(mean),
        sparsity=(params - nonzero) / index_bits if index_bits else 0.0,
        sparsity_all=(params - nonzero) / params,
        bytes_ideal=-(-(paper_bits + index_bits + FLOAT_BITS * grids) // 8),
        bytes_paper=-(-paper_bits // 8),
        bytes_artifact=None if artifact is None else artifact.stat().st_size,
    )


def leaf_bits(model: Compressed, path: str) -> int:
    """Bits of each weight of a parameter."""
    return model.quantized[path].bits if path in model.quantized else FLOAT_BITS


def directory_bytes(directory: Path) -> int:
    """The total length of all files under a directory.

    `bytes_checkpoint` is that of the Orbax directory with the compressed parameters as float32,
    after its own general-purpose compression.
    """
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
