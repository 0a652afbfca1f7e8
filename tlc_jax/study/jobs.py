"""The jobs of a study: the runs that a grid expands to, the jobs that each needs, and its state."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from tlc_jax.compression.recipe import format_recipe, parse_one_shot, parse_recipe
from tlc_jax.config import Config, Study, merge, parse_size, resolve, to_dict
from tlc_jax.config.resolve import require_budget, require_names
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import is_locked
from tlc_jax.data.tokenizer import file_name
from tlc_jax.study.vary import Axes, Point, undone

Settings = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a command.

    Attributes:
      number: its place in the study; the same as long as the study's config is.
      name: name of its workdir under jobs/.
      command: name of the command.
      config: resolved config of the run.
      workdir: folder of the run.
      needs: numbers of the jobs that must be done first.
      labels: columns of results.jsonl that place its result in the grid.
      stages: stages whose axes (study.vary) concern it.
      points: points of the axes at which it is the job, by their text; "" is the base.
    """

    number: int
    name: str
    command: str
    config: Config
    workdir: Path
    needs: tuple[int, ...]
    labels: dict[str, Any]
    stages: tuple[str, ...] = ()
    points: dict[str, Point] = dataclasses.field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.result_file.exists()

    @property
    def result_file(self) -> Path:
        return self.workdir / "result.json"

    @property
    def error_file(self) -> Path:
        return self.workdir / "error.txt"


def needed_first(job: Job, jobs: list[Job]) -> list[Job]:
    """All jobs that a job needs, each after those that it needs itself, and then the job."""
    found: list[Job] = []
    for number in job.needs:
        found += [other for other in needed_first(jobs[number], jobs) if other not in found]
    return [*found, job]


def state(job: Job, jobs: list[Job], exists: Callable[[Path], bool]) -> str:
    """done, failed, running, waiting (for other jobs) or ready.

    Args:
      job: the job.
      jobs: all jobs of the study.
      exists: says whether a file of a job exists: `files.existing`.
    """
    if exists(job.result_file):
        return "done"
    # Before error.txt is looked at, which stays until the process that tries again removes it.
    if exists(lock := job.workdir / ".lock") and is_locked(lock):
        return "running"
    if exists(job.error_file):
        return "failed"
    needed = (jobs[number].result_file for number in job.needs)
    return "ready" if all(map(exists, needed)) else "waiting"


def expand(config: Config, workdir: Path) -> list[Job]:
    """All jobs of a study, each after those that it needs.

    Pretraining jobs have the study's own settings; translation jobs have these and
    study.translation. Finetuning jobs have the defaults, then `data.dir`, `data.length`,
    `eval.latency`, `budget.benchmarks`, `plugins`, `compress`, `impl` and the model of the study,
    then study.finetune, then the settings of their task. Jobs of points of study.vary follow those
    of the base, which have the names and numbers that they have without axes.

    Raises:
      InputError: the grid is empty, or the settings of a task or an axis are wrong.
    """
    study = config.study
    if not (study.sizes or study.encoders or study.translators):
        raise InputError(
            "study.sizes, study.encoders and study.translators are empty: name something to run"
        )
    if config.init.source:
        raise InputError("init.from is for single runs: name the models in study.encoders")
    for field in ("pretrain_seeds", "recipes", *(("seeds",) if study.tasks else ())):
        if not getattr(study, field):
            raise InputError(f"study.{field} is empty: name at least one")
    return _Grid(config, workdir).expand()


@dataclasses.dataclass(frozen=True)
class _Start:
    """A starting point of finetuning jobs.

    Attributes:
      name: its part of their names.
      model, settings: architecture and other settings that they get from it.
      labels: labels that they get from it.
      stages: stages whose axes concern it.
      needs: numbers of the jobs that must be done first.
    """

    name: str
    model: Settings
    settings: Settings
    labels: dict[str, Any]
    stages: tuple[str, ...]
    needs: tuple[int, ...] = ()


