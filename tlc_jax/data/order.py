"""Which row stands at which place of an endless, reshuffled stream: a pure function of (seed, place).

Nothing is drawn one after the other, so a step's rows can be computed alone, on any machine, after any restart.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tlc_jax.core.errors import InputError

_SUBSET, _HELD_OUT = 2**32, 2**32 + 1  # keys that no epoch's permutation has
_FINEST = 10**6  # denominators of mixing weights: places up to 10^12 stay within 64 bits


class Shuffle:
    """An endless stream over `size` rows: every epoch is an exact permutation, another one each time."""

    def __init__(self, size: int, seed: int, stream: int = 0) -> None:
        """Args: size: rows, at least 1. seed, stream: which shuffle; streams of a seed are independent."""
        self.size = size
        self._seed = (seed, stream)
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Rows (int64) at the given places (int64, any order)."""
        epochs, offsets = np.divmod(places, self.size)
        rows = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self._permutation(int(epoch))[offsets[here]]
        return rows

    def _permutation(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._epochs:
                while len(self._epochs) > 1:  # a batch may straddle two epochs
                    del self._epochs[min(self._epochs)]
                self._epochs[epoch] = permutation(self.size, (*self._seed, epoch))
            return self._epochs[epoch]


def permutation(size: int, key: Sequence[int]) -> np.ndarray:
    """A permutation of range(size) fixed by `key`.

    Sorted raw bits rather than `Generator.permutation`: NumPy promises the stream of a bit generator for ever, and
    not that of a generator's methods.
    """
    bits = np.random.Philox(np.random.SeedSequence([part % 2**64 for part in key])).random_raw(size)
    return np.argsort(bits, kind="stable")


def subset(size: int, fraction: float, seed: int) -> np.ndarray:
    """A random share of range(size), ascending, at least one; a larger fraction only adds to a smaller one's."""
    return np.sort(permutation(size, (seed, _SUBSET))[: max(1, round(size * fraction))])


def held_out_rows(size: int, fraction: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Splits range(size) at random into (rows to train on, rows held out), both ascending and not empty.

    No seed enters: runs with different seeds are compared on the same rows, and a run that goes on from another's
    weights never trains on what that one was evaluated on.

    Raises:
      InputError: there is a single row; `name` says whose.
    """
    if size < 2:
        raise InputError(
            f"{name} is too small to hold out a part of it: set data.valid, or add text"
        )
    count = min(max(1, round(size * fraction)), size - 1)
    order = permutation(size, (_HELD_OUT,))
    return np.sort(order[count:]), np.sort(order[:count])


class Mixture:
    """Several shuffled streams, mixed.

    Without weights the rows of all sources are one pool, shuffled together. With weights, the share of each source
    among the first n places differs from its weight by less than one place per source at any n, and each source is
    reshuffled at its own pace.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        """Args: sizes: rows of each source. weights: relative; all 0: by size. seed: of the shuffles."""
        self.rows = sum(sizes)
        self._starts = np.cumsum([0, *sizes])
        self._turns: Turns | None = None
        if any(weights):
            self._shuffles = [Shuffle(size, seed, stream) for stream, size in enumerate(sizes)]
            self._turns = Turns(weights)
        else:
            self._shuffles = [Shuffle(self.rows, seed)]

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, row of that source), int64 each, of `count` places from place `first` on."""
        places = np.arange(first, first + count, dtype=np.int64)
        if self._turns is None:
            rows = self._shuffles[0](places)
            sources = np.searchsorted(self._starts, rows, side="right") - 1
            return sources, rows - self._starts[sources]
        sources, turns = self._turns(places)
        rows = np.empty(count, np.int64)
        for source in np.unique(sources):
            here = sources == source
            rows[here] = self._shuffles[source](turns[here])
        return sources, rows


class Turns:
    """Whose turn it is, among sources that are to have shares of an endless stream of places."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Args: weights: relative, all above 0."""
        self._shares = _shares_of_rest(weights)

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source, how many places that source had before), int64 each, at places (int64).

        Worked out source by source, each one's share of what the others left: of the first n places left, a source with
        share s has had floor(n s): place n is its own if that number grows.
        """
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


def _shares_of_rest(weights: Sequence[float]) -> list[Fraction]:
    """Each weight as a share of itself and all that follow."""
    rests = [math.fsum(weights[start:]) for start in range(len(weights))]
    return [
        Fraction(weight / rest).limit_denominator(_FINEST)
        for weight, rest in zip(weights, rests, strict=True)
    ]
