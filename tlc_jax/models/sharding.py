"""The one thing that models say of devices: rows of a batch stay where they are."""

from __future__ import annotations

import math

import jax
from jax.sharding import PartitionSpec as P

ROW_AXES = ("data", "fsdp")
"""The axes of a mesh that the rows of a batch are split over."""


def split_rows(x: jax.Array) -> jax.Array:
    """`x` with its rows (the first axis) split over the devices as those of batches are, if a mesh is set.

    Said of the residual stream, it makes the compiler gather the parameters of a layer. It would otherwise, where
    parameters are split over all devices, sometimes leave those in place and gather the activations of all rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % math.prod(mesh.shape[axis] for axis in ROW_AXES):
        return x
    return jax.lax.with_sharding_constraint(x, P(ROW_AXES))
