"""Compress a trained model by a recipe: prune by magnitude, recover, quantise, pack.

The recipe's operations happen in their order. Without `finetune` among them, init.from is a finetuned classifier or a
translator (paper 1): structures are removed and weights pruned in steps of compress.step, each followed by training
until the model's accuracy (a translator's: that of tokens given the true ones before them) is back at compress.recover
of the dense one's, or for compress.recover_epochs; quantisation is not followed by any. With `finetune`, init.from is
an encoder or a classifier: what comes before it is done at once, then the model is trained under `budget` with zeros
held, gradual pruning going on and aware quantisation in the forward pass, and the rest follows as above.
compress.when=before is short for: the whole recipe, finetune, and its quantisation anew. A masked-language model can
also be compressed for its own sake (compress.recover=0): no training then, and perplexity is what is measured.
What is evaluated is what artifact/ holds, to the bit; compressed/ holds the same weights as an Orbax checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.commands.finetune import train_classifier
from tlc_jax.compression import finish as compressed
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.iterative import Recovery
from tlc_jax.compression.recipe import (
    Finetune,
    Operation,
    Prune,
    Quantize,
    Recipe,
    Remove,
    format_recipe,
    parse_recipe,
)
from tlc_jax.compression.remove import remove_all
from tlc_jax.config import Config
from tlc_jax.config.checks import require_budget
from tlc_jax.core.errors import InputError
from tlc_jax.models.network import Params
from tlc_jax.planning import fit
from tlc_jax.runs import saved_model as starting_point
from tlc_jax.runs import session
from tlc_jax.runs.saved_model import StartingPoint
from tlc_jax.tasks import latency as latencies
from tlc_jax.tasks.base import TaskRun, task_of
from tlc_jax.tasks.masked_lm import require_head


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compresses in `workdir`; returns what result.json says."""
    del options
    if not config.init.source:
        raise InputError("init.from is empty: name the workdir of the run to compress")
    recipe = _written_out(parse_recipe(config.recipe), config.compress.when)
    if recipe.finetunes:
        require_budget(config)
    starting_point.find(config.init.source)

    def work() -> dict[str, Any]:
        return _compress(config, workdir, recipe) | latencies.of_run(config, workdir)

    return session.run_once(workdir, config, work, _trains(config, recipe))


def _trains(config: Config, recipe: Recipe) -> bool:
    return recipe.finetunes or (
        config.compress.recover > 0 and bool(recipe.prunes or recipe.removes)
    )


def _written_out(recipe: Recipe, when: str) -> Recipe:
    """The recipe with the finetuning that compress.when=before stands for."""
    if when == "after":
        return recipe
    if recipe.finetunes:
        raise InputError(
            f"{format_recipe(recipe)} says itself when to finetune: leave compress.when at after"
        )
    return Recipe((*recipe.operations, Finetune(), *recipe.quantizes))


def _compress(config: Config, workdir: Path, recipe: Recipe) -> dict[str, Any]:
    start = starting_point.load(config.init.source, config.impl, config.tokenizer.path)
    starting_point.require_dense(start)
    if recipe.finetunes:
        result = _with_finetuning(config, workdir, start, recipe)
    elif start.kind in ("classifier", "translator"):
        result = _after(config, workdir, start, recipe)
    else:
        result = _alone(config, workdir, start, recipe)
    return {**result, "stage": "compress", "when": config.compress.when}


def _with_finetuning(
    config: Config, workdir: Path, start: StartingPoint, recipe: Recipe
) -> dict[str, Any]:
    """What comes before finetuning, at once; finetuning with that held; and what comes after."""
    wanted = {"after": ("mlm", "encoder", "classifier"), "before": ("mlm", "encoder")}[
        config.compress.when
    ]
    if start.kind not in wanted:
        raise InputError(
            f"finetuning needs a model of kind {' or '.join(wanted)}, and {start.path} is a {start.kind}"
        )
    before, after = recipe.around_finetuning()
    gradual = tuple(
        operation for operation in before if isinstance(operation, Prune) and operation.gradual
    )
    aware = tuple(
        operation for operation in before if isinstance(operation, Quantize) and operation.aware
    )
    layers = start.model.layers  # the size that this model was: `params` says what is left of it
    start = _without_structures(start, recipe)
    at_once = Recipe(
        tuple(operation for operation in before if operation not in (*gradual, *aware))
    )
    small = compress_params(start.params, at_once)
    start = dataclasses.replace(start, params=small.params, masks=small.masks)
    trained = train_classifier(config, workdir, start, gradual, aware)
    # A budget of a few steps may be used up before gradual pruning has come to its last stage.
    rest = Recipe(tuple(dataclasses.replace(operation, gradual=False) for operation in gradual))
    pruned = compress_params(trained.params, rest, trained.masks)
    # No other run finetunes as this one did, so its rounds are its own, wherever they are kept.
    recovery = Recovery(trained.run, workdir, str(workdir.absolute()), trained.numbers["accuracy"])
    real = tuple(dataclasses.replace(operation, aware=False) for operation in aware)
    numbers = _in_order(
        (*real, *after), pruned.params, pruned.masks, recovery, config, start, workdir
    )
    return {**trained.numbers, "layers": layers, **numbers}


