"""Where arrays live: a device mesh, partition specs by parameter path, and rows that are split."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import Params, Rule, flatten, select, unflatten

ROW_AXES = ("data", "fsdp")
"""The axes of a mesh that the rows of a batch are split over."""
AXES = (*ROW_AXES, "tensor")
"""Parameters are split over `fsdp` (and gathered for use) and over `tensor`."""

# Over `tensor`, a layer's first matrices are split by their outputs and its last ones by their
# inputs. So a device computes whole heads and whole neurons, and only their sums travel. The
# vocabulary is split too. The last rule is for vectors, positions and the few columns of a
# classifier: they are too small to be worth splitting.
SHARDING_RULES: tuple[Rule, ...] = (
    (r"embedding/token", P(("tensor", "fsdp"), None)),
    (r"(.*/)?blocks/.*/(query|key|value|up)/kernel", P(None, "fsdp", "tensor")),
    (r"(.*/)?blocks/.*/(query|key|value|up)/bias", P(None, "tensor")),
    (r"(.*/)?blocks/.*/kernel", P(None, "tensor", "fsdp")),
    (r"(mlm_head|classifier)/dense/kernel", P("fsdp", None)),
    (r".*", P()),
)


def split_rows(x: jax.Array) -> jax.Array:
    """Constrains the rows (first axis) of `x` to be split like those of a batch, if a mesh is set.

    On the residual stream, this makes the compiler gather the parameters of a layer. Where
    parameters are split over all devices, it would sometimes leave them in place otherwise, and
    gather the activations of all rows.
    """
    axes, shards = _row_split(x.shape[0])
    return jax.lax.with_sharding_constraint(x, P(axes)) if shards and axes else x


def sum_over_data(
    sums: Callable[[Any, Any, jax.Array], Any],
    params: Any,
    batch: Any,
    key: jax.Array,
    parts: int = 1,
    by_groups: bool = True,
) -> Any:
    """`sums(params, batch, key)`, a tree of sums over the rows of a batch, added up in two stages.

    Each device along the axis `data`, or group of devices where the mesh has other axes, adds up
    its own rows, and then the sums travel. Left to itself the compiler lets sums travel each time
    that something is added to them.

    Args:
      sums: the function, which is given the rows of one group.
      params: parameters, or another tree that is the same along `data`.
      batch: arrays whose first axis is that of the rows.
      key: random key; the draws of this module are those that `sums` makes for the whole batch.
      parts: microbatches that `sums` makes of its rows. If rows are left over on a device, all are
        added up in one stage.
      by_groups: whether `sums` can be compiled for groups. If not, a mesh of groups adds up in one
        stage.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or data_groups(mesh, by_groups) == 1:
        return sums(params, batch, key)
    if jax.tree.leaves(batch)[0].shape[0] % (parts * _row_devices(mesh)):
        return sums(params, batch, key)
    groups = mesh.size > mesh.shape["data"]

    def sum_own(params: Any, batch: Any, key: jax.Array) -> Any:
        return jax.lax.psum(sums(params, batch, key), "data")

    # Unchecked: a checked map would add up the gradient of the parameters, which are the same on
    # all devices, as soon as it is made.
    return jax.shard_map(
        sum_own,
        in_specs=(P(), P("data"), P()),
        out_specs=P(),
        axis_names={"data"} if groups else {*AXES},
        check_vma=False,
    )(params, batch, key)


def data_groups(mesh: Mesh | jax.sharding.AbstractMesh, by_groups: bool = True) -> int:
    """The number of devices or groups that `sum_over_data` lets add up rows of their own."""
    data = int(mesh.shape["data"])
    return data if by_groups or mesh.size == data else 1


