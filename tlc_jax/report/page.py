"""The report as one HTML page that needs nothing else: images and styles are inside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import jinja2
from markupsafe import Markup

from tlc_jax.report import explore
from tlc_jax.report.figures import Drawn
from tlc_jax.report.labels import model_label, recipe_labels
from tlc_jax.report.page_analyses import analyses
from tlc_jax.report.page_markup import figures, table
from tlc_jax.report.page_provenance import provenance
from tlc_jax.report.page_tables import best_table, model_tables, training_table
from tlc_jax.report.tables import Choice, hundredths
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.uncertainty import Claim, rule


def render(
    study: Study,
    regimes: Mapping[Kind, Regime],
    claims: Sequence[Claim],
    chosen: Sequence[Choice],
    drawn: Sequence[Drawn],
) -> str:
    """The whole page; the template escapes every text that comes from the study."""

    def by_kind(part: Callable[[Study], str]) -> str:
        return "".join(part(study.of(kind)) for kind in study.kinds)

    sections = {
        "Best model under each memory budget": by_kind(lambda part: best_table(part, chosen)),
        "Regime of training": by_kind(lambda part: _regime(study, part, regimes[part.kind])),
        "Figures": figures(drawn),
        "Why it compresses": analyses(study),
        "The paper's claims, put to this study": _claims(study, claims),
        "Every evaluated model": by_kind(model_tables),
        "Translations to read": samples(study),
        "Where the numbers come from": provenance(study),
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("tlc_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    loader = templates.loader
    assert loader is not None
    # "<" inside a script element would end it early if a name held "</script>".
    data = json.dumps(explore.charts(study)).replace("<", "\\u003c")
    return templates.get_template("page.html").render(
        study=study,
        coverage=coverage(study),
        best=_best(study, chosen),
        warnings=_warnings(study),
        sections=[{"title": title, "content": Markup(text)} for title, text in sections.items()],
        css=Markup(loader.get_source(templates, "page.css")[0]),
        javascript=Markup(loader.get_source(templates, "explore.js")[0]),
        explore=Markup(data),
    )


def coverage(study: Study) -> str:
    """One sentence: how many models, sizes, recipes, tasks and seeds."""
    recipes = {model.recipe for model in study.models}
    seeds = max(model.score.n for model in study.models)
    sizes = [
        _count(len(study.of(kind).sizes), "size")
        + ("" if study.kinds == [ENCODER] else f" of {kind.models}")
        for kind in study.kinds
    ]
    tasks = {(model.size.kind, model.task) for model in study.models}
    parts = [
        *sizes, _count(len(recipes), "recipe"), _count(len(tasks), "task"),
        f"up to {_count(seeds, 'seed')} each", f"{_count(len(study.rows), 'evaluated model')} in all",
    ]  # fmt: skip
    return ", ".join(parts) + ("; synthetic data" if study.synthetic else "")


def headline(study: Study, regime: Regime, kind: Kind) -> str:
    """The regime in one sentence, which names the kind of model except where all are encoders."""
    return ("" if study.kinds == [ENCODER] else f"{kind.models.capitalize()}: ") + regime.headline()


def unfinished(study: Study) -> list[str]:
    """A line for each kind of thing that is missing from the study."""
    states = group(
        (job for job in study.jobs if job.get("state") != "done"), lambda job: str(job.get("state"))
    )
    lines = []
    for state, jobs in states.items():
        names = [str(job.get("name")) + _reason(job.get("error")) for job in jobs]
        lines.append(
            f"{_count(len(jobs), 'job')} {state}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        )
    return [*lines, *study.notes]


def _reason(error: str | None) -> str:
    """The last line of what a job left on its failure, which may be a whole traceback."""
    return f" ({error.splitlines()[-1]})" if error else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _best(study: Study, chosen: Sequence[Choice]) -> list[dict[str, Any]]:
    """The best model under each budget, a line for each task."""
    lines = []
    for (kind, task), options in group(chosen, lambda choice: (choice.kind, choice.task)).items():
        labels = recipe_labels(model.recipe for model in study.of(kind).models)
        named = [
            Markup("under {} MB <strong>{}</strong> ({} {})").format(
                f"{choice.megabytes:g}",
                model_label(choice.model, labels),
                hundredths(choice.model.score),
                kind.unit,
            )
            for choice in options
            if choice.model
        ]
        text = Markup(", ").join(named) if named else "no model fits any of the budgets"
        lines.append({"task": task, "text": text})
    return lines


def _warnings(study: Study) -> list[str]:
    """What is missing, and a warning if the data is synthetic."""
    warnings = unfinished(study)
    if study.synthetic:
        data, skill = _SYNTHETIC[tuple(study.kinds)]
        warnings.insert(
            0,
            f"{data} are synthetic, generated by the toy world: the numbers show how the "
            f"method behaves, not how well a model {skill}.",
        )
    return warnings


_SYNTHETIC = {
    (ENCODER,): ("The text and the labelled pairs", "understands English"),
    (TRANSLATOR,): ("The sentence pairs", "translates"),
    (ENCODER, TRANSLATOR): ("Data of this study", "understands English or translates"),
}


def _regime(study: Study, part: Study, regime: Regime) -> str:
    text = escape(headline(study, regime, part.kind))
    return f"<p class='lead'>{text}</p>{training_table(part, regime)}"


def _claims(study: Study, claims: Sequence[Claim]) -> str:
    rows = []
    for claim in claims:
        badge = f"<span class='badge {claim.verdict.replace(' ', '-')}'>{claim.verdict}</span>"
        found = "".join(f"<li>{escape(line)}</li>" for line in claim.evidence)
        text = f"{escape(claim.text)}<p class='fine'>{escape(claim.criterion)}</p>"
        rows.append([escape(claim.number), text, badge, f"<ul>{found}</ul>" if found else ""])
    legend = (
        "“Does not hold” says that the criterion was not met in this study, which may also mean that the difference "
        "is within the spread of the seeds. Spreads are sample standard deviations."
    )
    if ENCODER not in study.kinds:
        legend += " The paper's claims about encoders are left out: this study has none."
    listing = table(
        ["", "claim and criterion", "verdict", "numbers found here"], rows, kind="claims"
    )
    return f"<p class='fine'>{escape(rule(study.kinds))} {legend}</p>{listing}"


def samples(study: Study) -> str:
    """What the translator of the highest BLEU makes of some validation sentences; nothing without translators."""
    found = {job: result for job, result in study.results.items() if result.get("samples")}
    if not found:
        return ""
    job = max(found, key=lambda name: float(found[name].get("bleu") or 0.0))
    sides = ("source", "reference", "translation")
    rows = [[escape(str(one[side])) for side in sides] for one in found[job]["samples"]]
    return (
        table(sides, rows)
        + f"<p class='fine'>{len(rows)} sentences of the validation split, drawn by the run's seed and not by their "
        f"translations, by the dense translator of the highest BLEU, {escape(job)}. Source: result.json.</p>"
    )
