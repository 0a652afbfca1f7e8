"""Budgets and ledgers under an injected clock."""

from __future__ import annotations

import itertools

import pytest

from tlc_jax.config.durations import Amounts
from tlc_jax.training.budget import Budget, Ledger, benchmark_step, keep_benchmark, known_benchmark


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_seconds_are_booked_under_their_cause_and_the_total_runs_on() -> None:
    clock = FakeClock()
    ledger = Ledger(clock)
    with ledger.booked("eval"):
        clock.now += 3.0
    ledger.finish_steps(Amounts(steps=2, tokens=10), 1.5)
    clock.now += 2.0
    assert ledger.seconds["eval"] == 3.0
    assert ledger.spent == Amounts(seconds=1.5, steps=2, tokens=10)
    assert ledger.total == 5.0


def test_a_restored_ledger_goes_on_where_the_saved_one_was() -> None:
    clock = FakeClock()
    ledger = Ledger(clock)
    ledger.finish_steps(Amounts(steps=3, flops=7.0), 2.0)
    clock.now += 4.0
    saved = ledger.save()
    clock.now += 1000.0  # the time in which no process ran is nobody's
    again = Ledger(clock, saved)
    again.finish_steps(Amounts(steps=1), 1.0)
    assert again.spent.steps == 4
    assert again.spent.seconds == 3.0
    assert again.total == 4.0


def test_training_seconds_alone_count_unless_everything_is_charged() -> None:
    clock = FakeClock()
    ledger = Ledger(clock)
    ledger.finish_steps(Amounts(steps=1), 2.0)
    clock.now += 8.0
    limits = Amounts(seconds=10.0)
    assert Budget(limits).used(ledger) == (0.2, "seconds")
    assert Budget(limits, charge="total").used(ledger) == (0.8, "seconds")


def test_steps_in_flight_count() -> None:
    ledger = Ledger(FakeClock())
    ledger.finish_steps(Amounts(steps=8), 1.0)
    assert Budget(Amounts(steps=10)).used(ledger, Amounts(steps=2)) == (1.0, "steps")


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
    assert known_benchmark(path) is None
    keep_benchmark(path, 0.125)
    assert known_benchmark(path) == 0.125
    path.write_text('{"seconds_per')
    assert known_benchmark(path) is None


def test_nothing_is_used_without_a_limit() -> None:
    assert Budget(Amounts()).used(Ledger(FakeClock())) == (0.0, "")
    assert pytest.approx(0.0) == Budget(Amounts(seconds=1.0)).used(Ledger(FakeClock()))[0]
