"""What models say of devices: rows of a batch stay where they are, and random bits are drawn there."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P

ROW_AXES = ("data", "fsdp")
"""The axes of a mesh that the rows of a batch are split over."""


def split_rows(x: jax.Array) -> jax.Array:
    """`x` with its rows (the first axis) split over the devices as those of batches are, if a mesh is set.

    Said of the residual stream, it makes the compiler gather the parameters of a layer. It would otherwise, where
    parameters are split over all devices, sometimes leave those in place and gather the activations of all rows.
    """
    return jax.lax.with_sharding_constraint(x, P(ROW_AXES)) if _parts(x.shape[0]) else x


def draw_by_rows(
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array], key: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """`draw(key, shape)`, the rows of which each device draws for itself where they are split, from a key of its own.

    The compiler does not divide the generator rbg: left alone, every device would draw the bits of all rows. On a
    slice of 256 chips that is 256 times the memory and the time.
    """
    parts = _parts(shape[0])
    if parts <= 1:
        return draw(key, shape)

    def draw_own(key: jax.Array) -> jax.Array:
        return draw(
            jax.random.fold_in(key, jax.lax.axis_index(ROW_AXES)), (shape[0] // parts, *shape[1:])
        )

    return jax.shard_map(draw_own, in_specs=P(), out_specs=P(ROW_AXES))(key)


def _parts(rows: int) -> int:
    """Parts that this many rows are split into over the mesh that is set; 0: none is set, or they do not divide."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 0
    parts = math.prod(mesh.shape[axis] for axis in ROW_AXES)
    return 0 if rows % parts else parts
