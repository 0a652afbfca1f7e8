"""Peak rates of devices, the name of this machine, and how a CPU keeps a step's memory."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from pathlib import Path

# Peak rates in FLOP/s of what JAX counts as one device: a pattern of `device_kind`, the bfloat16
# rate and the float32 rate; None where the hardware lacks the mode. From vendors' data sheets,
# dense (no structured sparsity), boost clock. The first match wins, so PCIe and NVL come first.
# TPU v2 and v3 chips appear as two JAX devices, so theirs is half of the chip's rate. TPUs multiply
# float32 in several bfloat16 passes, and no sheet gives a rate. For NVIDIA GPUs since Ampere
# "float32" is the TensorFloat-32 rate: XLA uses it for float32 products unless told otherwise.
# V100 and T4 have float16 tensor cores, which we do not use, and no bfloat16.
_PEAKS: tuple[tuple[str, float | None, float | None], ...] = (
    (r"TPU v2", 22.5e12, None),
    (r"TPU v3", 61.5e12, None),
    (r"TPU v4$", 275e12, None),
    (r"TPU v5 ?(lite|e)", 197e12, None),
    (r"TPU v5p?$", 459e12, None),
    (r"TPU v6 ?(lite|e)", 918e12, None),
    (r"H200", 989e12, 494e12),
    (r"H100.*PCIe", 756e12, 378e12),
    (r"H100.*NVL", 835e12, 417e12),
    (r"H100", 989e12, 494e12),
    (r"A100", 312e12, 156e12),
    (r"L40S", 362e12, 183e12),
    (r"\bL4\b", 121e12, 60e12),
    (r"\bA10G\b", 70e12, 35e12),
    (r"\bA10\b", 125e12, 62.5e12),
    (r"V100.*PCIE", None, 14e12),
    (r"V100", None, 15.7e12),
    (r"\bT4\b", None, 8.1e12),
)

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def peak_flops(device_kind: str, matmul: str) -> float | None:
    """The data-sheet peak of one device in FLOP/s; None where it is unknown, as for every CPU.

    Args:
      device_kind: `jax.Device.device_kind`.
      matmul: `impl.matmul`: float32, mix or bfloat16.
    """
    for pattern, bfloat16, float32 in _PEAKS:
        if re.search(pattern, device_kind, re.IGNORECASE):
            return float32 if matmul == "float32" else bfloat16
    return None


def machine() -> str:
    """The processor's name and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, as far as Linux tells."""
    flags = {*_cpu_info("flags").split(), *_cpu_info("Features").split()}  # of x86, of Arm
    return not flags.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def _cpu_info(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty where it is missing."""
    cpu_info = Path("/proc/cpuinfo")
    text = cpu_info.read_text() if cpu_info.exists() else ""
    found = re.search(rf"^{field}\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def keep_freed_memory() -> bool:
    """Makes malloc keep what a training step frees, for the next step; works with glibc only.

    XLA's CPU backend allocates the hundreds of megabytes of a step's intermediate arrays again in
    every step. glibc maps such blocks from the kernel and returns them at once, so each page is
    zeroed and faulted in again: a quarter to a third of a small model's training time. The price is
    that memory once used stays with the process.

    Returns:
      Whether malloc accepted the settings.
    """
    # Threads keep the arena that they first allocated from, so this comes before JAX starts its
    # own. Large blocks must come from the heap, which only the main arena can grow that far.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    return mallopt is not None and all(mallopt(option, value) for option, value in settings)
