"""The critical batch size, from the steps that runs of several batch sizes take to reach one loss.

McCandlish et al. (2018) find (S / S_min - 1) (E / E_min - 1) = 1 for S steps and E = B S units of
data at batch size B, which is S = S_min (1 + B_crit / B) with B_crit = E_min / S_min. At B_crit a
run takes twice the fewest steps and twice the least data. The gradient noise scale
(`training.noise_scale`) estimates B_crit within one run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tlc_jax.core.errors import InputError

_FEWEST_SIZES = 3  # two say nothing about whether the law holds
_BEYOND = 100.0  # factor outside the range of the batch sizes where B_crit is still looked for
_GRID = 501


@dataclasses.dataclass(frozen=True)
class CriticalBatchSize:
    """The fitted law.

    Attributes:
      critical: B_crit in the unit of the batch sizes; 0 or infinite where it lies a hundred times
        or more outside of them: then more data a step saves no steps, or all of them.
      steps: S_min, the steps that the largest batches take.
      units: E_min, the data that the smallest batches take, in the unit of the batch sizes.
      interval: 95 % interval of B_crit over seeds; None with one run for each batch size.
    """

    critical: float
    steps: float
    units: float
    interval: tuple[float, float] | None


def critical_batch_size(
    steps: Mapping[int, Sequence[float]], rng: np.random.Generator, draws: int = 1000
) -> CriticalBatchSize:
    """Fits the law to runs.

    Residuals are those of log S, by their absolute values, so that one run that went wrong moves
    the fit little. The interval is a percentile bootstrap that draws runs of each batch size with
    replacement; with two or three seeds it is too narrow.

    Args:
      steps: by batch size, the steps that each of its runs took to reach the loss.
      rng: random generator of the bootstrap.
      draws: number of bootstrap samples.

    Raises:
      InputError: there are fewer than three batch sizes, one without runs, or numbers that are not
        positive.
    """
    if len(steps) < _FEWEST_SIZES:
        raise InputError(
            f"a critical batch size takes runs of at least {_FEWEST_SIZES} batch sizes, "
            f"and there are {len(steps)}: add some"
        )
    if not all(runs and size > 0 and min(runs) > 0 for size, runs in steps.items()):
        raise InputError("each batch size needs runs, and sizes and steps must be above 0")
    sizes_R = np.repeat([float(size) for size in steps], [len(runs) for runs in steps.values()])
    logs = [np.log(np.asarray(runs, np.float64)) for runs in steps.values()]
    critical, fewest = _fit(sizes_R, np.concatenate(logs))
    interval = None
    if max(map(len, logs)) > 1:
        found = [
            _fit(sizes_R, np.concatenate([rng.choice(runs, len(runs)) for runs in logs]))[0]
            for _ in range(draws)
        ]
        # By order, because some of them may be infinite.
        low, high = np.quantile(found, [0.025, 0.975], method="nearest")
        interval = float(low), float(high)
    units = critical * fewest
    if math.isinf(critical):
        units = float(np.exp(np.median(np.concatenate(logs) + np.log(sizes_R))))
    return CriticalBatchSize(critical, fewest, units, interval)


def _fit(sizes_R: np.ndarray, logs_R: np.ndarray) -> tuple[float, float]:
    """B_crit and S_min with the least sum of absolute residuals of log steps over R runs."""
    low, high = math.log(sizes_R.min() / _BEYOND), math.log(sizes_R.max() * _BEYOND)
    edges = low, high
    for _ in range(3):  # each grid lies around the best point of the one before
        grid_G = np.linspace(low, high, _GRID)
        rest_GxR = logs_R - np.log1p(np.exp(grid_G)[:, None] / sizes_R)
        level_G = np.median(rest_GxR, axis=1)  # log S_min, the best for this B_crit
        best = int(np.argmin(np.abs(rest_GxR - level_G[:, None]).sum(axis=1)))
        low, high = grid_G[max(0, best - 1)], grid_G[min(_GRID - 1, best + 1)]
    if (place := grid_G[best]) in edges:
        return (0.0, math.exp(level_G[best])) if place == edges[0] else (math.inf, 0.0)
    return math.exp(place), math.exp(level_G[best])
