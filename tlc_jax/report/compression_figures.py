"""The figures of `tlc analyze`: error, sensitivity, and compressibility along a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlc_jax.compression.error import Matrix, MatrixError
from tlc_jax.report import style

_MOST_WRITTEN = 24  # layers up to which cells of a heat map carry their numbers


def _rows(errors: Sequence[MatrixError]) -> pd.DataFrame:
    """Makes a data frame of the kind, layer and norm of each output row of each matrix."""
    return pd.concat(
        pd.DataFrame({"kind": error.matrix.kind, "layer": error.matrix.layer, "norm": error.norms})
        for error in errors
    )


def error_by_module(errors: Sequence[MatrixError], title: str) -> Figure:
    """Draws box plots over the output rows of all matrices of a kind.

    Boxes are quartiles, whiskers the 5th and 95th percentile.
    """
    norms = _rows(errors).groupby("kind", sort=False)["norm"]
    low, median, high = (norms.quantile(share) for share in (0.05, 0.5, 0.95))
    figure, axes = style.new_figure(6.4, 4.2)
    ink = {"color": style.INK}
    boxes = axes.boxplot(
        [values.to_numpy() for _, values in norms],
        tick_labels=list(median.index),
        whis=(5, 95),
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        medianprops=ink,
        whiskerprops=ink,
        capprops=ink,
    )
    for box, color in zip(boxes["boxes"], style.colors(median.index).values(), strict=True):
        box.set(facecolor=color, alpha=0.6)
    for place, (value, top) in enumerate(zip(median, high, strict=True), start=1):
        text = f"{value:.3g}"
        axes.annotate(text, (place, top), (0, 4), textcoords="offset points", ha="center")
    # A recipe that leaves most rows of a kind alone makes a quantile 0, which no log axis can show.
    if positive := [end for end in (*low, *high) if end > 0]:
        style.log_axis(axes, "y", min(positive), 1.1 * max(positive))
    axes.set_title(title)
    axes.set_xlabel("numbers: medians; boxes: quartiles; whiskers: 5th and 95th percentile")
    axes.set_ylabel("L2 norm of the difference\nof each output row (log)")
    return figure


def error_by_depth(errors: Sequence[MatrixError], title: str) -> Figure:
    """Draws the median over the output rows of each kind of matrix, by layer."""
    rows = _rows([error for error in errors if error.matrix.layer is not None])
    medians = rows.groupby(["kind", "layer"], sort=False)["norm"].median()
    kinds = list(medians.index.unique("kind"))
    colors, markers = style.colors(kinds), style.recipe_markers(kinds)
    figure, axes = style.new_figure(6.4, 4.2)
    for kind in kinds:
        look: Any = {"color": colors[kind], "marker": markers[kind], "ms": 5, "lw": 1.6}
        axes.plot(medians[kind].index, medians[kind], label=kind, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set(xlabel="layer", ylabel="median of the L2 norm of the difference\nof each output row")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def sensitivity(found: Sequence[tuple[Matrix, float]], meaning: str, title: str) -> Figure:
    """Draws a heat map of the cost of compressing each matrix alone.

    Args:
      found: matrices with their cost.
      meaning: label of the color scale.
      title: title of the figure.

    Returns:
      Layers by matrices, and beside them the matrices outside the layers.
    """
    costs = pd.DataFrame(
        {"layer": matrix.layer, "name": matrix.name, "cost": cost} for matrix, cost in found
    )
    outside = costs["layer"].isna()
    inside = costs[~outside].astype({"layer": int})
    # A pivot sorts its columns, and matrices have an order of their own.
    layers = inside.pivot(index="layer", columns="name", values="cost")[inside["name"].unique()]
    parts = [part for part in (layers, costs[outside].set_index("name")[["cost"]]) if len(part)]
    height = 1.6 + 0.36 * max(map(len, parts))
    figure = Figure(figsize=(7.6, max(3.0, min(9.0, height))), layout="constrained")
    widths = [2.6 if part is layers else 1.0 for part in parts]
    axes = figure.subplots(1, len(parts), width_ratios=widths, squeeze=False)[0]
    limit = costs["cost"].abs().max() or 1.0
    for one, part in zip(axes, parts, strict=True):
        _heat(one, part, limit)
        if part is layers:
            one.set_xticks(range(part.shape[1]), part.columns, rotation=30, ha="right")
            one.set_ylabel("layer")
        else:
            one.set_xticks([])
    figure.colorbar(axes[0].images[0], ax=list(axes), label=meaning, shrink=0.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _heat(axes: Axes, cells: pd.DataFrame, limit: float) -> None:
    axes.imshow(cells, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(False)
    axes.set_yticks(range(len(cells)), cells.index)
    if len(cells) > _MOST_WRITTEN:
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
    """Draws a metric along one run, dense and compressed without recovery.

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
    axes.set_title(title)
    axes.set(xlabel="optimizer steps of the checkpoint", ylabel=label)
    figure.legend(loc="outside lower left", ncols=2)
    return figure
