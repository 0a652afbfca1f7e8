"""The metrics file across restarts."""

from __future__ import annotations

import io
import json

from tlc_jax.core.files import read_json_lines
from tlc_jax.training.metrics_log import MetricsWriter, ProgressLine


def test_rows_of_lost_steps_and_half_rows_are_dropped_on_resume(tmp_path) -> None:
    first = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        first.write("train", step, loss=float(step))
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "event": "tra')
    second = MetricsWriter(tmp_path, step=2)
    second.write("train", 3, loss=9.0)
    second.close()
    assert [(row["step"], row["loss"]) for row in read_json_lines(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 9.0),
    ]


def test_non_finite_values_become_null(tmp_path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write("train", 1, loss=float("nan"), mfu=None)
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "event": "train",
        "loss": None,
        "mfu": None,
    }


def test_a_log_file_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for now in (0.0, 1.0, 29.0, 30.0, 31.0, 70.0):
        line.show(f"at {now:g}", now)
    assert stream.getvalue().split("\n")[:-1] == ["at 0", "at 30", "at 70"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_rewritten_in_place() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line.show("one", 0.0)
    line.show("two", 0.1)
    line.close()
    assert stream.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\n"


def test_tensorboard_events_are_written_when_asked_for(tmp_path) -> None:
    writer = MetricsWriter(tmp_path, tensorboard=True)
    writer.write("train", 1, loss=2.0)
    writer.close()
    assert any((tmp_path / "tensorboard").iterdir())
