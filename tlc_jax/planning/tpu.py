"""TPU chips by their data sheets, and what a compiled TPU program says of its own cost.

The TPU compiler writes an estimate in clock cycles beside most instructions of a program. Added up over the program, a
loop's body as often as it runs, they make an estimate of its arithmetic. Collectives carry none: for these the bytes
that a chip sends are counted. Nor do a few others (random bits, gathers, sorts), of which the bytes written are.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec

import jax
from jax.experimental import topologies

from tlc_jax.core.errors import InputError

GIB = 2**30

# The compiler alone is wanted: no search for a TPU or its neighbors, no lock against other users of the library, and
# no log of what it could not find.
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
      kind: what JAX calls its devices, of which one is a chip.
      clock: cycles per second.
      memory: bytes that the compiler gives to a program; the data sheet's less what the system keeps.
      memory_rate: bytes per second to and from that memory.
      link_rate: bytes per second that a chip can send to its neighbors over all links together.
      dimensions: of the networks that slices are cut from.
      config: the compiler's name for using both cores of a chip as one device; empty: it has one.
    """

    kind: str
    clock: float
    memory: int
    memory_rate: float
    link_rate: float
    dimensions: int
    config: str = ""


# Memory rates and link rates (one way) are those of Google's pages on each chip. The clocks are not official figures,
# but with them the sheets' peak rates are whole numbers of multiply-adds a cycle (4 or 8 units of 128 x 128; v6e: 4 of
# 256 x 256 halves). Memory is what the compiler says is available when it refuses a program.
CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 1.05e9, int(30.75 * GIB), 1228e9, 300e9, 3, "megacore"),
    "v5e": Chip("TPU v5 lite", 1.5e9, int(15.75 * GIB), 819e9, 200e9, 2),
    "v5p": Chip("TPU v5", 1.75e9, int(95.74 * GIB), 2765e9, 600e9, 3, "megacore"),
    "v6e": Chip("TPU v6 lite", 1.75e9, int(31.25 * GIB), 1640e9, 400e9, 2),
}


def parse_topology(text: str) -> tuple[str, tuple[int, ...]]:
    """`v5e:16x16` to the name of the chip and the shape of the slice.

    Raises:
      InputError: bad syntax, an unknown chip, or a shape that its network does not have.
    """
    name, colon, shape = text.partition(":")
    if name not in CHIPS:
        raise InputError(
            f"plan.topology={text!r}: known chips are {', '.join(CHIPS)}; write for example v5e:16x16"
        )
    sides = shape.split("x")
    dimensions = CHIPS[name].dimensions
    if (
        not colon
        or len(sides) != dimensions
        or not all(side.isdecimal() and int(side) > 0 for side in sides)
    ):
        example = "x".join("4" * dimensions)
        raise InputError(
            f"plan.topology={text!r}: a slice of {name} has {dimensions} sides, such as {name}:{example}"
        )
    return name, tuple(map(int, sides))


def prepare_for(text: str) -> None:
    """Checks `plan.topology`, and makes JAX leave the machine's own accelerators alone. Call it before JAX starts.

    Raises:
      InputError: no such slice, or the TPU compiler is not installed.
    """
    parse_topology(text)
    if find_spec("libtpu") is None:
        raise InputError(f"plan.topology={text} needs the TPU compiler: pip install 'tlc_jax[tpu]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")


