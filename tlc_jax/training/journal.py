"""What a run tells of itself: rows of metrics.jsonl, the progress line, and the numbers of its result.

In a run of several processes the first one writes; the others keep the same books and stay silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlc_jax.core import distributed as processes
from tlc_jax.training.budget import Ledger
from tlc_jax.training.metrics import MetricsWriter, ProgressLine
from tlc_jax.training.step import StepMetrics


class Journal:
    """The records of one training run.

    Attributes:
      ledger: what the run has spent so far, kept by the training loop.
    """

    def __init__(
        self,
        workdir: Path,
        ledger: Ledger,
        step: int,
        learning_rate: Callable[[float], float],
        peak_flops: float | None,
        tensorboard: bool,
    ) -> None:
        """Args:
        step: that the run continues from.
        learning_rate: of the fraction of the budget that is used.
        peak_flops: of all devices together; None where unknown.
        """
        self.ledger, self._learning_rate, self._peak_flops = ledger, learning_rate, peak_flops
        self._writer: MetricsWriter | None = None
        if processes.first():
            self._writer = MetricsWriter(workdir, step, tensorboard)
            if self._writer.dropped_until is not None:
                ledger.seconds["lost"] += max(0.0, self._writer.dropped_until - ledger.total)
        self._progress = ProgressLine() if processes.first() else None
        self._recent: list[StepMetrics] = []
        self._logged_seconds, self._logged_tokens = ledger.seconds["train"], ledger.spent.tokens

    def close(self) -> None:
        for part in (self._writer, self._progress):
            if part is not None:
                part.close()

    def add(self, metrics: StepMetrics) -> None:
        """Takes in the result of a step, to be averaged in the next line."""
        self._recent.append(metrics)

    @property
    def unlogged_seconds(self) -> float:
        """Training seconds since the last line."""
        return self.ledger.seconds["train"] - self._logged_seconds

    def row(self, event: str, step: int, **values: Any) -> None:
        """One row of metrics.jsonl."""
        if self._writer is not None:
            self._writer.write(
                event,
                step,
                train_seconds=self.ledger.spent.seconds,
                total_seconds=self.ledger.total,
                tokens=self.ledger.spent.tokens,
                **values,
            )

    def log(self, step: int, fraction: float, unit: str) -> None:
        """A train row and the progress line, of the steps since the last ones.

        Args:
          step: reached.
          fraction: of the budget that is used, and the unit that it is used in.
        """
        if not self._recent:
            return
        spent, trained = self.ledger.spent, self.ledger.seconds["train"]
        seconds, tokens = trained - self._logged_seconds, spent.tokens - self._logged_tokens
        pace = tokens / seconds if seconds > 0 else math.nan
        values = {
            "loss": float(np.mean([m.loss for m in self._recent])),
            "accuracy": float(np.mean([m.accuracy for m in self._recent])),
            "gradient_norm": float(self._recent[-1].gradient_norm),
            "learning_rate": self._learning_rate(min(1.0, fraction)),
            "tokens_per_second": pace,
            "mfu": self._mfu(),
        }
        self.row("train", step, **values)
        left = trained * (1 - fraction) / fraction if fraction > 0 else math.nan
        mfu = f" | mfu {values['mfu']:.1%}" if values["mfu"] is not None else ""
        if self._progress is not None:
            self._progress.show(
                f"step {step:,} | {min(1.0, fraction):.0%} of {unit} | {left:.0f} s left | loss {values['loss']:.3f}"
                f" | {pace:,.0f} tokens/s{mfu} | goodput {self.ledger.goodput()['train']:.0%}",
                self.ledger.clock(),
            )
        self._recent = []
        self._logged_seconds, self._logged_tokens = trained, spent.tokens

    def _mfu(self) -> float | None:
        seconds = self.ledger.seconds["train"]
        if self._peak_flops is None or seconds == 0:
            return None
        return self.ledger.spent.flops / seconds / self._peak_flops

    def numbers(self) -> dict[str, Any]:
        """What every training stage reports of the time and work that a run took."""
        spent, seconds = self.ledger.spent, self.ledger.save()["seconds"]
        return {
            "steps": spent.steps,
            "examples": spent.examples,
            "tokens": spent.tokens,
            "epochs": spent.epochs,
            "flops": spent.flops,
            "train_seconds": spent.seconds,
            "seconds": seconds,
            "goodput": self.ledger.goodput(),
            "tokens_per_second": spent.tokens / seconds["train"] if seconds["train"] else None,
            "mfu": self._mfu(),
        }
