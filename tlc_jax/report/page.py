"""The report as one HTML page that needs nothing else: images, styles and scripts are inside it.

The layout and all prose are in templates/; here are the values that they show. A table is a list of
rows, and a row maps headings to cells. Headings of columns of numbers start with "#". A cell is a
text, or the names of jobs, which open on a click.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tlc_jax.report import charts
from tlc_jax.report.figures import Drawn
from tlc_jax.report.labels import count_label, model_label, recipe_labels, size_label
from tlc_jax.report.tables import (
    LATENCY,
    Choice,
    analysis_fields,
    latency_sizes,
    on_frontier,
    scores,
)
from tlc_jax.statistics.curves import Curve, by_size
from tlc_jax.statistics.frontier import group, summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind
from tlc_jax.statistics.records import Analysis, Model, Study
from tlc_jax.statistics.regime import Progress, Regime
from tlc_jax.statistics.uncertainty import Claim, rule

Table = list[dict[str, str | Sequence[str]]]

_ANALYSIS_FIGURES = ("error_modules", "error_depth", "sensitivity", "convergence")


def render(
    study: Study,
    regimes: Mapping[Kind, Regime],
    claims: Sequence[Claim],
    chosen: Sequence[Choice],
    drawn: Sequence[Drawn],
) -> str:
    """The whole page; every text that comes from the study is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlc_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"columns": _columns, "base64": _base64}
    parts = [
        {
            "kind": kind,
            "study": (part := study.of(kind)),
            "headline": headline(study, regimes[kind], kind),
            "crossings": [crossing.describe("s") for crossing in regimes[kind].seconds],
            "best": _best_table([choice for choice in chosen if choice.kind == kind], part),
            "training": _training_table(part, regimes[kind]),
            "models": _model_tables(part),
            "filters": charts.filters(part),
            "figures": [figure for figure in drawn if figure.kind == kind],
            "latency": _latencies(part.models),
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
        leads=_leads(study, chosen),
        unfinished=unfinished(study),
        parts=parts,
        rule=rule(study.kinds),
        claims=claims,
        analyses=_analysis_table(study),
        analysis_figures=[(name, _figures_of(analysis)) for name, analysis in _named(study)],
        samples=_samples(study),
        facts={name: value for name, value in _facts(study) if value},
    )


def _columns(rows: Table) -> list[str]:
    """The headings of a table, without columns in which every cell is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if any(row.get(name) for row in rows)]


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def coverage(study: Study) -> str:
    """One sentence: how many models, sizes, recipes, tasks and seeds."""
    sizes = [
        _count(len(study.of(kind).sizes), "size")
        + ("" if study.kinds == [ENCODER] else f" of {kind.models}")
        for kind in study.kinds
    ]
    parts = [
        *sizes,
        _count(len({model.recipe for model in study.models}), "recipe"),
        _count(len({(model.size.kind, model.task) for model in study.models}), "task"),
        f"up to {_count(max(model.score.n for model in study.models), 'seed')} each",
        f"{_count(len(study.rows), 'evaluated model')} in all",
    ]
    return ", ".join(parts) + ("; synthetic data" if study.synthetic else "")


def headline(study: Study, regime: Regime, kind: Kind) -> str:
    """The regime in one sentence, which names the kind of model unless all are encoders."""
    return ("" if study.kinds == [ENCODER] else f"{kind.models.capitalize()}: ") + regime.headline()


def unfinished(study: Study) -> list[str]:
    """A line for each kind of thing that is missing from the study."""
    missing = (job for job in study.jobs if job.get("state") != "done")
    lines = []
    for state, jobs in group(missing, lambda job: str(job.get("state"))).items():
        names = []
        for job in jobs[:5]:
            # An error may be a whole traceback: its last line says what happened.
            error = job.get("error")
            names.append(f"{job.get('name')}" + (f" ({error.splitlines()[-1]})" if error else ""))
        more = " ..." if len(jobs) > 5 else ""
        lines.append(f"{_count(len(jobs), 'job')} {state}: {', '.join(names)}{more}")
    return [*lines, *study.notes]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _leads(study: Study, chosen: Sequence[Choice]) -> Iterable[tuple[str, list[dict[str, str]]]]:
    """Each task with the best model under each budget that admits one."""
    for (kind, task), options in group(chosen, lambda choice: (choice.kind, choice.task)).items():
        labels = recipe_labels(model.recipe for model in study.of(kind).models)
        found = [
            {
                "megabytes": f"{choice.megabytes:g}",
                "model": model_label(choice.model, labels),
                "score": f"{choice.model.score.written('.1f', 100)} {kind.unit}",
            }
            for choice in options
            if choice.model
        ]
        yield task, found


def _best_table(chosen: Sequence[Choice], study: Study) -> Table:
    labels = recipe_labels(model.recipe for model in study.models)
    rows: Table = []
    for choice in chosen:
        row: dict[str, Any] = {"task": choice.task, "#budget (MB)": f"{choice.megabytes:g}"}
        if model := choice.model:
            row |= {
                "best model": model_label(model, labels),
                **_numeric(scores(model)),
                "#seeds": str(model.score.n),
                "#artifact (MB)": f"{model.megabytes:.3f}",
                "#non-zero": count_label(model.nonzero),
                "jobs": model.jobs,
            }
        rows.append({"best model": "nothing fits"} | row)
    return [{name: row[name] for name in ("task", "#budget (MB)", *row)} for row in rows]


def _numeric(cells: Mapping[str, str]) -> dict[str, str]:
    return {f"#{heading}": cell for heading, cell in cells.items()}


def _training_table(study: Study, regime: Regime) -> Table:
    curves = by_size(study.curves)
    return [_training_row(progress, curves[progress.size]) for progress in regime.progress]


def _training_row(progress: Progress, curves: Sequence[Curve]) -> dict[str, Any]:
    def mean(field: str, form: str) -> str:
        found = [curve.result[field] for curve in curves if curve.result.get(field) is not None]
        return summarize(found).written(form) if found else ""

    size, encoder = progress.size, progress.size.kind == ENCODER
    row = {
        "size": str(size),
        "#parameters": count_label(size.params),
        "#steps": f"{progress.steps:,.0f}",
    }
    # Batches of sentence pairs are padded: how many tokens they hold says little.
    if encoder:
        for heading, field, form in _THROUGHPUT:
            found = [curve.result[field] for curve in curves if curve.result.get(field) is not None]
            row[heading] = form(summarize(found).mean) if found else ""
    plateau = {None: "unknown", True: "yes", False: "left"}[progress.plateau]
    return row | {
        "#training s": f"{summarize(curve.seconds[-1] for curve in curves).mean:,.1f}",
        "#final loss (nats)": summarize(curve.losses[-1] for curve in curves).written(".3f"),
        "#perplexity": f"{math.exp(progress.loss):,.4g}",
        **{f"#{score.heading}": mean(score.field, score.form) for score in size.kind.trained},
        "#fall in last fifth": f"{progress.fall:.3f}",
        "early plateau": plateau if encoder else "",
        "stopped by": ", ".join(sorted({str(c.result.get("stopped_by", "")) for c in curves})),
        "jobs": [curve.job for curve in curves],
    }


_THROUGHPUT = (
    ("#tokens seen", "tokens", count_label),
    ("#tokens/s", "tokens_per_second", "{:,.0f}".format),
    ("#MFU", "mfu", "{:.1%}".format),
)


def _model_tables(study: Study) -> dict[str, Table]:
    """Every evaluated model of one kind, by task."""
    frontier, labels = on_frontier(study), recipe_labels(model.recipe for model in study.models)
    tables = {}
    for task, models in group(study.models, lambda model: model.task).items():
        timed = latency_sizes(models)
        splits = [row.get("accuracy_by_split") or {} for model in models for row in model.rows]
        names = list(dict.fromkeys(name for found in splits for name in found))
        names = names if len(names) > 1 else []
        tables[task] = [
            _model_row(model, names, timed, labels[model.recipe], model.jobs in frontier)
            for model in models
        ]
    return tables


def _model_row(
    model: Model, splits: Sequence[str], timed: Sequence[int], label: str, best: bool
) -> dict[str, Any]:
    def mean(field: str, form: str, scale: float = 1.0) -> str:
        value = model.mean(field)
        return "" if value is None else f"{scale * value:{form}}"

    row = {
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
    }
    by_split = [row.get("accuracy_by_split") or {} for row in model.rows]
    for split in splits:
        found = [values[split] for values in by_split if split in values]
        row[f"#{split} (%)"] = summarize(found).written(".1f", 100) if found else ""
    row |= {f"#ms for {size}": mean(f"{LATENCY}{size}", ".3g") for size in timed}
    return row | {"#seeds": str(model.score.n), "jobs": model.jobs}


def _latencies(models: Sequence[Model]) -> list[str]:
    """The ways in which models were timed."""
    rows = [row for model in models for row in model.rows if "latency_computes" in row]
    ways = (
        f"{row['latency_computes']} on one {row['latency_device']}, "
        f"{row['latency_length']} tokens a sequence"
        for row in rows
    )
    return list(dict.fromkeys(ways))


def _named(study: Study) -> Iterable[tuple[str, Analysis]]:
    labels = recipe_labels(analysis.recipe for analysis in study.analyses)
    several = len({analysis.seed for analysis in study.analyses}) > 1
    for analysis in study.analyses:
        seed = f", seed {analysis.seed}" if several else ""
        yield f"{size_label(analysis.size)}{seed}, {labels[analysis.recipe]}", analysis


def _analysis_table(study: Study) -> Table:
    labels = recipe_labels(analysis.recipe for analysis in study.analyses)

    def number(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    rows: Table = []
    for (name, analysis), fields in zip(_named(study), analysis_fields(study), strict=True):
        label = labels[analysis.recipe]
        layer = fields["costliest_layer"]
        costliest = ""
        if fields["costliest"] is not None:
            place = "" if layer is None else f", layer {layer}"
            costliest = f"{fields['costliest']}{place} ({fields['costliest_lost']:+.3f})"
        error = fields["relative_error"]
        rows.append(
            {
                "recipe": label,
                "encoder": name.removesuffix(f", {label}"),
                "#validation loss": number(fields["valid_loss_dense"], ".3f"),
                "#compressed": number(fields["valid_loss_compressed"], ".3f"),
                "#rise": number(fields["loss_rise"], "+.3f"),
                "#relative error": "" if error is None else f"{100 * error:.1f} %",
                "costliest matrix": costliest,
            }
        )
    return rows


def _figures_of(analysis: Analysis) -> list[Drawn]:
    found = [Drawn(analysis.folder / f"{what}.png", what) for what in _ANALYSIS_FIGURES]
    return [figure for figure in found if figure.path.exists()]


def _samples(study: Study) -> dict[str, Any] | None:
    """The sample translations of the translator of the highest BLEU."""
    found = {job: result for job, result in study.results.items() if result.get("samples")}
    if not found:
        return None
    job = max(found, key=lambda name: float(found[name].get("bleu") or 0.0))
    sides = ("source", "reference", "translation")
    rows = [{side: str(sample[side]) for side in sides} for sample in found[job]["samples"]]
    return {"job": job, "rows": rows}


def _facts(study: Study) -> Iterable[tuple[str, str]]:
    """Where the numbers come from: commands, machines, versions, data, seeds."""
    for field in ("command", "machine", "device", "devices", "platform", "python", "versions"):
        sources = [study.recorded, *study.results.values()]
        values = {_plain(source[field]) for source in sources if source.get(field)}
        yield field, " | ".join(sorted(values))
    packages = ["tlc_jax", "jax", "flax", "optax", "orbax-checkpoint", "aqtp", "numpy"]
    packages += ["sacrebleu", "sacremoses"] if TRANSLATOR in study.kinds else []
    versions = ", ".join(f"{name} {version}" for name in packages if (version := _version(name)))
    yield (
        "this page was written by",
        f"tlc report --workdir={study.name}, on {platform.system()} {platform.machine()} with "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}",
    )
    data = [config["data"] for config in study.configs.values() if config.get("data")]
    yield "data sources", ", ".join(sorted({str(part.get("train")) for part in data}))
    yield "seeds", "; ".join(sorted({text for model in study.models for text in _seeds(model)}))
    for name in ("BLEU", "chrF"):
        yield f"{name} signature", ", ".join(study.signatures(name.lower()))
    yield (
        "rows",
        f"{len(study.rows)} in results.jsonl; each number above names the jobs it is from, "
        "in jobs/NAME/",
    )


def _seeds(model: Model) -> Iterable[str]:
    for training, finetuning in model.scores:
        also = f", finetuning {finetuning}" if model.size.kind == ENCODER else ""
        yield f"{model.size.kind.training} {training}{also}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
