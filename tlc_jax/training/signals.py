"""SIGINT and SIGTERM as a polite request: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self


class Interrupted(Exception):
    """A stop was asked for where nothing has to be finished first."""


class StopRequest:
    """Within its with-block, the first SIGINT or SIGTERM sets `received`; a second SIGINT interrupts as usual."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupts = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # elsewhere Python forbids handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            self._restore()
        if self._interrupts:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within this with-block a stop raises `Interrupted` at once, as does one that was asked for before."""
        self._interrupts = True
        try:
            if self.received:
                raise Interrupted
            yield
        finally:
            self._interrupts = False

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
