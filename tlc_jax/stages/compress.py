"""Compress a trained model by a recipe: prune by magnitude, recover, quantise, pack.

compress.when=after (paper 1): init.from is a finetuned classifier or a translator. It is pruned in steps of
compress.step; after each it is trained until its accuracy (a translator's: that of tokens given the true ones before
them) is back at compress.recover of the dense model's, or for compress.recover_epochs; then it is quantised without
further training. compress.when=before: init.from is a pretrained encoder. It is pruned and
quantised at once, finetuned under `budget` with its zeros held, and quantised anew. A masked-language model can also be
compressed for its own sake (compress.recover=0): no training then, and perplexity is what is measured.
What is evaluated is what artifact/ holds, to the bit; compressed/ holds the same weights as an Orbax checkpoint.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax import processes
from tlc_jax.compression.compress import compress_params
from tlc_jax.compression.pruning import apply_masks, magnitude_masks, schedule
from tlc_jax.compression.recipe import Prune, Recipe, format_recipe, parse_recipe
from tlc_jax.config import Budget, Config, to_dict
from tlc_jax.config_checks import require_budget
from tlc_jax.data.translation import prepare_pairs
from tlc_jax.errors import InputError
from tlc_jax.models.network import Params
from tlc_jax.stages import compressed, microbatch, session, starting_point
from tlc_jax.stages.classifying import ClassifierRun, load_data
from tlc_jax.stages.evaluating import Evaluation, require_head
from tlc_jax.stages.finetune import finetune
from tlc_jax.stages.starting_point import StartingPoint
from tlc_jax.stages.translating import TranslatorRun
from tlc_jax.training.checkpoint import complete_steps, read_meta, read_params, save_params
from tlc_jax.training.loop import train


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compresses in `workdir`; returns what result.json says."""
    del options
    if not config.init.source:
        raise InputError("init.from is empty: name the workdir of the run to compress")
    starting_point.find(config.init.source)
    return session.run_once(workdir, config, lambda: _compress(config, workdir))


def _compress(config: Config, workdir: Path) -> dict[str, Any]:
    recipe = parse_recipe(config.recipe)
    start = starting_point.load(config.init.source, config.impl, config.tokenizer.path)
    if start.recipe != "dense":
        raise InputError(f"{start.path} is compressed already ({start.recipe}): start from the dense model")
    if config.compress.when == "before":
        result = _before(config, workdir, start, recipe)
    elif start.kind in ("classifier", "translator"):
        result = _after(config, workdir, start, recipe)
    else:
        result = _alone(config, workdir, start, recipe)
    return {**result, "stage": "compress", "when": config.compress.when}


def _before(config: Config, workdir: Path, start: StartingPoint, recipe: Recipe) -> dict[str, Any]:
    """Compress the pretrained encoder, then finetune it with its mask held, and quantise again."""
    if start.kind not in ("mlm", "encoder"):
        raise InputError(f"compress.when=before needs a pretrained encoder, and {start.path} is a {start.kind}")
    require_budget(config)
    small = compress_params(start.params, recipe)
    meta = {**start.meta, "recipe": format_recipe(recipe)}
    start = dataclasses.replace(start, params=small.params, masks=small.masks, meta=meta)
    return finetune(config, workdir, start, pack=True)


def _alone(config: Config, workdir: Path, start: StartingPoint, recipe: Recipe) -> dict[str, Any]:
    """A masked-language model, compressed in one go."""
    require_head(start)
    if recipe.prune and config.compress.recover > 0:
        raise InputError(
            f"{start.path} is a masked-language model, and recovery needs labels: set compress.recover=0 to prune it "
            "in one go, or compress.when=before to finetune what is left of it"
        )
    config = session.adopt_model(config, start.model, start.path)
    evaluation = Evaluation(config, start, workdir, session.open_devices(config))
    numbers = compressed.finish(start.params, recipe, None, start.meta, start.tokenizer, workdir, evaluation)
    return {**session.size_numbers(start.network(config.impl)), "init": str(start.path), **numbers}


def _work(config: Config, workdir: Path, start: StartingPoint) -> ClassifierRun | TranslatorRun:
    """The trained model with the data to retrain and evaluate it on."""
    network, placement = start.network(config.impl), session.open_devices(config)
    if start.kind == "classifier":
        data = load_data(config, start.tokenizer, start.labels)
        config = microbatch.of_finetuning(config, network, placement, workdir)
        return ClassifierRun(config, network, start.tokenizer, data, placement)
    path = dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
    pairs = prepare_pairs(dataclasses.replace(config, tokenizer=path), Path(config.data.cache or workdir / "data"))
    config = microbatch.of_translation(config, start.tokenizer.vocab_size, pairs.train, placement, workdir)
    return TranslatorRun(config, network, start.tokenizer, pairs.train, pairs.valid, placement)


