"""Batches of pairs: static shapes, every pair in every epoch, a pure function of (seed, step)."""

import collections

import numpy as np
import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.data.length_buckets import PairBatches, best_widths, evaluation_batch, sentence_batches
from tlc_jax.data.pairs import Pairs, _starts
from tlc_jax.data.tokenizer import EOS, PAD


def make_pairs(count: int, seed: int, weight: float = 0.0, first: int = 10) -> Pairs:
    """Pairs of which number i has the token first + i at its source's start."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.12, (count, 2)) + 1, 40).astype(np.int32)
    parts = []
    for row, (a, b) in enumerate(lengths):
        parts += [[first + row] * (a - 1), [EOS], [first + row] * (b - 1), [EOS]]
    return Pairs(
        f"p{seed}", np.concatenate(parts).astype(np.uint32), _starts(lengths), lengths, weight
    )


def names(batch) -> list[int]:
    return [int(row[0]) for row in batch["source"]]


def test_an_epoch_has_every_pair_and_few_twice() -> None:
    pairs = make_pairs(1000, 0)
    batches = PairBatches([pairs], 512, seed=3, buckets=6)
    seen = collections.Counter(
        name for step in range(batches.steps_per_epoch) for name in names(batches(step))
    )
    assert set(seen) == set(range(10, 1010))
    assert sum(seen.values()) == batches.rows_per_epoch
    assert sum(seen.values()) < 1.2 * 1000 and max(seen.values()) <= 2


def test_shapes_are_few_and_full() -> None:
    batches = PairBatches([make_pairs(1000, 0)], 512, seed=3, buckets=6)
    shapes = {batches(step)["target"].shape for step in range(batches.steps_per_epoch)}
    assert len(shapes) <= 6
    assert {width for _, width in shapes} == set(batches.widths)
    for rows, width in shapes:
        assert 512 * 0.8 <= rows * width <= 512


def test_rows_hold_whole_pairs() -> None:
    pairs = make_pairs(300, 1)
    batch = PairBatches([pairs], 256, seed=0, buckets=5)(4)
    for source, target in zip(batch["source"], batch["target"], strict=True):
        row = source[0] - 10
        for side, found in enumerate((source, target)):
            length = pairs.lengths[row, side]
            assert (found[: length - 1] == 10 + row).all() and found[length - 1] == EOS
            assert (found[length:] == PAD).all()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    pairs = [make_pairs(400, 0), make_pairs(200, 1, first=5000)]
    one, two = (PairBatches(pairs, 256, seed=5, buckets=4) for _ in range(2))
    steps = [0, 7, 3, one.steps_per_epoch + 2, 1]
    expected = {step: one(step) for step in sorted(steps)}
    for step in steps:
        for name in ("source", "target"):
            np.testing.assert_array_equal(two(step)[name], expected[step][name])
    epochs = [
        [names(one(step + e * one.steps_per_epoch)) for step in range(one.steps_per_epoch)]
        for e in (0, 1)
    ]
    assert epochs[0] != epochs[1]
    assert (
        PairBatches(pairs, 256, seed=6, buckets=4)(0)["source"].tolist()
        != expected[0]["source"].tolist()
    )


def test_weights_set_the_share_of_the_steps() -> None:
    pairs = [make_pairs(400, 0, weight=0.25), make_pairs(100, 1, weight=0.75, first=5000)]
    batches = PairBatches(pairs, 256, seed=5, buckets=4)
    second = [names(batches(step))[0] >= 5000 for step in range(80)]
    assert sum(second) == 60
    for step in range(80):
        assert len({name >= 5000 for name in names(batches(step))}) == 1


def test_padding_matches_the_batches() -> None:
    batches = PairBatches([make_pairs(2000, 2)], 512, seed=0, buckets=8)
    places, used = 0, np.zeros(2)
    for step in range(batches.steps_per_epoch):
        batch = batches(step)
        places += batch["source"].size
        used += [np.sum(batch[side] != PAD) for side in ("source", "target")]
    padding = batches.padding()
    # Pairs that fill up the last batch of a bucket count as padding there.
    for side, count in zip(("source", "target"), used, strict=True):
        assert 0 <= padding[side] - (1 - count / places) < 0.05


def test_best_widths_leave_the_least_padding() -> None:
    lengths = np.array([3] * 50 + [9] * 5 + [20] * 30 + [37])
    assert best_widths(lengths, 1) == (40,)
    assert best_widths(lengths, 2) == (20, 40) or best_widths(lengths, 2) == (4, 40)
    costs = {}
    for width in (4, 12, 20):
        costs[width] = sum(width if length <= width else 40 for length in lengths)
    assert best_widths(lengths, 2)[0] == min(costs, key=costs.get)
    assert best_widths(lengths, 9) == (4, 12, 20, 40)


def test_microbatches_must_divide_the_rows() -> None:
    batches = PairBatches([make_pairs(200, 0)], 1024, seed=0, buckets=3, parts_of_step=4)
    assert all(len(batches(step)["source"]) % 4 == 0 for step in range(5))
    with pytest.raises(InputError, match="microbatch"):
        PairBatches([make_pairs(200, 0)], 1024, seed=0, buckets=3, parts_of_step=7)
    with pytest.raises(InputError, match="raise it"):
        PairBatches([make_pairs(200, 0)], 8, seed=0, buckets=3)


def test_every_sentence_is_evaluated_once() -> None:
    pairs = make_pairs(50, 3)
    lengths = pairs.lengths[:, 0]
    found = sentence_batches(lengths, best_widths(lengths, 3), 8)
    assert sorted(row for _, rows in found for row in rows) == list(range(50))
    assert all(lengths[rows].max() <= width for width, rows in found)
    _, rows = found[-1]
    batch = evaluation_batch(pairs, rows, 40, 8)
    assert batch["source"].shape == (8, 40)
    assert (batch["target"][len(rows) :] == PAD).all() and (
        batch["source"][len(rows) :, 0] == EOS
    ).all()
