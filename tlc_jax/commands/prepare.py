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
from tlc_jax.runs.workdir import data_cache


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fills `data.cache` (or data/ in the workdir) and returns what is in it.

    Returns:
      tokenizer_hash, vocab_size, cache, the numbers of rows or pairs for training and of each split
      for validation and test, and by source under `sources` the facts that the cache keeps: spec,
      bytes of the file, cached (whether it was there already), seconds of the work. Packed text (by
      "train/NAME", "valid/NAME" or "test/NAME") also has rows, tokens, documents and
      tokens_per_second. Pairs (by name) also have pairs, kept, those left out by reason, and tokens
      of either side.
    """
    cache = data_cache(config, workdir).expanduser()
    if options.get("pairs"):
        pairs = prepare_pairs(config, cache)
        tokenizer, sources = pairs.tokenizer, pairs.facts
        valid = {split.name: len(split.texts) for split in pairs.valid}
        test = {split.name: len(split.texts) for split in pairs.test}
        found = {"train_pairs": sum(map(len, pairs.train)), "valid_pairs": valid}
        found |= {"test_pairs": test} if test else {}
    else:
        text = packing.prepare(config, cache)
        tokenizer, sources = text.tokenizer, {}
        for name, facts in text.facts.items():
            # What was packed before this clock had ticked has no rate.
            rate = facts["tokens"] / facts["seconds"] if facts["seconds"] > 0 else None
            sources[name] = {**facts, "tokens_per_second": rate}
        valid = {name: len(part) for name, part in text.valid.items()}
        test = {name: len(part) for name, part in text.test.items()}
        found = {"train_rows": sum(map(len, text.train)), "valid_rows": valid}
        found |= {"test_rows": test} if test else {}
        found["tokenizer"] = str(text.tokenizer_path)
    return {
        "tokenizer_hash": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "cache": str(cache),
        "sources": sources,
        **found,
    }
