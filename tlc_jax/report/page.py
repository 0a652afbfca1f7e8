"""The report as one HTML page that needs nothing else: images, styles and scripts are inside it.

The layout and all prose are in templates/; here are the values that they show. A table is a list of
rows, and a row maps headings to cells. Headings of columns of numbers start with "#". A cell is a
text, or the names of jobs, which open on a click.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from tlc_jax.core.text import number
from tlc_jax.report import comparison_tables
from tlc_jax.report.comparison_tables import Comparison
from tlc_jax.report.figures import Drawn, filters
from tlc_jax.report.labels import (
    count_label,
    counted,
    model_label,
    recipe_labels,
    recipes_of,
    size_label,
)
from tlc_jax.report.tables import Choice, chosen_scores, latencies, on_frontier, scores
from tlc_jax.statistics.curves import Curve, by_size
from tlc_jax.statistics.frontier import Summary, group, summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind
from tlc_jax.statistics.records import SPLIT, Model, Study, columns_of, present
from tlc_jax.statistics.regime import Progress, Regime
from tlc_jax.statistics.verdicts import VERDICTS, Claim, rule

Table = list[dict[str, Any]]

_ANALYSIS_FIGURES = ("error_modules", "error_depth", "sensitivity", "convergence")


def render(
    study: Study,
    regimes: Mapping[Kind, Regime],
    claims: Sequence[Claim],
    chosen: Sequence[Choice],
    drawn: Sequence[Drawn],
    compared: Mapping[str, Comparison | str],
) -> str:
    """Renders the whole page; every text that comes from the study is escaped.

    Args:
      study: the study.
      regimes: by kind of model.
      claims: with their verdicts.
      chosen: best models under budgets.
      drawn: figures of the study.
      compared: models compared instance by instance, by task, or why they were not.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlc_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # A misspelled name in a template raises instead of printing nothing.
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"columns": columns, "base64": _base64}
    sizes = by_size(study.curves)
    best = {kind: [one.best for one in chosen if one.best and one.kind == kind] for kind in regimes}
    parts = [
        {
            "kind": kind,
            "study": (part := study.of(kind)),
            "headline": headline(study, regimes[kind], kind),
            "crossings": [crossing.describe("s") for crossing in regimes[kind].seconds],
            "best": best_table([choice for choice in chosen if choice.kind == kind], part),
            "halves": all(one.halves for one in best[kind]),
            "instances": not any(math.isnan(one.score.test_error) for one in best[kind]),
            "training": [_training_row(one, sizes[one.size]) for one in regimes[kind].progress],
            "models": _model_tables(part),
            "varied": _varied_table(part),
            "filters": filters(part),
            "figures": [one for one in drawn if one.kind == kind and not one.axis],
            "axis_figures": [one for one in drawn if one.kind == kind and one.axis],
            "latency": _timed(part.rows),
            "configs": {
                name: "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
                for name, config in study.configs.items()
                if name.startswith(f"{kind.job}-")
            },
        }
        for kind in study.kinds
    ]
    return environment.get_template("page.html").render(
        study=study,
        kinds=[kind.name for kind in study.kinds],
        coverage=coverage(study),
        unfinished=unfinished(study),
        parts=parts,
        rule=rule(study.kinds),
        verdicts=VERDICTS,
        claims=claims,
        compared=compared,
        comparisons=comparison_tables,
        analyses=_analysis_table(study),
        analysis_figures=[
            _drawn(study.folder / "jobs" / one["job"] / "report") for one in study.analyses
        ],
        samples=_samples(study),
        facts={name: value for name, value in _facts(study) if value},
    )


