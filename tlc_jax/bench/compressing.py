"""How long compression takes, operation by operation, and the memory that it needs at its peak."""

from __future__ import annotations

import ctypes
import gc
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import load_artifact, save_artifact
from tlc_jax.compression.recipe import Recipe, format_recipe, parse_recipe
from tlc_jax.config import Config
from tlc_jax.core.params import flatten
from tlc_jax.models.network import masked_language_model
from tlc_jax.training.checkpoint import read_params, save_params

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(config: Config, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Seconds of each operation of `recipe` by itself and of the whole path from a checkpoint to an artifact and back.

    The model has random weights. Peak memory is that of the process above what it held before, in multiples of the
    parameters' bytes; None where the kernel does not say.
    """
    network = masked_language_model(config.model, config.tokenizer.vocab_size, config.impl)
    recipe = parse_recipe(config.recipe)
    with tempfile.TemporaryDirectory() as folder:
        _write_random(Path(folder), network.abstract())
        size = sum(4 * leaf.size for leaf in flatten(network.abstract()).values())
        whole: dict[str, float] = {}
        with _peak() as peak:
            _path(Path(folder), network.abstract(), recipe, whole, clock)
        params = read_params(Path(folder), 0, network.abstract())
        alone = {}
        for operation in recipe.operations:
            started = clock()
            compress_params(params, Recipe((operation,)))
            alone[format_recipe(Recipe((operation,)))] = clock() - started
    return {
        "params": size // 4,
        "recipe": config.recipe,
        "operations": alone,
        "path": whole,
        "seconds": sum(whole.values()),
        "peak_over_params": None if peak[0] is None else peak[0] / size,
    }


def _path(
    folder: Path,
    abstract: Any,
    recipe: Recipe,
    seconds: dict[str, float],
    clock: Callable[[], float],
) -> None:
    """From a checkpoint to an artifact and to the float32 checkpoint of what that holds, as `tlc compress` goes it."""

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = clock()
        yield
        seconds[name] = clock() - started

    with timed("read the checkpoint"):
        params = read_params(folder, 0, abstract)
    with timed("compress"):
        model = compress_params(params, recipe, consume=True)
    with timed("write the artifact"):
        save_artifact(folder / "model.safetensors", model, {})
    del model
    with timed("read the artifact"):
        packed = jax.tree.map(jnp.asarray, load_artifact(folder / "model.safetensors").params)
    with timed("write the checkpoint"):
        save_params(folder / "compressed", 0, packed, {})


def _write_random(folder: Path, abstract: Any) -> None:
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: 0.02 * random.standard_normal(leaf.shape, np.float32), abstract
    )
    save_params(folder, 0, params, {})


@contextmanager
def _peak() -> Iterator[list[int | None]]:
    """The most resident memory in a with-block, above that at its start, in bytes."""
    gc.collect()
    found: list[int | None] = [None]
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or what was freed would count as held before
        _CLEAR.write_text("5")  # the highest so far is forgotten
        before = _resident("VmRSS")
    except (OSError, AttributeError):
        yield found
        return
    yield found
    found[0] = _resident("VmHWM") - before


def _resident(name: str) -> int:
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    return 1024 * int(kilobytes)


def describe(result: dict[str, Any]) -> list[str]:
    """The lines that the stage prints."""
    rows = [(f"{name} alone", seconds) for name, seconds in result["operations"].items()]
    rows += [*result["path"].items(), ("checkpoint to artifact to checkpoint", result["seconds"])]
    width = max(len(name) for name, _ in rows)
    peak = result["peak_over_params"]
    return [
        f"model             {result['params']:,} parameters, random",
        *(f"{name:{width}}  {seconds:8.2f} s" for name, seconds in rows),
        f"peak memory       {'unknown' if peak is None else f'{peak:.2f} x the parameters'}",
    ]
