"""The tables of a report as plain rows, shared by the page, the CSV files and the terminal."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.statistics.curves import measured
from tlc_jax.statistics.frontier import Summary, best_under, group, pareto, round_budgets, summarize
from tlc_jax.statistics.kinds import TRANSLATOR, Kind
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.uncertainty import Claim


@dataclasses.dataclass(frozen=True)
class Choice:
    """The best model of a task under a budget of megabytes (10^6 bytes of artifact); None where nothing fits."""

    kind: Kind
    task: str
    megabytes: float
    model: Model | None


def choices(study: Study, budgets: Sequence[float] = ()) -> list[Choice]:
    """The best model under each budget, task by task; without budgets, three round ones inside the data's range."""
    chosen = []
    for (kind, task), models in _by_task(study).items():
        costs, values = (
            [model.megabytes for model in models],
            [model.score.mean for model in models],
        )
        for budget in budgets or round_budgets(costs):
            index = best_under(budget, costs, values)
            chosen.append(Choice(kind, task, budget, None if index is None else models[index]))
    return chosen


def _by_task(study: Study) -> dict[tuple[Kind, str], list[Model]]:
    return group(study.models, lambda model: (model.size.kind, model.task))


def on_frontier(study: Study) -> set[tuple[str, ...]]:
    """The models (by their jobs) that are on the frontier of score against megabytes of their task."""
    found: set[tuple[str, ...]] = set()
    for models in _by_task(study).values():
        frontier = pareto([m.megabytes for m in models], [m.score.mean for m in models])
        found |= {models[index].jobs for index in frontier}
    return found


def hundredths(score: Summary) -> str:
    """A score in percent, or in points of BLEU."""
    return score.written(".1f", 100)


def scores(model: Model) -> list[str]:
    """The score of a model and the means of those beside it; empty where one was not measured."""
    means = ((beside, mean_of(model, beside.field)) for beside in model.size.kind.beside)
    return [
        hundredths(model.score),
        *("" if mean is None else f"{mean:{beside.form}}" for beside, mean in means),
    ]


def score_headings(kind: Kind) -> list[str]:
    """What `scores` are called."""
    return [kind.heading, *(beside.heading for beside in kind.beside)]


def split_accuracies(model: Model) -> dict[str, Summary]:
    """Accuracy by validation split, over seeds."""
    splits: dict[str, list[float]] = {}
    for row in model.rows:
        for split, value in (row.get("accuracy_by_split") or {}).items():
            splits.setdefault(split, []).append(value)
    return {split: summarize(values) for split, values in splits.items()}


def mean_of(model: Model, field: str) -> float | None:
    """The mean over seeds of a field that rows may lack."""
    values = [row[field] for row in model.rows if row.get(field) is not None]
    return summarize(values).mean if values else None


def latency_sizes(models: Sequence[Model]) -> list[int]:
    """The batch sizes that any of the models was timed on, ascending."""
    names = {
        name for model in models for row in model.rows for name in row if name.startswith(_LATENCY)
    }
    return sorted(int(name.removeprefix(_LATENCY)) for name in names)


def latency_of(model: Model, batch_size: int) -> float | None:
    """Milliseconds for a batch, the mean over seeds; None where it was not measured."""
    return mean_of(model, f"{_LATENCY}{batch_size}")


_LATENCY = "latency_ms_"


def write_csvs(
    study: Study, chosen: Sequence[Choice], claims: Sequence[Claim], folder: Path
) -> list[Path]:
    """Everything that figures and tables show, for other tools: models, best, curves, claims, analyses."""
    analyses = [_write(folder / "analyses.csv", analysis_rows(study))] if study.analyses else []
    return [
        *analyses,
        _write(
            folder / "models.csv",
            [_model_row(model, latency_sizes(study.models)) for model in study.models],
        ),
        _write(folder / "best.csv", [_choice_row(choice) for choice in chosen]),
        _write(folder / "claims.csv", [_claim_row(claim) for claim in claims]),
        _write(folder / "curves.csv", _curve_rows(study)),
    ]


def _model_row(model: Model, timed: Sequence[int]) -> dict[str, Any]:
    return {
        "kind": model.size.kind.name,
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
        **{
            f"{field}_mean": mean_of(model, field)
            for field in ("bytes_ideal", "bytes_artifact", "bytes_checkpoint")
        },
        **_scores(model),
        **{f"{_LATENCY}{size}_mean": latency_of(model, size) for size in timed},
        "jobs": " ".join(model.jobs),
    }


def _choice_row(choice: Choice) -> dict[str, Any]:
    row = {"kind": choice.kind.name, "task": choice.task, "megabytes": choice.megabytes}
    if choice.model is None:
        return row
    model = choice.model
    return row | {
        "size": str(model.size),
        "init": "pretrained" if model.pretrained else "scratch",
        "recipe": model.recipe,
        **_scores(model),
        "megabytes_artifact": model.megabytes,
        "jobs": " ".join(model.jobs),
    }


def _scores(model: Model) -> dict[str, Any]:
    """The scores of a model, in the units of results.jsonl."""
    kind, score = model.size.kind, model.score
    scores: dict[str, Any] = {
        f"{kind.field}_mean": kind.full * score.mean,
        f"{kind.field}_std": kind.full * score.std,
        "seeds": score.n,
    }
    if kind == TRANSLATOR:
        fields = (*(column.field for column in kind.beside), "token_accuracy", "valid_loss")
        scores |= {f"{field}_mean": mean_of(model, field) for field in fields}
        signatures = {str(row["bleu_signature"]) for row in model.rows if row.get("bleu_signature")}
        scores["bleu_signature"] = " ".join(sorted(signatures))
    return scores


def _claim_row(claim: Claim) -> dict[str, Any]:
    return dataclasses.asdict(claim) | {"evidence": " | ".join(claim.evidence)}


def _curve_rows(study: Study) -> list[dict[str, Any]]:
    return [
        {"kind": curve.size.kind.name, "job": curve.job, "size": str(curve.size), "params": curve.size.params,
         "seed": curve.seed, "step": step, "train_seconds": seconds}
        | {of.name: getattr(curve, of.field)[place] for of in measured([curve])}
        for curve in study.curves
        for place, (step, seconds) in enumerate(zip(curve.steps, curve.seconds, strict=True))
    ]  # fmt: skip


def analysis_rows(study: Study) -> list[dict[str, Any]]:
    """What a recipe does to each pretrained encoder; None where a part of the analysis was not asked for."""
    rows = []
    for analysis in study.analyses:
        result = analysis.result
        dense, compressed = (result.get(f"valid_loss_{name}") for name in ("dense", "compressed"))
        alone: Sequence[Mapping[str, Any]] = result.get("sensitivity", ())
        costliest = max(alone, key=lambda row: float(row["lost"]), default={})
        relative = [row["relative"] for row in result.get("error", ())]
        rows.append({
            "job": analysis.job, "recipe": analysis.recipe, "size": str(analysis.size), "seed": analysis.seed,
            "params": result["params"], "valid_loss_dense": dense, "valid_loss_compressed": compressed,
            "loss_rise": None if dense is None or compressed is None else compressed - dense,
            "relative_error": statistics.median(relative) if relative else None,
            "costliest": costliest.get("name"), "costliest_layer": costliest.get("layer"),
            "costliest_lost": costliest.get("lost"),
        })  # fmt: skip
    return rows


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
