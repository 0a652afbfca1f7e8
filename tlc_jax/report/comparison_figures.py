"""Figures of `tlc compare`: models compared instance by instance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context

from tlc_jax.core.errors import InputError
from tlc_jax.report.style import RC, colors, new_figure, save
from tlc_jax.statistics.comparison import Pair, Runs
from tlc_jax.statistics.instances import threshold_curve
from tlc_jax.statistics.variance import variance_given_bias

_LEVELS = ("pretraining", "finetuning")


def draw(
    families: Sequence[Runs],
    pair: Pair,
    bounds: pd.DataFrame,
    variances: pd.DataFrame,
    momentum: pd.DataFrame,
    folder: Path,
) -> list[Path]:
    """Draws all figures.

    Args:
      families: the models, smallest first.
      pair: the two models of the figure of instance differences.
      bounds, variances, momentum: tables of `statistics.comparison`.
      folder: where the PNGs go.

    Returns:
      The paths of the figures.
    """
    with rc_context(RC):
        paths = [
            _differences(*pair, folder / "differences.png"),
            _bounds(bounds, folder / "bounds-by-seeds.png"),
            _variances(variances, folder / "variances.png"),
            _conditional(families, folder / "variance-given-bias.png"),
        ]
        if len(momentum):
            paths.append(_momentum(momentum, folder / "momentum.png"))
    return paths


def _differences(small: Runs, large: Runs, path: Path) -> Path:
    """Fraction of instances with at most each difference, beside the random baseline."""
    thresholds, discovered, baseline = threshold_curve(small.ensembles, large.ensembles)
    figure, axes = new_figure(6.4, 4.0)
    below = thresholds < 0  # beyond it, both curves are near 1 and hide the gap
    axes.step(thresholds[below], discovered[below], where="post", label="ensembles compared")
    axes.step(thresholds[below], baseline[below], where="post", label="random baseline")
    axes.set(
        title=f"Instances that {large.name} loses against {small.name}",
        xlabel="instance difference, at most",
        ylabel="fraction of instances",
    )
    axes.legend()
    return save(figure, path)


def _bounds(bounds: pd.DataFrame, path: Path) -> Path:
    figure, axes = new_figure(6.4, 4.0)
    named = list(bounds.groupby(["small", "large"], sort=False))
    for ((small, large), rows), color in zip(
        named, colors(range(len(named))).values(), strict=True
    ):
        axes.plot(rows["seeds"], rows["decaying"], "o-", color=color, label=f"{small} → {large}")
        axes.plot(rows["seeds"], rows["fisher"], "s:", color=color, mfc="white")
    axes.set(
        title="Lower bound on the decaying fraction",
        xlabel="pretraining seeds of each model",
        ylabel="fraction of instances (dotted: Fisher + BH)",
    )
    axes.set_xticks(sorted(bounds["seeds"].unique()))
    axes.legend()
    return save(figure, path)


def _variances(variances: pd.DataFrame, path: Path) -> Path:
    figure, axes = new_figure(6.4, 4.0)
    places = np.arange(len(variances))
    for offset, level in zip((-0.18, 0.18), _LEVELS, strict=True):
        axes.bar(
            places + offset,
            variances[f"{level}_variance"],
            width=0.34,
            yerr=variances[f"{level}_variance_error"],
            label=f"{level} seeds",
        )
    axes.set(title="Variance of correctness by level of seeds", ylabel="mean over instances")
    axes.set_xticks(places, variances["model"])
    axes.legend()
    return save(figure, path)


def _conditional(families: Sequence[Runs], path: Path) -> Path:
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
    axes.legend()
    return save(figure, path)


def _momentum(momentum: pd.DataFrame, path: Path) -> Path:
    figure, axes = new_figure(6.4, 4.0)
    named = list(momentum.groupby(["small", "middle", "large"], sort=False))
    for (models, rows), color in zip(named, colors(range(len(named))).values(), strict=True):
        middle = (rows["low"] + rows["high"]) / 2
        axes.plot(middle, rows["pearson"], "o-", color=color, label=" → ".join(models))
    axes.axhline(0.0, color="#5b6470", lw=0.8)
    axes.set(
        title="Do instances that improved improve again?",
        xlabel="accuracy of the middle model",
        ylabel="Pearson correlation within the bucket",
    )
    axes.legend()
    return save(figure, path)
