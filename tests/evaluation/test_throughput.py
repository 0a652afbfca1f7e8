"""Timing in alternation, under an injected clock."""

from __future__ import annotations

import pytest

from tlc_jax.evaluation.throughput import alternate, summary


def test_variants_are_timed_in_turn_after_warming_up() -> None:
    now, order = [0.0], []

    def variant(name: str, cost: float):
        def run() -> None:
            order.append(name)
            now[0] += cost

        return run

    seconds = alternate({"a": variant("a", 1.0), "b": variant("b", 2.0)}, rounds=2, repeats=3, clock=lambda: now[0])
    assert seconds == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert "".join(order) == "aabb" + 2 * "aaabbb"


def test_ratios_are_taken_round_by_round() -> None:
    rows = summary({"fast": [1.0, 4.0, 1.0], "slow": [2.0, 8.0, 3.0]}, work=10.0, reference="slow")
    assert rows["slow"]["ratio"] == 1.0
    assert rows["fast"]["ratio"] == 2.0
    assert (rows["fast"]["ratio_least"], rows["fast"]["ratio_most"]) == (2.0, 3.0)
    assert rows["fast"]["per_second"] == pytest.approx(10.0)
