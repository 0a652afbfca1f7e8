"""Learning curves: the value at some cost, and the cost of reaching some value."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlc_jax.statistics.effects import ByInstance, Sample
from tlc_jax.statistics.frontier import Summary, group, summarize
from tlc_jax.statistics.kinds import Size

LOSS_MARGIN = 0.01  # nats: about one percent of perplexity, the least that is worth speaking of
_FEWEST_PARTS = 20  # of the validation text
_ALIKE = 1.1  # ratio of costs up to which runs end alike


@dataclasses.dataclass(frozen=True)
class Curve:
    """The evaluations of one training run.

    Attributes:
      size, seed, job: the model's size, its seed, the name of the training job.
      steps, seconds: [N] optimizer steps and training seconds of each evaluation.
      losses: [N] validation losses in nats.
      result: the job's result.json.
      vocab_size: size of the vocabulary; 0 where unknown.
      approx_bleus: [N] from 0 to 1; empty for encoders and runs that did not measure it.
    """

    size: Size
    seed: int
    job: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    result: Mapping[str, Any]
    vocab_size: int
    approx_bleus: tuple[float, ...] = ()

    @property
    def flops(self) -> tuple[float, ...]:
        """[N] training FLOPs of each evaluation; empty for runs that do not report theirs."""
        total, steps = self.result.get("flops"), self.result.get("steps")
        return tuple(step * total / steps for step in self.steps) if total and steps else ()


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity measured during training.

    Attributes:
      field: attribute of `Curve`.
      name: its name in metrics.jsonl.
      better: 1 where larger is better, -1 where smaller is.
      unit: text after a value.
    """

    field: str
    name: str
    better: int
    unit: str


LOSS = Quantity("losses", "valid_loss", -1, " nats")
APPROX_BLEU = Quantity("approx_bleus", "approx_bleu", 1, "")


def by_size(curves: Sequence[Curve]) -> dict[Size, list[Curve]]:
    """Groups curves by size, the smallest size first."""
    return group(sorted(curves, key=lambda curve: curve.size), lambda curve: curve.size)


def measured(curves: Sequence[Curve]) -> list[Quantity]:
    """Returns the quantities that every curve has; none without curves."""
    quantities = [LOSS, APPROX_BLEU] if curves else []
    return [of for of in quantities if all(getattr(curve, of.field) for curve in curves)]


def shared_end(curves: Sequence[Curve], axis: str) -> float:
    """Returns the largest cost that every curve reached; `axis` is a cost of `Curve`."""
    return float(min(getattr(curve, axis)[-1] for curve in curves))


def alike(curves: Sequence[Curve], axis: str) -> bool:
    """Whether all runs end at about the same cost, so that all have decayed when the first ends."""
    ends = [getattr(curve, axis)[-1] for curve in curves]
    return max(ends) <= _ALIKE * min(ends)


def shared_costs(curves: Sequence[Curve], axis: str) -> list[float]:
    """Returns the costs of the evaluations that lie where every curve has values."""
    end = shared_end(curves, axis)
    # A run may have a single evaluation, after the end of another one: then that end is all.
    start = min(end, max(getattr(curve, axis)[0] for curve in curves))
    costs = {float(cost) for curve in curves for cost in getattr(curve, axis)}
    return sorted(cost for cost in costs if start <= cost <= end)


def values_at(curves: Sequence[Curve], axis: str, cost: float, of: Quantity = LOSS) -> list[float]:
    """Interpolates each curve at a cost, linearly in the logarithm of the cost."""
    return [
        float(np.interp(math.log(cost), np.log(getattr(curve, axis)), getattr(curve, of.field)))
        for curve in curves
    ]


def mean_curve(
    curves: Sequence[Curve], axis: str, of: Quantity = LOSS
) -> tuple[list[float], list[Summary]]:
    """Returns the costs that all curves share, and the quantity over the curves at each."""
    costs = shared_costs(curves, axis)
    return costs, [summarize(values_at(curves, axis, cost, of)) for cost in costs]


def loss_sample(curves: Sequence[Curve], values: Sequence[float], better: int = 1) -> Sample:
    """Losses of independent runs of one size, with what is known by part of the validation text.

    Parts are of the final loss, which stands for losses of the same runs a little earlier. With
    fewer than 20 parts nothing is said about other text, because their spread would not be known.

    Args:
      curves: of one size.
      values: one loss per curve, such as those at a shared cost.
      better: sign that turns losses around where larger values have to be better.
    """
    signed = [better * value for value in values]
    tables = [np.array(curve.result.get("valid_loss_parts") or ()) for curve in curves]
    first = tables[0]
    if len(first) < _FEWEST_PARTS or any(
        table.shape != first.shape or not np.array_equal(table[:, 1], first[:, 1])
        for table in tables
    ):
        return Sample(signed)
    weights_N = first[:, 1]
    losses_RxN = np.stack([table[:, 0] for table in tables])
    means_Rx1 = np.average(losses_RxN, axis=1, weights=weights_N)[:, None]
    # The mean is one of tokens, so a part deviates by as much as it has tokens (ratio estimator).
    parts_RxN = means_Rx1 + (losses_RxN - means_Rx1) * weights_N / weights_N.mean()
    # Equal numbers of predicted tokens everywhere tell the same text under the same masks.
    return Sample(signed, ByInstance(weights_N, better * parts_RxN))


def mean_at(curves: Sequence[Curve], axis: str, cost: float) -> float:
    """Returns the mean validation loss of the curves at a cost."""
    return statistics.fmean(values_at(curves, axis, cost))


def reaching(curves: Sequence[Curve], axis: str, goal: float, of: Quantity = LOSS) -> float | None:
    """Returns the mean cost of reaching a goal; None where a curve never reaches it."""
    costs = []
    for curve in curves:
        values = of.better * np.array(getattr(curve, of.field))
        good = np.flatnonzero(values >= of.better * goal)
        if not good.size:
            return None
        # Between the last evaluation that was worse, where there is one, and the first as good.
        around = slice(max(0, good[0] - 1), good[0] + 1)
        costs.append(np.interp(of.better * goal, values[around], getattr(curve, axis)[around]))
    return statistics.fmean(costs)
