"""Pretraining data: a tokenizer and packed rows, made once and kept in a cache folder.

Packing is a stream, so memory stays bounded for texts of any size. The stream holds the tokens of
every document, each closed by </s>. A row is <s> and the next length - 1 tokens of the stream, even
across documents (RoBERTa's full sentences). An incomplete last row is left out. Whole documents are
held out, so no row to evaluate on continues one to train on.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of
from tlc_jax.data.cache import FORMAT, Facts, NotMade, cached, cached_tokens, digest
from tlc_jax.data.order import HELD_OUT, held_out_name, permutation, subsample
from tlc_jax.data.progress import Bar
from tlc_jax.data.sources import Reader, Source, check_sources, open_source
from tlc_jax.data.tokenizer import Tokenizer, dtype_for

Counts = Counter[str]
_CHUNK = 1 << 19  # characters tokenized at once
_CHARACTERS = 8  # more than a token has on average


@dataclasses.dataclass
class Packed:
    """Rows of tokens from one source.

    Attributes:
      tokens: uint16 or uint32 [rows on file, length], usually a memory map. Each row starts with
        <s>.
      name: name of the source.
      weight: share in a mixture; 0: in proportion to its size.
      rows: rows of `tokens` that belong to this set, int64, ascending; None: all of them.
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

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int [N], all equal."""
        return np.full(len(self), self.length)

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows at these places of the set, int32 [len(index), length]."""
        return self.tokens[self._on_file(index)].astype(np.int32)

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at these places of the set, as "tokens"."""
        return {"tokens": self.take(index)}

    def take_rows(self, rows: np.ndarray) -> Packed:
        """The set of some of these rows. No token is read."""
        return dataclasses.replace(self, rows=self._on_file(rows))

    def _on_file(self, index: np.ndarray) -> np.ndarray:
        return index if self.rows is None else self.rows[index]


@dataclasses.dataclass
class PretrainingData:
    """All that a pretraining run reads.

    Attributes:
      tokenizer: a trained or loaded tokenizer.
      train: one set of rows per source.
      valid: sets of rows to evaluate on, by name.
      test: sets of rows to test on, by name.
      facts: manifest of each packed set, by "train/NAME", "valid/NAME" or "test/NAME".
      tokenizer_path: file of the tokenizer; empty where the caller gave one.
    """

    tokenizer: Tokenizer
    train: tuple[Packed, ...]
    valid: dict[str, Packed]
    test: dict[str, Packed]
    facts: dict[str, Facts]
    tokenizer_path: Path


def prepare(
    config: Config,
    cache: Path,
    progress: bool = True,
    make: bool = True,
    tokenizer: Tokenizer | None = None,
) -> PretrainingData:
    """Trains or loads the tokenizer and packs every source, unless the cache holds them already.

    Args:
      config: `data`, `tokenizer` and `impl.threads` matter.
      cache: folder, made where it does not exist. Processes may share it.
      progress: show progress on stderr.
      make: make what the cache lacks.
      tokenizer: tokenizer of a trained model; None: the one that `config.tokenizer` names.

    Raises:
      InputError: a source cannot be read or has too little text, or the cache cannot be written.
      NotMade: the cache lacks something, and `make` is False.
    """
    data = config.data
    sources = {
        split: check_sources(spec, f"data.{split}", data)
        if spec.strip() or split == "train"
        else ()
        for split, spec in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
    path = Path()
    if tokenizer is None:
        tokenizer, path = tokenizer_for(config, sources["train"], cache, progress, make)
    facts: dict[str, Facts] = {}
    sets: dict[str, list[Packed]] = {split: [] for split in sources}
    for split, named in sources.items():
        # Without data.valid, the documents to train on and those held out are packed apart.
        parts = (False, True) if split == "train" and not sources["valid"] else (None,)
        for source, held in itertools.product(named, parts):
            part, found = _packed(source, held, config, tokenizer, cache, progress, make)
            if held:
                part.name = held_out_name(source.name, len(named) > 1)
            into = "valid" if held else split
            sets[into].append(part)
            facts[f"{into}/{part.name}"] = found
    train, valid, test = sets.values()
    train = subsample(train, data.subsample, data.subsample_seed)
    valid_by_name, test_by_name = ({part.name: part for part in some} for some in (valid, test))
    return PretrainingData(tokenizer, tuple(train), valid_by_name, test_by_name, facts, path)


def rows_prepared(config: Config, cache: Path) -> int | None:
    """The number of training rows, if this cache holds all that `prepare` makes; None otherwise."""
    try:
        return sum(len(part) for part in prepare(config, cache, progress=False, make=False).train)
    except (InputError, NotMade):
        return None


def tokenizer_for(
    config: Config, sources: tuple[Source, ...], cache: Path, progress: bool, make: bool = True
) -> tuple[Tokenizer, Path]:
    """The tokenizer at tokenizer.path, or one trained on the sources and kept in the cache."""
    settings = config.tokenizer
    if settings.path:
        return Tokenizer.load(settings.path), path_of(settings.path)
    readers = [open_source(source, config.data) for source in sources]
    weights = [source.weight for source in sources]
    identity = {
        "format": FORMAT,
        "sources": [[reader.fingerprint(), w] for reader, w in zip(readers, weights, strict=True)],
        "vocab_size": settings.vocab_size,
        "train_bytes": settings.train_bytes,
    }
    target = cache / f"tokenizer-{digest(identity)}.model"

    def build(part: Path) -> Facts:
        # Imported here, because most runs find their tokenizer trained.
        from tlc_jax.data import sentencepiece_tokenizer as sentencepiece

        start = time.monotonic()
        if progress:
            print(f"training a tokenizer of {settings.vocab_size} pieces", file=sys.stderr)
        total = settings.train_bytes
        texts: list[Iterable[str]] = [reader.lines() for reader in readers]
        if any(weights):
            # The sample has the proportions of the mixture that the model will be trained on.
            shares = [int(total * weight / sum(weights)) for weight in weights]
            texts = list(map(sentencepiece.sample_lines, texts, shares))
        lines = itertools.chain.from_iterable(texts)
        tokenizer = sentencepiece.train_tokenizer(lines, settings.vocab_size, total)
        tokenizer.save(part)
        return {"hash": tokenizer.hash, "seconds": time.monotonic() - start}

    target, manifest, _ = cached(target, identity, build if make else None)
    tokenizer = Tokenizer.load(target)
    if tokenizer.hash != manifest["hash"]:
        raise InputError(f"{target} was changed by hand: delete it, and it will be trained again")
    return tokenizer, target


def _packed(
    source: Source,
    held: bool | None,
    config: Config,
    tokenizer: Tokenizer,
    cache: Path,
    progress: bool,
    make: bool,
) -> tuple[Packed, Facts]:
    """The rows of one source, from the cache or packed now, and their manifest.

    Args:
      source: the source.
      held: whether to pack the documents that are held out, or the others; None: all.
      config, tokenizer, cache, progress, make: see `prepare`.
    """
    length, holdout = config.data.length, config.data.holdout

    def write(reader: Reader, out: IO[bytes]) -> Counts:
        bar, size = Bar(f"packing {source.name}", "tokens", progress), reader.size_hint()
        counts: Counts = Counter()
        lines = reader.lines()
        if held is not None:
            chosen = held_out_documents(lines, holdout, _CHARACTERS * length, source.spec)
            lines = documents(reader.lines(), chosen, held)
        for counts in pack(lines, tokenizer, length, out, config.impl.threads):
            bar.reach(counts["tokens"], counts["characters"] / size if size else None)
        bar.finish(counts["tokens"])
        if not counts["tokens"]:
            raise InputError(f"{source.spec} has no text: all its lines are blank")
        if not counts["rows"]:
            what = f"{counts['tokens']} tokens, too few for one row of data.length={length}"
            raise InputError(f"{source.spec} has {what}: add text or lower data.length")
        return counts

    # Runs with other shares held out, or with data.valid, may share the cache.
    prefix = "rows" if held is None else f"{'heldout' if held else 'kept'}{holdout:g}-rows"
    path, facts = cached_tokens(prefix, source, config, tokenizer, cache, write, make)
    tokens = np.memmap(path, facts["dtype"], "r", shape=(facts["rows"], length))
    return Packed(tokens, source.name, source.weight), facts


def held_out_documents(lines: Iterable[str], share: float, least: int, spec: str) -> np.ndarray:
    """Chooses at random the documents to hold out, alike for all seeds: see `order.hold_out`.

    Args:
      lines: text of the source; "" ends a document.
      share: share of the text to hold out, about: documents are whole.
      least: characters to hold out, if half of the text has as many.
      spec: the source, for the error message.

    Returns:
      bool [documents], with both values.

    Raises:
      InputError: there are fewer than two documents.
    """
    texts = itertools.groupby(lines, bool)
    sizes = np.array([sum(map(len, text)) for has_text, text in texts if has_text], np.int64)
    if len(sizes) < 2:
        raise InputError(
            f"{spec} has {len(sizes)} document, of which none can be held out: set data.valid, or "
            "end documents with blank lines"
        )
    order, total = permutation(len(sizes), (HELD_OUT,)), int(sizes.sum())
    wanted = max(share * total, min(least, total / 2))
    # Those before which less than that was held out.
    count = int(np.sum(np.cumsum(sizes[order]) - sizes[order] < wanted))
    held = np.zeros(len(sizes), bool)
    held[order[: min(count, len(sizes) - 1)]] = True
    return held


def documents(lines: Iterable[str], held: np.ndarray, wanted: bool) -> Iterator[str]:
    """The lines of the documents where `held`, bool [documents], is `wanted`; "" ends each."""
    texts = (text for has_text, text in itertools.groupby(lines, bool) if has_text)
    # Not strict: a text that grew since its documents were chosen is refused by its fingerprint.
    for text, is_held in zip(texts, held, strict=False):
        if is_held == wanted:
            yield from text
            yield ""


def pack(
    lines: Iterable[str], tokenizer: Tokenizer, length: int, out: IO[bytes], threads: int = 0
) -> Iterator[Counts]:
    """Writes the rows of `lines` ("" ends a document) to `out`.

    Args:
      lines: text; read in the calling thread while others tokenize.
      tokenizer: gives the ids.
      length: tokens per row.
      out: binary file for rows [n, length] of type `dtype_for(vocab_size)`, in order.
      threads: number of tokenizing threads; 0: one per core.

    Yields:
      What has been packed after each chunk of text, in one object that changes: "rows", "tokens" of
      the stream, "documents" and "characters".
    """
    counts: Counts = Counter()
    rest = np.empty(0, np.int32)
    for chunk, tokens in _encoded(_chunks(lines), tokenizer, threads or os.cpu_count() or 1):
        stream = np.concatenate([rest, tokens])
        full = len(stream) // (length - 1)
        rows = np.empty((full, length), dtype_for(tokenizer.vocab_size))
        rows[:, 0] = tokenizer.special.start
        rows[:, 1:] = stream[: full * (length - 1)].reshape(full, length - 1)
        out.write(rows.data)
        counts["rows"] += full
        counts["tokens"] += len(stream) - len(rest)
        counts["documents"] += chunk.count("")
        counts["characters"] += sum(map(len, chunk))
        rest = stream[full * (length - 1) :]
        yield counts


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lists of about _CHUNK characters of lines; one "" after every document that has text."""
    chunk: list[str] = []
    size = 0
    for has_text, document in itertools.groupby(lines, bool):
        # A last document without a blank line is closed too; several blank lines count as one.
        for line in itertools.chain(document, [""]) if has_text else ():
            chunk.append(line)
            size += len(line)
            if size >= _CHUNK:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _encoded(
    chunks: Iterable[list[str]], tokenizer: Tokenizer, threads: int
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Each chunk with its part of the stream, in order; several chunks are tokenized at once."""
    end = np.array([tokenizer.special.end], np.int32)

    def encode(chunk: list[str]) -> tuple[list[str], np.ndarray]:
        ids = tokenizer.encode_arrays(chunk, threads=1)
        parts = [tokens if line else end for line, tokens in zip(chunk, ids, strict=True)]
        return chunk, np.concatenate(parts)

    pending: deque[Future] = deque()
    with ThreadPoolExecutor(threads, "tokenize") as pool:
        for chunk in chunks:
            pending.append(pool.submit(encode, chunk))
            # Not more than this, or a fast reader would fill the memory with text.
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        yield from (future.result() for future in pending)
