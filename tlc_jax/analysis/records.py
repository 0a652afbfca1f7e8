"""What a study left on disk, read once into plain objects: evaluated models, loss curves, job states.

Only finished jobs count. A torn last line (the study was killed while writing it) is skipped; any other bad line is
the user's to know about.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.analysis.frontier import Summary, group, summarise
from tlc_jax.errors import InputError

_REQUIRED = ("layers", "hidden", "params", "task", "recipe", "accuracy", "bytes_artifact", "nonzero", "job")


@dataclasses.dataclass(frozen=True, order=True)
class Size:
    """A shape of encoder; ordered by parameters, as every figure and table is."""

    params: int  # of the finetuned classifier, or of the pretraining model where nothing was finetuned
    layers: int
    hidden: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.hidden}"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Validation loss (nats per predicted token) of one pretraining run, by steps and by training seconds."""

    size: Size
    seed: int
    job: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    result: Mapping[str, Any]
    vocab_size: int  # 0: not known


@dataclasses.dataclass(frozen=True)
class Model:
    """One size under one recipe on one task, over all its seeds."""

    task: str
    size: Size
    pretrained: bool
    recipe: str
    accuracies: Mapping[tuple[int, int], float]  # by (pretraining seed, finetuning seed)
    megabytes: float  # 10^6 bytes of the largest artifact among the seeds, so that every seed's fits
    nonzero: float
    sparsity: float
    bits: float
    rows: tuple[Mapping[str, Any], ...]

    @property
    def accuracy(self) -> Summary:
        return summarise(self.accuracies.values())

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(str(row["job"]) for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a report is made of."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    models: tuple[Model, ...]
    curves: tuple[Curve, ...]
    jobs: tuple[Mapping[str, Any], ...]  # number, name, state, error
    recorded: Mapping[str, Any]  # what else study.json says, such as the command
    configs: Mapping[str, Mapping[str, Any]]  # resolved config of each job
    results: Mapping[str, Mapping[str, Any]]  # result.json of each finished job
    notes: tuple[str, ...]  # what was left out, and why

    @property
    def sizes(self) -> list[Size]:
        return sorted({model.size for model in self.models} | {curve.size for curve in self.curves})

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(model.task for model in self.models))

    @property
    def synthetic(self) -> bool:
        """Whether any data of any job came from the toy generator."""
        sources = [str(config.get("data", {}).get(name, "")) for config in self.configs.values() for name in _SOURCES]
        return any("toy:" in source for source in sources)


_SOURCES = ("train", "valid")


def load(workdir: Path) -> Study:
    """Reads `results.jsonl`, `study.json` and `jobs/*/` of a study's workdir.

    Raises:
      InputError: there are no results yet, or a file is damaged.
    """
    path = workdir / "results.jsonl"
    notes: list[str] = []
    rows = _latest(_read_rows(path, notes))
    usable = [row for row in rows if _finite(row["accuracy"])]
    if len(usable) < len(rows):
        notes.append(f"{len(rows) - len(usable)} of {len(rows)} rows have no finite accuracy and are left out")
    if not usable:
        raise InputError(f"{path} holds no evaluated model yet: run `tlc study` on this workdir first")
    configs = {folder.name: _read_json(folder / "config.json") for folder in _job_folders(workdir)}
    results = {
        folder.name: _read_json(folder / "result.json")
        for folder in _job_folders(workdir)
        if (folder / "result.json").exists()
    }
    sizes = _sizes(usable)
    curves = [
        curve
        for folder in _job_folders(workdir)
        if folder.name.startswith("pretrain-") and folder.name in results
        if (curve := _read_curve(folder, configs[folder.name], results[folder.name], sizes))
    ]
    recorded = _read_json(workdir / "study.json", default={})
    recorded = {"jobs": recorded} if isinstance(recorded, list) else dict(recorded)
    return Study(
        name=workdir.resolve().name,
        rows=tuple(usable),
        models=_models(usable, sizes, notes),
        curves=tuple(curves),
        jobs=tuple(recorded.pop("jobs", ())),
        recorded=recorded,
        configs=configs,
        results=results,
        notes=tuple(notes),
    )


