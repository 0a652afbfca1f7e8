"""Latency, under an injected clock."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tlc_jax.config import Config, Impl, Model, Objective
from tlc_jax.models.network import Network
from tlc_jax.tasks import latency
from tlc_jax.tasks.base import task_of

MODEL = Model(layers=1, hidden=64, max_length=16)


class Machine:
    """A clock, and calls that take as long as they are told to."""

    def __init__(self, seconds):
        self.now, self.seconds, self.calls = 0.0, seconds, 0

    def clock(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += self.seconds(self.calls)
        self.calls += 1


def test_slow_calls_are_timed_twenty_times_and_quick_ones_for_two_seconds() -> None:
    for seconds, calls in ((1.0, 20), (1 / 64, 128)):
        machine = Machine(lambda _, seconds=seconds: seconds)
        assert latency.time_calls(machine.call, machine.clock) == [seconds] * calls
        assert machine.calls == 3 + calls


def test_calls_that_warm_up_do_not_count() -> None:
    machine = Machine(lambda call: 100.0 if call < 3 else 0.25)
    assert set(latency.time_calls(machine.call, machine.clock)) == {0.25}


def test_the_summary_is_in_milliseconds() -> None:
    found = latency.summary(8, [0.05, 0.01, 0.03, 0.02, 0.04])
    assert (found["median_ms"], found["least_ms"]) == pytest.approx((30, 10))
    assert found["quartiles_ms"] == pytest.approx((20, 40))
    assert found["sequences_per_second"] == pytest.approx(8 / 0.03)
    assert found["calls"] == 5


@pytest.mark.parametrize("kind", ["classifier", "mlm"])
def test_each_batch_size_runs_the_compiled_network_on_full_rows(kind, monkeypatch) -> None:
    network = Network(kind, MODEL, 50, 3 if kind == "classifier" else 0, Impl())
    config = Config(objective=Objective(mask_rate=0.25))
    inputs = {
        size: task_of(kind).forward_inputs(config, np.full((size, 16), 9, np.int32))
        for size in (1, 4)
    }
    shapes = []

    def time_calls(call, clock):
        shapes.append(call().shape)
        return [0.25, 0.5, 0.75]

    monkeypatch.setattr(latency, "time_calls", time_calls)
    numbers = latency.measure(network, network.init(jax.random.key(0)), inputs)
    assert shapes == ([(1, 3), (4, 3)] if kind == "classifier" else [(1, 4, 50), (4, 4, 50)])
    assert (numbers["latency_ms_1"], numbers["latency_ms_4"]) == (500.0, 500.0)
    assert numbers["latency"]["length"] == 16
    assert numbers["latency"]["computes"] == "float32, dense"
    assert [one["sequences_per_second"] for one in numbers["latency"]["batches"]] == [2.0, 8.0]


def test_translators_are_not_timed() -> None:
    assert task_of("translator").forward_inputs(Config(), np.ones((1, 4), np.int32)) == ()
