"""Compare models instance by instance: which instances does the larger or compressed model break?

Reads the predictions of a study in --workdir, or of a folder in the layout that Zhong et al. (2021)
released, and writes compare/ there. The models are the families of `compare.models`, by default the
dense models of all sizes; the second of a pair is the larger one. Needs two pretraining seeds and
two finetuning seeds of every model. The tables:

* pairs.csv: a lower bound on the fraction of instances on which the second model is worse, beyond
  what other seeds would show, and on those where it is better;
* bounds-by-seeds.csv: the same bound from fewer pretraining seeds, beside one test per instance;
* variances.csv: bias squared and the variance of each level of seeds;
* momentum.csv: whether instances that improved between two sizes improve again at the next;
* decaying.csv: the instances that the last model of each pair loses most on, with their texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, table
from tlc_jax.data.sources import open_source, parse_sources
from tlc_jax.report import comparison_figures
from tlc_jax.runs.workdir import read_config
from tlc_jax.statistics import comparison
from tlc_jax.statistics.comparison import Runs
from tlc_jax.statistics.instances import ensemble
from tlc_jax.study.predictions import (
    Family,
    Instances,
    from_release,
    from_study,
    require_same_instances,
)
from tlc_jax.study.rows import read_results


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `workdir/compare/` and prints the table of pairs.

    Returns:
      The paths written, the number of instances, and the table of pairs.

    Raises:
      InputError: predictions or seeds are missing, or the models answered other instances.
    """
    settings = config.compare
    if settings.release:
        families = from_release(Path(settings.release), settings.models)
    else:
        families = _of_study(config, workdir)
    unique = families[0].instances.unique()
    known = families[0].instances.labels >= 0
    for family in families[1:]:
        require_same_instances(families[0].instances, family.instances, family.name)
    families = [family.take(unique & known) for family in families]
    instances = families[0].instances
    _require_seeds(families)
    runs = [_runs(family) for family in families]
    pairs = list(combinations(runs, 2))
    tables = {
        "pairs": comparison.compare_pairs(
            pairs, np.random.default_rng(config.seed), settings.draws
        ),
        "bounds-by-seeds": comparison.bounds_by_seeds(pairs),
        "variances": comparison.compare_variances(runs),
        "momentum": comparison.compare_momentum(runs),
        "decaying": _decaying(pairs, instances, settings.examples),
    }
    folder = workdir / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, frame in tables.items():
        paths.append(folder / f"{name}.csv")
        frame.to_csv(paths[-1], index=False)
    paths += comparison_figures.draw(
        runs,
        (runs[0], runs[-1]),
        tables["bounds-by-seeds"],
        tables["variances"],
        tables["momentum"],
        folder,
    )
    dropped = int((~unique).sum())
    print(f"{len(instances):,} instances; {dropped:,} dropped because their texts occur twice")
    print(_summary(tables["pairs"]))
    print(f"\ntables and figures: {folder}")
    return {
        "instances": len(instances),
        "dropped_duplicates": dropped,
        "pairs": tables["pairs"].to_dict("records"),
        "files": [str(path) for path in paths],
    }


def _of_study(config: Config, workdir: Path) -> list[Family]:
    """The families of a study that compare.models names, with the texts of their instances."""
    path = workdir / "results.jsonl"
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the workdir of a study, or name compare.release"
        )
    rows = read_results(path, [])
    tasks = list(dict.fromkeys(row["task"] for row in rows if row.get("accuracy") is not None))
    if not tasks:
        raise InputError(f"{path} has no classifiers: compare needs their predictions")
    task = config.compare.task or tasks[0]
    rows = [row for row in rows if row["task"] == task]
    if not rows:
        raise InputError(f"compare.task={task}: {path} has {', '.join(tasks)}")
    split = config.compare.split or next(iter(rows[0]["accuracy_by_split"]))
    names = {row["job"]: f"{row['layers']}x{row['hidden']} {row['recipe']}" for row in rows}
    known = list(dict.fromkeys(names.values()))
    wanted = config.compare.models or [name for name in known if name.endswith(" dense")]
    for name in wanted:
        if name not in known:
            raise InputError(
                f"compare.models: the study has no {name!r}{did_you_mean(name, known)}"
            )
    if len(wanted) < 2:
        raise InputError(f"compare needs two models or more; the study has {', '.join(known)}")
    # Only these are read: a study may have many recipes, some of them unfinished.
    families = from_study(workdir, [r for r in rows if names[r["job"]] in wanted], task, split)
    by_name = {family.name: family for family in families}
    if not config.compare.models:
        wanted = list(by_name)  # smallest first
    job = workdir / "jobs" / rows[0]["job"]
    texts = _texts(read_config(job / "config.json"), split, families[0].instances)
    return [
        dataclasses.replace(f, instances=dataclasses.replace(f.instances, texts=texts))
        for f in (by_name[name] for name in wanted)
    ]


def _texts(config: Config, split: str, instances: Instances) -> tuple[tuple[str, ...], ...]:
    """The texts of the instances, from the source of their split."""
    source = next(one for one in parse_sources(config.data.valid) if one.name == split)
    examples = open_source(source, config.data).examples()
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


def _require_seeds(families: list[Family]) -> None:
    """Refuses families whose seeds do not suffice, or differ in number."""
    shapes = {family.name: family.probabilities.shape[1:3] for family in families}
    for name, (pretraining, finetuning) in shapes.items():
        if min(pretraining, finetuning) < 2:
            raise InputError(
                f"{name} has {pretraining} pretraining and {finetuning} finetuning seeds: compare "
                "needs two of each (study.pretrain_seeds, study.seeds)"
            )
    if len(set(shapes.values())) > 1:
        raise InputError(f"the models have different numbers of seeds: {shapes}")


def _runs(family: Family) -> Runs:
    last_NxPxFxC = family.probabilities[:, :, :, -1]
    right_NxP = ensemble(last_NxPxFxC) == family.instances.labels[:, None]
    return Runs(family.name, family.correct(), right_NxP)


def _decaying(pairs: list[comparison.Pair], instances: Instances, count: int) -> pd.DataFrame:
    frames = []
    for small, large in pairs:
        frame = comparison.decaying_instances(small, large, count)
        frame.insert(0, "large", large.name)
        frame.insert(0, "small", small.name)
        frame["label"] = instances.labels[frame["instance"]]
        for place in range(len(instances.texts[0]) if instances.texts else 0):
            frame[f"text{place + 1}"] = [instances.texts[i][place] for i in frame["instance"]]
        frame["instance"] = instances.ids[frame["instance"]]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _summary(pairs: pd.DataFrame) -> str:
    rows = [["small", "large", "accuracy", "", "decaying", "±", "improving", "±"]]
    for row in pairs.to_dict("records"):
        shares = ("decaying", "decaying_error", "improving", "improving_error")
        accuracies = (row["accuracy_small"], row["accuracy_large"])
        cells = [f"{100 * value:.1f} %" for value in accuracies]
        rows.append(
            [row["small"], row["large"], *cells, *(f"{100 * row[name]:.2f} %" for name in shares)]
        )
    return table(rows)
