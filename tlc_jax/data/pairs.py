"""Sentence pairs for translation, tokenized once into a cache, and the splits to evaluate on.

A side of a pair is its tokens and </s>. Training leaves out pairs that are empty, too long or of
very unequal lengths, and counts them. In validation every sentence counts, cut to the model's
length where it is longer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.data.cache import Facts, cached_tokens
from tlc_jax.data.order import hold_out, subsample
from tlc_jax.data.packing import Counts, tokenizer_for
from tlc_jax.data.progress import Bar
from tlc_jax.data.sources import Reader, Source, check_sources, open_source
from tlc_jax.data.tokenizer import EOS, OURS, PAD, Tokenizer, dtype_for, padded

_BLOCK = 8192  # pairs tokenized at once
_SHORT = 5  # tokens; shorter sides count as this long where lengths are compared


@dataclasses.dataclass
class Pairs:
    """Tokenized pairs of one source, of unequal lengths.

    Attributes:
      name: name of the source.
      tokens: uint16 or uint32 [total]: source and target of the first pair, then of the second, and
        so on; may be a memory map.
      starts: int64 [N], where each pair begins in `tokens`.
      lengths: int32 [N, 2], tokens of source and target, </s> included.
      weight: share in a mixture; 0: in proportion to its size.
    """

    name: str
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weight: float = 0.0

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources and targets of `rows`, int32 [len(rows), width] each, <pad> after their ends."""
        sources, targets = self.lengths[rows].T
        starts = self.starts[rows]
        return (
            padded(self.tokens, starts, sources, width, PAD),
            padded(self.tokens, starts + sources, targets, width, PAD),
        )

    def side(self, row: int, side: int) -> np.ndarray:
        """The tokens of one side (0: source, 1: target) of a pair, without </s>."""
        start = int(self.starts[row]) + (int(self.lengths[row, 0]) if side else 0)
        return self.tokens[start : start + int(self.lengths[row, side]) - 1]

    def take_rows(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs. No token is read."""
        return dataclasses.replace(self, starts=self.starts[rows], lengths=self.lengths[rows])


@dataclasses.dataclass
class Split:
    """Pairs to evaluate on, every one of the split.

    Attributes:
      pairs: tokens, cut to the model's length.
      texts: source sentences in full.
      references: their translations in full.
      cut: number of sentences, of either side, that were too long for the model.
    """

    pairs: Pairs
    texts: list[str]
    references: list[str]
    cut: int = 0

    @property
    def name(self) -> str:
        """The name of the split."""
        return self.pairs.name


@dataclasses.dataclass
class TranslationData:
    """All that training a translator reads.

    Attributes:
      tokenizer: one tokenizer for both languages.
      train: one set of pairs per source.
      valid: splits to evaluate on.
      test: splits to test on.
      facts: manifest of each training source, by name: pairs kept and left out (and why), tokens.
    """

    tokenizer: Tokenizer
    train: list[Pairs]
    valid: list[Split]
    test: list[Split]
    facts: dict[str, Facts]


def prepare_pairs(config: Config, cache: Path, progress: bool = True) -> TranslationData:
    """Trains or loads the tokenizer and tokenizes every source, unless the cache holds them.

    Args:
      config: `data`, `tokenizer` and `impl.threads` matter.
      cache: folder, made where it does not exist. Processes may share it.
      progress: show progress on stderr.

    Raises:
      InputError: a source cannot be read or has no pairs, or the cache cannot be written.
    """
    data = config.data
    sources = check_sources(data.train, "data.train", data)
    tokenizer, path = tokenizer_for(config, sources, cache, progress)
    if tokenizer.special != OURS:
        needed = "translation needs a SentencePiece tokenizer of tlc's"
        raise InputError(f"{path} has special pieces of its own: {needed}")
    train, facts = [], {}
    for source in sources:
        pairs, facts[source.name] = _tokenized(source, config, tokenizer, cache, progress)
        train.append(pairs)
    if data.valid.strip():
        valid = load_splits("valid", config, tokenizer)
    else:
        train, held = hold_out(train, data.holdout)
        valid = [_with_texts(pairs, tokenizer) for pairs in held]
    train = subsample(train, data.subsample, data.subsample_seed)
    return TranslationData(tokenizer, train, valid, load_splits("test", config, tokenizer), facts)


def _with_texts(pairs: Pairs, tokenizer: Tokenizer) -> Split:
    """Held-out pairs with their texts: the cache keeps none, but our tokenizers lose nothing."""
    texts, references = (
        [tokenizer.decode(pairs.side(row, side).tolist()) for row in range(len(pairs))]
        for side in (0, 1)
    )
    return Split(pairs, texts, references)


def load_splits(field: str, config: Config, tokenizer: Tokenizer) -> list[Split]:
    """The splits of data.valid or data.test, as `field` says, with every pair of them."""
    splits, spec = [], getattr(config.data, field)
    for source in check_sources(spec, f"data.{field}", config.data) if spec.strip() else ():
        columns = list(zip(*open_source(source, config.data).pairs(), strict=True))
        if not columns:
            raise InputError(f"{source.spec} has no pairs")
        texts, references = map(list, columns)
        splits.append(encode_split(source.name, texts, references, config, tokenizer))
    return splits


def encode_split(
    name: str, texts: list[str], references: list[str], config: Config, tokenizer: Tokenizer
) -> Split:
    """Tokenizes sentences and their translations.

    Args:
      name: name of the split.
      texts: source sentences; they and their translations are cut to data.length tokens.
      references: their translations.
      config: `data.length` and `impl.threads` matter.
      tokenizer: gives the ids.
    """
    length, threads = config.data.length, config.impl.threads
    sides = [tokenizer.encode_arrays(column, threads) for column in (texts, references)]
    cut = sum(len(ids) >= length for side in sides for ids in side)
    sides = [[ids[: length - 1] for ids in side] for side in sides]  # </s> takes a place too
    tokens, lengths = _joined(sides, tokenizer), _lengths(sides)
    return Split(Pairs(name, tokens, _starts(lengths), lengths), texts, references, cut)


def _lengths(sides: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Tokens of the two sides of pairs, </s> included, int32 [N, 2]."""
    return np.array([[len(ids) + 1 for ids in side] for side in sides], np.int32).T.reshape(-1, 2)


def _joined(sides: Sequence[Sequence[np.ndarray]], tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of pairs one after the other, </s> after each side."""
    end = np.array([EOS], np.int32)
    parts = [part for pair in zip(*sides, strict=True) for ids in pair for part in (ids, end)]
    # The empty array gives concatenate something to join where no pairs are left.
    return np.concatenate([end[:0], *parts]).astype(dtype_for(tokenizer.vocab_size))


def _starts(lengths: np.ndarray) -> np.ndarray:
    sizes = lengths.sum(axis=1, dtype=np.int64)
    return np.cumsum(sizes) - sizes


def _tokenized(
    source: Source, config: Config, tokenizer: Tokenizer, cache: Path, progress: bool
) -> tuple[Pairs, Facts]:
    """The pairs of one source, from the cache or tokenized now, and their manifest."""
    data, threads = config.data, config.impl.threads

    def write(reader: Reader, out: IO[bytes]) -> Counts:
        """Writes all tokens, then all lengths."""
        counts: Counts = Counter()
        bar, size = Bar(f"tokenizing {source.name}", "pairs", progress), reader.size_hint()
        kept = [np.empty((0, 2), np.int32)]
        pairs = reader.pairs()
        while block := list(itertools.islice(pairs, _BLOCK)):
            full = [pair for pair in block if pair[0].strip() and pair[1].strip()]
            columns = [[pair[side] for pair in full] for side in (0, 1)]
            sides = [tokenizer.encode_arrays(column, threads) for column in columns]
            lengths = _lengths(sides)
            longer, shorter = lengths.max(axis=1), lengths.min(axis=1)
            fits = longer <= data.length
            # A max_ratio of 0 allows any ratio.
            alike = (longer <= data.max_ratio * np.maximum(shorter, _SHORT)) | (data.max_ratio == 0)
            good = np.flatnonzero(fits & alike)
            out.write(_joined([[side[row] for row in good] for side in sides], tokenizer).data)
            kept.append(lengths[good])
            tokens = lengths[good].sum(axis=0)
            counts.update(
                pairs=len(block),
                kept=len(good),
                empty=len(block) - len(full),
                too_long=int(np.sum(~fits)),
                unequal=int(np.sum(fits & ~alike)),
                source_tokens=int(tokens[0]),
                target_tokens=int(tokens[1]),
                characters=sum(len(a) + len(b) for a, b in block),
            )
            bar.reach(counts["pairs"], counts["characters"] / size if size else None)
        out.write(np.concatenate(kept).data)
        bar.finish(counts["pairs"])
        if not counts["kept"]:
            why = f"{counts['empty']} empty, {counts['too_long']} longer than data.length="
            why += f"{data.length}, {counts['unequal']} beyond data.max_ratio"
            what = f"none of its {counts['pairs']} pairs can be used ({why})"
            raise InputError(f"{source.spec}: {what}")
        return counts

    path, facts = cached_tokens(
        "pairs", source, config, tokenizer, cache, write, max_ratio=data.max_ratio
    )
    total = facts["source_tokens"] + facts["target_tokens"]
    tokens = np.memmap(path, facts["dtype"], "r", shape=(total,))
    lengths = np.fromfile(path, np.int32, offset=tokens.nbytes).reshape(-1, 2)
    return Pairs(source.name, tokens, _starts(lengths), lengths, source.weight), facts
