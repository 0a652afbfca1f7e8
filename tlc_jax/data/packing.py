"""Pretraining data: a tokenizer and packed rows, made once and kept in a cache directory.

Packing is a stream, so memory stays bounded whatever the size of the text. The stream is the tokens
of every document, each closed by </s>. A row is <s> and the next length - 1 tokens of the stream,
whatever documents they come from (RoBERTa's full sentences). An incomplete last row is left out.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.data import sources as sources_lib
from tlc_jax.data.cache import Facts, NotMade, cached
from tlc_jax.data.order import held_out_rows, subset
from tlc_jax.data.progress import Bar
from tlc_jax.data.sentencepiece_tokenizer import sample_lines, train_tokenizer
from tlc_jax.data.sources import Source
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import dtype_for

_FORMAT = 1  # raise it when the same text would be packed or tokenised differently


@dataclasses.dataclass
class Packed:
    """Rows of tokens of one source.

    Attributes:
      tokens: uint16 or uint32 [rows on file, length], usually a memory map. Each row starts with <s>.
      name: of the source.
      weight: share in a mixture; 0: by size.
      rows: the rows of `tokens` that belong to this set, int64, ascending; None: all.
    """

    tokens: np.ndarray
    name: str
    weight: float = 0.0
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens) if self.rows is None else len(self.rows)

    @property
    def length(self) -> int:
        """Tokens per row."""
        return int(self.tokens.shape[1])

    def take(self, index: np.ndarray) -> np.ndarray:
        """Rows by their place in this set: int32 [len(index), length]."""
        return self.tokens[index if self.rows is None else self.rows[index]].astype(np.int32)

    def select(self, index: np.ndarray, name: str | None = None) -> Packed:
        """The set of some of these rows."""
        chosen = np.sort(index if self.rows is None else self.rows[index])
        return Packed(self.tokens, name or self.name, self.weight, chosen)


@dataclasses.dataclass
class PretrainingData:
    """What a pretraining run reads.

    Attributes:
      tokenizer: trained or loaded.
      train: one set of rows per source.
      valid: sets of rows to evaluate on, by name.
      directory: the cache.
      facts: of each packed source, by "train/NAME" or "valid/NAME": rows, tokens, bytes, seconds, cached, ...
      tokenizer_path: its file, where it was not given.
    """

    tokenizer: Tokenizer
    train: tuple[Packed, ...]
    valid: dict[str, Packed]
    directory: Path
    facts: dict[str, Facts] = dataclasses.field(default_factory=dict)
    tokenizer_path: Path = Path()


def prepare(
    config: Config,
    cache: Path,
    progress: bool = True,
    make: bool = True,
    tokenizer: Tokenizer | None = None,
) -> PretrainingData:
    """Trains or loads the tokenizer and packs every source, each once; what the cache holds already is reused.

    Args:
      config: `data`, `tokenizer`, `seed` (for data.subsample) and `impl.threads` matter.
      cache: directory, made where it does not exist. Processes may share it.
      progress: show what goes on, on stderr.
      make: what the cache does not hold; otherwise it has to be there.
      tokenizer: of a model that is trained already; None: as `config.tokenizer` says.

    Raises:
      InputError: a source cannot be read, has too little text, or the cache cannot be written.
      NotMade: something is not there, and nothing is to be made.
    """
    data = config.data
    train_sources = sources_lib.check_sources(data.train, "data.train", data)
    valid_sources = (
        sources_lib.check_sources(data.valid, "data.valid", data) if data.valid.strip() else ()
    )
    cache = Path(cache).expanduser()
    path = Path()
    if tokenizer is None:
        tokenizer, path = tokenizer_for(config, train_sources, cache, progress, make)
    result = PretrainingData(tokenizer, (), {}, cache, {}, path)
    packed = []
    for split, sources in (("train", train_sources), ("valid", valid_sources)):
        for source in sources:
            part, facts = _packed(source, config, tokenizer, cache, progress, make)
            result.facts[f"{split}/{source.name}"] = facts
            packed.append((split, part))
    train = [part for split, part in packed if split == "train"]
    result.valid = {part.name: part for split, part in packed if split == "valid"}
    if not valid_sources:
        train, result.valid = _hold_out(train, data.holdout)
    result.train = tuple(_subsample(part, data.subsample, config.seed) for part in train)
    return result


def rows_prepared(config: Config, cache: Path) -> int | None:
    """The rows of an epoch, if `prepare` has nothing left to make in this cache; None otherwise. Makes nothing."""
    try:
        return sum(len(part) for part in prepare(config, cache, progress=False, make=False).train)
    except (InputError, NotMade):
        return None


def tokenizer_for(
    config: Config, sources: tuple[Source, ...], cache: Path, progress: bool, make: bool = True
) -> tuple[Tokenizer, Path]:
    """The tokenizer of tokenizer.path, or one trained on the sources and kept in the cache."""
    settings = config.tokenizer
    if settings.path:
        return Tokenizer.load(settings.path), Path(settings.path).expanduser()
    identity = {
        "format": _FORMAT,
        "sources": [
            [sources_lib.fingerprint(source, config.data), source.weight] for source in sources
        ],
        "vocab_size": settings.vocab_size,
        "train_bytes": settings.train_bytes,
    }
    target = cache / f"tokenizer-{digest(identity)}.model"

    def build(part: Path) -> Facts:
        start = time.monotonic()
        if progress:
            print(
                f"training a tokenizer of {settings.vocab_size} pieces", file=sys.stderr, flush=True
            )
        tokenizer = _train(sources, config)
        tokenizer.save(part)
        return {"hash": tokenizer.hash, "seconds": time.monotonic() - start}

    manifest, _ = cached(target, identity, build if make else None)
    tokenizer = Tokenizer.load(target)
    if tokenizer.hash != manifest["hash"]:
        raise InputError(f"{target} was changed by hand: delete it, and it will be trained again")
    return tokenizer, target


def _train(sources: tuple[Source, ...], config: Config) -> Tokenizer:
    """Trains on a sample of the mixture that the model will be trained on."""
    total = config.tokenizer.train_bytes
    streams = [sources_lib.lines(source, config.data) for source in sources]
    if any(source.weight for source in sources):
        weights = sum(source.weight for source in sources)
        shares = [int(total * source.weight / weights) for source in sources]
        streams = [
            iter(sample_lines(stream, share)) for stream, share in zip(streams, shares, strict=True)
        ]
    return train_tokenizer(
        itertools.chain.from_iterable(streams), config.tokenizer.vocab_size, total
    )


def _packed(
    source: Source, config: Config, tokenizer: Tokenizer, cache: Path, progress: bool, make: bool
) -> tuple[Packed, dict[str, Any]]:
    """The rows of one source, from the cache or packed now."""
    length, data = config.data.length, config.data
    dtype = dtype_for(tokenizer.vocab_size)
    place = [
        source.kind,
        source.location,
        source.split,
        data.text,
        data.pair,
        length,
        tokenizer.hash,
    ]
    target = cache / f"rows-{source.name}-{digest(place)}.bin"
    identity = {
        "format": _FORMAT,
        "fingerprint": sources_lib.fingerprint(source, data),
        "tokenizer_hash": tokenizer.hash,
        "length": length,
        "dtype": dtype.name,
    }

    def build(part: Path) -> Facts:
        facts = _pack_to(part, source, config, tokenizer, progress)
        if sources_lib.fingerprint(source, data) != identity["fingerprint"]:
            raise InputError(
                f"{source.spec} changed while it was read: run again when it is finished"
            )
        return facts

    manifest, was_there = cached(target, identity, build if make else None)
    tokens = np.memmap(target, dtype, "r", shape=(manifest["rows"], length))
    return Packed(tokens, source.name, source.weight), {**manifest, "cached": was_there}


def _pack_to(
    part: Path, source: Source, config: Config, tokenizer: Tokenizer, progress: bool
) -> Facts:
    start = time.monotonic()
    bar = Bar(f"packing {source.name}", "tokens", show=progress)
    size = sources_lib.size_hint(source, config.data)
    counts = Counts()
    with part.open("wb") as out:
        lines = sources_lib.lines(source, config.data)
        for counts in pack(lines, tokenizer, config.data.length, out, config.impl.threads):
            bar.update(counts.characters / size if size else None, counts.tokens)
    bar.close(counts.tokens)
    if not counts.tokens:
        raise InputError(f"{source.spec} has no text: all its lines are blank")
    if not counts.rows:
        raise InputError(
            f"{source.spec} has {counts.tokens} tokens, too few for one row of data.length={config.data.length}: "
            "add text or lower data.length"
        )
    return {"spec": source.spec, **dataclasses.asdict(counts), "seconds": time.monotonic() - start}


def _hold_out(train: list[Packed], fraction: float) -> tuple[list[Packed], dict[str, Packed]]:
    """Takes random rows of every source out of training."""
    kept, held = [], {}
    for part in train:
        name = "heldout" if len(train) == 1 else f"heldout_{part.name}"
        stay, leave = held_out_rows(len(part), fraction, part.name)
        kept.append(part.select(stay))
        held[name] = part.select(leave, name)
    return kept, held


def _subsample(part: Packed, fraction: float, seed: int) -> Packed:
    return part if fraction >= 1 else part.select(subset(len(part), fraction, seed))


def digest(value: Any) -> str:
    """A short hash of plain JSON values, for the names of files in the cache."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


