"""A progress bar on stderr: redrawn in place on a terminal, one closing line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 24
_EVERY = 0.2  # seconds between redraws


class Bar:
    """`title [#####.....] 42 %  3.1 M tokens  2.2 M/s`."""

    def __init__(
        self,
        title: str,
        unit: str,
        show: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._unit, self._show, self._clock = title, unit, show, clock
        self._stream = stream or sys.stderr
        self._start = self._drawn = clock()
        self._live = show and self._stream.isatty()

    def update(self, fraction: float | None, count: int) -> None:
        """Draws `count` units done, the `fraction` of the whole where that is known."""
        now = self._clock()
        if self._live and now - self._drawn >= _EVERY:
            self._drawn = now
            self._stream.write(f"\r\x1b[K{self._line(fraction, count)}")
            self._stream.flush()

    def close(self, count: int) -> None:
        """Draws the finished bar and ends its line."""
        if self._show:
            start = "\r\x1b[K" if self._live else ""
            self._stream.write(f"{start}{self._line(1.0, count)}\n")
            self._stream.flush()

    def _line(self, fraction: float | None, count: int) -> str:
        rate = count / max(self._clock() - self._start, 1e-9)
        bar = ""
        if fraction is not None:
            filled = round(_WIDTH * min(fraction, 1.0))
            bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {min(fraction, 1.0):4.0%}  "
        return f"{self._title} {bar}{_amount(count)} {self._unit}  {_amount(rate)}/s"


def _amount(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.1f} k" if value >= 1e3 else f"{value:.0f}"
