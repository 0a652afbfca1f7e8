"""Compare models instance by instance: which instances does the larger or compressed model break?

Reads the predictions of a study in --workdir, or of a folder in the layout that Zhong et al. (2021)
released, and writes compare/ there. The models are those of `compare.models`, by default the dense
models of all sizes and every compressed version of the largest size; the second of a pair is the
larger one. "2x128 dense@300" is the model after 300 steps of finetuning, if eval.keep_predictions
kept its predictions. Two pretraining seeds and two finetuning seeds of every model are needed. The
tables:

* pairs.csv: a lower bound on the fraction of instances on which the second model is worse, beyond
  what other seeds would show, and on those where it is better;
* compressed.csv: which right answers of a dense model each compressed version breaks, in the same
  runs and beyond what another finetuning seed would break;
* bounds-by-seeds.csv: the bounds from fewer pretraining seeds, beside one test per instance;
* variances.csv: bias squared and the variance of each level of seeds;
* momentum.csv: whether instances that improved between two sizes improve again at the next;
* decaying.csv, broken.csv: the instances on which the larger or compressed model of each pair
  loses most, with their texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, read_json, write_text
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.order import held_out_name
from tlc_jax.data.sources import open_source, parse_sources
from tlc_jax.report import comparison_figures, comparison_tables
from tlc_jax.report.comparison_tables import Comparison
from tlc_jax.runs.workdir import read_config
from tlc_jax.statistics import breakage, comparison
from tlc_jax.statistics.comparison import Runs
from tlc_jax.statistics.instances import ensemble
from tlc_jax.statistics.records import POINT
from tlc_jax.study.predictions import (
    Family,
    Instances,
    checkpoint_rows,
    from_release,
    from_study,
    require_same_instances,
)
from tlc_jax.study.rows import read_results


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `workdir/compare/` and prints the tables of pairs and of compressed models.

    Returns:
      The paths written, the number of instances, and these two tables.

    Raises:
      InputError: predictions or seeds are missing, or the models answered other instances.
    """
    folder = workdir / "compare"
    if config.compare.release:
        chosen = _Chosen(from_release(path_of(config.compare.release), config.compare.models))
        found = _compare(chosen, config, folder)
    else:
        found = compare_study(config, workdir, folder)
    print("\n".join([found.coverage(), *found.notes]))
    for title, rows in comparison_tables.tables(found).items():
        print(f"\n{title}\n{comparison_tables.in_text(rows)}")
    print("", found.check(), *comparison_tables.headlines(found), sep="\n")
    print(f"\ntables and figures: {folder}")
    return {
        "instances": found.instances,
        "dropped_duplicates": found.dropped,
        "pairs": found.records("pairs"),
        "compressed": found.records("compressed"),
        "files": [str(folder / f"{name}.csv") for name in found.tables]
        + [str(figure.path) for figure in found.figures],
    }


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The families to compare, and why these.

    Attributes:
      families: in ascending order of size.
      paired_up: how many of them, the first ones, are compared with each other; the others are
        compared with their dense model alone.
      task, split: what they were asked.
      notes: what was chosen or left out.
    """

    families: Sequence[Family]
    paired_up: int | None = None
    task: str = ""
    split: str = ""
    notes: Sequence[str] = ()


def compare_study(config: Config, workdir: Path, folder: Path) -> Comparison:
    """Compares models of a study; writes tables and figures into `folder`.

    Raises:
      InputError: predictions or seeds are missing, or the models answered other instances.
    """
    return _compare(_of_study(config, workdir), config, folder)


def _compare(chosen: _Chosen, config: Config, folder: Path) -> Comparison:
    settings, families = config.compare, chosen.families
    unique = families[0].instances.unique()
    known = families[0].instances.labels >= 0
    for family in families[1:]:
        require_same_instances(families[0].instances, family.instances, family.name)
    _require_seeds(families)
    families = [family.take(unique & known) for family in families]
    instances = families[0].instances
    runs = [_runs(family) for family in families]
    sizes = runs[: chosen.paired_up]
    pairs = list(combinations(sizes, 2))
    dense = {one.trained: one for one in runs if one.name == f"{one.trained} dense"}
    versions = (one for one in runs if not one.name.startswith(f"{one.trained} dense"))
    compressed = [(dense[one.trained], one) for one in versions if one.trained in dense]
    rng = np.random.default_rng(config.seed)
    tables = {
        "pairs": comparison.compare_pairs(pairs, rng, settings.draws),
        "compressed": breakage.compare_compressed(compressed, rng, settings.draws),
        "bounds-by-seeds": comparison.bounds_by_seeds(pairs),
        "variances": comparison.compare_variances(runs),
        "momentum": comparison.compare_momentum(sizes),
    }
    worst = [(comparison.decaying_instances(*pair, settings.examples), *pair) for pair in pairs]
    tables["decaying"] = _with_texts(worst, ("small", "large"), instances)
    worst = [(breakage.broken_instances(*pair, settings.examples), *pair) for pair in compressed]
    tables["broken"] = _with_texts(worst, ("dense", "compressed"), instances)
    tables = {name: frame for name, frame in tables.items() if len(frame)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    figures = comparison_figures.draw(sizes, tables, folder)
    figures = [dataclasses.replace(figure, task=chosen.task) for figure in figures]
    dropped = int((~unique).sum())
    about = chosen.task, chosen.split, len(instances), dropped
    return Comparison(*about, tables, figures, chosen.notes)


def _of_study(config: Config, workdir: Path) -> _Chosen:
    """The families of a study that compare.models names, with the texts of their instances."""
    path = workdir / "results.jsonl"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the workdir of a study, or name compare.release"
        )
    rows = [row for row in read_results(path, []) if not row.get(POINT)]
    tasks = classified_tasks(rows)
    if not tasks:
        raise InputError(f"{path} has no classifiers: compare needs their predictions")
    task = config.compare.task or tasks[0]
    rows = [
        row for row in rows if row["task"] == task and row.get("init", "pretrained") == "pretrained"
    ]
    if not rows:
        raise InputError(f"compare.task={task}: {path} has {', '.join(tasks)}")
    split = config.compare.split or next(iter(rows[0]["accuracy_by_split"]))
    job = workdir / "jobs" / rows[0]["job"]  # of whose data there are texts
    versions: list[str] = []
    notes: list[str] = []
    wanted = list(config.compare.models)
    if not wanted:
        wanted, versions, notes = _by_default(rows)
    if any("@" in name for name in wanted):
        rows = [*rows, *checkpoint_rows(workdir, rows)]
    known = list(dict.fromkeys(map(_model, rows)))
    for name in wanted:
        if name not in known:
            raise InputError(
                f"compare.models: the study has no {name!r}{did_you_mean(name, known)}"
            )
    if len([*wanted, *versions]) < 2:
        raise InputError(f"compare needs two models or more; the study has {', '.join(known)}")
    # Only these are read: a study may have many recipes, some of them unfinished.
    names_read = [*wanted, *versions]
    families = from_study(workdir, [r for r in rows if _model(r) in names_read], split)
    by_name = {family.name: family for family in families}
    try:
        texts = _texts(read_config(job / "config.json"), split, families[0].instances)
    except InputError as error:  # predictions can be compared where the data is not
        texts = ()
        notes.append(f"texts are not shown, and inputs that occur twice are kept: {error}")
    result = job / "result.json"
    classes = tuple(read_json(result)["labels"]) if result.exists() else ()

    def described(family: Family) -> Family:
        about = dataclasses.replace(family.instances, texts=texts, classes=classes)
        return dataclasses.replace(family, instances=about)

    chosen = [described(by_name[name]) for name in names_read]
    return _Chosen(chosen, len(wanted), task, split, notes)


def _model(row: Mapping[str, Any]) -> str:
    """The name of the model of a row, such as "2x128 quantize:4"."""
    return f"{row['layers']}x{row['hidden']} {row['recipe']}"


def classified_tasks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks of the classifiers among the rows of a study."""
    return list(dict.fromkeys(row["task"] for row in rows if row.get("accuracy") is not None))


