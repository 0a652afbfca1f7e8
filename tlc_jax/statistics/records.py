"""What a study left on disk, read once into plain objects: evaluated models, training curves, job states.

Only finished jobs count. A torn last line (the study was killed while writing it) is skipped; any other bad line is
the user's to know about.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.curves import Curve, finite, read_curve
from tlc_jax.statistics.frontier import Summary, group, summarise
from tlc_jax.statistics.kinds import ENCODER, KINDS, Kind, Shape, Size

_REQUIRED = (
    "layers",
    "hidden",
    "params",
    "task",
    "recipe",
    "bytes_artifact",
    "nonzero",
    "job",
)  # and the kind's score


@dataclasses.dataclass(frozen=True)
class Model:
    """One size under one recipe on one task, over all its seeds."""

    task: str
    size: Size
    pretrained: bool
    recipe: str
    scores: Mapping[tuple[int, int], float]  # 0 to 1, by (pretraining seed, finetuning seed)
    megabytes: (
        float  # 10^6 bytes of the largest artifact among the seeds, so that every seed's fits
    )
    nonzero: float
    sparsity: float
    bits: float
    rows: tuple[Mapping[str, Any], ...]

    @property
    def score(self) -> Summary:
        return summarise(self.scores.values())

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(str(row["job"]) for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What `tlc analyze` found about one pretrained encoder under one recipe."""

    job: str
    size: Size
    seed: int
    result: Mapping[str, Any]
    folder: Path  # of its figures

    @property
    def recipe(self) -> str:
        return str(self.result["recipe"])


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a report is made of."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    models: tuple[Model, ...]
    curves: tuple[Curve, ...]
    analyses: tuple[Analysis, ...]  # by recipe, then by size
    jobs: tuple[Mapping[str, Any], ...]  # number, name, state, error
    recorded: Mapping[str, Any]  # what else study.json says, such as the command
    configs: Mapping[str, Mapping[str, Any]]  # resolved config of each job
    results: Mapping[str, Mapping[str, Any]]  # result.json of each finished job
    notes: tuple[str, ...]  # what was left out, and why

    @property
    def kinds(self) -> list[Kind]:
        found = {size.kind for size in self.sizes}
        return [kind for kind in KINDS.values() if kind in found]

    @property
    def kind(self) -> Kind:
        """The kind of a study that has one, as `of` makes it."""
        (kind,) = self.kinds
        return kind

    def of(self, kind: Kind) -> Study:
        """The part about one kind of model. Whatever compares sizes looks at one part at a time."""
        return dataclasses.replace(
            self,
            rows=tuple(row for row in self.rows if _kind(row) == kind),
            models=tuple(model for model in self.models if model.size.kind == kind),
            curves=tuple(curve for curve in self.curves if curve.size.kind == kind),
        )

    @property
    def sizes(self) -> list[Size]:
        return sorted({model.size for model in self.models} | {curve.size for curve in self.curves})

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(model.task for model in self.models))

    @property
    def synthetic(self) -> bool:
        """Whether any data of any job came from the toy generator."""
        sources = [
            str(config.get("data", {}).get(name, ""))
            for config in self.configs.values()
            for name in _SOURCES
        ]
        return any("toy:" in source for source in sources)

    def signatures(self, score: str) -> list[str]:
        """The different sacreBLEU signatures of "bleu" or "chrf" in this study."""
        found = [row.get(f"{score}_signature") for row in (*self.rows, *self.results.values())]
        return list(dict.fromkeys(str(signature) for signature in found if signature))


_SOURCES = ("train", "valid")


def load(workdir: Path) -> Study:
    """Reads `results.jsonl`, `study.json` and `jobs/*/` of a study's workdir.

    Raises:
      InputError: there are no results yet, or a file is damaged.
    """
    path = workdir / "results.jsonl"
    notes: list[str] = []
    rows = _latest(_read_rows(path, notes))
    usable = [row for row in rows if finite(row[_kind(row).field])]
    for kind in KINDS.values():
        read, left = (sum(_kind(row) == kind for row in some) for some in (rows, usable))
        if left < read:
            notes.append(
                f"{read - left} of {read} rows have no finite {kind.score} and are left out"
            )
    if not usable:
        raise InputError(
            f"{path} holds no evaluated model yet: run `tlc study` on this workdir first"
        )
    signatures = {str(row["bleu_signature"]) for row in usable if row.get("bleu_signature")}
    if len(signatures) > 1:
        notes.append(
            f"BLEU was computed in several ways, which must not be compared: {', '.join(sorted(signatures))}"
        )
    configs = {folder.name: _read_json(folder / "config.json") for folder in _job_folders(workdir)}
    results = {
        folder.name: _read_json(folder / "result.json")
        for folder in _job_folders(workdir)
        if (folder / "result.json").exists()
    }
    sizes = _sizes(usable)
    curves = [
        curve
        for kind in KINDS.values()
        for folder in _job_folders(workdir)
        if folder.name.startswith(f"{kind.job}-") and folder.name in results
        if (curve := read_curve(kind, folder, configs[folder.name], results[folder.name], sizes))
    ]
    recorded = _read_json(workdir / "study.json", default={})
    recorded = {"jobs": recorded} if isinstance(recorded, list) else dict(recorded)
    return Study(
        name=workdir.resolve().name,
        rows=tuple(usable),
        models=_models(usable, sizes, notes),
        curves=tuple(curves),
        analyses=_analyses(workdir, configs, results, sizes),
        jobs=tuple(recorded.pop("jobs", ())),
        recorded=recorded,
        configs=configs,
        results=results,
        notes=tuple(notes),
    )