def _read_rows(path: Path, notes: list[str]) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the workdir of a study, or run `tlc study` there first")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                notes.append(f"the last line of {path.name} is cut short and left out")
                continue
            raise InputError(f"{path} line {number} is not JSON ({error}): remove it and run the study again") from None
        missing = [name for name in _REQUIRED if name not in row] if isinstance(row, dict) else list(_REQUIRED)
        if missing:
            raise InputError(f"{path} line {number} lacks {', '.join(missing)}: is this the results file of a study?")
        rows.append(row)
    return rows


def _latest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row per evaluated model: a job that ran again replaces what it wrote before."""
    return list({(row["job"], row["task"], row["recipe"]): row for row in rows}.values())


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _job_folders(workdir: Path) -> list[Path]:
    return sorted(path.parent for path in workdir.glob("jobs/*/config.json"))


def _read_json(path: Path, default: Any = None) -> Any:
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): remove that job's folder and run the study again") from None


def _sizes(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], Size]:
    """One `Size` per shape. Tasks differ in their heads by a few parameters: the smallest count stands for all."""
    by_shape = group(rows, lambda row: (int(row["layers"]), int(row["hidden"])))
    return {shape: Size(min(int(row["params"]) for row in members), *shape) for shape, members in by_shape.items()}


def _models(
    rows: Sequence[Mapping[str, Any]], sizes: Mapping[tuple[int, int], Size], notes: list[str]
) -> tuple[Model, ...]:
    def key(row: Mapping[str, Any]) -> tuple[str, Size, bool, str]:
        size = sizes[int(row["layers"]), int(row["hidden"])]
        return str(row["task"]), size, row.get("init", "pretrained") != "scratch", str(row["recipe"])

    models = []
    for (task, size, pretrained, recipe), all_members in group(rows, key).items():
        members = list({_seeds(row): row for row in all_members}.values())
        if len(members) < len(all_members):
            notes.append(f"{size}, {recipe} on {task}: several jobs have the same seeds, and only the last one counts")
        models.append(
            Model(
                task=task,
                size=size,
                pretrained=pretrained,
                recipe=recipe,
                accuracies={_seeds(row): float(row["accuracy"]) for row in members},
                megabytes=max(row["bytes_artifact"] for row in members) / 1e6,
                nonzero=summarise(row["nonzero"] for row in members).mean,
                sparsity=summarise(row.get("sparsity") or 0.0 for row in members).mean,
                bits=float(members[0].get("bits") or 32),
                rows=tuple(members),
            )
        )
    return tuple(sorted(models, key=lambda model: (model.task, model.size, not model.pretrained, -model.megabytes)))


def _seeds(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row.get("pretrain_seed") or 0), int(row.get("seed") or 0)


def _read_curve(
    folder: Path, config: Mapping[str, Any], result: Mapping[str, Any], sizes: Mapping[tuple[int, int], Size]
) -> Curve | None:
    model = config.get("model", {})
    shape = int(model.get("layers", 0)), int(model.get("hidden", 0))
    evaluations = [row for row in _read_metrics(folder / "metrics.jsonl") if row.get("event") == "eval"]
    # The last evaluation, on everything, is in the result. It takes the place of one on a part at the same step.
    evaluations.append({"step": result.get("steps"), **result})
    points: list[tuple[int, float, float]] = []
    for row in evaluations:
        if not all(_finite(row.get(field)) for field in ("step", "train_seconds", "valid_loss")):
            continue
        while points and points[-1][0] >= row["step"]:  # a resumed run writes the steps since its checkpoint again
            points.pop()
        points.append((int(row["step"]), float(row["train_seconds"]), float(row["valid_loss"])))
    points = [point for point in points if point[0] > 0 and point[1] > 0]  # axes are logarithmic
    if not points:
        return None
    size = sizes.get(shape) or Size(int(result.get("params", 0)), *shape)
    steps, seconds, losses = zip(*points, strict=True)
    vocab = result.get("vocab_size") or config.get("tokenizer", {}).get("vocab_size") or 0
    return Curve(size, int(config.get("seed", 0)), folder.name, steps, seconds, losses, result, int(vocab))


def _read_metrics(path: Path) -> list[Mapping[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # torn by a kill; the resumed run wrote the row again
    return rows
