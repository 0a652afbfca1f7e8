"""The figures of a report: functions from one kind's part of a study to a matplotlib figure."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from tlc_jax.report import charts, style
from tlc_jax.report.labels import count_label, recipe_labels, recipes_of, size_label
from tlc_jax.statistics.curves import LOSS, Quantity, by_size, measured
from tlc_jax.statistics.frontier import pareto, summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.records import Model, Study

_DASHES = (0, (4, 2))


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure on disk.

    Attributes:
      path: its PNG.
      what: name of its title and caption in templates/captions.html.
      kind, task: kind of model and task that it shows.
      chart: its interactive version, see `charts`; None where the PNG is all.
    """

    path: Path
    what: str
    kind: Kind = ENCODER
    task: str = ""
    chart: dict[str, Any] | None = None

    @property
    def wide(self) -> bool:
        return self.what in ("megabytes", "nonzero")


def draw_all(study: Study, folder: Path) -> list[Drawn]:
    """Writes every figure that the study has data for into `folder`."""
    with matplotlib.rc_context(style.RC):
        return [drawn for kind in study.kinds for drawn in _draw_kind(study.of(kind), folder)]


def _draw_kind(study: Study, folder: Path) -> list[Drawn]:
    kind, drawn = study.kind, list[Drawn]()

    def add(
        name: str, what: str, figure: Figure, task: str = "", chart: dict[str, Any] | None = None
    ) -> None:
        path = style.save(figure, folder / f"{name}.png")
        drawn.append(Drawn(path, what, kind, task, chart))

    prefix = "translation_" if kind == TRANSLATOR else ""
    for of in measured(study.curves):
        for axis in ("seconds", "steps"):
            what = f"{'loss' if of == LOSS else of.name}_{axis}"
            figure = training_curves(study, axis, of)
            chart = charts.training_curves(study, axis, of, figure.axes[0])
            add(f"{prefix}{what}", what, figure, chart=chart)
    for task in study.tasks:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", task)
        for cost in ("megabytes", "nonzero"):
            figure = score_against(study, task, cost)
            chart = charts.score_against(study, task, cost, figure.axes[0])
            add(f"{kind.score.lower()}_{cost}-{name}", cost, figure, task, chart)
        if any(model.recipe != "dense" for model in study.models if model.task == task):
            add(f"lost-{name}", "lost", score_lost(study, task), task)
        if _twins(study, task):
            add(f"scratch-{name}", "scratch", pretrained_and_scratch(study, task), task)
    return drawn


def training_curves(study: Study, axis: str, of: Quantity = LOSS) -> Figure:
    """Validation loss, with perplexity on the right, or approx_bleu of every size.

    Args:
      study: one kind's part of a study.
      axis: "seconds" or "steps".
      of: quantity on the vertical axis.
    """
    figure, axes = style.new_figure(6.4, 4.5)
    colors = style.size_colors(study.sizes)
    for size, curves in by_size(study.curves).items():
        costs, found = charts.mean_curve(curves, axis, of)
        means = [summary.mean for summary in found]
        axes.plot(costs, means, color=colors[size], linewidth=1.8, label=size_label(size))
        axes.plot(costs[-1:], means[-1:], "o", color=colors[size], markersize=4)
        if len(curves) > 1:
            below, above = ([s.mean + sign * s.std for s in found] for sign in (-1, 1))
            axes.fill_between(costs, below, above, color=colors[size], alpha=0.18, linewidth=0)
    values = [value for curve in study.curves for value in getattr(curve, axis)]
    style.log_axis(axes, "x", min(values), max(values))
    axes.set_xlabel("training seconds (log)" if axis == "seconds" else "optimizer steps (log)")
    if of == LOSS:
        axes.set_ylabel(f"validation loss ({study.kind.loss_unit})")
        _add_perplexity(axes)
    else:
        axes.set_ylabel("approx_bleu (0 to 1; subwords, given the true prefix)")
    title = "layers x hidden (parameters)"
    figure.legend(loc="outside lower left", ncols=4, title=title, alignment="left")
    return figure


def _add_perplexity(axes: Axes) -> None:
    # The right axis keeps the scale of the loss and only writes its ticks as perplexities, because
    # matplotlib evaluates a true function scale outside the limits too, where exp overflows.
    perplexity = axes.secondary_yaxis("right", functions=(lambda loss: loss, lambda loss: loss))
    ticks = style.round_ticks(*(math.exp(min(limit, 60.0)) for limit in axes.get_ylim()))
    perplexity.yaxis.set_major_locator(FixedLocator([math.log(tick) for tick in ticks]))
    perplexity.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: count_label(math.exp(loss))))
    perplexity.set_ylabel("perplexity")
    perplexity.spines["right"].set_visible(False)


