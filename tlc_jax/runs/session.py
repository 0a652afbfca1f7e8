"""The first and last steps of every command: devices, the workdir, and results that exist."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import jax
from jax.experimental.compilation_cache import compilation_cache as persistent_cache

from tlc_jax.config import Config, Model, to_dict
from tlc_jax.core import distributed as processes
from tlc_jax.core import plugins
from tlc_jax.core.devices import keep_freed_memory, machine, peak_flops
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, read_json, write_json
from tlc_jax.core.mesh import Placement
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Network
from tlc_jax.runs import auto
from tlc_jax.runs.workdir import claim

_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")


PROGRAMS = "compilations/programs"
"""Where a workdir keeps compiled programs: those of its run, its study, and `tlc plan`."""


def run_once(
    workdir: Path, config: Config, work: Callable[[Config], dict[str, Any]], trains: bool = True
) -> dict[str, Any]:
    """Claims the workdir, does the work unless its result is there, and writes `result.json`.

    Args:
      workdir: folder of the run; in a run of several processes the first one claims and writes.
      config: resolved config of the run.
      work: config -> the content of `result.json`, without `provenance`. Where the config has
        `auto`, it gets what an earlier start of the run chose.
      trains: whether the work trains; see `set_up`.

    Returns:
      The content of `result.json`.

    Raises:
      InputError: the workdir is in use or holds a run of another config; or the processes differ in
        their settings or in what they find in the workdir.
    """
    set_up(config, trains, workdir)
    with contextlib.ExitStack() as stack:
        error: InputError | None = None
        if processes.first():
            try:
                stack.enter_context(claim(workdir, config))
            except InputError as wrong:
                error = wrong
        # All processes raise it together: the others would wait for the first one forever.
        processes.agree_on_error(error)
        if processes.several():
            _compare(workdir, config)
        path = workdir / "result.json"
        # Process 0 decides for all: on network storage the others may find the file later.
        if processes.share(str(path.exists())) == "True":
            say(f"already done: {path}")
            return cast(dict[str, Any], read_json(path))
        result = {**work(auto.as_begun(config, workdir)), **provenance()}
        if processes.first():
            write_json(path, result)
        processes.barrier()
        return result


def _compare(workdir: Path, config: Config) -> None:
    """Refuses processes that do not share one workdir and one config."""
    settings = to_dict(config)
    # impl.processes names the process itself, so every process has another one.
    del settings["impl"]["processes"]
    text = json.dumps(settings, sort_keys=True, default=list)
    if len(set(processes.gather_texts(hashlib.sha256(text.encode()).hexdigest()))) > 1:
        raise InputError(
            "the processes of this run were started with different settings: "
            "give all the same command",
            by_all=True,
        )
    found = processes.gather_texts(str((workdir / "config.json").exists()))
    if blind := ", ".join(str(i) for i, text in enumerate(found) if text == "False"):
        raise InputError(
            f"--workdir={workdir} is not the same place for all processes (not for {blind}): "
            "put it on storage that all hosts share",
            by_all=True,
        )


def set_up(config: Config, trains: bool = True, workdir: Path | None = None) -> None:
    """Sets up JAX as `impl` says and connects to the other processes of the run.

    Args:
      config: resolved config of the run.
      trains: whether to keep, on CPUs, memory that a training step frees for the next step.
      workdir: folder of the run or the study, for impl.compilation_cache=auto; None: no folder.
    """
    logging.basicConfig(format="tlc: %(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every save there
    # Asking JAX for its devices would start its threads, and memory has to be set up before them.
    only_cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
    if trains and (only_cpu or not any(map(find_spec, _ACCELERATORS))):
        keep_freed_memory()
    cache = config.impl.compilation_cache
    if cache == "auto":
        # What the environment or the study of this run has set stays.
        known = jax.config.values["jax_compilation_cache_dir"]
        cache = known or (str(workdir / PROGRAMS) if workdir else "")
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(path_of(cache)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    processes.connect(config.impl.processes)


@contextlib.contextmanager
def compilation_cache(folder: Path) -> Iterator[None]:
    """Makes JAX keep compiled programs in a folder during the with-block."""
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # JAX opens its folder once: without a reset it would keep the one that it has.
        persistent_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        persistent_cache.reset_cache()


def open_devices(config: Config, trains: bool = True) -> tuple[Config, Placement]:
    """Sets up JAX, opens all devices as a mesh, and chooses settings by them: `auto.for_device`."""
    set_up(config, trains)
    placement = Placement.parse(config.impl.mesh, config.impl.sharding)
    return auto.for_device(config, placement.mesh.devices.flat[0]), placement


def peak(config: Config) -> float | None:
    """Peak rate of all devices together in FLOP/s; None where their kind is unknown."""
    one = peak_flops(jax.devices()[0].device_kind, config.impl.matmul)
    return None if one is None else one * jax.device_count()


def keep_tokenizer(tokenizer: Tokenizer, workdir: Path) -> None:
    """Saves the tokenizer in the workdir, so that the run can be moved and read anywhere."""
    path = workdir / tokenizer.file_name
    if processes.first() and not path.exists():
        tokenizer.save(path)


def check_special_ids(model: Model, tokenizer: Tokenizer) -> None:
    """Refuses settings of a new model that disagree with the special ids of its tokenizer."""
    ids = {"padding": tokenizer.special.padding}
    if model.token_types:
        ids["separator"] = tokenizer.special.end
    for name, id in ids.items():
        if (given := getattr(model, name)) != id:
            raise InputError(
                f"model.{name}={given}, but the tokenizer's is {id}: set model.{name}={id}"
            )


def model_meta(
    kind: str, config: Config, tokenizer: Tokenizer, labels: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The description of a model that its checkpoints and artifacts carry."""
    return {
        "kind": kind,
        "model": to_dict(config.model),
        "length": config.data.length,
        "labels": list(labels),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_hash": tokenizer.hash,
    }


def provenance() -> dict[str, Any]:
    """The fields of result.json about device, versions and command."""
    from importlib.metadata import version

    device = jax.devices()[0]
    libraries = ("jax", "flax", "optax", "orbax-checkpoint", "aqtp")
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "machine": machine(),
        "versions": {name: version(name) for name in libraries},
        "plugins": plugins.used(),
        "python": sys.version.split()[0],
        "command": " ".join(["tlc", *sys.argv[1:]]),
    }


def say(text: str) -> None:
    """Prints a line to stderr, from the first process only."""
    # Standard output is for results, which another program may read.
    if processes.first():
        print(text, file=sys.stderr, flush=True)


def adopt_model(config: Config, model: Model, path: Path) -> Config:
    """The config with the architecture of a saved model; dropout stays that of the config.

    Raises:
      InputError: data.length is beyond the saved model's positions.
    """
    if config.data.length > model.max_length:
        raise InputError(
            f"data.length={config.data.length} is beyond the {model.max_length} positions of "
            f"{path}: set --config.data.length={model.max_length} or less"
        )
    adopted = dataclasses.replace(model, dropout=config.model.dropout)
    return dataclasses.replace(config, model=adopted)


def size_numbers(network: Network) -> dict[str, Any]:
    """The fields of result.json that identify a model's size."""
    params, nonembedding = network.parameter_counts()
    model = {"layers": network.model.layers, "hidden": network.model.hidden}
    return {**model, "params": params, "params_nonembedding": nonembedding}
