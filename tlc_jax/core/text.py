"""Text for people: suggestions, numbers and tables."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known name, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


@functools.cache
def note_once(text: str) -> None:
    """One line on stderr, once per process, however many files or jobs have a reason for it."""
    print(f"tlc: note: {text}", file=sys.stderr)


def one_line(text: object) -> str:
    """The text of anything, such as an error, with every run of white space as one space."""
    return " ".join(str(text).split())


def number(value: float | None, spec: str = ",.0f", missing: str = "-") -> str:
    """A number in a format of Python, or what to show where it is unknown."""
    return missing if value is None else format(value, spec)


def percent(share: float | None, digits: int = 1, missing: str = "-") -> str:
    """A share from 0 to 1 as a percentage."""
    return number(share, f".{digits}%", missing)


def byte_size(count: float) -> str:
    """Bytes in the unit of 2^10, 2^20 or 2^30 that suits them."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        # From half a unit on, so that a few hundred MiB read as MiB and 0.6 GiB as GiB.
        if count >= 2 ** (shift - 1):
            return f"{count / 2**shift:,.2f} {unit}"
    return f"{count:,.0f} B"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, the first row a heading; columns of numbers go right.

    "" and "-" count as numbers and as words.
    """
    from tabulate import tabulate  # here, because help and refusals need no table

    cells = [[str(cell) for cell in row] for row in rows]
    columns = [
        [cell for cell in column if cell not in ("", "-")]
        for column in zip(*cells[1:], strict=True)
    ]
    numeric = [bool(column) and all(cell[0].isdigit() for cell in column) for column in columns]
    text = tabulate(
        cells,  # the heading too: as `headers`, tabulate would pad it
        tablefmt="plain",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["right" if right else "left" for right in numeric],
    )
    return "\n".join(line.rstrip() for line in text.splitlines())
