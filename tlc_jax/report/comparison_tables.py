"""The tables of `tlc compare` as text, for the terminal and for the page of a report.

A table is a list of rows that map headings to cells; "#" opens the heading of a column of numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tlc_jax.core import text
from tlc_jax.report.figures import Drawn

Table = list[dict[str, str]]
_ON_PAGE = 10  # instances of each list that the page shows; the CSV files have all of them


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models compared instance by instance.

    Attributes:
      task, split: what the models were asked; empty for predictions in the released layout.
      instances: number of instances compared.
      dropped: number of instances left out because their texts occur more than once.
      tables: data frames by name of their CSV file, those that are not empty.
      figures: PNGs, in the order of reading.
      notes: what was chosen or left out, one line each.
    """

    task: str
    split: str
    instances: int
    dropped: int
    tables: Mapping[str, pd.DataFrame]
    figures: Sequence[Drawn]
    notes: Sequence[str]

    def coverage(self) -> str:
        """Says how many instances were compared."""
        dropped = f"{self.dropped:,} dropped because their texts occur twice"
        return f"{self.instances:,} instances; {dropped}"

    def records(self, name: str) -> list[dict[Any, Any]]:
        """The rows of a table; none where it is empty."""
        return self.tables[name].to_dict("records") if name in self.tables else []

    def check(self) -> str:
        """Says how well the identities of the variances hold."""
        variances = self.tables["variances"]
        checks = variances[[name for name in variances if name.startswith("check_")]]
        largest = float(checks.abs().to_numpy().max())
        return f"largest error of the three identities of disagreement and variance: {largest:.0e}"


def headlines(comparison: Comparison) -> list[str]:
    """What was found, a sentence for the outermost pair and one for each compressed model."""
    lines = []
    if pairs := comparison.records("pairs"):
        # With sizes in ascending order, the smallest against the largest.
        row = [one for one in pairs if one["small"] == pairs[0]["small"]][-1]
        few = row["decaying"] < 2 * row["decaying_error"]
        lines.append(
            f"At least {_share(row, 'decaying')} % of the instances are answered worse by "
            f"{row['large']} than by {row['small']}{' (this may be chance)' if few else ''}, and "
            f"at least {_share(row, 'improving')} % better."
        )
    for row in comparison.records("compressed"):
        lines.append(
            f"{row['compressed']} turns {100 * row['broken']:.2f} % of all answers of the same run "
            f"from right to wrong; another finetuning seed turns "
            f"{100 * row['broken_by_finetuning_seed']:.2f} %. "
            + (
                f"It breaks {_range(row, 'broken_beyond')} % beyond what another seed would."
                if row["broken_beyond_low"] > 0
                else "That it breaks any beyond what another seed would is not shown: "
                f"{_range(row, 'broken_beyond')} %."
            )
        )
    return lines


def _share(row: Mapping[str, Any], name: str) -> str:
    return f"{100 * row[name]:.2f} ± {100 * row[f'{name}_error']:.2f}"


def _range(row: Mapping[str, Any], name: str, form: str = ".2f") -> str:
    value, low, high = (100 * row[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def tables(comparison: Comparison) -> dict[str, Table]:
    """The tables that are not empty, by title."""
    found = {
        "Pairs of models": [_pair(row) for row in comparison.records("pairs")],
        "Dense against compressed": [_compressed(row) for row in comparison.records("compressed")],
        "Bias and variance": [_variances(row) for row in comparison.records("variances")],
    }
    return {title: rows for title, rows in found.items() if rows}


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "small": row["small"],
        "large": row["large"],
        "#accuracy (%)": _accuracies(row, "small", "large"),
        "#change (points)": f"{100 * row['difference']:+.2f} ± {100 * row['difference_error']:.2f}",
        "#decaying (%), at least": _share(row, "decaying"),
        "#bias of its threshold": text.number(row["threshold_bias"], "+.0%", ""),
        "#improving (%), at least": _share(row, "improving"),
        "#decaying by Fisher + BH (%)": text.number(100 * row["fisher"], ".2f", ""),
    }


def _accuracies(row: Mapping[str, Any], first: str, second: str) -> str:
    return f"{100 * row[f'accuracy_{first}']:.1f} → {100 * row[f'accuracy_{second}']:.1f}"


def _compressed(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "compressed": row["compressed"],
        "#accuracy (%)": _accuracies(row, "dense", "compressed"),
        "#change (points)": _range(row, "difference", "+.2f"),
        "#right → wrong (%)": f"{100 * row['broken']:.2f}",
        "#by another finetuning seed": f"{100 * row['broken_by_finetuning_seed']:.2f}",
        "#by another pretraining seed": f"{100 * row['broken_by_pretraining_seed']:.2f}",
        "#broken beyond seeds (%)": _range(row, "broken_beyond"),
        "#mended beyond seeds (%)": _range(row, "mended_beyond"),
        "#decaying (%), at least": _share(row, "decaying"),
    }


def _variances(row: Mapping[str, Any]) -> dict[str, str]:
    levels = {
        f"#{level} variance (%)": _share(row, f"{level}_variance")
        for level in ("pretraining", "finetuning")
    }
    return {
        "model": row["model"],
        "#wrong answers (%)": f"{100 * row['loss']:.2f}",
        "#bias squared (%)": f"{100 * row['bias_squared']:.2f}",
        **levels,
        "#finetuning / pretraining": text.number(row["finetuning_over_pretraining"], ".1f", ""),
    }


def worst_instances(comparison: Comparison) -> dict[str, Table]:
    """The first instances of each list with known texts, by title."""
    found = {}
    for name, first, second in (("broken", "dense", "compressed"), ("decaying", "small", "large")):
        frame = comparison.tables.get(name, pd.DataFrame())
        texts = [str(column) for column in frame if str(column).startswith("text")]
        for (before, after), rows in frame.groupby([first, second], sort=False) if texts else ():
            found[f"{after}, against {before}"] = [
                {
                    **{column: row[column] for column in texts},
                    "label": str(row["label"]),
                    f"#right by {before} (%)": f"{100 * row[f'accuracy_{first}']:.0f}",
                    f"#right by {after} (%)": f"{100 * row[f'accuracy_{second}']:.0f}",
                }
                for row in rows.head(_ON_PAGE).to_dict("records")
            ]
    return found


def in_text(rows: Table) -> str:
    """A table for the terminal."""
    headings = list(rows[0])
    return text.table(
        [[name.lstrip("#") for name in headings], *([row[n] for n in headings] for row in rows)]
    )
