"""The figures of a report: functions from one kind's part of a study to a matplotlib figure.

The main figures have an interactive version too, a chart: the JSON that templates/explore.js draws.
Axes, ticks and markers are read off the matplotlib figure, so the script formats no numbers and
both versions look alike. A chart has the axes `x` and `y` and a list of series; a series names its
size and recipe (places in `filters`), and each of its points is [x, y, deviation, text].
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from tlc_jax.report import axis_figures, style
from tlc_jax.report.labels import count_label, counted, model_label, recipes_of, size_label
from tlc_jax.statistics.curves import (
    LOSS,
    Curve,
    Quantity,
    by_size,
    mean_curve,
    measured,
)
from tlc_jax.statistics.frontier import group, pareto, summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.records import Study

Chart = dict[str, Any]

_DASHES = (0, (4, 2))
_COSTS = {
    "seconds": "training seconds (log)",
    "steps": "optimizer steps (log)",
    "flops": "training FLOPs (log)",
}
_WIDE = ("megabytes", "nonzero", "depth_width", "instances-compressed", *axis_figures.WIDE)
_MOST_POINTS = 80  # of one line: more cannot be told apart, and make the page large


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure on disk.

    Attributes:
      path: its PNG.
      what: name of its title and caption in templates/captions.html.
      kind, task: kind of model and task that it shows.
      axis, settings: axis of the study that it shows, and the settings that this axis changes.
      chart: its interactive version; None where the PNG is all.
    """

    path: Path
    what: str
    kind: Kind = ENCODER
    task: str = ""
    chart: Chart | None = None
    axis: str = ""
    settings: tuple[str, ...] = ()

    @property
    def wide(self) -> bool:
        return self.what in _WIDE


def draw_all(study: Study, folder: Path) -> list[Drawn]:
    """Writes every figure that the study has data for into `folder`."""
    with matplotlib.rc_context(style.RC):
        return [
            Drawn(style.save(figure, folder / f"{name}.png"), what, kind, task, **more)
            for kind in study.kinds
            for name, what, task, figure, more in _figures(study.of(kind))
        ]


def _figures(study: Study) -> Iterator[tuple[str, str, str, Figure, dict[str, Any]]]:
    """Yields the file name, the name of the caption, the task and the figure of each figure.

    Last are the other fields of `Drawn`.
    """
    # Yielded one by one, so that each figure is saved and freed before the next one is drawn.
    prefix = "translation_" if study.kind == TRANSLATOR else ""
    for of in measured(study.curves):
        for axis in _COSTS:
            if not _known(study, axis):
                continue
            what = f"{'loss' if of == LOSS else of.name}_{axis}"
            figure = training_curves(study, axis, of)
            chart = _chart(figure, _curves(study, axis, of))
            yield f"{prefix}{what}", what, "", figure, {"chart": chart}
    if shapes := same_shape(study):
        yield f"{prefix}depth_width", "depth_width", "", depth_and_width(study, shapes), {}
    for task in study.tasks:
        name = _file_name(task)
        for cost in ("megabytes", "nonzero"):
            figure = score_against(study, task, cost)
            chart = _chart(figure, _scores(study, task, cost)) | {"frontier": True}
            yield f"{study.kind.score.lower()}_{cost}-{name}", cost, task, figure, {"chart": chart}
        if any(model.recipe != "dense" for model in study.models if model.task == task):
            yield f"lost-{name}", "lost", task, score_lost(study, task), {}
        if study.by_size(task).keys() & study.by_size(task, pretrained=False).keys():
            yield f"scratch-{name}", "scratch", task, pretrained_and_scratch(study, task), {}
    for axis, given in study.vary.items():
        settings = {"axis": axis, "settings": axis_figures.settings_of(given)}
        for what, task, figure in axis_figures.draw(study, axis):
            name = _file_name("-".join(filter(None, (prefix + what, axis, task))))
            yield name, what, task, figure, settings


def _file_name(name: str) -> str:
    # A task may be named like tfds:glue/mnli, which a file cannot be.
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def filters(study: Study) -> dict[str, list[dict[str, str]]]:
    """Lists the sizes and recipes of one kind with their label, color and marker."""
    recipes = recipes_of(study.models)
    markers, circle = style.recipe_markers(recipes), style.marker_outline("o")
    return {
        "size": [
            {"label": size_label(size), "color": color, "marker": circle}
            for size, color in style.size_colors(study.sizes).items()
        ],
        "recipe": [
            {"label": label, "color": style.INK, "marker": style.marker_outline(markers[recipe])}
            for recipe, label in recipes.items()
        ],
    }


def _chart(figure: Figure, series: Iterable[dict[str, Any]]) -> Chart:
    axes = figure.axes[0]
    return {"x": _axis(axes.xaxis), "y": _axis(axes.yaxis), "series": list(series)}


