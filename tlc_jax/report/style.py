"""One look for every figure: colors follow the model's size, markers its recipe.

Figures are drawn on Agg without pyplot, so they need no display and leave no global state behind.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Affine2D

from tlc_jax.core.files import atomic
from tlc_jax.report.labels import count_label
from tlc_jax.statistics.frontier import Summary
from tlc_jax.statistics.kinds import Size

INK, _SOFT_INK = "#2b323b", "#5b6470"
RC: Any = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib, so figures are the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT_INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,  # grid lines under the marks
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": _SOFT_INK,
    "ytick.color": _SOFT_INK,
    "legend.frameon": False,
    "legend.title_fontsize": 9.5,
    "legend.fontsize": 9,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}
MARKERS = "os^DvPX<>ph*d8H"

Name = TypeVar("Name", bound=Hashable)


def colors(names: Sequence[Name], colormap: str = "viridis") -> dict[Name, str]:
    """Assigns colors from dark to light along viridis or plasma, in the order given."""
    # The last fifth of both is a pale yellow that cannot be seen on white paper.
    shades = matplotlib.colormaps[colormap]
    last = max(1, len(names) - 1)
    return {name: to_hex(shades(0.02 + 0.80 * place / last)) for place, name in enumerate(names)}


def size_colors(sizes: Sequence[Size]) -> dict[Size, str]:
    """Assigns colors from dark to light by parameters."""
    return colors(sorted(sizes))


def recipe_markers(recipes: Iterable[str]) -> dict[str, str]:
    """Assigns a marker to each recipe in the order given; after fifteen they repeat."""
    return dict(zip(recipes, itertools.cycle(MARKERS), strict=False))


def marker_outline(marker: str) -> str:
    """Returns a marker as the path of an SVG, around the origin and about 12 units wide."""
    # to_polygons flattens curves at the scale of the path: enlarged first, a circle stays round.
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(11, -11))
    outlines = [np.asarray(outline) for outline in path.to_polygons()]
    texts = (" ".join(f"{x:.2f},{y:.2f}" for x, y in outline) for outline in outlines)
    return "".join(f"M{text}Z" for text in texts)


def handle(label: str, marker: str = "o", color: str = INK, face: str | None = None) -> Line2D:
    """Makes an entry of a legend: a marker, filled with its color unless `face` is given."""
    return Line2D([], [], ls="none", marker=marker, color=color, mfc=face or color, label=label)


def mark(
    axes: Axes, x: float, y: float, color: str, xerr: float = 0, yerr: float = 0, **options: Any
) -> None:
    """Draws a point with its deviation; `fmt`, `mfc` and `ms` are options of `Axes.errorbar`."""
    look: dict[str, Any] = {"fmt": "o", "mew": 1.2, "elinewidth": 1, "capsize": 2.5, "zorder": 3}
    # Of a single seed nothing is known: no bar, while a bar of length 0 would show its caps.
    axes.errorbar(x, y, xerr=xerr or None, yerr=yerr or None, color=color, **look | options)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure with one pair of axes; width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def new_panels(
    titles: Sequence[str], columns: int = 3, shared: bool = True
) -> tuple[Figure, list[Axes]]:
    """Makes a figure of panels, row by row, with their titles.

    Args:
      titles: one per panel.
      columns: most panels in a row.
      shared: whether all have the same vertical axis.
    """
    columns = min(columns, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(max(6.4, 0.8 + 3.3 * columns), 1.2 + 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=shared).flat)
    for axes in panels[len(titles) :]:
        axes.remove()
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(textwrap.fill(title, 36))
    return figure, panels[: len(titles)]


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows of a figure, the first one on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def band(axes: Axes, xs: Sequence[float], found: Sequence[Summary], color: str, label: str) -> None:
    """Draws means as a line that ends in a dot, and their deviations as a band around it."""
    means, stds = np.array([(one.mean, one.std) for one in found]).T
    axes.plot(xs, means, color=color, linewidth=1.8, label=label)
    axes.plot(xs[-1:], means[-1:], "o", color=color, markersize=4)
    if any(one.n > 1 for one in found):
        axes.fill_between(xs, means - stds, means + stds, color=color, alpha=0.18, linewidth=0)


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG that depends on its content alone: no software version, no date."""
    # Otherwise matplotlib writes its version into the file.
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None}, facecolor="white")
    return path


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Makes the "x" or "y" axis logarithmic over a range, with round numbers written in full."""
    low, high = low / 1.12, high * 1.12
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis.set_major_locator(FixedLocator(round_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    # Powers of ten, the default, are hard to read as seconds, megabytes and parameters.
    axis.set_major_formatter(FuncFormatter(lambda value, _: count_label(value)))


def round_ticks(low: float, high: float) -> list[float]:
    """Returns the round numbers inside a range, between about four and ten of them."""
    # The more decades, the fewer ticks in each.
    decades = math.log10(high / low)
    mantissas: tuple[float, ...] = (1,)
    if decades < 4:
        mantissas = (1, 3) if decades > 1.9 else (1, 2, 5)
    if decades <= 1.05:
        mantissas = (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = LogLocator(subs=mantissas, numticks=100).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]
