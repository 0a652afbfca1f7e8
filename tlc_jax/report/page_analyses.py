"""The page's answer to why models compress: what recipes cost pretrained encoders, and figures of where."""

from __future__ import annotations

from html import escape
from typing import Any

from tlc_jax.report import captions
from tlc_jax.report.figures import Drawn
from tlc_jax.report.labels import recipe_labels, size_label
from tlc_jax.report.page_markup import figures, table
from tlc_jax.report.tables import analysis_rows
from tlc_jax.statistics.records import Analysis, Study


def analyses(study: Study) -> str:
    """Nothing where nothing was analyzed."""
    if not study.analyses:
        return ""
    labels = recipe_labels(analysis.recipe for analysis in study.analyses)
    several = len({analysis.seed for analysis in study.analyses}) > 1
    names, rows = [], []
    for analysis, row in zip(study.analyses, analysis_rows(study), strict=True):
        size = size_label(analysis.size) + (f", seed {analysis.seed}" if several else "")
        names.append(f"{size}, {labels[analysis.recipe]}")
        rows.append([escape(labels[analysis.recipe]), escape(size), *_numbers(row)])
    heading = [
        "recipe",
        "encoder",
        "#validation loss",
        "#compressed",
        "#rise",
        "#relative error",
        "costliest matrix",
    ]
    folded = "".join(
        f"<details><summary>{escape(name)}</summary>{figures(_drawn(analysis))}</details>"
        for name, analysis in zip(names, study.analyses, strict=True)
    )
    return (
        "<p class='fine'>Pretrained encoders, compressed at once: nothing is finetuned and nothing recovers. Losses "
        "are in nats per predicted token. Relative error: the norm of what changed over the norm of the matrix; the "
        "median over all matrices. Costliest: the matrix that costs most if it alone is compressed, and that cost. "
        f"Source: analyses.csv.</p>{table(heading, rows)}{folded}"
    )


def _numbers(row: dict[str, Any]) -> list[str]:
    losses = [
        "" if row[name] is None else f"{row[name]:.3f}"
        for name in ("valid_loss_dense", "valid_loss_compressed")
    ]
    rise = "" if row["loss_rise"] is None else f"{row['loss_rise']:+.3f}"
    error = "" if row["relative_error"] is None else f"{100 * row['relative_error']:.1f} %"
    if row["costliest"] is None:
        return [*losses, rise, error, ""]
    layer = "" if row["costliest_layer"] is None else f", layer {row['costliest_layer']}"
    return [
        *losses,
        rise,
        error,
        escape(f"{row['costliest']}{layer} ({row['costliest_lost']:+.3f})"),
    ]


def _drawn(analysis: Analysis) -> list[Drawn]:
    return [
        Drawn(path, title, text)
        for name, (title, text) in captions.ANALYSES.items()
        if (path := analysis.folder / f"{name}.png").exists()
    ]
