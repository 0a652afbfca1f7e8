"""GPUs by their data sheets, and the roofline of a compiled GPU program by its own text.

A kernel takes at least the time that its bytes need at the rate that memory reaches, that its
products need at the rate that the tensor cores reach, that its messages need over the links between
GPUs, and that any kernel takes; the largest counts. The sum is the roofline of a step. What caches
save is left out.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from tlc_jax.core.devices import peak_flops
from tlc_jax.core.errors import InputError
from tlc_jax.planning import hlo

KINDS = ("products", "attention", "element_wise", "collectives", "other")
"""Kinds of kernels, by which the time of a step is divided."""

# What large products and large copies reached on an H200, as shares of its data sheet. The other
# kinds are taken to reach the same shares.
_PRODUCT_SHARE, _MEMORY_SHARE = 800 / 989, 4.3 / 4.8

# Six measured steps on an H200 took 1.17 to 1.31 times this roofline (docs/planning.md). The one
# with cuDNN's attention, which impl.attention=auto picks, took 1.31 times as long.
SLOWDOWN = 1.27

# No kernel takes less: on the H200, 1,273 kernels of a step took 56.6 ms, and the step 58.8 ms.
_LEAST_SECONDS = 1.7e-6

_HOST_GPUS = 8  # the most that NVLink joins in one host


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
      kind: `jax.Device.device_kind`.
      memory: bytes of memory, as CUDA reports them.
      memory_rate: bytes per second to and from that memory, by the data sheet.
      link_rate: bytes per second that a GPU can send to the others of its host.
      capability: CUDA compute capability.
      cores: streaming multiprocessors.
      clock: highest clock rate in GHz.
      cache: bytes of the second-level cache.
      shared_memory: bytes of shared memory of a core.
      core_threads: threads that a core can hold.
      core_units: float32 units of a core.
    """

    kind: str
    memory: int
    memory_rate: float
    link_rate: float
    capability: tuple[int, int]
    cores: int
    clock: float
    cache: int
    shared_memory: int
    core_threads: int = 2048
    core_units: int = 128

    # Of `describe` and `parts`: what they find times this is the time of a step.
    slowdown = SLOWDOWN
    method = f"roofline x {SLOWDOWN}"

    def describe(self, text: str) -> dict[str, Any]:
        """Seconds of the kernels of each kind in a compiled program, by the roofline.

        Raises:
          ValueError: it has a loop of unknown length, or is not the text of a program.
        """
        return roofline(text, self)

    def parts(self, facts: Mapping[str, Any]) -> dict[str, float]:
        """Seconds of each part of a step, from what `describe` found."""
        return dict(facts)

    def target_config(self) -> str:
        """What XLA wants to know of a GPU that is not there."""
        major, minor = self.capability
        return f"""
          gpu_device_info {{
            cuda_compute_capability {{ major: {major} minor: {minor} }}
            core_count: {self.cores} fpus_per_core: {self.core_units} clock_rate_ghz: {self.clock}
            device_memory_size: {self.memory} memory_bandwidth: {int(self.memory_rate)}
            l2_cache_size: {self.cache}
            shared_memory_per_core: {self.shared_memory} shared_memory_per_block: 49152
            shared_memory_per_block_optin: {self.shared_memory - 1024}
            threads_per_core_limit: {self.core_threads} threads_per_block_limit: 1024
            threads_per_warp: 32 registers_per_core_limit: 65536 registers_per_block_limit: 65536
            block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          }}
          platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }}
          device_description_str: "{self.kind}"
        """


# From NVIDIA's data sheets. H100 and A100 are the SXM modules, A100 that of 80 GB. Links are one
# direction of NVLink, for L40S, L4 and A10 of PCIe 4.0 x16. Memory is what CUDA reports; of L40S,
# L4 and A10 rounded down.
GPUS: dict[str, Gpu] = {
    "h200": Gpu(
        "NVIDIA H200", 150_000_000_000, 4.8e12, 450e9, (9, 0), 132, 1.98, 50 << 20, 228 << 10
    ),
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3",
        84_942_979_072,
        3.35232e12,
        450e9,
        (9, 0),
        132,
        1.98,
        50 << 20,
        228 << 10,
    ),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB",
        85_100_068_864,
        2.03904e12,
        300e9,
        (8, 0),
        108,
        1.41,
        40 << 20,
        164 << 10,
        core_units=64,
    ),
    "l40s": Gpu(
        "NVIDIA L40S", 47_600_000_000, 864e9, 32e9, (8, 9), 142, 2.52, 96 << 20, 100 << 10, 1536
    ),
    "l4": Gpu(
        "NVIDIA L4", 23_600_000_000, 300e9, 32e9, (8, 9), 58, 2.04, 48 << 20, 100 << 10, 1536
    ),
    "a10": Gpu(
        "NVIDIA A10", 23_600_000_000, 600e9, 32e9, (8, 6), 72, 1.695, 6 << 20, 100 << 10, 1536
    ),
}


