"""Files that are written whole or not at all, and locks that end with their process.

A path is local or in object storage (`path_of`). What the two do in different ways is here: to
write a file at once, to remove a folder, to lock. All else is `pathlib`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

from tlc_jax.core.errors import InputError

if TYPE_CHECKING:  # few runs are in object storage
    from tlc_jax.core import object_storage


def scheme_of(text: str) -> str:
    """`gs` of `gs://bucket/run`; empty for a local path."""
    scheme, separator, _ = text.partition("://")
    return scheme if separator and scheme.isalnum() else ""


def path_of(text: str | Path) -> Path:
    """The path that a user gives: a local one, or one in object storage (`gs://`, `s3://`).

    Raises:
      InputError: it cannot be used; the message says why.
    """
    if isinstance(text, str) and scheme_of(text):
        from tlc_jax.core import object_storage

        return object_storage.open_path(text)
    return Path(text).expanduser() if isinstance(text, str | PurePath) else text


def is_remote(path: Path) -> bool:
    """Whether a path is in object storage."""
    return not isinstance(path, PurePath)


def existing(folder: Path) -> Callable[[Path], bool]:
    """A function that says which files under a folder exist.

    In object storage it lists the folder once, because many questions would take a request each.
    """
    if not is_remote(folder):
        return lambda path: path.exists()
    names = set(folder.fs.find(folder.path))  # type: ignore[attr-defined]
    return lambda path: path.path in names  # type: ignore[attr-defined]


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yields the file, or where it is in object storage a copy of it for as long as the block.

    Raises:
      FileNotFoundError: it does not exist.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        download(path, copy)
        yield copy


def download(path: Path, target: Path) -> None:
    """Copies an object into a local file."""
    with path.open("rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 24)


def upload(source: Path, path: Path) -> None:
    """Copies a local file into an object, which appears whole."""
    path.fs.put_file(str(source), path.path)  # type: ignore[attr-defined]


def upload_folder(source: Path, path: Path) -> None:
    """Copies the files of a local folder, and of those in it, into object storage."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            upload(file, path / file.relative_to(source).as_posix())


def folder_bytes(folder: Path) -> int:
    """The total length of the files under a folder."""
    if is_remote(folder):
        return int(folder.fs.du(folder.path))  # type: ignore[attr-defined]
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it, if it exists."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_dir():
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a local temporary path; the file takes its place at `path` when the block ends.

    A reader finds the old file or the new one, never a part of it, even after a crash.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, path.name)
            yield temporary
            upload(temporary, path)
        return
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


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty local folder to write to, which takes the place of `folder` in the end.

    In object storage its files appear one after the other.
    """
    if is_remote(folder):
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
            remove_folder(folder)
            upload_folder(Path(name), folder)
        return
    part = folder.with_name(f".{folder.name}.part")
    remove_folder(part)  # left by a run that was killed
    part.mkdir()
    try:
        yield part
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        # A folder of this name belongs to a run that ended before it could write its result.
        remove_folder(folder)
        part.replace(folder)
    finally:
        remove_folder(part)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file at once; see `atomic`."""
    if is_remote(path):
        path.write_bytes(content)
        return
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
    if hasattr(value, "parents"):
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
      holder: number of that process and, with a lease, its machine; or "unknown".
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"locked by process {holder}")
        self.holder = holder


class Lock:
    """An exclusive lock on a file, until `close` or until the process ends, however it ends.

    In object storage it is a lease: where the process ends without `close`, or its machine loses
    the network, others of this machine get it at once and those elsewhere a minute later.
    """

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
        self._lease: object_storage.Lease | None = None
        if is_remote(path):
            from tlc_jax.core import object_storage

            try:
                self._lease = object_storage.Lease(path, wait, on_wait)
            except object_storage.HeldError as error:
                raise LockedError(str(error)) from None
            return
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
        if self._lease is not None:
            self._lease.close()
        else:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_locked(path: Path) -> bool:
    """Whether a process holds the `Lock` on this file."""
    if is_remote(path):
        from tlc_jax.core import object_storage

        return object_storage.is_held(path)
    if not path.exists():
        return False
    with path.open() as file:
        try:
            # Shared, so that several processes can ask at once without finding one another.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
