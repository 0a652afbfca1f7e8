"""Batches of pairs in a few static shapes, as a pure function of (seed, step)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.data.order import Turns, permutation
from tlc_jax.data.pairs import Pairs
from tlc_jax.data.tokenizer import EOS, PAD

Batch = dict[str, np.ndarray]
_STEP = 4  # widths are multiples of it


class PairBatches:
    """Training batches: {"source": int32 [R, W], "target": int32 [R, W]}, <pad> after the ends.

    Pairs are sorted into buckets by the tokens of their longer side. A batch of the bucket of width
    W has R rows, about `tokens` target positions in all. An epoch takes every pair of every bucket,
    in batches of random order; pairs of the same epoch fill up a bucket's last batch.

    Without weights the pairs of all sources are shuffled together. With weights, every batch has
    pairs of one source, and each source gets its share of the steps.

    Attributes:
      widths: W of each bucket, ascending.
      shapes: (R, W) of each bucket.
      steps_per_epoch: batches of an epoch of all sources.
      rows_per_epoch: rows of these batches.
    """

    def __init__(
        self, parts: Sequence[Pairs], tokens: int, seed: int, buckets: int, parts_of_step: int = 1
    ) -> None:
        """Sorts the pairs into buckets.

        Args:
          parts: pairs of each source.
          tokens: largest number of target positions of a batch, padding included.
          seed: seed of the order.
          buckets: largest number of widths.
          parts_of_step: number of microbatches that every batch must divide into.

        Raises:
          InputError: `tokens` does not hold a single row of the widest bucket.
        """
        weighted = any(part.weight for part in parts)
        self._turns = Turns([part.weight for part in parts]) if weighted else None
        longer = np.concatenate([part.lengths.max(axis=1) for part in parts])
        self.widths = best_widths(longer, buckets)
        self.shapes = [(rows_of(tokens, width, parts_of_step), width) for width in self.widths]
        pools = [[part] for part in parts] if weighted else [parts]
        self._pools = [_Pool(pool, self.shapes, (seed, i)) for i, pool in enumerate(pools)]
        self._used = sum(part.lengths.sum(axis=0, dtype=np.int64) for part in parts)
        self.steps_per_epoch = sum(pool.batches for pool in self._pools)
        self.rows_per_epoch = float(sum(pool.rows for pool in self._pools))

    def __call__(self, step: int) -> Batch:
        if self._turns is None:
            return self._pools[0](step)
        pools, turns = self._turns(np.array([step]))
        return self._pools[pools[0]](int(turns[0]))

    def padding(self) -> dict[str, float]:
        """The share of padding among the positions of each side, over an epoch of all sources."""
        places = sum(pool.places for pool in self._pools)
        shares = (1.0 - self._used / places).tolist()
        return dict(zip(("source", "target"), shares, strict=True))


class _Pool:
    """Pairs that are batched together.

    Attributes:
      batches: batches of an epoch.
      rows: rows of all batches of an epoch.
      places: positions of either side in all batches of an epoch.
    """

    def __init__(
        self, parts: Sequence[Pairs], shapes: Sequence[tuple[int, int]], key: tuple[int, int]
    ) -> None:
        self._parts, self._shapes = parts, shapes
        rows, widths = np.array(shapes).T
        self._firsts = np.cumsum([0, *map(len, parts)])
        longer = np.concatenate([part.lengths.max(axis=1) for part in parts])
        bucket_of = np.searchsorted(widths, longer)
        self._members = [np.flatnonzero(bucket_of == bucket) for bucket in range(len(widths))]
        counts = -(-np.bincount(bucket_of, minlength=len(widths)) // rows)
        self._batches_before = np.cumsum([0, *counts])
        self.batches = int(counts.sum())
        self.rows, self.places = int(counts @ rows), int(counts @ (rows * widths))
        # Two epochs are kept, because batches made ahead straddle them. Bucket -1 stands for the
        # order of the batches themselves.
        self._order = functools.lru_cache(2 * len(widths) + 2)(
            lambda epoch, bucket, size: permutation(size, (*key, epoch, bucket + 1))
        )

    def __call__(self, turn: int) -> Batch:
        """The batch at `turn` of the endless stream of this pool's batches."""
        epoch, place = divmod(turn, self.batches)
        number = self._order(epoch, -1, self.batches)[place]
        bucket = int(np.searchsorted(self._batches_before, number, side="right")) - 1
        members, (size, width) = self._members[bucket], self._shapes[bucket]
        first = (number - self._batches_before[bucket]) * size
        places = np.arange(first, first + size) % len(members)
        rows = members[self._order(epoch, bucket, len(members))[places]]
        source = np.empty((size, width), np.int32)
        target = np.empty_like(source)
        owners = np.searchsorted(self._firsts, rows, side="right") - 1
        for owner in np.unique(owners):
            here = owners == owner
            own_rows = rows[here] - self._firsts[owner]
            source[here], target[here] = self._parts[owner].padded(own_rows, width)
        return {"source": source, "target": target}


