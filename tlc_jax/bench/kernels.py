"""Where the time of a step goes, by kind of kernel, from a trace of JAX's profiler (bench.profile).

On accelerators an event of the trace is a kernel on a stream; on CPUs it is an operation on a
thread. While several run at once, each gets an equal share of the time, so that the kinds and the
gaps add up to the step.
"""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.profiler import ProfileData, ProfileOptions

from tlc_jax.bench.throughput import Variant
from tlc_jax.core.text import table

KINDS = ("products", "attention", "element_wise", "collectives", "other", "gaps")
"""Kinds of kernels. In the gaps none runs."""

# The first pattern found in the name of a kernel decides. Names are those of NVIDIA's libraries, of
# XLA's fusions, and of operations of XLA's CPU backend.
_PATTERNS = (
    ("collectives", r"nccl|all[-_]?(reduce|gather|to[-_]?all)|reduce[-_]?scatter|collective"),
    ("attention", r"fmha|flash|sdpa|attention|cudnn(?!.*(matmul|gemm|fprop|dgrad|wgrad))"),
    ("other", r"memcpy|memset"),
    ("products", r"cublas|cutlass|nvjet|gem[mv]|xmma|matmul|convolution|(^|_)dot([._]|$)"),
)
_PRODUCT_CALL = r'custom_call_target="[^"]*(cublas|gemm|matmul)'
# Events that only hold others.
_CONTAINERS = re.compile(r"(while|call|conditional)([._]|$)")
_LONGEST = 10

_Key = tuple[str, str]  # name and kind of a kernel


class Event(NamedTuple):
    """A kernel that ran: its name, start and end in seconds, and the operation that it is for."""

    name: str
    start: float
    end: float
    op: str = ""


def kind(event: Event, operations: Mapping[str, str] = MappingProxyType({})) -> str:
    """The kind of a kernel, one of `KINDS`, by its name and its operation.

    Args:
      event: the kernel.
      operations: kinds of operations of the program; see `operations_of`.
    """
    # Kernels of fusions have the names of these, with other signs for dots and dashes.
    known = operations.get(_identifier(event.op or event.name))
    for found, pattern in _PATTERNS:
        if re.search(pattern, event.name.lower()):
            return "attention" if (known, found) == ("attention", "products") else found
    return known or "element_wise"


