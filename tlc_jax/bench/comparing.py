"""Times the statistics of `tlc compare` (bench.task=compare), and measures their peak memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tlc_jax.bench.compressing import peak_memory
from tlc_jax.bench.throughput import timed
from tlc_jax.config import Config
from tlc_jax.core.mesh import Placement
from tlc_jax.core.text import byte_size
from tlc_jax.statistics.breakage import broken_beyond_seeds, over_pretraining_runs
from tlc_jax.statistics.comparison import Runs
from tlc_jax.statistics.instances import (
    decaying_bound,
    fisher_bound,
    instance_difference,
    momentum,
    threshold_bias,
)
from tlc_jax.statistics.variance import self_check, variance_given_bias

_SEEDS, _FINETUNINGS = 10, 5  # of every model of Zhong et al.


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Seconds of each statistic for two models, and the peak memory of all, data included.

    Every model answers `bench.instances` instances, with 10 pretraining seeds and 5 finetuning
    seeds. The bootstrap of the threshold takes 200 samples, as `tlc compare` does. `peak_bytes` is
    None where the kernel does not tell.
    """
    del placement, with_peers
    instances, seconds = config.bench.instances, dict[str, float]()
    rng = np.random.default_rng(config.seed)
    grid = np.linspace(0.0, 1.0, 101)
    with peak_memory() as peak:
        base_N = rng.beta(2.0, 0.6, instances)
        small, middle, large = (
            _family(rng, f"{power:g}", base_N**power) for power in (1, 0.8, 0.6)
        )
        correct, ensembles = (small.correct, large.correct), (small.ensembles, large.ensembles)
        work: dict[str, Callable[[], object]] = {
            "instance difference": lambda: instance_difference(*correct),
            "bound, of ensembles and of runs": lambda: (
                decaying_bound(*ensembles),
                decaying_bound(*correct),
            ),
            "bias of the threshold": lambda: threshold_bias(*ensembles, rng),
            "Fisher + Benjamini-Hochberg": lambda: fisher_bound(*ensembles),
            "broken beyond seeds": lambda: over_pretraining_runs(broken_beyond_seeds(*correct)),
            "decomposition of a model": lambda: small.decomposition,
            "its identities": lambda: self_check(small.correct, small.decomposition),
            "its variance given bias": lambda: variance_given_bias(small.decomposition, 1, grid),
            "momentum of three models": lambda: momentum(
                small.correct, middle.correct, large.correct
            ),
        }
        for name, run in work.items():
            with timed(seconds, name):
                run()
    found = {
        "instances": instances,
        "runs": _SEEDS * _FINETUNINGS,
        "statistics": seconds,
        "seconds": sum(seconds.values()),
        "peak_bytes": peak[0] if peak else None,
    }
    return {"comparison": found}


def _family(rng: np.random.Generator, name: str, accuracy_N: np.ndarray) -> Runs:
    shape = (len(accuracy_N), _SEEDS, _FINETUNINGS)
    correct = np.empty(shape, bool)
    for p in range(_SEEDS):  # all random numbers at once would take more than the statistics
        correct[:, p] = rng.random((len(accuracy_N), _FINETUNINGS)) < accuracy_N[:, None]
    return Runs(name, correct, correct.sum(2) * 2 > _FINETUNINGS)


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["comparison"]
    rows = {**found["statistics"], "all": found["seconds"]}
    width, peak = max(map(len, rows)), found["peak_bytes"]
    return [
        f"data              {found['instances']:,} instances x {found['runs']} runs, random",
        *(f"{name:{width}}  {seconds:8.2f} s" for name, seconds in rows.items()),
        f"peak memory       {'unknown' if peak is None else byte_size(peak)}",
    ]
