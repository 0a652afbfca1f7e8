"""The interactive versions of the main figures, as the JSON that templates/explore.js draws.

Axes, ticks and markers are read off the matplotlib figure, so the script formats no numbers and
both versions look alike. A chart has the axes `x` and `y` and a list of series; a series names its
size and recipe (places in `filters`), and each of its points is [x, y, deviation, text].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from tlc_jax.report import style
from tlc_jax.report.labels import count_label, model_label, recipe_labels, recipes_of, size_label
from tlc_jax.statistics.curves import LOSS, Curve, Quantity, by_size, shared_end, values_at
from tlc_jax.statistics.frontier import Summary, summarize
from tlc_jax.statistics.records import Study

Chart = dict[str, Any]
_MOST_POINTS = 80  # of one line: more cannot be told apart, and make the page large


def filters(study: Study) -> dict[str, list[dict[str, str]]]:
    """Sizes and recipes of one kind's part of a study, with label, color and marker."""
    recipes = recipes_of(study.models)
    labels, markers = recipe_labels(recipes), style.recipe_markers(recipes)
    circle = style.marker_outline("o")
    return {
        "size": [
            {"label": size_label(size), "color": color, "marker": circle}
            for size, color in style.size_colors(study.sizes).items()
        ],
        "recipe": [
            {"label": labels[r], "color": style.INK, "marker": style.marker_outline(markers[r])}
            for r in recipes
        ],
    }


def training_curves(study: Study, axis: str, of: Quantity, axes: Axes) -> Chart:
    """The chart of the figure with the same name, whose axes are given."""
    series = []
    for size, curves in by_size(study.curves).items():
        costs, found = mean_curve(curves, axis, of)
        kept = np.unique(np.linspace(0, len(costs) - 1, _MOST_POINTS).astype(int))
        points = []
        for cost, value in ((costs[index], found[index]) for index in kept):
            text = f"{of.name} {value.written('.3f')}{of.unit}"
            if of == LOSS:
                text += f", perplexity {math.exp(value.mean):.4g}"
            at = f"at {cost:,.0f} {axis}" if cost >= 100 else f"at {cost:.3g} {axis}"
            lines = [size_label(size), text, f"{at}, {_seeds(value)}"]
            points.append(_point(cost, value.mean, value.std, lines))
        series.append({"size": study.sizes.index(size), "points": points})
    return {"x": _axis(axes.xaxis), "y": _axis(axes.yaxis), "series": series}


def score_against(study: Study, task: str, cost: str, axes: Axes) -> Chart:
    """The chart of the figure with the same name, whose axes are given."""
    sizes, recipes = study.sizes, recipes_of(study.models)
    labels = recipe_labels(recipes)
    series = []
    for model in (model for model in study.models if model.task == task):
        lines = [
            model_label(model, labels),
            f"{study.kind.score} {model.score.written('.1f', 100)} {study.kind.unit}, "
            f"{_seeds(model.score)}",
            f"{model.megabytes:.3g} MB, {count_label(model.nonzero)} non-zero of "
            f"{count_label(model.size.params)} parameters",
        ]
        score = 100 * model.score.mean, 100 * model.score.std
        series.append(
            {
                "size": sizes.index(model.size),
                "recipe": recipes.index(model.recipe),
                "hollow": not model.pretrained,
                "points": [_point(getattr(model, cost), *score, lines)],
            }
        )
    return {"x": _axis(axes.xaxis), "y": _axis(axes.yaxis), "series": series, "frontier": True}


def mean_curve(
    curves: Sequence[Curve], axis: str, of: Quantity
) -> tuple[list[float], list[Summary]]:
    """Costs that all seeds reached, with mean and deviation of the quantity there."""
    start, end = max(getattr(curve, axis)[0] for curve in curves), shared_end(curves, axis)
    inside = {float(c) for curve in curves for c in getattr(curve, axis) if start <= c <= end}
    costs = sorted(inside or {end})
    return costs, [summarize(values_at(curves, axis, cost, of)) for cost in costs]


def _axis(axis: Axis) -> dict[str, Any]:
    low, high = axis.get_view_interval()
    ticks = [float(tick) for tick in axis.get_majorticklocs() if low <= tick <= high]
    labels = axis.get_major_formatter().format_ticks(ticks)
    return {
        "label": axis.get_label_text(),
        "log": axis.get_scale() == "log",
        "limits": [float(low), float(high)],
        "ticks": list(zip(ticks, labels, strict=True)),
    }


def _point(x: float, y: float, deviation: float, lines: Sequence[str]) -> list[Any]:
    return [*(float(f"{number:.5g}") for number in (x, y, deviation)), "\n".join(lines)]


def _seeds(summary: Summary) -> str:
    return f"{summary.n} seed" + ("" if summary.n == 1 else "s")
