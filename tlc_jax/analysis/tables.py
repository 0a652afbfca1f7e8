"""The tables of a report as plain rows, shared by the page, the CSV files and the terminal."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.analysis.claims import Claim
from tlc_jax.analysis.frontier import Summary, best_under, group, pareto, round_budgets, summarise
from tlc_jax.analysis.records import Model, Study


@dataclasses.dataclass(frozen=True)
class Choice:
    """The best model of a task under a budget of megabytes (10^6 bytes of artifact); None where nothing fits."""

    task: str
    megabytes: float
    model: Model | None


def choices(study: Study, budgets: Sequence[float] = ()) -> list[Choice]:
    """The best model under each budget, task by task; without budgets, three round ones inside the data's range."""
    chosen = []
    for task in study.tasks:
        models = [model for model in study.models if model.task == task]
        costs, values = [model.megabytes for model in models], [model.accuracy.mean for model in models]
        for budget in budgets or round_budgets(costs):
            index = best_under(budget, costs, values)
            chosen.append(Choice(task, budget, None if index is None else models[index]))
    return chosen


def on_frontier(study: Study) -> set[tuple[str, ...]]:
    """The models (by their jobs) that are on the frontier of accuracy against megabytes of their task."""
    found: set[tuple[str, ...]] = set()
    for models in group(study.models, lambda model: model.task).values():
        frontier = pareto([m.megabytes for m in models], [m.accuracy.mean for m in models])
        found |= {models[index].jobs for index in frontier}
    return found


def percent(accuracy: Summary) -> str:
    """71.2 ± 0.4, in percent; without a spread where there is one seed."""
    text = f"{100 * accuracy.mean:.1f}"
    return f"{text} ± {100 * accuracy.std:.1f}" if accuracy.n > 1 else text


def split_accuracies(model: Model) -> dict[str, Summary]:
    """Accuracy by validation split, over seeds."""
    splits: dict[str, list[float]] = {}
    for row in model.rows:
        for split, value in (row.get("accuracy_by_split") or {}).items():
            splits.setdefault(split, []).append(value)
    return {split: summarise(values) for split, values in splits.items()}


def mean_of(model: Model, field: str) -> float | None:
    """The mean over seeds of a field that rows may lack."""
    values = [row[field] for row in model.rows if row.get(field) is not None]
    return summarise(values).mean if values else None


def write_csvs(study: Study, chosen: Sequence[Choice], claims: Sequence[Claim], folder: Path) -> list[Path]:
    """Everything that figures and tables show, for other tools: models, best, curves, claims."""
    return [
        _write(folder / "models.csv", [_model_row(model) for model in study.models]),
        _write(folder / "best.csv", [_choice_row(choice) for choice in chosen]),
        _write(folder / "claims.csv", [_claim_row(claim) for claim in claims]),
        _write(folder / "curves.csv", _curve_rows(study)),
    ]


def _model_row(model: Model) -> dict[str, Any]:
    accuracy = model.accuracy
    return {
        "task": model.task,
        "layers": model.size.layers,
        "hidden": model.size.hidden,
        "params": model.size.params,
        "init": "pretrained" if model.pretrained else "scratch",
        "recipe": model.recipe,
        "sparsity": round(model.sparsity, 6),
        "bits": model.bits,
        "nonzero": round(model.nonzero),
        "megabytes_artifact_largest": model.megabytes,
        **{f"{field}_mean": mean_of(model, field) for field in ("bytes_ideal", "bytes_artifact", "bytes_checkpoint")},
        "accuracy_mean": accuracy.mean,
        "accuracy_std": accuracy.std,
        "seeds": accuracy.n,
        "jobs": " ".join(model.jobs),
    }


def _choice_row(choice: Choice) -> dict[str, Any]:
    row = {"task": choice.task, "megabytes": choice.megabytes}
    if choice.model is None:
        return row
    model = choice.model
    return row | {
        "size": str(model.size),
        "init": "pretrained" if model.pretrained else "scratch",
        "recipe": model.recipe,
        "accuracy_mean": model.accuracy.mean,
        "accuracy_std": model.accuracy.std,
        "seeds": model.accuracy.n,
        "megabytes_artifact": model.megabytes,
        "jobs": " ".join(model.jobs),
    }


def _claim_row(claim: Claim) -> dict[str, Any]:
    return dataclasses.asdict(claim) | {"evidence": " | ".join(claim.evidence)}


def _curve_rows(study: Study) -> list[dict[str, Any]]:
    return [
        {"job": curve.job, "size": str(curve.size), "params": curve.size.params, "seed": curve.seed,
         "step": step, "train_seconds": seconds, "valid_loss": loss}
        for curve in study.curves
        for step, seconds, loss in zip(curve.steps, curve.seconds, curve.losses, strict=True)
    ]  # fmt: skip


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    fields = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    return path


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of aligned columns, the first row a heading; columns that start with a digit go right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numeric = [all(row[c][:1].isdigit() for row in rows[1:] if row[c]) for c in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
