"""Finetune a classifier on labelled texts or pairs: from a pretrained encoder, a public one (hf:FOLDER) or scratch.

With init.from the run takes parameters and architecture of the earlier run, never its optimizer
state; the log says which parameters it took. A pruned encoder keeps its zeros: the mask is the last
transform of the optimizer. A quantized one is quantized again at the end, by the same recipe. With
`seeds` there is one run per seed in seed-K/, and a summary. Predictions for every example of every
validation split go to predictions/.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.compression.apply import write_compressed
from tlc_jax.compression.during_training import DuringTraining
from tlc_jax.compression.prune import restrict_masks
from tlc_jax.compression.recipe import Prune, Quantize, Recipe, parse_recipe
from tlc_jax.config import Config
from tlc_jax.data.sentencepiece_tokenizer import train_tokenizer
from tlc_jax.data.sources import check_sources, examples, parse_sources
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.models.network import Params, classifier
from tlc_jax.planning import fit
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import SavedModel
from tlc_jax.tasks import latency as latencies
from tlc_jax.tasks.classification import ClassifierRun, load_data
from tlc_jax.training.loop import train


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Finetunes in `workdir`; returns what result.json says."""
    del options
    check_sources(config.data.train, "data.train", config.data)
    if config.data.valid:
        check_sources(config.data.valid, "data.valid", config.data)
    if config.init.source:
        saved_model.find(config.init.source)
    if not config.seeds:
        return session.run_once(
            workdir, config, lambda: finetune(config, workdir) | latencies.of_run(config, workdir)
        )

    def sweep() -> dict[str, Any]:
        results = {}
        for seed in config.seeds:
            one = dataclasses.replace(config, seed=seed, seeds=())
            results[seed] = run(one, workdir / f"seed-{seed}", {})
        return _summary(results)

    return session.run_once(workdir, config, sweep)


def _summary(results: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of the accuracies over seeds."""

    def spread(values: list[float]) -> dict[str, Any]:
        return {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
        }

    splits = next(iter(results.values()))["accuracy_by_split"]
    return {
        "stage": "finetune",
        "seeds": list(results),
        "accuracy": statistics.fmean(r["accuracy"] for r in results.values()),
        "accuracy_over_seeds": spread([r["accuracy"] for r in results.values()]),
        "accuracy_by_split": {
            name: spread([r["accuracy_by_split"][name] for r in results.values()])
            for name in splits
        },
        "runs": {str(seed): f"seed-{seed}" for seed in results},
    }


@dataclasses.dataclass(frozen=True)
class Trained:
    """A classifier that was trained.

    Attributes:
      run: the network with its data.
      params: parameters, float32, whole on every host.
      masks: masks of the weights that training kept at zero; weights that gradual pruning added are
        zero in `params`.
      numbers: fields of result.json.
    """

    run: ClassifierRun
    params: Params
    masks: dict[str, Any]
    numbers: dict[str, Any]


def finetune(config: Config, workdir: Path) -> dict[str, Any]:
    """One finetuning run; a compressed start gives a compressed result."""
    start = None
    if config.init.source:
        start = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
    trained = train_classifier(config, workdir, start)
    result, run = trained.numbers, trained.run
    recipe = parse_recipe(start.recipe if start else "dense")
    if recipe.operations:
        meta = {**run.meta, "recipe": result["recipe"]}
        # Training moved the weights off their grid, so they are rounded again. Rounding that was
        # aware of training before is plain rounding now.
        again = Recipe(
            tuple(dataclasses.replace(operation, aware=False) for operation in recipe.quantizes)
        )
        result |= write_compressed(
            trained.params, again, trained.masks, meta, run.tokenizer, workdir, run.evaluate
        )
    run.save_predictions(workdir)
    return result


def train_classifier(
    config: Config,
    workdir: Path,
    start: SavedModel | None,
    gradual: tuple[Prune, ...] = (),
    aware: tuple[Quantize, ...] = (),
) -> Trained:
    """Trains a classifier under `budget`.

    Args:
      config: resolved config.
      workdir: folder of the run, claimed by the caller.
      start: model to start from, whose pruned weights stay zero; None: random weights.
      gradual: pruning operations during training.
      aware: quantize operations that the forward pass applies.
    """
    if start is not None:
        config = session.adopt_model(config, start.model, start.path)
    tokenizer = start.tokenizer if start else _own_tokenizer(config)
    if start is None:
        session.check_special_ids(config.model, tokenizer)
    session.keep_tokenizer(tokenizer, workdir)
    data = load_data(
        config, tokenizer, start.labels if start and start.kind == "classifier" else None
    )
    placement = session.open_devices(config)
    network = classifier(config.model, tokenizer.vocab_size, len(data.labels), config.impl)
    config = fit.of_finetuning(config, network, placement, workdir)
    run = ClassifierRun(config, network, tokenizer, data, placement)
    session.write_parameter_table(config, network.abstract(), placement, workdir)

    init = network.init(jax.random.key(config.seed))
    masks: dict[str, Any] = {}
    if start is not None:
        masks = restrict_masks(start.masks, init)
        init = saved_model.initialized_from(init, start)
    outcome = train(
        run.task(lambda: init, DuringTraining(masks, gradual, aware)), config, workdir, placement
    )
    numbers = {
        "stage": "finetune",
        **session.size_numbers(network),
        "seed": config.seed,
        "microbatch": config.microbatch,
        "init": str(start.path) if start else "scratch",
        "labels": list(data.labels),
        "recipe": start.recipe if start else "dense",
        "truncated": {part.name: part.truncated for part in [*data.train, *data.valid]},
        **outcome.numbers,
        **session.provenance(),
    }
    return Trained(run, placement.gather(outcome.params), masks, numbers)


def _own_tokenizer(config: Config) -> Tokenizer:
    """From scratch: tokenizer.path, or one trained on the training texts themselves."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path)
    read = [examples(source, config.data) for source in parse_sources(config.data.train)]
    texts = (text for part in read for column in (part.texts, part.pairs or ()) for text in column)
    return train_tokenizer(texts, config.tokenizer.vocab_size, config.tokenizer.train_bytes)
