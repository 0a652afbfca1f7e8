"""Figures of `tlc compare`: models compared instance by instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from tlc_jax.core.errors import InputError
from tlc_jax.report.figures import Drawn
from tlc_jax.report.style import INK, RC, colors, new_figure, save
from tlc_jax.statistics.comparison import Runs
from tlc_jax.statistics.instances import decaying_bound, threshold_curve
from tlc_jax.statistics.variance import variance_given_bias

_LEVELS = ("pretraining", "finetuning")
_FEWEST = 20  # instances of a bucket whose correlation is drawn


def draw(sizes: Sequence[Runs], tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Drawn]:
    """Draws all figures that there are tables for.

    Args:
      sizes: the models that are compared with each other, smallest first.
      tables: those of `statistics.comparison` and `statistics.breakage`, by name.
      folder: where the PNGs go.
    """
    with rc_context(RC):
        figures = {}
        if "pairs" in tables:
            figures["differences"] = _differences(sizes[0], sizes[-1])
            figures["bounds-by-seeds"] = _bounds(tables["bounds-by-seeds"])
        if "compressed" in tables:
            figures["compressed"] = _compressed(tables["compressed"])
        figures["variances"] = _variances(tables["variances"])
        figures["variance-given-bias"] = _conditional(sizes)
        if "momentum" in tables:
            figures["momentum"] = _momentum(tables["momentum"])
        return [
            Drawn(save(figure, folder / f"{name}.png"), f"instances-{name}")
            for name, figure in figures.items()
        ]


def _differences(small: Runs, large: Runs) -> Figure:
    """Fraction of instances with at most each difference, beside the random baseline."""
    paired = small.shares_seeds(large)
    curves = threshold_curve(small.ensembles, large.ensembles, paired)
    bound = decaying_bound(small.ensembles, large.ensembles, paired)
    figure, axes = new_figure(6.4, 4.0)
    thresholds, discovered, baseline = curves
    below = thresholds < 0  # beyond it, both curves are near 1 and hide the gap
    axes.plot(thresholds[below], 100 * discovered[below], "o-", label="ensembles compared")
    axes.plot(thresholds[below], 100 * baseline[below], "s--", label="random baseline")
    if bound.threshold < 0:
        ends = 100 * bound.baseline, 100 * bound.discovered
        axes.vlines(bound.threshold, *ends, color=INK, lw=1.5)
        text = f"{100 * bound.fraction:.1f} %, the bound"
        middle = bound.threshold, sum(ends) / 2
        axes.annotate(text, middle, (9, -9), textcoords="offset points", color=INK)
    axes.set(
        title=f"Instances that {large.name} loses against {small.name}",
        xlabel="instance difference, at most",
        ylabel="% of instances",
    )
    axes.legend()
    return figure


def _bounds(bounds: pd.DataFrame) -> Figure:
    figure, axes = new_figure(6.4, 4.0)
    named = list(bounds.groupby(["small", "large"], sort=False))
    for ((small, large), rows), color in zip(
        named, colors(range(len(named))).values(), strict=True
    ):
        label = f"{small} → {large}"
        axes.plot(rows["seeds"], 100 * rows["decaying"], "o-", color=color, label=label)
        axes.plot(rows["seeds"], 100 * rows["fisher"], "s:", color=color, mfc="white")
    axes.set(
        title="Lower bound on the decaying fraction",
        xlabel="pretraining seeds of each model",
        ylabel="% of instances (dotted: Fisher + BH)",
    )
    axes.set_xticks(sorted(bounds["seeds"].unique()))
    axes.legend()
    return figure


def _compressed(compressed: pd.DataFrame) -> Figure:
    """What compression breaks, beside what other seeds break, and what is left beyond them."""
    shades = dict(
        zip(compressed["compressed"], colors(range(len(compressed))).values(), strict=True)
    )
    bars: list[tuple[str, float, str]] = []
    for dense, rows in compressed.groupby("dense", sort=False):
        for level in reversed(_LEVELS):
            share = rows[f"broken_by_{level}_seed"].iloc[0]
            bars.append((f"{dense}, another {level} seed", share, "#b9c0c9"))
        bars += [
            (name, share, shades[name])
            for name, share in zip(rows["compressed"], rows["broken"], strict=True)
        ]
    figure = Figure(figsize=(9.6, 1.6 + 0.4 * len(bars)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names, shares, colored = zip(*bars, strict=True)
    left.barh(names, [100 * share for share in shares], color=colored)
    left.set(title="Right answers turned wrong", xlabel="% of all answers")
    places = np.array([place for place, name in enumerate(names) if name in shades])
    for name, offset, marker, face in (("broken", -0.12, "o", INK), ("mended", 0.12, "s", "white")):
        middle, low, high = (
            100 * compressed[f"{name}_beyond{end}"].to_numpy() for end in ("", "_low", "_high")
        )
        look: dict[str, Any] = {"fmt": marker, "color": INK, "mfc": face, "capsize": 2.5}
        error = [middle - low, high - middle]
        right.errorbar(middle, places + offset, xerr=error, label=f"{name} beyond seeds", **look)
    right.axvline(0.0, color=INK, lw=0.8)
    right.set(title="Beyond another finetuning seed", xlabel="% of all answers, 95 % interval")
    right.legend()
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return figure


def _variances(variances: pd.DataFrame) -> Figure:
    figure, axes = new_figure(6.4, 4.0)
    places = np.arange(len(variances))
    for offset, level in zip((-0.18, 0.18), _LEVELS, strict=True):
        axes.bar(
            places + offset,
            100 * variances[f"{level}_variance"],
            width=0.34,
            yerr=100 * variances[f"{level}_variance_error"],
            label=f"{level} seeds",
        )
    axes.margins(y=0.2)  # for the legend
    axes.set(title="Variance of correctness by level of seeds", ylabel="%, mean over instances")
    axes.set_xticks(places, [name.replace(" ", "\n", 1) for name in variances["model"]])
    axes.legend()
    return figure


def _conditional(families: Sequence[Runs]) -> Figure:
    """Finetuning variance given bias squared, the comparison that size alone would hide."""
    figure, axes = new_figure(6.4, 4.0)
    grid = np.linspace(0.0, 1.0, 101)
    for family, color in zip(families, colors(range(len(families))).values(), strict=True):
        try:
            curve = variance_given_bias(family.decomposition, 1, grid)
        except InputError:  # nearly all instances always right or always wrong
            continue
        axes.plot(grid, curve.mean, color=color, label=family.name)
        low, high = curve.mean - 2 * curve.std, curve.mean + 2 * curve.std
        axes.fill_between(grid, low, high, color=color, alpha=0.15, lw=0)
    axes.set(
        title="Finetuning variance given bias squared",
        xlabel="bias squared of the instance",
        ylabel="finetuning variance",
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _momentum(momentum: pd.DataFrame) -> Figure:
    figure, axes = new_figure(6.4, 4.0)
    named = list(momentum.groupby(["small", "middle", "large"], sort=False))
    for (models, rows), color in zip(named, colors(range(len(named))).values(), strict=True):
        rows = rows[rows["count"] >= _FEWEST]
        middle = (rows["low"] + rows["high"]) / 2
        axes.plot(middle, rows["pearson"], "o-", color=color, label=" → ".join(models))
    axes.axhline(0.0, color="#5b6470", lw=0.8)
    axes.set(
        title="Do instances that improved improve again?",
        xlabel="accuracy of the middle model",
        ylabel="Pearson correlation within the bucket",
    )
    axes.margins(y=0.12 + 0.12 * len(named))  # for the legend
    axes.legend(loc="upper left")
    return figure
