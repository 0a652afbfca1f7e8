"""Train the tokenizer and pack the training data, once, for all runs that share the cache.

Text is packed into rows for pretraining; with --pairs sentence pairs are tokenized for translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.data import packing
from tlc_jax.data.pairs import prepare_pairs


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fills `data.cache` (or data/ in the workdir) and says what is in it.

    Returns:
      tokenizer_hash, vocab_size, cache, and for each source under `sources` what is known of it: spec, bytes of the
      file in the cache, cached (whether it was there already), seconds of the work; of packed text (by "train/NAME" or
      "valid/NAME") also rows, tokens, documents and tokens_per_second; of pairs (by name) also pairs, kept, those left
      out by reason, and tokens of either side.
    """
    cache = Path(config.data.cache) if config.data.cache else workdir / "data"
    return _pairs(config, cache) if options.get("pairs") else _text(config, cache)


def _text(config: Config, cache: Path) -> dict[str, Any]:
    prepared = packing.prepare(config, cache)
    kept = ("spec", "rows", "tokens", "documents", "bytes", "seconds", "cached")
    sources = {}
    for name, facts in prepared.facts.items():
        rate = facts["tokens"] / facts["seconds"] if facts["seconds"] > 0 else None
        sources[name] = {key: facts[key] for key in kept} | {"tokens_per_second": rate}
    return {
        "tokenizer": str(prepared.tokenizer_path),
        "tokenizer_hash": prepared.tokenizer.hash,
        "vocab_size": prepared.tokenizer.vocab_size,
        "cache": str(prepared.directory),
        "sources": sources,
        "train_rows": sum(len(part) for part in prepared.train),
        "valid_rows": {name: len(part) for name, part in prepared.valid.items()},
    }


def _pairs(config: Config, cache: Path) -> dict[str, Any]:
    prepared = prepare_pairs(config, cache)
    kept = (
        "spec",
        "pairs",
        "kept",
        "empty",
        "too_long",
        "unequal",
        "source_tokens",
        "target_tokens",
    )
    return {
        "tokenizer_hash": prepared.tokenizer.hash,
        "vocab_size": prepared.tokenizer.vocab_size,
        "cache": str(cache),
        "sources": {
            name: {key: facts[key] for key in (*kept, "bytes", "seconds", "cached")}
            for name, facts in prepared.facts.items()
        },
        "train_pairs": sum(len(part) for part in prepared.train),
        "valid_pairs": {split.name: len(split.texts) for split in prepared.valid},
    }
