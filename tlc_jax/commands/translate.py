"""Train a translator under a budget, translate the validation set with beam search, and score it.

Reads pairs from data.train (tokenized once into data.cache): two line-aligned files (files:A+B), a table with two
columns, or a TFDS data set. optimizer.batch_size counts target tokens. Stops at the first limit of `budget` that is
used up; killed at any moment, the same command goes on from the last checkpoint. With checkpoint.average=N the result
is the mean of the last N checkpoints, kept in averaged/. Translations go to predictions/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.config import Config
from tlc_jax.config.checks import require_budget, require_translator
from tlc_jax.data.pairs import prepare_pairs
from tlc_jax.data.sources import check_sources
from tlc_jax.models.network import Network, Params, translator
from tlc_jax.planning import fit
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import AVERAGED, SavedModel
from tlc_jax.tasks.translation import TranslatorRun
from tlc_jax.training.checkpoint import complete_steps, read_params, save_params
from tlc_jax.training.loop import train


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Trains and evaluates in `workdir`; returns what result.json says."""
    del options
    require_budget(config)
    require_translator(config)
    check_sources(config.data.train, "data.train", config.data)
    if config.data.valid:
        check_sources(config.data.valid, "data.valid", config.data)
    if config.init.source:
        saved_model.find(config.init.source)
    return session.run_once(workdir, config, lambda: _translate(config, workdir))


def _translate(config: Config, workdir: Path) -> dict[str, Any]:
    start: SavedModel | None = None
    if config.init.source:
        start = saved_model.load(config.init.source, config.impl, config.tokenizer.path)
        saved_model.require_dense(start, ("translator",))
        config = session.adopt_model(config, start.model, start.path)
        config = dataclasses.replace(
            config, tokenizer=dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
        )
    data = prepare_pairs(config, Path(config.data.cache or workdir / "data"))
    session.keep_tokenizer(data.tokenizer, workdir)
    for name, facts in data.facts.items():
        session.say(
            f"{name}: {facts['kept']:,} of {facts['pairs']:,} pairs; left out: {facts['empty']:,} empty, "
            f"{facts['too_long']:,} longer than {config.data.length} tokens, {facts['unequal']:,} of unequal lengths"
        )
    placement = session.open_devices(config)
    config = fit.of_translation(config, data.tokenizer.vocab_size, data.train, placement, workdir)
    network = translator(config.model, data.tokenizer.vocab_size, config.impl)
    run = TranslatorRun(config, network, data.tokenizer, data.train, data.valid, placement)
    padding = run.own_batches.padding()
    session.say(
        f"widths {', '.join(map(str, run.own_batches.widths))}; padding {padding['source']:.1%} of source and "
        f"{padding['target']:.1%} of target positions"
    )
    session.write_parameter_table(config, network.abstract(), placement, workdir)
    size = session.size_numbers(network)
    session.say(
        f"{config.model.layers}x{config.model.hidden}: {size['params']:,} parameters, table in parameters.txt"
    )

    fresh = network.init(jax.random.key(config.seed))
    task = run.task(lambda: start.params if start else fresh)
    if config.checkpoint.average > 1:
        task = dataclasses.replace(task, evaluate=run.loss)
    outcome = train(task, config, workdir, placement)
    numbers = outcome.numbers
    if config.checkpoint.average > 1:
        params, steps = _average(network, workdir, config.checkpoint.average)
        save_params(workdir / AVERAGED, 0, params, {**run.meta, "averaged": steps})
        numbers |= {
            "averaged_steps": steps,
            "valid_loss_last": numbers["valid_loss"],
            **run.evaluate(params, True),
        }
    run.save_predictions(workdir)
    return {
        "stage": "translate",
        **size,
        "seed": config.seed,
        "microbatch": config.microbatch,
        "vocab_size": data.tokenizer.vocab_size,
        "init": str(start.path) if start else "scratch",
        "padding": padding,
        "pairs": {
            name: {key: facts[key] for key in _COUNTED} for name, facts in data.facts.items()
        },
        **numbers,
        "samples": run.samples(),
        **session.provenance(),
    }


_COUNTED = ("pairs", "kept", "empty", "too_long", "unequal", "source_tokens", "target_tokens")


def _average(network: Network, workdir: Path, count: int) -> tuple[Params, list[int]]:
    """The mean of the last checkpoints' parameters, and their steps."""
    directory = workdir / "checkpoints"
    steps = complete_steps(directory)[:count]
    mean: Params | None = None
    for step in steps:
        params = jax.tree.map(
            lambda leaf: leaf / len(steps), read_params(directory, step, network.abstract())
        )
        mean = params if mean is None else jax.tree.map(jax.numpy.add, mean, params)
    assert mean is not None, "training leaves a checkpoint"
    return mean, steps
