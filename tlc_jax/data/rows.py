"""Text to fixed-length rows of tokens, as a stream: memory stays bounded whatever the size of the text.

The stream is the tokens of every document, each closed by </s>; a row is <s> and the next length - 1 tokens of the
stream, whatever documents they come from (RoBERTa's full sentences). What does not fill the last row is left out.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import numpy as np

from tlc_jax.data.tokenizer import Tokenizer

_CHUNK = 1 << 19  # characters tokenised at once


@dataclasses.dataclass
class Counts:
    """What has been packed so far: rows, tokens of the stream, documents, and characters of text."""

    rows: int = 0
    tokens: int = 0
    documents: int = 0
    characters: int = 0


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def pack(
    lines: Iterable[str], tokenizer: Tokenizer, length: int, out: IO[bytes], threads: int = 0
) -> Iterator[Counts]:
    """Writes the rows of `lines` ("" ends a document) to `out`, yielding the counts after each chunk.

    Args:
      lines: text; read in the calling thread while others tokenise.
      tokenizer: gives the ids.
      length: tokens per row.
      out: binary file; rows [n, length] of `dtype_for(vocab_size)`, in order.
      threads: tokenising threads; 0: one per core.
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
    """Each chunk with the ids of its lines, in order, several chunks being tokenised at the same time."""
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
