"""The report as one HTML page that needs nothing else: images and styles are inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from tlc_jax.report.figures import Drawn
from tlc_jax.report.labels import model_label, recipe_labels
from tlc_jax.report.page_analyses import analyses
from tlc_jax.report.page_markup import figures, section, table
from tlc_jax.report.page_provenance import provenance
from tlc_jax.report.page_samples import samples
from tlc_jax.report.page_style import CSS
from tlc_jax.report.page_tables import best_table, model_tables, training_table
from tlc_jax.report.tables import Choice, hundredths
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.uncertainty import rule
from tlc_jax.statistics.verdicts import Claim


def render(
    study: Study,
    regimes: Mapping[Kind, Regime],
    claims: Sequence[Claim],
    chosen: Sequence[Choice],
    drawn: Sequence[Drawn],
) -> str:
    """The whole page; every text that comes from the study is escaped."""

    def by_kind(part: Callable[[Study], str]) -> str:
        return "".join(part(study.of(kind)) for kind in study.kinds)

    sections = [
        _head(study, chosen),
        section(
            "Best model under each memory budget", by_kind(lambda part: best_table(part, chosen))
        ),
        section(
            "Regime of training", by_kind(lambda part: _regime(study, part, regimes[part.kind]))
        ),
        section("Figures", figures(drawn)),
        analyses(study),
        section("The paper's claims, put to this study", _claims(study, claims)),
        section("Every evaluated model", by_kind(model_tables)),
        samples(study),
        section("Where the numbers come from", provenance(study)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(study.name)}: train large, then compress</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
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


def _head(study: Study, chosen: Sequence[Choice]) -> str:
    sentences = []
    for (kind, task), options in group(chosen, lambda choice: (choice.kind, choice.task)).items():
        labels = recipe_labels(model.recipe for model in study.of(kind).models)
        named = [
            f"under {choice.megabytes:g} MB <strong>{escape(model_label(choice.model, labels))}</strong> "
            f"({hundredths(choice.model.score)} {kind.unit})"
            for choice in options
            if choice.model
        ]
        text = ", ".join(named) if named else "no model fits any of the budgets"
        sentences.append(f"<p class='lead'>Best on <em>{escape(task)}</em>: {text}.</p>")
    warnings = [escape(line) for line in unfinished(study)]
    if study.synthetic:
        data, skill = _SYNTHETIC[tuple(study.kinds)]
        warnings.insert(
            0,
            f"{data} are synthetic, generated by the toy world: the numbers show how the "
            f"method behaves, not how well a model {skill}.",
        )
    notes = "".join(f"<p class='note'>{line}</p>" for line in warnings)
    title = f"<h1>{escape(study.name)}</h1><p class='sub'>{escape(coverage(study))}</p>"
    return f"<header>{title}{''.join(sentences)}{notes}</header>\n"


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
