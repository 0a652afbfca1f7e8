"""The jobs of a study: what a grid expands to, what each needs, and where it stands."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

from tlc_jax.compression.recipe import format_recipe, parse_one_shot, parse_recipe
from tlc_jax.config import Config, Study, merge, parse_size, resolve, to_dict
from tlc_jax.config.checks import require_budget
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import is_locked
from tlc_jax.data.tokenizer import file_name


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a stage.

    Attributes:
      number: its place in the study; stable as long as the study's config is.
      name: also the name of its workdir under jobs/.
      needs: numbers of the jobs that must be done first.
      labels: the columns that place its result in the grid.
    """

    number: int
    name: str
    stage: str
    config: Config
    workdir: Path
    needs: tuple[int, ...]
    labels: dict[str, Any]

    @property
    def done(self) -> bool:
        return (self.workdir / "result.json").exists()

    @property
    def error_file(self) -> Path:
        return self.workdir / "error.txt"

    @property
    def running(self) -> bool:
        """Whether a process holds the lock of its workdir."""
        return is_locked(self.workdir / ".lock")

    def ancestors(self, jobs: list[Job]) -> list[int]:
        """Numbers of all jobs that it needs, directly or not, in the order in which they can be run."""
        found: list[int] = []
        for needed in self.needs:
            found += [n for n in [*jobs[needed].ancestors(jobs), needed] if n not in found]
        return found


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where finetuning jobs start: a name for them, their settings and labels for it, and the jobs they need."""

    name: str
    settings: dict[str, Any]
    labels: dict[str, Any]
    needs: tuple[int, ...] = ()


def needed_first(job: Job, jobs: list[Job]) -> list[Job]:
    """The job after all that it needs."""
    return [*(jobs[n] for n in job.ancestors(jobs)), job]


def state(job: Job, jobs: list[Job]) -> str:
    """done, failed, running, waiting (for other jobs) or ready."""
    if job.done:
        return "done"
    if job.running:
        return "running"
    if job.error_file.exists():
        return "failed"
    return "ready" if all(jobs[needed].done for needed in job.needs) else "waiting"


def expand(config: Config, workdir: Path) -> list[Job]:
    """All jobs of a study, each after those that it needs.

    Pretraining jobs have the study's own settings, translation jobs these and study.translation. Finetuning jobs have
    the defaults, `data.dir`, `eval.latency`, `compress`, `impl` and the model of the study, then study.finetune, then
    what their task sets.

    Raises:
      InputError: the grid is empty, or the settings of a task are wrong.
    """
    return _Grid(config, workdir).expand()


class _Grid:
    def __init__(self, config: Config, workdir: Path):
        if not (config.study.sizes or config.study.encoders or config.study.translators):
            raise InputError(
                "study.sizes, study.encoders and study.translators are empty: there is nothing to run"
            )
        if config.init.source:
            raise InputError(
                "init.from is for single runs: name what a study starts from in study.encoders"
            )
        for field in ("pretrain_seeds", "recipes"):
            if not getattr(config.study, field):
                raise InputError(f"study.{field} is empty: there is nothing to run")
        if config.study.tasks and not config.study.seeds:
            raise InputError("study.seeds is empty: there is nothing to finetune with")
        if config.study.sizes:
            require_budget(config)
        self.config, self.study, self.workdir = config, config.study, workdir
        self.jobs: list[Job] = []
        self.base = to_dict(config)
        self.base["study"] = to_dict(Study())
        self.base["data"]["cache"] = config.data.cache or str(workdir / "data")
        self.recipes, self.translator_recipes = (
            [format_recipe(parse_recipe(text)) for text in recipes]
            for recipes in (self.study.recipes, self.study.translator_recipes or self.study.recipes)
        )
        self.analyses = [format_recipe(parse_one_shot(text)) for text in self.study.analyses]

    def expand(self) -> list[Job]:
        pretrained = {
            (size, seed): self._pretrain(size, seed)
            for size in self.study.sizes
            for seed in self.study.pretrain_seeds
        }
        origins = [
            *(
                self._origin(f"{size}-p{seed}", number)
                for (size, seed), number in pretrained.items()
            ),
            *(
                _Origin(
                    f"encoder{index}",
                    {"init": {"from": source}},
                    {"pretrain_seed": 0, "init": "pretrained"},
                )
                for index, source in enumerate(self.study.encoders)
            ),
        ]
        scratch = [
            self._scratch(size, pretrained[size, self.study.pretrain_seeds[0]])
            for size in self.study.scratch
        ]
        finetuned, twins = (
            [
                self._finetune(origin, task, seed)
                for origin in some
                for task in self.study.tasks
                for seed in self.study.seeds
            ]
            for some in (origins, scratch)
        )
        for recipe in self.recipes:
            for number in finetuned:
                self._compress(number, recipe)
        for number in twins:
            self._compress(number, "dense")
        translators = [
            self._translate(size, seed)
            for size in self.study.translators
            for seed in self.study.pretrain_seeds
        ]
        for recipe in self.translator_recipes:
            for number in translators:
                self._compress(number, recipe)
        for recipe in self.analyses:
            for number in pretrained.values():
                self._analyze(number, recipe)
        return self.jobs

    def _add(
        self, name: str, stage: str, settings: dict[str, Any], needs: tuple[int, ...], **labels: Any
    ) -> int:
        number = len(self.jobs)
        try:
            config = resolve(settings)
        except InputError as error:
            raise InputError(f"settings of job {name}: {error}") from error
        self.jobs.append(
            Job(number, name, stage, config, self.workdir / "jobs" / name, needs, labels)
        )
        return number

    def _pretrain(self, size: str, seed: int) -> int:
        layers, hidden = parse_size(size)
        settings = merge(self.base, {"seed": seed, "model": {"layers": layers, "hidden": hidden}})
        return self._add(f"pretrain-{size}-p{seed}", "pretrain", settings, (), pretrain_seed=seed)

    def _translate(self, size: str, seed: int) -> int:
        layers, hidden = parse_size(size)
        chosen = {"seed": seed, "model": {"layers": layers, "hidden": hidden}}
        labels = {"task": "translation", "seed": seed, "pretrain_seed": seed, "init": "pretrained"}
        settings = merge(self.base, self.study.translation, chosen)
        number = self._add(f"translate-{size}-p{seed}", "translate", settings, (), **labels)
        require_budget(self.jobs[number].config)
        return number

    def _origin(self, name: str, pretrained: int) -> _Origin:
        """Finetuning of what a pretraining job leaves."""
        source = self.jobs[pretrained]
        settings = {"model": to_dict(source.config.model), "init": {"from": str(source.workdir)}}
        labels = {"pretrain_seed": source.labels["pretrain_seed"], "init": "pretrained"}
        return _Origin(name, settings, labels, (pretrained,))

    def _scratch(self, size: str, pretrained: int) -> _Origin:
        """Finetuning of random weights of the size, with the tokenizer of a pretraining job."""
        source = self.jobs[pretrained]
        kept = source.workdir / file_name(source.config.tokenizer.path)
        settings = {"model": to_dict(source.config.model), "tokenizer": {"path": str(kept)}}
        labels = {"pretrain_seed": source.labels["pretrain_seed"], "init": "scratch"}
        return _Origin(f"{size}-scratch", settings, labels, (pretrained,))

    def _finetune(self, origin: _Origin, task: str, seed: int) -> int:
        settings = merge(
            to_dict(Config()),
            {"impl": self.base["impl"], "compress": self.base["compress"]},
            {"data": {"dir": self.config.data.dir, "length": self.config.data.length}},
            {"eval": {"latency": self.config.eval.latency}},
            {"model": origin.settings.get("model", {})},
            self.study.finetune,
            self.study.tasks[task],
            {"seed": seed},
            {name: value for name, value in origin.settings.items() if name != "model"},
        )
        labels = {"task": task, "seed": seed, **origin.labels}
        number = self._add(
            f"finetune-{origin.name}-{task}-s{seed}", "finetune", settings, origin.needs, **labels
        )
        require_budget(self.jobs[number].config)
        return number

    def _compress(self, finetuned: int, recipe: str) -> None:
        source = self.jobs[finetuned]
        # What finetunes as a part of compressing starts where finetuning started.
        when = source.config.compress.when if source.labels["init"] == "pretrained" else "after"
        finetunes = parse_recipe(recipe).finetunes
        before = source.stage == "finetune" and (finetunes or when == "before")
        start, needs = (
            (source.config.init.source, source.needs)
            if before
            else (str(source.workdir), (finetuned,))
        )
        settings = merge(
            to_dict(source.config),
            {
                "init": {"from": start},
                "tokenizer": {"path": ""},
                "recipe": recipe,
                "compress": {
                    "cache": str(self.workdir / "rounds"),
                    "when": "after" if finetunes else when,
                },
            },
        )
        kind = "-translator" if source.stage == "translate" else ""
        name = f"{re.sub('^(finetune|translate)', f'compress{kind}', source.name)}-{_file_name(recipe)}"
        self._add(name, "compress", settings, needs, **source.labels)

    def _analyze(self, pretrained: int, recipe: str) -> None:
        source = self.jobs[pretrained]
        settings = merge(
            to_dict(source.config),
            {"init": {"from": str(source.workdir)}, "tokenizer": {"path": ""}, "recipe": recipe},
        )
        name = f"{source.name.replace('pretrain', 'analyze', 1)}-{_file_name(recipe)}"
        # An analysis that finished under the name of older versions is not run again.
        old = name.replace("analyze", "analyse", 1)
        if (self.workdir / "jobs" / old / "result.json").exists():
            name = old
        self._add(name, "analyze", settings, (pretrained,), **source.labels)


def _file_name(recipe: str) -> str:
    """A recipe as a part of a file's name: selectors may hold what these may not, and be long."""
    plain = re.sub("[:=]", "", recipe)
    name = re.sub(r"[^\w.+,-]", "", plain)[:80]
    return name if name == plain else f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
