"""Batches as pure functions of (seed, step), evaluation batches in order, and a thread that works ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np

from tlc_jax.data.labelled import Labelled
from tlc_jax.data.order import Mixture
from tlc_jax.data.packing import Packed

Batch = dict[str, np.ndarray]
T = TypeVar("T")
_WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_ENDLESS = 2**62


class RowBatches:
    """Pretraining batches: `batches(step)` is {"tokens": int32 [batch_size, length]}.

    Every epoch is a new permutation of all rows; weighted sources are mixed as `order.Mixture` says.
    """

    def __init__(self, packed: Sequence[Packed], batch_size: int, seed: int) -> None:
        self._packed = tuple(packed)
        self._batch_size = batch_size
        self._mixture = Mixture(
            [len(part) for part in packed], [part.weight for part in packed], seed
        )
        self._length = packed[0].length
        self.rows_per_epoch = self._mixture.rows
        self.steps_per_epoch = self.rows_per_epoch / batch_size

    def __call__(self, step: int, places: np.ndarray | None = None) -> Batch:
        """The batch of a step, or of its rows those at `places` alone: the others are not read."""
        sources, rows = self._mixture(step * self._batch_size, self._batch_size)
        if places is not None:
            sources, rows = sources[places], rows[places]
        if len(self._packed) == 1:
            return {"tokens": self._packed[0].take(rows)}
        tokens = np.empty((len(rows), self._length), np.int32)
        for source in np.unique(sources):
            here = sources == source
            tokens[here] = self._packed[source].take(rows[here])
        return {"tokens": tokens}


class LabelledBatches:
    """Finetuning batches: {"tokens": int32 [batch_size, W], "labels": int32 [batch_size]}.

    W is the narrowest of a few widths that holds the longest example of the batch, so that a compiled step exists for
    each width and little is spent on padding. Examples without a label are left out.
    """

    def __init__(self, labelled: Labelled | Sequence[Labelled], batch_size: int, seed: int) -> None:
        parts = [labelled] if isinstance(labelled, Labelled) else list(labelled)
        self._parts = [part.take_rows(np.flatnonzero(part.labels >= 0)) for part in parts]
        self._batch_size = batch_size
        self._mixture = Mixture(
            [len(part) for part in self._parts], [part.weight for part in parts], seed
        )
        self.widths = bucket_widths(max(part.length for part in parts))
        self.rows_per_epoch = self._mixture.rows
        self.steps_per_epoch = self.rows_per_epoch / batch_size

    def __call__(self, step: int) -> Batch:
        sources, rows = self._mixture(step * self._batch_size, self._batch_size)
        longest = max(
            int(self._parts[source].lengths[rows[sources == source]].max())
            for source in np.unique(sources)
        )
        tokens = np.empty((self._batch_size, _width(longest, self.widths)), np.int32)
        labels = np.empty(self._batch_size, np.int32)
        for source in np.unique(sources):
            here = np.flatnonzero(sources == source)
            self._parts[source].fill(tokens, here, rows[here])
            labels[here] = self._parts[source].labels[rows[here]]
        return {"tokens": tokens, "labels": labels}


def bucket_widths(length: int) -> tuple[int, ...]:
    """The widths that batches of examples of at most `length` tokens come in, ascending; the last is `length`."""
    return (*(width for width in _WIDTHS if width < length), length)


def evaluation_batches(data: Packed | Labelled, batch_size: int, limit: int = 0) -> Iterator[Batch]:
    """Every row or example exactly once; the last batch is filled up with copies of weight 0.

    Args:
      data: rows in order, or examples; those come sorted by length, which saves padding.
      batch_size: rows of every batch, the last included.
      limit: rows or examples at most (the first ones); 0: all.

    Yields:
      "tokens" int32 [batch_size, W], "weights" float32 [batch_size] (1, or 0 for filling), "index" int32
      [batch_size] (place in `data`), and for examples "labels" int32 [batch_size] (-1: unlabelled).
    """
    count = min(limit, len(data)) if limit else len(data)
    order = np.arange(count)
    if isinstance(data, Labelled):
        order = np.argsort(data.lengths[:count], kind="stable")
        widths = bucket_widths(data.length)
    for start in range(0, count, batch_size):
        index = order[start : start + batch_size]
        weights = (np.arange(batch_size) < len(index)).astype(np.float32)
        index = np.concatenate([index, np.repeat(index[-1:], batch_size - len(index))])
        if isinstance(data, Packed):
            batch = {"tokens": data.take(index)}
        else:
            tokens = np.empty(
                (batch_size, _width(int(data.lengths[index].max()), widths)), np.int32
            )
            data.fill(tokens, np.arange(batch_size), index)
            batch = {"tokens": tokens, "labels": data.labels[index]}
        yield {**batch, "weights": weights, "index": index.astype(np.int32)}


def load_ahead(batch_fn: Callable[[int], T], start: int, prefetch: int) -> Generator[T, None, None]:
    """batch_fn(start), batch_fn(start + 1), ... for ever, `prefetch` of them computed ahead by a background thread.

    Args:
      batch_fn: a pure function of the step.
      start: the first step.
      prefetch: batches ahead; 0: none, and no thread.

    An exception of `batch_fn` is raised at the batch it belongs to. Closing the iterator ends the thread.
    """
    import grain  # slow to import, and the stages that only read need none of it

    options = grain.ReadOptions(num_threads=min(prefetch, 1), prefetch_buffer_size=prefetch)
    batches = iter(grain.MapDataset.range(start, _ENDLESS).map(batch_fn).to_iter_dataset(options))
    try:
        yield from batches
    finally:
        batches.close()


def _width(longest: int, widths: Sequence[int]) -> int:
    return next(width for width in widths if width >= longest)
