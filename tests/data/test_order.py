from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tlc_jax.data.order import Mixture, Shuffle, permutation, subset


@given(size=st.integers(1, 60), seed=st.integers(0, 2**31), epochs=st.integers(1, 4))
def test_every_epoch_is_a_permutation(size: int, seed: int, epochs: int) -> None:
    rows = Shuffle(size, seed)(np.arange(size * epochs)).reshape(epochs, size)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (epochs, 1)))


def test_epochs_seeds_and_streams_differ() -> None:
    first, second = Shuffle(100, 0)(np.arange(200)).reshape(2, 100)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, Shuffle(100, 1)(np.arange(100)))
    assert not np.array_equal(first, Shuffle(100, 0, stream=1)(np.arange(100)))


def test_the_order_is_pinned() -> None:
    """A run resumed with a later NumPy, or on another machine, must see the same batches."""
    assert permutation(10, (1, 2, 3)).tolist() == [1, 8, 2, 4, 6, 5, 0, 9, 7, 3]


@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
    first=st.integers(0, 10**9),
    count=st.integers(1, 200),
)
def test_shares_hold_at_every_place_and_any_part_can_be_computed_alone(
    weights: list[float], first: int, count: int
) -> None:
    sizes = [7 + 3 * number for number in range(len(weights))]
    mixture = Mixture(sizes, weights, seed=3)
    sources, rows = mixture(0, 400)
    shares = np.array(weights) / sum(weights)
    had = np.cumsum(sources[:, None] == np.arange(len(weights)), axis=0)
    wanted = np.arange(1, 401)[:, None] * shares
    assert np.abs(had - wanted).max() < len(weights) + 0.01
    for source, size in enumerate(sizes):
        mine = rows[sources == source]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size]) == list(range(size))
    whole = mixture(first, count)
    for place in (0, count // 2, count - 1):
        alone = Mixture(sizes, weights, seed=3)(first + place, 1)
        assert (alone[0][0], alone[1][0]) == (whole[0][place], whole[1][place])


def test_without_weights_all_sources_are_one_pool() -> None:
    sources, rows = Mixture([5, 1, 3], [0, 0, 0], seed=0)(0, 18)
    for epoch in (slice(0, 9), slice(9, 18)):
        assert sorted(zip(sources[epoch], rows[epoch], strict=True)) == [
            (0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (2, 1), (2, 2),
        ]  # fmt: skip


def test_shares_stay_exact_far_into_a_run() -> None:
    sources, _ = Mixture([10, 10, 10], [0.3, 0.3, 0.4], seed=0)(10**12, 1000)
    np.testing.assert_allclose(np.bincount(sources) / 1000, [0.3, 0.3, 0.4], atol=0.003)


@pytest.mark.parametrize(("fraction", "count"), [(1.0, 50), (0.5, 25), (0.001, 1)])
def test_a_subset_has_its_size_and_grows_with_its_fraction(fraction: float, count: int) -> None:
    rows = subset(50, fraction, seed=4)
    assert len(rows) == len(set(rows)) == count and (np.diff(rows) > 0).all()
    assert set(rows) <= set(subset(50, min(1.0, 2 * fraction), seed=4))
