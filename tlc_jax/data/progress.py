"""A progress bar on stderr: redrawn in place on a terminal, one closing line elsewhere."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """`title [##########..............]  42%  3.10M tokens  2.20M tokens/s`."""

    def __init__(self, title: str, unit: str, show: bool = True) -> None:
        super().__init__(
            desc=title,
            unit=f" {unit}",
            unit_scale=True,
            disable=not show,
            mininterval=0.2,
            miniters=1,  # by the clock alone: tqdm's guess at the speed would skip redraws
            leave=False,  # unless finished: an error is the last line
            ascii=".#",
            bar_format="{desc} [{bar:24}] {percentage:3.0f}%  {n_fmt}{unit}  {rate_noinv_fmt}",
        )

    def display(self, *args: Any, **named: Any) -> bool:
        """Draws the bar on a terminal. Elsewhere only `finish` draws, so that logs stay short."""
        return (self.fp.isatty() or self.leave) and super().display(*args, **named)

    def reach(self, count: int, fraction: float | None) -> None:
        """Moves the bar.

        Args:
          count: units done.
          fraction: share of all work that they are, from 0 to 1; None: unknown.
        """
        # The number of units is not known in advance, but it follows from the share that is done.
        self.total = count / min(fraction, 1.0) if fraction else None
        self.update(count - self.n)

    def finish(self, count: int) -> None:
        """Draws the full bar and ends its line."""
        self.reach(count, 1.0)
        self.leave = True
        self.close()