def _after(config: Config, workdir: Path, start: StartingPoint, recipe: Recipe) -> dict[str, Any]:
    """Paper 1: prune the trained model step by step with recovery, then quantise."""
    config = session.adopt_model(config, start.model, start.path)
    work = _work(config, workdir, start)
    params: Params = start.params
    masks: dict[str, Any] | None = None
    history: list[dict[str, Any]] = []
    if recipe.prune:
        params, masks, history = _Pruning(
            work, recipe.prune, _rounds_directory(config, workdir, start, recipe.prune)
        ).run(start.params)
    numbers = compressed.finish(params, recipe, masks, work.meta, start.tokenizer, workdir, work.evaluate)
    work.save_predictions(workdir)
    return {
        **session.size_numbers(work.network),
        "init": str(start.path),
        "seed": config.seed,
        "labels": list(start.labels),
        "rounds": history,
        **numbers,
        **session.provenance(),
    }


class _Pruning:
    """Iterative magnitude pruning with recovery (paper 1: 15 % a round, 99.5 % of the accuracy, one epoch at most).

    Where the paper is silent: recovery runs with finetuning's own optimizer settings, its schedule stretched over the
    epoch that a round may take; weights pruned in one round stay pruned in the next.

    What a round leaves depends on the rounds before it and not on the recipe's target, so recipes that prune one model
    to several sparsities share their rounds where compress.cache is set. Finished rounds are not done again.
    """

    def __init__(self, work: ClassifierRun | TranslatorRun, prune: Prune, directory: Path):
        self.work, self.prune = work, prune
        self.directory, self.kept = directory, directory / "kept"
        self.settings = work.config.compress

    def run(self, params: Params) -> tuple[Params, dict[str, Any], list[dict[str, Any]]]:
        """Pruned parameters, their masks, and what each round did."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as lock:
            if processes.first():
                fcntl.flock(lock, fcntl.LOCK_EX)
            processes.barrier()
            return self._run(params)

    def _run(self, params: Params) -> tuple[Params, dict[str, Any], list[dict[str, Any]]]:
        name = self.work.goal
        history = [{"sparsity": 0.0, name: self.work.evaluate(params, False)[name], "steps": 0}]
        goal = self.settings.recover * history[0][name]
        masks: dict[str, Any] = {}
        for sparsity in schedule(self.prune.sparsity, self.settings.step):
            number = round(1000 * sparsity)
            masks = magnitude_masks(params, self.prune, sparsity)
            if number in complete_steps(self.kept):
                history.append(read_meta(self.kept, number)["round"])
                params = read_params(self.kept, number, self.work.network.abstract())
                continue
            params, numbers = self._recover(number, apply_masks(params, masks), masks, goal)
            history.append({"sparsity": sparsity, **numbers})
            save_params(self.kept, number, params, {"round": history[-1]})
            session.discard(self.directory / str(number))
        return params, masks, history

    def _recover(
        self, number: int, params: Params, masks: dict[str, Any], goal: float
    ) -> tuple[Params, dict[str, Any]]:
        name = self.work.goal
        reached = self.work.evaluate(params, False)[name]
        pruned = {f"{name}_pruned": reached, name: reached, "steps": 0, "stopped_by": "target"}
        if self.settings.recover == 0 or reached >= goal:
            return params, pruned
        config = self.work.config
        every = max(1, round(self.work.steps_per_epoch / self.settings.recover_evals))
        config = dataclasses.replace(
            config,
            seed=config.seed + number,  # other examples come first in each round, and others are dropped out
            budget=Budget(epochs=self.settings.recover_epochs),
            eval=dataclasses.replace(config.eval, every_seconds=0.0, every_steps=every),
        )
        task = dataclasses.replace(
            self.work.task(lambda: params, masks, config.seed), enough=lambda metrics: metrics[name] >= goal
        )
        workdir = self.directory / str(number)
        workdir.mkdir(parents=True, exist_ok=True)
        outcome = train(task, config, workdir, self.work.placement)
        numbers = {key: outcome.numbers[key] for key in (name, "steps", "stopped_by")}
        numbers["seconds"] = outcome.numbers["seconds"]["train"]
        return self.work.placement.gather(outcome.params), {**pruned, **numbers}


def _rounds_directory(config: Config, workdir: Path, start: StartingPoint, prune: Prune) -> Path:
    """rounds/ in the workdir, or a place in compress.cache named after all that decides what rounds leave."""
    if not config.compress.cache:
        return workdir / "rounds"
    settings = to_dict(config)
    decides = {name: settings[name] for name in ("seed", "data", "optimizer", "objective", "compress", "eval", "model")}
    decides["data"] = {name: value for name, value in decides["data"].items() if name not in ("cache", "dir")}
    prune_kind = dataclasses.asdict(dataclasses.replace(prune, sparsity=0.0))
    identity = json.dumps([str(start.path.absolute()), prune_kind, decides], sort_keys=True, default=list)
    return Path(config.compress.cache) / hashlib.sha256(identity.encode()).hexdigest()[:16]
