"""The figures of `tlc analyze`: error and sensitivity by module and depth, and compressibility along a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlc_jax.compression.error import Matrix, MatrixError
from tlc_jax.report import style
from tlc_jax.statistics.frontier import group

_STATISTIC = "L2 norm of the difference\nof each output row (log)"
_MOST_WRITTEN = 24  # layers up to which cells of a heat map carry their numbers


def error_by_module(errors: Sequence[MatrixError], title: str) -> Figure:
    """Box plots over the output rows of all matrices of a kind; boxes are quartiles, whiskers the 5th and 95th %."""
    kinds = group(errors, lambda error: error.matrix.kind)
    figure, axes = style.new_figure(6.4, 4.2)
    colors = _colors(list(kinds))
    norms = [np.concatenate([error.norms for error in members]) for members in kinds.values()]
    ink = {"color": style.INK}
    boxes = axes.boxplot(
        norms, whis=(5, 95), showfliers=False, widths=0.55, patch_artist=True,
        medianprops=ink, whiskerprops=ink, capprops=ink,
    )  # fmt: skip
    for box, color in zip(boxes["boxes"], colors.values(), strict=True):
        box.set_facecolor(color)
        box.set_alpha(0.6)
    medians = [float(np.median(values)) for values in norms]
    for place, (median, values) in enumerate(zip(medians, norms, strict=True), start=1):
        axes.annotate(
            f"{median:.3g}",
            (place, np.quantile(values, 0.95)),
            (0, 4),
            textcoords="offset points",
            ha="center",
        )
    axes.set_xticks(range(1, len(kinds) + 1), list(kinds))
    shown = [
        float(value) for values in norms for value in np.quantile(values, (0.05, 0.95)) if value > 0
    ]
    if shown:
        style.log_axis(axes, "y", min(shown), 1.1 * max(shown))
    axes.set_xlabel("numbers: medians; boxes: quartiles; whiskers: 5th and 95th percentile")
    axes.set_ylabel(_STATISTIC)
    axes.set_title(title)
    return figure


def error_by_depth(errors: Sequence[MatrixError], title: str) -> Figure:
    """The median over the output rows of each kind of matrix, by layer."""
    figure, axes = style.new_figure(6.4, 4.2)
    in_layers = [error for error in errors if error.matrix.layer is not None]
    kinds = group(in_layers, lambda error: error.matrix.kind)
    for (kind, color), marker in zip(_colors(list(kinds)).items(), style.MARKERS, strict=False):
        layers = group(kinds[kind], lambda error: error.matrix.layer or 0)
        medians = [
            float(np.median(np.concatenate([error.norms for error in layer])))
            for layer in layers.values()
        ]
        axes.plot(
            list(layers),
            medians,
            color=color,
            marker=marker,
            markersize=5,
            linewidth=1.6,
            label=kind,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("median of the L2 norm of the difference\nof each output row")
    axes.set_title(title)
    figure.legend(loc="outside lower left", ncols=4)
    return figure


def sensitivity(found: Sequence[tuple[Matrix, float]], meaning: str, title: str) -> Figure:
    """A heat map of what each matrix costs if it alone is compressed: layers by matrices, and those of no layer."""
    figure = Figure(figsize=(7.6, _height(found)), layout="constrained")
    FigureCanvasAgg(figure)
    inside = [(matrix, value) for matrix, value in found if matrix.layer is not None]
    outside = [(matrix, value) for matrix, value in found if matrix.layer is None]
    parts = [part for part in (inside, outside) if part]
    widths = [2.6 if part is inside else 1.0 for part in parts]
    axes = figure.subplots(1, len(parts), width_ratios=widths, squeeze=False)[0]
    limit = max(abs(value) for _, value in found) or 1.0
    for one, part in zip(axes, parts, strict=True):
        if part is inside:
            names = list(dict.fromkeys(matrix.name for matrix, _ in part))
            layers = sorted({matrix.layer for matrix, _ in part if matrix.layer is not None})
            cells = np.full((len(layers), len(names)), np.nan)
            for matrix, value in part:
                assert matrix.layer is not None
                cells[layers.index(matrix.layer), names.index(matrix.name)] = value
            _heat(one, cells, limit, names, [str(layer) for layer in layers])
            one.set_ylabel("layer")
        else:
            _heat(
                one,
                np.array([[value] for _, value in part]),
                limit,
                [],
                [matrix.name for matrix, _ in part],
            )
    figure.colorbar(axes[0].images[0], ax=list(axes), label=meaning, shrink=0.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _height(found: Sequence[tuple[Matrix, float]]) -> float:
    inside = {matrix.layer for matrix, _ in found if matrix.layer is not None}
    rows = max(len(inside), sum(matrix.layer is None for matrix, _ in found))
    return max(3.0, min(9.0, 1.6 + 0.36 * rows))


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
    """A metric, times `scale`, against the steps of one run's checkpoints, dense and compressed without recovery."""
    figure, axes = style.new_figure(6.4, 4.2)
    steps = [row["step"] for row in rows]
    dark, light = _colors(["dense", "compressed"]).values()
    for name, style_of_line, color in (("dense", "o-", dark), ("compressed", "s--", light)):
        axes.plot(
            steps,
            [scale * row[f"{metric}_{name}"] for row in rows],
            style_of_line,
            color=color,
            label=name,
        )
    axes.set_xlabel("optimizer steps of the checkpoint")
    axes.set_ylabel(label)
    axes.set_title(title)
    figure.legend(loc="outside lower left", ncols=2)
    return figure


def _colors(names: Sequence[str]) -> dict[str, Any]:
    """Dark to light along viridis in the order given, as of sizes in `style`."""
    colors = matplotlib.colormaps["viridis"]
    return {
        name: colors(0.02 + 0.80 * place / max(1, len(names) - 1))
        for place, name in enumerate(names)
    }
