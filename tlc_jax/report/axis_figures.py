"""The figures of the axes of a study: what the values of study.vary change, one axis at a time.

Points that change several axes at once are left out: their effects cannot be told apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlc_jax.report import style
from tlc_jax.report.labels import recipe_labels, recipes_of, size_label
from tlc_jax.statistics.curves import (
    Curve,
    alike,
    by_size,
    mean_curve,
    shared_end,
    values_at,
)
from tlc_jax.statistics.frontier import Summary, summarize
from tlc_jax.statistics.kinds import Size
from tlc_jax.statistics.records import Model, Study

WIDE = ("axis_curves", "axis_scores", "age")  # figures of several panels

Values = Mapping[str, Study]  # parts of a study by the value of an axis
Models = dict[str, dict[Size, dict[str, Model]]]  # by recipe, size of the base, and value
Ages = dict[str, dict[Size, dict[float, Summary]]]  # by recipe, size, step of the checkpoint
Runs = dict[str, tuple[Size, list[Curve]]]  # of one size, by the value of an axis


def draw(study: Study, axis: str) -> Iterator[tuple[str, str, Figure]]:
    """Yields the name of the caption, the task and the figure of each figure of an axis.

    Args:
      study: one kind's part of a study.
      axis: its name in study.vary.
    """
    values, stage = alone(study, axis), study.vary[axis]["stage"]
    if stage in ("pretrain", "translate"):
        runs = _runs(values)
        if runs:
            yield "axis_curves", "", learning_curves(study, axis, runs)
        if len(runs) > 1:
            yield "axis_end", "", final_losses(study, axis, runs)
        return
    for task in study.tasks:
        models = _models(study, values, task)
        if stage == "checkpoint":
            if ages := _by_age(values, models):
                yield "age", task, lost_by_age(study, ages)
        elif models:
            yield "axis_scores", task, scores_by_value(study, axis, models)


def settings_of(vary: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the settings that an axis changes, such as optimizer.batch_size."""
    parts = [part for value, part in vary.items() if value not in ("stage", "grid")]
    sections = [item for part in parts for item in part.items()]
    names = [
        f"{section}.{name}" if isinstance(given, Mapping) else section
        for section, given in sections
        for name in (given if isinstance(given, Mapping) else [""])
    ]
    return tuple(dict.fromkeys(names))


def alone(study: Study, axis: str) -> Values:
    """Returns the base and the points that change one axis alone, by its value.

    They are ordered by the number that the value begins with, where it does.
    """
    base = study.point
    found = {
        part.point[axis]: part
        for part in (study, *study.varied)
        if axis in part.point and base == {**part.point, axis: base[axis]}
    }

    def order(value: str) -> float:
        number = re.match(r"\d+", value)
        return float(number[0]) if number else math.inf

    return {value: found[value] for value in sorted(found, key=order)}


def _runs(values: Values) -> list[Runs]:
    """The training runs of each size that has at least two values, the smallest size first."""
    # By shape: an axis may change the parameters of a size.
    shapes: dict[tuple[int, int], Runs] = {}
    for value, part in values.items():
        for size, curves in by_size(part.curves).items():
            shapes.setdefault((size.layers, size.hidden), {})[value] = (size, curves)
    several = [runs for runs in shapes.values() if len(runs) > 1]
    return sorted(several, key=lambda runs: min(size for size, _ in runs.values()))


def learning_curves(study: Study, axis: str, runs: list[Runs]) -> Figure:
    """Draws loss against training seconds, a panel per size and a line per value of the axis."""
    base = study.point[axis]
    sizes = ((of_size.get(base) or next(iter(of_size.values())))[0] for of_size in runs)
    figure, panels = style.new_panels([size_label(size) for size in sizes])
    looks = _looks(study, axis, runs)
    for axes, of_size in zip(panels, runs, strict=True):
        for value, (_, curves) in of_size.items():
            style.band(axes, *mean_curve(curves, "seconds"), **looks[value])
        seconds = [cost for _, curves in of_size.values() for one in curves for cost in one.seconds]
        style.log_axis(axes, "x", min(seconds), max(seconds))
        axes.set_xlabel("training seconds (log)")
    _label_first(panels, f"validation loss\n({study.kind.loss_unit})")
    _legend(figure, axis, looks)
    return figure


