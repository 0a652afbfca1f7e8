"""The figures of `tlc analyze`: error, sensitivity, and compressibility along a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlc_jax.compression.error import Matrix, MatrixError
from tlc_jax.report import style
from tlc_jax.statistics.frontier import group

_MOST_WRITTEN = 24  # layers up to which cells of a heat map carry their numbers


def error_by_module(errors: Sequence[MatrixError], title: str) -> Figure:
    """Box plots over the output rows of all matrices of a kind.

    Boxes are quartiles, whiskers the 5th and 95th percentile.
    """
    kinds = group(errors, lambda error: error.matrix.kind)
    figure, axes = style.new_figure(6.4, 4.2)
    norms = [np.concatenate([error.norms for error in members]) for members in kinds.values()]
    ink = {"color": style.INK}
    boxes = axes.boxplot(
        norms,
        whis=(5, 95),
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        medianprops=ink,
        whiskerprops=ink,
        capprops=ink,
    )
    for box, color in zip(boxes["boxes"], style.colors(list(kinds)).values(), strict=True):
        box.set(facecolor=color, alpha=0.6)
    ends = [np.quantile(values, (0.05, 0.95)) for values in norms]
    for place, (values, (_, top)) in enumerate(zip(norms, ends, strict=True), start=1):
        median = f"{np.median(values):.3g}"
        axes.annotate(median, (place, top), (0, 4), textcoords="offset points", ha="center")
    axes.set_xticks(range(1, len(kinds) + 1), list(kinds))
    # A recipe that leaves most rows of a kind alone makes a quantile 0, which no log axis can show.
    if positive := [float(end) for end in np.ravel(ends) if end > 0]:
        style.log_axis(axes, "y", min(positive), 1.1 * max(positive))
    _describe(
        axes,
        "numbers: medians; boxes: quartiles; whiskers: 5th and 95th percentile",
        "L2 norm of the difference\nof each output row (log)",
        title,
    )
    return figure


def _describe(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title)


def error_by_depth(errors: Sequence[MatrixError], title: str) -> Figure:
    """The median over the output rows of each kind of matrix, by layer."""
    figure, axes = style.new_figure(6.4, 4.2)
    in_layers = [error for error in errors if error.matrix.layer is not None]
    kinds = group(in_layers, lambda error: error.matrix.kind)
    colors, markers = style.colors(list(kinds)), style.recipe_markers(list(kinds))
    for kind, members in kinds.items():
        layers = group(members, lambda error: error.matrix.layer or 0)
        medians = [
            float(np.median(np.concatenate([error.norms for error in layer])))
            for layer in layers.values()
        ]
        look: dict[str, Any] = {
            "color": colors[kind],
            "marker": markers[kind],
            "markersize": 5,
            "linewidth": 1.6,
        }
        axes.plot(list(layers), medians, label=kind, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    _describe(axes, "layer", "median of the L2 norm of the difference\nof each output row", title)
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def sensitivity(found: Sequence[tuple[Matrix, float]], meaning: str, title: str) -> Figure:
    """A heat map of the cost of compressing each matrix alone.

    Args:
      found: matrices with their cost.
      meaning: label of the color scale.
      title: title of the figure.

    Returns:
      Layers by matrices, and beside them the matrices outside the layers.
    """
    # (rows, columns, cells) of each part; a part may be empty.
    outside = {matrix.name: value for matrix, value in found if matrix.layer is None}
    inside = {
        (matrix.layer, matrix.name): value for matrix, value in found if matrix.layer is not None
    }
    names = list(dict.fromkeys(name for _, name in inside))
    layers = sorted({layer for layer, _ in inside})
    grid = [[inside.get((layer, name), np.nan) for name in names] for layer in layers]
    parts = [
        part
        for part in (
            ([str(layer) for layer in layers], names, grid),
            (list(outside), [], [[value] for value in outside.values()]),
        )
        if part[0]
    ]
    height = 1.6 + 0.36 * max(len(rows) for rows, *_ in parts)
    figure = Figure(figsize=(7.6, max(3.0, min(9.0, height))), layout="constrained")
    FigureCanvasAgg(figure)
    widths = [2.6 if columns else 1.0 for _, columns, _ in parts]
    axes = figure.subplots(1, len(parts), width_ratios=widths, squeeze=False)[0]
    limit = max(abs(value) for _, value in found) or 1.0
    for one, (rows, columns, cells) in zip(axes, parts, strict=True):
        _heat(one, np.array(cells), limit, columns, rows)
        if columns:
            one.set_ylabel("layer")
    figure.colorbar(axes[0].images[0], ax=list(axes), label=meaning, shrink=0.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _heat(
    axes: Axes, cells: np.ndarray, limit: float, columns: Sequence[str], rows: Sequence[str]
) -> None:
    axes.imshow(cells, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    if len(rows) > _MOST_WRITTEN:
        return
    digits = max(0, 2 - math.floor(math.log10(limit)))
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.6 * limit else style.INK
            text = f"{round(value, digits) + 0.0:.{digits}f}"  # the sum makes -0 a 0
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)


def convergence(
    rows: Sequence[dict[str, Any]], metric: str, label: str, scale: float, title: str
) -> Figure:
    """A metric along one run, dense and compressed without recovery.

    Args:
      rows: a row of `tlc analyze` for each checkpoint.
      metric, label: the metric's name in the rows, and the label of its axis.
      scale: factor for its values.
      title: title of the figure.
    """
    figure, axes = style.new_figure(6.4, 4.2)
    steps = [row["step"] for row in rows]
    looks = {"dense": "o-", "compressed": "s--"}
    for name, color in style.colors(list(looks)).items():
        values = [scale * row[f"{metric}_{name}"] for row in rows]
        axes.plot(steps, values, looks[name], color=color, label=name)
    _describe(axes, "optimizer steps of the checkpoint", label, title)
    figure.legend(loc="outside lower left", ncols=2)
    return figure
