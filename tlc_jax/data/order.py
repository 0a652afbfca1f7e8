"""Which row stands at which place of an endless, reshuffled stream: a pure function of the seed.

No state is carried from one draw to the next, so the rows of any step can be computed alone, on any
machine, after any restart.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol, Self, TypeVar

import numpy as np

from tlc_jax.core.errors import InputError

_SUBSET, HELD_OUT, _EVALUATED = 2**32, 2**32 + 1, 2**32 + 2  # keys that no epoch's order has
_FINEST = 10**6  # denominators of mixing weights: places up to 10^12 stay within 64 bits


class Part(Protocol):
    """The rows of one source."""

    name: str

    def __len__(self) -> int: ...

    def take_rows(self, rows: np.ndarray) -> Self: ...


P = TypeVar("P", bound=Part)


def permutation(size: int, key: Sequence[int]) -> np.ndarray:
    """A permutation of range(size) that depends on `key` alone."""
    # Sorted raw bits rather than Generator.permutation: NumPy promises to keep the stream of a bit
    # generator forever, but not the streams of a generator's methods.
    bits = np.random.Philox(np.random.SeedSequence([part % 2**64 for part in key])).random_raw(size)
    return np.argsort(bits, kind="stable")


def subset(size: int, fraction: float, seed: int) -> np.ndarray:
    """A random share of range(size), ascending and not empty.

    A larger fraction keeps all rows of a smaller one.
    """
    return np.sort(permutation(size, (seed, _SUBSET))[: max(1, round(size * fraction))])


def subsample(parts: Sequence[P], fraction: float, seed: int) -> list[P]:
    """Keeps a random `fraction` of each part's rows; see `subset`."""
    if fraction >= 1:
        return list(parts)
    return [part.take_rows(subset(len(part), fraction, seed)) for part in parts]


def evaluated(size: int, limit: int, split: str) -> np.ndarray:
    """The rows of a split to evaluate on: a random choice that is the same for every run.

    A larger limit keeps all rows of a smaller one.

    Args:
      size: number of rows of the split.
      limit: largest number of rows; 0: all.
      split: name of the split.

    Returns:
      int64, ascending.
    """
    if not 0 < limit < size:
        return np.arange(size)
    key = (_EVALUATED, zlib.crc32(split.encode()))
    return np.sort(permutation(size, key)[:limit])


def in_second_half(ids: np.ndarray) -> np.ndarray:
    """Which examples belong to the second of two random halves: bool [N] of int ids [N].

    It depends on the id alone (the finalizer of SplitMix64; Steele et al., 2014), so all models
    are chosen on one half and judged on the other, whatever subset of examples they answered.
    """
    mixed = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) & np.uint64(1) == 1


def hold_out(parts: Sequence[P], fraction: float) -> tuple[list[P], list[P]]:
    """Splits each part at random into rows to train on and a `fraction` to evaluate on.

    Both are ascending and not empty. The part to evaluate on is named "heldout", or "heldout_NAME"
    where there are several.

    Raises:
      InputError: a part has fewer than two rows.
    """
    kept, held = [], []
    for part in parts:
        size = len(part)
        if size < 2:
            what = "is too small to hold out a part of it: set data.valid, or add text"
            raise InputError(f"{part.name} {what}")
        count = min(max(1, round(size * fraction)), size - 1)
        # No seed: runs with different seeds are compared on the same rows, and a run that starts
        # from another run's weights never trains on what that run was evaluated on.
        order = permutation(size, (HELD_OUT,))
        kept.append(part.take_rows(np.sort(order[count:])))
        out = part.take_rows(np.sort(order[:count]))
        out.name = held_out_name(part.name, len(parts) > 1)
        held.append(out)
    return kept, held


def held_out_name(name: str, several: bool) -> str:
    """The name of the held-out part of a source of that name, alone or one of several."""
    return f"heldout_{name}" if several else "heldout"


class Shuffle:
    """An endless stream over `size` rows: every epoch is a permutation of its own."""

    def __init__(self, size: int, seed: int, stream: int = 0) -> None:
        """Fixes the stream.

        Args:
          size: number of rows, at least 1.
          seed: seed of the run.
          stream: number of the stream; streams of a seed are independent.
        """
        self._size = size
        # Two epochs are kept, because a batch may straddle them. Only two: a permutation of 100
        # million rows takes 800 MB.
        self._epoch = functools.lru_cache(2)(lambda epoch: permutation(size, (seed, stream, epoch)))

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """The rows (int64) at places of the stream (int64, any order)."""
        epochs, offsets = np.divmod(places, self._size)
        if len(epochs) and (epochs == epochs[0]).all():  # nearly always, at half the cost
            return self._epoch(int(epochs[0]))[offsets]
        rows = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self._epoch(int(epoch))[offsets[here]]
        return rows


class Mixture:
    """Several shuffled streams, mixed.

    Without weights the rows of all sources are shuffled together. With weights, the share of each
    source among the first n places differs from its weight by less than one place per source, for
    every n, and each source starts a new epoch when its own rows are used up.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """Fixes the mixture.

        Args:
          sizes: number of rows of each source.
          weights: relative share of each source; all 0: in proportion to the sizes.
          seed: seed of the shuffles.
        """
        self.rows = sum(sizes)
        self._starts = np.cumsum([0, *sizes])
        self._turns = Turns(weights) if any(weights) else None
        shuffled = sizes if self._turns else [self.rows]
        self._shuffles = [Shuffle(size, seed, stream) for stream, size in enumerate(shuffled)]

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The sources and their rows, int64 [count] each, at `count` places from `first` on."""
        places = np.arange(first, first + count, dtype=np.int64)
        if self._turns is None:
            rows = self._shuffles[0](places)
            if len(self._starts) == 2:
                return np.zeros(count, np.int64), rows
            sources = np.searchsorted(self._starts, rows, side="right") - 1
            return sources, rows - self._starts[sources]
        sources, rows = self._turns(places)
        for source, shuffle in enumerate(self._shuffles):
            here = sources == source
            rows[here] = shuffle(rows[here])
        return sources, rows


class Turns:
    """Interleaves sources in proportion to their weights."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Fixes the shares: `weights` are relative and above 0."""
        # Each weight as a share of itself and all that follow.
        rests = [math.fsum(weights[start:]) for start in range(len(weights))]
        ratios = [weight / rest for weight, rest in zip(weights, rests, strict=True)]
        self._shares = [Fraction(ratio).limit_denominator(_FINEST) for ratio in ratios]

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source at each place and how many places it had before, int64 [len(places)] each."""
        # Source by source, each takes its share of the places that the sources before it left. Of
        # the first n of these, a share s gets floor(n s): place n is its own if that number grows.
        sources = np.full(len(places), len(self._shares) - 1)
        turns = places.copy()
        free = np.ones(len(places), bool)
        for source, share in enumerate(self._shares[:-1]):
            had = turns * share.numerator // share.denominator
            mine = free & ((turns + 1) * share.numerator // share.denominator > had)
            sources[mine] = source
            turns = np.where(mine, had, np.where(free, turns - had, turns))
            free &= ~mine
        return sources, turns