def devices_of(text: str) -> list[jax.Device]:
    """The devices of the slice, a chip each.

    Raises:
      InputError: chips cannot be wired like that.
    """
    name, sides = parse_topology(text)
    width, height, *_ = sides
    options = {"chips_per_host_bounds": (min(2, width), min(2, height), 1)}
    if CHIPS[name].config:
        options["chip_config_name"] = CHIPS[name].config  # type: ignore[assignment]
    try:
        return list(topologies.get_topology_desc(text, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"plan.topology={text}: {line}; take even sides, or 1") from error


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """What one run of a program costs on one chip, as far as its text says.

    Attributes:
      cycles: the compiler's estimates, summed.
      sent_bytes: sent by collectives, each taken as a ring.
      written_bytes: written by instructions without an estimate.
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


def program_cost(text: str) -> ProgramCost:
    """Adds up a compiled TPU program.

    Raises:
      ValueError: it has a loop of unknown length, or is not the text of a program.
    """
    return _Program(text).total()


@dataclasses.dataclass(frozen=True)
class _Instruction:
    op: str
    result: str  # its type
    line: str


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\(")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
# These move nothing by themselves, or (copies that are started and awaited) run beside the arithmetic.
_FREE = re.compile(
    r"parameter|constant|get-tuple-element|tuple|bitcast|reshape|custom-call|partition-id|iota|after-all|opt-barrier"
    r"|(copy|slice)-start|.*-done"
)


class _Program:
    def __init__(self, text: str):
        self.computations: dict[str, list[_Instruction]] = {}
        entry, current = "", ""
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                current = header[2]
                self.computations[current] = []
                entry = current if header[1] else entry
            elif current and (found := _INSTRUCTION.match(line)):
                self.computations[current].append(_Instruction(found[2], found[1], line))
        if not entry:
            raise ValueError("no compiled program")
        self.entry = entry

    def total(self) -> ProgramCost:
        return self._cost(self.entry)

    def _cost(self, name: str) -> ProgramCost:
        parts = [self._cost_of(instruction) for instruction in self.computations[name]]
        return ProgramCost(
            *(math.fsum(getattr(part, field) for part in parts) for field in _FIELDS)
        )

    def _cost_of(self, instruction: _Instruction) -> ProgramCost:
        op, line = instruction.op, instruction.line
        if op == "while":
            body = self._cost(_reference(line, "body"))
            times = self._trips(line)
            return ProgramCost(*(times * getattr(body, field) for field in _FIELDS))
        if op == "conditional":
            branches = [self._cost(name) for name in _references(line, "branch_computations")]
            return max(branches, key=lambda branch: branch.cycles)
        if op == "call":
            return self._cost(_reference(line, "to_apply"))
        if sent := _sent_bytes(instruction):
            return ProgramCost(0.0, sent, 0.0)
        inside = sum(
            self._sent_inside(name) for name in _references(line, "calls")
        )  # collectives fused with others
        if cycles := _CYCLES.search(line):
            return ProgramCost(float(cycles[1]), inside, 0.0)
        return ProgramCost(
            0.0, inside, 0.0 if _FREE.fullmatch(op) else float(_bytes(instruction.result))
        )

    def _sent_inside(self, name: str) -> float:
        return math.fsum(
            _sent_bytes(instruction) for instruction in self.computations.get(name, ())
        )

    def _trips(self, line: str) -> int:
        """How often the body of a loop runs: it counts from 0 to a constant."""
        if known := re.search(r'known_trip_count[":{n]+(\d+)', line):
            return int(known[1])
        condition = "\n".join(i.line for i in self.computations[_reference(line, "condition")])
        limits = re.findall(r"[su]32\[\]\S* constant\((\d+)\)", condition)
        if len(limits) != 1 or "direction=LT" not in condition:
            raise ValueError("a loop of unknown length")
        return int(limits[0])


_FIELDS = [field.name for field in dataclasses.fields(ProgramCost)]


def _reference(line: str, attribute: str) -> str:
    return next(_references(line, attribute))


def _references(line: str, attribute: str) -> Iterator[str]:
    """The computations that an instruction names under an attribute."""
    if found := re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", line):
        yield from (name.strip().lstrip("%") for name in found[1].strip("{}").split(","))


def _sent_bytes(instruction: _Instruction) -> float:
    """Bytes that a chip sends in a collective over a group of g, as a ring does; 0 for other instructions."""
    op = instruction.op.removesuffix("-start")
    whole = _bytes(instruction.result)
    largest = max((_bytes(part[0]) for part in re.finditer(_ARRAY, instruction.result)), default=0)
    if op != instruction.op and op in ("all-gather", "collective-permute"):
        whole = largest  # the result of a start names the operand as well
    g = _group(instruction.line)
    share = (g - 1) / g
    return {
        "all-reduce": 2 * whole * share,
        "all-gather": whole * share,
        "reduce-scatter": whole * (g - 1),
        "all-to-all": whole * share,
        "collective-permute": float(whole),
    }.get(op, 0.0)


def _group(line: str) -> int:
    """Devices in each group of a collective."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiled[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    return 2**31  # not said: as many as can be


def _bytes(type_text: str) -> int:
    """Bytes of all arrays in a type."""
    total = 0
    for kind, dimensions in _ARRAY.findall(type_text):
        digits = re.search(r"\d+", kind)
        bits = 8 if kind == "pred" or digits is None else int(digits[0])
        total += math.prod(int(size) for size in dimensions.split(",") if size) * max(8, bits) // 8
    return total
