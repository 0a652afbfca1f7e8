"""The figures of a report, each a function from one kind's part of a study to a matplotlib figure."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from tlc_jax.report import captions, style
from tlc_jax.report.labels import recipe_labels, size_label
from tlc_jax.statistics.curves import LOSS, Curve, Quantity, measured, shared_end, values_at
from tlc_jax.statistics.frontier import group, pareto, summarize
from tlc_jax.statistics.kinds import Size
from tlc_jax.statistics.records import Model, Study


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure on disk, with what the page says about it."""

    path: Path
    title: str
    caption: str
    wide: bool = False


def draw_all(study: Study, folder: Path) -> list[Drawn]:
    """Writes every figure that the study has data for into `folder`."""
    with matplotlib.rc_context(style.RC):
        return [drawn for kind in study.kinds for drawn in _draw_kind(study.of(kind), folder)]


def _draw_kind(study: Study, folder: Path) -> list[Drawn]:
    kind, drawn = study.kind, list[Drawn]()

    def add(name: str, figure: Figure, title: str, caption: str, wide: bool = False) -> None:
        drawn.append(Drawn(style.save(figure, folder / f"{name}.png"), title, caption, wide))

    for caption in captions.CURVES[kind]:
        if caption.of in measured(study.curves):
            add(
                caption.name,
                training_curves(study, caption.axis, caption.of),
                caption.title,
                caption.text,
            )
    for task in study.tasks:
        name, score = re.sub(r"[^A-Za-z0-9._-]+", "-", task), kind.score.lower()
        title = f"{task}: {kind.score}"
        figure = score_against(study, task, "megabytes")
        add(
            f"{score}_megabytes-{name}",
            figure,
            f"{title} against size",
            captions.MEGABYTES[kind],
            wide=True,
        )
        figure = score_against(study, task, "nonzero")
        add(
            f"{score}_nonzero-{name}",
            figure,
            f"{title} against non-zero parameters",
            captions.NONZERO,
            wide=True,
        )
        if any(model.recipe != "dense" for model in study.models if model.task == task):
            add(
                f"lost-{name}",
                score_lost(study, task),
                f"{title} lost to compression",
                captions.lost(kind),
            )
        if _twins(study, task):
            figure = pretrained_and_scratch(study, task)
            add(f"scratch-{name}", figure, f"{task}: pretrained and from scratch", captions.SCRATCH)
    return drawn


def training_curves(study: Study, axis: str, of: Quantity = LOSS) -> Figure:
    """Validation loss (with perplexity on the right) or approx_bleu of every size; `axis` is "seconds" or "steps"."""
    figure, axes = style.new_figure(6.4, 4.5)
    colors = style.size_colors(study.sizes)
    for size, curves in sorted(group(study.curves, lambda curve: curve.size).items()):
        costs, means, stds = _mean_curve(curves, axis, of)
        axes.plot(costs, means, color=colors[size], linewidth=1.8, label=size_label(size))
        axes.plot(costs[-1:], means[-1:], "o", color=colors[size], markersize=4)
        if len(curves) > 1:
            below, above = (
                [m + sign * s for m, s in zip(means, stds, strict=True)] for sign in (-1, 1)
            )
            axes.fill_between(costs, below, above, color=colors[size], alpha=0.18, linewidth=0)
    values = [value for curve in study.curves for value in getattr(curve, axis)]
    style.log_axis(axes, "x", min(values), max(values))
    axes.set_xlabel("training seconds (log)" if axis == "seconds" else "optimizer steps (log)")
    if of == LOSS:
        axes.set_ylabel(f"validation loss ({study.kind.loss_unit})")
        _add_perplexity(axes)
    else:
        axes.set_ylabel("approx_bleu (0 to 1; subwords, given the true prefix)")
    figure.legend(
        loc="outside lower left", ncols=4, title="layers x hidden (parameters)", alignment="left"
    )
    return figure


