"""Timing in alternation, under an injected clock."""

from __future__ import annotations

import functools
import itertools
import os
from pathlib import Path

import pytest

from tlc_jax.bench.throughput import (
    Variant,
    alternate,
    in_own_process,
    summary,
    time_in_own_processes,
)


def test_variants_are_timed_in_turn_after_warming_up() -> None:
    now, order = [0.0], []

    def variant(name: str, cost: float):
        def run(repeats: int) -> None:
            order.append(name * repeats)
            now[0] += cost * repeats

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


def test_a_variant_that_fails_is_left_out_and_says_why() -> None:
    calls = itertools.count()

    def fails(repeats: int) -> None:
        if next(calls) == 3:
            raise ValueError("out of\nmemory")

    variants: dict[str, Variant] = {"fails": fails, "works": lambda repeats: None}
    failures: dict[str, str] = {}
    seconds = alternate(variants, rounds=4, repeats=1, failures=failures)
    assert {name: len(values) for name, values in seconds.items()} == {"works": 4}
    assert failures == {"fails": "out of memory"}
    calls = itertools.count()
    with pytest.raises(ValueError, match="out of"):
        alternate(variants, rounds=4, repeats=1)


def make_writer(path: str) -> Variant:
    def run(repeats: int) -> None:
        with Path(path).open("a") as file:
            print(os.getpid(), repeats, file=file)

    return run


class CannotBePickled(Exception):
    def __init__(self, first: str, second: str):
        super().__init__(f"{first}\n{second}")


def make_failure(how: str) -> Variant:
    def run(repeats: int) -> None:
        if how == "die":
            os._exit(3)
        raise CannotBePickled("no such luck", "and a long program")

    return run


def test_a_variant_lives_in_one_process_of_its_own(tmp_path) -> None:
    with in_own_process(functools.partial(make_writer, str(tmp_path / "log"))) as run:
        run(1)
        run(5)
    (first, one), (second, five) = (
        line.split() for line in (tmp_path / "log").read_text().splitlines()
    )
    assert int(first) == int(second) != os.getpid() and (one, five) == ("1", "5")
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


@pytest.mark.parametrize(
    "how, message",
    [("raise", "^CannotBePickled: no such luck$"), ("die", "the process of a variant died")],
)
def test_failure_in_the_process_is_raised_here(how, message) -> None:
    make = functools.partial(make_failure, how)
    with in_own_process(make) as run, pytest.raises(RuntimeError, match=message):
        run(1)


@pytest.mark.parametrize("in_turn", [True, False])
def test_processes_alternate_or_follow_each_other(tmp_path, in_turn) -> None:
    log = str(tmp_path / "log")
    makers = {
        "first": functools.partial(make_writer, log),
        "dies": functools.partial(make_failure, "die"),
        "second": functools.partial(make_writer, log),
    }
    seconds, failures = time_in_own_processes(makers, rounds=2, repeats=3, in_turn=in_turn)
    assert {name: len(values) for name, values in seconds.items()} == {"first": 2, "second": 2}
    assert failures == {"dies": "the process of a variant died"}
    first, *others = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    order = "".join("2"[pid == first :] or "1" for pid in [first, *others])
    assert order == ("11112222" if in_turn else "11221212")
