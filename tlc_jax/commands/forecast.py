"""Forecast the best size for a budget that has not been spent, from short runs of several sizes.

Reads the finished training runs of the study of --init (and of forecast.studies), fits their final
losses by parameters and tokens, and prints for each budget of forecast.seconds the best size, its
expected loss, which sizes are within 0.01 nats of it, and its megabytes under forecast.recipe with
the accuracy that the recipe is expected to cost. It needs three sizes and two budgets, and reaches
ten times what was measured. Speeds are those of the runs, or those of `tlc plan` (forecast.speeds)
for a pod or a GPU. The same forecast is made from the smaller budgets (forecast.backtest) and
compared with the runs of the larger ones. Writes result.json, forecast.csv and forecast.png into
--workdir, by default STUDY/forecast.
"""

from __future__ import annotations

import dataclasses
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, read_json, write_json, write_text
from tlc_jax.core.text import did_you_mean, table
from tlc_jax.report import forecast_figure
from tlc_jax.report.labels import count_label, counted
from tlc_jax.statistics import scaling_law
from tlc_jax.statistics.best_size import (
    BackTest,
    Forecast,
    Option,
    back_test,
    best_sizes,
    within_reach,
)
from tlc_jax.statistics.kinds import KINDS, Kind
from tlc_jax.statistics.recipe_loss import RecipeLoss, fit_recipe
from tlc_jax.statistics.records import Row
from tlc_jax.statistics.scaling_law import LEVEL, Law, Runs
from tlc_jax.study.training_runs import TrainingRun, points_lost, read_rows, read_runs