def draw_by_rows(
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array], key: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """`draw(key, shape)`, where each device draws its own rows from its own key.

    The compiler does not divide the generator rbg: without this, every device would draw the bits
    of all rows. On a slice of 256 chips that is 256 times the memory and the time.
    """
    axes, shards = _row_split(shape[0])
    if not shards:
        return draw(key, shape)

    def draw_own(keys: jax.Array) -> jax.Array:
        return draw(keys[0], (shape[0] // shards, *shape[1:]))

    keys = _keys_of_shards(key, shards)
    if shards == 1:
        return draw_own(keys)
    return jax.shard_map(draw_own, in_specs=P(axes), out_specs=P(axes), axis_names={*axes})(keys)


def fold_in_by_rows(key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """The key that `draw_by_rows` draws each row from, and the row's place in that draw, uint32."""
    _, shards = _row_split(rows)
    places = jax.numpy.arange(rows, dtype=jax.numpy.uint32)
    if not shards:
        return jax.numpy.broadcast_to(key, (rows,)), places
    own = rows // shards
    return jax.numpy.repeat(_keys_of_shards(key, shards), own), places % own


def split_rows_and_heads(compute: Callable[..., Any], rows: int, heads: int) -> Callable[..., Any]:
    """`compute`, of which each device does its own rows and heads: the compiler divides no kernel.

    Arrays are [rows], or [rows, positions, heads side by side], as are the results.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = {axis for axis in AXES if not mesh.empty and axis not in mesh.manual_axes}
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return compute
    by_row = _row_split(rows)[0] or None
    by_head = "tensor" if "tensor" in axes and heads % mesh.shape["tensor"] == 0 else None

    def split(*arrays: jax.Array) -> Any:
        specs = [P(by_row, None, by_head) if array.ndim == 3 else P(by_row) for array in arrays]
        own = jax.shard_map(
            compute,
            in_specs=tuple(specs),
            out_specs=specs[-1],
            axis_names=axes,
            check_vma=False,
        )
        return own(*arrays)

    return split


def _keys_of_shards(key: jax.Array, shards: int) -> jax.Array:
    """A key for each of the parts that `_row_split` finds."""
    first, _ = row_range(shards)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jax.numpy.arange(shards))


def row_range(rows: int) -> tuple[jax.Array | int, int]:
    """Which rows of a batch `rows` rows are: the first one's index, and the rows of the batch.

    Inside `sum_over_data` they are those of one group of devices, elsewhere they are all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "data" not in mesh.manual_axes:
        return 0, rows
    return rows * jax.lax.axis_index("data"), rows * mesh.shape["data"]


def _row_split(rows: int) -> tuple[tuple[str, ...], int]:
    """The axes of the mesh that rows are split over, and the number of parts.

    Inside `sum_over_data` the rows are those of one group, split over the other axes. No axes and 0
    without a mesh, on one device, or with a remainder.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or _row_devices(mesh) == 1:
        return (), 0
    axes = tuple(axis for axis in ROW_AXES if axis not in mesh.manual_axes)
    shards = math.prod(mesh.shape[axis] for axis in axes)
    return (axes, shards) if rows % shards == 0 else ((), 0)


def _row_devices(mesh: jax.sharding.AbstractMesh) -> int:
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """The sizes of all axes in `impl.mesh`, such as `data=2,fsdp=-1`; -1 takes the devices left.

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
    if len(open_axes) == 1 and fixed > 0:
        sizes[open_axes[0]] = devices // fixed
    if min(sizes.values()) < 1 or math.prod(sizes.values()) != devices:
        raise InputError(f"impl.mesh={text!r} does not fit the {devices} device(s) at hand")
    return sizes


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Sharding rules from the settings: PATTERN=AXES, with the axes of each dimension.

    A dimension has one axis, several joined by +, or - for none: `.*/ffn/up/kernel=-,fsdp,tensor`.

    Raises:
      InputError: bad syntax, an axis that a mesh does not have, or an axis that occurs twice.
    """
    rules = []
    for text in texts:
        pattern, equals, dimensions = text.rpartition("=")
        parts = [part.strip() for part in dimensions.split(",")]
        spec = P(*(() if part == "-" else tuple(part.split("+")) for part in parts))
        axes = [axis for part in parts if part != "-" for axis in part.split("+")]
        if not (pattern and equals) or not set(axes) <= set(AXES) or len(axes) > len(set(axes)):
            raise InputError(
                f"impl.sharding: {text!r} is not a rule; write PATTERN=AXES with -, "
                f"{', '.join(AXES)} (or several joined by +) for each dimension, each axis once"
            )
        rules.append((pattern, spec))
    return tuple(rules)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a run live.

    Attributes:
      mesh: mesh of all devices of the run, with axes `AXES`.
      rules: rules from parameter paths to partition specs, which come before `SHARDING_RULES`. Each
        must match a parameter.
      over_seeds: whether parameters, optimizer states and batches have one more axis in front, of
        the seeds that train together. It is not split.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = ()
    over_seeds: bool = False

    @staticmethod
    def parse(
        mesh: str, rules: Sequence[str] = (), devices: Sequence[jax.Device] | None = None
    ) -> Placement:
        """The placement that settings describe.

        Args:
          mesh: `impl.mesh`.
          rules: `impl.sharding`.
          devices: devices of the mesh, also such as only a compiler knows; None: all at hand.

        Raises:
          InputError: as `parse_mesh` and `parse_rules`.
        """
        own = parse_rules(rules)
        sizes = parse_mesh(mesh, jax.device_count() if devices is None else len(devices))
        types = (AxisType.Auto,) * len(sizes)
        shape, names = tuple(sizes.values()), tuple(sizes)
        return Placement(jax.make_mesh(shape, names, axis_types=types, devices=devices), own)

    @functools.cached_property
    def batch_shards(self) -> int:
        """Number of parts that a batch is split into; its rows must divide among them."""
        return math.prod(self.mesh.shape[axis] for axis in ROW_AXES)

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of an array that is whole on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def by_rows(self) -> NamedSharding:
        """The sharding of batches."""
        return NamedSharding(self.mesh, self._in_front(P(ROW_AXES)))

    def _in_front(self, spec: P) -> P:
        """A partition spec with the axis of the seeds, if there is one."""
        return P(None, *spec) if self.over_seeds else spec

    @property
    def compiler_options(self) -> dict[str, bool]:
        """What XLA is asked for when it compiles for these devices."""
        # cuBLAS adds biases and sums of products as it writes them; Triton's products, XLA's first
        # choice on GPUs, leave both to passes of their own: a twelfth of a training step.
        gpu = self.mesh.devices.flat[0].platform in ("gpu", "cuda")
        return {"xla_gpu_enable_triton_gemm": False} if gpu else {}

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit` with this mesh set, and results that are whole on every device."""
        options = self.compiler_options
        compiled = jax.jit(function, out_shardings=self.everywhere, compiler_options=options)

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.set_mesh(self.mesh):  # `split_rows` in the models reads it
                return compiled(*arguments)

        return call

    def shardings(self, params: Params) -> dict[str, Any]:
        """A sharding for every parameter, in the tree's own nesting.

        Raises:
          InputError: a dimension that its axes of the mesh do not divide, or a rule that does not
            fit its parameter or matches none.
        """
        leaves = flatten(params)
        shardings = {}
        for path, spec in select(self.rules, leaves).items():
            if spec is None:
                spec = next(spec for rule, spec in SHARDING_RULES if re.fullmatch(rule, path))
            shape = leaves[path].shape[int(self.over_seeds) :]
            if len(spec) > len(shape):
                raise InputError(
                    f"impl.sharding: {path} has {len(shape)} dimensions and its rule names "
                    f"{len(spec)}"
                )
            for dimension, axes in zip(shape, spec, strict=False):
                names = axes if isinstance(axes, tuple) else (axes,) if axes else ()
                sizes = {axis: self.mesh.shape[axis] for axis in names}
                if dimension % math.prod(sizes.values()):
                    split = " x ".join(f"{axis}={n}" for axis, n in sizes.items() if n > 1)
                    raise InputError(
                        f"impl.mesh: {path} has a dimension of {dimension}, which {split} does not "
                        "divide"
                    )
            shardings[path] = NamedSharding(self.mesh, self._in_front(spec))
        return unflatten(shardings)

    def columns(self, params: Params) -> dict[str, dict[str, Any]]:
        """The partition spec and the bytes on each device of every parameter, by path."""
        shardings = flatten(self.shardings(params))
        columns: dict[str, dict[str, Any]] = {"sharding": {}, "bytes_per_device": {}}
        for path, leaf in flatten(params).items():
            own_size = math.prod(shardings[path].shard_shape(leaf.shape))
            columns["sharding"][path] = shardings[path].spec
            columns["bytes_per_device"][path] = own_size * leaf.dtype.itemsize
        return columns

    def put_params(self, params: Params) -> Params:
        """Parameters, from wherever they are, placed by the rules. All processes hold the same."""

        def put(value: Any, sharding: NamedSharding) -> jax.Array:
            if sharding.is_fully_addressable or not getattr(value, "is_fully_addressable", True):
                return jax.device_put(value, sharding)
            # device_put would compare the copies of all processes; each takes its part of its own.
            value = np.asarray(value)
            return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

        return cast(Params, jax.tree.map(put, params, self.shardings(params)))

    def gather(self, params: Params) -> Params:
        """Parameters on one device of this process; too slow for use in a loop."""
        if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(params)):
            whole = self.jit(lambda params: params)(params)
            params = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        return jax.device_put(params, jax.local_devices()[0])

    def optimizer_shardings(self, optimizer: optax.GradientTransformation, params: Params) -> Any:
        """Shardings of `optimizer.init(params)`: moments like their parameters, counters whole."""
        state = jax.eval_shape(optimizer.init, params)
        return optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, sharding: sharding,
            state,
            self.shardings(params),
            transform_non_params=lambda _: self.everywhere,
        )

    def own_rows(self, rows: int) -> np.ndarray:
        """Indices of the rows of a batch that the devices of this process hold, ascending.

        Raises:
          InputError: the rows do not divide among the devices.
        """
        self.check_rows(rows)
        split = NamedSharding(self.mesh, P(ROW_AXES))
        places = split.addressable_devices_indices_map((rows,)).values()
        return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))

    def for_step(self, batch: Mapping[str, np.ndarray], rows: int = 0) -> Mapping[str, jax.Array]:
        """A host batch as an argument of the jitted step; arguments and errors as `put_batch`.

        For accelerators it is placed, so that the thread which prepares batches copies them ahead
        of time. For CPUs of one process it is the batch itself: the jitted step takes it as it is.
        """
        if processes.several() or self.mesh.devices.flat[0].platform != "cpu":
            return self.put_batch(batch, rows)
        self.check_rows(next(iter(batch.values())).shape[int(self.over_seeds)])
        return cast(Mapping[str, jax.Array], batch)

    def check_rows(self, rows: int) -> None:
        """Raises `InputError` unless the rows of a batch divide among the devices."""
        if rows % self.batch_shards:
            raise InputError(
                f"a batch of {rows} rows does not divide among {self.batch_shards} devices: "
                "change the batch size"
            )

    def put_batch(self, batch: Mapping[str, np.ndarray], rows: int = 0) -> dict[str, jax.Array]:
        """A host batch, its rows split over the axes for batches.

        Args:
          batch: all rows, the same on every process; or this process's `own_rows` alone.
          rows: number of rows of the whole batch; 0: those given.

        Raises:
          InputError: the rows do not divide among the devices.
        """
        axis = int(self.over_seeds)
        given = next(iter(batch.values())).shape[axis]
        rows = rows or given
        # A selection of all rows would copy the batch.
        if given == rows and len(own := self.own_rows(rows)) < rows:
            batch = {name: value.take(own, axis) for name, value in batch.items()}
        place = functools.partial(jax.make_array_from_process_local_data, self.by_rows)
        return {
            name: place(value, (*value.shape[:axis], rows, *value.shape[axis + 1 :]))
            for name, value in batch.items()
        }
