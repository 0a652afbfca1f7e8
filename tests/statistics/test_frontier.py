import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlc_jax.statistics.frontier import best_under, group, pareto, round_budgets, summarize

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def _dominated(index, points):
    cost, value = points[index]
    return any(
        (c <= cost and v >= value) and ((c, v) != (cost, value) or other < index)
        for other, (c, v) in enumerate(points)
        if other != index
    )


@given(POINTS)
def test_frontier_is_the_points_that_nothing_dominates(points):
    found = pareto([cost for cost, _ in points], [value for _, value in points])
    assert sorted(found) == [index for index in range(len(points)) if not _dominated(index, points)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


@given(POINTS, st.integers(-1, 7))
def test_best_under_a_budget_is_the_last_frontier_point_that_fits(points, budget):
    costs, values = [cost for cost, _ in points], [value for _, value in points]
    fitting = [index for index in pareto(costs, values) if costs[index] <= budget]
    assert best_under(budget, costs, values) == (fitting[-1] if fitting else None)


def test_ties_go_to_the_first():
    assert pareto([1.0, 1.0, 2.0], [5.0, 5.0, 5.0]) == [0]
    assert best_under(3.0, [2.0, 1.0, 1.0], [5.0, 5.0, 5.0]) == 1


def test_summary_is_mean_and_sample_deviation():
    found = summarize([1.0, 2.0, 3.0, 6.0])
    assert (found.mean, found.n) == (3.0, 4)
    assert found.std == pytest.approx(math.sqrt(14 / 3))
    assert summarize([0.7]).std == 0.0
    nothing = summarize([])
    assert math.isnan(nothing.mean) and (nothing.std, nothing.n) == (0.0, 0)


def test_group_keeps_order():
    assert list(group("banana", lambda letter: letter).items()) == [
        ("b", ["b"]),
        ("a", ["a"] * 3),
        ("n", ["n"] * 2),
    ]


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([0.11, 22.0], (0.2, 2.0, 10.0)),
        ([1.0, 9.0], (1.5, 3.0, 6.0)),
        ([1.02, 1.3], (1.1, 1.2)),
        ([3.0], (3.0,)),
        ([3.14], (3.14,)),
    ],
)
def test_budgets_are_round_and_inside_the_data(costs, expected):
    assert round_budgets(costs) == expected
