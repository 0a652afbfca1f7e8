"""The finished training runs of studies, and what recipes cost them, for forecasts."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlc_jax.config import to_dict
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import read_json
from tlc_jax.runs.workdir import read_config
from tlc_jax.statistics.kinds import Kind
from tlc_jax.statistics.records import Row, kind_of
from tlc_jax.statistics.regime import PLATEAU_OF_UNIGRAM
from tlc_jax.study.rows import read_results

# Points of one law have these settings in common, but for the size and where data are cached.
_COMMON = ("data", "tokenizer", "model", "objective", "optimizer", "init")
_FREE = {"data": ("cache",), "model": ("layers", "hidden", "heads", "head_size", "ffn")}


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A finished training run.

    Attributes:
      name: its size, such as "2x128".
      params, params_nonembedding: parameters.
      tokens, seconds: training tokens and training seconds.
      loss: validation loss at the end, in nats.
      key: what tells the rows of its models: study, layers, hidden, seed, steps and seconds.
      settings: the settings that runs of one law have in common.
    """

    name: str
    params: int
    params_nonembedding: int
    tokens: float
    seconds: float
    loss: float
    key: tuple[Any, ...]
    settings: str


def read_runs(studies: Sequence[Path], kind: Kind, notes: list[str]) -> list[TrainingRun]:
    """Reads the finished training runs of one kind of model.

    Args:
      studies: workdirs of studies, of which the budgets may differ.
      kind: kind of model.
      notes: gets a line for runs that are left out.

    Raises:
      InputError: a study has no jobs, or a file is damaged.
    """
    runs: list[TrainingRun] = []
    for number, study in enumerate(studies):
        if not (study / "jobs").is_dir():
            raise InputError(f"{study} has no jobs/: name the workdir of a study")
        paths = study.glob(f"jobs/{kind.job}-*/result.json")
        branches = study.glob(f"jobs/{kind.job}-*/branches/*/result.json")
        for path in sorted([*paths, *branches]):
            result = read_json(path)
            run = _run(number, result, to_dict(read_config(path.with_name("config.json"))))
            name = path.parent.relative_to(study / "jobs")
            if run is None:
                notes.append(f"{name} is left out: its loss or its tokens are unknown")
            elif run.loss > PLATEAU_OF_UNIGRAM * (result.get("unigram_loss") or math.inf):
                notes.append(f"{name} is left out: it ended on the early plateau")
            else:
                runs.append(run)
    groups = collections.Counter(run.settings for run in runs)
    if len(groups) > 1:
        settings, most = groups.most_common(1)[0]
        names = sorted(set().union(*(_different(settings, other) for other in groups)))
        notes.append(
            f"{len(runs) - most} of {len(runs)} training runs are left out: they differ from the "
            f"others in {', '.join(names)}"
        )
        runs = [run for run in runs if run.settings == settings]
    return runs


def _run(number: int, result: Row, config: Row) -> TrainingRun | None:
    names = ("params", "params_nonembedding", "tokens", "train_seconds", "valid_loss", "steps")
    values = [result.get(name) for name in names]
    if not all(isinstance(value, (int, float)) and 0 < value < math.inf for value in values):
        return None
    params, inner, tokens, seconds, loss, steps = map(float, values)  # type: ignore[arg-type]
    layers, hidden = config["model"]["layers"], config["model"]["hidden"]
    alike = {
        f"{section}.{name}": value
        for section in _COMMON
        for name, value in config[section].items()
        if name not in _FREE.get(section, ())
    }
    if config["optimizer"]["schedule"] == "wsd":
        del alike["optimizer.warmup"]  # equally long for all branches, another share of each
    return TrainingRun(
        name=f"{layers}x{hidden}",
        params=int(params),
        params_nonembedding=int(inner),
        tokens=tokens,
        seconds=seconds,
        loss=loss,
        key=(number, layers, hidden, config["seed"], int(steps), seconds),
        settings=json.dumps(alike, sort_keys=True),
    )


def _different(first: str, second: str) -> set[str]:
    """Names of the settings in which two runs differ."""
    mine, theirs = json.loads(first), json.loads(second)
    return {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}


def read_rows(studies: Sequence[Path], kind: Kind) -> list[tuple[int, Row]]:
    """Rows of evaluated models of one kind, pretrained, each with the number of its study."""
    return [
        (number, row)
        for number, study in enumerate(studies)
        if (study / "results.jsonl").is_file()
        for row in read_results(study / "results.jsonl", [])
        if kind_of(row) == kind and row.get("init", "pretrained") == "pretrained"
    ]


@dataclasses.dataclass(frozen=True)
class Lost:
    """Points of the score that a recipe cost one training run, the mean over its finetunings."""

    run: TrainingRun
    points: float


def points_lost(
    rows: Sequence[tuple[int, Row]], runs: Sequence[TrainingRun], kind: Kind, recipe: str
) -> dict[str, list[Lost]]:
    """What a recipe cost each training run, by task."""
    by_key = {run.key: run for run in runs}
    scores: dict[tuple[Any, ...], dict[str, float]] = {}
    points: dict[tuple[Any, ...], str] = {}  # of a study's axes: the one with the fewest changes
    for number, row in sorted(rows, key=lambda item: str(item[1].get("point") or "").count("=")):
        run = row.get("pretrain_seed", 0), row.get("steps"), row.get("train_seconds")
        key = (number, row["layers"], row["hidden"], *run)
        if row["recipe"] not in ("dense", recipe) or key not in by_key or row[kind.field] is None:
            continue
        point = str(row.get("point") or "")
        if points.setdefault(key, point) != point:
            continue
        finetuning = (key, row["task"], row.get("seed", 0))
        scores.setdefault(finetuning, {})[row["recipe"]] = 100 * row[kind.field] / kind.full
    drops: dict[tuple[str, Any], list[float]] = {}
    for (key, task, _), pair in scores.items():
        if len(pair) == 2:
            drops.setdefault((task, key), []).append(pair["dense"] - pair[recipe])
    found: dict[str, list[Lost]] = {}
    for (task, key), values in drops.items():
        found.setdefault(task, []).append(Lost(by_key[key], sum(values) / len(values)))
    return found
