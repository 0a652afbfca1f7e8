"""Reads the text of a compiled program: instructions, how often they run, bytes moved and sent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: the name that other instructions use.
      op: what it does, such as `fusion`.
      result: its type, such as `f32[8,128]{1,0}`; of several results, a tuple in parentheses.
      operands: names of the instructions that it reads.
      root: whether its result is that of the computation.
      line: the whole line.
    """

    name: str
    op: str
    result: str
    operands: tuple[str, ...]
    root: bool
    line: str

    def references(self, attribute: str) -> list[str]:
        """The computations that the instruction names under an attribute."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.line)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


Computation = dict[str, Instruction]
"""Instructions by their names, in their order."""

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


class Program:
    """A compiled program.

    Attributes:
      computations: the computations by their names.
      entry: name of the computation that runs first.
    """

    def __init__(self, text: str):
        """Parses the text.

        Raises:
          ValueError: it is not the text of a program.
        """
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current: Computation | None = None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header[2], {})
                self.entry = header[2] if header[1] else self.entry
            elif current is not None and (found := _INSTRUCTION.match(line)):
                root, name, result, op, rest = found.groups()
                operands = tuple(re.findall(r"%([\w.\-]+)", rest.split("), ")[0]))
                current[name] = Instruction(name, op, result, operands, bool(root), line)
        if not self.entry:
            raise ValueError("no compiled program")

    def total(
        self,
        cost_of: Callable[[Instruction, Computation], np.ndarray],
        weight: Callable[[np.ndarray], float],
    ) -> np.ndarray:
        """Adds up the cost of a run.

        Args:
          cost_of: instruction, its computation -> its costs, always as many. It is not asked about
            loops, conditionals and calls: what is inside them counts as often as it runs.
          weight: costs -> one number; of a conditional the branch with the largest counts.

        Raises:
          ValueError: the program has a loop of unknown length.
        """

        def inside(name: str) -> Any:
            computation = self.computations[name]
            return sum(one(instruction, computation) for instruction in computation.values())

        def one(instruction: Instruction, computation: Computation) -> Any:
            if instruction.op == "while":
                return self._trips(instruction) * inside(instruction.references("body")[0])
            if instruction.op == "conditional":
                branches = instruction.references("branch_computations")
                branches += instruction.references("true_computation")
                branches += instruction.references("false_computation")
                return max(map(inside, branches), key=weight)
            if instruction.op in ("call", "async-start"):
                called = instruction.references("to_apply") or instruction.references("calls")
                return inside(called[0])
            return cost_of(instruction, computation)

        return inside(self.entry)

    def _trips(self, loop: Instruction) -> int:
        """How often the body of a loop runs."""
        if known := re.search(r'known_trip_count[":{n]+(\d+)', loop.line):
            return int(known[1])
        # Loops of `jax.lax.scan` count from 0 to a constant.
        condition = self.computations[loop.references("condition")[0]]
        text = "\n".join(instruction.line for instruction in condition.values())
        limits = re.findall(r"[su]32\[\]\S* constant\((\d+)\)", text)
        if len(limits) != 1 or "direction=LT" not in text:
            raise ValueError("a loop of unknown length")
        return int(limits[0])


def result_bytes(instruction: Instruction, computation: Computation) -> int:
    """Bytes of an instruction's results."""
    size = type_bytes(instruction.result)
    if instruction.op.endswith("-start") and instruction.op != "all-reduce-start":
        # The results of a start name its operands as well.
        size -= sum(type_bytes(computation[name].result) for name in instruction.operands)
    return size


def sent_bytes(instruction: Instruction, computation: Computation) -> float:
    """Bytes that a device sends in a collective over a group, as a ring; 0 for other instructions.

    A group that is not named is as large as can be.
    """
    op = instruction.op.removesuffix("-start")
    if op not in _SENT:
        return 0.0
    return _SENT[op](result_bytes(instruction, computation), _group(instruction.line))


# Result in bytes, devices in the group -> bytes that each of them sends.
_SENT: dict[str, Callable[[int, int], float]] = {
    "all-reduce": lambda size, group: 2 * size * (group - 1) / group,
    "all-gather": lambda size, group: size * (group - 1) / group,
    "reduce-scatter": lambda size, group: size * (group - 1),  # the result is one share
    "all-to-all": lambda size, group: size * (group - 1) / group,
    "collective-permute": lambda size, group: size,
}


def _group(line: str) -> int:
    """Devices in each group of a collective."""
    devices = r"(?:, device_ids=\([^)]*(?:\([^)]*\))?\))?"
    if mesh := re.search(rf"replica_groups=mesh\[([^\]]*)\]{devices} \{{([^}}]*)\}}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        # A part of an axis is written 'axis':(devices before it)devices.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiled[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    return 2**31  # it does not say: as many as there can be


def dimensions(type_text: str) -> list[int]:
    """Sizes of the axes of the first array in a type."""
    found = _ARRAY.search(type_text)
    return [int(size) for size in found[2].split(",") if size] if found else []


def type_bytes(type_text: str) -> int:
    """Bytes of all arrays in a type."""
    total = 0
    for kind, sizes in _ARRAY.findall(type_text):
        # `pred` has no digits and takes a byte, as types of fewer than 8 bits do here.
        bits = max(8, int((re.findall(r"\d+", kind) or [8])[0]))
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total
