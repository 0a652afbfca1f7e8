"""Times compression (bench.task=compress) by operation, and measures its peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlc_jax.bench.throughput import timed
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import load_artifact, save_artifact
from tlc_jax.compression.recipe import Recipe, format_recipe, parse_recipe
from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.models.network import masked_language_model
from tlc_jax.training.checkpoint import read_params, save_params


def check(config: Config) -> None:
    """Refuses a recipe that does more than prune and quantize.

    Raises:
      InputError: how to mend it.
    """
    recipe = parse_recipe(config.recipe)
    # Removal and recovery need a training run, and this model has no data.
    if recipe.removes or recipe.finetunes or not recipe.operations:
        raise InputError(
            f"recipe={config.recipe}: bench times prune and quantize, such as prune:0.6+quantize:4"
        )


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Seconds of each operation alone, and of the way from a checkpoint to an artifact and back.

    The weights are random. `peak_over_params` is the peak memory of the process above what it held
    before, in multiples of the parameters' bytes; None where the kernel does not tell.
    """
    del placement, with_peers
    network = masked_language_model(config.model, config.tokenizer.vocab_size, config.impl)
    abstract, recipe = network.abstract(), parse_recipe(config.recipe)
    params_count, _ = network.parameter_counts()
    random = np.random.default_rng(0)
    operations: dict[str, float] = {}
    path: dict[str, float] = {}

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return 0.02 * random.standard_normal(leaf.shape, np.float32)

    with tempfile.TemporaryDirectory() as name:
        folder, artifact = Path(name), Path(name) / "model.safetensors"
        save_params(folder, 0, jax.tree.map(draw, abstract), {})
        # The steps of `tlc compress`, with as few copies of the parameters alive at once.
        with peak_memory() as peak:
            with timed(path, "read the checkpoint"):
                params = read_params(folder, 0, abstract)
            with timed(path, "compress"):
                model = compress_params(params, recipe, consume=True)
            with timed(path, "write the artifact"):
                save_artifact(artifact, model, {})
            del model
            with timed(path, "read the artifact"):
                params = jax.tree.map(jnp.asarray, load_artifact(artifact).params)
            with timed(path, "write the checkpoint"):
                save_params(folder / "compressed", 0, params, {})
        params = read_params(folder, 0, abstract)
        for operation in recipe.operations:
            alone = Recipe((operation,))
            with timed(operations, format_recipe(alone)):
                compress_params(params, alone)
    found = {
        "params": params_count,
        "recipe": config.recipe,
        "operations": operations,
        "path": path,
        "seconds": sum(path.values()),
        "peak_over_params": peak[0] / (4 * params_count) if peak else None,
    }
    return {"compression": found}


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yields a list that gets the peak resident memory of the with-block above that at its start.

    In bytes. The list stays empty where the kernel does not tell.
    """
    found: list[int] = []
    gc.collect()
    try:
        # Memory that is free but not returned to the kernel would count as held before.
        ctypes.CDLL(None).malloc_trim(0)
        # Writing 5 sets the kernel's record of the peak, VmHWM, to the memory held now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_bytes("VmRSS")
    except (OSError, AttributeError):
        yield found
        return
    yield found
    found.append(_resident_bytes("VmHWM") - before)


def _resident_bytes(name: str) -> int:
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["compression"]
    rows = {f"{name} alone": seconds for name, seconds in found["operations"].items()}
    rows |= {**found["path"], "checkpoint to artifact to checkpoint": found["seconds"]}
    width, peak = max(map(len, rows)), found["peak_over_params"]
    return [
        f"model             {found['params']:,} parameters, random",
        *(f"{name:{width}}  {seconds:8.2f} s" for name, seconds in rows.items()),
        f"peak memory       {'unknown' if peak is None else f'{peak:.2f} x the parameters'}",
    ]
