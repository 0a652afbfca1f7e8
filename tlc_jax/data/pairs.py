"""Sentence pairs for translation, tokenised once into a cache, and the splits that translations are scored on.

A side of a pair is its tokens and </s>. Training leaves out pairs that are empty, too long or of absurdly unequal
lengths, and counts them; in validation every sentence counts, and what is too long is cut.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.data import sources as sources_lib
from tlc_jax.data.cache import Facts, cached
from tlc_jax.data.order import held_out_rows, subset
from tlc_jax.data.packing import digest, tokenizer_for
from tlc_jax.data.progress import Bar
from tlc_jax.data.sources import Source
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import EOS, OURS, PAD, dtype_for

_FORMAT = 1  # raise it when the same pairs would be tokenised or chosen differently
_BLOCK = 8192  # pairs tokenised at once
_SHORT = 5  # tokens; shorter sides count as this long where lengths are compared


@dataclasses.dataclass
class Pairs:
    """Tokenised pairs of one source, ragged.

    Attributes:
      name: of the source.
      tokens: uint16 or uint32 [total]: source and target of the first pair, of the second, ...; may be a memory map.
      starts: int64 [N], where each pair begins in `tokens`.
      lengths: int32 [N, 2], tokens of source and target, </s> included.
      weight: share in a mixture; 0: by size.
    """

    name: str
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    weight: float = 0.0

    def __len__(self) -> int:
        return len(self.lengths)

    def fill(
        self, source: np.ndarray, target: np.ndarray, at: np.ndarray, rows: np.ndarray
    ) -> None:
        """Writes pairs `rows` to the rows `at` of source [*, S] and target [*, T], <pad> after their ends."""
        starts = self.starts[rows]
        for side, out in enumerate((source, target)):
            columns = np.arange(out.shape[1])
            lengths = self.lengths[rows, side]
            places = np.minimum(starts[:, None] + columns, len(self.tokens) - 1)
            out[at] = np.where(columns < lengths[:, None], self.tokens[places], PAD)
            starts = starts + lengths

    def side(self, row: int, side: int) -> np.ndarray:
        """The tokens of one side (0: source, 1: target) of a pair, without </s>."""
        start = int(self.starts[row]) + (int(self.lengths[row, 0]) if side else 0)
        return self.tokens[start : start + int(self.lengths[row, side]) - 1]

    def take_rows(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return dataclasses.replace(self, starts=self.starts[rows], lengths=self.lengths[rows])


@dataclasses.dataclass
class Split:
    """Pairs to evaluate on, each of them.

    Attributes:
      pairs: as tokens, cut to the model's length.
      texts: the source sentences as they were.
      references: their translations as they were.
      cut: sentences, of either side, that were too long for the model.
    """

    pairs: Pairs
    texts: list[str]
    references: list[str]
    cut: int = 0

    @property
    def name(self) -> str:
        return self.pairs.name


@dataclasses.dataclass
class TranslationData:
    """What training a translator reads.

    Attributes:
      tokenizer: joint, of both languages.
      train: one set of pairs per source.
      valid: splits to evaluate on.
      facts: of each training source, by name: pairs kept and left out (and why), tokens, seconds, cached, ...
    """

    tokenizer: Tokenizer
    train: list[Pairs]
    valid: list[Split]
    facts: dict[str, Facts]


def prepare_pairs(config: Config, cache: Path, progress: bool = True) -> TranslationData:
    """Trains or loads the joint tokenizer and tokenises every training source, each once.

    Args:
      config: `data`, `tokenizer`, `seed` (for data.subsample) and `impl.threads` matter.
      cache: directory, made where it does not exist. Processes may share it.
      progress: show what goes on, on stderr.

    Raises:
      InputError: a source cannot be read or has no pairs, or the cache cannot be written.
    """
    data = config.data
    sources = sources_lib.check_sources(data.train, "data.train", data)
    cache = Path(cache).expanduser()
    tokenizer, path = tokenizer_for(config, sources, cache, progress)
    if tokenizer.special != OURS:
        raise InputError(
            f"{path} has special pieces of its own: translation needs a SentencePiece tokenizer of tlc's"
        )
    train, facts = [], {}
    for source in sources:
        pairs, facts[source.name] = _tokenised(source, config, tokenizer, cache, progress)
        train.append(pairs)
    if data.valid.strip():
        valid = load_splits(config, tokenizer)
    else:
        train, valid = _hold_out(train, data.holdout, tokenizer)
    if data.subsample < 1:
        train = [
            pairs.take_rows(subset(len(pairs), data.subsample, config.seed)) for pairs in train
        ]
    return TranslationData(tokenizer, train, valid, facts)


def load_splits(config: Config, tokenizer: Tokenizer) -> list[Split]:
    """The splits of data.valid, every pair of them."""
    splits = []
    for source in sources_lib.check_sources(config.data.valid, "data.valid", config.data):
        texts, references = [], []
        for text, reference in sources_lib.pairs(source, config.data):
            texts.append(text)
            references.append(reference)
        if not texts:
            raise InputError(f"{source.spec} has no pairs")
        splits.append(
            encode_split(
                source.name, texts, references, config.data.length, tokenizer, config.impl.threads
            )
        )
    return splits


def encode_split(
    name: str,
    texts: list[str],
    references: list[str],
    length: int,
    tokenizer: Tokenizer,
    threads: int = 0,
) -> Split:
    """Tokenises sentences and their translations, cutting either to `length` tokens, </s> included."""
    sides = [tokenizer.encode_arrays(column, threads) for column in (texts, references)]
    kept = [[ids[: length - 1] for ids in side] for side in sides]
    cut = sum(len(ids) >= length for side in sides for ids in side)
    lengths = np.array([[len(ids) + 1 for ids in side] for side in kept], np.int32).T.reshape(-1, 2)
    end = np.array([EOS], np.int32)
    parts = [part for pair in zip(*kept, strict=True) for ids in pair for part in (ids, end)]
    tokens = np.concatenate([end[:0], *parts]).astype(dtype_for(tokenizer.vocab_size))
    return Split(Pairs(name, tokens, _starts(lengths), lengths), texts, references, cut)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths.sum(axis=1, dtype=np.int64))])[:-1].astype(
        np.int64
    )


def _hold_out(
    train: list[Pairs], fraction: float, tokenizer: Tokenizer
) -> tuple[list[Pairs], list[Split]]:
    """Takes random pairs of every source out of training, the same for every seed."""
    kept, held = [], []
    for pairs in train:
        stay, leave = held_out_rows(len(pairs), fraction, pairs.name)
        kept.append(pairs.take_rows(stay))
        name = "heldout" if len(train) == 1 else f"heldout_{pairs.name}"
        chosen = dataclasses.replace(pairs.take_rows(leave), name=name)
        # The tokenizer loses nothing, so the texts come back as they were.
        texts, references = (
            [tokenizer.decode(chosen.side(row, side).tolist()) for row in range(len(chosen))]
            for side in (0, 1)
        )
        held.append(Split(chosen, texts, references))
    return kept, held


# Training pairs, in the cache -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Counts:
    """Pairs read, kept, and left out by reason; tokens of what is kept, </s> included; characters read."""

    pairs: int = 0
    kept: int = 0
    empty: int = 0
    too_long: int = 0
    unequal: int = 0
    source_tokens: int = 0
    target_tokens: int = 0
    characters: int = 0


def _tokenised(
    source: Source, config: Config, tokenizer: Tokenizer, cache: Path, progress: bool
) -> tuple[Pairs, Facts]:
    """The pairs of one source, from the cache or tokenised now. The file holds the tokens, then the lengths."""
    data = config.data
    dtype = dtype_for(tokenizer.vocab_size)
    place = [
        source.kind,
        source.location,
        source.split,
        data.text,
        data.pair,
        data.length,
        tokenizer.hash,
    ]
    target = cache / f"pairs-{source.name}-{digest(place)}.bin"
    identity = {
        "format": _FORMAT,
        "fingerprint": sources_lib.fingerprint(source, data),
        "tokenizer_hash": tokenizer.hash,
        "length": data.length,
        "max_ratio": data.max_ratio,
        "dtype": dtype.name,
    }

    def build(part: Path) -> Facts:
        start = time.monotonic()
        with part.open("wb") as out:
            counts = _write(out, source, config, tokenizer, progress)
        if not counts.kept:
            raise InputError(
                f"{source.spec}: none of its {counts.pairs} pairs can be used ({counts.empty} empty, "
                f"{counts.too_long} longer than data.length={data.length}, {counts.unequal} beyond data.max_ratio)"
            )
        if sources_lib.fingerprint(source, data) != identity["fingerprint"]:
            raise InputError(
                f"{source.spec} changed while it was read: run again when it is finished"
            )
        return {
            "spec": source.spec,
            **dataclasses.asdict(counts),
            "seconds": time.monotonic() - start,
        }

    manifest, was_there = cached(target, identity, build)
    total = manifest["source_tokens"] + manifest["target_tokens"]
    tokens = np.memmap(target, dtype, "r", shape=(total,))
    lengths = np.fromfile(target, np.int32, offset=total * dtype.itemsize).reshape(-1, 2)
    return Pairs(source.name, tokens, _starts(lengths), lengths, source.weight), {
        **manifest,
        "cached": was_there,
    }


def _write(
    out: IO[bytes], source: Source, config: Config, tokenizer: Tokenizer, progress: bool
) -> _Counts:
    data, counts = config.data, _Counts()
    dtype = dtype_for(tokenizer.vocab_size)
    bar = Bar(f"tokenising {source.name}", "pairs", show=progress)
    size = sources_lib.size_hint(source, data)
    all_lengths = []
    for block in _blocks(sources_lib.pairs(source, data)):
        full = [(a, b) for a, b in block if a.strip() and b.strip()]
        columns = [
            tokenizer.encode_arrays([pair[side] for pair in full], config.impl.threads)
            for side in (0, 1)
        ]
        lengths = np.array(
            [[len(ids) + 1 for ids in column] for column in columns], np.int32
        ).T.reshape(-1, 2)
        longer, shorter = lengths.max(axis=1), lengths.min(axis=1)
        fits = longer <= data.length
        alike = (longer <= data.max_ratio * np.maximum(shorter, _SHORT)) | (data.max_ratio == 0)
        good = np.flatnonzero(fits & alike)
        parts = [part for row in good for column in columns for part in (column[row], [EOS])]
        out.write(np.concatenate([np.empty(0, np.int32), *parts]).astype(dtype).data)
        all_lengths.append(lengths[good])
        counts.pairs += len(block)
        counts.kept += len(good)
        counts.empty += len(block) - len(full)
        counts.too_long += int(np.sum(~fits))
        counts.unequal += int(np.sum(fits & ~alike))
        counts.source_tokens += int(lengths[good, 0].sum())
        counts.target_tokens += int(lengths[good, 1].sum())
        counts.characters += sum(len(a) + len(b) for a, b in block)
        bar.update(counts.characters / size if size else None, counts.pairs)
    out.write(np.concatenate([np.empty((0, 2), np.int32), *all_lengths]).data)
    bar.close(counts.pairs)
    return counts


def _blocks(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    iterator = iter(pairs)
    while block := list(itertools.islice(iterator, _BLOCK)):
        yield block