def _axis(axis: Axis) -> dict[str, Any]:
    low, high = axis.get_view_interval()
    # Locators return ticks outside of the limits too, which matplotlib only hides.
    ticks = [float(tick) for tick in axis.get_majorticklocs() if low <= tick <= high]
    labels = axis.get_major_formatter().format_ticks(ticks)
    return {
        "label": axis.get_label_text(),
        "log": axis.get_scale() == "log",
        "limits": [float(low), float(high)],
        "ticks": list(zip(ticks, labels, strict=True)),
    }


def _point(x: float, y: float, deviation: float, *lines: str) -> list[Any]:
    return [*(float(f"{number:.5g}") for number in (x, y, deviation)), "\n".join(lines)]


def training_curves(study: Study, axis: str, of: Quantity = LOSS) -> Figure:
    """Draws the validation loss, with perplexity on the right, or approx_bleu of every size.

    Args:
      study: one kind's part of a study.
      axis: "seconds", "steps" or "flops".
      of: quantity on the vertical axis.
    """
    figure, axes = style.new_figure(6.4, 4.5)
    colors = style.size_colors(study.sizes)
    known = _known(study, axis)
    for size, curves in by_size(known).items():
        style.band(axes, *mean_curve(curves, axis, of), colors[size], label=size_label(size))
    values = [value for curve in known for value in getattr(curve, axis)]
    style.log_axis(axes, "x", min(values), max(values))
    axes.set_xlabel(_COSTS[axis])
    if of == LOSS:
        axes.set_ylabel(f"validation loss ({study.kind.loss_unit})")
        _add_perplexity(axes)
    else:
        axes.set_ylabel("approx_bleu (0 to 1; subwords, given the true prefix)")
    title = "layers x hidden (parameters)"
    figure.legend(loc="outside lower left", ncols=4, title=title, alignment="left")
    return figure


def _curves(study: Study, axis: str, of: Quantity) -> Iterator[dict[str, Any]]:
    """Yields the series of `training_curves`."""
    for size, curves in by_size(_known(study, axis)).items():
        costs, found = mean_curve(curves, axis, of)
        # Evenly, with the first and the last evaluation; unique, as a curve may have fewer points.
        kept = np.unique(np.linspace(0, len(costs) - 1, _MOST_POINTS).astype(int))
        points = []
        for cost, value in ((costs[place], found[place]) for place in kept):
            text = f"{of.name} {value.written('.3f')}{of.unit}"
            if of == LOSS:
                text += f", perplexity {math.exp(value.mean):.4g}"
            form = ".3g" if cost < 100 or axis == "flops" else ",.0f"
            seeds = f"at {cost:{form}} {axis}, {counted(value.n, 'seed')}"
            points.append(_point(cost, value.mean, value.std, size_label(size), text, seeds))
        yield {"size": study.sizes.index(size), "points": points}


def _known(study: Study, axis: str) -> list[Curve]:
    """The curves that have a cost: not every run reports its FLOPs."""
    return [curve for curve in study.curves if getattr(curve, axis)]


def same_shape(study: Study) -> dict[str, list[Size]]:
    """Returns the most trained sizes of one width, and of one depth, under the title of a panel.

    Left out is what fewer than two sizes share. Of as many, those with most parameters count.
    """
    sizes, found = list(by_size(study.curves)), {}
    for field, title in (("hidden", "Depth, at width {}"), ("layers", "Width, at {} layers")):
        groups = group(sizes, operator.attrgetter(field))
        value = max(groups, key=lambda value: (len(groups[value]), groups[value][-1]), default=0)
        if len(groups.get(value, ())) > 1:
            found[title.format(value)] = groups[value]
    return found


