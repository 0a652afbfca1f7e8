"""The CSV files of a report, and the best model under each budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tlc_jax.core.files import write_text
from tlc_jax.statistics.curves import measured
from tlc_jax.statistics.frontier import group, pareto, round_budgets
from tlc_jax.statistics.kinds import TRANSLATOR, Kind
from tlc_jax.statistics.records import Best, Model, Study, best_model, columns_of, present
from tlc_jax.statistics.verdicts import Claim

Fields = dict[str, Any]
_LATENCY = "latency_ms_"  # followed by the number of sequences of a batch


@dataclasses.dataclass(frozen=True)
class Choice:
    """The best model of a task under a budget of megabytes (10^6 bytes); None where none fits."""

    kind: Kind
    task: str
    megabytes: float
    best: Best | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the score, in the unit of results.jsonl; None with one run per size."""
        if self.best is None or not self.best.score.run_freedom:
            return None
        low, high = self.best.score.interval()
        return self.kind.full * low, self.kind.full * high


def choices(study: Study, budgets: Sequence[float] = ()) -> list[Choice]:
    """Finds the best model under each budget, task by task.

    Args:
      study: the whole study.
      budgets: megabytes; none: three round ones inside the range of each task's models.
    """
    return [
        Choice(kind, task, budget, best_model(models, budget))
        for (kind, task), models in _by_task(study).items()
        for budget in budgets or round_budgets([model.megabytes for model in models])
    ]


def _by_task(study: Study) -> dict[tuple[Kind, str], list[Model]]:
    # By kind too: a task of encoders may have the name of one of translators.
    return group(study.models, lambda model: (model.size.kind, model.task))


def on_frontier(study: Study) -> set[Model]:
    """Returns the models on the frontier of score against megabytes of their task."""
    return {
        models[index]
        for models in _by_task(study).values()
        for index in pareto([m.megabytes for m in models], [m.score.mean for m in models])
    }


def scores(model: Model) -> dict[str, str]:
    """Writes the score of a model and the means of those beside it, by heading.

    The score on the test split, where there is one, follows that on the validation split, by which
    models are chosen and claims are judged.
    """
    kind = model.size.kind
    cells = {kind.heading: model.points.written(".1f")}
    test = model.summary(f"test_{kind.field}")
    cells[f"test {kind.heading}"] = test.written(".1f", 100 / kind.full)
    for beside in kind.beside:
        cells[beside.heading] = model.summary(beside.field).written(beside.form, spread=False)
    return cells


def chosen_scores(choice: Choice) -> dict[str, str]:
    """Writes the scores of the best model by heading; empty where nothing fits."""
    if choice.best is None:
        return {}
    kind, ends = choice.kind, choice.interval
    scale = 100 / kind.full
    interval = f"{scale * ends[0]:.1f} to {scale * ends[1]:.1f}" if ends else ""
    cells = scores(choice.best.model)
    return {kind.heading: cells.pop(kind.heading), "95 % interval": interval, **cells}


def latencies(rows: pd.DataFrame) -> dict[int, str]:
    """Finds the columns of latency, by batch size, ascending."""
    columns = [str(column) for column in rows if str(column).startswith(_LATENCY)]
    return dict(sorted((int(column.removeprefix(_LATENCY)), column) for column in columns))


def write_csvs(
    study: Study, chosen: Sequence[Choice], claims: Sequence[Claim], folder: Path
) -> list[Path]:
    """Writes all numbers of the figures and tables, unrounded; returns the paths."""
    timed = latencies(study.rows).values()
    tables = {
        "models": [_model_fields(model, list(timed)) for model in study.models],
        "best": [choice_fields(choice) for choice in chosen],
        "claims": [
            dataclasses.asdict(claim) | {"evidence": " | ".join(claim.evidence)} for claim in claims
        ],
        "curves": _curve_fields(study),
    }
    if study.varied:
        tables["vary"] = [
            {
                **columns_of(one.point),
                **_model_fields(model, []),
                **_means(model, "pretrain_valid_loss"),
            }
            for one in (study, *study.varied)
            for model in one.models
        ]
    if study.analyses:
        tables["analyses"] = list(study.analyses)
    for name, rows in tables.items():
        # As objects, because pandas would write a column of whole numbers with a gap as floats.
        write_text(folder / f"{name}.csv", pd.DataFrame(rows, dtype=object).to_csv(index=False))
    return [folder / f"{name}.csv" for name in tables]


def _model_fields(model: Model, timed: Sequence[str]) -> Fields:
    row = model.rows.iloc[0]
    return {
        **row[["kind", "task", "layers", "hidden"]],
        # Not the parameters of the row, of which the recipe may have removed some.
        "params": model.size.params,
        **row[["init", "recipe"]],
        "sparsity": round(model.sparsity, 6),
        "bits": model.bits,
        "nonzero": round(model.nonzero),
        "megabytes_artifact_largest": model.megabytes,
        **_means(model, "bytes_ideal", "bytes_artifact", "bytes_checkpoint"),
        **_score_fields(model),
        **_means(model, *timed),
        "jobs": " ".join(model.jobs),
    }


def choice_fields(choice: Choice) -> Fields:
    """Returns the row of best.csv; without a size where nothing fits."""
    row = {"kind": choice.kind.name, "task": choice.task, "megabytes": choice.megabytes}
    if choice.best is None:
        return row
    model = choice.best.model
    low, high = choice.interval or (None, None)
    return {
        **row,
        "size": str(model.size),
        **model.rows.iloc[0][["init", "recipe"]],
        **_score_fields(model),
        "interval_low": low,
        "interval_high": high,
        "judged_by_other_half": choice.best.halves,
        "megabytes_artifact": model.megabytes,
        "jobs": " ".join(model.jobs),
    }


def _means(model: Model, *columns: str) -> Fields:
    return {f"{column}_mean": model.summary(column).mean for column in columns}


def _score_fields(model: Model) -> Fields:
    """Returns the scores of a model in the units of results.jsonl."""
    kind, score = model.size.kind, model.score
    fields: Fields = {
        f"{kind.field}_mean": kind.full * score.mean,
        f"{kind.field}_std": kind.full * score.std,
        "seeds": score.n,
    }
    if (test := model.summary(f"test_{kind.field}")).n:
        fields[f"test_{kind.field}_mean"] = test.mean
    if kind == TRANSLATOR:
        beside = (column.field for column in kind.beside)
        fields |= _means(model, *beside, "token_accuracy", "valid_loss")
        fields["bleu_signature"] = " ".join(sorted(set(present(model.rows, "bleu_signature"))))
    return fields


def _curve_fields(study: Study) -> list[Fields]:
    return [
        {
            "kind": curve.size.kind.name,
            "job": curve.job,
            "size": str(curve.size),
            "params": curve.size.params,
            "seed": curve.seed,
            "step": step,
            "train_seconds": seconds,
            **({"flops": curve.flops[place]} if curve.flops else {}),
            **{of.name: getattr(curve, of.field)[place] for of in measured([curve])},
        }
        for curve in study.curves
        for place, (step, seconds) in enumerate(zip(curve.steps, curve.seconds, strict=True))
    ]
