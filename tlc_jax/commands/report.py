"""Write the tables and figures of a study: one HTML page that can be explored, PNGs and CSV.

Reads the results that `tlc study` left in --workdir, finished or not, and writes report/ there:
loss of every size against training seconds and steps, accuracy (BLEU of translators) against
megabytes and non-zero parameters with the Pareto frontier, the best model under each budget of
study.megabytes, and the paper's claims with the numbers found and a verdict. A study with two
pretraining seeds and two finetuning seeds is also compared instance by instance, as by
`tlc compare` with the same settings; the tables go to report/compare-TASK/.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.commands.compare import classified_tasks, compare_study
from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_text
from tlc_jax.report import comparison_tables, figures, page, tables
from tlc_jax.report.comparison_tables import Comparison
from tlc_jax.statistics import claims as claims_of
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.kinds import TRANSLATOR, Kind
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.regime import Regime, regimes
from tlc_jax.statistics.verdicts import VERDICTS, Claim
from tlc_jax.study.rows import load, read_results

_ON_THE_PAGE_ALONE = ("#seeds", "#non-zero", "jobs")


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `workdir/report/` from the results in `workdir` and prints one screen of summary.

    Returns:
      The paths written, the best model under each budget of megabytes, and the verdicts.

    Raises:
      InputError: the workdir holds no results, or they are damaged.
    """
    study = load(workdir)
    found = regimes(study)
    claims = claims_of.evaluate(study)
    chosen = tables.choices(study, config.study.megabytes)
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    csvs = tables.write_csvs(study, chosen, claims, folder)
    drawn = figures.draw_all(study, folder)
    compared = _compare_tasks(config, workdir, folder)
    index = folder / "index.html"
    text = page.render(study, found, claims, chosen, drawn, compared)
    write_text(index, text)
    print("\n".join(_summary(study, found, claims, chosen)))
    for task, comparison in compared.items():
        print(f"\n{task}, instance by instance:", *_found(comparison), sep="\n")
    print(f"\nreport: {index}")
    return {
        "page": str(index),
        "figures": [str(figure.path) for figure in drawn],
        "tables": [str(path) for path in csvs],
        "best": [tables.choice_fields(choice) for choice in chosen],
        "claims": {claim.number: claim.verdict for claim in claims},
    }


def _compare_tasks(config: Config, workdir: Path, folder: Path) -> dict[str, Comparison | str]:
    """Compares models instance by instance on each task; a text says why that was not possible."""
    found: dict[str, Comparison | str] = {}
    for task in classified_tasks(read_results(workdir / "results.jsonl", [])):
        settings = dataclasses.replace(config.compare, task=task)
        of_task = dataclasses.replace(config, compare=settings)
        try:
            found[task] = compare_study(of_task, workdir, folder / f"compare-{task}")
        except InputError as error:
            found[task] = f"left out: {error}"
    return found


def _found(comparison: Comparison | str) -> list[str]:
    if isinstance(comparison, str):
        return [comparison]
    return textwrap.wrap(" ".join(comparison_tables.headlines(comparison)), 100)


def _summary(
    study: Study,
    found: Mapping[Kind, Regime],
    claims: Sequence[Claim],
    chosen: Sequence[tables.Choice],
) -> list[str]:
    """The report in one screen of text: coverage, the best models, the regimes, the verdicts."""
    lines = [f"{study.name}: {page.coverage(study)}", ""]
    # Encoders and translators have different scores, so they are never in one table.
    for kind, options in group(chosen, lambda choice: choice.kind).items():
        lines += [*_best_models(study.of(kind), options), ""]
    for kind, regime in found.items():
        lines += [*textwrap.wrap(page.headline(study, regime, kind), 100), ""]
    for verdict in VERDICTS:
        numbers = [claim.number for claim in claims if claim.verdict == verdict]
        lines.append(f"claims: {verdict:<12} {len(numbers):>2}  {', '.join(numbers) or '-'}")
    return lines + page.unfinished(study)


def _best_models(study: Study, chosen: Sequence[tables.Choice]) -> list[str]:
    """The choices among the models of one kind, of which `study` is the part."""
    rows = page.best_table(chosen, study)
    headings = [name for name in page.columns(rows) if name not in _ON_THE_PAGE_ALONE]
    cells = [{name: row.get(name, "") for name in headings} for row in rows]
    lines = comparison_tables.in_text(cells).splitlines()
    if study.kind == TRANSLATOR:
        lines.append(f"BLEU signature: {', '.join(study.signatures('bleu')) or 'unknown'}")
    return lines