def _read_rows(path: Path, notes: list[str]) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the workdir of a study, or run `tlc study` there first"
        )
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
            raise InputError(
                f"{path} line {number} is not JSON ({error}): remove it and run the study again"
            ) from None
        row = row if isinstance(row, dict) else {}
        if str(row.get("kind") or ENCODER.name) not in KINDS:
            raise InputError(
                f"{path} line {number} has kind {row['kind']!r}; known: {', '.join(KINDS)}"
            )
        missing = [name for name in (*_REQUIRED, _kind(row).field) if name not in row]
        if missing:
            raise InputError(
                f"{path} line {number} lacks {', '.join(missing)}: is this the results file of a study?"
            )
        rows.append(row)
    return rows


def _kind(row: Mapping[str, Any]) -> Kind:
    return KINDS[str(row.get("kind") or ENCODER.name)]  # results of older studies name none


def _latest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row per evaluated model: a job that ran again replaces what it wrote before."""
    return list({(row["job"], row["task"], row["recipe"]): row for row in rows}.values())


def _job_folders(workdir: Path) -> list[Path]:
    return sorted(path.parent for path in workdir.glob("jobs/*/config.json"))


def _read_json(path: Path, default: Any = None) -> Any:
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({error}): remove that job's folder and run the study again"
        ) from None


def _shape(row: Mapping[str, Any]) -> Shape:
    return int(row["layers"]), int(row["hidden"]), _kind(row)


def _sizes(rows: Sequence[Mapping[str, Any]]) -> dict[Shape, Size]:
    """One `Size` per shape, with the parameters of the whole model, from which recipes may have removed some.

    Tasks differ in their heads by a few parameters: the smallest count stands for all.
    """
    sizes = {}
    for shape, members in group(rows, _shape).items():
        tasks = group(members, lambda row: row["task"]).values()
        sizes[shape] = Size(min(max(int(row["params"]) for row in task) for task in tasks), *shape)
    return sizes


def _analyses(
    workdir: Path,
    configs: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    sizes: Mapping[Shape, Size],
) -> tuple[Analysis, ...]:
    found = []
    for job, result in results.items():
        if result.get("stage") in ("analyze", "analyse"):  # the second in older studies
            shape = int(result["layers"]), int(result["hidden"]), ENCODER
            size, seed = (
                sizes.get(shape) or Size(int(result["params"]), *shape),
                int(configs[job].get("seed", 0)),
            )
            found.append(Analysis(job, size, seed, result, workdir / "jobs" / job / "report"))
    recipes = list(dict.fromkeys(analysis.recipe for analysis in found))
    return tuple(sorted(found, key=lambda one: (recipes.index(one.recipe), one.size, one.seed)))


def _models(
    rows: Sequence[Mapping[str, Any]], sizes: Mapping[Shape, Size], notes: list[str]
) -> tuple[Model, ...]:
    def key(row: Mapping[str, Any]) -> tuple[str, Size, bool, str]:
        return (
            str(row["task"]),
            sizes[_shape(row)],
            row.get("init", "pretrained") != "scratch",
            str(row["recipe"]),
        )

    models = []
    for (task, size, pretrained, recipe), all_members in group(rows, key).items():
        members = list({_seeds(row): row for row in all_members}.values())
        if len(members) < len(all_members):
            notes.append(
                f"{size}, {recipe} on {task}: several jobs have the same seeds, and only the last one counts"
            )
        models.append(
            Model(
                task=task,
                size=size,
                pretrained=pretrained,
                recipe=recipe,
                scores={
                    _seeds(row): float(row[size.kind.field]) / size.kind.full for row in members
                },
                megabytes=max(row["bytes_artifact"] for row in members) / 1e6,
                nonzero=summarise(row["nonzero"] for row in members).mean,
                sparsity=summarise(row.get("sparsity") or 0.0 for row in members).mean,
                bits=float(members[0].get("bits") or 32),
                rows=tuple(members),
            )
        )
    return tuple(
        sorted(
            models,
            key=lambda model: (model.task, model.size, not model.pretrained, -model.megabytes),
        )
    )


def _seeds(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row.get("pretrain_seed") or 0), int(row.get("seed") or 0)