def depth_and_width(study: Study, shapes: Mapping[str, Sequence[Size]]) -> Figure:
    """Draws loss against steps, a panel for each group of sizes of `same_shape`."""
    figure, panels = style.new_panels(list(shapes), columns=2)
    curves, colors = by_size(study.curves), style.size_colors(study.sizes)
    for axes, sizes in zip(panels, shapes.values(), strict=True):
        for size in sizes:
            found = mean_curve(curves[size], "steps")
            style.band(axes, *found, colors[size], label=size_label(size))
        steps = [step for size in sizes for curve in curves[size] for step in curve.steps]
        style.log_axis(axes, "x", min(steps), max(steps))
        axes.set_xlabel(_COSTS["steps"])
        axes.legend()
    panels[0].set_ylabel(f"validation loss ({study.kind.loss_unit})")
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
    """Draws the score of every model of a task against its cost, with the Pareto frontier.

    Args:
      study: one kind's part of a study.
      task: name of the task.
      cost: "megabytes" or "nonzero" (parameters).
    """
    figure, axes = style.new_figure(9.4, 5.2)
    models = [model for model in study.models if model.task == task]
    recipes = recipes_of(study.models)
    colors, markers = style.size_colors(study.sizes), style.recipe_markers(recipes)
    costs = [getattr(model, cost) for model in models]
    scores = [model.points.mean for model in models]
    for model, x, y in zip(models, costs, scores, strict=True):
        look: dict[str, Any] = {"fmt": markers[model.recipe], "ms": 6.5, "alpha": 0.92}
        look["mfc"] = colors[model.size] if model.pretrained else "white"
        style.mark(axes, x, y, colors[model.size], yerr=model.points.std, **look)
    style.log_axis(axes, "x", min(costs), max(costs))
    frontier = [(costs[index], scores[index]) for index in pareto(costs, scores)]
    ends = [*frontier, (axes.get_xlim()[1], frontier[-1][1])]
    axes.step(*zip(*ends, strict=True), where="post", color=style.INK, lw=1, ls=_DASHES, zorder=2)
    # Large and above the marks, so that a ring shows around any marker.
    axes.plot(*zip(*frontier, strict=True), "o", color=style.INK, ms=13, mfc="none", zorder=4)
    unit = "packed artifact (MB = 10⁶ bytes, log)"
    axes.set_xlabel(unit if cost == "megabytes" else "non-zero parameters (log)")
    axes.set_ylabel(study.kind.heading)

    used = {model.recipe for model in models}
    # One legend with two headings: two legends outside the axes would lie on each other.
    heading = {"marker": "", "color": "none"}
    entries = [style.handle("size (parameters)", **heading)]
    sizes = sorted({model.size for model in models})
    entries += [style.handle(size_label(size), color=colors[size]) for size in sizes]
    entries.append(style.handle("\nrecipe", **heading))
    entries += [style.handle(recipes[r], markers[r]) for r in recipes if r in used]
    entries.append(style.handle("", **heading))
    if any(not model.pretrained for model in models):
        entries.append(style.handle("from scratch", face="white"))
    line = Line2D([], [], color=style.INK, lw=1, ls=_DASHES, label="Pareto frontier")
    legend = figure.legend(handles=[*entries, line], loc="outside right upper")
    for text in legend.get_texts():
        if text.get_text().strip() in ("size (parameters)", "recipe"):
            text.set_fontweight("bold")
    return figure


def _scores(study: Study, task: str, cost: str) -> Iterator[dict[str, Any]]:
    """Yields the series of `score_against`, one per model."""
    recipes = recipes_of(study.models)
    for model in (model for model in study.models if model.task == task):
        score = model.points
        lines = [
            model_label(model, recipes),
            f"{study.kind.score} {score.written('.1f')} {study.kind.unit}, "
            f"{counted(score.n, 'seed')}",
            f"{model.megabytes:.3g} MB, {count_label(model.nonzero)} non-zero of "
            f"{count_label(model.size.params)} parameters",
        ]
        yield {
            "size": study.sizes.index(model.size),
            "recipe": list(recipes).index(model.recipe),
            "hollow": not model.pretrained,
            "points": [_point(getattr(model, cost), score.mean, score.std, *lines)],
        }


def score_lost(study: Study, task: str) -> Figure:
    """Draws the points of the score lost by recipe, sizes side by side."""
    models = [model for model in study.models if model.task == task and model.pretrained]
    sizes = sorted({model.size for model in models})
    recipes = {recipe: label for recipe, label in recipes_of(models).items() if recipe != "dense"}
    colors = style.size_colors(study.sizes)
    figure, axes = style.new_figure(6.4, 1.9 + 0.34 * len(recipes))
    for row, recipe in enumerate(recipes):
        for size, drops in study.drops(task, recipe).items():
            lost = summarize(100 * drop for drop in drops.values())
            offset = 0.6 * ((sizes.index(size) + 0.5) / len(sizes) - 0.5)
            style.mark(axes, lost.mean, row + offset, colors[size], xerr=lost.std, ms=5.5)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    style.name_rows(axes, list(recipes.values()))
    axes.set_xlabel(f"{study.kind.score} lost ({study.kind.points})")
    handles = [style.handle(size_label(size), color=colors[size]) for size in sizes]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    return figure


def pretrained_and_scratch(study: Study, task: str) -> Figure:
    """Draws the dense score of each size, pretrained (filled) and from scratch (hollow)."""
    dense, twins = study.by_size(task), study.by_size(task, pretrained=False)
    colors, sizes = style.size_colors(study.sizes), [size for size in dense if size in twins]
    figure, axes = style.new_figure(6.4, 1.9 + 0.5 * len(sizes))
    for row, size in enumerate(sizes):
        color, ends = colors[size], (dense[size].points, twins[size].points)
        axes.plot([end.mean for end in ends], [row, row], color=color, linewidth=1.2)
        for end, face in zip(ends, (color, "white"), strict=True):
            style.mark(axes, end.mean, row, color, xerr=end.std, mfc=face, ms=7)
    style.name_rows(axes, [size_label(size) for size in sizes])
    axes.set_xlabel(study.kind.heading)
    handles = [style.handle("pretrained"), style.handle("from scratch", face="white")]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure
