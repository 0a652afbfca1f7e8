"""Files that are written whole or not at all, and locks that end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from tlc_jax.core.errors import InputError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; the file takes its place at `path` when the block ends.

    A reader finds the old file or the new one, never a part of it, even after a crash.
    """
    # The process id keeps two writers apart; the suffix stays, because np.savez would add its own.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        # Without fsync, some file systems rename first and write later: a crash would leave an
        # empty file.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file at once; see `atomic`."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file at once; see `atomic`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes mappings, tuples, paths, and NumPy or JAX arrays as plain JSON; see `atomic`."""
    write_text(path, json.dumps(content, indent=2, default=_jsonable) + "\n")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      InputError: the file is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON, perhaps cut short ({error})") from error


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
      holder: id of that process, or "unknown".
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"locked by process {holder}")
        self.holder = holder


class Lock:
    """An exclusive lock on a file, until `close` or until the process ends, however it ends."""

    # flock itself, not the library filelock: that one cannot ask who holds a lock without taking
    # it, and on file systems without flock it falls back to a file that outlives a killed process.

    def __init__(
        self, path: Path, wait: bool = True, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        """Takes the lock.

        Args:
          path: lock file, made where it does not exist. It is never removed: a process that waits
            on a removed file would take a lock that nobody else sees.
          wait: whether to wait until the lock is free.
          on_wait: function that is called once before waiting.

        Raises:
          LockedError: the lock is not free and `wait` is False.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # "a+" truncates nothing: the holder's number stays readable to whoever is turned away.
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                with self._file:
                    self._file.seek(0)
                    raise LockedError(self._file.read().strip() or "unknown") from None
            on_wait()
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Whether a process holds the `Lock` on this file."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            # Shared, so that several processes can ask at once without finding one another.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file, which a kill can cut short; none without a file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
