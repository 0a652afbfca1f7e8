"""Train the tokenizer and pack the pretraining text, once, for all runs that share the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.data import packing


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fills `data.cache` (or data/ in the workdir) and says what is in it.

    Returns:
      tokenizer (path), tokenizer_hash, vocab_size, cache, and for each source under `sources` (by "train/NAME" or
      "valid/NAME"): spec, rows, tokens, documents, bytes (of the packed file), seconds and tokens_per_second (of the
      packing), cached (whether it was there already).
    """
    cache = Path(config.data.cache) if config.data.cache else workdir / "data"
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
