"""Files that a source names, on a disk or in object storage; their paths are text."""

from __future__ import annotations

import glob
import os
from typing import IO, Any, cast

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, scheme_of


def matching(pattern: str) -> list[str]:
    """The path itself if it exists, or else what a glob matches, sorted."""
    if not (scheme := scheme_of(pattern)):
        pattern = os.path.expanduser(pattern)
        return [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    path: Any = path_of(pattern)
    if path.exists():
        return [pattern]
    found = path.fs.glob(path.path) if glob.has_magic(pattern) else []
    return sorted(f"{scheme}://{name}" for name in found)


def is_folder(path: str) -> bool:
    """Whether a path is a folder."""
    return path_of(path).is_dir()


def is_file(path: str) -> bool:
    """Whether a path is a regular file: neither a folder nor a pipe."""
    return path_of(path).is_file()


def readable(path: str) -> bool:
    """Whether this process may read a file; in object storage only reading tells."""
    return bool(scheme_of(path)) or os.access(path, os.R_OK)


def size(path: str) -> int:
    """Bytes of a file."""
    return int(path_of(path).stat().st_size)


def version(path: str) -> str:
    """What changes when a file changes: size and time, or its generation in object storage."""
    if not scheme_of(path):
        status = os.stat(path)
        return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
    place: Any = path_of(path)
    about = place.fs.info(place.path)
    mark = about.get("generation") or about.get("ETag") or about.get("etag")
    if not mark:
        raise InputError(f"{path}: this storage does not say when an object changes")
    return f"{path} {about['size']} {mark}"


def open_binary(path: str | int) -> IO[bytes]:
    """A file, or a descriptor that is open, to read bytes from."""
    if isinstance(path, str) and scheme_of(path):
        return cast(IO[bytes], path_of(path).open("rb"))
    return open(path, "rb")
