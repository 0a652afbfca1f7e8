"""One look for every figure: colors follow the model's size, markers its recipe.

Figures are drawn on Agg without pyplot, so they need no display and leave no global state behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tlc_jax.statistics.kinds import Size

RC: Any = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib, so figures are the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6470",
    "axes.labelcolor": "#2b323b",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#5b6470",
    "ytick.color": "#5b6470",
    "legend.frameon": False,
    "legend.title_fontsize": 9.5,
    "legend.fontsize": 9,
    "figure.dpi": 150,
    "savefig.dpi": 150,
}
INK = "#2b323b"
MARKERS: tuple[str, ...] = (
    "o",
    "s",
    "^",
    "D",
    "v",
    "P",
    "X",
    "<",
    ">",
    "p",
    "h",
    "*",
    "d",
    "8",
    "H",
)


def size_colors(sizes: Sequence[Size]) -> dict[Size, Any]:
    """Dark to light along viridis by parameters; its pale end is left out, which white paper swallows."""
    colors = matplotlib.colormaps["viridis"]
    last = max(1, len(sizes) - 1)
    return {size: colors(0.02 + 0.80 * place / last) for place, size in enumerate(sorted(sizes))}


def recipe_markers(recipes: Sequence[str]) -> dict[str, str]:
    """A marker per recipe in the order given; after fifteen they repeat."""
    return {recipe: MARKERS[place % len(MARKERS)] for place, recipe in enumerate(recipes)}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one pair of axes, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG that depends on its content alone: no software version, no date."""
    figure.savefig(path, format="png", metadata={"Software": None}, facecolor="white")
    return path


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis over a range, ticked at round numbers that are written out, never as powers of ten."""
    low, high = low / 1.12, high * 1.12
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis.set_major_locator(FixedLocator(round_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def round_ticks(low: float, high: float) -> list[float]:
    """Between about four and ten round numbers inside a range that spans less or more than a decade."""
    choices: list[list[float]] = []
    for mantissas in (
        (1.0,),
        (1.0, 3.0),
        (1.0, 2.0, 5.0),
        (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    ):
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        ticks = [mantissa * 10.0**power for power in powers for mantissa in mantissas]
        choices.append([tick for tick in ticks if low <= tick <= high])
    return next((ticks for ticks in choices if len(ticks) >= 4), choices[-1])


def plain_number(value: float) -> str:
    """12,000 as 12k, 0.25 as 0.25: at most three digits."""
    value = float(f"{value:.3g}")  # so that 999.9 becomes 1k, not 1e+03
    for unit, divisor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= divisor:
            return f"{value / divisor:.3g}{unit}"
    return f"{value:.3g}"
