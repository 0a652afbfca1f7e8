from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tlc_jax.data.batches import LabelledBatches, RowBatches, evaluation_batches, load_ahead
from tlc_jax.data.labelled import Labelled, bucket_widths
from tlc_jax.data.order import evaluated
from tlc_jax.data.packing import Packed


def packed(rows: int, name: str = "a", weight: float = 0.0, base: int = 0) -> Packed:
    tokens = np.arange(base, base + rows, dtype=np.uint16)[:, None] * np.ones(8, np.uint16)
    return Packed(tokens, name, weight)


def labelled(
    lengths: list[int], labels: list[int] | None = None, name: str = "a", weight: float = 0.0
) -> Labelled:
    """Example i is its number + 100, `lengths[i]` times."""
    return Labelled(
        name=name,
        tokens=np.repeat(np.arange(len(lengths)) + 100, lengths).astype(np.uint16),
        starts=np.cumsum(lengths) - lengths,
        lengths=np.array(lengths),
        labels=np.array(labels if labels is not None else [0] * len(lengths), np.int32),
        ids=np.arange(len(lengths)),
        label_names=("x", "y"),
        length=40,
        weight=weight,
    )


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_an_epoch_has_each_row_once_even_if_batches_do_not_divide_it() -> None:
    batches = RowBatches([packed(10), packed(11, "b", base=10)], batch_size=6, seed=0)
    assert batches.rows_per_epoch == 21
    seen = np.concatenate(
        [batches(step)["tokens"][:, 0] for step in range(14)]
    )  # four epochs of 21
    for epoch in range(4):
        assert sorted(seen[epoch * 21 : epoch * 21 + 21]) == list(range(21))
    assert not np.array_equal(seen[:21], seen[21:42])


def test_any_step_can_be_computed_alone_and_again() -> None:
    for make in (
        lambda: RowBatches([packed(10, weight=1.0), packed(7, "b", 2.0, base=10)], 4, seed=5),
        lambda: LabelledBatches([labelled([3, 20, 5]), labelled([7] * 9, name="b")], 4, seed=5),
    ):
        walked = [make_once(step) for make_once in [make()] for step in range(30)]
        again = make()
        for step in (29, 3, 3, 17, 0):
            assert same(make()(step), walked[step])
            assert same(again(step), walked[step])


def test_rows_are_int32_and_weights_set_the_proportions() -> None:
    batches = RowBatches(
        [packed(10, weight=1.0), packed(7, "b", 3.0, base=10)], batch_size=8, seed=0
    )
    for step in range(20):
        tokens = batches(step)["tokens"]
        assert tokens.dtype == np.int32 and tokens.shape == (8, 8)
        assert (tokens[:, 0] >= 10).sum() == 6


def test_batches_of_chosen_rows_hold_only_those() -> None:
    part = packed(20).take_rows(np.array([3, 17, 5]))
    seen = np.concatenate(
        [RowBatches([part], 3, seed=0)(step)["tokens"][:, 0] for step in range(5)]
    )
    assert set(seen) == {3, 5, 17}


