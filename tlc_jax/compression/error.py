"""The error of each matrix of a compressed model, and the model with one matrix compressed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlc_jax.compression.scope import EMBEDDING, Params, compressible, output_axis
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import Rule, flatten, select

KINDS: tuple[Rule, ...] = (
    (r"blocks/attention/(query|key|value)/kernel", "attention in"),
    (r"blocks/attention/output/kernel", "attention out"),
    (r"blocks/ffn/up/kernel", "FFN in"),
    (r"blocks/ffn/down/kernel", "FFN out"),
    (EMBEDDING.pattern, "embeddings"),
    (r"(mlm_head|classifier)/.*/kernel", "head"),
)
"""Kinds of matrix of an encoder, by path."""
_NAMES = {
    "embedding/token": "token embedding",
    "embedding/position": "position embedding",
    "attention/query": "query",
    "attention/key": "key",
    "attention/value": "value",
    "attention/output": "attention out",
    "ffn/up": "FFN in",
    "ffn/down": "FFN out",
    "mlm_head/dense": "language head",
}
"""Names of matrices in figures, in the order in which figures show them."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One matrix of a model.

    Attributes:
      path: path of the parameter that it is, or is a part of.
      kind: a value of `KINDS`.
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
        """Its values in a flat dict of parameters."""
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
        """Its numbers for a table."""
        names = ("least", "first_quartile", "median", "third_quartile", "greatest")
        quartiles = np.quantile(self.norms, (0, 0.25, 0.5, 0.75, 1)).tolist()
        matrix = self.matrix
        return {
            **{"path": matrix.path, "kind": matrix.kind, "layer": matrix.layer},
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
    before, after = flatten(params), flatten(compressed)
    shapes = [{path: leaf.shape for path, leaf in leaves.items()} for leaves in (before, after)]
    if shapes[0] != shapes[1]:
        raise InputError(
            "this recipe changes the shape of the model: its matrices cannot be compared one by one"
        )
    scope = compressible(params, embeddings=True)
    changed = [p for p in before if scope[p] and not np.array_equal(before[p], after[p])]
    if not changed:
        raise InputError("this recipe changes no matrix of the model: name another one in recipe")
    kinds = select(KINDS, before, default="other")
    found = [
        matrix for path in changed for matrix in _stacked(path, kinds[path], before[path], layers)
    ]
    return sorted(found, key=_place)


def _stacked(path: str, kind: str, leaf: Any, layers: int) -> list[Matrix]:
    """The matrices of one parameter."""
    parts = path.removeprefix("blocks/").removesuffix("/kernel")
    name = _NAMES.get(parts, parts.replace("/", " "))
    if leaf.ndim == 2:
        return [Matrix(path, kind, name, None, None)]
    shared = len(leaf) < layers
    return [
        Matrix(path, kind, name, None if shared else index + 1, index) for index in range(len(leaf))
    ]


def _place(matrix: Matrix) -> tuple[int, int, int]:
    order = list(_NAMES.values())
    part = 0 if matrix.kind == "embeddings" else 2 if matrix.index is None else 1
    return part, matrix.layer or 0, order.index(matrix.name) if matrix.name in order else len(order)


def errors(found: Sequence[Matrix], params: Params, compressed: Params) -> list[MatrixError]:
    """How far each matrix is from the original."""
    before, after = flatten(params), flatten(compressed)
    return [_error(matrix, matrix.of(before), matrix.of(after)) for matrix in found]


def _error(matrix: Matrix, before: np.ndarray, after: np.ndarray) -> MatrixError:
    exact = before.astype(np.float64)
    squares = np.sum((exact - after) ** 2, axis=-2 if output_axis(matrix.path) == -1 else -1)
    whole = float(np.sum(exact**2))
    relative = float(np.sqrt(squares.sum() / whole)) if whole else 0.0
    return MatrixError(matrix, np.sqrt(squares), relative)


def with_one(matrix: Matrix, params: Params, compressed: Params) -> np.ndarray:
    """The parameter that a matrix belongs to, with that matrix alone compressed."""
    before, after = (np.asarray(flatten(tree)[matrix.path]) for tree in (params, compressed))
    if matrix.index is None:
        return after
    leaf = before.copy()
    leaf[matrix.index] = after[matrix.index]
    return leaf