def final_losses(study: Study, axis: str, runs: list[Runs]) -> Figure:
    """Draws the loss at the end of the shared budget against parameters, by value.

    Where budgets differ, as on an axis that changes them, each run counts at its own end.
    """
    figure, axes = style.new_figure(6.4, 4.5)
    looks = _looks(study, axis, runs)
    every = [curve for of_size in runs for _, curves in of_size.values() for curve in curves]
    # A run is compared where its learning rate has decayed.
    unit = next((unit for unit in ("seconds", "steps") if alike(every, unit)), "")
    end = shared_end(every, unit) if unit else 0.0
    all_params = []
    for value, look in looks.items():
        found = [of_size[value] for of_size in runs if value in of_size]
        # Of the trained model: some values may lack all others.
        params = [curves[0].result.get("params") or size.params for size, curves in found]
        losses = [
            values_at(curves, unit, end) if unit else [curve.losses[-1] for curve in curves]
            for _, curves in found
        ]
        _line(axes, params, [summarize(of_seeds) for of_seeds in losses], look)
        all_params += params
    style.log_axis(axes, "x", min(all_params), max(all_params))
    axes.set_xlabel("parameters (log)")
    written = f"{end:,.0f}" if end >= 100 else f"{end:.3g}"
    at = f"at {written} {unit}" if unit else "at the end of each run"
    axes.set_ylabel(f"validation loss ({study.kind.loss_unit})\n{at}")
    _legend(figure, axis, looks)
    return figure


def _models(study: Study, values: Values, task: str) -> Models:
    """The pretrained models of a task that there are at several values, the lightest last."""
    # By shape: an axis may change the parameters of a size.
    bases = {(size.layers, size.hidden): size for size in study.sizes}
    found: Models = {}
    for value, part in values.items():
        for model in part.models:
            base = bases.get((model.size.layers, model.size.hidden))
            if base and model.task == task and model.pretrained:
                found.setdefault(model.recipe, {}).setdefault(base, {})[value] = model
    several = {
        recipe: {size: models for size, models in sizes.items() if len(models) > 1}
        for recipe, sizes in found.items()
    }
    order = recipes_of([model for part in values.values() for model in part.models])
    return {recipe: several[recipe] for recipe in order if several.get(recipe)}


def scores_by_value(study: Study, axis: str, models: Models) -> Figure:
    """Draws the score of each size by the value of the axis, a panel per recipe."""
    figure, panels = style.new_panels(list(recipe_labels(models).values()))
    colors = style.size_colors(study.sizes)
    rows = [
        value
        for value in alone(study, axis)
        if any(value in found for sizes in models.values() for found in sizes.values())
    ]
    for axes in panels[1:]:
        axes.sharex(panels[0])
    for axes, sizes in zip(panels, models.values(), strict=True):
        for size, found in sizes.items():
            # Side by side, so that no error bar hides another.
            offset = 0.4 * ((study.sizes.index(size) + 0.5) / len(colors) - 0.5)
            ys = [rows.index(value) + offset for value in found]
            scores = [model.points for model in found.values()]
            axes.plot([score.mean for score in scores], ys, color=colors[size], linewidth=1.2)
            for score, y in zip(scores, ys, strict=True):
                style.mark(axes, score.mean, y, colors[size], xerr=score.std, ms=5)
        axes.set_xlabel(study.kind.heading)
    style.name_rows(panels[0], list(_names(study, axis, rows).values()))
    _label_first(panels, axis)
    _size_legend(figure, colors, models)
    return figure


