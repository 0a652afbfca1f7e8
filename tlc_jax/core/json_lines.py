"""A log of one JSON object per line, to which rows are added.

On a disk it is one file that is appended to. Object storage cannot append, so there it is several
objects, NAME-00000.jsonl and so on: one for each session, and another whenever one is full. The
newest is written again as a whole, every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from tlc_jax.core.files import is_remote, write_text
from tlc_jax.core.text import note_once

SECONDS = 5.0
"""How long a row may wait before it is written to object storage."""
_FULL = 1 << 18

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The complete lines of a log, which a kill can cut short; none without a file."""
    return [row for part in _parts(path) for row in _rows(part)]


def _parts(path: Path) -> list[Path]:
    """The files of a log, in order."""
    if not is_remote(path):
        return [path] if path.exists() else []
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"), key=str)


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:05d}{path.suffix}")


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a whole log, in place of the one that is there."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    first = _part(path, 0) if is_remote(path) else path
    write_text(first, text)
    for part in _parts(path):
        if part != first:
            part.unlink()


def _rows(part: Path) -> Iterator[Row]:
    for line in part.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


class JsonLines:
    """Adds rows to a log.

    Args:
      path: the log; in object storage the name that its parts are made from.
      keep: of the rows that are there, those to keep; the others are removed.
    """

    def __init__(self, path: Path, keep: Callable[[Row], bool]) -> None:
        self._path, self._number = path, 0
        for part in _parts(path):
            if is_remote(path):
                self._number = 1 + int(part.stem.rpartition("-")[2])
            rows = list(_rows(part))
            kept = [row for row in rows if keep(row)]
            # On a disk also where all are kept: the last line may be cut short.
            if not is_remote(path) or len(kept) < len(rows):
                write_text(part, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = None if is_remote(path) else path.open("a", encoding="utf-8")
        self._text, self._written = "", 0
        # Two, because a row must not wait for storage.
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        if self._file is None:
            self._thread = threading.Thread(target=self._write_often, daemon=True)
            self._thread.start()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row; in object storage it may take `SECONDS` to get there, or until `flush`."""
        line = json.dumps(row) + "\n"
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
            return
        with self._lock:
            self._text += line

    def flush(self) -> None:
        """Returns once all rows are stored."""
        if self._file is not None:
            return
        with self._writing:
            with self._lock:
                text = self._text
            if len(text) > self._written:
                write_text(_part(self._path, self._number), text)
                self._written = len(text)
            if self._written > _FULL:
                with self._lock:
                    self._text = self._text[self._written :]
                self._number, self._written = self._number + 1, 0

    def _write_often(self) -> None:
        while not self._ending.wait(SECONDS):
            try:
                self.flush()
            except Exception as error:  # storage is away; the rows are kept and written later
                note_once(f"rows of {self._path} wait for storage: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stores what is left."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        if self._file is not None:
            self._file.close()
