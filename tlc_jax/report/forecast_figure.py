"""The figure of `tlc forecast`: loss by size under each budget, and the back-test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlc_jax.report import style
from tlc_jax.statistics.best_size import BackTest, Forecast, Option, grid_of
from tlc_jax.statistics.scaling_law import LEVEL, Law, interval


def draw(
    law: Law,
    options: Sequence[Option],
    forecasts: Sequence[Forecast],
    tested: BackTest | None,
    path: Path,
) -> Path:
    """Draws the expected loss by size and, where there was a back-test, predicted by measured.

    Args:
      law: the fitted law.
      options: the sizes to choose from.
      forecasts: one per budget; those that were refused are left out.
      tested: the back-test.
      path: the PNG to write.
    """
    with rc_context(style.RC):
        both = tested is not None and tested.held_out is not None
        figure = Figure(figsize=(10.4 if both else 6.4, 4.5), layout="constrained")
        axes = figure.subplots(1, 2 if both else 1, squeeze=False)[0]
        _by_size(axes[0], law, options, [one for one in forecasts if not one.refused])
        if both and tested:
            _back_test(axes[1], tested)
        return style.save(figure, path)


def _by_size(
    axes: Axes, law: Law, options: Sequence[Option], forecasts: Sequence[Forecast]
) -> None:
    totals = {option.params: option.total for option in options}
    shown_N = np.array([size in totals for size in law.runs.params_N])
    measured = [totals[size] for size in law.runs.params_N[shown_N]]
    axes.plot(measured, law.runs.losses_N[shown_N], ".", color=style.INK, label="runs", zorder=4)
    budgets = style.colors([one.seconds for one in forecasts])
    for one in forecasts:
        params_G, tokens_G, total_G = grid_of(options, one.seconds)
        color, losses_G = budgets[one.seconds], law.loss(params_G, tokens_G)
        low, high = np.array([interval(draws) for draws in law.draws(params_G, tokens_G).T]).T
        axes.plot(total_G, losses_G, color=color, linewidth=1.4, label=f"{one.seconds:,.6g} s")
        axes.fill_between(total_G, low, high, color=color, alpha=0.15, linewidth=0)
        flat = (total_G >= one.flat_low) & (total_G <= one.flat_high)
        axes.plot(total_G[flat], losses_G[flat], color=color, linewidth=4, alpha=0.6)
        if one.option:
            axes.plot(one.option.total, one.loss, "o", color=color, markersize=6)
    style.log_axis(
        axes, "x", min(o.total for o in options), max(option.total for option in options)
    )
    axes.set_xlabel("parameters (log); thick: within 0.01 nats of the best")
    axes.set_ylabel(f"validation loss (nats), {LEVEL:.0%} interval")
    axes.legend(title="training seconds")


def _back_test(axes: Axes, tested: BackTest) -> None:
    held_out = tested.held_out
    if held_out is None:
        return
    for inside, look in ((True, "o"), (False, "x")):
        chosen = tested.inside_N == inside
        if not chosen.any():
            continue
        label = f"{'inside' if inside else 'outside'} the {LEVEL:.0%} interval"
        axes.plot(held_out.losses_N[chosen], tested.predicted_N[chosen], look, label=label)
    ends = [f(np.append(held_out.losses_N, tested.predicted_N)) for f in (np.min, np.max)]
    axes.plot(ends, ends, color=style.INK, linewidth=0.8)
    axes.set_xlabel("measured loss (nats)")
    axes.set_ylabel(f"predicted from at most {tested.share:.0%} of the budget")
    axes.legend()
