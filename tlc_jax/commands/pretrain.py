"""Train an encoder on masked tokens until its budget is used up.

Reads data.train (packing it first if `tlc prepare` has not), stops at the first limit of `budget` that is used up,
and leaves checkpoints, metrics.jsonl and result.json in the workdir. Killed at any moment, the same command goes on
from the last checkpoint and ends with the same weights. With init.from training starts at another run's encoder, or at
an imported one, with its tokenizer; the optimizer starts anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.config import Config
from tlc_jax.config.checks import require_budget
from tlc_jax.core.mesh import Placement
from tlc_jax.data.batches import RowBatches
from tlc_jax.data.packing import prepare
from tlc_jax.data.sources import check_sources
from tlc_jax.data.vocabulary import OURS, SpecialIds
from tlc_jax.models import flops
from tlc_jax.models.network import Network, Params, masked_language_model
from tlc_jax.planning import microbatch
from tlc_jax.planning.programs import cost_per_step, make_step
from tlc_jax.runs import saved_model as starting_point
from tlc_jax.runs import session
from tlc_jax.tasks.masked_lm import PerplexityEvaluator, unigram_loss
from tlc_jax.training.loop import Task, train
from tlc_jax.training.loss import masked_language


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Pretrains in `workdir`; returns what result.json says."""
    del options
    require_budget(config)
    check_sources(config.data.train, "data.train", config.data)
    if config.init.source:
        starting_point.find(config.init.source)
    return session.run_once(workdir, config, lambda: _pretrain(config, workdir))


def _pretrain(config: Config, workdir: Path) -> dict[str, Any]:
    start = (
        starting_point.load(config.init.source, config.impl, config.tokenizer.path)
        if config.init.source
        else None
    )
    if start is not None:
        starting_point.require_dense(start, ("mlm", "encoder"))
        config = session.adopt_model(config, start.model, start.path)
    data = prepare(
        config,
        Path(config.data.cache or workdir / "data"),
        tokenizer=start.tokenizer if start else None,
    )
    session.check_special_ids(config.model, data.tokenizer)
    session.keep_tokenizer(data.tokenizer, workdir)
    placement = session.open_devices(config)
    config = microbatch.of_pretraining(config, data.tokenizer.vocab_size, placement, workdir)
    network = masked_language_model(config.model, data.tokenizer.vocab_size, config.impl)
    abstract = network.abstract()
    count = flops.parameter_count(config.model, data.tokenizer.vocab_size)
    session.write_parameter_table(config, abstract, placement, workdir)
    session.say(
        f"{config.model.layers}x{config.model.hidden}: {count.total:,} parameters, table in parameters.txt"
    )

    evaluator = PerplexityEvaluator(
        masked_language(network, config.objective, data.tokenizer.special),
        data.valid,
        config.eval.batch_size or config.optimizer.batch_size,
        placement,
    )
    task = make_task(
        config,
        network,
        RowBatches(data.train, config.optimizer.batch_size, config.seed),
        lambda params, final: evaluator(params, 0 if final else config.eval.examples),
        session.model_meta("mlm", config, data.tokenizer),
        placement,
        data.tokenizer.special,
    )
    if start is not None:
        params = starting_point.grafted(network.init(jax.random.key(config.seed)), start)
        task = dataclasses.replace(task, init=lambda: params)
    outcome = train(task, config, workdir, placement)
    return {
        "stage": "pretrain",
        "layers": config.model.layers,
        "hidden": config.model.hidden,
        "params": count.total,
        "params_nonembedding": count.nonembedding,
        "seed": config.seed,
        "init": str(start.path) if start else "scratch",
        "microbatch": microbatch.used(config),
        "vocab_size": data.tokenizer.vocab_size,
        "unigram_loss": unigram_loss(
            data.train, data.valid.values(), data.tokenizer.vocab_size, data.tokenizer.special
        ),
        **outcome.numbers,
        **session.provenance(),
    }


def make_task(
    config: Config,
    network: Network,
    batches: RowBatches,
    evaluate: Callable[[Params, bool], dict[str, Any]],
    meta: dict[str, Any],
    placement: Placement,
    special: SpecialIds = OURS,
) -> Task:
    """The task of training `network` on masked tokens."""
    optimizer, step = make_step(
        config, network, masked_language(network, config.objective, special)
    )
    cost = cost_per_step(config, network.vocab_size, batches.rows_per_epoch)
    rows = config.optimizer.batch_size
    own_rows = placement.own_rows(rows)
    return Task(
        init=lambda: network.init(jax.random.key(config.seed)),
        optimizer=optimizer,
        step=step,
        batch=lambda step: placement.put_batch(batches(step, own_rows), rows),
        cost=lambda batch: cost,  # all batches are alike
        evaluate=evaluate,
        meta=meta,
        peak_flops=session.peak(config),
    )