def _add_perplexity(axes: Axes) -> None:
    perplexity = axes.secondary_yaxis("right", functions=(lambda loss: loss, lambda loss: loss))
    low, high = (math.exp(min(limit, 60.0)) for limit in axes.get_ylim())
    perplexity.yaxis.set_major_locator(
        FixedLocator([math.log(tick) for tick in style.round_ticks(low, high)])
    )
    perplexity.yaxis.set_major_formatter(
        FuncFormatter(lambda loss, _: style.plain_number(math.exp(loss)))
    )
    perplexity.set_ylabel("perplexity")
    perplexity.spines["right"].set_visible(False)


def _mean_curve(
    curves: Sequence[Curve], axis: str, of: Quantity
) -> tuple[list[float], list[float], list[float]]:
    """Costs that all seeds reached, with mean and deviation of what they measured there."""
    start, end = max(getattr(curve, axis)[0] for curve in curves), shared_end(curves, axis)
    costs = sorted(
        {float(c) for curve in curves for c in getattr(curve, axis) if start <= c <= end} or {end}
    )
    found = [summarize(values_at(curves, axis, cost, of)) for cost in costs]
    return costs, [summary.mean for summary in found], [summary.std for summary in found]


def score_against(study: Study, task: str, cost: str) -> Figure:
    """Score of every model of a task against "megabytes" or "nonzero" parameters, with the Pareto frontier."""
    figure, axes = style.new_figure(9.4, 5.2)
    models = [model for model in study.models if model.task == task]
    colors, markers = style.size_colors(study.sizes), _markers(study)
    for model in models:
        color = colors[model.size]
        axes.errorbar(
            getattr(model, cost), 100 * model.score.mean,
            yerr=100 * model.score.std if model.score.n > 1 else None,
            fmt=markers[model.recipe], color=color, markerfacecolor=color if model.pretrained else "white",
            markersize=6.5, markeredgewidth=1.2, elinewidth=1, capsize=2.5, alpha=0.92, zorder=3,
        )  # fmt: skip
    costs, values = (
        [getattr(model, cost) for model in models],
        [100 * model.score.mean for model in models],
    )
    style.log_axis(axes, "x", min(costs), max(costs))
    _draw_frontier(axes, costs, values)
    axes.set_xlabel(
        "packed artifact (MB = 10⁶ bytes, log)"
        if cost == "megabytes"
        else "non-zero parameters (log)"
    )
    axes.set_ylabel(study.kind.heading)
    _legends(figure, study, models)
    return figure


def _draw_frontier(axes: Axes, costs: Sequence[float], values: Sequence[float]) -> None:
    frontier = pareto(costs, values)
    x, y = [costs[index] for index in frontier], [values[index] for index in frontier]
    right = axes.get_xlim()[1]
    axes.step(
        [*x, right],
        [*y, y[-1]],
        where="post",
        color=style.INK,
        linewidth=1,
        linestyle=(0, (4, 2)),
        zorder=2,
    )
    axes.plot(
        x,
        y,
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=style.INK,
        markeredgewidth=1,
        zorder=4,
    )


def _markers(study: Study) -> dict[str, str]:
    return style.recipe_markers(_recipes(study.models))


def _recipes(models: Sequence[Model]) -> list[str]:
    """Recipes from the lightest to the heaviest: dense first, then by what is left of each parameter."""
    left = {model.recipe: (1 - model.sparsity) * model.bits for model in models}
    return sorted(left, key=lambda recipe: (recipe != "dense", -left[recipe], recipe))


def _legends(figure: Figure, study: Study, models: Sequence[Model]) -> None:
    colors, markers, labels = (
        style.size_colors(study.sizes),
        _markers(study),
        recipe_labels(_recipes(study.models)),
    )
    sizes = sorted({model.size for model in models})
    entries: list[Line2D] = [Line2D([], [], linestyle="none", label="size (parameters)")]
    entries += [
        Line2D([], [], color=colors[s], marker="o", linestyle="none", label=size_label(s))
        for s in sizes
    ]
    entries.append(Line2D([], [], linestyle="none", label="\nrecipe"))
    recipes = [
        recipe
        for recipe in _recipes(study.models)
        if any(model.recipe == recipe for model in models)
    ]
    entries += [
        Line2D([], [], color=style.INK, marker=markers[r], linestyle="none", label=labels[r])
        for r in recipes
    ]
    entries.append(Line2D([], [], linestyle="none", label=""))
    if any(not model.pretrained for model in models):
        entries.append(
            Line2D(
                [],
                [],
                color=style.INK,
                marker="o",
                markerfacecolor="white",
                linestyle="none",
                label="from scratch",
            )
        )
    entries.append(
        Line2D([], [], color=style.INK, linewidth=1, linestyle=(0, (4, 2)), label="Pareto frontier")
    )
    legend = figure.legend(handles=entries, loc="outside right upper")
    for text in legend.get_texts():
        if text.get_text().strip() in ("size (parameters)", "recipe"):
            text.set_fontweight("bold")


