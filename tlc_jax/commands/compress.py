"""Compress a trained model by a recipe: prune by magnitude, recover, quantize, pack.

The recipe's operations happen in their order. Without `finetune` among them, init.from is a
finetuned classifier or a translator (paper 1): structures are removed and weights pruned in steps
of compress.step, each followed by training until the model's accuracy (for a translator, that of
each token given the true ones before it) is back at compress.recover of the dense one's, or for
compress.recover_epochs; no training follows quantization. With `finetune`, init.from is an encoder
or a classifier: the operations before it are applied at once, then the model is trained under
`budget` with pruned weights kept at zero, gradual pruning and aware quantization in the forward
pass, and the rest follows as above. compress.when=before prunes and quantizes first, then
finetunes, then quantizes again. A masked-language model can also be compressed for its own sake
(compress.recover=0): nothing is trained then, and perplexity is measured. The numbers are those of
the model that artifact/ holds, to the bit; compressed/ holds the same weights as an Orbax
checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlc_jax.commands import fit_to_memory, latency_of_run
from tlc_jax.commands.finetune import open_classifier, train_classifier
from tlc_jax.compression.apply import compress_params, write_compressed
from tlc_jax.compression.iterative import IterativePruning
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
from tlc_jax.compression.remove import remove_structures
from tlc_jax.config import Config
from tlc_jax.config.resolve import require_budget
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import content_hash
from tlc_jax.models.network import Params
from tlc_jax.runs import auto, saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.base import TaskRun, open_saved
from tlc_jax.tasks.masked_lm import require_head


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compresses in `workdir`; returns the content of result.json."""
    recipe = _written_out(parse_recipe(config.recipe), config.compress.when)
    if recipe.finetunes:
        require_budget(config)
    saved_model.find(config.init.source)
    saved_model.check_inputs(config)
    trains = _trains(config, recipe)
    return session.run_once(
        workdir, config, lambda config: _compress(config, workdir, recipe), trains
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


def _trains(config: Config, recipe: Recipe) -> bool:
    recovers = config.compress.recover > 0 and bool(recipe.prunes or recipe.removes)
    return recipe.finetunes or recovers


@dataclasses.dataclass
class _Prepared:
    """A model whose structures are removed and that is finetuned, where the recipe says so.

    Attributes:
      task: the network with its data.
      params: parameters, pruned already where `masks` say so.
      operations: operations of the recipe that are left, in their order.
      numbers: numbers for result.json so far.
      dense_metric: headline metric that iterative pruning recovers; None to prune in one go.
      masks: masks of the leaves that are pruned.
    """

    task: TaskRun
    params: Params
    operations: Sequence[Operation]
    numbers: dict[str, Any]
    dense_metric: float | None
    masks: dict[str, Any] = dataclasses.field(default_factory=dict)


def _compress(config: Config, workdir: Path, recipe: Recipe) -> dict[str, Any]:
    dense = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
    saved_model.require_dense(dense)
    prepare = _finetune if recipe.finetunes else _open_trained
    model = prepare(config, workdir, dense, recipe)
    params, masks, task, rounds = model.params, model.masks, model.task, []
    rest = list(model.operations)
    if model.dense_metric is not None:
        # By content: a model that was trained again at the same place is another one.
        origin = distributed.share(content_hash({"params": params, "masks": masks}))
        pruning = IterativePruning(task, workdir, origin, model.dense_metric)
        if recipe.removes and not recipe.finetunes:
            params = pruning.recover_from_removal(params, recipe.removes)
        # Only up to the first quantization: what is pruned later keeps its grid and is not trained.
        while rest and isinstance(prune := rest[0], Prune):
            params, masks = pruning.prune(params, masks, prune)
            rest = rest[1:]
        rounds = pruning.history if pruning.history[1:] else []
    meta = {**task.meta, "recipe": format_recipe(parse_recipe(config.recipe))}
    last, tokenizer = Recipe(tuple(rest)), dense.tokenizer
    numbers = write_compressed(params, last, masks, meta, tokenizer, workdir, task.measure)
    task.save_predictions(workdir)
    return {
        "init": str(dense.path),
        "seed": config.seed,
        "labels": list(dense.labels),
        **model.numbers,
        "layers": dense.model.layers,  # the original size; `params` says how much of it is left
        "rounds": rounds,
        **numbers,
        "stage": "compress",
        "when": config.compress.when,
        **latency_of_run(task.config, workdir),
    }


def _finetune(config: Config, workdir: Path, dense: SavedModel, recipe: Recipe) -> _Prepared:
    """Applies the operations before `finetune` at once, then trains with pruned weights at zero."""
    kinds = ("mlm", "encoder", *([config.task] if config.compress.when == "after" else []))
    if dense.kind not in kinds:
        raise InputError(
            f"finetuning needs a model of kind {' or '.join(kinds)}, "
            f"and {dense.path} is a {dense.kind}"
        )
    before, after = recipe.around_finetuning()
    gradual = tuple(o for o in before if isinstance(o, Prune) and o.gradual)
    aware = tuple(o for o in before if isinstance(o, Quantize) and o.aware)
    at_once = Recipe(tuple(o for o in before if o not in (*gradual, *aware)))
    start = _without_structures(dense, recipe)
    small = compress_params(start.params, at_once)
    start = dataclasses.replace(start, params=small.params, masks=small.masks)
    opened = open_classifier(config, workdir, start)
    task, masks = opened.run, opened.masks
    outcome = train_classifier(opened, workdir, gradual, aware)
    # A budget of a few steps may end before gradual pruning has reached its last level.
    rest = Recipe(tuple(dataclasses.replace(operation, gradual=False) for operation in gradual))
    pruned = compress_params(outcome.params, rest, masks)
    # Training only rounded in the forward pass: the weights themselves are quantized now.
    real = [dataclasses.replace(operation, aware=False) for operation in aware]
    metric = outcome.numbers[task.goal]
    return _Prepared(task, pruned.params, (*real, *after), outcome.numbers, metric, pruned.masks)


def _open_trained(config: Config, workdir: Path, dense: SavedModel, recipe: Recipe) -> _Prepared:
    """The model with its data, and its metric before anything is removed or pruned."""
    require_head(dense)
    trains, iterative = _trains(config, recipe), dense.kind != "mlm"
    if trains and not iterative:
        raise InputError(
            f"{dense.path} is a masked-language model, and recovery needs labels: "
            "set compress.recover=0 to prune it in one go, "
            "or compress.when=before to finetune what is left of it"
        )

    def open_task(start: SavedModel) -> TaskRun:
        adopted = session.adopt_model(config, start.model, start.path)
        adopted, placement = session.open_devices(adopted, trains)
        task = open_saved(adopted, start, workdir, placement, train=iterative)
        if iterative:
            fit_to_memory(task, workdir)
        return task

    start, task, metric = dense, open_task(dense), None
    if iterative:
        pruned = recipe.prunes or recipe.removes
        metric = task.evaluate(dense.params, False)[task.goal] if pruned else 0.0
    # The dense model's task is reused unless its shapes change.
    if recipe.removes:
        start = _without_structures(dense, recipe)
        task = open_task(start)
    rest = [operation for operation in recipe.operations if not isinstance(operation, Remove)]
    numbers = session.size_numbers(task.network) | auto.chosen(task.config)
    return _Prepared(task, start.params, rest, numbers, metric)


def _without_structures(start: SavedModel, recipe: Recipe) -> SavedModel:
    """The smaller model."""
    params, model = remove_structures(start.params, start.model, recipe.removes)
    meta = {**start.meta, "model": dataclasses.asdict(model)}
    return dataclasses.replace(start, params=params, meta=meta)