def _by_default(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Dense models of all sizes, the smallest first; compressed ones of the largest; and notes.

    Models whose runs are not all done are left out, unless all of them are.
    """
    runs: dict[str, set[tuple[Any, Any]]] = {}
    params: dict[str, int] = {}
    for row in rows:
        name = _model(row)
        runs.setdefault(name, set()).add((row.get("pretrain_seed"), row["seed"]))
        params[name] = row["params"]
    every_run = set().union(*runs.values())
    done = [name for name in runs if runs[name] == every_run] or list(runs)
    sizes = sorted((name for name in done if name.endswith(" dense")), key=params.__getitem__)
    largest = sizes[-1].split()[0] if sizes else ""
    of_largest = [name for name in runs if name.split()[0] == largest and name not in sizes]
    versions = [name for name in of_largest if name in done]
    notes = [
        f"{name} is left out: {len(every_run - runs[name])} of {len(every_run)} runs are not done"
        for name in runs
        if name not in done and (name.endswith(" dense") or name in of_largest)
    ]
    if versions:
        notes.append(
            f"dense against compressed: {largest}, the largest size; compare.models names others"
        )
    return sizes, versions, notes


def _texts(config: Config, split: str, instances: Instances) -> tuple[tuple[str, ...], ...]:
    """The texts of the instances, from the source of their split."""
    data = config.data
    specs = [spec for spec in (data.valid, data.test) if spec.strip()]
    named = {source.name: source for spec in specs for source in parse_sources(spec)}
    if not data.valid.strip():
        held = parse_sources(data.train)
        named |= {held_out_name(source.name, len(held) > 1): source for source in held}
    source = named[split]
    examples = open_source(source, data).examples()
    seconds = examples.pairs
    by_id = {
        number: (text,) if seconds is None else (text, seconds[place])
        for place, (number, text) in enumerate(zip(examples.ids, examples.texts, strict=True))
    }
    try:
        return tuple(by_id[int(number)] for number in instances.ids)
    except KeyError as error:
        raise InputError(
            f"{source.spec} has no example {error}: the data changed since the study"
        ) from error


def _require_seeds(families: Sequence[Family]) -> None:
    """Refuses families whose seeds do not suffice, differ in number, or do not match."""
    shapes = {family.name: family.probabilities.shape[1:3] for family in families}
    for name, (pretraining, finetuning) in shapes.items():
        if min(pretraining, finetuning) < 2:
            raise InputError(
                f"{name} has {pretraining} pretraining and {finetuning} finetuning seeds: compare "
                "needs two of each (study.pretrain_seeds, study.seeds)"
            )
    if len(set(shapes.values())) > 1:
        raise InputError(f"the models have different numbers of seeds: {shapes}")
    for first, second in combinations(families, 2):
        if first.trained and first.trained == second.trained and first.seeds != second.seeds:
            raise InputError(
                f"{first.name} and {second.name} have different seeds: {first.seeds} and "
                f"{second.seeds}"
            )


def _runs(family: Family) -> Runs:
    last_NxPxFxC = family.probabilities[:, :, :, -1]
    right_NxP = ensemble(last_NxPxFxC) == family.instances.labels[:, None]
    return Runs(family.name, family.correct(), right_NxP, family.trained)


def _with_texts(
    lists: Sequence[tuple[pd.DataFrame, Runs, Runs]], models: tuple[str, str], instances: Instances
) -> pd.DataFrame:
    """Lists of instances, each of two models, as one with ids, labels and texts."""
    frames = []
    for frame, *runs in lists:
        frame = frame.assign(**{name: of.name for name, of in zip(models, runs, strict=True)})
        frame = frame[[*models, *frame.columns.drop(list(models))]]
        labels_N = instances.labels[frame["instance"]]
        names = instances.classes
        frame["label"] = [names[label] for label in labels_N] if names else labels_N
        for place in range(len(instances.texts[0]) if instances.texts else 0):
            frame[f"text{place + 1}"] = [instances.texts[i][place] for i in frame["instance"]]
        frame["instance"] = instances.ids[frame["instance"]]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
