from __future__ import annotations

from tlc_jax.compression.iterative import schedule


def test_schedule_is_the_papers() -> None:
    assert schedule(0.9, 0.15) == (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
    assert schedule(0.4, 0.15) == (0.15, 0.3, 0.4)
    assert schedule(0.3, 1.0) == (0.3,)
    assert len(schedule(0.14, 0.02)) == 7  # although 0.14 / 0.02 is a little more than 7
    assert schedule(0.0, 0.15) == ()
