"""Where the time of a step goes, by kind of kernel, from a trace of JAX's profiler (bench.profile).

On accelerators an event of the trace is a kernel on a stream; on CPUs it is an operation on a
thread. While several run at once, each gets an equal share of the time, so that the kinds and the
gaps add up to the step.
"""

from __future__ import annotations

import collections
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
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
# Events that only hold others.
_CONTAINERS = re.compile(r"(while|call|conditional)([._]|$)")
_LONGEST = 10


class Event(NamedTuple):
    """A kernel that ran: its name, and its start and end in seconds."""

    name: str
    start: float
    end: float


def kind(name: str, products: Collection[str] = ()) -> str:
    """The kind of a kernel, one of `KINDS`, by its name.

    Args:
      name: the name in a trace.
      products: names of fusions that hold products; see `products_of`.
    """
    for found, pattern in _PATTERNS:
        if re.search(pattern, name.lower()):
            return found
    return "products" if _identifier(name) in products else "element_wise"


def products_of(program: str) -> frozenset[str]:
    """The fusions of a compiled program, given as HLO text, that hold matrix products."""
    bodies = re.findall(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", program, re.M | re.S)
    with_products = {name for name, body in bodies if " dot(" in body}
    fusions = re.findall(r"%?([\w.\-]+) = [^\n]*? fusion\([^\n]*?calls=%?([\w.\-]+)", program)
    return frozenset(_identifier(name) for name, called in fusions if called in with_products)


def _identifier(name: str) -> str:
    # A kernel of a GPU has the name of its fusion with other signs for dots and dashes.
    return re.sub(r"[.\-]", "_", name)


def trace(run: Variant, steps: int) -> list[Event]:
    """The kernels of steps of a compiled program, on the first device."""
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run(steps)
        (path,) = Path(folder).rglob("*.xplane.pb")
        return list(_device_events(ProfileData.from_file(str(path))))


def _device_events(profile: ProfileData) -> Iterable[Event]:
    planes = {plane.name: [*plane.lines] for plane in profile.planes}
    devices = [name for name in sorted(planes) if name.startswith("/device:")]
    if devices:
        lines = planes[devices[0]]
        # A GPU has a line for each stream. A TPU has one of operations, among others of steps and
        # modules that hold them.
        streams = [line for line in lines if line.name.startswith("Stream")]
        for line in streams or [line for line in lines if line.name == "XLA Ops"]:
            for event in line.events:
                yield _event(event)
        return
    for lines in planes.values():
        for line in lines:
            for event in line.events:
                stats = dict(event.stats)
                # Each operation has a second event for its end, without a name of its own.
                if "hlo_op" in stats and stats.get("device_ordinal", 0) == 0:
                    yield _event(event)


def _event(event: Any) -> Event:
    return Event(event.name, event.start_ns / 1e9, (event.start_ns + event.duration_ns) / 1e9)


def split(events: Iterable[Event], steps: int, products: Collection[str] = ()) -> dict[str, Any]:
    """Splits the time of steps that follow each other by kind of kernel.

    Args:
      events: the kernels of all steps.
      steps: number of steps.
      products: names of fusions that hold products.

    Returns:
      "step_ms": milliseconds from the first kernel to the end of the last one, by step.
      "kinds": for each of `KINDS` its "ms" in a step, its "share" of the step, and its number of
        "kernels" in a step.
      "longest": "name", "kind", "ms" and "kernels" of the ten kernels that take longest. Kernels of
        the same name are one.
    """
    events = [event for event in events if not _CONTAINERS.match(event.name)]
    counts = collections.Counter(event.name for event in events)
    seconds, idle = _share(events)
    total = idle + sum(seconds.values())

    def numbers(names: Iterable[str]) -> dict[str, float]:
        names = list(names)
        ms = sum(seconds[name] for name in names) / steps * 1e3
        return {"ms": ms, "kernels": sum(counts[name] for name in names) / steps}

    by_kind: dict[str, list[str]] = {name: [] for name in KINDS}
    for name in counts:
        by_kind[kind(name, products)].append(name)
    kinds = {name: numbers(names) for name, names in by_kind.items()}
    kinds["gaps"]["ms"] = idle / steps * 1e3
    for row in kinds.values():
        row["share"] = row["ms"] / (total / steps * 1e3) if total else 0.0
    longest = sorted(counts, key=seconds.__getitem__, reverse=True)[:_LONGEST]
    return {
        "step_ms": total / steps * 1e3,
        "kinds": kinds,
        "longest": [
            {"name": name, "kind": kind(name, products), **numbers([name])} for name in longest
        ],
    }


def _share(events: Iterable[Event]) -> tuple[Mapping[str, float], float]:
    """Seconds by name of kernel, and seconds between the first and the last in which none runs."""
    lasting = [event for event in events if event.end > event.start]
    changes = [(event.start, 1, event.name) for event in lasting]
    changes += [(event.end, -1, event.name) for event in lasting]
    changes.sort()
    seconds: dict[str, float] = collections.defaultdict(float)
    running: collections.Counter[str] = collections.Counter()
    idle, before = 0.0, changes[0][0] if changes else 0.0
    for now, change, name in changes:
        for each, count in running.items():
            seconds[each] += (now - before) * count / running.total()
        if not running:
            idle += now - before
        running[name] += change
        if not running[name]:
            del running[name]
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
    return [f"traced step       {found['step_ms']:.2f} ms", table(kinds), table(longest)]
