"""The page's translations to read: sentences drawn by a seed, with their references."""

from __future__ import annotations

from html import escape

from tlc_jax.report.page_markup import section, table
from tlc_jax.statistics.records import Study


def samples(study: Study) -> str:
    """What the translator of the highest BLEU makes of some validation sentences; nothing without translators."""
    found = {job: result for job, result in study.results.items() if result.get("samples")}
    if not found:
        return ""
    job = max(found, key=lambda name: float(found[name].get("bleu") or 0.0))
    sides = ("source", "reference", "translation")
    rows = [[escape(str(one[side])) for side in sides] for one in found[job]["samples"]]
    return section(
        "Translations to read",
        table(sides, rows)
        + f"<p class='fine'>{len(rows)} sentences of the validation split, drawn by the run's seed and not by their "
        f"translations, by the dense translator of the highest BLEU, {escape(job)}. Source: result.json.</p>",
    )