def score_lost(study: Study, task: str) -> Figure:
    """Points of the score lost by recipe, sizes side by side."""
    models = [model for model in study.models if model.task == task and model.pretrained]
    sizes = sorted({model.size for model in models})
    recipes = [recipe for recipe in _recipes(models) if recipe != "dense"]
    labels, colors = recipe_labels(recipes), style.size_colors(study.sizes)
    figure, axes = style.new_figure(6.4, 1.9 + 0.34 * len(recipes))
    dense = {model.size: model for model in models if model.recipe == "dense"}
    for model in models:
        if model.recipe == "dense" or model.size not in dense:
            continue
        base = dense[model.size].scores
        drops = [100 * (base[seed] - value) for seed, value in model.scores.items() if seed in base]
        if not drops:
            continue
        found = summarize(drops)
        offset = 0.6 * ((sizes.index(model.size) + 0.5) / len(sizes) - 0.5)
        axes.errorbar(
            found.mean, recipes.index(model.recipe) + offset, xerr=found.std if found.n > 1 else None,
            fmt="o", color=colors[model.size], markersize=5.5, elinewidth=1, capsize=2,
        )  # fmt: skip
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.set_yticks(range(len(recipes)), [labels[recipe] for recipe in recipes])
    axes.set_ylim(len(recipes) - 0.5, -0.5)
    axes.set_xlabel(f"{study.kind.score} lost ({study.kind.points})")
    handles = [
        Line2D([], [], color=colors[s], marker="o", linestyle="none", label=size_label(s))
        for s in sizes
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    return figure


def _twins(study: Study, task: str) -> list[tuple[Size, Model, Model]]:
    """Each size that has dense models of both kinds, with them: pretrained, from scratch."""
    dense = {
        (m.size, m.pretrained): m for m in study.models if m.task == task and m.recipe == "dense"
    }
    return [
        (size, dense[size, True], dense[size, False])
        for size in study.sizes
        if (size, True) in dense and (size, False) in dense
    ]


def pretrained_and_scratch(study: Study, task: str) -> Figure:
    """Dense score of each size on a task, pretrained (filled) and from scratch (hollow)."""
    colors, twins = style.size_colors(study.sizes), _twins(study, task)
    figure, axes = style.new_figure(6.4, 1.9 + 0.5 * len(twins))
    for place, (size, *models) in enumerate(twins):
        scores = [model.score for model in models]
        axes.plot(
            [100 * found.mean for found in scores],
            [place, place],
            color=colors[size],
            linewidth=1.2,
        )
        for found, face in zip(scores, (colors[size], "white"), strict=True):
            axes.errorbar(
                100 * found.mean, place, xerr=100 * found.std if found.n > 1 else None, fmt="o", color=colors[size],
                markerfacecolor=face, markersize=7, elinewidth=1, capsize=3, zorder=3,
            )  # fmt: skip
    axes.set_yticks(range(len(twins)), [size_label(size) for size, *_ in twins])
    axes.set_ylim(len(twins) - 0.5, -0.5)
    axes.set_xlabel(study.kind.heading)
    filled = Line2D([], [], color=style.INK, marker="o", linestyle="none", label="pretrained")
    hollow = Line2D(
        [],
        [],
        color=style.INK,
        marker="o",
        fillstyle="none",
        linestyle="none",
        label="from scratch",
    )
    figure.legend(handles=[filled, hollow], loc="outside lower left", ncols=2)
    return figure
