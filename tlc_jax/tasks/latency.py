"""Forward-pass latency of a saved encoder on one device of this machine (`eval.latency`)."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.data.vocabulary import FIRST_ORDINARY
from tlc_jax.models.network import Network, Params
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.masked_lm import predicted_positions

_WARM_UP = 3  # calls, the first of which compiles
_LEAST_CALLS = 20
_LEAST_SECONDS = 2.0
COMPUTES = {
    "float32": "float32, dense",
    "mix": "bfloat16 products with float32 sums, dense",
    "bfloat16": "bfloat16, dense",
}
"""What a forward pass computes, by impl.matmul. Products here are neither sparse nor low-bit: pruned weights are
multiplied as zeros, quantized ones as the values they stand for, put together once when the model is read. So such a
model takes the time of the dense one, and only a model of smaller matrices takes less."""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds of single calls on batches of one size.

    Attributes:
      batch_size: sequences of a batch.
      median_ms, least_ms: over all calls.
      quartiles_ms: the first and the third.
      sequences_per_second: at the median.
      calls: that were timed.
    """

    batch_size: int
    median_ms: float
    quartiles_ms: tuple[float, float]
    least_ms: float
    sequences_per_second: float
    calls: int

    @staticmethod
    def of(batch_size: int, seconds: Sequence[float]) -> Latency:
        """Sums up the seconds of at least two calls."""
        first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
        return Latency(
            batch_size=batch_size,
            median_ms=1e3 * median,
            quartiles_ms=(1e3 * first, 1e3 * third),
            least_ms=1e3 * min(seconds),
            sequences_per_second=batch_size / median,
            calls=len(seconds),
        )


def measure(
    network: Network,
    params: Params,
    batch_sizes: Sequence[int],
    length: int,
    mask_rate: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Times the compiled forward pass of an encoder: full rows of random tokens that lie on the device already.

    Args:
      network: a classifier, or a masked-language model, whose logits are those of the predicted positions alone.
      params: its parameters.
      batch_sizes: each is compiled and timed by itself.
      length: tokens of every row.
      mask_rate: share of positions that a masked-language model predicts.
      clock: seconds.

    Returns:
      `latency`: the length, what is computed, and the numbers of `Latency` of each batch size; and the medians again as
      `latency_ms_SIZE`.
    """
    device = jax.local_devices()[0]
    params = jax.device_put(params, device)
    found = []
    for batch_size in batch_sizes:
        inputs = jax.device_put(_inputs(network, batch_size, length, mask_rate), device)
        found.append(Latency.of(batch_size, time_calls(_forward(network, params, inputs), clock)))
    return {
        "latency": {
            "length": length,
            "computes": COMPUTES[network.impl.matmul],
            "device": device.device_kind,
            "batches": [dataclasses.asdict(one) for one in found],
        },
        **{f"latency_ms_{one.batch_size}": one.median_ms for one in found},
    }


def time_calls(
    call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of each call after some that are not counted: 20 of them at least, and as many as begin in 2 seconds."""
    for _ in range(_WARM_UP):
        call()
    return list(_timed(call, clock))


def _timed(call: Callable[[], Any], clock: Callable[[], float]) -> Iterator[float]:
    begun = clock()
    for number in itertools.count():
        started = clock()
        if number >= _LEAST_CALLS and started - begun >= _LEAST_SECONDS:
            return
        call()
        yield clock() - started


def _forward(network: Network, params: Params, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """The compiled forward pass, which returns when its result is there."""
    compiled = jax.jit(network.apply).lower(params, *inputs).compile()
    return lambda: jax.block_until_ready(compiled(params, *inputs))


def _inputs(
    network: Network, batch_size: int, length: int, mask_rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the network's forward pass takes: tokens, and the positions to predict or the mask of real tokens."""
    rng = np.random.default_rng(0)
    tokens_BxL = rng.integers(FIRST_ORDINARY, network.vocab_size, (batch_size, length), np.int32)
    if network.kind == "classifier":
        return tokens_BxL, np.ones((batch_size, length), bool)
    positions_K = np.sort(rng.choice(length, predicted_positions(length, mask_rate), replace=False))
    return tokens_BxL, np.tile(positions_K.astype(np.int32), (batch_size, 1))


def of_model(config: Config, start: SavedModel) -> dict[str, Any]:
    """The numbers of `measure` for a saved model at data.length; empty if eval.latency is empty.

    Of several processes the first one measures, on one of its devices.
    """
    if not config.eval.latency:
        return {}
    if start.kind == "translator":
        session.say(
            "eval.latency is for encoders: `tlc bench --config.bench.task=decode` times translators"
        )
        return {}
    if not processes.first():
        return {}
    network = start.network(config.impl)
    return measure(
        network, start.params, config.eval.latency, config.data.length, config.objective.mask_rate
    )


def of_run(config: Config, workdir: Path) -> dict[str, Any]:
    """As `of_model`, for the model of a finished run: its artifact if it has one."""
    if not config.eval.latency:
        return {}
    return of_model(config, saved_model.load(str(workdir), config.impl))
