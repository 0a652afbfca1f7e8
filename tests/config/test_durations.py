"""Durations: the fraction used, and when a periodic event is due."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.config.durations import UNITS, Amounts, due, used

COUNTS = st.integers(0, 1000)
STEPS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def test_nothing_is_used_without_a_limit():
    assert used(Amounts(), Amounts(seconds=5.0, steps=7)) == (0.0, "")


def test_the_first_limit_used_up_counts():
    limits = Amounts(seconds=100.0, steps=10)
    assert used(limits, Amounts(seconds=20.0, steps=5)) == (0.5, "steps")
    assert used(limits, Amounts(seconds=80.0, steps=5)) == (0.8, "seconds")


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_counted(unit):
    assert used(Amounts(**{unit: 4}), Amounts(**{unit: 1})) == (0.25, unit)
    assert due(Amounts(**{unit: 4}), Amounts(**{unit: 3}), Amounts(**{unit: 4}))


def test_an_overshoot_is_reported():
    assert used(Amounts(steps=10), Amounts(steps=12)) == (1.2, "steps")


@given(COUNTS, COUNTS)
def test_amounts_add_up_unit_by_unit(left, right):
    both = Amounts(steps=left, seconds=1.5) + Amounts(steps=right, tokens=right)
    assert dataclasses.asdict(both) == {
        **dataclasses.asdict(Amounts()),
        "steps": left + right,
        "seconds": 1.5,
        "tokens": right,
    }


@given(st.integers(1, 30), STEPS)
def test_events_fall_on_the_same_marks_however_progress_is_cut(period, advances):
    """One event per interval with a mark, so a resumed run fires where an uninterrupted one did."""
    every, before, fired = Amounts(steps=period), 0, 0
    for advance in advances:
        now = before + advance
        is_due = due(every, Amounts(steps=before), Amounts(steps=now))
        assert is_due == any(mark % period == 0 for mark in range(before + 1, now + 1))
        fired += is_due
        before = now
    assert fired <= before // period


def test_no_period_is_never_due():
    assert not due(Amounts(), Amounts(), Amounts(seconds=1e9, steps=10**9))


def test_any_unit_suffices():
    every = Amounts(seconds=10.0, steps=100)
    assert due(every, Amounts(seconds=9.0, steps=1), Amounts(seconds=10.5, steps=2))
    assert not due(every, Amounts(seconds=10.5, steps=2), Amounts(seconds=11.0, steps=3))