def _after(config: Config, workdir: Path, start: StartingPoint, recipe: Recipe) -> dict[str, Any]:
    """Paper 1: the trained model loses weights step by step with recovery, and is quantised then."""
    trains = _trains(config, recipe)
    work = _run_of(session.adopt_model(config, start.model, start.path), workdir, start, trains)
    dense = (
        work.evaluate(start.params, False)[work.goal] if recipe.prunes or recipe.removes else 0.0
    )
    origin, layers = str(start.path.absolute()), start.model.layers
    if recipe.removes:
        start = _without_structures(start, recipe)
        work = _run_of(session.adopt_model(config, start.model, start.path), workdir, start, trains)
    recovery = Recovery(work, workdir, origin, dense)
    params = recovery.removed(start.params, recipe.removes) if recipe.removes else start.params
    numbers = _in_order(recipe.operations, params, {}, recovery, config, start, workdir)
    return {
        **session.size_numbers(work.network),
        "layers": layers,
        "init": str(start.path),
        "seed": config.seed,
        "labels": list(start.labels),
        **numbers,
        **session.provenance(),
    }


def _in_order(
    operations: Sequence[Operation],
    params: Params,
    masks: dict[str, Any],
    recovery: Recovery,
    config: Config,
    start: StartingPoint,
    workdir: Path,
) -> dict[str, Any]:
    """Prunes with recovery up to the first quantisation, does the rest at once, and packs what is left."""
    rest = [operation for operation in operations if not isinstance(operation, Remove)]
    while rest and isinstance(prune := rest[0], Prune):
        params, masks = recovery.pruned(params, masks, prune)
        rest = rest[1:]
    work = recovery.work
    meta = {**work.meta, "recipe": _recipe_text(config)}
    numbers = compressed.finish(
        params, Recipe(tuple(rest)), masks, meta, start.tokenizer, workdir, work.evaluate
    )
    work.save_predictions(workdir)
    return {"rounds": recovery.history if recovery.history[1:] else [], **numbers}


def _alone(config: Config, workdir: Path, start: StartingPoint, recipe: Recipe) -> dict[str, Any]:
    """A masked-language model, compressed in one go."""
    require_head(start)
    if (recipe.prunes or recipe.removes) and config.compress.recover > 0:
        raise InputError(
            f"{start.path} is a masked-language model, and recovery needs labels: set compress.recover=0 to prune it "
            "in one go, or compress.when=before to finetune what is left of it"
        )
    layers = start.model.layers
    start = _without_structures(start, recipe)
    config = session.adopt_model(config, start.model, start.path)
    placement = session.open_devices(config, trains=False)
    evaluation = task_of(start.kind).of_saved(config, start, workdir, placement)
    meta = {**start.meta, "recipe": _recipe_text(config)}
    numbers = compressed.finish(
        start.params, recipe, {}, meta, start.tokenizer, workdir, evaluation.evaluate
    )
    sizes = {**session.size_numbers(start.network(config.impl)), "layers": layers}
    return {**sizes, "init": str(start.path), **numbers}


def _without_structures(start: StartingPoint, recipe: Recipe) -> StartingPoint:
    """The smaller model."""
    params, model = remove_all(start.params, start.model, recipe.removes)
    return dataclasses.replace(
        start, params=params, meta={**start.meta, "model": dataclasses.asdict(model)}
    )


def _recipe_text(config: Config) -> str:
    return format_recipe(parse_recipe(config.recipe))


def _run_of(config: Config, workdir: Path, start: StartingPoint, trains: bool) -> TaskRun:
    """The trained model with the data to retrain and evaluate it on."""
    placement = session.open_devices(config, trains)
    run = task_of(start.kind).of_saved(config, start, workdir, placement, train=True)
    run.config = fit.of_run(run, workdir)
    return run
