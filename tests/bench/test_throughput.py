"""Timing in alternation, under an injected clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tlc_jax.bench.throughput import Variant, alternate, in_own_process, summary


def test_variants_are_timed_in_turn_after_warming_up() -> None:
    now, order = [0.0], []

    def variant(name: str, cost: float):
        def run() -> None:
            order.append(name)
            now[0] += cost

        return run

    seconds = alternate(
        {"a": variant("a", 1.0), "b": variant("b", 2.0)}, rounds=2, repeats=3, clock=lambda: now[0]
    )
    assert seconds == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert "".join(order) == "aabb" + 2 * "aaabbb"


def test_ratios_are_taken_round_by_round() -> None:
    seconds = {"fast": [1.0, 4.0, 1.0], "slow": [2.0, 8.0, 3.0]}
    rows = summary(seconds, work=10.0, references={"": "slow"})
    assert rows["slow"]["ratio"] == 1.0
    assert rows["fast"]["ratio"] == 2.0
    assert (rows["fast"]["ratio_least"], rows["fast"]["ratio_most"]) == (2.0, 3.0)
    assert rows["fast"]["per_second"] == pytest.approx(10.0)


def make_writer(path: str) -> Variant:
    def run() -> None:
        with Path(path).open("a") as file:
            print(os.getpid(), file=file)

    return run


def make_failure(how: str) -> Variant:
    def run() -> None:
        if how == "die":
            os._exit(3)
        raise ValueError("no such luck")

    return run


def test_a_variant_lives_in_one_process_of_its_own(tmp_path) -> None:
    with in_own_process(make_writer, str(tmp_path / "log")) as run:
        run()
        run()
    pids = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert len(pids) == 2 and pids[0] == pids[1] != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.parametrize(
    "how, error, message",
    [
        ("raise", ValueError, "no such luck"),
        ("die", RuntimeError, "the process of a variant died"),
    ],
)
def test_failure_in_the_process_is_raised_here(how, error, message) -> None:
    with in_own_process(make_failure, how) as run, pytest.raises(error, match=message):
        run()
