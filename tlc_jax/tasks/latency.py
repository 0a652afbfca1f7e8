"""Forward-pass latency of a saved encoder on one device of this machine (`eval.latency`)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.data.tokenizer import FIRST_ORDINARY
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import task_of

_WARM_UP = 3
_LEAST_CALLS = 20
_LEAST_SECONDS = 2.0
COMPUTES = {
    "float32": "float32, dense",
    "mix": "bfloat16 products with float32 sums, dense",
    "bfloat16": "bfloat16, dense",
}
"""Description of a forward pass, by impl.matmul. A compressed model takes the time of the dense
one, because pruned weights are multiplied as zeros, and quantized ones as the values they stand
for. Only smaller matrices take less."""


def of_model(config: Config, start: SavedModel) -> dict[str, Any]:
    """The numbers of `measure` for a saved model at data.length; empty if eval.latency is empty.

    In a run of several processes the first one measures, on one of its devices.
    """
    if not config.eval.latency:
        return {}
    network, length, task = start.network(config.impl), config.data.length, task_of(start.kind)
    rng, inputs = np.random.default_rng(0), {}
    for size in config.eval.latency:
        tokens_BxL = rng.integers(FIRST_ORDINARY, network.vocab_size, (size, length), np.int32)
        inputs[size] = task.forward_inputs(config, tokens_BxL)
    if not all(inputs.values()):
        session.say(
            "eval.latency is for encoders: `tlc bench --config.bench.task=decode` times translators"
        )
        return {}
    return measure(network, start.params, inputs) if processes.first() else {}


def measure(
    network: Network,
    params: Params,
    inputs: Mapping[int, tuple[np.ndarray, ...]],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Times the compiled forward pass of an encoder on inputs that lie on the device already.

    Args:
      network: the model.
      params: its parameters.
      inputs: by batch size, the arguments of `network.apply`, tokens [batch size, length] first.
      clock: seconds.

    Returns:
      `latency`: the length, what is computed, and the numbers of `summary` of each batch size; and
      the medians again as `latency_ms_SIZE`.
    """
    device = jax.local_devices()[0]
    params = jax.device_put(params, device)
    found = []
    for batch_size, arguments in inputs.items():
        placed = (params, *jax.device_put(arguments, device))
        compiled = jax.jit(network.apply).lower(*placed).compile()

        def call(compiled: Any = compiled, placed: tuple[Any, ...] = placed) -> Any:
            # JAX dispatches asynchronously: without waiting only the dispatch would be timed.
            return jax.block_until_ready(compiled(*placed))

        found.append(summary(batch_size, time_calls(call, clock)))
    latency = {
        "length": next(iter(inputs.values()))[0].shape[1],
        "computes": COMPUTES[network.shape.matmul],
        "device": device.device_kind,
        "batches": found,
    }
    medians = {f"latency_ms_{one['batch_size']}": one["median_ms"] for one in found}
    return {"latency": latency, **medians}


def summary(batch_size: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Statistics of the seconds of at least two calls.

    Returns:
      `median_ms`, `least_ms`, `quartiles_ms` (the first and the third), the number of `calls`, and
      `sequences_per_second` at the median.
    """
    first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "batch_size": batch_size,
        "median_ms": 1e3 * median,
        "quartiles_ms": (1e3 * first, 1e3 * third),
        "least_ms": 1e3 * min(seconds),
        "sequences_per_second": batch_size / median,
        "calls": len(seconds),
    }


def time_calls(
    call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds per call, after warm-up: at least 20 calls and at least 2 seconds of them."""
    # The first calls are slower: allocators grow, and caches fill.
    for _ in range(_WARM_UP):
        call()
    seconds: list[float] = []
    begun = clock()
    while len(seconds) < _LEAST_CALLS or clock() - begun < _LEAST_SECONDS:
        started = clock()
        call()
        seconds.append(clock() - started)
    return seconds