def open_host(text: str) -> tuple[Gpu, list[jax.Device]]:
    """The kind and the devices of a host such as `h100:8`, which need not be there.

    Makes JAX leave the machine's own accelerators alone, so it must come before JAX starts.

    Raises:
      InputError: the host cannot be planned for, or the GPU compiler is missing or of another
        version.
    """
    name, count = parse_topology(text)
    _check_compiler(text)
    # Only the compiler is used: it shall neither look for a driver, nor touch the GPUs of this
    # machine, nor time kernels on them.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    flags = os.environ.get("XLA_FLAGS", "")
    if "--xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    jax.config.update("jax_platforms", "cpu")
    gpu = GPUS[name]
    topology = topologies.get_topology_desc(
        "gpu",
        "cuda",
        target_config=gpu.target_config(),
        topology=f"1x1x{count}",  # slices x hosts of a slice x GPUs of a host
    )
    return gpu, list(topology.devices)


def parse_topology(text: str) -> tuple[str, int]:
    """Parses a host such as `h100:8` into the name of its GPU, a known one, and their number.

    Raises:
      InputError: the number is missing or too large, or there are several hosts.
    """
    name, _, count = text.partition(":")
    if not count.isdecimal() or not 1 <= int(count) <= _HOST_GPUS:
        raise InputError(
            f"plan.topology={text!r}: write how many GPUs of one host, 1 to {_HOST_GPUS}, such as "
            f"{name}:{_HOST_GPUS}; several hosts cannot be planned, as their network is not known"
        )
    return name, int(count)


def _check_compiler(text: str) -> None:
    """Raises InputError unless JAX's GPU compiler is installed, in the version that JAX needs."""
    needed = importlib.metadata.version("jaxlib")
    found = {}
    for cuda in ("12", "13"):
        try:
            for package in (f"jax-cuda{cuda}-plugin", f"jax-cuda{cuda}-pjrt"):
                found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        wrong = next((one for one in found if found[one] != needed), None)
        if wrong:
            raise InputError(
                f"plan.topology={text}: {wrong} {found[wrong]} does not fit jaxlib {needed}: "
                f"pip install 'jax[cuda{cuda}]=={needed}'"
            )
        return
    raise InputError(f"plan.topology={text} needs the GPU compiler: pip install 'tlc_jax[cuda]'")


def memory_fraction() -> float:
    """The share of a GPU's memory that JAX takes.

    Raises:
      InputError: the environment names another share, which is not a number.
    """
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        if share := os.environ.get(name):
            try:
                return float(share)
            except ValueError:
                raise InputError(
                    f"{name}={share} is not a number: write 0.9, or unset it"
                ) from None
    return 0.75


def roofline(text: str, gpu: Gpu) -> dict[str, float]:
    """Seconds of the kernels of each kind in a compiled program.

    Raises:
      ValueError: it has a loop of unknown length, or is not the text of a program.
    """
    program = hlo.Program(text)
    memory_rate = _MEMORY_SHARE * gpu.memory_rate

    def cost_of(instruction: hlo.Instruction, computation: hlo.Computation) -> np.ndarray:
        kernel = _Kernel(program, instruction, computation)
        seconds = np.zeros(len(KINDS))
        if kernel.op not in _FREE and not kernel.op.endswith(("-done", "-update")):
            seconds[KINDS.index(kernel.kind())] = max(
                kernel.moved_bytes() / memory_rate,
                kernel.product_seconds(gpu),
                kernel.sent_bytes() / gpu.link_rate,
                _LEAST_SECONDS,
            )
        return seconds

    total = program.total(cost_of, weight=np.sum)
    return dict(zip(KINDS, total.tolist(), strict=True))


# These move nothing.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "add-dependency",
    "opt-barrier",
    "partition-id",
    "replica-id",
}
_SLICES = ("slice", "dynamic-slice", "gather")
_COLLECTIVE = re.compile(
    "(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute"
    "|collective-broadcast)(-start)?"
)


