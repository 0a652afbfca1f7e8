from __future__ import annotations

import io

import pytest

from tlc_jax.data.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that bars see."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_on_a_terminal_the_bar_is_redrawn_now_and_then(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    bar = Bar("packing", "tokens")
    for step in range(100):
        now[0] = step / 100
        bar.reach(step * 10_000, step / 100)
    bar.finish(1_000_000)
    drawn = stream.getvalue().split("\r")[1:]
    assert 4 <= len(drawn) <= 6
    done = "packing [########################] 100%  1.00M tokens  1.01M tokens/s"
    assert drawn[-1].rstrip() == done
    assert "[####....................]  20%" in drawn[1]


def test_off_a_terminal_only_the_end_is_written_and_nothing_if_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for show, lines in ((True, 1), (False, 0)):
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        bar = Bar("packing", "tokens", show)
        bar.reach(10, 0.5)
        assert stream.getvalue() == ""
        bar.finish(20)
        assert stream.getvalue().count("\n") == lines


def test_an_unfinished_bar_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    bar = Bar("packing", "tokens")
    bar.reach(10, None)
    bar.close()
    assert stream.getvalue() == ""


def test_small_counts_are_written_out(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("predicting", "texts")
    now[0] = 100.0
    bar.finish(4100)
    assert capsys.readouterr().err.endswith("] 100%  4.10k texts  41.0 texts/s\n")
