"""The results of a study: evaluated models as one tidy data frame, learning curves, analyses."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.effects import ByInstance, Effect, Sample, by_pretraining, weigh
from tlc_jax.statistics.frontier import Summary, best_under, summarize
from tlc_jax.statistics.kinds import ENCODER, KINDS, Kind, Size

Row = Mapping[str, Any]
Seeds = tuple[int, int]  # of pretraining and finetuning

SPLIT = "accuracy_by_split."  # prefix of the columns of accuracy on one named split
POINT = "point"  # column of the point of study.vary, such as "batch=64"; "" is the base
VARY = "vary."  # prefix of the columns of the value of each axis
_MODEL = ["task", "size", "pretrained", "recipe"]
_SEEDS = ["pretrain_seed", "seed"]
# Values of rows that lack a column: older studies wrote fewer, and null where nothing applies.
_DEFAULTS: Row = {
    "kind": ENCODER.name,
    "init": "pretrained",
    "pretrain_seed": 0,
    "seed": 0,
    "sparsity": 0.0,
    "bits": 32.0,
}


class Answers(NamedTuple):
    """Which instances of a test set a run got right: ids [N], and correct bool [N]."""

    ids: np.ndarray
    correct: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)  # data frames have no single answer to ==
class Model:
    """One size under one recipe on one task, over all its seeds.

    Attributes:
      rows: its lines of `Study.rows`, one per seed.
      scores: fractions by (pretraining seed, finetuning seed).
      megabytes: 10^6 bytes of the largest artifact among the seeds, so that every seed's fits.
      nonzero, sparsity, bits: means over the seeds.
      answers: answers on the split of the score by the same keys as `scores`, where they were kept.
    """

    task: str
    size: Size
    pretrained: bool
    recipe: str
    rows: pd.DataFrame
    scores: Mapping[Seeds, float]
    megabytes: float
    nonzero: float
    sparsity: float
    bits: float
    answers: Mapping[Seeds, Answers] = dataclasses.field(default_factory=dict)

    @property
    def score(self) -> Summary:
        return summarize(self.scores.values())

    @property
    def runs(self) -> list[float]:
        """Mean scores of independent runs: of each pretraining run over its finetunings.

        A model from scratch has no pretraining run, so each of its finetuning seeds is a run.
        """
        return by_pretraining(self._by_run(self.scores))

    @functools.cached_property
    def sample(self) -> Sample:
        """The scores of independent runs, with what is known about them by instance."""
        return self._sample(self.scores, {seeds: one.correct for seeds, one in self._known()})

    def half(self, which: int) -> Model | None:
        """The model by its accuracies on one half of the split; None where a row lacks them."""
        halves = self.rows.get("accuracy_halves")
        if halves is None or not all(
            isinstance(both, list) and None not in both for both in halves
        ):
            return None
        found = dict(zip(_seeds_of(self.rows), (both[which] for both in halves), strict=True))
        rows = self.rows.assign(valid_examples=self.rows["valid_examples"] / 2)
        return dataclasses.replace(self, rows=rows, scores=found, answers={})

    def minus(self, other: Model) -> Sample:
        """Scores of this model minus those of another, of the seeds that both have."""
        scores = {
            s: score - other.scores[s] for s, score in self.scores.items() if s in other.scores
        }
        theirs = dict(other._known())
        known = [(seeds, one) for seeds, one in self._known() if seeds in theirs]
        paired = all(np.array_equal(one.ids, theirs[seeds].ids) for seeds, one in known)
        differences = {
            seeds: np.subtract(one.correct, theirs[seeds].correct, dtype=np.float32)
            for seeds, one in (known if paired else ())
        }
        found = self._sample(scores, differences)
        # As if the two had test sets of their own.
        return dataclasses.replace(found, test_variance=self.test_variance + other.test_variance)

    @property
    def test_variance(self) -> float:
        """Variance of the mean score over test sets: p (1 - p) / n; NaN without examples counted.

        That is the variance of a single run, and thus an upper bound for a mean over runs.
        """
        mean, examples = self.score.mean, self.summary("valid_examples")
        known = self.size.kind == ENCODER and examples.n
        return mean * (1 - mean) / examples.mean if known else math.nan

    def _known(self) -> list[tuple[Seeds, Answers]]:
        """The answers of all seeds on the same instances; none where some lack them."""
        if not self.answers or not set(self.scores) <= set(self.answers):
            return []
        known = [(seeds, self.answers[seeds]) for seeds in self.scores]
        first = known[0][1].ids
        return known if all(np.array_equal(one.ids, first) for _, one in known) else []

    def _sample(
        self, scores: Mapping[Seeds, float], by_instance: Mapping[Seeds, np.ndarray]
    ) -> Sample:
        values = by_pretraining(self._by_run(scores))
        if not by_instance:
            return Sample(values, test_variance=self.test_variance)
        groups: dict[int, list[np.ndarray]] = {}
        for (run, _), values_N in self._by_run(by_instance).items():
            groups.setdefault(run, []).append(values_N)
        answers_RxN = np.stack([np.mean(group, 0, dtype=np.float32) for group in groups.values()])
        return Sample(values, ByInstance(next(iter(self.answers.values())).ids, answers_RxN))

    def _by_run(self, values: Mapping[Seeds, Any]) -> dict[Seeds, Any]:
        """Values by (independent run, seed within it)."""
        turn = 1 if self.pretrained else -1
        return {seeds[::turn]: value for seeds, value in values.items()}  # type: ignore[misc]

    @property
    def points(self) -> Summary:
        """The score in percent, or in points of BLEU."""
        return summarize(100 * score for score in self.scores.values())

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(self.rows["job"])

    def summary(self, column: str) -> Summary:
        """Summarizes a column over the seeds that have it."""
        return summarize(present(self.rows, column))


@dataclasses.dataclass(frozen=True, eq=False)
class Best:
    """The best of several models.

    Attributes:
      model: the model, with the scores that judge it.
      score: its mean score with an interval, over runs and instances.
      halves: whether one half of the validation split chose the model and the other judges it.
        Otherwise the whole split did both, and the score of the best of many is a little too good.
    """

    model: Model
    score: Effect
    halves: bool


def best_model(models: Sequence[Model], megabytes: float) -> Best | None:
    """Returns the model of the highest score whose artifacts fit; None where none does."""
    split = [(first, second) for m in models if (first := m.half(0)) and (second := m.half(1))]
    halves = len(split) == len(models)
    choosing, judging = zip(*split, strict=True) if halves else (models, models)
    index = best_under(megabytes, [m.megabytes for m in models], [m.score.mean for m in choosing])
    if index is None:
        return None
    best = judging[index]
    # As for claims, the variance of runs is pooled over the sizes under one recipe.
    alike = [m for m in judging if (m.recipe, m.pretrained) == (best.recipe, best.pretrained)]
    score = weigh([model.sample for model in alike], [float(model is best) for model in alike])
    return Best(best, score, halves)


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """All results of a study at the base of its axes, if it has any.

    Attributes:
      folder: folder of the study.
      rows: the evaluated models, one line per seed; see `tidy`.
      analyses: ordered by recipe, then by size; see `analysis_row`.
      jobs: number, name, state and error of each job.
      recorded: the rest of study.json, such as the command.
      configs: resolved config of each job.
      results: result.json of each finished job.
      notes: rows that were left out, and why.
      varied: the rows, models and curves at each other point of study.vary. A point that changes
        nothing about training has no curves of its own, and one that only trains no models.
      vary: study.vary, where the workdir has its config.
      point: the value of each axis of study.vary.
    """

    folder: Path
    rows: pd.DataFrame
    models: tuple[Model, ...]
    curves: tuple[Curve, ...]
    analyses: tuple[dict[str, Any], ...]
    jobs: tuple[Row, ...]
    recorded: Row
    configs: Mapping[str, Row]
    results: Mapping[str, Row]
    notes: tuple[str, ...]
    varied: tuple[Study, ...] = ()
    vary: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    point: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def kinds(self) -> list[Kind]:
        return sorted({size.kind for size in self.sizes})  # by name

    @property
    def kind(self) -> Kind:
        """The only kind of model of a part of a study that `of` returned."""
        (kind,) = self.kinds
        return kind

    def of(self, kind: Kind) -> Study:
        """Returns the part about one kind of model. Sizes are compared within one part alone."""
        return dataclasses.replace(
            self,
            rows=self.rows[self.rows["kind"] == kind.name],
            models=tuple(model for model in self.models if model.size.kind == kind),
            curves=tuple(curve for curve in self.curves if curve.size.kind == kind),
            varied=tuple(
                part for one in self.varied if (part := one.of(kind)).models or part.curves
            ),
        )

    @property
    def axes(self) -> dict[str, list[str]]:
        """The values of each axis that differ here, the base first."""
        values: dict[str, dict[str, None]] = {}
        for one in (self, *self.varied):
            for name, value in one.point.items():
                values.setdefault(name, {})[value] = None
        return {name: list(found) for name, found in values.items() if len(found) > 1}

    @property
    def sizes(self) -> list[Size]:
        # Of curves too: a size that was trained may have no evaluated model yet.
        return sorted({m.size for m in self.models} | {curve.size for curve in self.curves})

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(model.task for model in self.models))

    def by_size(
        self, task: str, recipe: str = "dense", pretrained: bool = True
    ) -> dict[Size, Model]:
        """Returns the models of a task under one recipe, the smallest size first."""
        wanted = (task, recipe, pretrained)
        return {m.size: m for m in self.models if (m.task, m.recipe, m.pretrained) == wanted}

    def drops(self, task: str, recipe: str) -> dict[Size, dict[Seeds, float]]:
        """Subtracts compressed scores from the same seeds' dense ones.

        Returns:
          Fractions by size and (pretraining seed, finetuning seed).
        """
        dense, drops = self.by_size(task), {}
        for size, model in self.by_size(task, recipe).items():
            before = dense[size].scores if size in dense else {}
            drops[size] = {s: before[s] - score for s, score in model.scores.items() if s in before}
        return {size: values for size, values in drops.items() if values}

    @property
    def synthetic(self) -> bool:
        """Whether any data of any job came from the toy generator."""
        data = [config.get("data", {}) for config in self.configs.values()]
        return any("toy:" in str(part.get(name)) for part in data for name in ("train", "valid"))

    def signatures(self, score: str) -> list[str]:
        """Returns the different sacreBLEU signatures of "bleu" or "chrf" in this study."""
        column = f"{score}_signature"
        found = [result.get(column) for result in self.results.values()]
        return [text for text in dict.fromkeys([*present(self.rows, column), *found]) if text]


def operations(recipe: str) -> set[str]:
    """Returns the names of the operations of a recipe, such as prune and quantize."""
    # A selector may contain `+`, so it separates only where an operation follows.
    parts = re.split(r"\+(?=\s*(?:[a-z]+\s*:|finetune|dense))", recipe)
    return {part.partition(":")[0].strip() for part in parts}


def kind_of(row: Row) -> Kind:
    """Returns the kind of model of a row of results.jsonl; rows of older studies name none."""
    return KINDS[str(row.get("kind") or ENCODER.name)]


def axes_of(row: Row) -> dict[str, str]:
    """Returns the values of the axes of a row of results.jsonl; rows of older studies have none."""
    return {name.removeprefix(VARY): value for name, value in row.items() if name.startswith(VARY)}


def parse_point(text: str) -> dict[str, str]:
    """Returns the values of the axes that a point names, as in "batch=64,age=1"."""
    parts = (part.partition("=") for part in text.split(",") if part)
    return {name: value for name, _, value in parts}


def columns_of(point: Mapping[str, str]) -> dict[str, str]:
    """Returns the columns of the values of axes."""
    return {f"{VARY}{name}": value for name, value in point.items()}


def present(rows: pd.DataFrame, column: str) -> list[Any]:
    """Returns the values of a column without gaps; none where no row has the column."""
    return rows[column].dropna().tolist() if column in rows else []


def tidy(rows: Sequence[Row]) -> pd.DataFrame:
    """Makes a data frame with one line per row of results.jsonl.

    Args:
      rows: rows of results.jsonl with a finite score.

    Returns:
      The columns of the file (those of `SPLIT` one per split) and `size`, `pretrained`, and
      `score`, a fraction. A size has the parameters of the whole model. Recipes may remove
      parameters, so the largest count of a task is that of the whole model. Tasks differ in their
      heads by a few parameters: the smallest count stands for all.
    """
    frame = pd.json_normalize([{**_DEFAULTS, **row} for row in rows]).fillna(_DEFAULTS)
    # A gap makes a column of whole numbers one of floats, and seeds are shown.
    frame = frame.astype(dict.fromkeys(_SEEDS, int))
    shape = [frame["layers"], frame["hidden"], frame["kind"]]
    whole = frame.groupby([*shape, "task"])["params"].transform("max")
    params = whole.groupby(shape).transform("min")
    return frame.assign(
        size=[
            Size(count, layers, hidden, KINDS[kind])
            for count, layers, hidden, kind in zip(params, *shape, strict=True)
        ],
        pretrained=frame["init"] != "scratch",
        score=[row[kind_of(row).field] / kind_of(row).full for row in rows],
    )


def models_of(
    rows: pd.DataFrame,
    notes: list[str],
    answers: Callable[[Mapping[Seeds, str]], Mapping[Seeds, Answers]],
) -> list[Model]:
    """Groups rows into evaluated models, by task, size, and falling megabytes.

    Args:
      rows: see `tidy`.
      notes: gets a line for each model of which several jobs have the same seeds.
      answers: finds the answers of jobs that kept them, by the seeds of the jobs.
    """
    repeated = rows.duplicated([*_MODEL, *_SEEDS], keep="last")
    for row in rows[repeated].drop_duplicates(_MODEL).itertuples():
        notes.append(
            f"{row.size}, {row.recipe} on {row.task}: several jobs have the same seeds, "
            "and only the last one counts"
        )
    models = []
    for key, of_model in rows[~repeated].groupby(_MODEL, sort=False):
        seeds = _seeds_of(of_model)
        models.append(
            Model(
                **dict(zip(_MODEL, key, strict=True)),
                rows=of_model,
                scores=dict(zip(seeds, of_model["score"], strict=True)),
                answers=answers(dict(zip(seeds, of_model["job"], strict=True))),
                megabytes=of_model["bytes_artifact"].max() / 1e6,
                **{name: of_model[name].mean() for name in ("nonzero", "sparsity", "bits")},
            )
        )
    return sorted(models, key=lambda m: (m.task, m.size, not m.pretrained, -m.megabytes))


def _seeds_of(rows: pd.DataFrame) -> list[Seeds]:
    # An index of pandas would copy all columns of each of so many small tables.
    return list(zip(*(rows[name] for name in _SEEDS), strict=True))


def analysis_row(job: str, size: Size, seed: int, result: Row) -> dict[str, Any]:
    """Summarizes the result of `tlc analyze`: the cost of one recipe on one pretrained encoder.

    Args:
      job, size, seed: of the encoder.
      result: the job's result.json.

    Returns:
      A row of analyses.csv; None for parts that were not analyzed.
    """
    dense, compressed = (result.get(f"valid_loss_{name}") for name in ("dense", "compressed"))
    alone: Sequence[Row] = result.get("sensitivity", ())
    costliest = max(alone, key=lambda row: float(row["lost"]), default={})
    relative = [row["relative"] for row in result.get("error", ())]
    return {
        "job": job,
        "recipe": result["recipe"],
        "size": size,
        "seed": seed,
        "params": result["params"],
        "valid_loss_dense": dense,
        "valid_loss_compressed": compressed,
        "loss_rise": None if dense is None or compressed is None else compressed - dense,
        "relative_error": statistics.median(relative) if relative else None,
        "costliest": costliest.get("name"),
        "costliest_layer": costliest.get("layer"),
        "costliest_lost": costliest.get("lost"),
    }