class _Kernel:
    """What one instruction, outside fusions, makes a GPU do."""

    def __init__(
        self, program: hlo.Program, instruction: hlo.Instruction, computation: hlo.Computation
    ):
        self.program, self.instruction, self.around = program, instruction, computation
        self.op = instruction.op
        fused = instruction.references("calls") if self.op == "fusion" else []
        self.body: hlo.Computation = program.computations[fused[0]] if fused else {}
        target = re.search(r'custom_call_target="([^"]+)"', instruction.line)
        self.target = target[1] if target and self.op == "custom-call" else ""

    def kind(self) -> str:
        inside = [self.instruction, *self.body.values()]
        if any(_COLLECTIVE.fullmatch(one.op) for one in inside):
            return "collectives"
        name = re.search(r'op_name="([^"]*)"', self.instruction.line)
        # The models name the operations of attention so; products of projections are outside.
        if "fmha" in self.target or (name and re.search(r"\battention\b", name[1])):
            return "attention"
        if self._products():
            return "products"
        return "element_wise" if self.op in ("fusion", "reduce", "convert", "copy") else "other"

    def sent_bytes(self) -> float:
        sent = hlo.sent_bytes(self.instruction, self.around)
        return sent + math.fsum(hlo.sent_bytes(one, self.body) for one in self.body.values())

    def moved_bytes(self) -> int:
        """Bytes read and written. Of an array of which only a slice is used, the slice counts."""
        operands = [self.around[name] for name in self.instruction.operands]
        if self.target:
            # The bytes of a library's workspace stand among its results.
            results = re.sub(r"\b[su]8\[\d*\]", "", self.instruction.result)
            return sum(hlo.type_bytes(one.result) for one in operands) + hlo.type_bytes(results)
        if not self.body:
            read = sum(hlo.type_bytes(one.result) for one in operands)
            return read + hlo.result_bytes(self.instruction, self.around)
        return _read_bytes(self.body) + _written_bytes(self.body)

    def product_seconds(self, gpu: Gpu) -> float:
        """The least time of the products, at the rate of the types that come in."""
        seconds = 0.0
        for flops, type_text in self._products():
            matmul = "float32" if type_text.startswith("f32") else "bfloat16"
            peak = peak_flops(gpu.kind, matmul)
            assert peak is not None, gpu.kind
            seconds += flops / (_PRODUCT_SHARE * peak)
        return seconds

    def _products(self) -> list[tuple[int, str]]:
        """FLOPs and the left side's type of each product."""
        line = self.instruction.line
        if "fmha" in self.target:
            return [(self._attention_flops(), self._type_of_operand())]
        if "gemm" in self.target or "matmul" in self.target:
            contracted = re.search(r'"lhs_contracting_dimensions": ?\[([^\]]*)\]', line)
            axes = re.findall(r"\d+", contracted[1]) if contracted else []
            sides = hlo.dimensions(self._type_of_operand())
            depth = math.prod(sides[int(axis)] for axis in axes)
            flops = 2 * math.prod(hlo.dimensions(self.instruction.result)) * depth
            return [(flops, self._type_of_operand())]
        if self.op == "dot":
            return [_dot(self.instruction, self.around)]
        return list(_dots(self.program, self.body))

    def _type_of_operand(self) -> str:
        return self.around[self.instruction.operands[0]].result

    def _attention_flops(self) -> int:
        """Fused attention makes 2 products of its scores' shape forward, and 5 backward."""
        scores = re.search(
            r'"intermediate_tensor_shape":.*?"dimensions": ?\[([^\]]*)\]', self.instruction.line
        )
        if not scores:
            return 0
        sides = [int(side) for side in re.findall(r"\d+", scores[1])]
        head_size = hlo.dimensions(self._type_of_operand())[-1]
        products = 5 if self.target.endswith("Backward") else 2
        return products * 2 * math.prod(sides) * head_size


def _dots(program: hlo.Program, body: hlo.Computation) -> list[tuple[int, str]]:
    """The products in a fusion and in the fusions inside it."""
    found = [_dot(one, body) for one in body.values() if one.op == "dot"]
    for one in body.values():
        if one.op == "fusion":
            found += _dots(program, program.computations[one.references("calls")[0]])
    return found


def _dot(dot: hlo.Instruction, computation: hlo.Computation) -> tuple[int, str]:
    left = computation[dot.operands[0]].result
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.line)
    axes = contracted[1].split(",") if contracted else []
    sides = hlo.dimensions(left)
    depth = math.prod(sides[int(axis)] for axis in axes if axis)
    return 2 * math.prod(hlo.dimensions(dot.result)) * depth, left


def _read_bytes(body: hlo.Computation) -> int:
    """Bytes that a fusion reads of its parameters."""
    total = 0
    for one in body.values():
        if one.op != "parameter":
            continue
        users, whole = list(_users(one, body)), hlo.type_bytes(one.result)
        if all(user.op in _SLICES for user, _ in users):
            whole = min(whole, sum(hlo.type_bytes(user.result) for user, _ in users))
        elif all(user.op == "dynamic-update-slice" and place == 0 for user, place in users):
            whole = 0  # written in place
        total += whole
    return total


def _users(one: hlo.Instruction, body: hlo.Computation) -> list[tuple[hlo.Instruction, int]]:
    """The instructions that use a value, through bitcasts, and as which operand."""
    found = []
    for user in body.values():
        if one.name in user.operands:
            if user.op == "bitcast":
                found += _users(user, body)
            else:
                found.append((user, user.operands.index(one.name)))
    return found


def _written_bytes(body: hlo.Computation) -> int:
    """Bytes that a fusion writes."""
    root = next(one for one in body.values() if one.root)
    results = [body[name] for name in root.operands] if root.op == "tuple" else [root]
    return sum(_result_bytes(result, body) for result in results)


def _result_bytes(result: hlo.Instruction, body: hlo.Computation) -> int:
    source = result
    while source.op == "bitcast":
        source = body[source.operands[0]]
    if source.op == "dynamic-update-slice":
        into = body[source.operands[0]]
        while into.op == "bitcast":
            into = body[into.operands[0]]
        if into.op == "parameter":  # written in place
            return hlo.type_bytes(body[source.operands[1]].result)
    return hlo.type_bytes(result.result)
