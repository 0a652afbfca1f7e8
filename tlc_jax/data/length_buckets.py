"""Batches of pairs in a few static shapes: which pairs stand together is a pure function of (seed, step)."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.data.order import Turns, permutation
from tlc_jax.data.pairs import Pairs
from tlc_jax.data.vocabulary import EOS, PAD

Batch = dict[str, np.ndarray]
_STEP = 4  # widths are multiples of it


class PairBatches:
    """Training batches: {"source": int32 [R, W], "target": int32 [R, W]}, <pad> after the ends.

    Pairs are sorted into buckets by the tokens of their longer side, and a batch of the bucket of width W has R rows of
    about `tokens` target positions in all. An epoch takes every pair of every bucket, in batches of random order; a
    bucket's last batch is filled up with pairs of the same epoch.

    Without weights the pairs of all sources are one pool. With weights, every source is batched by itself, and gets its
    share of the steps.
    """

    def __init__(
        self, parts: Sequence[Pairs], tokens: int, seed: int, buckets: int, parts_of_step: int = 1
    ) -> None:
        """Args:
          parts: pairs of each source.
          tokens: target positions of a batch, padding included; batches have this many at most.
          seed: of the order.
          buckets: widths at most.
          parts_of_step: microbatches that every batch must divide into.

        Raises:
          InputError: `tokens` does not hold a single row of the widest bucket.
        """
        self._parts = list(parts)
        weighted = any(part.weight for part in parts)
        pools = [[part] for part in parts] if weighted else [list(parts)]
        lengths = [np.concatenate([part.lengths.max(axis=1) for part in pool]) for pool in pools]
        self.widths = best_widths(np.concatenate(lengths), buckets)
        self._rows = [rows_of(tokens, width, parts_of_step) for width in self.widths]
        self._schedules = [
            _Schedule(each, self.widths, self._rows, seed, stream)
            for stream, each in enumerate(lengths)
        ]
        self._pools = pools
        self._firsts = [np.cumsum([0, *(len(part) for part in pool)]) for pool in pools]
        self._turns = Turns([part.weight for part in parts]) if weighted else None
        self.steps_per_epoch = sum(schedule.batches for schedule in self._schedules)
        self.rows_per_epoch = float(sum(schedule.rows for schedule in self._schedules))

    def __call__(self, step: int) -> Batch:
        pool, turn = 0, step
        if self._turns is not None:
            whose, which = self._turns(np.array([step], np.int64))
            pool, turn = int(whose[0]), int(which[0])
        bucket, rows = self._schedules[pool](turn)
        source = np.empty((len(rows), self.widths[bucket]), np.int32)
        target = np.empty_like(source)
        firsts = self._firsts[pool]
        whose = np.searchsorted(firsts, rows, side="right") - 1
        for index in np.unique(whose):
            here = np.flatnonzero(whose == index)
            self._pools[pool][index].fill(source, target, here, rows[here] - firsts[index])
        return {"source": source, "target": target}

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, width) of the batches of each bucket."""
        return list(zip(self._rows, self.widths, strict=True))

    def padding(self) -> dict[str, float]:
        """The share of positions that are padding, over an epoch of all sources, by side."""
        places = sum(schedule.places for schedule in self._schedules)
        used = sum(part.lengths.sum(axis=0, dtype=np.int64) for part in self._parts)
        return {side: 1.0 - float(used[i]) / places for i, side in enumerate(("source", "target"))}


