"""Labelled texts `<s> a </s>` and pairs `<s> a </s> b </s>` (or as a tokenizer frames them)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean
from tlc_jax.data.order import subsample
from tlc_jax.data.sources import Examples, Source, open_source, parse_sources
from tlc_jax.data.tokenizer import PAD, Tokenizer, dtype_for, padded

_BLOCK = 8192  # texts tokenized at once
_WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass
class Labelled:
    """Examples of one source, of unequal lengths.

    Attributes:
      name: name of the source.
      tokens: all examples one after the other, uint16 or uint32 [total].
      starts: int64 [N], where each example begins in `tokens`.
      lengths: int64 [N], tokens of each example.
      labels: int32 [N], places in label_names; -1: unlabelled.
      ids: int64 [N], numbers of the examples in their source.
      label_names: the classes.
      length: largest number of tokens of an example.
      padding: id after the ends of rows.
      weight: share in a mixture; 0: in proportion to its size.
      truncated: number of examples that were cut to `length`.
    """

    name: str
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    label_names: tuple[str, ...]
    length: int
    padding: int = PAD
    weight: float = 0.0
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Examples as int32 [len(rows), width], padding after their ends."""
        return padded(self.tokens, self.starts[rows], self.lengths[rows], width, self.padding)

    def batch(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Examples as "tokens", int32 [len(index), W], and "labels", int32 [len(index)].

        W is the narrowest width that holds them.
        """
        width = narrowest(self.lengths[index].max(), bucket_widths(self.length))
        return {"tokens": self.padded(index, width), "labels": self.labels[index]}

    def take_rows(self, rows: np.ndarray) -> Labelled:
        """Some of the examples, in the order of `rows`. No token is read."""
        columns = {
            name: getattr(self, name)[rows] for name in ("starts", "lengths", "labels", "ids")
        }
        return dataclasses.replace(self, **columns)


def bucket_widths(length: int) -> tuple[int, ...]:
    """The widths of batches of examples of up to `length` tokens, ascending; the last is `length`.

    They are few, because a step is compiled for each.
    """
    return (*(width for width in _WIDTHS if width < length), length)


def narrowest(longest: int, widths: Sequence[int]) -> int:
    """The first of ascending widths that holds `longest` tokens."""
    return next(width for width in widths if width >= longest)


def load_labelled(
    spec: str, config: Config, tokenizer: Tokenizer, label_names: tuple[str, ...] | None
) -> list[Labelled]:
    """Reads and tokenizes sources.

    Args:
      spec: comma-joined sources; data.subsample applies if they are the training sources.
      config: `data` and `impl.threads` matter.
      tokenizer: gives the ids.
      label_names: classes in the model's order; None: the order that TFDS declares, else sorted.

    Returns:
      One set of examples per source.

    Raises:
      InputError: the data cannot be read, a label is unknown, or the data has no labels and
        `label_names` is None.
    """
    data = config.data
    read = [(source, open_source(source, data).examples()) for source in parse_sources(spec)]
    names = label_names if label_names is not None else _label_names(spec, read)
    parts = [encode_examples(*each, config, tokenizer, names) for each in read]
    if spec != data.train:
        return parts
    return subsample(parts, data.subsample, data.subsample_seed)


def encode_examples(
    source: Source, examples: Examples, config: Config, tokenizer: Tokenizer, names: Sequence[str]
) -> Labelled:
    """Tokenizes examples.

    Args:
      source: their source.
      examples: texts or pairs, and their labels. The longer text of a pair is cut first until both
        fit into data.length.
      config: `data.length` and `impl.threads` matter.
      tokenizer: gives the ids.
      names: classes in the model's order.
    """
    length, threads = config.data.length, config.impl.threads
    special = tokenizer.special
    # A single text is treated as a pair with an empty second text and nothing between the two.
    texts, seconds = examples.texts, examples.pairs
    ids = ([special.start], () if seconds is None else special.between, [special.end])
    start, between, end = (np.array(part, np.int32) for part in ids)
    limit = length - len(between) - 2
    parts: list[np.ndarray] = []
    sizes: list[int] = []
    truncated = 0
    for first in range(0, len(examples), _BLOCK):
        block = slice(first, first + _BLOCK)
        firsts = tokenizer.encode_arrays(texts[block], threads)
        others = tokenizer.encode_arrays(seconds[block], threads) if seconds else []
        for a, b in itertools.zip_longest(firsts, others, fillvalue=between[:0]):
            keep_a, keep_b = fitting(len(a), len(b), limit)
            truncated += keep_a + keep_b < len(a) + len(b)
            parts += [start, a[:keep_a], between, b[:keep_b], end]
            sizes.append(keep_a + keep_b + length - limit)
    lengths = np.array(sizes, np.int64)
    return Labelled(
        name=source.name,
        tokens=np.concatenate(parts).astype(dtype_for(tokenizer.vocab_size)),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        labels=_label_numbers(source, examples, names),
        ids=np.array(examples.ids, np.int64),
        label_names=tuple(names),
        length=length,
        padding=special.padding,
        weight=source.weight,
        truncated=truncated,
    )


def fitting(a: int, b: int, limit: int) -> tuple[int, int]:
    """The tokens to keep of two texts of `a` and `b` tokens, of at most `limit` in all.

    The longer text is cut first, then both in turn.
    """
    keep_a = min(a, max(limit - b, limit - limit // 2))
    return keep_a, min(b, limit - keep_a)


def _label_names(spec: str, read: Sequence[tuple[Source, Examples]]) -> tuple[str, ...]:
    for _, examples in read:
        if examples.label_names:
            return examples.label_names
    found = {label for _, examples in read for label in examples.labels or () if label is not None}
    if not found:
        raise InputError(f"{spec} has no labels: name their column in data.label")
    if len(found) == 1:
        raise InputError(f"{spec} has the single label {found.pop()!r}: there is nothing to learn")
    # As numbers, 10 comes after 9.
    numbers = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=int if numbers else str))


def _label_numbers(source: Source, examples: Examples, names: Sequence[str]) -> np.ndarray:
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    numbers[None] = -1
    result = np.full(len(examples), -1, np.int32)
    for row, label in enumerate(examples.labels or ()):
        if label not in numbers:
            hint = f"({source.spec}){did_you_mean(str(label), names)}"
            raise InputError(f"{examples.place(row)}: unknown label {label!r} {hint}")
        result[row] = numbers[label]
    return result
