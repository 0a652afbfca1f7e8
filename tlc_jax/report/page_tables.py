"""The page's tables of numbers: the best models, the training of every size, every evaluated model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tlc_jax.report.labels import count_label, model_label, recipe_labels
from tlc_jax.report.page_markup import details, table
from tlc_jax.report.tables import (
    Choice,
    hundredths,
    latency_of,
    latency_sizes,
    mean_of,
    on_frontier,
    score_headings,
    scores,
    split_accuracies,
)
from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.frontier import group, summarize
from tlc_jax.statistics.kinds import ENCODER
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.regime import Progress, Regime


def best_table(study: Study, chosen: Sequence[Choice]) -> str:
    """The choices among one kind of models, of which `study` is the part."""
    kind, labels = study.kind, recipe_labels(model.recipe for model in study.models)
    heading = ["task", "#budget (MB)", "best model", *(f"#{name}" for name in score_headings(kind)),
               "#seeds", "#artifact (MB)", "#non-zero", "jobs"]  # fmt: skip
    rows = []
    for choice in (choice for choice in chosen if choice.kind == kind):
        cells = [escape(choice.task), f"{choice.megabytes:g}"]
        if (model := choice.model) is None:
            cells.append("nothing fits")
            rows.append([*cells, *[""] * (len(heading) - len(cells))])
            continue
        rows.append(
            [*cells, escape(model_label(model, labels)), *scores(model), str(model.score.n),
             f"{model.megabytes:.3f}", count_label(model.nonzero), details(model.jobs)]
        )  # fmt: skip
    if not rows:
        return ""
    name = "Accuracy" if kind == ENCODER else f"BLEU (sacreBLEU, {escape(_signed(study, 'bleu'))})"
    return table(heading, rows) + (
        f"<p class='fine'>MB = 10⁶ bytes of the packed artifact, of the largest artifact among the seeds. {name} is "
        "mean ± sample standard deviation over seeds.</p>"
    )


def training_table(study: Study, regime: Regime) -> str:
    """How the sizes of one kind compare during training, and how far each came."""
    curves = group(study.curves, lambda curve: curve.size)
    rows = [_training_row(progress, curves[progress.size]) for progress in regime.progress]
    if not rows:
        return ""
    heading = [
        "size", "#parameters", "#steps", "#tokens seen", "#tokens/s", "#MFU", "#training s", "#final loss (nats)",
        "#perplexity", *(f"#{score.heading}" for score in study.kind.trained), "#fall in last fifth", "early plateau",
        "stopped by", "jobs",
    ]  # fmt: skip
    lines = "".join(f"<li>{escape(crossing.describe('s'))}</li>" for crossing in regime.seconds)
    note = _FALL + (_PLATEAU if study.kind == ENCODER else "")
    return f"<ul>{lines}</ul>{table(heading, rows)}<p class='fine'>{note}</p>"


_FALL = (
    "“Fall in last fifth” is how much the loss, in nats, still fell over the last fifth of a run's "
    "steps; a learning rate that decays there lowers the loss by itself."
)
_PLATEAU = (
    " “Early plateau” means that the final loss is above 0.8 of the entropy of single tokens, or, where that is not "
    "reported, above 0.6 of the logarithm of the vocabulary: the model knows how frequent tokens are and little more."
)


def _training_row(progress: Progress, curves: Sequence[Curve]) -> list[str]:
    def results(field: str) -> list[float]:
        return [
            float(curve.result[field]) for curve in curves if curve.result.get(field) is not None
        ]

    def mean(field: str) -> float | None:
        return summarize(values).mean if (values := results(field)) else None

    kind, plateau = progress.size.kind, ""
    tokens = rate = mfu = None  # batches of pairs are padded: how many tokens they hold says little
    if kind == ENCODER:
        tokens, rate, mfu = mean("tokens"), mean("tokens_per_second"), mean("mfu")
        plateau = {None: "unknown", True: "yes", False: "left"}[progress.plateau]
    scores = [
        summarize(found).written(s.form) if (found := results(s.field)) else ""
        for s in kind.trained
    ]
    finals, seconds = (
        summarize(curve.losses[-1] for curve in curves),
        summarize(curve.seconds[-1] for curve in curves),
    )
    stopped = sorted({str(curve.result.get("stopped_by", "")) for curve in curves})
    return [
        str(progress.size), count_label(progress.size.params), f"{progress.steps:,.0f}",
        "" if tokens is None else count_label(tokens), "" if rate is None else f"{rate:,.0f}",
        "" if mfu is None else f"{mfu:.1%}", f"{seconds.mean:,.1f}", finals.written(".3f"),
        f"{math.exp(progress.loss):,.4g}", *scores, f"{progress.fall:.3f}", plateau, escape(", ".join(stopped)),
        details([curve.job for curve in curves]),
    ]  # fmt: skip


def model_tables(study: Study) -> str:
    """Every evaluated model of one kind, task by task."""
    kind, frontier = study.kind, on_frontier(study)
    labels = recipe_labels(model.recipe for model in study.models)
    text = ""
    for task, models in group(study.models, lambda model: model.task).items():
        splits = list(dict.fromkeys(split for model in models for split in split_accuracies(model)))
        splits = splits if len(splits) > 1 else []
        timed = latency_sizes(models)
        heading = ["model", "recipe", "#sparsity", "#bits", "#non-zero", "#ideal (MB)", "#artifact (MB)",
                   "#checkpoint (MB)", *(f"#{name}" for name in score_headings(kind)),
                   *(f"#{escape(split)} (%)" for split in splits),
                   *(f"#ms for {size}" for size in timed), "#seeds", "jobs"]  # fmt: skip
        rows = [
            _model_row(model, splits, timed, labels, model.jobs in frontier) for model in models
        ]
        text += f"<h3>{escape(task)}</h3>{table(heading, rows)}"
    if not text:
        return ""
    note = (
        f"A dot marks the Pareto frontier of {kind.score} against megabytes. Sparsity is over the "
        "pruned tensors. Ideal: bits of the values kept and of the positions they need, no headers; artifact: our "
        "packed file (largest over seeds); checkpoint: the compressed model as Orbax stores it. Unrounded: models.csv."
    )
    notes = [note, _latency_note(study.models), "" if kind == ENCODER else _bleu_note(study)]
    return text + "".join(f"<p class='fine'>{escape(note)}</p>" for note in notes if note)


def _latency_note(models: Sequence[Model]) -> str:
    """What was timed, and that zeros and low bits save no time there; nothing where no model was timed."""
    ways = [
        f"{row['latency_computes']} on one {row['latency_device']}, {row['latency_length']} tokens a sequence"
        for model in models
        for row in model.rows
        if "latency_computes" in row
    ]
    if not ways:
        return ""
    return (
        "“ms for N” is the median time of the forward pass for N sequences, mean over seeds; "
        f"{'; '.join(dict.fromkeys(ways))}. Pruned weights are multiplied as zeros there and quantized ones as the "
        "values they stand for, so a recipe that keeps the shape of a model keeps its time."
    )


def _signed(study: Study, score: str) -> str:
    """How "bleu" or "chrf" was computed."""
    return f"signature {', '.join(study.signatures(score)) or 'unknown'}"


def _bleu_note(study: Study) -> str:
    return (
        "BLEU, chrF and tokenized BLEU (0 to 100) are of translations by beam search, of every sentence of the "
        f"validation split. BLEU is sacreBLEU's, {_signed(study, 'bleu')}; chrF too, {_signed(study, 'chrf')}. "
        "Tokenised BLEU is that of the older literature: Moses tokens, compounds split as by tensor2tensor's script, "
        "no smoothing. approx_bleu (0 to 1) is tensor2tensor's: subwords, the likeliest given the true prefix."
    )


def _model_row(
    model: Model, splits: Sequence[str], timed: Sequence[int], labels: dict[str, str], best: bool
) -> list[str]:
    def megabytes(field: str) -> str:
        value = mean_of(model, field)
        return "" if value is None else f"{value / 1e6:.3f}"

    by_split = split_accuracies(model)
    times = [latency_of(model, size) for size in timed]
    return [
        f"{model.size}{'' if model.pretrained else ', from scratch'}",
        f"<span title='{escape(model.recipe, quote=True)}'>{escape(labels[model.recipe])}</span>{' •' if best else ''}",
        f"{model.sparsity:.0%}", f"{model.bits:g}", count_label(model.nonzero), megabytes("bytes_ideal"),
        f"{model.megabytes:.3f}", megabytes("bytes_checkpoint"), *scores(model),
        *(hundredths(by_split[split]) if split in by_split else "" for split in splits),
        *("" if milliseconds is None else f"{milliseconds:.3g}" for milliseconds in times),
        str(model.score.n), details(model.jobs),
    ]  # fmt: skip
