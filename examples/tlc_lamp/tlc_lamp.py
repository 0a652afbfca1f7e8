"""A plug-in for tlc_jax: the pruning score LAMP, and a tracker that writes metrics.csv."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tlc_jax.core.plugins import register


def lamp(path: str, weights: jax.Array) -> jax.Array:
    """Layer-adaptive magnitude (Lee et al., 2021): the square of a weight, relative to the sum of
    the squares in its matrix that are not smaller.

    The largest weight of each matrix has the score 1, so a global threshold never empties one.

    Args:
      path: path of the parameter.
      weights: float32 [.., rows, columns]; the last two axes are a matrix.

    Returns:
      scores of the same shape, in [0, 1].
    """
    squares = jnp.square(weights).reshape(*weights.shape[:-2], -1)
    order = jnp.argsort(squares)
    ascending = jnp.take_along_axis(squares, order, axis=-1)
    not_smaller = jnp.cumsum(ascending[..., ::-1], axis=-1)[..., ::-1]
    # A matrix of zeros has no sum to divide by.
    ranked = ascending / jnp.where(not_smaller > 0, not_smaller, 1)
    return jnp.take_along_axis(ranked, jnp.argsort(order), axis=-1).reshape(weights.shape)


class CsvTracker:
    """Appends rows of step, name and value to metrics.csv in the workdir."""

    def __init__(self, workdir: Path, identity: str, config: Mapping[str, Any]):
        self._file = (workdir / "metrics.csv").open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.writerows((step, name, value) for name, value in values.items())

    def close(self) -> None:
        self._file.close()


register("score", "lamp", lamp)
register("tracker", "csv", CsvTracker)
