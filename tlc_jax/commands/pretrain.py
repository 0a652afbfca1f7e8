"""Train an encoder on masked tokens until its budget is used up.

Reads data.train (packing it first if `tlc prepare` has not), stops at the first limit of `budget` that is used up,
and leaves checkpoints, metrics.jsonl and result.json in the workdir. Killed at any moment, the same command goes on
from the last checkpoint and ends with the same weights. With init.from training starts at another run's encoder, or at
an imported one, with its tokenizer; the optimizer starts fresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tlc_jax.config import Config
from tlc_jax.config.checks import require_budget
from tlc_jax.data.packing import prepare
from tlc_jax.data.sources import check_sources
from tlc_jax.models.network import Params, masked_language_model
from tlc_jax.planning import fit
from tlc_jax.runs import saved_model, session
from tlc_jax.tasks.masked_lm import MaskedLanguageRun, unigram_loss
from tlc_jax.training.loop import train


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Pretrains in `workdir`; returns what result.json says."""
    del options
    require_budget(config)
    check_sources(config.data.train, "data.train", config.data)
    if config.init.source:
        saved_model.find(config.init.source)
    return session.run_once(workdir, config, lambda: _pretrain(config, workdir))


def _pretrain(config: Config, workdir: Path) -> dict[str, Any]:
    start = (
        saved_model.load(config.init.source, config.impl, config.tokenizer.path)
        if config.init.source
        else None
    )
    if start is not None:
        saved_model.require_dense(start, ("mlm", "encoder"))
        config = session.adopt_model(config, start.model, start.path)
    data = prepare(
        config,
        Path(config.data.cache or workdir / "data"),
        tokenizer=start.tokenizer if start else None,
    )
    session.check_special_ids(config.model, data.tokenizer)
    session.keep_tokenizer(data.tokenizer, workdir)
    placement = session.open_devices(config)
    config = fit.of_pretraining(config, data.tokenizer.vocab_size, placement, workdir)
    network = masked_language_model(config.model, data.tokenizer.vocab_size, config.impl)
    session.write_parameter_table(config, network.abstract(), placement, workdir)
    size = session.size_numbers(network)
    session.say(
        f"{config.model.layers}x{config.model.hidden}: {size['params']:,} parameters, "
        "table in parameters.txt"
    )
    special = data.tokenizer.special
    meta = session.model_meta("mlm", config, data.tokenizer)
    run = MaskedLanguageRun(config, network, data.train, data.valid, placement, meta, special)

    def init() -> Params:
        fresh = network.init(jax.random.key(config.seed))
        return saved_model.initialized_from(fresh, start) if start else fresh

    outcome = train(run.task(init), config, workdir, placement)
    return {
        "stage": "pretrain",
        **size,
        "seed": config.seed,
        "init": str(start.path) if start else "scratch",
        "microbatch": config.microbatch,
        "vocab_size": data.tokenizer.vocab_size,
        "unigram_loss": unigram_loss(
            data.train, data.valid.values(), data.tokenizer.vocab_size, special
        ),
        **outcome.numbers,
        **session.provenance(),
    }
