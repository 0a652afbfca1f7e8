"""Train a translator under a budget, translate the validation set with beam search, and score it.

Reads pairs from data.train (tokenized once into data.cache): two line-aligned files (files:A+B), a
table with two columns, or a TFDS data set. optimizer.batch_size counts target tokens. Stops at the
first limit of `budget` that is used up; killed at any moment, the same command goes on from the
last checkpoint. With checkpoint.average=N the result is the mean of the last N checkpoints, kept in
averaged/. Translations go to predictions/.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.commands import fit_to_memory, run_branches
from tlc_jax.config import Config
from tlc_jax.config.resolve import require_translator
from tlc_jax.data.pairs import prepare_pairs
from tlc_jax.models.network import Network, Params, translator
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.saved_model import AVERAGED
from tlc_jax.runs.workdir import data_cache
from tlc_jax.tasks.translation import TranslatorRun
from tlc_jax.training.checkpoint import complete_steps, read_params, save_params

_COUNTED = ("pairs", "kept", "empty", "too_long", "unequal", "source_tokens", "target_tokens")


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Trains and evaluates in `workdir`; returns the content of result.json."""
    require_translator(config)
    saved_model.check_inputs(config, train=True)
    return session.run_once(workdir, config, functools.partial(_translate, workdir))


def _translate(workdir: Path, config: Config) -> dict[str, Any]:
    begun = config
    start, config = saved_model.load_dense_start(config, "translator")
    # The pairs are tokenized with the tokenizer of the model, whatever tokenizer.path says.
    if start:
        tokenizer = dataclasses.replace(config.tokenizer, path=str(start.tokenizer_path))
        config = dataclasses.replace(config, tokenizer=tokenizer)
    data = prepare_pairs(config, data_cache(config, workdir))
    session.keep_tokenizer(data.tokenizer, workdir)
    for name, facts in data.facts.items():
        session.say(
            f"{name}: {facts['kept']:,} of {facts['pairs']:,} pairs; left out: {facts['empty']:,} "
            f"empty, {facts['too_long']:,} longer than {config.data.length} tokens, "
            f"{facts['unequal']:,} of unequal lengths"
        )
    config, placement = session.open_devices(config)
    network = translator(config.model, data.tokenizer.vocab_size, config.impl)
    meta = session.model_meta(network.kind, config, data.tokenizer)
    run = TranslatorRun(config, network, placement, meta, tokenizer=data.tokenizer)
    run.train_pairs, run.valid, run.test = data.train, data.valid, data.test
    fit_to_memory(run, workdir)
    padding = run.own_batches.padding()
    session.say(
        f"widths {', '.join(map(str, run.own_batches.widths))}; padding {padding['source']:.1%} "
        f"of source and {padding['target']:.1%} of target positions"
    )
    # The mean is what counts, so training does not translate with its last parameters.
    averages = config.checkpoint.average > 1
    outcome = run.train(workdir, start, evaluate=run.loss if averages else None)
    params, numbers = outcome.params, outcome.numbers
    if averages:
        params, steps = _average(network, workdir, config.checkpoint.average)
        save_params(workdir / AVERAGED, 0, params, {**run.meta, "averaged": steps})
        last = {"averaged_steps": steps, "valid_loss_last": numbers["valid_loss"]}
        numbers = {**numbers, **last, **run.evaluate(params, True)}
    numbers |= run.evaluate_test(params)
    run.save_predictions(workdir)
    return {
        "stage": "translate",
        "vocab_size": data.tokenizer.vocab_size,
        "padding": padding,
        "pairs": {
            name: {key: facts[key] for key in _COUNTED} for name, facts in data.facts.items()
        },
        **numbers,
        "samples": run.samples(),
        **run_branches(begun, workdir, _translate),
    }


def _average(network: Network, workdir: Path, count: int) -> tuple[Params, list[int]]:
    """The mean of the last checkpoints' parameters, and their steps."""
    directory = workdir / "checkpoints"
    steps = complete_steps(directory)[:count]
    mean: Params | None = None
    # Summed one by one, so that two checkpoints at most are in memory.
    for step in steps:
        params = read_params(directory, step, network.abstract())
        share = jax.tree.map(lambda leaf: leaf / len(steps), params)
        mean = share if mean is None else jax.tree.map(jax.numpy.add, mean, share)
    assert mean is not None, "training leaves a checkpoint"
    return mean, steps
