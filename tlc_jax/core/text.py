"""Text for people: suggestions, numbers and tables."""

from __future__ import annotations

import difflib
import functools
import math
import sys
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


@functools.cache
def note_once(text: str) -> None:
    """Prints a line on stderr, once per process, however many files or jobs cause it."""
    print(f"tlc: note: {text}", file=sys.stderr)


def one_line(text: object) -> str:
    """The text of any object, such as an error, with each run of white space as one space."""
    return " ".join(str(text).split())


def number(value: float | None, spec: str = ",.0f", missing: str = "-") -> str:
    """A number in a format of Python, or `missing` where it is None or NaN."""
    return missing if value is None or math.isnan(value) else format(value, spec)


def byte_size(count: float) -> str:
    """A number of bytes in B, KiB, MiB or GiB (2^10, 2^20 and 2^30 bytes)."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        # From half a unit on, so that a few hundred MiB read as MiB and 0.6 GiB as GiB.
        if count >= 2 ** (shift - 1):
            return f"{count / 2**shift:,.2f} {unit}"
    return f"{count:,.0f} B"


def table(rows: Sequence[Sequence[object]]) -> str:
    """A text table with aligned columns; columns of numbers go to the right.

    Args:
      rows: a heading and the rows below it. The cells "" and "-" count as numbers and as words.
    """
    from tabulate import tabulate  # here, because help and refusals need no table

    cells = [[str(cell) for cell in row] for row in rows]
    align = []
    for column in zip(*cells[1:], strict=True):
        filled = [cell for cell in column if cell not in ("", "-")]
        numeric = filled and all(cell[0].isdigit() for cell in filled)
        align.append("right" if numeric else "left")
    text = tabulate(
        cells,  # the heading too: as `headers`, tabulate would pad it
        tablefmt="plain",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=align,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())