def rows_of(tokens: int, width: int, parts: int = 1) -> int:
    """The rows of a batch of up to `tokens` tokens in rows of `width`.

    Rounded down to a multiple of the largest power of two that drops at most an eighth of them, so
    that a batch divides among devices and into `parts` microbatches.

    Raises:
      InputError: the rows do not divide into `parts`, or `tokens` does not hold a single row.
    """
    rows = tokens // width
    if rows < 1:
        raise InputError(f"optimizer.batch_size={tokens} tokens hold no pair of {width}: raise it")
    rows -= rows % (1 << max(0, (rows // 8).bit_length() - 1))
    if rows % parts:
        what = f"into which {rows} pairs of {width} tokens do not divide"
        raise InputError(f"impl.microbatch makes {parts} parts of a step, {what}")
    return rows


def best_widths(lengths: np.ndarray, most: int) -> tuple[int, ...]:
    """The widths of buckets that leave the least padding.

    Args:
      lengths: tokens of each row.
      most: largest number of widths.

    Returns:
      Widths, ascending; the last holds the longest row.
    """
    counts = np.bincount(-(-lengths // _STEP))  # counts[s]: rows that need s steps
    tops = np.flatnonzero(counts)
    before = np.concatenate([[0], np.cumsum(counts[tops])])
    # Dynamic programming over the ends of buckets. cost[k, j]: fewest places that rows of up to
    # tops[j - 1] steps take in k buckets; start[k, j]: where the last of these buckets starts.
    cost = np.full((most + 1, len(tops) + 1), np.inf)
    start = np.zeros((most + 1, len(tops) + 1), np.int64)
    cost[:, 0] = 0.0
    for k in range(1, most + 1):
        for j in range(1, len(tops) + 1):
            options = cost[k - 1, :j] + (before[j] - before[:j]) * tops[j - 1]
            start[k, j] = np.argmin(options)
            cost[k, j] = options[start[k, j]]
    widths, j = [], len(tops)
    for k in range(most, 0, -1):
        if j > 0:  # fewer widths may do as well
            widths.append(int(tops[j - 1]) * _STEP)
            j = start[k, j]
    return tuple(sorted(widths))


def sentence_batches(
    lengths: np.ndarray, widths: Sequence[int], batch_size: int
) -> list[tuple[int, np.ndarray]]:
    """Batches of sentences of similar length, each sentence once.

    Args:
      lengths: tokens of each sentence.
      widths: possible widths, ascending; the last holds the longest.
      batch_size: largest number of sentences in a batch.

    Returns:
      The width and the sentences' places in the set, for each batch.
    """
    order = np.argsort(lengths, kind="stable")
    firsts = range(0, len(order), batch_size)
    batches = [order[first : first + batch_size] for first in firsts]
    longest = [int(np.searchsorted(widths, lengths[rows[-1]])) for rows in batches]
    return [(widths[place], rows) for place, rows in zip(longest, batches, strict=True)]


def evaluation_batch(pairs: Pairs, rows: np.ndarray, width: int, batch_size: int) -> Batch:
    """Pairs as a batch of `batch_size` rows; the filling has an empty source and no target."""
    filling = ((0, batch_size - len(rows)), (0, 0))
    sides = pairs.padded(rows, width)
    source, target = (np.pad(side, filling, constant_values=PAD) for side in sides)
    # Attention to a source without any token would divide zero by zero.
    source[len(rows) :, 0] = EOS
    return {"source": source, "target": target}
