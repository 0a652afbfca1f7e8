"""How large a model is, in honest ways."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tlc_jax.compression.apply import Compressed
from tlc_jax.compression.recipe import FLOAT_BITS
from tlc_jax.core.params import flatten


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one model.

    Attributes:
      params: all parameters, pruned ones included.
      nonzero: parameters that pruning left. Survivors that quantisation rounds to zero count: they are stored.
      bytes_ideal: what a format without any overhead needs: each nonzero parameter at its bits, one bit per position of
        each tensor that lost weights, scales and zero points at 32 bits.
      bytes_paper: what paper 1 plots: each nonzero parameter at its bits, as if its position and scale were free.
      bytes_artifact: the artifact file; None where there is none.
    """

    params: int
    nonzero: int
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
        paper_bits += stored * (
            model.quantized[path].bits if path in model.quantized else FLOAT_BITS
        )
        index_bits += leaf.size if path in masks else 0
    grids = [
        grid
        for tensor in model.quantized.values()
        for grid in (tensor.scale, tensor.zero)
        if grid is not None
    ]
    grid_bits = FLOAT_BITS * sum(grid.size for grid in grids)
    return Sizes(
        params=params,
        nonzero=nonzero,
        bytes_ideal=_bytes(paper_bits + index_bits + grid_bits),
        bytes_paper=_bytes(paper_bits),
        bytes_artifact=None if artifact is None else artifact.stat().st_size,
    )


def directory_bytes(directory: Path) -> int:
    """The lengths of all files under a directory, added up.

    `bytes_checkpoint` is that of the Orbax directory with the compressed parameters as float32, after its own
    general-purpose compression.
    """
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _bytes(bits: int) -> int:
    return -(-bits // 8)
