"""Where arrays live: a device mesh, and rules from parameter paths to partition specs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.core.batch_sharding import ROW_AXES
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import Params, Rule, flatten, select, unflatten
from tlc_jax.core.text import table

AXES = (*ROW_AXES, "tensor")
"""Batches are split over `data` and `fsdp`; parameters over `fsdp` (gathered to be used) and `tensor`."""

# Over `tensor`, a layer's first matrices are split by their outputs and its last ones by their inputs, so that a device
# computes whole heads and whole neurons and only their sums travel; the vocabulary is split too.
SHARDING_RULES: tuple[Rule, ...] = (
    (r"embedding/token", P(("tensor", "fsdp"), None)),
    (r"(.*/)?blocks/.*/(query|key|value|up)/kernel", P(None, "fsdp", "tensor")),
    (r"(.*/)?blocks/.*/(query|key|value|up)/bias", P(None, "tensor")),
    (r"(.*/)?blocks/.*/kernel", P(None, "tensor", "fsdp")),
    (r"(mlm_head|classifier)/dense/kernel", P("fsdp", None)),
    (
        r".*",
        P(),
    ),  # vectors, positions and the few columns of a classifier: too small to be worth splitting
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
            raise InputError(
                f"impl.mesh={text!r}: write AXIS=SIZE joined by commas, with axes {', '.join(AXES)}"
            )
        sizes[axis] = int(size)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(open_axes) == 1 and fixed > 0 and devices % fixed == 0:
        sizes[open_axes[0]] = devices // fixed
    if any(size < 1 for size in sizes.values()) or math.prod(sizes.values()) != devices:
        raise InputError(f"impl.mesh={text!r} does not fit the {devices} device(s) at hand")
    return sizes


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Rules of the user's: `PATTERN=AXES`, an axis (or several joined by +, or - for none) for each dimension.

    For example `.*/ffn/up/kernel=-,fsdp,tensor`.

    Raises:
      InputError: bad syntax, or an axis that a mesh does not have or that a rule names twice.
    """
    rules = []
    for text in texts:
        pattern, equals, dimensions = text.rpartition("=")
        parts = [
            [] if part.strip() == "-" else part.strip().split("+") for part in dimensions.split(",")
        ]
        axes = [axis for part in parts for axis in part]
        if not (pattern and equals) or not set(axes) <= set(AXES) or len(axes) > len(set(axes)):
            raise InputError(
                f"impl.sharding: {text!r} is not a rule; write PATTERN=AXES with -, {', '.join(AXES)} (or several joined "
                "by +) for each dimension, each axis once"
            )
        rules.append(
            (
                pattern,
                P(*(tuple(part) if len(part) > 1 else part[0] if part else None for part in parts)),
            )
        )
    return tuple(rules)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a run live.

    Attributes:
      mesh: of all devices of the run, with axes `AXES`.
      rules: from parameter paths to partition specs, put before `SHARDING_RULES`; each must match something.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = ()

    @staticmethod
    def parse(
        mesh: str, rules: Sequence[str] = (), devices: Sequence[jax.Device] | None = None
    ) -> Placement:
        """As `impl.mesh` and `impl.sharding` say, on `devices` (None: all), which may be such as only a compiler knows.

        Raises:
          InputError: as `parse_mesh` and `parse_rules`.
        """
        own = parse_rules(rules)
        sizes = parse_mesh(mesh, jax.device_count() if devices is None else len(devices))
        types = (AxisType.Auto,) * len(sizes)
        return Placement(
            jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices),
            own,
        )

    @functools.cached_property
    def batch_shards(self) -> int:
        """Parts that a batch is split into; its rows must divide among them."""
        return math.prod(self.mesh.shape[axis] for axis in ROW_AXES)

    @property
    def everywhere(self) -> NamedSharding:
        """Whole on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def by_rows(self) -> NamedSharding:
        """Split as batches are."""
        return NamedSharding(self.mesh, P(ROW_AXES))

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit` for arrays placed here; results are whole on every device, so that any host can read them."""
        compiled = jax.jit(function, out_shardings=self.everywhere)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.set_mesh(self.mesh):  # models ask it how rows are split
                return compiled(*arguments)

        return call

    def shardings(self, params: Params) -> dict[str, Any]:
        """A sharding for every parameter, in the tree's own nesting.

        Raises:
          InputError: a dimension that its axes of the mesh do not divide, or a rule that does not fit.
        """
        leaves = flatten(params)
        select(self.rules, leaves)  # refuses a rule of the user's that matches nothing, as ours may
        shardings = {}
        for path, spec in select(
            [*self.rules, *(r for r in SHARDING_RULES if _matches(r, leaves))], leaves
        ).items():
            shape = leaves[path].shape
            if len(spec) > len(shape):
                raise InputError(
                    f"impl.sharding: {path} has {len(shape)} dimensions and its rule names {len(spec)}"
                )
            for dimension, axes in zip(shape, spec, strict=False):
                names = axes if isinstance(axes, tuple) else (axes,) if axes else ()
                parts = math.prod(self.mesh.shape[axis] for axis in names)
                if dimension % parts:
                    sizes = " x ".join(
                        f"{axis}={self.mesh.shape[axis]}"
                        for axis in names
                        if self.mesh.shape[axis] > 1
                    )
                    raise InputError(
                        f"impl.mesh: {path} has a dimension of {dimension}, which {sizes} does not divide"
                    )
            shardings[path] = NamedSharding(self.mesh, spec)
        return unflatten(shardings)

    def columns(self, params: Params) -> dict[str, dict[str, Any]]:
        """Each parameter's partition spec and bytes on each device, by path: columns for the table of parameters."""
        leaves, shardings = flatten(params), flatten(self.shardings(params))
        return {
            "sharding": {path: sharding.spec for path, sharding in shardings.items()},
            "bytes_per_device": {
                path: math.prod(sharding.shard_shape(leaves[path].shape))
                * leaves[path].dtype.itemsize
                for path, sharding in shardings.items()
            },
        }

    def put_params(self, params: Params) -> Params:
        """Parameters, from wherever they are, placed by the rules. All processes must hold the same."""
        return cast(Params, jax.tree.map(self._put, params, self.shardings(params)))

    def _put(self, value: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
            return jax.device_put(value, sharding)
        value = np.asarray(value)  # every process takes its part of its own copy
        return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

    def gather(self, params: Params) -> Params:
        """Parameters on one device of this process, for work that is done once and not in a loop."""
        device = jax.local_devices()[0]
        if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
            return jax.tree.map(lambda leaf: jax.device_put(leaf, device), params)
        whole = self.jit(lambda params: params)(params)
        return jax.tree.map(lambda leaf: jax.device_put(leaf.addressable_data(0), device), whole)

    def optimizer_shardings(self, optimizer: optax.GradientTransformation, params: Params) -> Any:
        """Shardings of `optimizer.init(params)`: moments lie where their parameters lie, counters everywhere."""
        state = jax.eval_shape(optimizer.init, params)
        return optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, sharding: sharding,
            state,
            self.shardings(params),
            transform_non_params=lambda _: self.everywhere,
        )

    def own_rows(self, rows: int) -> np.ndarray:
        """Which of a batch's rows the devices of this process hold, ascending.

        Raises:
          InputError: the rows do not divide among the devices.
        """
        parts = self.batch_shards
        if rows % parts:
            raise InputError(
                f"a batch of {rows} rows does not divide among {parts} devices: change the batch size"
            )
        places = self.by_rows.addressable_devices_indices_map((rows,)).values()
        return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))

    def put_batch(self, batch: Mapping[str, np.ndarray], rows: int = 0) -> dict[str, jax.Array]:
        """A host batch, its rows split over the axes for batches.

        Args:
          batch: all rows, the same on every process; or this process's `own_rows` alone.
          rows: of the whole batch; 0: those given.

        Raises:
          InputError: the rows do not divide among the devices.
        """
        given = len(next(iter(batch.values())))
        rows = rows or given
        if given == rows:
            own = self.own_rows(rows)
            batch = (
                batch if len(own) == rows else {name: value[own] for name, value in batch.items()}
            )
        return {
            name: jax.make_array_from_process_local_data(
                self.by_rows, value, (rows, *value.shape[1:])
            )
            for name, value in batch.items()
        }


def _matches(rule: Rule, leaves: dict[str, Any]) -> bool:
    """Our own rules cover every kind of model, so one that finds nothing here is not a mistake."""
    try:
        select([rule], leaves)
    except InputError:
        return False
    return True


def describe_parameters(params: Params, **columns: Mapping[str, Any]) -> str:
    """A table of all parameters: path, shape, and any columns by path (sharding, decay, sparsity, bits)."""
    header = ["path", "shape", *columns]
    rows = [
        [
            path,
            "x".join(map(str, leaf.shape)),
            *(str(column.get(path, "")) for column in columns.values()),
        ]
        for path, leaf in flatten(params).items()
    ]
    return table([header, *rows]) + "\n"
