import pytest

from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Size
from tlc_jax.statistics.uncertainty import clear, half_width, pool, rule, trend

SMALL, MIDDLE, LARGE = Size(1, 2, 64), Size(2, 3, 128), Size(3, 4, 256)


def test_one_seed_leaves_the_margin_alone():
    spread = pool([[0.70], [0.71]])
    assert clear([0.70], [0.71], spread, margin=0.005) == 1
    assert clear([0.71], [0.70], spread, margin=0.005) == -1
    assert clear([0.70], [0.71], spread, margin=0.02) == 0


def test_a_wide_spread_makes_the_same_difference_unclear():
    tight, wide = (
        [[0.700, 0.702, 0.698], [0.720, 0.722, 0.718]],
        [[0.70, 0.74, 0.66], [0.72, 0.76, 0.68]],
    )
    assert clear(*tight, pool(tight), margin=0.005) == 1
    assert clear(*wide, pool(wide), margin=0.005) == 0


def test_interval_is_students():
    # Two groups of three, standard deviation 1: t(4 degrees, 97.5 %) = 2.776445 times sqrt(2/3).
    spread = pool([[-1.0, 0.0, 1.0], [4.0, 5.0, 6.0]])
    assert half_width(spread, 3, 3) == pytest.approx(2.776445105 * (2 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("values", "holds"),
    [((0.1, 0.2, 0.3), True), ((0.3, 0.2, 0.1), False), ((0.2, 0.2, 0.2), False),
     ((0.1, 0.3, 0.2), True), ((0.2, 0.3, 0.2), False), ((0.2, 0.215, 0.207), False)],
)  # fmt: skip
def test_trend(values, holds):
    found = trend(
        {size: [value] for size, value in zip((SMALL, MIDDLE, LARGE), values, strict=True)},
        margin=0.01,
    )
    assert found.holds is holds
    assert found.pairs == 3


def test_the_rule_names_the_scores_that_it_is_used_on():
    assert "0.01 nats of loss, 0.5 points of accuracy)" in rule([ENCODER])
    assert "0.5 points of BLEU)" in rule([TRANSLATOR])
    assert "0.5 points of accuracy or BLEU)" in rule([ENCODER, TRANSLATOR])
