from __future__ import annotations

import io

from tlc_jax.data.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_bar_is_redrawn_now_and_then() -> None:
    now = [0.0]
    stream = Terminal()
    bar = Bar("packing", "tokens", stream=stream, clock=lambda: now[0])
    for step in range(100):
        now[0] = step / 100
        bar.update(step / 100, step * 10_000)
    bar.close(1_000_000)
    drawn = stream.getvalue().split("\r\x1b[K")[1:]
    assert 4 <= len(drawn) <= 6
    assert drawn[-1] == "packing [########################] 100%  1.00 M tokens  1.01 M/s\n"
    assert "[#####..................." in drawn[0]


def test_elsewhere_only_the_end_is_written_and_nothing_if_unwanted() -> None:
    for show, lines in ((True, 1), (False, 0)):
        stream = io.StringIO()
        bar = Bar("packing", "tokens", show=show, stream=stream, clock=lambda: 1.0)
        bar.update(0.5, 10)
        bar.close(20)
        assert stream.getvalue().count("\n") == lines


def test_small_counts_are_written_out() -> None:
    stream, now = io.StringIO(), [0.0]
    bar = Bar("predicting", "texts", stream=stream, clock=lambda: now[0])
    now[0] = 100.0
    bar.close(4100)
    assert stream.getvalue().endswith("] 100%  4.1 k texts  41/s\n")