_MULTIPLES = (1, 3, 10)  # of the longest run, where no budget is given


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the forecast, or why it is refused, and writes result.json, forecast.csv and .png.

    Raises:
      InputError: too few sizes, budgets or runs; or files or the recipe do not exist.
    """
    del options
    settings, kind, notes = config.forecast, KINDS[config.forecast.kind], []  # type: ignore[var-annotated]
    if not config.init.source:
        raise InputError("--init=DIR is missing: name the workdir of a study")
    studies = [path_of(name) for name in (config.init.source, *settings.studies)]
    folder = studies[0] / "forecast" if workdir == Path() else workdir
    found = read_runs(studies, kind, notes)
    runs = Runs(
        *(np.array([getattr(run, name) for run in found], float)
          for name in ("params_nonembedding", "tokens", "loss"))
    )  # fmt: skip
    try:
        runs.require()
    except InputError as error:
        named = ", ".join(map(str, studies))
        raise InputError("; ".join([f"{named}: {error}", *notes])) from None
    sizes = _options(found, settings.speeds, kind, notes)
    recipe = _Recipe.of(read_rows(studies, kind), found, kind, settings.recipe, config.seed)
    rng = np.random.default_rng(config.seed)
    law = scaling_law.fit(runs, rng)
    refused = law.degenerate()
    forecasts: list[Forecast] = []
    if not refused:
        sizes = within_reach(runs, sizes)
        longest = max(run.seconds for run in found)
        budgets = settings.seconds or [multiple * longest for multiple in _MULTIPLES]
        forecasts = best_sizes(law, sizes, budgets)
    seconds_N = np.array([run.seconds for run in found])
    tested = back_test(runs, seconds_N, settings.backtest, rng) if settings.backtest else None
    rows = [_row(one, recipe) for one in forecasts]
    result = {
        "stage": "forecast",
        "kind": kind.name,
        "runs": len(runs),
        "refused": refused,
        "law": law.coefficients,
        "noise": law.noise,
        "level": LEVEL,
        "recipe": settings.recipe,
        "forecasts": rows,
        "backtest": tested and _backtest_fields(tested, found),
        "notes": notes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    for name in ("forecast.csv", "forecast.png"):
        (folder / name).unlink(missing_ok=True)  # of an earlier forecast
    print("\n".join(_summary(law, found, notes)))
    if refused:
        print("", *textwrap.wrap(f"no forecast: {refused}", 100), sep="\n")
    else:
        write_text(folder / "forecast.csv", pd.DataFrame(rows).to_csv(index=False))
        if any(one.option for one in forecasts):
            forecast_figure.draw(law, sizes, forecasts, tested, folder / "forecast.png")
        print(f"\n{_table(forecasts, recipe, kind)}\n")
        for line in _below_table(forecasts, recipe):
            print("\n".join(textwrap.wrap(line, 100)))
    if tested:
        print("\n".join(textwrap.wrap(_backtest_text(tested, found), 100)))
    print(f"\nfiles: {folder}")
    return result


def _options(
    runs: Sequence[TrainingRun], speeds: str, kind: Kind, notes: list[str]
) -> list[Option]:
    """The sizes to choose from: those of the study, or those of a plan with its speeds."""
    if not speeds:
        by_name: dict[str, list[TrainingRun]] = {}
        for one in runs:
            by_name.setdefault(one.name, []).append(one)
        return [
            Option(
                name,
                own[0].params_nonembedding,
                own[0].params,
                statistics.median(run.tokens / run.seconds for run in own),
            )
            for name, own in by_name.items()
        ]
    path = path_of(speeds)
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"forecast.speeds: {path} does not exist: name the workdir of a plan")
    plan = read_json(path)
    if plan.get("stage") != "plan":
        raise InputError(f"forecast.speeds: {path} is not the result of `tlc plan`")
    plans = [one for one in plan["plans"] if one["kind"] == kind.name]
    known = [one for one in plans if one["tokens_per_second"]]
    if not known:
        raise InputError(f"forecast.speeds: {path} has no step time of any {kind.name}")
    notes.append(f"speeds of {plan['devices']} x {plan['device']}, from {path}")
    if len(known) < len(plans):
        notes.append(f"{len(plans) - len(known)} planned sizes have no step time and are left out")
    return [
        Option(
            f"{one['layers']}x{one['hidden']}",
            one["params_nonembedding"],
            one["params"],
            one["tokens_per_second"],
        )
        for one in known
    ]


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """What a recipe leaves and costs.

    Attributes:
      name: the recipe.
      bytes_each: bytes of the artifact per parameter of the whole model, median over the models.
      lost: points of the score that it costs by task; a text says why that is unknown.
    """

    name: str
    bytes_each: float
    lost: Mapping[str, RecipeLoss | str]

    @staticmethod
    def of(
        rows: Sequence[tuple[int, Row]],
        runs: Sequence[TrainingRun],
        kind: Kind,
        name: str,
        seed: int,
    ) -> _Recipe:
        totals: dict[tuple[Any, ...], int] = {}  # recipes may remove parameters
        for _, row in rows:
            shape = row["layers"], row["hidden"], row["task"]
            totals[shape] = max(totals.get(shape, 0), row["params"])
        own = [row for _, row in rows if row["recipe"] == name]
        if not own and name != "dense":
            known = dict.fromkeys(str(row["recipe"]) for _, row in rows)
            raise InputError(
                f"forecast.recipe={name}: the study has none such{did_you_mean(name, known)}"
            )
        ratios = [
            row["bytes_artifact"] / totals[row["layers"], row["hidden"], row["task"]] for row in own
        ]
        bytes_each = statistics.median(ratios) if ratios else 4.0  # float32
        if name == "dense":
            return _Recipe(name, bytes_each, {})
        rng, lost = np.random.default_rng(seed), {}
        for task, points in points_lost(rows, runs, kind, name).items():
            of_runs = [one.run for one in points]
            lost[task] = fit_recipe(
                np.array([run.params_nonembedding for run in of_runs], float),
                np.array([run.tokens for run in of_runs]),
                np.array([one.points for one in points]),
                rng,
            )
        return _Recipe(name, bytes_each, lost)


def _row(forecast: Forecast, recipe: _Recipe) -> dict[str, Any]:
    """The fields of result.json, and the columns of forecast.csv, of one budget."""
    row: dict[str, Any] = {"seconds": forecast.seconds, "beyond": forecast.beyond}
    option = forecast.option
    if option is None:
        return row | {"refused": forecast.refused}
    row |= {"refused": "", "size": option.name, "params": option.total}
    row |= {"params_nonembedding": option.params, "tokens_per_second": option.speed}
    names = """
        tokens loss low high run_low run_high flat best best_low best_high best_loss flat_low
        flat_high edge
    """
    row |= {name: getattr(forecast, name) for name in names.split()}
    row |= {"flat": " ".join(forecast.flat), "recipe": recipe.name}
    row["megabytes"] = recipe.bytes_each * option.total / 1e6
    for task, lost in recipe.lost.items():
        if isinstance(lost, RecipeLoss):
            points = lost.points(option.params, forecast.tokens)
            fields = (f"lost_{task}", f"lost_{task}_low", f"lost_{task}_high")
            row |= dict(zip(fields, points, strict=True))
    return row


def _backtest_fields(tested: BackTest, runs: Sequence[TrainingRun]) -> dict[str, Any]:
    fields: dict[str, Any] = {"refused": tested.refused, "share": tested.share}
    if tested.held_out is None:
        return fields
    names, errors_N = _names(runs), tested.errors_N
    return fields | {
        "fitted": tested.fitted,
        "predicted": len(errors_N),
        "mean_absolute_error": float(np.abs(errors_N).mean()),
        "mean_error": float(errors_N.mean()),
        "largest_error": float(np.abs(errors_N).max()),
        "inside": int(tested.inside_N.sum()),
        "chosen": None if tested.lost is None else names[tested.chosen],
        "best": None if tested.lost is None else names[tested.best],
        "lost_by_choosing": tested.lost,
    }


def _names(runs: Sequence[TrainingRun]) -> dict[float, str]:
    return {float(run.params_nonembedding): run.name for run in runs}


def _summary(law: Law, runs: Sequence[TrainingRun], notes: Sequence[str]) -> list[str]:
    found = law.coefficients
    return [
        f"{counted(len(runs), 'finished run')} of {counted(len(_names(runs)), 'size')}, "
        f"{count_label(min(run.tokens for run in runs))} to "
        f"{count_label(max(run.tokens for run in runs))} tokens",
        f"loss = {found['E']:.3f} + {found['A']:.3g} / N^{found['alpha']:.3f} + {found['B']:.3g} / "
        f"D^{found['beta']:.3f} (N parameters without embeddings, D tokens); a run deviates by "
        f"{law.noise * float(np.median(law.runs.losses_N)):.3f} nats",
        *notes,
    ]


def _table(forecasts: Sequence[Forecast], recipe: _Recipe, kind: Kind) -> str:
    lost = {task: one for task, one in recipe.lost.items() if isinstance(one, RecipeLoss)}
    percent = f"{LEVEL:.0%}".replace("%", " %")
    headings = [
        "seconds", "beyond", "best size", "as good", "parameters", "tokens", "loss", percent,
        f"{percent} of a run", "best parameters", "within 0.01 nats", "MB",
        *(f"{kind.score} lost, {task}" for task in lost),
    ]  # fmt: skip
    cells = [headings]
    for one in forecasts:
        row = [f"{one.seconds:,.6g}", f"{one.beyond:.2g}x"]
        if one.option is None:
            cells.append([*row, "none", *["-"] * (len(headings) - len(row) - 1)])
            continue
        row += [
            one.option.name,
            ", ".join(one.flat) or "-",
            count_label(one.option.total),
            count_label(one.tokens),
            f"{one.loss:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
            f"{one.run_low:.3f} to {one.run_high:.3f}",
            f"{count_label(one.best_low)} to {count_label(one.best_high)}",
            f"{count_label(one.flat_low)} to {count_label(one.flat_high)}",
            f"{recipe.bytes_each * one.option.total / 1e6:.3g}",
        ]
        for loss in lost.values():
            points, low, high = loss.points(one.option.params, one.tokens)
            row.append(f"{points:.1f} ({low:.1f} to {high:.1f})")
        cells.append(row)
    return table(cells)


def _below_table(forecasts: Sequence[Forecast], recipe: _Recipe) -> list[str]:
    lines = [
        f"{one.seconds:,.6g} seconds: no forecast: {one.refused}"
        if one.refused
        else f"{one.seconds:,.6g} seconds: the best is the {one.edge} size there is a speed for, "
        "so others may be better: plan more sizes (forecast.speeds)"
        for one in forecasts
        if one.refused or one.edge
    ]
    for task, lost in recipe.lost.items():
        if isinstance(lost, str):
            lines.append(f"what {recipe.name} costs on {task} is unknown: {lost}")
    if not recipe.lost and recipe.name != "dense":
        lines.append(f"what {recipe.name} costs is unknown: no run has it beside its dense model")
    return lines


def _backtest_text(tested: BackTest, runs: Sequence[TrainingRun]) -> str:
    if tested.held_out is None:
        return f"no back-test: {tested.refused}"
    fields = _backtest_fields(tested, runs)
    text = (
        f"back-test: {tested.fitted} runs of at most {tested.share:.0%} of the largest budget "
        f"predict the other {fields['predicted']} with a mean error of "
        f"{fields['mean_absolute_error']:.3f} nats (bias {fields['mean_error']:+.3f}, largest "
        f"{fields['largest_error']:.3f}); the {LEVEL:.0%} interval of a run holds "
        f"{fields['inside']} of {fields['predicted']}"
    )
    if tested.lost is None:
        return f"{text}; no two sizes ended after equal seconds, so choosing was not tested"
    return (
        f"{text}; for the largest budget it chose {fields['chosen']}, where {fields['best']} was "
        f"best: {tested.lost:.3f} nats lost by choosing"
    )
