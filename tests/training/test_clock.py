"""Budgets and accounting under an injected clock."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tlc_jax.config import resolve
from tlc_jax.config.durations import Amounts
from tlc_jax.training.benchmark import benchmark_step, measured_once, shared_measurement
from tlc_jax.training.clock import Accounting, Budget


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_seconds_are_added_to_their_cause_and_to_the_total() -> None:
    clock = FakeClock()
    accounting = Accounting(clock)
    with accounting.measure("eval"):
        clock.now += 3.0
    accounting.add_training(Amounts(steps=2, tokens=10), 1.5)
    clock.now += 2.0
    assert accounting.seconds["eval"] == 3.0
    assert accounting.spent == Amounts(seconds=1.5, steps=2, tokens=10)
    assert accounting.total == 5.0


def test_restored_accounting_continues_the_saved_one() -> None:
    clock = FakeClock()
    accounting = Accounting(clock)
    accounting.add_training(Amounts(steps=3, flops=7.0), 2.0)
    clock.now += 4.0
    saved = accounting.save()
    clock.now += 1000.0  # nothing is charged while no process runs
    again = Accounting(clock, saved)
    again.add_training(Amounts(steps=1), 1.0)
    assert again.spent.steps == 4
    assert again.spent.seconds == 3.0
    assert again.total == 4.0


def test_training_seconds_alone_count_unless_everything_is_charged() -> None:
    clock = FakeClock()
    accounting = Accounting(clock)
    accounting.add_training(Amounts(steps=1), 2.0)
    clock.now += 8.0
    limits = Amounts(seconds=10.0)
    assert Budget(limits).used(accounting.spent, accounting.total) == (0.2, "seconds")
    assert Budget(limits, charge="total").used(accounting.spent, accounting.total) == (
        0.8,
        "seconds",
    )


def test_seconds_become_steps_once_and_a_step_limit_still_holds() -> None:
    assert Budget(Amounts(seconds=10.0, tokens=5)).in_steps(40).limits == Amounts(
        steps=40, tokens=5
    )
    assert Budget(Amounts(seconds=10.0, steps=30)).in_steps(40).limits.steps == 30


def test_the_benchmark_waits_for_stable_steps_and_averages_a_hundred() -> None:
    durations = itertools.chain(
        [5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0], itertools.repeat(1.0)
    )
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        return next(durations)

    assert benchmark_step(step, 1e6) == 1.0
    assert 110 <= count <= 150


def test_a_short_budget_shortens_the_benchmark() -> None:
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        return 1.0

    assert benchmark_step(step, 50.0) == 1.0
    assert count == 20


def test_a_measurement_is_written_down(tmp_path) -> None:
    path = tmp_path / "benchmark.json"
    name = tmp_path.name
    assert measured_once(path, lambda: 0.125) == {"seconds_per_step": 0.125, "measured_by": name}
    assert measured_once(path, lambda: 9.0)["seconds_per_step"] == 0.125
    path.write_text('{"seconds_per')  # cut short by a kill
    assert measured_once(path, lambda: 0.5)["seconds_per_step"] == 0.5
    path.write_text('{"seconds_per_step": 0.25}')  # as older versions wrote it
    assert measured_once(path, lambda: 9.0) == {"seconds_per_step": 0.25, "measured_by": name}


def test_runs_share_a_measurement_and_keep_it(tmp_path) -> None:
    shared = tmp_path / "benchmarks" / "key.json"
    own = [tmp_path / name / "benchmark.json" for name in ("first", "second")]
    for path in own:
        path.parent.mkdir()
    measured = threading.Event()

    def slow() -> float:
        measured.set()
        time.sleep(0.2)
        return 0.125

    with ThreadPoolExecutor() as pool:
        first = pool.submit(measured_once, own[0], slow, shared)
        assert measured.wait(10)
        # It waits for the first one instead of measuring beside it.
        second = pool.submit(measured_once, own[1], lambda: 9.0, shared)
    expected = {"seconds_per_step": 0.125, "measured_by": "first"}
    assert first.result() == second.result() == expected
    shared.unlink()
    assert measured_once(own[1], lambda: 9.0, shared) == expected


def test_seeds_share_a_measurement_and_sizes_do_not(tmp_path) -> None:
    def file(**settings):
        budget = {"seconds": 1.0, "benchmarks": str(tmp_path), **settings.pop("budget", {})}
        meta = {"model": settings.get("model", {})}
        return shared_measurement(resolve({**settings, "budget": budget}), meta)

    assert file(seed=0) == file(seed=1) == file(budget={"seconds": 9.0})
    others = [{"model": {"layers": 2}}, {"optimizer": {"batch_size": 8}}, {"data": {"length": 64}}]
    others += [{"impl": {"matmul": "mix"}}, {"recipe": "prune:0.5"}]
    assert len({file(), *(file(**each) for each in others)}) == 6
    assert file(budget={"benchmarks": ""}) is None


def test_nothing_is_used_without_a_limit() -> None:
    assert Budget(Amounts()).used(Amounts(seconds=5.0), 9.0) == (0.0, "")
    assert Budget(Amounts(seconds=1.0)).used(Amounts(), 9.0) == (0.0, "seconds")