_CHUNK = 1 << 19  # characters tokenized at once


@dataclasses.dataclass
class Counts:
    """What has been packed so far: rows, tokens of the stream, documents, and characters of text."""

    rows: int = 0
    tokens: int = 0
    documents: int = 0
    characters: int = 0


def pack(
    lines: Iterable[str], tokenizer: Tokenizer, length: int, out: IO[bytes], threads: int = 0
) -> Iterator[Counts]:
    """Writes the rows of `lines` ("" ends a document) to `out`, yielding the counts after each chunk.

    Args:
      lines: text; read in the calling thread while others tokenize.
      tokenizer: gives the ids.
      length: tokens per row.
      out: binary file; rows [n, length] of `dtype_for(vocab_size)`, in order.
      threads: tokenizing threads; 0: one per core.
    """
    dtype = dtype_for(tokenizer.vocab_size)
    counts = Counts()
    rest = np.empty(0, np.int32)
    for chunk, tokens in _encoded(_chunks(lines), tokenizer, threads or os.cpu_count() or 1):
        stream = np.concatenate([rest, *tokens])
        full = len(stream) // (length - 1)
        rows = np.empty((full, length), dtype)
        rows[:, 0] = tokenizer.special.start
        rows[:, 1:] = stream[: full * (length - 1)].reshape(full, length - 1)
        out.write(rows.data)
        counts.rows += full
        counts.tokens += len(stream) - len(rest)
        counts.documents += chunk.count("")
        counts.characters += sum(map(len, chunk))
        rest = stream[full * (length - 1) :]
        yield counts


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lists of lines worth a call of the tokenizer; one "" after every document that has text."""
    chunk: list[str] = []
    size, open_document = 0, False
    for line in lines:
        if not line and not open_document:
            continue
        open_document = bool(line)
        chunk.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if open_document:
        chunk.append("")
    if chunk:
        yield chunk


def _encoded(
    chunks: Iterable[list[str]], tokenizer: Tokenizer, threads: int
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Each chunk with the ids of its lines, in order, several chunks being tokenized at the same time."""
    end = np.array([tokenizer.special.end], np.int32)

    def encode(chunk: list[str]) -> list[np.ndarray]:
        ids = tokenizer.encode_arrays(chunk, threads=1)
        return [tokens if line else end for line, tokens in zip(chunk, ids, strict=True)]

    pending: collections.deque[tuple[list[str], Future[list[np.ndarray]]]] = collections.deque()
    with ThreadPoolExecutor(threads, "tokenize") as pool:
        for chunk in chunks:
            pending.append((chunk, pool.submit(encode, chunk)))
            if len(pending) > 2 * threads:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()
