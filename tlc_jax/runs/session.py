"""What every stage does first and last: devices, placement, the workdir, results that are already there."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from tlc_jax.config import Config, Model, to_dict
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import read_json, write_json
from tlc_jax.core.host_memory import keep_freed_memory
from tlc_jax.core.mesh import Placement, describe_parameters
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params
from tlc_jax.runs.workdir import claim
from tlc_jax.training.optimizer import treatment


def run_once(
    workdir: Path, config: Config, work: Callable[[], dict[str, Any]], trains: bool = True
) -> dict[str, Any]:
    """Claims the workdir, does the work unless its result is there, and writes `result.json`.

    In a run of several processes the first claims and writes for all. What `trains` keeps memory that it frees.

    Raises:
      InputError: the workdir is in use or holds a run of another config; or the processes differ in their settings or
        in what they see of the workdir.
    """
    set_up(config, trains)
    with contextlib.ExitStack() as stack:
        error: InputError | None = None
        if processes.first():
            try:
                stack.enter_context(claim(workdir, config))
            except InputError as wrong:
                error = wrong
        processes.agree_on_error(error)
        if processes.several():
            _compare(workdir, config)
        path = workdir / "result.json"
        if processes.share(str(path.exists())) == "True":
            say(f"already done: {path}")
            return cast(dict[str, Any], read_json(path))
        result = work()
        if processes.first():
            write_json(path, result)
        processes.barrier()
        return result


def _compare(workdir: Path, config: Config) -> None:
    """Refuses processes that do not share one workdir and one config."""
    one = dataclasses.replace(config, impl=dataclasses.replace(config.impl, processes=""))
    mine = hashlib.sha256(json.dumps(to_dict(one), sort_keys=True, default=list).encode()).digest()
    hashes = processes.gather(np.frombuffer(mine, np.uint8))
    if (hashes != hashes[0]).any():
        raise InputError(
            "the processes of this run were started with different settings: give all the same command",
            by_all=True,
        )
    seen = processes.gather(np.array([(workdir / "config.json").exists()]))
    if not seen.all():
        blind = ", ".join(map(str, np.flatnonzero(~seen[:, 0])))
        raise InputError(
            f"--workdir={workdir} is not the same place for all processes (not for {blind}): "
            "put it on storage that all hosts share",
            by_all=True,
        )


def set_up(config: Config, trains: bool = True) -> None:
    """Sets up JAX as `impl` says, and finds the other processes of the run. Touches no device in a run of one."""
    logging.basicConfig(format="tlc: %(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every save there
    if trains and not _may_have_accelerator():
        keep_freed_memory()
    if config.impl.compilation_cache:
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(config.impl.compilation_cache).expanduser())
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    processes.connect(config.impl.processes)


def open_devices(config: Config, trains: bool = True) -> Placement:
    """The mesh of all devices; the first call that touches them in a run of one process."""
    set_up(config, trains)
    return Placement.parse(config.impl.mesh, config.impl.sharding)


def _may_have_accelerator() -> bool:
    """Whether JAX could find a device other than the CPU; asking JAX itself would start its threads."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(
        find_spec(plugin)
        for plugin in ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    )


def peak(config: Config) -> float | None:
    """FLOP/s that all devices together could reach; None where their kind is unknown."""
    one = flops.peak_flops(jax.devices()[0].device_kind, config.impl.matmul)
    return None if one is None else one * jax.device_count()


def keep_tokenizer(tokenizer: Tokenizer, workdir: Path) -> None:
    """A run carries its tokenizer, so that it can be moved and read anywhere."""
    path = workdir / tokenizer.file_name
    if processes.first() and not path.exists():
        tokenizer.save(path)


def check_special_ids(model: Model, tokenizer: Tokenizer) -> None:
    """Refuses ids in the settings of a new model that are not its tokenizer's."""
    ids = {"padding": tokenizer.special.padding}
    if model.token_types:
        ids["separator"] = tokenizer.special.end
    for name, id in ids.items():
        if getattr(model, name) != id:
            raise InputError(
                f"model.{name}={getattr(model, name)}, but the tokenizer's is {id}: set model.{name}={id}"
            )


def write_parameter_table(
    config: Config, params: Params, placement: Placement, workdir: Path
) -> None:
    """parameters.txt: each parameter's shape, where it lies, and what the optimizer does to it."""
    columns = {**placement.columns(params), **treatment(config.optimizer, params)}
    if not processes.first():
        return
    (workdir / "parameters.txt").write_text(
        describe_parameters(params, **columns), encoding="utf-8"
    )


def model_meta(
    kind: str, config: Config, tokenizer: Tokenizer, labels: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What checkpoints and artifacts say about the model they hold."""
    return {
        "kind": kind,
        "model": to_dict(config.model),
        "length": config.data.length,
        "labels": list(labels),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_hash": tokenizer.hash,
    }


def provenance() -> dict[str, Any]:
    """The device and the versions behind a result."""
    from importlib.metadata import version

    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "machine": _machine(),
        "versions": {
            name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "aqtp")
        },
        "python": sys.version.split()[0],
        "command": " ".join(["tlc", *sys.argv[1:]]),
    }


def _machine() -> str:
    """The processor's name and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}"


def say(text: str) -> None:
    """A line for the person at the terminal, said by the first process; results go to standard output and files."""
    if processes.first():
        print(text, file=sys.stderr, flush=True)


def discard(path: Path) -> None:
    """Removes a directory left by an earlier attempt."""
    if processes.first():
        shutil.rmtree(path, ignore_errors=True)


def adopt_model(config: Config, model: Any, path: Path) -> Config:
    """The config with the architecture of a saved model; dropout stays the config's own.

    Raises:
      InputError: data.length is beyond the saved model's positions.
    """
    if config.data.length > model.max_length:
        raise InputError(
            f"data.length={config.data.length} is beyond the {model.max_length} positions of {path}: "
            f"set --config.data.length={model.max_length} or less"
        )
    return dataclasses.replace(
        config, model=dataclasses.replace(model, dropout=config.model.dropout)
    )


def size_numbers(network: Network) -> dict[str, Any]:
    """The columns that identify a model's size."""
    params, nonembedding = network.parameter_counts()
    return {
        "layers": network.model.layers,
        "hidden": network.model.hidden,
        "params": params,
        "params_nonembedding": nonembedding,
    }
