"""Training curves: read from a job's files, and asked what was reached at some cost and what reaching it cost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlc_jax.statistics.frontier import summarise
from tlc_jax.statistics.kinds import Kind, Shape, Size
from tlc_jax.statistics.uncertainty import LOSS_MARGIN, SCORE_MARGIN


@dataclasses.dataclass(frozen=True)
class Curve:
    """What one training run reached, by steps and by training seconds."""

    size: Size
    seed: int
    job: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]  # validation loss in nats
    result: Mapping[str, Any]
    vocab_size: int  # 0: not known
    approx_bleus: tuple[float, ...] = ()  # 0 to 1; none: encoders, and runs that did not measure it


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is measured again and again during training."""

    field: str  # of `Curve`
    name: str  # in metrics.jsonl
    better: int  # 1: the larger the better, -1: the smaller
    margin: float  # up to which a difference is never clear
    unit: str


LOSS = Quantity("losses", "valid_loss", -1, LOSS_MARGIN, " nats")
APPROX_BLEU = Quantity("approx_bleus", "approx_bleu", 1, SCORE_MARGIN, "")


def measured(curves: Sequence[Curve]) -> list[Quantity]:
    """The quantities that every curve has; none without curves."""
    return [
        of
        for of in (LOSS, APPROX_BLEU)
        if curves and all(getattr(curve, of.field) for curve in curves)
    ]


def shared_end(curves: Sequence[Curve], axis: str) -> float:
    """The largest cost that every curve reached (its last evaluation)."""
    return float(min(getattr(curve, axis)[-1] for curve in curves))


def values_at(curves: Sequence[Curve], axis: str, cost: float, of: Quantity = LOSS) -> list[float]:
    """The value of each curve at a cost, interpolated linearly in the logarithm of the cost."""
    return [interpolate(getattr(curve, axis), getattr(curve, of.field), cost) for curve in curves]


def reaching(curves: Sequence[Curve], axis: str, goal: float, of: Quantity = LOSS) -> float | None:
    """The mean cost at which the curves are first as good as a goal; None where one of them never is."""
    costs = []
    for curve in curves:
        axis_values, values = getattr(curve, axis), getattr(curve, of.field)
        place = next(
            (place for place, value in enumerate(values) if of.better * (value - goal) >= 0), None
        )
        if place is None:
            return None
        if place == 0:
            costs.append(float(axis_values[0]))
            continue
        before, after = values[place - 1], values[place]
        share = (before - goal) / (before - after)
        costs.append(axis_values[place - 1] + share * (axis_values[place] - axis_values[place - 1]))
    return summarise(costs).mean


def interpolate(costs: Sequence[float], values: Sequence[float], cost: float) -> float:
    """The value at a cost, linear in the logarithm of the cost between the points and constant outside them."""
    return float(np.interp(math.log(cost), np.log(costs), values))


def read_curve(
    kind: Kind,
    folder: Path,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    sizes: Mapping[Shape, Size],
) -> Curve | None:
    """The curve of a finished training job; None where it left no usable evaluation."""
    model = config.get("model", {})
    shape = int(model.get("layers", 0)), int(model.get("hidden", 0)), kind
    evaluations = [
        row for row in _read_metrics(folder / "metrics.jsonl") if row.get("event") == "eval"
    ]
    # The last evaluation, on everything, is in the result. It takes the place of one on a part at the same step.
    evaluations.append({"step": result.get("steps"), **result})
    points: list[tuple[int, float, float, Any]] = []
    for row in evaluations:
        if not all(finite(row.get(field)) for field in ("step", "train_seconds", "valid_loss")):
            continue
        while (
            points and points[-1][0] >= row["step"]
        ):  # a resumed run writes the steps since its checkpoint again
            points.pop()
        at = int(row["step"]), float(row["train_seconds"])
        points.append((*at, float(row["valid_loss"]), row.get("approx_bleu")))
    points = [point for point in points if point[0] > 0 and point[1] > 0]  # axes are logarithmic
    if not points:
        return None
    size = sizes.get(shape) or Size(int(result.get("params", 0)), *shape)
    steps, seconds, losses, bleus = zip(*points, strict=True)
    bleus = bleus if all(map(finite, bleus)) else ()
    vocab = result.get("vocab_size") or config.get("tokenizer", {}).get("vocab_size") or 0
    return Curve(
        size,
        int(config.get("seed", 0)),
        folder.name,
        steps,
        seconds,
        losses,
        result,
        int(vocab),
        bleus,
    )


def _read_metrics(path: Path) -> list[Mapping[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # torn by a kill; the resumed run wrote the row again
    return rows


def finite(value: Any) -> bool:
    """Whether this is a number that can be computed with."""
    return isinstance(value, (int, float)) and math.isfinite(value)