def test_seeds_order_rows_differently() -> None:
    a, b = (RowBatches([packed(50)], 50, seed)(0)["tokens"] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_labelled_batches_have_the_narrowest_width_that_fits() -> None:
    batches = LabelledBatches([labelled([5, 16, 17, 40], [0, 1, 0, 1])], batch_size=1, seed=0)
    assert batches.rows_per_epoch == 4 and batches.widths == (16, 32, 40)
    widths = {}
    for step in range(4):
        tokens, labels = batches(step)["tokens"], batches(step)["labels"]
        number, length = tokens[0, 0] - 100, (tokens != 0).sum()
        assert (tokens[0, :length] == number + 100).all() and labels[0] == number % 2
        widths[int(length)] = tokens.shape[1]
        assert (tokens.dtype, labels.dtype) == (np.int32, np.int32)
    assert widths == {5: 16, 16: 16, 17: 32, 40: 40}
    expected = [batches(step)["tokens"].shape[1] for step in range(7)]
    assert batches.widths_of(7).tolist() == expected
    assert bucket_widths(128)[-1] == 128 and bucket_widths(16) == (16,)


def test_unlabelled_examples_are_never_trained_on() -> None:
    batches = LabelledBatches([labelled([3, 4, 5, 6], [0, -1, 1, -1])], batch_size=2, seed=0)
    assert batches.rows_per_epoch == 2
    seen = {int(row[0]) for step in range(5) for row in batches(step)["tokens"]}
    assert seen == {100, 102}


@pytest.mark.parametrize(("limit", "count"), [(0, 11), (7, 7), (100, 11)])
@pytest.mark.parametrize("size", [1, 4, 11, 20])
def test_evaluation_counts_every_example_once(size: int, limit: int, count: int) -> None:
    lengths = [9, 30, 2, 17, 5, 33, 1, 8, 40, 12, 3]
    for data in (packed(11, base=100), labelled(lengths, list(range(11)))):
        found = []
        for batch in evaluation_batches(data, size, limit):
            assert batch["tokens"].shape[0] == batch["weights"].shape[0] == size
            assert batch["weights"].dtype == np.float32
            real = batch["weights"] == 1
            assert set(batch["weights"]) <= {0.0, 1.0}
            np.testing.assert_array_equal(batch["tokens"][:, 0], batch["index"] + 100)
            if isinstance(data, Labelled):
                np.testing.assert_array_equal(
                    (batch["tokens"] != 0).sum(axis=1), np.array(lengths)[batch["index"]]
                )
                np.testing.assert_array_equal(batch["labels"], batch["index"])
            found += batch["index"][real].tolist()
        assert len(found) == len(set(found)) == count
        # At random, yet the same whatever the size of the batches.
        assert sorted(found) == evaluated(11, limit, data.name).tolist()


def test_a_part_to_evaluate_on_is_random_and_the_same_for_all_runs() -> None:
    few, more = (evaluated(1000, limit, "dev").tolist() for limit in (50, 100))
    assert len(few) == 50 and few == sorted(few) and set(few) < set(more)
    assert abs(np.mean(few) - 500) < 120
    assert few != evaluated(1000, 50, "test").tolist()
    assert evaluated(5, 0, "dev").tolist() == evaluated(5, 9, "dev").tolist() == list(range(5))


def test_evaluation_by_length_saves_padding() -> None:
    data = labelled([40, 3] * 20)
    assert sum(batch["tokens"].size for batch in evaluation_batches(data, 4)) == 20 * 40 + 20 * 16


@pytest.mark.parametrize("prefetch", [0, 1, 3, 8])
def test_load_ahead_yields_the_batches_of_the_function(prefetch: int) -> None:
    ahead = load_ahead(lambda step: step * step, 5, prefetch)
    assert [next(ahead) for _ in range(20)] == [step * step for step in range(5, 25)]
    ahead.close()


def test_load_ahead_stays_within_its_prefetch() -> None:
    done: list[int] = []
    ahead = load_ahead(lambda step: done.append(step) or step, 0, 2)
    next(ahead)
    until = time.monotonic() + 10
    while len(done) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert 3 <= len(done) <= 5
    ahead.close()


@pytest.mark.parametrize("prefetch", [2, 8])
def test_load_ahead_raises_at_the_failed_batch_and_closing_ends_the_thread(prefetch: int) -> None:
    def failing(step: int) -> int:
        if step == 7:
            raise OSError("disk gone")
        return step

    before = threading.active_count()
    ahead = load_ahead(failing, 4, prefetch)
    assert [next(ahead) for _ in range(3)] == [4, 5, 6]
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)
    endless = load_ahead(lambda step: step, 0, prefetch)
    next(endless)
    endless.close()
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before
