"""The metrics log of a run: metrics.jsonl, the progress line, trackers, and the final numbers.

In a run of several processes, process 0 writes; the others keep the same accounting in silence.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from tlc_jax.config import Config, to_dict
from tlc_jax.core import distributed as processes
from tlc_jax.core.json_lines import JsonLines
from tlc_jax.core.text import note_once
from tlc_jax.training.clock import Accounting
from tlc_jax.training.step import StepMetrics

if TYPE_CHECKING:
    from tlc_jax.training.noise_scale import NoiseScale

METRICS = "metrics.jsonl"
"""The log of a run, in its workdir."""


class MetricsLog:
    """Averages the metrics of training steps and writes them together with what was spent.

    Attributes:
      benchmark: the step time of the benchmark clock and who measured it; empty on the other clock.
      evaluated: step of the last evaluation of this session; -1 before the first.
    """

    def __init__(
        self,
        workdir: Path,
        accounting: Accounting,
        step: int,
        learning_rate: Callable[[float], float],
        peak_flops: float | None,
        settings: Config,
        saved: Mapping[str, Any],
    ) -> None:
        """Opens the log.

        Args:
          workdir: the folder of metrics.jsonl.
          accounting: what the run has spent so far; the training loop updates it.
          step: the step from which the run continues.
          learning_rate: fraction of the budget used -> learning rate.
          peak_flops: peak of all devices together, FLOP/s; None where it is unknown.
          settings: config of the run; impl.trackers get the rows too.
          saved: what an earlier session's `save` returned; empty in a new run.
        """
        self.accounting = accounting
        self._learning_rate, self._peak_flops = learning_rate, peak_flops
        self._noise_scale: NoiseScale | None = None
        if settings.eval.noise_scale:
            from tlc_jax.training.noise_scale import NoiseScale  # few runs measure it

            averages = saved.get("noise_scale", {})
            self._noise_scale = NoiseScale(settings.optimizer.batch_size, **averages)
        self._writer: MetricsWriter | None = None
        self._progress: ProgressLine | None = None
        if processes.first():
            self._progress = ProgressLine()
            self._writer = MetricsWriter(workdir, step, settings)
            if self._writer.dropped_until is not None:
                lost = max(0.0, self._writer.dropped_until - accounting.total)
                accounting.seconds["lost"] += lost
        self.benchmark: dict[str, Any] = {}
        self.evaluated = -1
        self._recent: list[StepMetrics] = []
        self._logged_seconds = accounting.seconds["train"]
        self._logged_tokens = accounting.spent.tokens

    def close(self) -> None:
        for part in (self._writer, self._progress):
            if part is not None:
                part.close()

    def flush(self) -> None:
        """Stores the rows so far, as a checkpoint of this step is about to be."""
        if self._writer is not None:
            self._writer.flush()

    def add(self, metrics: StepMetrics) -> None:
        """Adds the metrics of a step to the average of the next train row."""
        self._recent.append(metrics)
        if self._noise_scale:
            self._noise_scale.add(metrics.gradient_norm, metrics.gradient_variance)

    def save(self) -> dict[str, Any]:
        """The averages that a checkpoint carries."""
        return {"noise_scale": self._noise_scale.save()} if self._noise_scale else {}

    def _noise(self) -> dict[str, float | None]:
        return {"noise_scale": self._noise_scale.value} if self._noise_scale else {}

    @property
    def unlogged_seconds(self) -> float:
        """Training seconds since the last train row."""
        return self.accounting.seconds["train"] - self._logged_seconds

    def row(self, event: str, step: int, **values: Any) -> None:
        """Writes one row of metrics.jsonl."""
        self.evaluated = step if event == "eval" else self.evaluated
        if self._writer is not None:
            self._writer.write(
                event,
                step,
                train_seconds=self.accounting.spent.seconds,
                total_seconds=self.accounting.total,
                tokens=self.accounting.spent.tokens,
                **values,
            )

    def log(self, step: int, fraction: float, unit: str) -> None:
        """Writes a train row and the progress line for the steps since the last ones.

        Args:
          step: the last step whose result was read.
          fraction: the fraction of the budget used.
          unit: the unit of the limit that this fraction refers to.
        """
        if not self._recent:
            return
        trained, tokens = self.accounting.seconds["train"], self.accounting.spent.tokens
        seconds = self.unlogged_seconds
        speed = (tokens - self._logged_tokens) / seconds if seconds > 0 else math.nan
        means = {
            "loss": np.mean([m.loss for m in self._recent], axis=0),
            "accuracy": np.mean([m.accuracy for m in self._recent], axis=0),
            "gradient_norm": self._recent[-1].gradient_norm,
        }
        each = {}
        if np.ndim(means["loss"]):  # of seeds that train together
            columns = zip(*(values.tolist() for values in means.values()), strict=True)
            each = {"seeds": [dict(zip(means, column, strict=True)) for column in columns]}
        averages = {name: float(np.mean(values)) for name, values in means.items()}
        loss, mfu = averages["loss"], self._mfu()
        self.row(
            "train",
            step,
            **averages,
            **self._noise(),
            learning_rate=self._learning_rate(min(1.0, fraction)),
            tokens_per_second=speed,
            mfu=mfu,
            goodput=self.accounting.goodput()["train"],
            **each,
        )
        if self._progress is not None:
            # The last step may overshoot the budget.
            left = trained * max(0.0, 1 / fraction - 1) if fraction > 0 else math.nan
            mfu_text = "" if mfu is None else f" | mfu {mfu:.1%}"
            self._progress.show(
                f"step {step:,} | {min(1.0, fraction):.0%} of {unit} | {left:.0f} s left | "
                f"loss {loss:.3f} | {speed:,.0f} tokens/s{mfu_text} | "
                f"goodput {self.accounting.goodput()['train']:.0%}",
                self.accounting.clock(),
            )
        self._recent = []
        self._logged_seconds, self._logged_tokens = trained, tokens

    def _mfu(self) -> float | None:
        """Model FLOP utilization: FLOP/s of training over the peak of the devices."""
        seconds = self.accounting.seconds["train"]
        if self._peak_flops is None or seconds == 0:
            return None
        return self.accounting.spent.flops / seconds / self._peak_flops

    def numbers(self) -> dict[str, Any]:
        """The entries of result.json about the time and work that a run took."""
        spent, seconds = self.accounting.spent, self.accounting.save()["seconds"]
        return {
            "steps": spent.steps,
            "examples": spent.examples,
            "tokens": spent.tokens,
            "epochs": spent.epochs,
            "flops": spent.flops,
            "train_seconds": spent.seconds,
            "seconds": seconds,
            "goodput": self.accounting.goodput(),
            "tokens_per_second": spent.tokens / seconds["train"] if seconds["train"] else None,
            "mfu": self._mfu(),
            **self._noise(),
            **({"benchmark": self.benchmark} if self.benchmark else {}),
        }


class MetricsWriter:
    """Appends one JSON object per event to `metrics.jsonl`.

    A session that died before it could save leaves rows of steps after `step`. The resumed run
    writes those rows again, so they are dropped here.

    Args:
      directory: the workdir.
      step: the step from which a resumed run continues.
      settings: config of the run, whose impl.trackers get the rows too.

    Attributes:
      dropped_until: `total_seconds` of the last row dropped; None where none was.

    Raises:
      InputError: a tracker cannot be opened.
    """

    def __init__(self, directory: Path, step: int = 0, settings: Config | None = None):
        dropped = []

        def keep(row: dict[str, Any]) -> bool:
            if row["step"] > step:
                dropped.append(row)
            return row["step"] <= step and row["event"] != "stop"

        self._rows = JsonLines(directory / METRICS, keep)
        last = dropped[-1] if dropped else {}
        self.dropped_until: float | None = last.get("total_seconds")
        self._trackers: Sequence[Any] = ()
        if settings and settings.impl.trackers:
            from tlc_jax.training.trackers import open_trackers  # few runs have one

            self._trackers = open_trackers(settings.impl.trackers, directory, to_dict(settings))

    def write(self, event: str, step: int, **values: Any) -> None:
        """Writes one row. JSON has no infinity and no NaN, so both become null."""
        finite = _finite(values)
        self._rows.add({"step": step, "event": event, **finite})
        numbers = {
            f"{event}/{name}": value
            for name, value in finite.items()
            if isinstance(value, (int, float))
        }
        self._tell_trackers(lambda tracker: tracker.log(step, numbers))

    def flush(self) -> None:
        """Stores the rows so far, unless storage fails: then they are stored later."""
        try:
            self._rows.flush()
        except Exception as error:
            note_once(f"rows of {METRICS} wait for storage: {error}")

    def close(self) -> None:
        self._rows.close()
        self._tell_trackers(lambda tracker: tracker.close())

    def _tell_trackers(self, call: Callable[[Any], None]) -> None:
        for tracker in self._trackers:
            try:
                call(tracker)
            except Exception as error:  # each has errors of its own, such as for a lost connection
                note_once(f"a tracker misses rows that metrics.jsonl has: {error}")


def _finite(value: Any) -> Any:
    """A JSON value with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ProgressLine:
    """One line on a terminal, rewritten in place; in a log file, one line every 30 seconds."""

    PLAIN_EVERY = 30.0

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = -math.inf

    def show(self, text: str, now: float) -> None:
        if self._live:
            print(f"\r\x1b[2K{text}", end="", file=self._stream, flush=True)
        elif now - self._last >= self.PLAIN_EVERY:
            self._last = now
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._live:
            print(file=self._stream, flush=True)
