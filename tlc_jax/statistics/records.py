"""The results of a study as plain objects: evaluated models, learning curves, analyses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.frontier import Summary, group, summarize
from tlc_jax.statistics.kinds import ENCODER, KINDS, Kind, Shape, Size

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """One size under one recipe on one task, over all its seeds.

    Attributes:
      scores: fractions by (pretraining seed, finetuning seed).
      megabytes: 10^6 bytes of the largest artifact among the seeds, so that every seed's fits.
      nonzero, sparsity: means over the seeds.
      rows: the row of results.jsonl of each seed.
    """

    task: str
    size: Size
    pretrained: bool
    recipe: str
    scores: Mapping[tuple[int, int], float]
    megabytes: float
    nonzero: float
    sparsity: float
    bits: float
    rows: tuple[Row, ...]

    @property
    def score(self) -> Summary:
        return summarize(self.scores.values())

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(str(row["job"]) for row in self.rows)

    def mean(self, field: str) -> float | None:
        """The mean over seeds of a field that rows may lack."""
        values = [row[field] for row in self.rows if row.get(field) is not None]
        return summarize(values).mean if values else None


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The result of `tlc analyze` on one pretrained encoder under one recipe.

    Attributes:
      job, size, seed: of the encoder.
      result: the job's result.json.
      folder: folder of its figures.
    """

    job: str
    size: Size
    seed: int
    result: Row
    folder: Path

    @property
    def recipe(self) -> str:
        return str(self.result["recipe"])


@dataclasses.dataclass(frozen=True)
class Study:
    """All results of a study.

    Attributes:
      analyses: ordered by recipe, then by size.
      jobs: number, name, state and error of each job.
      recorded: the rest of study.json, such as the command.
      configs: resolved config of each job.
      results: result.json of each finished job.
      notes: rows that were left out, and why.
    """

    name: str
    rows: tuple[Row, ...]
    models: tuple[Model, ...]
    curves: tuple[Curve, ...]
    analyses: tuple[Analysis, ...]
    jobs: tuple[Row, ...]
    recorded: Row
    configs: Mapping[str, Row]
    results: Mapping[str, Row]
    notes: tuple[str, ...]

    @property
    def kinds(self) -> list[Kind]:
        found = {size.kind for size in self.sizes}
        return [kind for kind in KINDS.values() if kind in found]

    @property
    def kind(self) -> Kind:
        """The kind of a study that has a single one, as `of` makes it."""
        (kind,) = self.kinds
        return kind

    def of(self, kind: Kind) -> Study:
        """The part about one kind of model. Sizes are compared within one part alone."""
        return dataclasses.replace(
            self,
            rows=tuple(row for row in self.rows if kind_of(row) == kind),
            models=tuple(model for model in self.models if model.size.kind == kind),
            curves=tuple(curve for curve in self.curves if curve.size.kind == kind),
        )

    @property
    def sizes(self) -> list[Size]:
        return sorted({model.size for model in self.models} | {curve.size for curve in self.curves})

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(model.task for model in self.models))

    def by_size(
        self, task: str, recipe: str = "dense", pretrained: bool = True
    ) -> dict[Size, Model]:
        """The models of a task under one recipe, the smallest size first."""
        wanted = (task, recipe, pretrained)
        models = (m for m in self.models if (m.task, m.recipe, m.pretrained) == wanted)
        return {model.size: model for model in models}

    @property
    def synthetic(self) -> bool:
        """Whether any data of any job came from the toy generator."""
        data = [config.get("data", {}) for config in self.configs.values()]
        return any("toy:" in str(part.get(name, "")) for part in data for name in _SOURCES)

    def signatures(self, score: str) -> list[str]:
        """The different sacreBLEU signatures of "bleu" or "chrf" in this study."""
        found = [row.get(f"{score}_signature") for row in (*self.rows, *self.results.values())]
        return list(dict.fromkeys(str(signature) for signature in found if signature))


_SOURCES = ("train", "valid")


def kind_of(row: Row) -> Kind:
    """The kind of model of a row of results.jsonl; rows of older studies name none."""
    return KINDS[str(row.get("kind") or ENCODER.name)]


def shape_of(row: Row) -> Shape:
    """The shape of the model of a row of results.jsonl."""
    return int(row["layers"]), int(row["hidden"]), kind_of(row)


def sizes_of(rows: Sequence[Row]) -> dict[Shape, Size]:
    """One `Size` per shape, with the parameters of the whole model.

    Recipes may remove parameters, so the largest count of a task is that of the whole model. Tasks
    differ in their heads by a few parameters: the smallest count stands for all.
    """
    sizes = {}
    for shape, members in group(rows, shape_of).items():
        tasks = group(members, lambda row: row["task"]).values()
        sizes[shape] = Size(min(max(int(row["params"]) for row in task) for task in tasks), *shape)
    return sizes


def models_of(rows: Sequence[Row], sizes: Mapping[Shape, Size], notes: list[str]) -> list[Model]:
    """The evaluated models, by task, size, and falling megabytes.

    Args:
      rows: rows of results.jsonl with a finite score.
      sizes: see `sizes_of`.
      notes: gets a line for each model of which several jobs have the same seeds.
    """

    def key(row: Row) -> tuple[str, Size, bool, str]:
        pretrained = row.get("init", "pretrained") != "scratch"
        return str(row["task"]), sizes[shape_of(row)], pretrained, str(row["recipe"])

    def seeds(row: Row) -> tuple[int, int]:
        return int(row.get("pretrain_seed") or 0), int(row.get("seed") or 0)

    models = []
    for (task, size, pretrained, recipe), members in group(rows, key).items():
        by_seed = {seeds(row): row for row in members}
        if len(by_seed) < len(members):
            notes.append(
                f"{size}, {recipe} on {task}: several jobs have the same seeds, "
                "and only the last one counts"
            )
        kept = list(by_seed.values())
        model = Model(
            task=task,
            size=size,
            pretrained=pretrained,
            recipe=recipe,
            scores={
                seed: float(row[size.kind.field]) / size.kind.full for seed, row in by_seed.items()
            },
            megabytes=max(row["bytes_artifact"] for row in kept) / 1e6,
            nonzero=summarize(row["nonzero"] for row in kept).mean,
            sparsity=summarize(row.get("sparsity") or 0.0 for row in kept).mean,
            bits=float(kept[0].get("bits") or 32),
            rows=tuple(kept),
        )
        models.append(model)
    return sorted(models, key=lambda m: (m.task, m.size, not m.pretrained, -m.megabytes))
