"""Finetune a classifier on labelled texts or pairs.

Starts from a pretrained encoder, a public one (hf:FOLDER), or from scratch. With init.from the run
takes parameters and architecture of the earlier run, never its optimizer state; the log says which
parameters it took. A pruned encoder keeps its zeros: the mask is the last transform of the
optimizer. A quantized one is quantized again at the end, by the same recipe. With `seeds` there is
one run per seed in seed-K/, and a summary. Predictions for every example of every validation split
go to predictions/.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.commands import choose_microbatch, latency_of_run
from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.recipe import Prune, Quantize, Recipe, parse_recipe
from tlc_jax.config import Config
from tlc_jax.data.sources import open_source, parse_sources
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import classifier
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks.classification import ClassifierRun, load_data
from tlc_jax.training.loop import Outcome


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Finetunes in `workdir`; returns the content of result.json."""
    saved_model.check_inputs(config, train=True)
    work = _sweep if config.seeds else _finetune
    return session.run_once(workdir, config, lambda: work(config, workdir))


def _sweep(config: Config, workdir: Path) -> dict[str, Any]:
    """A run for each seed, and mean and sample standard deviation of the accuracies over seeds."""
    results = {}
    # A run is a workdir of its own, so a sweep that was killed repeats no seed that is done.
    for seed in config.seeds:
        one = dataclasses.replace(config, seed=seed, seeds=())
        results[f"seed-{seed}"] = run(one, workdir / f"seed-{seed}", {})

    def spread(values: list[float]) -> dict[str, Any]:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return {"mean": statistics.fmean(values), "std": deviation, "values": values}

    over_seeds = spread([result["accuracy"] for result in results.values()])
    splits = [result["accuracy_by_split"] for result in results.values()]
    # None where the examples of a test split have no labels.
    test = [found for one in results.values() if (found := one.get("test_accuracy")) is not None]
    return {
        "stage": "finetune",
        "seeds": list(config.seeds),
        "accuracy": over_seeds["mean"],
        "accuracy_over_seeds": over_seeds,
        "accuracy_by_split": {name: spread([one[name] for one in splits]) for name in splits[0]},
        **({"test_accuracy_over_seeds": spread(test)} if test else {}),
        "runs": {str(seed): f"seed-{seed}" for seed in config.seeds},
    }


def _finetune(config: Config, workdir: Path) -> dict[str, Any]:
    """One finetuning run; a compressed start gives a compressed result."""
    start = None
    if config.init.source:
        start = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
    run, outcome, masks = train_classifier(config, workdir, start)
    result = outcome.numbers
    recipe = parse_recipe(start.recipe if start else "dense")
    if recipe.operations:
        from tlc_jax.compression.apply import write_compressed  # here: few starts are compressed

        meta = {**run.meta, "recipe": result["recipe"]}
        # Training moved the weights off their grid, so they are rounded again. Rounding that was
        # aware of training before is plain rounding now.
        plain = [dataclasses.replace(operation, aware=False) for operation in recipe.quantizes]
        again, tokenizer, params = Recipe(tuple(plain)), run.tokenizer, outcome.params
        result |= write_compressed(params, again, masks, meta, tokenizer, workdir, run.measure)
    else:
        result |= run.evaluate_test(outcome.params)
    run.save_predictions(workdir)
    return result | latency_of_run(config, workdir)


def train_classifier(
    config: Config,
    workdir: Path,
    start: SavedModel | None,
    gradual: tuple[Prune, ...] = (),
    aware: tuple[Quantize, ...] = (),
) -> tuple[ClassifierRun, Outcome, Mapping[str, Any]]:
    """Trains a classifier under `budget`.

    Args:
      config: resolved config.
      workdir: folder of the run, claimed by the caller.
      start: model to start from, whose pruned weights stay zero; None: random weights.
      gradual: pruning operations during training.
      aware: quantize operations that the forward pass applies.

    Returns:
      The network with its data; the outcome, with parameters whole on every host and all fields of
      result.json; and the masks of the weights that training kept at zero. Weights that gradual
      pruning added are zero in the parameters, and not in the masks.
    """
    if start is not None:
        config = session.adopt_model(config, start.model, start.path)
    tokenizer = start.tokenizer if start else _own_tokenizer(config)
    if start is None:
        session.check_special_ids(config.model, tokenizer)
    session.keep_tokenizer(tokenizer, workdir)
    # A trained classifier keeps the order of its classes, whatever the order in the data.
    labels = start.labels if start and start.kind == "classifier" else None
    data = load_data(config, tokenizer, labels)
    placement = session.open_devices(config)
    network = classifier(config.model, tokenizer.vocab_size, len(data.labels), config.impl)
    meta = session.model_meta(network.kind, config, tokenizer, data.labels)
    run = ClassifierRun(config, network, placement, meta, tokenizer=tokenizer, data=data)
    choose_microbatch(run, workdir)
    masks: Mapping[str, Any] = {}
    if start and start.masks:
        from tlc_jax.compression.prune import restrict_masks  # here, as few starts are pruned

        # The pretraining head may be pruned too; it is left behind, and its masks with it.
        masks = restrict_masks(start.masks, network.abstract())
    outcome = run.train(workdir, start, DuringTraining(masks, gradual, aware))
    numbers = {
        "stage": "finetune",
        "labels": list(data.labels),
        "recipe": start.recipe if start else "dense",
        "truncated": {part.name: part.truncated for part in [*data.train, *data.valid, *data.test]},
        **outcome.numbers,
    }
    params = placement.gather(outcome.params)
    return run, dataclasses.replace(outcome, params=params, numbers=numbers), masks


def _own_tokenizer(config: Config) -> Tokenizer:
    """From scratch: tokenizer.path, or one trained on the training texts themselves."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path)
    from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer  # rarely needed

    data = config.data
    read = [open_source(source, data).examples() for source in parse_sources(data.train)]
    texts = (text for part in read for column in (part.texts, part.pairs or ()) for text in column)
    return train_tokenizer(texts, config.tokenizer.vocab_size, config.tokenizer.train_bytes)
