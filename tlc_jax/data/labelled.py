"""Labelled examples as tokens: single texts `<s> a </s>`, pairs `<s> a </s> b </s>` (or as a tokenizer frames them)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tlc_jax import config
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean
from tlc_jax.data import sources as sources_lib
from tlc_jax.data.examples import Examples
from tlc_jax.data.order import held_out_rows, subset
from tlc_jax.data.sources import Source
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import PAD, dtype_for

_BLOCK = 8192  # texts tokenised at once


@dataclasses.dataclass
class Labelled:
    """Examples of one source, ragged.

    Attributes:
      name: of the source.
      tokens: all examples one after the other, uint16 or uint32 [total].
      offsets: int64 [N + 1]; example i is tokens[offsets[i] : offsets[i + 1]].
      labels: int32 [N], places in label_names; -1: unlabelled.
      ids: int64 [N], numbers of the examples in their source.
      label_names: the classes.
      length: tokens that no example exceeds.
      padding: the id that fills rows up.
      weight: share in a mixture; 0: by size.
      truncated: examples that were cut to `length`.
    """

    name: str
    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    label_names: tuple[str, ...]
    length: int
    padding: int = PAD
    weight: float = 0.0
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [N]."""
        return np.diff(self.offsets)

    def fill(self, out: np.ndarray, at: np.ndarray, rows: np.ndarray) -> None:
        """Writes examples `rows` to the rows `at` of `out` [*, W], padding after their ends. None may exceed W."""
        columns = np.arange(out.shape[1])
        starts, lengths = self.offsets[rows], self.lengths[rows]
        places = np.minimum(starts[:, None] + columns, len(self.tokens) - 1)
        out[at] = np.where(columns < lengths[:, None], self.tokens[places], self.padding)

    def take_rows(self, rows: np.ndarray) -> Labelled:
        """Some of the examples, in the order of `rows`."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        parts = [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return dataclasses.replace(
            self,
            tokens=np.concatenate([self.tokens[:0], *parts]),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64),
            labels=self.labels[rows],
            ids=self.ids[rows],
        )


def load_labelled(
    spec: str,
    data: config.Data,
    tokenizer: Tokenizer,
    label_names: tuple[str, ...] | None,
    seed: int,
    threads: int = 0,
) -> list[Labelled]:
    """Reads and tokenises the sources of `spec`, one Labelled each.

    Args:
      spec: sources; if they are the training sources, data.subsample applies.
      data: columns, length, subsample.
      tokenizer: gives the ids.
      label_names: the classes in the order that the model has; None: the order that TFDS declares, else sorted.
      seed: of data.subsample.
      threads: tokenising threads; 0: one per core.

    Raises:
      InputError: the data cannot be read, a label is unknown, or the data has no labels while label_names is None.
    """
    read = [
        (source, sources_lib.examples(source, data)) for source in sources_lib.parse_sources(spec)
    ]
    names = (
        label_names
        if label_names is not None
        else _label_names(spec, [examples for _, examples in read])
    )
    result = []
    for source, examples in read:
        labelled = encode_examples(source, examples, data.length, tokenizer, names, threads)
        if spec == data.train and data.subsample < 1:
            labelled = labelled.take_rows(subset(len(labelled), data.subsample, seed))
        result.append(labelled)
    return result


def hold_out(parts: Sequence[Labelled], fraction: float) -> tuple[list[Labelled], list[Labelled]]:
    """Takes a random `fraction` of each part's examples out of training: (what stays, what is held out).

    The same examples for every seed, so that seeds can be compared. At least one example is on each side.

    Raises:
      InputError: a part has a single example.
    """
    kept, held = [], []
    for part in parts:
        train, valid = held_out_rows(len(part), fraction, part.name)
        kept.append(part.take_rows(train))
        name = "heldout" if len(parts) == 1 else f"heldout_{part.name}"
        held.append(dataclasses.replace(part.take_rows(valid), name=name))
    return kept, held


def encode_examples(
    source: Source,
    examples: Examples,
    length: int,
    tokenizer: Tokenizer,
    label_names: tuple[str, ...],
    threads: int = 0,
) -> Labelled:
    """Tokenises examples; the longer text of a pair is cut first until both fit into `length`."""
    labels = _label_numbers(source, examples, label_names)
    special = tokenizer.special
    framing = 2 if examples.pairs is None else 2 + len(special.between)
    parts: list[np.ndarray] = []
    sizes = np.empty(len(examples), np.int64)
    truncated = 0
    start, between, end = (
        np.array(ids, np.int32) for ids in ([special.start], special.between, [special.end])
    )
    for first in range(0, len(examples), _BLOCK):
        block = slice(first, first + _BLOCK)
        texts = tokenizer.encode_arrays(examples.texts[block], threads)
        pairs = (
            None
            if examples.pairs is None
            else tokenizer.encode_arrays(examples.pairs[block], threads)
        )
        for row, a in enumerate(texts):
            b = None if pairs is None else pairs[row]
            keep_a, keep_b = fitting(len(a), 0 if b is None else len(b), length - framing)
            truncated += keep_a < len(a) or (b is not None and keep_b < len(b))
            parts += (
                [start, a[:keep_a], end]
                if b is None
                else [start, a[:keep_a], between, b[:keep_b], end]
            )
            sizes[first + row] = keep_a + keep_b + framing
    return Labelled(
        name=source.name,
        tokens=np.concatenate(parts).astype(dtype_for(tokenizer.vocab_size)),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        labels=labels,
        ids=np.array(examples.ids, np.int64),
        label_names=label_names,
        length=length,
        padding=special.padding,
        weight=source.weight,
        truncated=truncated,
    )


def fitting(a: int, b: int, room: int) -> tuple[int, int]:
    """Tokens kept of two texts of `a` and `b` tokens: the longer one gives first, then both in turn."""
    if a + b <= room:
        return a, b
    shorter = min(a, b, room // 2)
    if a <= b:
        keep_a = min(a, room - room // 2)
        return keep_a, min(b, room - keep_a)
    return room - shorter, shorter


def _label_names(spec: str, read: Sequence[Examples]) -> tuple[str, ...]:
    for examples in read:
        if examples.label_names:
            return examples.label_names
    found = {label for examples in read for label in examples.labels or () if label is not None}
    if not found:
        raise InputError(f"{spec} has no labels: name their column in data.label")
    if len(found) == 1:
        raise InputError(
            f"{spec} has the single label {found.pop()!r}: there is nothing to learn to tell apart"
        )
    numbers = all(label.lstrip("-").isdecimal() for label in found)
    return tuple(sorted(found, key=int if numbers else str))


def _label_numbers(source: Source, examples: Examples, label_names: tuple[str, ...]) -> np.ndarray:
    if examples.labels is None:
        return np.full(len(examples), -1, np.int32)
    numbers = {name: number for number, name in enumerate(label_names)}
    result = np.empty(len(examples), np.int32)
    for row, label in enumerate(examples.labels):
        if label is not None and label not in numbers:
            raise InputError(
                f"{examples.place(row)}: unknown label {label!r} ({source.spec}){did_you_mean(label, label_names)}"
            )
        result[row] = -1 if label is None else numbers[label]
    return result