def operations_of(program: str) -> dict[str, str]:
    """The operations that belong to attention or products, of a program's HLO text.

    Attention is what the models name so: softmax and its two products, but no projections.
    """
    bodies = re.findall(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", program, re.M | re.S)
    with_products = {name for name, body in bodies if " dot(" in body}
    kinds = {}
    for name, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = ([^\n]*)", program, re.M):
        called = re.search(r"calls=%?([\w.\-]+)", rest)
        if re.search(r'op_name="[^"]*\battention\b', rest):
            kinds[_identifier(name)] = "attention"
        elif (called and called[1] in with_products) or re.search(_PRODUCT_CALL, rest):
            kinds[_identifier(name)] = "products"
    return kinds


def _identifier(name: str) -> str:
    return re.sub(r"[.\-]", "_", name)


def trace(run: Variant, steps: int) -> list[Event]:
    """The kernels of steps of a compiled program, on the first device."""
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run(steps)
        # Without the right to trace a GPU there may be none.
        paths = sorted(Path(folder).rglob("*.xplane.pb"))
        return device_events(ProfileData.from_file(str(paths[-1]))) if paths else []


def count_steps(profile: ProfileData) -> int:
    """How many training steps a trace has, by the loop's notes of them."""
    lines = [line for plane in profile.planes for line in plane.lines]
    notes = [dict(event.stats) for line in lines for event in line.events if event.name == "train"]
    return len({note["step_num"] for note in notes if "step_num" in note})


def device_events(profile: ProfileData) -> list[Event]:
    """The kernels of the first device in a trace."""
    planes = {plane.name: [*plane.lines] for plane in profile.planes}
    for name in sorted(planes):
        if name.startswith("/device:"):
            # A GPU has a line for each stream. A TPU has one of operations, among others of steps
            # and modules that hold them.
            streams = [line for line in planes[name] if line.name.startswith("Stream")]
            lines = streams or [line for line in planes[name] if line.name == "XLA Ops"]
            if events := [_event(event) for line in lines for event in line.events]:
                return events
    return [
        _event(event)
        for lines in planes.values()
        for line in lines
        for event in line.events
        # A second event for the end of each operation has none. Device 0 is the first.
        if "hlo_op" in (stats := dict(event.stats)) and stats.get("device_ordinal", 0) == 0
    ]


def _event(event: Any) -> Event:
    start, op = event.start_ns / 1e9, dict(event.stats).get("hlo_op", "")
    return Event(event.name, start, start + event.duration_ns / 1e9, str(op))


def split(
    events: Iterable[Event], steps: int, operations: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Splits the time of steps that follow each other by kind of kernel.

    Args:
      events: the kernels of all steps.
      steps: number of steps.
      operations: kinds of operations of the program.

    Returns:
      "step_ms": milliseconds from the first kernel to the end of the last one, by step.
      "kinds": for each of `KINDS` its "ms" in a step, its "share" of the step, and its number of
        "kernels" in a step.
      "longest": "name", "kind", "ms" and "kernels" of the ten kernels that take longest. Kernels of
        the same name and kind are one.
    """
    events = [event for event in events if not _CONTAINERS.match(event.name)]
    keys = [(event.name, kind(event, operations)) for event in events]
    counts = collections.Counter(keys)
    seconds, idle = _share(events, keys)
    total = idle + sum(seconds.values())

    def numbers(keys: Iterable[_Key]) -> dict[str, float]:
        keys = list(keys)
        ms = sum(seconds[key] for key in keys) / steps * 1e3
        return {"ms": ms, "kernels": sum(counts[key] for key in keys) / steps}

    kinds = {kind: numbers(key for key in counts if key[1] == kind) for kind in KINDS}
    kinds["gaps"]["ms"] = idle / steps * 1e3
    for row in kinds.values():
        row["share"] = row["ms"] / (total / steps * 1e3) if total else 0.0
    longest = sorted(counts, key=seconds.__getitem__, reverse=True)[:_LONGEST]
    return {
        "step_ms": total / steps * 1e3,
        "kinds": kinds,
        "longest": [{"name": key[0], "kind": key[1], **numbers([key])} for key in longest],
    }


def _share(events: Sequence[Event], keys: Sequence[_Key]) -> tuple[Mapping[_Key, float], float]:
    """Seconds by kernel, and seconds between the first and the last in which none runs."""
    changes = []
    for event, key in zip(events, keys, strict=True):
        if event.end > event.start:
            changes += [(event.start, 1, key), (event.end, -1, key)]
    changes.sort()
    seconds: dict[_Key, float] = collections.defaultdict(float)
    running: collections.Counter[_Key] = collections.Counter()
    idle, before = 0.0, changes[0][0] if changes else 0.0
    for now, change, key in changes:
        for each, count in running.items():
            seconds[each] += (now - before) * count / running.total()
        if not running:
            idle += now - before
        running[key] += change
        if not running[key]:
            del running[key]
        before = now
    return seconds, idle


def describe(found: Mapping[str, Any]) -> list[str]:
    """Tables of the kinds and of the longest kernels."""
    kinds = [["kernels by kind", "ms a step", "share", "kernels a step"]]
    kinds += [
        [name, f"{row['ms']:.2f}", f"{row['share']:.1%}", f"{row['kernels']:.0f}"]
        for name, row in found["kinds"].items()
    ]
    longest = [["longest kernels", "kind", "ms a step", "kernels a step"]]
    longest += [
        [row["name"][:60], row["kind"], f"{row['ms']:.3f}", f"{row['kernels']:.0f}"]
        for row in found["longest"]
    ]
    if not found["longest"]:
        return ["traced step       no kernels in the trace; may this user trace the GPU (CUPTI)?"]
    return [f"traced step       {found['step_ms']:.2f} ms", table(kinds), table(longest)]
