"""What a run tells: rows of metrics.jsonl, a live line on the terminal, and TensorBoard if asked for."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, TextIO

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_text


class MetricsWriter:
    """Appends one JSON object per event to `metrics.jsonl`.

    Args:
      directory: the workdir.
      step: the step that a resumed run continues from. Rows after it were written by a session that died before it
        could save, and will be written again: they are dropped.

    Attributes:
      dropped_until: `total_seconds` of the last row that was dropped; None where none was.
    """

    def __init__(self, directory: Path, step: int = 0, tensorboard: bool = False):
        self._path = directory / "metrics.jsonl"
        self.dropped_until: float | None = None
        self._drop_rows_after(step)
        self._file = self._path.open("a", encoding="utf-8")
        self._tensorboard = _tensorboard_writer(directory) if tensorboard else None

    def write(self, event: str, step: int, **values: Any) -> None:
        """Writes one row; numbers that are not finite become null, since JSON has none."""
        row = {
            "step": step,
            "event": event,
            **{name: _finite(value) for name, value in values.items()},
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _drop_rows_after(self, step: int) -> None:
        if not self._path.exists():
            return
        rows = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # cut short by a kill
                continue
            if row["step"] <= step and row["event"] != "stop":
                rows.append(line)
            elif row["step"] > step:
                self.dropped_until = row.get("total_seconds", self.dropped_until)
        write_text(self._path, "".join(f"{row}\n" for row in rows))


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """All complete rows of a run's metrics."""
    path = directory / "metrics.jsonl"
    return [
        json.loads(line)
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]


class ProgressLine:
    """One line on a terminal, rewritten in place; elsewhere a line now and then."""

    PLAIN_EVERY = 30.0  # seconds between lines in a log file

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = -math.inf

    def show(self, text: str, now: float) -> None:
        if self._live:
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()
        elif now - self._last >= self.PLAIN_EVERY:
            self._last = now
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        if self._live:
            self._stream.write("\n")
            self._stream.flush()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard_writer(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "impl.tensorboard needs the extra: pip install 'tlc_jax[tensorboard]'"
        ) from error
    return SummaryWriter(str(directory / "tensorboard"))