class _Grid:
    """The jobs of a study, each added after those that it needs."""

    def __init__(self, config: Config, workdir: Path):
        self.config, self.study, self.workdir = config, config.study, workdir
        self.axes = Axes(config.study)
        self.jobs: list[Job] = []
        self.known: dict[str, Job] = {}  # by what they do
        self.names: set[str] = set()
        self.point = self.axes.base
        self.base = to_dict(config)
        self.base["study"] = to_dict(Study())
        self.base["data"]["cache"] = config.data.cache or str(workdir / "data")
        # Seeds of one size count the same steps.
        shared = config.budget.benchmarks or str(workdir / "benchmarks")
        self.base["budget"]["benchmarks"] = shared

    def expand(self) -> list[Job]:
        for point in self.axes.points:
            self._expand_at(point)
        for axis in self.axes.all:
            if not any(axis.stage in job.stages for job in self.jobs):
                raise InputError(
                    f"study.vary.{axis.name}: this study has no job that stage {axis.stage} changes"
                )
        return self.jobs

    def _expand_at(self, point: Point) -> None:
        self.point = point
        # The order gives jobs their numbers, which array jobs of a scheduler name: a study that
        # was started by an older version must keep it.
        study, starts, scratch = self.axes.narrowed(self.study, point), [], []
        pretrained = {
            point: self._train("pretrain", *point)
            for point in product(study.sizes, study.pretrain_seeds)
        }
        for job in pretrained.values():
            settings: Settings = {"init": {"from": str(job.workdir)}}
            name = job.name.removeprefix("pretrain-")
            stages = ("pretrain", "checkpoint")
            starts.append(_start(name, job, settings, "pretrained", stages))
        labels = {"pretrain_seed": 0, "init": "pretrained"}
        for index, source in enumerate(study.encoders):
            settings = {"init": {"from": source}}
            starts.append(_Start(f"encoder{index}", {}, settings, labels, ("checkpoint",)))
        for size in study.scratch:
            # Random weights, with the tokenizer of the base's pretraining job of the same size.
            name = f"pretrain-{size}-p{self.study.pretrain_seeds[0]}"
            job = next(job for job in self.jobs if job.name == name)
            tokenizer = str(job.workdir / file_name(job.config.tokenizer.path))
            settings = {"tokenizer": {"path": tokenizer}}
            scratch.append(_start(f"{size}-scratch", job, settings, "scratch", ()))
        finetuned, twins = (
            [self._finetune(*point) for point in product(some, study.tasks, study.seeds)]
            for some in (starts, scratch)
        )
        recipes, translator_recipes = (
            [format_recipe(parse_recipe(text)) for text in texts]
            for texts in (study.recipes, study.translator_recipes or study.recipes)
        )
        for recipe, job in product(recipes, finetuned):
            self._compress(job, recipe)
        for job in twins:
            self._compress(job, "dense")
        translators = [
            self._train("translate", *point)
            for point in product(study.translators, study.pretrain_seeds)
        ]
        for recipe, job in product(translator_recipes, translators):
            self._compress(job, recipe)
        analyses = [format_recipe(parse_one_shot(text)) for text in study.analyses]
        if self.point == self.axes.base:
            for recipe, job in product(analyses, pretrained.values()):
                self._analyze(job, recipe)

    def _add(
        self,
        name: str,
        command: str,
        settings: Settings,
        needs: tuple[int, ...],
        labels: dict[str, Any],
        stages: tuple[str, ...],
        changes: Mapping[str, Mapping[str, Any]],
    ) -> Job:
        """Adds a job, unless it is one that is there already, and returns it.

        Args:
          name, command, needs, labels, stages: of the job.
          settings: of the job.
          changes: those among them that axes set, by AXIS=VALUE, which the name gets.
        """
        name += "".join(f"-{change}" for change in changes)
        try:
            config = resolve(settings)
            for change, partial in changes.items():
                for row in undone(partial, config):
                    raise InputError(f"the study or another axis undoes {change} ({row})")
        except InputError as error:
            raise InputError(f"settings of job {name}: {error}") from error
        # Refused here, so that no study fails at its last jobs.
        require_names(config)
        if command in ("pretrain", "translate", "finetune"):
            require_budget(config)
        point = self.axes.concerning(self.point, stages)
        job = self.known.get(does := repr((command, config, labels)))
        if job is None:
            if name in self.names:
                raise InputError(
                    f"two jobs have the name {name}: rename a task or a value of an axis"
                )
            workdir = self.workdir / "jobs" / name
            job = Job(len(self.jobs), name, command, config, workdir, needs, labels, stages)
            self.jobs.append(job)
            self.known[does] = job
            self.names.add(name)
        job.points.setdefault(self.axes.text(point), point)
        return job

    def _train(self, command: str, size: str, seed: int) -> Job:
        """A pretraining or a translation job."""
        layers, hidden = parse_size(size)
        chosen = {"seed": seed, "model": {"layers": layers, "hidden": hidden}}
        labels: dict[str, Any] = {"pretrain_seed": seed}
        own: Settings = {}
        if command == "translate":
            labels |= {"task": "translation", "seed": seed, "init": "pretrained"}
            own = dict(self.study.translation)
        changes = dict(self.axes.changes(self.point, (command,)))
        settings = merge(self.base, own, *changes.values(), chosen)
        return self._add(
            f"{command}-{size}-p{seed}", command, settings, (), labels, (command,), changes
        )

    def _finetune(self, start: _Start, task: str, seed: int) -> Job:
        data = self.config.data
        shared = {
            **{name: self.base[name] for name in ("plugins", "impl", "compress")},
            "data": {"dir": data.dir, "length": data.length},
            "eval": {"latency": self.config.eval.latency},
            "budget": {"benchmarks": self.base["budget"]["benchmarks"]},
            "model": start.model,
        }
        # A task may change the model's dropout, but not the weights that it starts from.
        own = (self.study.finetune, self.study.tasks[task], {"seed": seed}, start.settings)
        labels = {"task": task, "seed": seed, **start.labels}
        changes = dict(self.axes.changes(self.point, ("finetune",)))
        if "checkpoint" in start.stages:
            for change, partial in self.axes.changes(self.point, ("checkpoint",)):
                changes[change] = self._checkpoint(start, change, partial)
        name, stages = f"finetune-{start.name}-{task}-s{seed}", (*start.stages, "finetune")
        settings = merge(shared, *own, *changes.values())
        return self._add(name, "finetune", settings, start.needs, labels, stages, changes)

    def _checkpoint(self, start: _Start, change: str, partial: Mapping[str, Any]) -> Settings:
        """The settings for an earlier checkpoint of the run that a starting point is the end of."""
        folder = str(partial["init"].get("from"))
        step = re.fullmatch(r"checkpoints/(\d+)", folder)
        if step is None:
            raise InputError(f"study.vary: {change} needs init.from=checkpoints/STEP, not {folder}")
        for number in start.needs:
            config = self.jobs[number].config
            every, last = config.checkpoint.keep_every_steps, config.budget.steps
            if not every or int(step[1]) % every or int(step[1]) > (last or math.inf):
                raise InputError(
                    f"study.vary: {self.jobs[number].name} does not keep the checkpoint of {change}"
                    f" (budget.steps={last}, checkpoint.keep_every_steps={every})"
                )
        return {"init": {"from": f"{start.settings['init']['from']}/{folder}"}}

    def _compress(self, source: Job, recipe: str) -> None:
        # Twins are there for the models before compression.
        twin = source.labels["init"] != "pretrained"
        changes = {} if twin else dict(self.axes.changes(self.point, ("compress",)))
        stages = source.stages if twin else (*source.stages, "compress")
        # A job that finetunes as a part of compressing starts where finetuning started.
        when = "after" if twin else source.config.compress.when
        for partial in changes.values():
            when = partial.get("compress", {}).get("when", when)
        finetunes = parse_recipe(recipe).finetunes
        again = source.command == "finetune" and (finetunes or when == "before")
        start = source.config.init.source if again else str(source.workdir)
        needs = source.needs if again else (source.number,)
        rounds = str(self.workdir / "rounds")
        own = {"compress": {"cache": rounds, "when": "after" if finetunes else when}}
        kind = "-translator" if source.command == "translate" else ""
        name = re.sub("^(finetune|translate)", f"compress{kind}", source.name)
        name = f"{name}-{_file_name(recipe)}"
        settings = merge(_starting_from(source, start, recipe), *changes.values(), own)
        self._add(name, "compress", settings, needs, source.labels, stages, changes)

    def _analyze(self, source: Job, recipe: str) -> None:
        name = f"{source.name.replace('pretrain', 'analyze', 1)}-{_file_name(recipe)}"
        # An analysis that finished under the name of older versions is not run again.
        old = name.replace("analyze", "analyse", 1)
        if (self.workdir / "jobs" / old / "result.json").exists():
            name = old
        settings = _starting_from(source, str(source.workdir), recipe)
        self._add(name, "analyze", settings, (source.number,), source.labels, source.stages, {})


def _start(name: str, job: Job, settings: Settings, init: str, stages: tuple[str, ...]) -> _Start:
    """A start with the architecture of a pretraining job, which has to be done first."""
    model, labels = to_dict(job.config.model), job.labels | {"init": init}
    return _Start(name, model, settings, labels, stages, (job.number,))


def _starting_from(source: Job, start: str, recipe: str) -> Settings:
    # The tokenizer comes with the model, whatever path it was first read from.
    changes = {"init": {"from": start}, "tokenizer": {"path": ""}, "recipe": recipe}
    return merge(to_dict(source.config), changes)


def _file_name(recipe: str) -> str:
    """A recipe as a part of a file's name: selectors may hold what these may not, and be long."""
    plain = re.sub("[:=]", "", recipe)
    name = re.sub(r"[^\w.+,-]", "", plain)[:80]
    return name if name == plain else f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
