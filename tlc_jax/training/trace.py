"""A trace of a few training steps, for xprof or TensorBoard (impl.profile)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

from tlc_jax.config.durations import Amounts
from tlc_jax.config.resolve import parse_profile
from tlc_jax.core import distributed as processes
from tlc_jax.core.files import is_remote, remove_folder, upload_folder
from tlc_jax.training.clock import Accounting


class Trace:
    """Traces a range of training steps on the devices of process 0.

    Steps of the range that a continued run does again are traced again.

    Args:
      text: START:STEPS, the steps done when tracing begins, and how many are traced.
      workdir: folder of the run; xprof and TensorBoard open profile/ in it.
      synchronize: waits until all steps begun are finished, on all processes.
      accounting: books the seconds of beginning and of writing as `profile`.
    """

    def __init__(
        self, text: str, workdir: Path, synchronize: Callable[[], None], accounting: Accounting
    ):
        start, steps = parse_profile(text)
        self._range, self._inside = range(start, start + steps), False
        self._folder = self._target = workdir / "profile"
        self._synchronize, self._accounting = synchronize, accounting
        self._running = False

    def is_due(self, _: Amounts, now: Amounts) -> bool:
        """Whether tracing begins or ends, alike on all processes."""
        return (now.steps in self._range) != self._inside

    def begin_or_end(self) -> None:
        """Begins tracing, or ends it and writes the trace; process 0 does."""
        self._synchronize()
        self._inside = not self._inside
        self.close()
        if self._inside and processes.first():
            options = jax.profiler.ProfileOptions()
            # Calls of Python functions would fill the trace and slow the steps down.
            options.python_tracer_level = 0
            with self._accounting.measure("profile"):
                self._target = self._folder
                if is_remote(self._folder):  # which the profiler cannot write to
                    self._target = Path(tempfile.mkdtemp(prefix="tlc-profile-"))
                jax.profiler.start_trace(self._target, profiler_options=options)
            self._running = True

    def close(self) -> None:
        """Writes the trace, also that of a run which ends while it is traced."""
        if self._running:
            self._running = False
            with self._accounting.measure("profile"):
                jax.profiler.stop_trace()
                if self._target != self._folder:
                    upload_folder(self._target, self._folder)
                    remove_folder(self._target)
