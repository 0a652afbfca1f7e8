"""What `auto` stands for in settings of `impl` that depend on the devices of a run.

`for_device` chooses them as soon as devices are open; impl.remat and impl.microbatch, which depend
on memory, follow in `planning.fit`. The values go to config.json and result.json.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from tlc_jax.config import Config
from tlc_jax.config.resolve import RESOLVED
from tlc_jax.core import distributed as processes
from tlc_jax.core.devices import multiplies_bfloat16
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import read_json, write_json

SETTINGS = ("matmul", "layer_loop", "attention", "remat")
"""Settings of `impl` whose `auto` depends on the devices."""


def for_device(config: Config, device: jax.Device) -> Config:
    """The config with impl.matmul, impl.layer_loop and impl.attention chosen for a device.

    All processes of a run must call it, with a device of one kind.

    Raises:
      InputError: impl.attention=cudnn or pallas is set and cannot work.
    """
    impl = config.impl
    if impl.matmul == "auto":
        impl = dataclasses.replace(impl, matmul=_matmul(device))
    if impl.layer_loop == "auto":
        # A loop hides from the compiler what it could fuse, and stacks what the backward pass
        # needs. On two CPU cores the best steps of 3x256, 6x256, 6x512, 12x256 and 12x768 were 2 to
        # 28 % faster without it, and a step of 12 layers compiled 9 to 15 s longer.
        impl = dataclasses.replace(impl, layer_loop="unrolled")
    config = dataclasses.replace(config, impl=impl)
    if impl.attention in _FUSED and (why := _FUSED[impl.attention](config, device)):
        raise InputError(f"impl.attention={impl.attention}: {why}; set impl.attention=auto")
    if impl.attention == "auto":
        work = [name for name, obstacle in _FUSED.items() if not obstacle(config, device)]
        impl = dataclasses.replace(impl, attention=work[0] if work else "xla")
    return dataclasses.replace(config, impl=impl)


def with_matmul(config: Config, matmul: str) -> Config:
    """The config with another impl.matmul, and attention that `for_device` makes suit it."""
    attention = "auto" if config.impl.attention in _FUSED else config.impl.attention
    impl = dataclasses.replace(config.impl, matmul=matmul, attention=attention)
    return dataclasses.replace(config, impl=impl)


def _matmul(device: jax.Device) -> str:
    # The type with the highest rate. It keeps the range of float32, so no loss scaling is needed.
    if device.platform == "tpu" or _nvidia_generation(device) >= (8, 0):
        return "bfloat16"
    # CPUs with bfloat16 instructions multiply twice as fast, but are slow at everything else in
    # that type. The first process decides: hosts may differ, and all must run one program.
    if device.platform == "cpu" and processes.share(str(multiplies_bfloat16())) == "True":
        return "mix"
    return "float32"


def _cudnn_obstacle(config: Config, device: jax.Device) -> str:
    """Why attention cannot run as cuDNN's program, or an empty text."""
    # The fused program writes no scores to memory, which is most of attention's time. These are
    # JAX's own conditions for training (`check_is_flash_attention`) with lengths for a mask.
    if _nvidia_generation(device) < (8, 0):
        return f"{device.device_kind} is not an NVIDIA GPU of compute capability 8.0 or later"
    if config.impl.matmul != "bfloat16":
        return f"it computes in bfloat16, and impl.matmul={config.impl.matmul}"
    width, length = config.model.filled().head_size, config.data.length
    if width % 8 or width > 128:
        return f"heads are {width} wide, which is not a multiple of 8 up to 128"
    if length % 2:
        return f"data.length={length} is odd"
    return ""


def _pallas_obstacle(config: Config, device: jax.Device) -> str:
    """Why attention cannot run as a kernel of `models.tpu_attention`, or an empty text."""
    if device.platform != "tpu":
        return f"{device.device_kind} is not a TPU"
    if config.impl.matmul != "bfloat16":
        return f"it computes in bfloat16, and impl.matmul={config.impl.matmul}"
    if (width := config.model.filled().head_size) % 16:
        return f"heads are {width} wide, which is not a multiple of 16"
    return ""


_FUSED: dict[str, Callable[[Config, jax.Device], str]] = {
    "cudnn": _cudnn_obstacle,
    "pallas": _pallas_obstacle,
}
"""Programs of attention for some devices alone, and why they cannot work, or an empty text."""


def _nvidia_generation(device: jax.Device) -> tuple[int, ...]:
    """The compute capability of an NVIDIA GPU, such as (9, 0); (0,) for other devices."""
    # AMD's have names in its place, such as gfx942.
    found = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(device, "compute_capability", "")))
    return tuple(map(int, found.groups())) if found else (0,)


def chosen(config: Config) -> dict[str, Any]:
    """The field `impl` of result.json: the values of `SETTINGS`."""
    return {"impl": {name: getattr(config.impl, name) for name in SETTINGS}}


def record(config: Config, workdir: Path) -> None:
    """Writes the values of `SETTINGS` into config.json, for a run that is continued elsewhere."""
    path = workdir / "config.json"
    if processes.first() and path.exists():
        stored = read_json(path)
        if stored.get(RESOLVED) != (found := chosen(config)):
            write_json(path, {**stored, RESOLVED: found})


def as_begun(config: Config, *workdirs: Path) -> Config:
    """The config with the values that the run in the first of the workdirs chose for `auto`.

    So a run that continues on another kind of device computes in the same types. impl.remat follows
    the memory at hand, and a fused attention is taken again only where it works.
    """
    stored: dict[str, Any] = {}
    for path in (workdir / "config.json" for workdir in workdirs):
        if processes.first() and not stored and path.exists():
            stored = read_json(path).get(RESOLVED, {}).get("impl", {})
    stored = json.loads(processes.share(json.dumps(stored)))
    kept = {
        name: value
        for name, value in stored.items()
        if name in ("matmul", "layer_loop", "attention")
        and value not in ("auto", *_FUSED)
        and getattr(config.impl, name) == "auto"
    }
    return dataclasses.replace(config, impl=dataclasses.replace(config.impl, **kept))
