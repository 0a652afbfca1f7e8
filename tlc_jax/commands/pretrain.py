"""Train an encoder on masked tokens until its budget is used up.

Reads data.train (packing it first if `tlc prepare` has not), stops at the first limit of `budget`
that is used up, and leaves checkpoints, metrics.jsonl and result.json in the workdir. Killed at any
moment, the same command goes on from the last checkpoint and ends with the same weights. With
init.from training starts at another run's encoder, or at an imported one, with its tokenizer; the
optimizer starts fresh.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.commands import fit_to_memory, run_branches
from tlc_jax.config import Config
from tlc_jax.data.packing import prepare
from tlc_jax.models.network import masked_language_model
from tlc_jax.runs import saved_model, session
from tlc_jax.runs.workdir import data_cache
from tlc_jax.tasks.masked_lm import MaskedLanguageRun, unigram_loss


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Pretrains in `workdir`; returns the content of result.json."""
    saved_model.check_inputs(config, train=True)
    return session.run_once(workdir, config, functools.partial(_pretrain, workdir))


def _pretrain(workdir: Path, config: Config) -> dict[str, Any]:
    # An encoder alone will do: a masked-language head starts from the seed then.
    begun = config
    start, config = saved_model.load_dense_start(config, "mlm", "encoder")
    # With the tokenizer of the start, since its embeddings belong to that one's ids.
    given = start.tokenizer if start else None
    data = prepare(config, data_cache(config, workdir), tokenizer=given)
    tokenizer, special = data.tokenizer, data.tokenizer.special
    session.check_special_ids(config.model, tokenizer)
    session.keep_tokenizer(tokenizer, workdir)
    config, placement = session.open_devices(config)
    network = masked_language_model(config.model, tokenizer.vocab_size, config.impl)
    meta = session.model_meta(network.kind, config, tokenizer)
    run = MaskedLanguageRun(config, network, placement, meta, special=special)
    run.train_text, run.valid_text, run.test_text = data.train, data.valid, data.test
    fit_to_memory(run, workdir)
    outcome = run.train(workdir, start)
    unigrams = unigram_loss(data.train, data.valid.values(), tokenizer.vocab_size, special)
    return {
        "stage": "pretrain",
        "vocab_size": tokenizer.vocab_size,
        "unigram_loss": unigrams,
        **outcome.numbers,
        **run.evaluate_test(outcome.params),
        **run_branches(begun, workdir, _pretrain),
    }