def columns(rows: Table) -> list[str]:
    """Returns the headings of a table, without columns in which every cell is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(row.get(name) for row in rows)]


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def coverage(study: Study) -> str:
    """Says in one sentence how many models, sizes, recipes, tasks and seeds there are."""
    parts = [
        counted(len(study.of(kind).sizes), "size")
        + ("" if study.kinds == [ENCODER] else f" of {kind.name}s")
        for kind in study.kinds
    ]
    parts += [
        counted(study.rows["recipe"].nunique(), "recipe"),
        counted(len(study.rows.groupby(["kind", "task"])), "task"),
        f"up to {counted(max(model.score.n for model in study.models), 'seed')} each",
        f"{counted(len(study.rows), 'evaluated model')} in all",
    ]
    axes = [f"{name} ({', '.join(values)})" for name, values in study.axes.items()]
    if axes:
        rows = sum(len(one.rows) for one in study.varied)
        parts.append(f"and {rows} at other values of {', '.join(axes)}")
    return ", ".join(parts) + ("; synthetic data" if study.synthetic else "")


def headline(study: Study, regime: Regime, kind: Kind) -> str:
    """Says the regime in one sentence, with the kind of model unless all are encoders."""
    return ("" if study.kinds == [ENCODER] else f"{kind.name.capitalize()}s: ") + regime.headline()


def unfinished(study: Study) -> list[str]:
    """Returns a line for each kind of thing that is missing from the study."""
    missing = (job for job in study.jobs if job.get("state") != "done")
    lines = []
    for state, jobs in group(missing, lambda job: str(job.get("state"))).items():
        # An error may be a whole traceback: its last line says what happened.
        names = [
            f"{job.get('name')}"
            + (f" ({job['error'].splitlines()[-1]})" if job.get("error") else "")
            for job in jobs[:5]
        ]
        more = " ..." if len(jobs) > 5 else ""
        lines.append(f"{counted(len(jobs), 'job')} {state}: {', '.join(names)}{more}")
    return [*lines, *study.notes]


def best_table(chosen: Sequence[Choice], study: Study) -> Table:
    """Makes the table of the choices among the models of one kind, of which `study` is the part."""
    labels, rows = recipes_of(study.models), []
    for choice in chosen:
        row: dict[str, Any] = {"task": choice.task, "#budget (MB)": f"{choice.megabytes:g}"}
        row["best model"] = "nothing fits"
        if choice.best:
            model = choice.best.model
            row["best model"] = model_label(model, labels)
            row |= _numeric(chosen_scores(choice))
            row["#seeds"] = str(model.score.n)
            row["#artifact (MB)"] = f"{model.megabytes:.3f}"
            row |= {"#non-zero": count_label(model.nonzero), "jobs": model.jobs}
        rows.append(row)
    return rows


def _numeric(cells: Mapping[str, str]) -> dict[str, str]:
    return {f"#{heading}": cell for heading, cell in cells.items()}


def _training_row(progress: Progress, curves: Sequence[Curve]) -> dict[str, Any]:
    results = pd.DataFrame([curve.result for curve in curves])

    def over_seeds(field: str) -> Summary:
        return summarize(present(results, field))

    size, tokens = progress.size, over_seeds("tokens")
    plateau = {None: "unknown", True: "yes", False: "left"}[progress.plateau]
    row = {
        "size": str(size),
        "#parameters": count_label(size.params),
        "#steps": f"{progress.steps:,.0f}",
        "#tokens seen": count_label(tokens.mean) if tokens.n else "",
        "#tokens/s": over_seeds("tokens_per_second").written(",.0f", spread=False),
        "#MFU": over_seeds("mfu").written(".1%", spread=False),
        "#training s": f"{summarize(curve.seconds[-1] for curve in curves).mean:,.1f}",
        "#final loss (nats)": summarize(curve.losses[-1] for curve in curves).written(".3f"),
        "#perplexity": f"{math.exp(progress.loss):,.4g}",
        **{f"#{one.heading}": over_seeds(one.field).written(one.form) for one in size.kind.trained},
        "#fall in last fifth": f"{progress.fall:.3f}",
        "early plateau": plateau,
        "stopped by": ", ".join(sorted(set(present(results, "stopped_by")))),
        "jobs": [curve.job for curve in curves],
    }
    # Batches of sentence pairs are padded: how many tokens they hold says little. The plateau is
    # that of masked-language training.
    hidden = () if size.kind == ENCODER else ("#tokens seen", "#tokens/s", "#MFU", "early plateau")
    return {heading: cell for heading, cell in row.items() if heading not in hidden}


def _model_tables(study: Study) -> dict[str, Table]:
    """Makes a table of the evaluated models of one kind for each task."""
    frontier, labels = on_frontier(study), recipes_of(study.models)
    return {
        task: [_model_row(one, labels[one.recipe], one in frontier) for one in models]
        for task, models in group(study.models, lambda model: model.task).items()
    }


def _model_row(model: Model, label: str, best: bool) -> dict[str, Any]:
    def mean(column: str, form: str, scale: float = 1.0) -> str:
        return model.summary(column).written(form, scale, spread=False)

    columns = model.rows.dropna(axis="columns", how="all").columns
    splits = [column for column in columns if column.startswith(SPLIT)]
    # The accuracy on a single split is the accuracy.
    splits = splits if len(splits) > 1 else []
    return {
        "model": f"{model.size}{'' if model.pretrained else ', from scratch'}",
        "recipe": Markup("<span title='{}'>{}</span>{}").format(
            model.recipe, label, " •" if best else ""
        ),
        "#sparsity": f"{model.sparsity:.0%}",
        "#bits": f"{model.bits:g}",
        "#non-zero": count_label(model.nonzero),
        "#ideal (MB)": mean("bytes_ideal", ".3f", 1e-6),
        "#artifact (MB)": f"{model.megabytes:.3f}",
        "#checkpoint (MB)": mean("bytes_checkpoint", ".3f", 1e-6),
        **_numeric(scores(model)),
        **{
            f"#{column.removeprefix(SPLIT)} (%)": model.summary(column).written(".1f", 100)
            for column in splits
        },
        **{f"#ms for {size}": mean(name, ".3g") for size, name in latencies(model.rows).items()},
        "#seeds": str(model.score.n),
        "jobs": model.jobs,
    }


def _varied_table(study: Study) -> Table:
    """Makes the table of models of one kind at all points of the axes; empty without axes."""
    studies, axes = (study, *study.varied) if study.varied else (), study.axes
    labels = recipe_labels(model.recipe for one in studies for model in one.models)
    return [
        {
            **columns_of({axis: one.point[axis] for axis in axes}),
            "task": model.task,
            "model": model_label(model, labels),
            "#steps": model.summary("steps").written(",.0f", spread=False),
            "#pretraining loss": model.summary("pretrain_valid_loss").written(".3f"),
            **_numeric(scores(model)),
            "#non-zero": count_label(model.nonzero),
            "#artifact (MB)": f"{model.megabytes:.3f}",
            "#seeds": str(model.score.n),
            "jobs": model.jobs,
        }
        for one in studies
        for model in one.models
    ]


def _timed(rows: pd.DataFrame) -> list[str]:
    """Returns the ways in which models were timed."""
    names = ["latency_computes", "latency_device", "latency_length"]
    # Reindexed, because a study in which nothing was timed lacks the columns.
    ways = rows.reindex(columns=names).dropna().drop_duplicates().itertuples(index=False)
    # As a whole number: a column with a gap, where a model was not timed, holds floats.
    return [f"{way[0]} on one {way[1]}, {way[2]:.0f} tokens a sequence" for way in ways]


def _analysis_table(study: Study) -> Table:
    labels = recipe_labels(analysis["recipe"] for analysis in study.analyses)
    several = len({analysis["seed"] for analysis in study.analyses}) > 1
    rows = []
    for one in study.analyses:
        costliest, layer, error = "", one["costliest_layer"], one["relative_error"]
        if one["costliest"]:
            place = "" if layer is None else f", layer {layer}"
            costliest = f"{one['costliest']}{place} ({one['costliest_lost']:+.3f})"
        rows.append(
            {
                "recipe": labels[one["recipe"]],
                "encoder": size_label(one["size"]) + (f", seed {one['seed']}" if several else ""),
                "#validation loss": number(one["valid_loss_dense"], ".3f", ""),
                "#compressed": number(one["valid_loss_compressed"], ".3f", ""),
                "#rise": number(one["loss_rise"], "+.3f", ""),
                "#relative error": f"{100 * error:.1f} %" if error else "",
                "costliest matrix": costliest,
            }
        )
    return rows


def _drawn(folder: Path) -> list[Drawn]:
    """Finds the figures that an analysis left in a folder."""
    found = [Drawn(folder / f"{what}.png", what) for what in _ANALYSIS_FIGURES]
    return [figure for figure in found if figure.path.exists()]


def _samples(study: Study) -> dict[str, Any] | None:
    """Returns the sample translations of the translator of the highest BLEU."""
    found = {job: result for job, result in study.results.items() if result.get("samples")}
    best = max(found, key=lambda job: float(found[job].get("bleu") or 0.0), default=None)
    return {"job": best, "rows": found[best]["samples"]} if best else None


def _facts(study: Study) -> Iterable[tuple[str, str]]:
    """Yields where the numbers come from: commands, machines, versions, data, seeds."""
    for field in ("command", "machine", "device", "devices", "platform", "python", "versions"):
        sources = [study.recorded, *study.results.values()]
        values = {_plain(source[field]) for source in sources if source.get(field)}
        yield field, " | ".join(sorted(values))
    packages = ["tlc_jax", "jax", "flax", "optax", "orbax-checkpoint", "aqtp", "numpy"]
    packages += ["sacrebleu", "sacremoses"] if TRANSLATOR in study.kinds else []
    versions = []
    for name in packages:
        # A report can be written where the packages for training are not installed.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    yield (
        "this page was written by",
        f"tlc report --workdir={study.name}, on {platform.system()} {platform.machine()} with "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}",
    )
    data = [config["data"] for config in study.configs.values() if config.get("data")]
    yield "data sources", ", ".join(sorted({str(part.get("train")) for part in data}))
    yield "seeds", "; ".join(sorted({text for model in study.models for text in _seeds(model)}))
    for name in ("BLEU", "chrF"):
        yield f"{name} signature", ", ".join(study.signatures(name.lower()))


def _seeds(model: Model) -> Iterable[str]:
    for training, finetuning in model.scores:
        also = f", finetuning {finetuning}" if model.size.kind == ENCODER else ""
        yield f"{model.size.kind.training} {training}{also}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value)