def score_against(study: Study, task: str, cost: str) -> Figure:
    """Score of every model of a task against its cost, with the Pareto frontier.

    Args:
      study: one kind's part of a study.
      task: name of the task.
      cost: "megabytes" or "nonzero" (parameters).
    """
    figure, axes = style.new_figure(9.4, 5.2)
    models = [model for model in study.models if model.task == task]
    recipes = recipes_of(study.models)
    colors, markers = style.size_colors(study.sizes), style.recipe_markers(recipes)
    for model in models:
        color, score = colors[model.size], model.score
        look = {"fmt": markers[model.recipe], "mfc": color if model.pretrained else "white"}
        yerr = 100 * score.std if score.n > 1 else None
        x, y = getattr(model, cost), 100 * score.mean
        style.mark(axes, x, y, color, **look, yerr=yerr, ms=6.5, alpha=0.92)
    costs = [getattr(model, cost) for model in models]
    values = [100 * model.score.mean for model in models]
    style.log_axis(axes, "x", min(costs), max(costs))
    frontier = [(costs[index], values[index]) for index in pareto(costs, values)]
    ends = [*frontier, (axes.get_xlim()[1], frontier[-1][1])]
    axes.step(*zip(*ends, strict=True), where="post", color=style.INK, lw=1, ls=_DASHES, zorder=2)
    axes.plot(*zip(*frontier, strict=True), "o", color=style.INK, ms=13, mfc="none", zorder=4)
    unit = "packed artifact (MB = 10⁶ bytes, log)"
    axes.set_xlabel(unit if cost == "megabytes" else "non-zero parameters (log)")
    axes.set_ylabel(study.kind.heading)

    labels, used = recipe_labels(recipes), {model.recipe for model in models}
    heading = {"marker": "", "color": "none"}
    sizes = sorted({model.size for model in models})
    entries = [style.handle("size (parameters)", **heading)]
    entries += [style.handle(size_label(size), color=colors[size]) for size in sizes]
    entries.append(style.handle("\nrecipe", **heading))
    entries += [style.handle(labels[r], markers[r]) for r in recipes if r in used]
    entries.append(style.handle("", **heading))
    if any(not model.pretrained for model in models):
        entries.append(style.handle("from scratch", face="white"))
    line = Line2D([], [], color=style.INK, lw=1, ls=_DASHES, label="Pareto frontier")
    legend = figure.legend(handles=[*entries, line], loc="outside right upper")
    for text in legend.get_texts():
        if text.get_text().strip() in ("size (parameters)", "recipe"):
            text.set_fontweight("bold")
    return figure


def score_lost(study: Study, task: str) -> Figure:
    """Points of the score lost by recipe, sizes side by side."""
    models = [model for model in study.models if model.task == task and model.pretrained]
    sizes = sorted({model.size for model in models})
    recipes = [recipe for recipe in recipes_of(models) if recipe != "dense"]
    labels, colors = recipe_labels(recipes), style.size_colors(study.sizes)
    figure, axes = style.new_figure(6.4, 1.9 + 0.34 * len(recipes))
    dense = study.by_size(task)
    for model in models:
        if model.recipe == "dense" or model.size not in dense:
            continue
        base = dense[model.size].scores
        drops = [100 * (base[seed] - value) for seed, value in model.scores.items() if seed in base]
        if not drops:
            continue
        found = summarize(drops)
        offset = 0.6 * ((sizes.index(model.size) + 0.5) / len(sizes) - 0.5)
        row, xerr = recipes.index(model.recipe) + offset, found.std if found.n > 1 else None
        style.mark(axes, found.mean, row, colors[model.size], xerr=xerr, ms=5.5)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    _name_rows(axes, [labels[recipe] for recipe in recipes])
    axes.set_xlabel(f"{study.kind.score} lost ({study.kind.points})")
    handles = [style.handle(size_label(size), color=colors[size]) for size in sizes]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _twins(study: Study, task: str) -> list[tuple[Size, Model, Model]]:
    """Each size with its pretrained and its never pretrained dense model, where it has both."""
    pretrained, scratch = study.by_size(task), study.by_size(task, pretrained=False)
    return [(size, pretrained[size], scratch[size]) for size in pretrained if size in scratch]


def pretrained_and_scratch(study: Study, task: str) -> Figure:
    """Dense score of each size on a task, pretrained (filled) and from scratch (hollow)."""
    colors, twins = style.size_colors(study.sizes), _twins(study, task)
    figure, axes = style.new_figure(6.4, 1.9 + 0.5 * len(twins))
    for place, (size, *models) in enumerate(twins):
        ends = [100 * model.score.mean for model in models]
        axes.plot(ends, [place, place], color=colors[size], linewidth=1.2)
        for model, face in zip(models, (colors[size], "white"), strict=True):
            xerr = 100 * model.score.std if model.score.n > 1 else None
            x = 100 * model.score.mean
            style.mark(axes, x, place, colors[size], mfc=face, xerr=xerr, ms=7)
    _name_rows(axes, [size_label(size) for size, *_ in twins])
    axes.set_xlabel(study.kind.heading)
    handles = [style.handle("pretrained"), style.handle("from scratch", face="white")]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure
