"""Batches of rows and of labelled examples, and a thread that makes them ahead of time.

A training batch is a pure function of (seed, step).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tlc_jax.data.labelled import Labelled, bucket_widths, narrowest
from tlc_jax.data.order import Mixture, evaluated

if TYPE_CHECKING:  # labelled examples need no packing
    from tlc_jax.data.packing import Packed

Batch = dict[str, np.ndarray]
T = TypeVar("T")
_ENDLESS = 2**62


class _Batches:
    """Batches that mix the rows of several sources."""

    def __init__(self, parts: Sequence[Any], batch_size: int, seed: int) -> None:
        self._parts, self._batch_size = parts, batch_size
        weights = [part.weight for part in parts]
        self._mixture = Mixture([len(part) for part in parts], weights, seed)
        self.rows_per_epoch = self._mixture.rows
        self.steps_per_epoch = self.rows_per_epoch / batch_size


class RowBatches(_Batches):
    """Pretraining batches of `packing.Packed` rows: {"tokens": int32 [batch_size, length]}.

    Every epoch is a new permutation of all rows; see `order.Mixture` for weighted sources.
    """

    def __call__(self, step: int, places: np.ndarray | None = None) -> Batch:
        """The batch of a step, or only its rows at `places`: the others are not read."""
        sources, rows = self._mixture(step * self._batch_size, self._batch_size)
        if places is not None:
            sources, rows = sources[places], rows[places]
        if len(self._parts) == 1:  # the training loop waits while this thread runs Python
            return {"tokens": self._parts[0].take(rows)}
        tokens = np.empty((len(rows), self._parts[0].length), np.int32)
        for source, part in enumerate(self._parts):
            here = sources == source
            tokens[here] = part.take(rows[here])
        return {"tokens": tokens}


class LabelledBatches(_Batches):
    """Finetuning batches: {"tokens": int32 [batch_size, W], "labels": int32 [batch_size]}.

    W is the narrowest of a few widths that holds the longest example of the batch: that saves
    padding. Examples without a label are left out.
    """

    def __init__(self, parts: Sequence[Labelled], batch_size: int, seed: int) -> None:
        labelled = [part.take_rows(np.flatnonzero(part.labels >= 0)) for part in parts]
        super().__init__(labelled, batch_size, seed)
        self.widths = bucket_widths(max(part.length for part in parts))

    def widths_of(self, steps: int) -> np.ndarray:
        """W of the batches of the first steps, int64 [steps]."""
        sources, rows = self._mixture(0, steps * self._batch_size)
        lengths = np.empty(len(rows), np.int64)
        for source, part in enumerate(self._parts):
            here = sources == source
            lengths[here] = part.lengths[rows[here]]
        longest = lengths.reshape(steps, self._batch_size).max(axis=1)
        return np.array(self.widths)[np.searchsorted(self.widths, longest)]

    def __call__(self, step: int) -> Batch:
        sources, rows = self._mixture(step * self._batch_size, self._batch_size)
        chosen = [(part, sources == source) for source, part in enumerate(self._parts)]
        longest = max(part.lengths[rows[here]].max(initial=0) for part, here in chosen)
        tokens = np.empty((self._batch_size, narrowest(longest, self.widths)), np.int32)
        labels = np.empty(self._batch_size, np.int32)
        for part, here in chosen:
            tokens[here] = part.padded(rows[here], tokens.shape[1])
            labels[here] = part.labels[rows[here]]
        return {"tokens": tokens, "labels": labels}


def evaluation_batches(data: Packed | Labelled, batch_size: int, limit: int = 0) -> Iterator[Batch]:
    """Every row or example exactly once; copies of weight 0 fill up the last batch.

    Args:
      data: rows, or examples, which come sorted by length to save padding.
      batch_size: rows of every batch, the last included.
      limit: largest number of rows or examples; see `order.evaluated`. 0: all.

    Yields:
      "tokens" int32 [batch_size, W], "weights" float32 [batch_size] (1, or 0 for filling), "index"
      int32 [batch_size] (place in `data`), and for examples "labels" int32 [batch_size] (-1:
      unlabelled).
    """
    rows = evaluated(len(data), limit, data.name)
    # Stable, so that rows, which are all of one length, stay in order.
    order = rows[np.argsort(data.lengths[rows], kind="stable")]
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        weights = (np.arange(batch_size) < len(index)).astype(np.float32)
        index = np.pad(index, (0, batch_size - len(index)), mode="edge")
        yield {**data.batch(index), "weights": weights, "index": index.astype(np.int32)}


def load_ahead(batch_fn: Callable[[int], T], start: int, prefetch: int) -> Generator[T, None, None]:
    """Yields batch_fn(start), batch_fn(start + 1), and so on without end.

    An exception of `batch_fn` is raised at the batch it belongs to. Closing the iterator ends the
    thread.

    Args:
      batch_fn: a pure function of the step.
      start: first step.
      prefetch: number of batches that a background thread makes ahead; 0: no thread.
    """
    import grain  # slow to import, and needed for training alone

    def attempt(step: int) -> T | Exception:
        try:
            return batch_fn(step)
        except Exception as error:  # raised below, at its batch
            return error

    # In blocks: handing over costs two threads of Python more than making a small batch.
    size = max(1, prefetch // 2)
    options = grain.ReadOptions(num_threads=min(prefetch, 1), prefetch_buffer_size=prefetch // size)
    firsts = grain.MapDataset.range(start, _ENDLESS, size)
    made = firsts.map(lambda first: [attempt(step) for step in range(first, first + size)])
    with contextlib.closing(iter(made.to_iter_dataset(options))) as blocks:
        for batch in itertools.chain.from_iterable(blocks):
            if isinstance(batch, Exception):
                raise batch
            yield batch