def _by_age(values: Values, models: Models) -> Ages:
    """The dense score, and the score lost to each other recipe, by step of the checkpoint."""
    ages: Ages = {}
    for recipe, sizes in models.items():
        for size, found in sizes.items():
            points = {}
            for value, model in found.items():
                drops = values[value].drops(model.task, recipe).get(model.size, {})
                lost, steps = (
                    summarize(100 * drop for drop in drops.values()),
                    model.summary("steps"),
                )
                score = model.points if recipe == "dense" else lost
                if score.n and steps.n:
                    points[steps.mean] = score
            if len(points) > 1:
                ages.setdefault(recipe, {})[size] = dict(sorted(points.items()))
    return ages


def lost_by_age(study: Study, ages: Ages) -> Figure:
    """Draws the dense score by the step of the checkpoint, and the score lost to each recipe."""
    kind, colors = study.kind, style.size_colors(study.sizes)
    titles = [
        f"{label}: {kind.score}{'' if recipe == 'dense' else ' lost'}"
        for recipe, label in recipe_labels(ages).items()
    ]
    figure, panels = style.new_panels(titles, shared=False)
    lost = [panel for panel, recipe in zip(panels, ages, strict=True) if recipe != "dense"]
    for axes in lost[1:]:
        axes.sharey(lost[0])
    for axes, (recipe, sizes) in zip(panels, ages.items(), strict=True):
        for size, points in sizes.items():
            _line(axes, list(points), list(points.values()), {"color": colors[size]})
        axes.set_ylabel(kind.unit if recipe == "dense" else kind.points)
        axes.set_xlabel("optimizer steps of the checkpoint")
    for axes in lost:
        axes.axhline(0, color=style.INK, linewidth=0.8)
    _size_legend(figure, colors, ages)
    return figure


def _names(study: Study, axis: str, values: Iterable[str]) -> dict[str, str]:
    base = study.point[axis]
    return {value: f"{value} (base)" if value == base else value for value in values}


def _looks(study: Study, axis: str, runs: list[Runs]) -> dict[str, dict[str, Any]]:
    """The color and label of each value of an axis."""
    values = [value for value in alone(study, axis) if any(value in one for one in runs)]
    names = _names(study, axis, values)
    return {
        value: {"color": color, "label": names[value]}
        for value, color in style.colors(values, "plasma").items()
    }


def _line(
    axes: Axes, xs: Sequence[float], found: Sequence[Summary], look: Mapping[str, Any]
) -> None:
    """Draws means with their deviations, joined by a line."""
    axes.plot(xs, [one.mean for one in found], linewidth=1.4, **look)
    for x, one in zip(xs, found, strict=True):
        style.mark(axes, x, one.mean, look["color"], yerr=one.std, ms=5)


def _label_first(panels: list[Axes], text: str) -> None:
    """Labels the vertical axes of the first column, which the other panels share."""
    for axes in panels:
        if (place := axes.get_subplotspec()) and place.is_first_col():
            axes.set_ylabel(text)


def _legend(figure: Figure, title: str, looks: Mapping[str, Mapping[str, str]]) -> None:
    handles = [style.handle(look["label"], color=look["color"]) for look in looks.values()]
    longest = max(len(look["label"]) for look in looks.values())
    columns = max(1, int(figure.get_figwidth() * 11 / (longest + 5)))
    options: Any = {"loc": "outside lower left", "alignment": "left", "title": title}
    figure.legend(handles=handles, ncols=columns, **options)


def _size_legend(
    figure: Figure, colors: Mapping[Size, str], found: Mapping[str, Mapping[Size, Any]]
) -> None:
    sizes = sorted({size for sizes in found.values() for size in sizes})
    looks = {str(size): {"color": colors[size], "label": size_label(size)} for size in sizes}
    _legend(figure, "layers x hidden (parameters)", looks)