class _Schedule:
    """Which rows of one pool stand in batch `turn`."""

    def __init__(
        self,
        lengths: np.ndarray,
        widths: Sequence[int],
        rows: Sequence[int],
        seed: int,
        stream: int,
    ) -> None:
        self._bucket_of = np.searchsorted(widths, lengths)
        self._members = [np.flatnonzero(self._bucket_of == bucket) for bucket in range(len(widths))]
        self._rows = rows
        counts = [
            -(-len(members) // size) for members, size in zip(self._members, rows, strict=True)
        ]
        self._ends = np.cumsum(counts)
        self._seed = (seed, stream)
        self._epochs: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()
        self.batches = sum(counts)
        self.rows = sum(n * size for n, size in zip(counts, rows, strict=True))
        self.places = sum(
            n * size * width for n, size, width in zip(counts, rows, widths, strict=True)
        )

    def __call__(self, turn: int) -> tuple[int, np.ndarray]:
        """(bucket, rows of the pool) of a batch."""
        epoch, place = divmod(turn, self.batches)
        batch = int(self._order(epoch, -1, self.batches)[place])
        bucket = int(np.searchsorted(self._ends, batch, side="right"))
        members, size = self._members[bucket], self._rows[bucket]
        first = (batch - (int(self._ends[bucket - 1]) if bucket else 0)) * size
        places = np.arange(first, first + size) % len(members)
        return bucket, members[self._order(epoch, bucket, len(members))[places]]

    def _order(self, epoch: int, bucket: int, size: int) -> np.ndarray:
        """A permutation for an epoch: of a bucket's members, or (-1) of all batches."""
        with self._lock:
            if (epoch, bucket) not in self._epochs:
                for key in [key for key in self._epochs if key[0] < epoch - 1]:
                    del self._epochs[key]
                self._epochs[epoch, bucket] = permutation(size, (*self._seed, epoch, bucket + 1))
            return self._epochs[epoch, bucket]


def rows_of(tokens: int, width: int, parts: int = 1) -> int:
    """Rows of a batch, a multiple of the largest power of two that costs an eighth of them at most.

    So that a batch divides among devices and into `parts` microbatches.

    Raises:
      InputError: it does not, or `tokens` does not hold a single row.
    """
    rows = tokens // width
    if rows < 1:
        raise InputError(
            f"optimizer.batch_size={tokens} target tokens do not hold a pair of {width}: raise it"
        )
    rows -= rows % (1 << max(0, (rows // 8).bit_length() - 1))
    if rows % parts:
        raise InputError(
            f"impl.microbatch makes {parts} parts of a step, into which {rows} pairs of {width} tokens do not divide"
        )
    return rows


def best_widths(lengths: np.ndarray, most: int) -> tuple[int, ...]:
    """At most `most` widths, ascending, the last holding the longest, that leave the least padding."""
    steps = -(-lengths // _STEP)
    counts = np.bincount(steps)  # counts[s]: rows that need s steps
    tops = np.flatnonzero(counts)
    before = np.concatenate([[0], np.cumsum(counts[tops])])
    # cost[k][j]: least places that rows up to tops[j - 1] take in k buckets; the choice of its last bucket's start.
    cost = np.full((most + 1, len(tops) + 1), np.inf)
    start = np.zeros((most + 1, len(tops) + 1), np.int64)
    cost[:, 0] = 0.0
    for k in range(1, most + 1):
        for j in range(1, len(tops) + 1):
            options = cost[k - 1, :j] + (before[j] - before[:j]) * tops[j - 1]
            start[k, j] = int(np.argmin(options))
            cost[k, j] = options[start[k, j]]
    widths, j = [], len(tops)
    for k in range(most, 0, -1):
        if j == 0:
            break
        widths.append(int(tops[j - 1]) * _STEP)
        j = int(start[k, j])
    return tuple(sorted(widths))


def sentence_batches(
    lengths: np.ndarray, widths: Sequence[int], batch_size: int, limit: int = 0
) -> list[tuple[int, np.ndarray]]:
    """Every sentence once, those of like length together: (width, places in the set) of each batch.

    Args:
      lengths: tokens of each sentence.
      widths: ascending; the last holds the longest.
      batch_size: sentences of a batch at most.
      limit: sentences at most, the first ones; 0: all.
    """
    count = min(limit, len(lengths)) if limit else len(lengths)
    order = np.argsort(lengths[:count], kind="stable")
    batches = []
    for first in range(0, count, batch_size):
        rows = order[first : first + batch_size]
        batches.append((widths[int(np.searchsorted(widths, lengths[rows].max()))], rows))
    return batches


def evaluation_batch(pairs: Pairs, rows: np.ndarray, width: int, batch_size: int) -> Batch:
    """Pairs as a batch of `batch_size` rows; rows beyond the pairs have an empty source and no target."""
    source = np.full((batch_size, width), PAD, np.int32)
    target = np.full((batch_size, width), PAD, np.int32)
    pairs.fill(source, target, np.arange(len(rows)), rows)
    source[len(rows) :, 0] = EOS
    return {"source": source, "target": target}
