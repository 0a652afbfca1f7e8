"""TPU chips by their data sheets, and the cost of a compiled TPU program by its own text.

The TPU compiler writes an estimate in clock cycles beside most instructions of a program. Their sum
over the program, with a loop's body counted as often as it runs, estimates the arithmetic. Kernels
of `models.tpu_attention` carry counts of their work instead, which are turned into cycles here.
Collectives carry no estimate: the bytes that a chip sends are counted instead. A few others (random
bits, gathers, sorts) carry none either: the bytes that they write are counted.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from tlc_jax.core.devices import peak_flops
from tlc_jax.core.errors import InputError
from tlc_jax.planning import hlo

GIB = 2**30

# Only the compiler is used. So the library must not look for a TPU or its neighbors, take its lock
# against other users, or log what it could not find.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      kind: `jax.Device.device_kind` of the chip, which is one device.
      clock: cycles per second.
      memory: bytes that the compiler gives to a program: the data sheet's, less those that the
        system keeps.
      memory_rate: bytes per second to and from that memory.
      link_rate: bytes per second that a chip can send to its neighbors over all links together.
      dimensions: dimensions of the network that slices are cut from.
      config: the compiler's name for using both cores of a chip as one device; empty if the chip
        has one core.
    """

    kind: str
    clock: float
    memory: int
    memory_rate: float
    link_rate: float
    dimensions: int
    config: str = ""

    # As of `gpu.Gpu`. How much longer than the estimate a real step takes is not known.
    slowdown = 1.0
    method = "compiler cycles"

    def describe(self, text: str) -> dict[str, Any]:
        """The fields of the `ProgramCost` of a compiled program; raises ValueError as it does."""
        return dataclasses.asdict(program_cost(text, self))

    def parts(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """Seconds of each part of a step, from what `describe` found."""
        return ProgramCost(**facts).seconds(self)


# Memory rates and link rates (one way) are those of Google's pages on each chip. The clocks are not
# official figures, but with them the sheets' peak rates are whole numbers of multiply-adds a cycle
# (4 or 8 units of 128 x 128; v6e: 4 of 256 x 256 halves). Memory is what the compiler says is
# available when it refuses a program.
CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 1.05e9, int(30.75 * GIB), 1228e9, 300e9, 3, "megacore"),
    "v5e": Chip("TPU v5 lite", 1.5e9, int(15.75 * GIB), 819e9, 200e9, 2),
    "v5p": Chip("TPU v5", 1.75e9, int(95.74 * GIB), 2765e9, 600e9, 3, "megacore"),
    "v6e": Chip("TPU v6 lite", 1.75e9, int(31.25 * GIB), 1640e9, 400e9, 2),
}


def parse_topology(text: str) -> tuple[str, tuple[int, ...]]:
    """Parses a slice such as `v5e:16x16` into the name of its chip, a known one, and its shape.

    Raises:
      InputError: the syntax is wrong, or the number of sides not the network's.
    """
    name, _, shape = text.partition(":")
    sides, dimensions = shape.split("x"), CHIPS[name].dimensions
    if len(sides) != dimensions or not all(side.isdecimal() and int(side) > 0 for side in sides):
        example = "x".join("4" * dimensions)
        raise InputError(
            f"plan.topology={text!r}: a slice of {name} has {dimensions} sides, "
            f"such as {name}:{example}"
        )
    return name, tuple(map(int, sides))


