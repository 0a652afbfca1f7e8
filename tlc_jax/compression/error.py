"""The error of each matrix of a compressed model, and the model with one matrix compressed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tlc_jax.compression.recipe import compressible, input_axis
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import Params, flatten

_MATRICES = {
    "embedding/token": ("embeddings", "token embedding"),
    "embedding/position": ("embeddings", "position embedding"),
    "attention/query": ("attention in", "query"),
    "attention/key": ("attention in", "key"),
    "attention/value": ("attention in", "value"),
    "attention/output": ("attention out", "attention out"),
    "ffn/up": ("FFN in", "FFN in"),
    "ffn/down": ("FFN out", "FFN out"),
    "mlm_head/dense": ("head", "language head"),
}
"""Kind and name of the matrices of an encoder, in the order in which figures show them; all others
belong to a head.
"""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One matrix of a model.

    Attributes:
      path: path of its parameter, which may be a stack of matrices.
      kind: kind of module, such as "attention in" or "embeddings".
      name: name among the matrices of its layer, such as "query" or "FFN in".
      layer: number of its layer, from 1; None for a matrix outside of the layers or shared by all
        of them.
      index: its index in a stack of layers; None for a matrix outside a stack.
    """

    path: str
    kind: str
    name: str
    layer: int | None
    index: int | None

    def of(self, leaves: Mapping[str, Any]) -> np.ndarray:
        """The values of the matrix in a flat dict of parameters."""
        leaf = np.asarray(leaves[self.path])
        return leaf if self.index is None else leaf[self.index]


@dataclasses.dataclass(frozen=True)
class MatrixError:
    """The difference between a matrix and its compressed form.

    Attributes:
      norms: float64 [outputs], the L2 norm of the difference of each output row: of all weights
        that lead to one output of a dense layer (a column of our [in, out] kernels), or of one
        embedding. Of the statistics that paper 1's figure 9 could mean it is the one that explains
        its medians: twice as large for the second feed-forward matrix, whose rows are four times as
        long.
      relative: norm of the whole difference over the norm of the matrix.
    """

    matrix: Matrix
    norms: np.ndarray
    relative: float

    def row(self) -> dict[str, Any]:
        """The row of a table: the matrix, quartiles and mean of its norms, its relative error."""
        names = ("least", "first_quartile", "median", "third_quartile", "greatest")
        quartiles = np.quantile(self.norms, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return {
            "path": self.matrix.path,
            "kind": self.matrix.kind,
            "layer": self.matrix.layer,
            "outputs": len(self.norms),
            **dict(zip(names, quartiles, strict=True)),
            "mean": float(self.norms.mean()),
            "relative": self.relative,
        }


def matrices(params: Params, compressed: Params, layers: int) -> list[Matrix]:
    """The matrices that compression changed, embeddings first, then layer by layer, then heads.

    Args:
      params: parameters of an encoder.
      compressed: the same after compression.
      layers: number of layers of the model, which may share their parameters.

    Raises:
      InputError: the compressed parameters have other shapes, or nothing was changed.
    """
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, compressed):
        raise InputError(
            "this recipe changes the shape of the model: its matrices cannot be compared one by one"
        )
    before, after = flatten(params), flatten(compressed)
    found = []
    for path in compressible(params, embeddings=True):
        if np.array_equal(before[path], after[path]):
            continue
        parts = path.removeprefix("blocks/").removesuffix("/kernel")
        kind, name = _MATRICES.get(parts, ("head", parts.replace("/", " ")))
        if before[path].ndim == 2:
            found.append(Matrix(path, kind, name, None, None))
            continue
        count = len(before[path])
        for index in range(count):
            layer = index + 1 if count == layers else None
            found.append(Matrix(path, kind, name, layer, index))
    if not found:
        raise InputError("this recipe changes no matrix of the model: name another one in recipe")
    names = [name for _, name in _MATRICES.values()]

    def place(matrix: Matrix) -> tuple[Any, ...]:
        part = 0 if matrix.kind == "embeddings" else 2 if matrix.index is None else 1
        rank = names.index(matrix.name) if matrix.name in names else len(names)
        return part, matrix.layer or 0, rank, matrix.path, matrix.index or 0

    return sorted(found, key=place)


def errors(found: Sequence[Matrix], params: Params, compressed: Params) -> list[MatrixError]:
    """The difference between each matrix and its compressed form."""
    before, after = flatten(params), flatten(compressed)
    measured = []
    for matrix in found:
        # In float64: the squares of small differences vanish beside a large sum in float32.
        exact = matrix.of(before).astype(np.float64)
        squares = np.sum((exact - matrix.of(after)) ** 2, axis=input_axis(matrix.path))
        whole = float(np.sum(exact**2))
        relative = float(np.sqrt(squares.sum() / whole)) if whole else 0.0
        measured.append(MatrixError(matrix, np.sqrt(squares), relative))
    return measured


def with_one(matrix: Matrix, params: Params, compressed: Params) -> np.ndarray:
    """The parameter that a matrix belongs to, with that matrix alone compressed."""
    leaf = np.array(flatten(params)[matrix.path])
    part = ... if matrix.index is None else matrix.index
    leaf[part] = flatten(compressed)[matrix.path][part]
    return leaf
