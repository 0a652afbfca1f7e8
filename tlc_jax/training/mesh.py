"""Where arrays live: a device mesh, and rules from parameter paths to partition specs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.errors import InputError
from tlc_jax.models.network import Params
from tlc_jax.selectors import Rule, flatten, select, unflatten

AXES = ("data", "fsdp")
"""Batches are split over both axes; parameters over `fsdp` alone."""

SHARDING_RULES: tuple[Rule, ...] = (
    (r"embedding/token", P("fsdp", None)),
    (r"(.*/)?blocks/.*/kernel", P(None, "fsdp", None)),
    (r"(mlm_head|classifier)/dense/kernel", P("fsdp", None)),
    (r".*", P()),  # vectors, positions and the few columns of a classifier: too small to be worth splitting
)


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """`data=2,fsdp=-1` to sizes of all axes, -1 standing for all devices that are left.

    Raises:
      InputError: bad syntax, or sizes that do not multiply to the number of devices.
    """
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        axis, equals, size = part.strip().partition("=")
        if axis not in AXES or not equals or not size.lstrip("-").isdecimal():
            raise InputError(f"impl.mesh={text!r}: write AXIS=SIZE joined by commas, with axes {' and '.join(AXES)}")
        sizes[axis] = int(size)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) == 1 and fixed > 0 and devices % fixed == 0:
        sizes[open_axes[0]] = devices // fixed
    if any(size < 1 for size in sizes.values()) or math.prod(sizes.values()) != devices:
        raise InputError(f"impl.mesh={text!r} does not fit the {devices} device(s) at hand")
    return sizes


def make_mesh(text: str) -> Mesh:
    """The mesh of all devices that `impl.mesh` describes."""
    sizes = parse_mesh(text, jax.device_count())
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parameter_shardings(params: Params, mesh: Mesh) -> dict[str, Any]:
    """A sharding for every parameter, in the tree's own nesting.

    Raises:
      InputError: a dimension that its axis of the mesh does not divide.
    """
    leaves = flatten(params)
    shardings = {}
    for path, spec in select([rule for rule in SHARDING_RULES if _matches(rule, leaves)], leaves).items():
        for dimension, axis in zip(leaves[path].shape, spec, strict=False):
            if axis and dimension % mesh.shape[axis]:
                raise InputError(
                    f"impl.mesh: {path} has a dimension of {dimension}, which {axis}={mesh.shape[axis]} does not divide"
                )
        shardings[path] = NamedSharding(mesh, spec)
    return unflatten(shardings)


def put_params(params: Params, mesh: Mesh) -> Params:
    """Parameters, from wherever they are, placed on the mesh by the rules."""
    return cast(Params, jax.device_put(params, parameter_shardings(params, mesh)))


def _matches(rule: Rule, leaves: dict[str, Any]) -> bool:
    """Our own rules cover every kind of model, so one that finds nothing in this one is no mistake."""
    try:
        select([rule], leaves)
    except InputError:
        return False
    return True


def optimizer_shardings(
    optimizer: optax.GradientTransformation, params: Params, shardings: dict[str, Any], mesh: Mesh
) -> Any:
    """Shardings of `optimizer.init(params)`: moments lie where their parameters lie, counters everywhere."""
    state = jax.eval_shape(optimizer.init, params)
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        state,
        shardings,
        transform_non_params=lambda _: NamedSharding(mesh, P()),
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A host batch on the mesh, rows split over all devices.

    Raises:
      InputError: the rows do not divide among the devices.
    """
    rows = len(next(iter(batch.values())))
    if rows % mesh.size:
        raise InputError(f"a batch of {rows} rows does not divide among {mesh.size} devices: change the batch size")
    return jax.device_put(batch, NamedSharding(mesh, P(AXES)))


def describe_parameters(params: Params, **columns: Mapping[str, Any]) -> str:
    """A table of all parameters: path, shape, and any columns by path (sharding, decay, sparsity, bits)."""
    header = ["path", "shape", *columns]
    rows = [
        [path, "x".join(map(str, leaf.shape)), *(str(column.get(path, "")) for column in columns.values())]
        for path, leaf in flatten(params).items()
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines) + "\n"


def specs(shardings: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> partition spec, for the table of parameters."""
    return {path: sharding.spec for path, sharding in flatten(shardings).items()}