def open_slice(text: str) -> tuple[Chip, list[jax.Device]]:
    """The chip and the devices of a slice, which need not be there; one chip is one device.

    Makes JAX leave the machine's own accelerators alone, so it must come before JAX starts.

    Raises:
      InputError: the slice cannot be planned for, or the TPU compiler is not installed.
    """
    name, sides = parse_topology(text)
    if find_spec("libtpu") is None:
        raise InputError(f"plan.topology={text} needs the TPU compiler: pip install 'tlc_jax[tpu]'")
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    chip, (width, height, *_) = CHIPS[name], sides
    # The slice is described as hosts of at most 2 x 2 chips.
    options: dict[str, Any] = {"chips_per_host_bounds": (min(2, width), min(2, height), 1)}
    if chip.config:
        options["chip_config_name"] = chip.config
    try:
        return chip, list(topologies.get_topology_desc(text, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"plan.topology={text}: {line}; take even sides, or 1") from error


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """The cost of one run of a program on one chip, as far as its text says.

    Attributes:
      cycles: sum of the compiler's estimates.
      sent_bytes: bytes sent by collectives, each taken as a ring.
      written_bytes: bytes written by instructions without an estimate.
    """

    cycles: float
    sent_bytes: float
    written_bytes: float

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Estimated seconds of each part; they may overlap."""
        return {
            "compute": self.cycles / chip.clock,
            "collectives": self.sent_bytes / chip.link_rate,
            "uncounted": self.written_bytes / chip.memory_rate,
        }


def program_cost(text: str, chip: Chip) -> ProgramCost:
    """Adds up a compiled TPU program.

    Args:
      text: the program.
      chip: the chip that it was compiled for.

    Raises:
      ValueError: it has a loop of unknown length, or is not the text of a program.
    """
    program = hlo.Program(text)

    def cost_of(instruction: hlo.Instruction, computation: hlo.Computation) -> np.ndarray:
        if sent := hlo.sent_bytes(instruction, computation):
            return np.array([0.0, sent, 0.0])
        # A fusion has one estimate for all inside it, but none for the collectives among them.
        inside = [program.computations.get(name, {}) for name in instruction.references("calls")]
        sent = math.fsum(hlo.sent_bytes(one, body) for body in inside for one in body.values())
        if cycles := _CYCLES.search(instruction.line):
            return np.array([float(cycles[1]), sent, 0.0])
        if counts := _KERNEL.search(instruction.line):
            flops, scores, moved_bytes = map(int, counts.groups())
            return np.array([_kernel_cycles(flops, scores, moved_bytes, chip), sent, 0.0])
        free = _FREE.fullmatch(instruction.op)
        written = 0 if free else hlo.type_bytes(instruction.result)
        return np.array([0.0, sent, float(written)])

    # Of a conditional the branch with the most cycles counts.
    return ProgramCost(*program.total(cost_of, weight=lambda cost: cost[0]).tolist())


def _kernel_cycles(flops: int, scores: int, moved_bytes: int, chip: Chip) -> float:
    """Cycles of an attention kernel, for which the compiler has no estimate.

    Products at the peak rate, then vector operations on scores and on inputs and outputs, as if
    nothing overlapped; at least the time for the bytes at the memory's rate. The vector rates are
    fitted to the bundles (one a cycle) that the compiler scheduled for v5e: rows of 64, 128 and 512
    positions, heads of 32, 64 and 128, masked, causal or neither. There the sum is 1 to 21 % more
    than the bundles.

    Args:
      flops: operations of the matrix unit, those on idle lanes too.
      scores: exponentials.
      moved_bytes: bytes of inputs and outputs.
      chip: the chip.
    """
    peak = peak_flops(chip.kind, "bfloat16") or math.inf
    arithmetic = flops * chip.clock / peak + scores / 450 + moved_bytes / 1450
    return max(arithmetic, moved_bytes * chip.clock / chip.memory_rate)


# As JAX writes `pl.CostEstimate`, whose transcendentals are the exponentials of scores.
_KERNEL = re.compile(
    r'"cost_estimate":\{"flops":"(\d+)","transcendentals":"(\d+)","bytes_accessed":"(\d+)"'
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# These move nothing by themselves, or (copies that are started and awaited) run beside the
# arithmetic.
_FREE = re.compile(
    r"parameter|constant|get-tuple-element|tuple|bitcast|reshape|custom-call|partition-id|iota"
    r"|after-all|opt-barrier|(copy|slice)-start|.*-done"
)
